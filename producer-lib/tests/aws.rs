//! What the producer does with Amazon Kinesis, shown against one that fails in every way it can.

#![allow(clippy::unwrap_used, reason = "this is test code")]

mod kinesis;

use kinesis::{FakeKinesis, Fault, Stored};
use std::collections::{HashMap, HashSet};
use std::time::Duration;
use tidemill_producer::{
    Aws, Config, Error, ErrorKind, HashKey, PartitionKey, Placed, Producer, Record, Ticket,
};
use tidemill_proto::aggregate;
use tokio::time::{Instant, timeout};

fn aws(fake: &FakeKinesis) -> Aws {
    let aws = Aws::from_env().endpoint(&fake.url()).unwrap().region("us-east-1").credentials("id", "secret");
    aws.without_rate_limit().request_deadline(Duration::from_millis(500)).unwrap()
}

fn config(aws: Aws) -> Config {
    Config::aws(aws).linger(Duration::from_millis(10)).unwrap()
}

async fn producer(fake: &FakeKinesis) -> Producer {
    Producer::new(config(aws(fake))).await.unwrap()
}

fn record(key: &str, data: impl Into<bytes::Bytes>) -> Record {
    Record::new(PartitionKey::new(key).unwrap(), data).unwrap()
}

async fn resolve(tickets: Vec<Ticket>) -> Vec<Result<Placed, Error>> {
    let mut results = Vec::new();
    for ticket in tickets {
        results.push(timeout(Duration::from_secs(20), ticket).await.expect("a ticket hangs"));
    }
    results
}

async fn put_numbered(producer: &Producer, count: u64) -> Vec<Ticket> {
    let mut tickets = Vec::new();
    for id in 0..count {
        let record = record(&format!("key-{}", id % 40), id.to_le_bytes().to_vec());
        tickets.push(producer.put("s", record).await.unwrap());
    }
    tickets
}

/// The records of users in a record of the stream.
fn user_records(stored: &Stored) -> Vec<Record> {
    match aggregate::unpack(&stored.data.clone().into()) {
        Some(records) => records.collect(),
        None => vec![record(&stored.key, stored.data.clone()).with_explicit_hash(stored.hash)],
    }
}

fn id_of(record: &Record) -> u64 {
    u64::from_le_bytes(record.data()[..].try_into().unwrap())
}

/// Where the KCL finds each record: containers with a misfit are dropped whole.
fn readable(fake: &FakeKinesis) -> HashMap<u64, Vec<(u32, String, u64)>> {
    let model = fake.model();
    let mut found: HashMap<_, Vec<_>> = HashMap::new();
    for (shard, stored) in model.stored() {
        let range = model.shards[&shard].range;
        let records = user_records(&stored);
        if records.iter().all(|record| range.contains(record.hash_key())) {
            for (sub, record) in (0..).zip(records) {
                found.entry(id_of(&record)).or_default().push((shard, stored.number.clone(), sub));
            }
        }
    }
    found
}

/// Every ticket tells a place where a reader finds its record.
fn check(fake: &FakeKinesis, results: &[Result<Placed, Error>]) {
    let found = readable(fake);
    for (id, placed) in (0u64..).zip(results) {
        let placed = placed.as_ref().unwrap();
        let place = (placed.shard.get(), placed.number.to_string(), placed.sub);
        assert!(found.get(&id).is_some_and(|places| places.contains(&place)), "{id} is not at {place:?}");
    }
}

#[tokio::test]
async fn what_is_sent_is_what_the_kpl_sends() {
    let fake = FakeKinesis::start(1).await;
    let producer = producer(&fake).await;
    let world = record("pk2", "world").with_explicit_hash(HashKey::new(123));
    let tickets = vec![
        producer.put("s", record("pk1", "hello")).await.unwrap(),
        producer.put("s", world).await.unwrap(),
    ];
    let placed: Vec<_> = resolve(tickets).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(placed[0].number, placed[1].number, "they share the record of the stream");
    assert_eq!((placed[0].sub, placed[1].sub), (0, 1));
    resolve(vec![producer.put("s", record("alone", "data")).await.unwrap()]).await;
    let stored = fake.model().stored();
    let [(_, both), (_, alone)] = &stored[..] else { panic!("{stored:?}") };
    let hex: String = both.data.iter().map(|byte| format!("{byte:02x}")).collect();
    let vector = "f3899ac20a03706b310a03706b3212033132331a0908001a0568656c6c6f1a0b080110001a05776f726c64\
                  cb48b8211afb3c05f4c31852c9aff58e";
    assert_eq!(hex, vector);
    assert_eq!((both.key.as_str(), both.hash), ("a", HashKey::of("pk1")));
    assert_eq!(
        (alone.key.as_str(), alone.hash, &alone.data[..]),
        ("alone", HashKey::of("alone"), &b"data"[..])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_collected_within_the_limits() {
    let fake = FakeKinesis::start(8).await;
    let limits = aws(&fake).aggregation_bytes(2000).unwrap().collection_records(7).unwrap();
    let producer = Producer::new(config(limits)).await.unwrap();
    let results = resolve(put_numbered(&producer, 4000).await).await;
    check(&fake, &results);
    let stored = fake.model().stored();
    let requests = fake.model().requests.clone();
    assert!(stored.iter().all(|(_, stored)| stored.data.len() <= 2000));
    assert!(requests.iter().all(|entries| *entries <= 7), "{requests:?}");
    assert!(requests.contains(&7), "nothing was collected: {requests:?}");
    assert_eq!(readable(&fake).len(), 4000);
    let plain = Producer::new(config(aws(&fake).without_aggregation())).await.unwrap();
    let results = resolve(put_numbered(&plain, 300).await).await;
    assert!(results.iter().all(|placed| placed.as_ref().unwrap().sub == 0));
    let stored = fake.model().stored();
    let plain = stored.iter().filter(|(_, stored)| stored.data.len() == 8).count();
    assert!(plain >= 300, "{plain} plain records");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_entries_are_sent_again_and_the_others_are_not() {
    let fake = FakeKinesis::start(4).await;
    fake.model().script = [Some(Fault::ThrottleSome); 5].into();
    let limits = aws(&fake).aggregation_records(5).unwrap();
    let producer = Producer::new(config(limits)).await.unwrap();
    let results = resolve(put_numbered(&producer, 1000).await).await;
    check(&fake, &results);
    let found = readable(&fake);
    assert!(found.values().all(|places| places.len() == 1), "a record is stored twice");
    assert!(results.iter().flatten().any(|placed| placed.attempts > 1));
    assert_eq!(producer.stats().memory_used_bytes, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_refused_are_sent_again() {
    let fake = FakeKinesis::start(2).await;
    fake.model().script = [
        Fault::Refuse(400, "ProvisionedThroughputExceededException"),
        Fault::Refuse(400, "LimitExceededException"),
        Fault::Refuse(503, "ServiceUnavailable"),
        Fault::Refuse(400, "com.amazon.coral.service#ExpiredTokenException"),
    ]
    .map(Some)
    .into();
    let producer = producer(&fake).await;
    let results = resolve(put_numbered(&producer, 100).await).await;
    check(&fake, &results);
    assert!(readable(&fake).values().all(|places| places.len() == 1), "a record is stored twice");
    fake.model().always = Some(Fault::Refuse(400, "AccessDeniedException"));
    let error = resolve(put_numbered(&producer, 1).await).await.remove(0).unwrap_err();
    assert_eq!((error.kind(), error.attempts_made()), (ErrorKind::Invalid, 1), "{error:?}");
    assert!(error.message().contains("AccessDenied"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn throttling_is_told_as_the_cause_or_fails_at_once() {
    let fake = FakeKinesis::start(1).await;
    fake.model().always = Some(Fault::ThrottleSome);
    let patient = config(aws(&fake)).record_deadline(Duration::from_millis(400)).unwrap();
    let producer = Producer::new(patient.return_failed()).await.unwrap();
    let mut tries = 0..20;
    let error = loop {
        assert!(
            tries.next().is_some(),
            "never refused three times before its deadline without an attempt under way then"
        );
        let error = resolve(put_numbered(&producer, 1).await).await.remove(0).unwrap_err();
        assert!(error.attempts().iter().all(|attempt| attempt.kind == ErrorKind::Throttled), "{error:?}");
        match error.kind() {
            ErrorKind::Throttled if error.attempts_made() > 2 => break error,
            // the machine was too busy to send it again
            ErrorKind::Throttled => {}
            // an attempt was under way at the deadline: nobody knows what became of it
            kind => assert_eq!(kind, ErrorKind::UnknownOutcome, "{error:?}"),
        }
    };
    assert!(error.message().contains("within its deadline"), "{error:?}");
    assert!(error.message().contains("Rate exceeded for shard"), "the expiry hides its cause: {error:?}");
    assert!(error.attempts().len() > 2, "{error:?}");
    let (first, second) = (&error.attempts()[0], &error.attempts()[1]);
    assert!(first.delay >= Duration::from_millis(9), "it lingered first: {first:?}");
    assert!(first.duration > Duration::ZERO && second.kind == ErrorKind::Throttled, "{second:?}");
    assert_eq!(error.record().map(id_of), Some(0));

    let hasty = Producer::new(config(aws(&fake).fail_if_throttled())).await.unwrap();
    let error = resolve(put_numbered(&hasty, 1).await).await.remove(0).unwrap_err();
    assert_eq!((error.kind(), error.attempts_made()), (ErrorKind::Throttled, 1), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_unknown_outcome_a_record_is_sent_again_unless_that_is_forbidden() {
    for fault in [Fault::FailAfter, Fault::HangAfter, Fault::AnswerShort] {
        let fake = FakeKinesis::start(1).await;
        fake.model().script = [Some(fault)].into();
        let again = producer(&fake).await;
        let results = resolve(put_numbered(&again, 20).await).await;
        check(&fake, &results);
        assert!(results.iter().flatten().all(|placed| placed.attempts == 2), "{fault:?}");
        let copies: Vec<_> = readable(&fake).into_values().map(|places| places.len()).collect();
        assert_eq!(copies, [2; 20], "{fault:?}: the service knows no repetition");

        fake.model().script = [Some(fault)].into();
        let once = Producer::new(config(aws(&fake).fail_if_unknown())).await.unwrap();
        for result in resolve(put_numbered(&once, 20).await).await {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::UnknownOutcome, "{fault:?}");
        }
        let copies: Vec<_> = readable(&fake).into_values().map(|places| places.len()).collect();
        assert_eq!(copies, [3; 20], "{fault:?}: it was sent again");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aggregate_that_a_split_tore_apart_is_sent_again_as_a_whole() {
    for stale_lists in [0, 3] {
        let fake = FakeKinesis::start(1).await;
        let producer = producer(&fake).await;
        producer.open("s").await.unwrap();
        {
            let mut model = fake.model();
            model.script = [Some(Fault::SplitBefore(0))].into();
            model.stale_lists = stale_lists;
        }
        let results = resolve(put_numbered(&producer, 200).await).await;
        check(&fake, &results);
        let shards: HashSet<_> = results.iter().flatten().map(|placed| placed.shard.get()).collect();
        assert_eq!(shards, HashSet::from([1, 2]));
        assert!(readable(&fake).values().all(|places| places.len() == 1), "readers see a record twice");
        assert_eq!(fake.model().stored().len(), 3, "the torn one and one for each child");
        assert!(producer.stats().rerouted > 0);
        let results = resolve(put_numbered(&producer, 200).await).await;
        assert!(results.iter().flatten().all(|placed| placed.attempts == 1), "the new shards are known");
        assert_eq!(producer.stats().memory_used_bytes, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aggregate_that_fits_the_child_that_took_it_is_not_sent_again() {
    let fake = FakeKinesis::start(1).await;
    let producer = producer(&fake).await;
    producer.open("s").await.unwrap();
    fake.model().script = [Some(Fault::SplitBefore(0))].into();
    let tickets = (0..50u64).map(|id| producer.try_put("s", record("one key", id.to_le_bytes().to_vec())));
    let tickets: Vec<_> = tickets.map(Result::unwrap).collect();
    let results = resolve(tickets).await;
    check(&fake, &results);
    assert!(results.iter().flatten().all(|placed| placed.attempts == 1 && placed.shard.get() > 0));
    assert_eq!(fake.model().stored().len(), 1, "it was sent once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ordered_records_of_a_shard_are_never_under_way_twice_and_stay_in_order() {
    let fake = FakeKinesis::start(3).await;
    {
        let mut model = fake.model();
        model.delay = Duration::from_millis(3);
        // each split is of a shard that is open by then
        for split in 0..4 {
            let unavailable = Fault::Refuse(503, "ServiceUnavailable");
            let round =
                [Some(Fault::ThrottleSome), None, Some(Fault::SplitBefore(split)), Some(unavailable), None];
            model.script.extend(round);
        }
    }
    let limits = aws(&fake).aggregation_records(8).unwrap();
    let config = config(limits).linger(Duration::from_millis(1)).unwrap().ordered();
    let producer = Producer::new(config).await.unwrap();
    let results = resolve(put_numbered(&producer, 3000).await).await;
    check(&fake, &results);
    let model = fake.model();
    assert!(model.shards.len() > 7, "{} shards", model.shards.len());
    assert_eq!(model.together_max, 1, "entries of a shard raced");
    let mut last: HashMap<String, u64> = HashMap::new();
    let mut seen = HashSet::new();
    for (shard, stored) in model.stored() {
        let range = model.shards[&shard].range;
        for record in user_records(&stored).iter().filter(|record| range.contains(record.hash_key())) {
            if seen.insert(id_of(record)) {
                let before = last.insert(record.key().to_string(), id_of(record));
                assert!(
                    before.is_none_or(|before| before < id_of(record)),
                    "{before:?} lies before {}",
                    id_of(record)
                );
            }
        }
    }
    assert_eq!(seen.len(), 3000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_is_sent_no_faster_than_it_takes() {
    let fake = FakeKinesis::start(1).await;
    // 10 % of a shard: 100 records a second
    let slow = aws(&fake).without_aggregation().rate_limit_percent(10).unwrap();
    let producer = Producer::new(config(slow)).await.unwrap();
    let began = Instant::now();
    let results = resolve(put_numbered(&producer, 120).await).await;
    check(&fake, &results);
    let took = began.elapsed();
    assert!((800..3000).contains(&took.as_millis()), "{took:?} for 120 records at 100 a second");
}

#[tokio::test]
async fn what_the_stream_would_refuse_is_refused_before_it_spoils_a_request() {
    let fake = FakeKinesis::start(1).await;
    let producer = producer(&fake).await;
    let too_large = producer.put("s", record("k", vec![0; 1 << 20])).await.unwrap_err();
    assert_eq!(too_large.kind(), ErrorKind::Invalid);
    let keyless = Record::without_key(HashKey::MIN, "x").unwrap();
    assert_eq!(producer.put("s", keyless).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(producer.stats().memory_used_bytes, 0);
    resolve(vec![producer.put("s", record("k", vec![0; (1 << 20) - 1])).await.unwrap()])
        .await
        .remove(0)
        .unwrap();
}

#[tokio::test]
async fn a_service_that_is_not_there_is_told_when_the_first_record_is_put() {
    let nobody = Aws::from_env().endpoint("http://127.0.0.1:1").unwrap().credentials("id", "secret");
    let producer = Producer::new(Config::aws(nobody.region("us-east-1"))).await.unwrap();
    let error = producer.put("s", record("k", "x")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.message().contains("listing the shards"), "{error:?}");
}
