//! Shards are split, merged and scaled under load while the broker is killed with SIGKILL: writers lose nothing, the
//! lineage has every record once and in order, and a consumer application reads them all, parents before children.
//!
//! ```text
//!  3 writers (producer library, by key)  ─┐                         ┌─► 2 workers of an application (one is killed too)
//!  split, merge, scale; one after the other├─► broker ──kill -9──► … ─┤
//!  an observer that lists the shards     ─┘                         └─► in the end everything is read shard by shard
//! ```

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tempfile::TempDir;
use tidemill_producer::{Config, PartitionKey, Producer, Record, Ticket};
use tidemill_proto::ErrorKind;
use tidemill_proto::client::{Channel, Control, Endpoint};
use tidemill_tests::{
    Broker, History, Running, Stored, Until, create_stream, id_of, payload, read_stream, run, tell, until,
};
use tidemill_types::{HashKey, Shard, ShardId, StreamName};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

const STREAM: &str = "load";
const OPERATIONS: u64 = 60;
const KILL_EVERY: u64 = 10;
const OPEN_MAX: usize = 10;
const WRITERS: u64 = 3;
/// Partition keys of each writer.
const KEYS: u64 = 16;
/// The number of a writer stands above this bit of an id.
const WRITER_SHIFT: u32 = 48;
const TICKETS_MAX: usize = 512;
const DEADLINE: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Load {
    history: Mutex<History>,
    /// Ids of what was acknowledged.
    acknowledged: Mutex<HashSet<u64>>,
    stop: AtomicBool,
    failures: AtomicU64,
    looks: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Load {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

fn key(id: u64) -> String {
    format!("w{}-k{}", id >> WRITER_SHIFT, id % KEYS)
}

async fn write(load: Arc<Load>, url: String, writer: u64) -> Result<()> {
    let producer = Producer::new(Config::new(&url)?.linger(Duration::from_millis(2))?).await?;
    let (sent, mut tickets) = mpsc::channel::<(u64, Ticket)>(TICKETS_MAX);
    let of_tickets = Arc::clone(&load);
    let settling = tokio::spawn(async move {
        while let Some((id, ticket)) = tickets.recv().await {
            match ticket.await {
                Ok(placed) => {
                    let stored = Stored {
                        shard: placed.shard,
                        number: placed.number.try_into().expect("a broker's own"),
                        id,
                    };
                    lock(&of_tickets.history).acknowledged(stored).expect("a ticket resolves once");
                    lock(&of_tickets.acknowledged).insert(id);
                }
                Err(error) => {
                    eprintln!("record {id:x} was not acknowledged: {error:?}");
                    of_tickets.failures.fetch_add(1, Ordering::Relaxed);
                    lock(&of_tickets.history).uncertain(id);
                }
            }
        }
    });
    for count in 0.. {
        if load.stopped() {
            break;
        }
        let id = (writer << WRITER_SHIFT) | count;
        let record = Record::new(PartitionKey::new(&key(id))?, payload(id, 60))?;
        sent.send((id, producer.put(STREAM, record).await?)).await?;
        if count % 4 == 0 {
            sleep(Duration::from_millis(4)).await;
        }
    }
    drop(sent);
    producer.close().await?;
    Ok(settling.await?)
}

async fn control(endpoint: &Endpoint) -> Result<Control> {
    Ok(Control::new(Channel::connect(endpoint).await?, rand::random()))
}

/// Whoever lists the shards sees the hash space tiled, and no open shard with children.
async fn observe(load: Arc<Load>, endpoint: Endpoint) -> Result<()> {
    let stream = StreamName::new(STREAM)?;
    while !load.stopped() {
        let Ok(control) = control(&endpoint).await else { continue };
        // a map that does not tile is refused while it is decoded
        while let Ok(list) = control.list_shards(&stream).await {
            let parents: HashSet<ShardId> = list.shards.iter().flat_map(Shard::parents).collect();
            let fits = |shard: &Shard| shard.is_open() != parents.contains(&shard.id);
            ensure!(list.shards.iter().all(fits), "a shard and its children do not fit: {:?}", list.shards);
            load.looks.fetch_add(1, Ordering::Relaxed);
            sleep(Duration::from_millis(3)).await;
            if load.stopped() {
                break;
            }
        }
    }
    Ok(())
}

/// Some change of the shards; an error of the broker is told, not judged.
async fn reshard(endpoint: &Endpoint) -> Result<(), tidemill_proto::Error> {
    let stream = StreamName::new(STREAM)?;
    let control = Control::new(Channel::connect(endpoint).await?, rand::random());
    let list = control.list_shards(&stream).await?;
    let open = list.map.open();
    match rand::random_range(0..8) {
        0 => control.scale_stream(&stream, rand::random_range(1..=8)).await.map(drop),
        1..=4 if open.len() < OPEN_MAX => {
            let parent = &open[rand::random_range(0..open.len())];
            let at = rand::random_range(parent.range.start().get()..=parent.range.end().get());
            control.split_shard(&stream, parent.id, HashKey::new(at)).await
        }
        _ if open.len() > 1 => {
            let lower = rand::random_range(0..open.len() - 1);
            control.merge_shards(&stream, open[lower].id, open[lower + 1].id).await
        }
        _ => control.scale_stream(&stream, 4).await.map(drop),
    }
}

/// Reshards again and again; every so often the broker is killed in the middle.
async fn reshard_and_kill(mut broker: Broker, operations: u64) -> Result<(Broker, u64, u64)> {
    let (mut done, mut kills) = (0, 0);
    for nth in 1..=operations {
        let endpoint = broker.endpoint()?;
        if nth % KILL_EVERY == 0 {
            let under_way = tokio::spawn(async move { reshard(&endpoint).await });
            sleep(Duration::from_micros(rand::random_range(0..25_000))).await;
            broker.kill_9().await?;
            under_way.abort();
            kills += 1;
            broker = broker.restart().await.with_context(|| format!("after the kill of operation {nth}"))?;
            continue;
        }
        match timeout(DEADLINE, reshard(&endpoint)).await.context("a reshard hangs")? {
            Ok(()) => done += 1,
            Err(error) if error.kind() == ErrorKind::Invalid => {} // as many shards as asked for
            Err(error) => return Err(error).with_context(|| format!("operation {nth}")),
        }
        sleep(Duration::from_millis(rand::random_range(0..100))).await;
    }
    Ok((broker, done, kills))
}

fn consume(url: &str, worker: &str) -> Result<Running> {
    let args = ["consume", STREAM, "--app", "app", "--worker", worker, "--json", "--lease-ms", "2000"];
    Running::spawn(&[&args[..], &["--endpoint", url]].concat())
}

/// The ids of what a worker has printed, in order; checks that what it prints for the first time comes in the order of
/// its key.
fn printed(worker: &Running) -> Result<Vec<u64>> {
    let mut last: HashMap<String, u64> = HashMap::new();
    let mut seen = HashSet::new();
    let mut ids = Vec::new();
    for line in worker.lines() {
        let value: Value = serde_json::from_str(&line).with_context(|| format!("not JSON: {line}"))?;
        let id = id_of(value["data"].as_str().context("a record has data")?.as_bytes())?;
        ensure!(value["partition_key"] == key(id), "{line}");
        if seen.insert(id)
            && let Some(before) = last.insert(key(id), id)
        {
            ensure!(before < id, "{id:x} was read after {before:x} of the same key");
        }
        ids.push(id);
    }
    Ok(ids)
}

/// By shard, parents first, every key's records lie in the order in which they were put.
fn check_order(stored: &[Stored]) -> Result<()> {
    let mut last: HashMap<String, Stored> = HashMap::new();
    for record in stored {
        if let Some(before) = last.insert(key(record.id), *record) {
            ensure!(before.id < record.id, "{:x} lies behind {:x}", record.id, before.id);
            ensure!(before.number < record.number, "numbers of a key fall: {before:?} {record:?}");
        }
    }
    Ok(())
}

fn operations() -> Result<u64> {
    match std::env::var("TIDEMILL_RESHARD_PROCESS_OPS") {
        Ok(text) => text.parse().context("TIDEMILL_RESHARD_PROCESS_OPS is a number"),
        Err(_) => Ok(OPERATIONS),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reshards_under_load_with_kill_9_lose_nothing_and_an_application_reads_it_all_in_order() -> Result<()>
{
    let operations = operations()?;
    let home = TempDir::new()?;
    let broker = Broker::start(home.path(), &["--durability", "device"]).await?;
    create_stream(&broker, STREAM, 2).await?;
    let url = broker.url();
    let load = Arc::new(Load::default());
    let mut tasks = Vec::new();
    for writer in 1..=WRITERS {
        tasks.push(tokio::spawn(write(Arc::clone(&load), url.clone(), writer)));
    }
    tasks.push(tokio::spawn(observe(Arc::clone(&load), broker.endpoint()?)));
    let mut workers = vec![consume(&url, "a")?, consume(&url, "b")?];

    let (broker, first, kills) = reshard_and_kill(broker, operations / 2).await?;
    workers[0].kill_9().await?;
    workers.push(consume(&url, "c")?);
    let (broker, second, more_kills) = reshard_and_kill(broker, operations / 2).await?;
    let scaled = run(&["stream", "scale", STREAM, "--shards", "11", "--endpoint", &url]).await?;
    ensure!(scaled.code == Some(0) && scaled.stdout[0].ends_with("to 11 open shards"), "{scaled:?}");

    load.stop.store(true, Ordering::Relaxed);
    for task in tasks {
        timeout(DEADLINE, task).await.context("a task hangs")???;
    }
    let stored = read_stream(&broker, STREAM).await?;
    let verified = lock(&load.history).verify(&stored)?;
    check_order(&stored)?;
    let acknowledged = lock(&load.acknowledged).clone();
    let mut missing = acknowledged.len();
    let read = until(DEADLINE, || {
        let read: HashSet<u64> = workers.iter().filter_map(|worker| printed(worker).ok()).flatten().collect();
        missing = acknowledged.difference(&read).count();
        async move {
            sleep(Duration::from_millis(200)).await;
            missing == 0
        }
    })
    .await;
    for worker in &workers {
        printed(worker)?;
    }
    ensure!(read != Until::Late, "the application misses {missing} of {} records", acknowledged.len());
    let failures = load.failures.load(Ordering::Relaxed);
    ensure!(failures == 0, "{failures} records were not acknowledged in the end");
    tell(&format!(
        "{operations} reshards ({} done), {} kills: {} records acknowledged, {} shards, {} looks at the shards",
        first + second,
        kills + more_kills,
        verified.acknowledged,
        stored.iter().map(|record| record.shard).collect::<HashSet<_>>().len(),
        load.looks.load(Ordering::Relaxed)
    ));
    broker.terminate().await?;
    Ok(())
}
