//! The metrics that the Kinesis Producer Library has are told under its names.

#![allow(clippy::unwrap_used, reason = "this is test code")]

mod fake;

use fake::{FakeBroker, Fault};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use std::collections::{HashMap, HashSet};
use std::time::Duration;
use tidemill_producer::{Config, ErrorKind, PartitionKey, Producer, Record};

// one test alone in its process: there is one recorder
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happens_is_told_under_the_names_of_the_kpl() {
    let recorder = DebuggingRecorder::new();
    let snapshots = recorder.snapshotter();
    recorder.install().unwrap();
    let broker = FakeBroker::start().await;
    broker.model().create("s", 2);
    broker.model().script = [Some(Fault::Refuse(ErrorKind::Throttled))].into();
    let config = Config::new(&broker.url()).unwrap().record_deadline(Duration::from_millis(400)).unwrap();
    let producer = Producer::new(config).await.unwrap();
    let put = |n: u32| {
        let record = Record::new(PartitionKey::new(&format!("k{n}")).unwrap(), vec![0; 100]).unwrap();
        producer.put("s", record)
    };
    for n in 0..100 {
        drop(put(n).await.unwrap());
    }
    producer.flush().await.unwrap();
    broker.model().always = Some(Fault::Silence);
    let late = put(0).await.unwrap();
    let pending = producer.stats().pending_records;
    late.await.unwrap_err();
    assert_eq!(pending, 1);

    let (mut sums, mut labels) = (HashMap::<String, f64>::new(), HashMap::<String, HashSet<String>>::new());
    for (key, _, _, value) in snapshots.snapshot().into_vec() {
        let key = key.key();
        let value = match value {
            DebugValue::Counter(count) => count as f64,
            DebugValue::Gauge(gauge) => gauge.0,
            DebugValue::Histogram(values) => values.iter().map(|value| value.0).sum(),
        };
        *sums.entry(key.name().to_owned()).or_default() += value;
        labels
            .entry(key.name().to_owned())
            .or_default()
            .extend(key.labels().map(|label| label.key().to_owned()));
        assert!(key.labels().any(|label| label.key() == "StreamName" && label.value() == "s"), "{key:?}");
    }
    assert_eq!(sums["UserRecordsReceived"], 101.0);
    assert_eq!(sums["UserRecordsPending"], 0.0);
    assert_eq!(sums["UserRecordsPut"], 100.0);
    assert_eq!(sums["UserRecordsDataPut"], 10_000.0);
    assert_eq!(sums["UserRecordExpired"], 1.0);
    assert_eq!(sums["AllErrors"], sums["ErrorsByCode"]);
    assert_eq!(sums["ErrorsByCode"], 2.0, "a refusal and an expiry");
    assert_eq!(sums["UserRecordsPerKinesisRecord"], 100.0);
    assert!(sums["RetriesPerRecord"] >= 1.0 && sums["RequestTime"] > 0.0);
    assert!(sums["BufferingTime"] >= 100.0 * 5.0, "each lingered: {}", sums["BufferingTime"]);
    assert!(sums["KinesisRecordsPut"] >= 2.0 && sums["KinesisRecordsDataPut"] > 10_000.0);
    assert!(labels["ErrorsByCode"].contains("ErrorCode") && labels["ErrorsByCode"].contains("ShardId"));
}
