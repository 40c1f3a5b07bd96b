//! More than the broker can take: memory stays bounded, errors are clear and may be repeated, small streams stay usable beside a
//! greedy one, and soon after it is over everything is as before.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tidemill_tests::load::{Loading, STREAM};
use tidemill_tests::{Broker, Connection, run, tell};
use tokio::time::{Instant, sleep, timeout};

/// Resident memory under whatever load (MiB): the rooms of ARCHITECTURE.md (bodies and replies 512, messages, pages, events and
/// queues 256 each) and 64 for everything else.
const MEMORY_MAX_MIB: u64 = 1600;
/// With records of 10 MiB each request that is decoded has its tree and its records besides.
const LARGE_MEMORY_MAX_MIB: u64 = 2400;
/// After the load a put is answered again within this.
const CALM: Duration = Duration::from_secs(5);

/// Answers by status and exception.
type Answers = BTreeMap<String, usize>;

fn exception(body: &[u8]) -> String {
    serde_json::from_slice::<Value>(body)
        .ok()
        .and_then(|body| Some(body["__type"].as_str()?.to_owned()))
        .unwrap_or_default()
}

/// Puts as fast as it goes until told to stop, each time the same body.
async fn put_on(
    broker: &Broker,
    body: Arc<String>,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
) -> Result<Answers> {
    let mut kinesis = broker.kinesis();
    let mut answers = Answers::new();
    while !stop.load(Ordering::Relaxed) {
        let called = timeout(Duration::from_secs(30), kinesis.call("PutRecords", body.as_bytes())).await;
        let answer = match called.context("an answer comes, whatever it is")? {
            Ok(reply) if reply.status == 200 => {
                done.fetch_add(1, Ordering::Relaxed);
                let failed = reply.json()?["FailedRecordCount"].as_u64();
                format!("200, failed: {}", failed > Some(0))
            }
            Ok(reply) => format!("{} {}", reply.status, exception(&reply.body)),
            Err(_) => "connection broken".to_owned(),
        };
        *answers.entry(answer).or_default() += 1;
    }
    Ok(answers)
}

fn records(stream: &str, count: usize, bytes: usize) -> Arc<String> {
    let data = "QUFB".repeat(bytes / 3);
    let all: Vec<_> = (0..count).map(|n| json!({ "Data": data, "PartitionKey": format!("k{n}") })).collect();
    Arc::new(json!({ "StreamName": stream, "Records": all }).to_string())
}

/// Runs a crowd for some seconds; its answers, and the most memory the broker had.
async fn crowd(
    broker: &Arc<Broker>,
    size: usize,
    body: &Arc<String>,
    seconds: u64,
) -> Result<(Answers, u64, usize)> {
    let (stop, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
    let mut tasks = Vec::new();
    for _ in 0..size {
        let (broker, body, stop, done) =
            (Arc::clone(broker), Arc::clone(body), Arc::clone(&stop), Arc::clone(&done));
        tasks.push(tokio::spawn(async move { put_on(&broker, body, stop, done).await }));
    }
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut most = 0;
    while Instant::now() < until {
        most = most.max(broker.resident_kib()? / 1024);
        sleep(Duration::from_millis(100)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut answers = Answers::new();
    for task in tasks {
        for (answer, count) in task.await?? {
            *answers.entry(answer).or_default() += count;
        }
    }
    Ok((answers, most, done.load(Ordering::Relaxed)))
}

fn are_clear(answers: &Answers) -> Result<()> {
    for answer in answers.keys() {
        let clear = answer.starts_with("200")
            || answer.contains("ProvisionedThroughputExceeded")
            || answer.contains("ServiceUnavailable")
            || answer.contains("LimitExceeded");
        ensure!(clear, "an answer that tells nobody what to do: {answer:?} in {answers:?}");
    }
    Ok(())
}

/// The time of one put; it must come soon after a load.
async fn calm_again(broker: &Broker, stream: &str) -> Result<Duration> {
    let begun = Instant::now();
    let put = json!({ "StreamName": stream, "Data": "aGVsbG8=", "PartitionKey": "k" });
    timeout(CALM, broker.kinesis().ok("PutRecord", &put)).await.context("not calm in time")??;
    Ok(begun.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_producers_is_slowed_down_and_not_one_record_of_others_is_lost() -> Result<()> {
    let home = TempDir::new()?;
    let broker = Arc::new(Broker::start(&home.path().join("data"), &["--durability", "device"]).await?);
    broker.kinesis().create_stream("crowd", 4).await?;
    let loading = Loading::start(&broker).await?;
    loading.progress(200, Duration::from_secs(20)).await?;
    // a connection with one request under way is served at some hundred a second: these want far more than there is
    let body = records("crowd", 100, 9000);
    let (answers, most, done) = crowd(&broker, 128, &body, 8).await?;
    are_clear(&answers)?;
    ensure!(most < MEMORY_MAX_MIB, "{most} MiB");
    let calm = calm_again(&broker, "crowd").await?;
    loading.progress(200, Duration::from_secs(20)).await?;
    let load = loading.stop().await?;
    load.check(&broker, "128 producers of 0.9 MB a request").await?;
    ensure!(load.native_failures() == 0);
    tell(&format!(
        "overload, 128 producers: {done} requests, {answers:?}; memory {most} MiB; calm after {calm:?}"
    ));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_ten_mebibytes_from_many_are_taken_in_bounded_memory() -> Result<()> {
    let home = TempDir::new()?;
    let broker = Arc::new(Broker::start(&home.path().join("data"), &["--durability", "os"]).await?);
    let mut kinesis = broker.kinesis();
    kinesis.create_stream("large", 2).await?;
    let summary = kinesis.ok("DescribeStreamSummary", &json!({ "StreamName": "large" })).await?;
    let arn = &summary["StreamDescriptionSummary"]["StreamARN"];
    kinesis.ok("UpdateMaxRecordSize", &json!({ "StreamARN": arn, "MaxRecordSizeInKiB": 10_240 })).await?;
    let body = records("large", 1, (10 << 20) - 1000);
    let (answers, most, done) = crowd(&broker, 48, &body, 8).await?;
    are_clear(&answers)?;
    ensure!(done > 0, "none was taken: {answers:?}");
    ensure!(most < LARGE_MEMORY_MAX_MIB, "{most} MiB");
    let calm = calm_again(&broker, "large").await?;
    tell(&format!(
        "overload, 48 producers of 10 MiB records: {done} taken, {answers:?}; memory {most} MiB; calm after {calm:?}"
    ));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_do_not_read_and_a_flood_of_connections_hold_bounded_memory_and_others_are_served()
-> Result<()> {
    let home = TempDir::new()?;
    let broker = Arc::new(Broker::start(&home.path().join("data"), &["--durability", "os"]).await?);
    let loading = Loading::start(&broker).await?;
    loading.progress(5000, Duration::from_secs(60)).await?;
    // they ask for pages of the largest size, and take none
    let mut kinesis = broker.kinesis();
    kinesis.create_stream("pages", 1).await?;
    for _ in 0..3 {
        kinesis.call("PutRecords", records("pages", 8, 600_000).as_bytes()).await?;
    }
    let iterator = kinesis.iterator("pages", "shardId-000000000000", "TRIM_HORIZON", &Value::Null).await?;
    let ask = json!({ "ShardIterator": iterator }).to_string();
    let (mut silent, mut most) = (Vec::new(), 0);
    for _ in 0..600 {
        let Ok(Ok(mut connection)) = timeout(Duration::from_secs(1), Connection::open(broker.addr())).await
        else {
            break;
        };
        let headers =
            [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", "Kinesis_20131202.GetRecords")];
        let head = connection.head("POST", "/", &headers, ask.len());
        // as many as fit: answers pile up
        for _ in 0..4 {
            connection.send(format!("{head}{ask}").as_bytes()).await?;
        }
        silent.push(connection);
        most = most.max(broker.resident_kib()? / 1024);
    }
    loading.progress(300, Duration::from_secs(20)).await.context("others are served meanwhile")?;
    most = most.max(broker.resident_kib()? / 1024);
    ensure!(most < MEMORY_MAX_MIB, "{most} MiB");
    let held = silent.len();
    drop(silent);
    loading.progress(300, Duration::from_secs(20)).await?;
    let calm = calm_again(&broker, STREAM).await?;
    let load = loading.stop().await?;
    ensure!(load.native_failures() == 0);
    tell(&format!(
        "overload, {held} connections that take nothing of 4 replies each: memory {most} MiB; calm after {calm:?}"
    ));
    Ok(())
}

/// p99 of single puts at an even pace, in milliseconds.
async fn p99(broker: &Broker, seconds: &str) -> Result<f64> {
    let args = ["bench", "latency", "--target", "bare", "--endpoint"];
    let url = broker.url();
    let rest = [
        "--rate",
        "200",
        "--shards",
        "1",
        "--connections",
        "1",
        "--seconds",
        seconds,
        "--warmup-seconds",
        "1",
        "--json",
    ];
    let done = run(&[&args[..], &[url.as_str()], &rest[..]].concat()).await?;
    ensure!(done.code == Some(0), "{done:?}");
    let line: Value = serde_json::from_str(done.stdout.first().context("a result")?)?;
    ensure!(line["errors"] == 0, "{line}");
    line["p99_ms"].as_f64().context("p99_ms")
}

/// Figures are told; only a small stream that comes to a standstill fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_streams_stay_quick_beside_a_greedy_one() -> Result<()> {
    let home = TempDir::new()?;
    let broker = Arc::new(Broker::start(&home.path().join("data"), &["--durability", "device"]).await?);
    broker.kinesis().create_stream("greedy", 8).await?;
    let alone = p99(&broker, "4").await?;
    let body = records("greedy", 100, 9000);
    let (beside, greedy) = {
        let crowding = {
            let broker = Arc::clone(&broker);
            tokio::spawn(async move { crowd(&broker, 8, &body, 7).await })
        };
        sleep(Duration::from_millis(500)).await;
        (p99(&broker, "4").await?, crowding.await??)
    };
    are_clear(&greedy.0)?;
    tell(&format!(
        "overload, small beside greedy: p99 {alone} ms alone, {beside} ms beside ({:.1} x); {} requests of 0.9 MB",
        beside / alone,
        greedy.2
    ));
    ensure!(beside < 1000.0, "a small stream stands still beside a greedy one: p99 {beside} ms");
    Ok(())
}
