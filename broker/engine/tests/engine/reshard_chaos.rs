//! Random resharding under writers and readers, with kills: the hash space is tiled at every moment, and by walking the
//! lineage every acknowledged record is read once, those of a key in their order.
//!
//! ```text
//!   2 writers of records (a kill leaves what is in flight uncertain)          ─┐
//!   2 writers of numbered batches (repeated after a kill until they are told) ─┼─► engine ─► split, merge, scale, one
//!   an observer of map and list; a reader that walks the lineage as it grows  ─┘             after the other; kill; reopen
//! ```
//!
//! A kill drops the engine in the middle of whatever it does, without closing it. After each round all is held against
//! the book, the clock moves on by more than the retention, and the closed shards must leave.
//! `TIDEMILL_RESHARD_OPS` says how many operations (default 300), `TIDEMILL_RESHARD_SEED` from which seed.

mod reader;
mod writer;

use crate::support::{START, named, shard};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reader::{Walk, follow, observe, step, verify};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tempfile::TempDir;
use tidemill_engine::{Engine, ErrorKind, Settings, Stream, StreamSpec};
use tidemill_types::{Clock, HashKey, ManualClock, Shard};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use writer::{Book, Native, write_batches, write_records};

const OPS_DEFAULT: u64 = 300;
const OPS_PER_ROUND: u64 = 250;
/// One in so many operations is killed in the middle.
const KILL_ONE_IN: u32 = 25;
const OPEN_MAX: usize = 24;
const PUT_WRITERS: u64 = 2;
const WRITERS: u64 = 4;
const DEADLINE: Duration = Duration::from_secs(60);
const DAY_MS: u64 = 24 * 3_600_000;

fn from_env<T: FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What outlives a kill.
struct World {
    dir: TempDir,
    clock: Arc<ManualClock>,
    book: Arc<Mutex<Book>>,
    counts: Arc<Vec<AtomicU64>>,
    natives: Vec<Arc<tokio::sync::Mutex<Native>>>,
    reader: Arc<Mutex<Walk>>,
    observed: Arc<AtomicU64>,
}

/// One engine from its opening to its end, and all who use it.
struct Life {
    engine: Engine,
    stream: Stream,
    writers: Users,
    readers: Users,
}

/// Tasks that use an engine until they are told to stop.
#[derive(Default)]
struct Users {
    tasks: JoinSet<()>,
    stop: Arc<AtomicBool>,
}

impl Users {
    async fn kill(mut self) {
        self.tasks.abort_all();
        while let Some(ended) = self.tasks.join_next().await {
            assert!(ended.is_ok() || ended.unwrap_err().is_cancelled(), "a task failed");
        }
    }
    async fn rest(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let ended = timeout(DEADLINE, async {
            while let Some(ended) = self.tasks.join_next().await {
                ended.expect("a task failed");
            }
        });
        ended.await.expect("writers and readers come to an end");
    }
}

impl World {
    /// The directory is free once the last thread of a killed engine has ended.
    async fn open(&self) -> Engine {
        let settings = || Settings { shards_max: 1_000_000, ..Settings::default() };
        timeout(DEADLINE, async {
            loop {
                match Engine::open(self.dir.path(), settings(), Arc::clone(&self.clock) as Arc<dyn Clock>)
                    .await
                {
                    Ok(engine) => return engine,
                    Err(error) if error.kind() == ErrorKind::Unavailable => {
                        sleep(Duration::from_millis(5)).await
                    }
                    Err(error) => panic!("the directory does not open: {error}"),
                }
            }
        })
        .await
        .expect("the directory opens")
    }

    async fn live(&self) -> Life {
        let engine = self.open().await;
        let stream = engine.stream(&named("s")).unwrap();
        let (mut writers, mut readers) = (Users::default(), Users::default());
        for writer in 0..PUT_WRITERS {
            let (counts, book) = (Arc::clone(&self.counts), Arc::clone(&self.book));
            writers.tasks.spawn(write_records(
                stream.clone(),
                Arc::clone(&writers.stop),
                writer,
                counts,
                book,
            ));
        }
        for writer in PUT_WRITERS..WRITERS {
            let native = Arc::clone(&self.natives[(writer - PUT_WRITERS) as usize]);
            let (stop, book) = (Arc::clone(&writers.stop), Arc::clone(&self.book));
            writers.tasks.spawn(write_batches(stream.clone(), stop, writer, native, book));
        }
        let stop = || Arc::clone(&readers.stop);
        let observing = observe(stream.clone(), stop(), Arc::clone(&self.observed));
        let following = follow(stream.clone(), stop(), Arc::clone(&self.reader));
        readers.tasks.spawn(observing);
        readers.tasks.spawn(following);
        Life { engine, stream, writers, readers }
    }
}

impl Life {
    /// Ends it in the middle of whatever it does.
    async fn kill(self) {
        self.writers.kill().await;
        self.readers.kill().await;
    }
    /// Lets the writers come to an end, then the readers.
    async fn rest(&mut self) {
        self.writers.rest().await;
        self.readers.rest().await;
    }
}

/// Some change of the shards, as the map is now.
async fn reshard(engine: Engine, stream: Stream, mut rng: StdRng) -> Result<(), tidemill_engine::Error> {
    let map = stream.map();
    let open = map.open();
    match rng.random_range(0..10) {
        0 => engine.scale_stream(&named("s"), rng.random_range(1..=12)).await.map(drop),
        1..=5 if open.len() < OPEN_MAX => {
            let parent = &open[rng.random_range(0..open.len())];
            let at = rng.random_range(parent.range.start().get()..=parent.range.end().get());
            engine.split_shard(&named("s"), parent.id, HashKey::new(at)).await
        }
        _ if open.len() > 1 => {
            let lower = rng.random_range(0..open.len() - 1);
            engine.merge_shards(&named("s"), open[lower].id, open[lower + 1].id).await
        }
        _ => engine.split_shard(&named("s"), open[0].id, HashKey::new(1 << 127)).await,
    }
}

#[derive(Default)]
struct Figures {
    done: u64,
    refused: u64,
    kills: u64,
    acknowledged: usize,
    uncertain_stored: usize,
    expired: usize,
}

async fn round(world: &World, rng: &mut StdRng, ops: u64, figures: &mut Figures) {
    let base: Vec<u64> = lives_base(world).await;
    let mut life = world.live().await;
    for _ in 0..ops {
        world.clock.advance_ms(rng.random_range(0..300));
        let mut op = tokio::spawn(reshard(life.engine.clone(), life.stream.clone(), StdRng::from_rng(rng)));
        if rng.random_ratio(1, KILL_ONE_IN) {
            if timeout(Duration::from_micros(rng.random_range(0..8000)), &mut op).await.is_err() {
                op.abort();
                let _ = op.await; // whatever it came to
            }
            life.kill().await;
            figures.kills += 1;
            life = world.live().await;
            continue;
        }
        match timeout(DEADLINE, op).await.expect("a reshard ends").expect("it does not panic") {
            Ok(()) => figures.done += 1,
            Err(error) if error.kind() == ErrorKind::Invalid => figures.refused += 1,
            Err(error) => panic!("a reshard failed: {error}"),
        }
    }
    life.rest().await;

    let again = Mutex::new(Walk::default());
    while step(&life.stream, &again).await {}
    {
        let (book, reader) = (lock(&world.book), lock(&world.reader));
        figures.acknowledged += book.acknowledged.len();
        figures.uncertain_stored += verify(&reader.met, &book, &base);
        verify(&lock(&again).met, &book, &base);
    }
    *lock(&world.book) = Book::default();
    lock(&world.reader).met.clear();
    figures.expired += expire(world, &life.stream).await;
    life.engine.close().await.unwrap();
}

/// Where each writer's counts begin in this round.
async fn lives_base(world: &World) -> Vec<u64> {
    let mut base: Vec<u64> = world.counts.iter().map(|count| count.load(Ordering::SeqCst)).collect();
    for native in &world.natives {
        base.push(native.lock().await.count);
    }
    base
}

/// Moves past the retention and waits until only open shards are left.
async fn expire(world: &World, stream: &Stream) -> usize {
    let before = stream.shards().len();
    world.clock.advance_ms(2 * DAY_MS);
    let left = timeout(DEADLINE, async {
        while !stream.shards().iter().all(Shard::is_open) {
            sleep(Duration::from_millis(20)).await;
        }
        stream.shards().len()
    });
    before - left.await.expect("closed shards leave when their records have")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_reshards_under_load_with_kills_lose_nothing_double_nothing_and_keep_order() {
    let ops = from_env("TIDEMILL_RESHARD_OPS").unwrap_or(OPS_DEFAULT);
    let seed: u64 = from_env("TIDEMILL_RESHARD_SEED").unwrap_or_else(rand::random);
    println!("TIDEMILL_RESHARD_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let natives = (PUT_WRITERS..WRITERS).map(|_| Arc::default()).collect();
    let world = World {
        dir: tempfile::tempdir().unwrap(),
        clock: Arc::new(ManualClock::new(START)),
        book: Arc::default(),
        counts: Arc::new((0..PUT_WRITERS).map(|_| AtomicU64::new(0)).collect()),
        natives,
        reader: Arc::default(),
        observed: Arc::default(),
    };
    let engine = world.open().await;
    engine.create_stream(&named("s"), StreamSpec { shard_count: 3, ..StreamSpec::default() }).await.unwrap();
    assert_eq!(engine.stream(&named("s")).unwrap().shards()[0].id, shard(0));
    engine.close().await.unwrap();
    drop(engine);

    let (mut figures, begun) = (Figures::default(), Instant::now());
    let mut left = ops;
    while left > 0 {
        let of_round = left.min(OPS_PER_ROUND);
        round(&world, &mut rng, of_round, &mut figures).await;
        left -= of_round;
    }
    let Figures { done, refused, kills, acknowledged, uncertain_stored, expired } = figures;
    println!(
        "{ops} operations in {:?}: {done} done, {refused} refused, {kills} killed in the middle; {acknowledged} records \
         acknowledged and {uncertain_stored} more stored; {} looks at the shards; {expired} shards expired",
        begun.elapsed(),
        world.observed.load(Ordering::Relaxed)
    );
    assert!(done > ops / 2 && acknowledged as u64 > ops);
}
