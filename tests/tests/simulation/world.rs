//! What everyone in a simulation shares: the time, the trace, and the facts that the judge looks at in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use tidemill_consumer::Checkpoint;
use tidemill_producer::ErrorKind;
use tidemill_types::{AnySequenceNumber, Clock, MonotonicMs, ShardId, TimestampMs};

/// When simulations begin.
const EPOCH_MS: u64 = 1_700_000_000_000;

/// A record by who made it: producer, which life of it, and the how manieth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id {
    pub producer: u8,
    pub life: u8,
    pub nth: u32,
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.producer, self.life, self.nth)
    }
}

/// What a producer was told of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Stored { shard: ShardId, number: AnySequenceNumber },
    NotStored(ErrorKind),
    Unknown(ErrorKind),
}

/// A record that was put.
#[derive(Debug)]
pub(crate) struct Put {
    pub key: String,
    /// The order of events: when it was put, and when its answer came.
    pub put_at: u64,
    pub answered: Option<(u64, Answer)>,
}

/// A processor under one lease.
#[derive(Debug)]
pub(crate) struct Session {
    pub shard: ShardId,
    pub worker: String,
    pub epoch: u64,
    pub began_at: u64,
    pub from: Checkpoint,
    /// What it has processed, and when.
    pub processed: Vec<(AnySequenceNumber, u64)>,
    pub checkpoints: Vec<Asked>,
}

/// A checkpoint that a processor asked for.
#[derive(Debug)]
pub(crate) struct Asked {
    pub number: AnySequenceNumber,
    /// It was told that it is kept.
    pub is_kept: bool,
}

#[derive(Default)]
pub(crate) struct Facts {
    events: u64,
    pub puts: BTreeMap<Id, Put>,
    pub sessions: Vec<Session>,
    pub producers_done: BTreeSet<u8>,
    pub panics: Vec<String>,
    /// What clients were told that they must never be told.
    pub wrong: Vec<String>,
    pub faults: BTreeMap<&'static str, u64>,
    trace: Vec<String>,
}

impl Facts {
    /// The next place in the order of events.
    pub(crate) fn event(&mut self) -> u64 {
        self.events += 1;
        self.events
    }
    pub(crate) fn trace(&self) -> &[String] {
        &self.trace
    }
}

/// See the module's header. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct World {
    elapsed_ms: Arc<AtomicU64>,
    facts: Arc<Mutex<Facts>>,
}

impl World {
    pub(crate) fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().expect("no panic while the facts are looked at")
    }
    pub(crate) fn elapsed_ms(&self) -> u64 {
        self.elapsed_ms.load(Ordering::Relaxed)
    }
    pub(crate) fn set_elapsed_ms(&self, ms: u64) {
        self.elapsed_ms.store(ms, Ordering::Relaxed);
    }
    /// Writes down what happened.
    pub(crate) fn note(&self, what: fmt::Arguments<'_>) {
        let line = format!("{:>7} {what}", self.elapsed_ms());
        self.facts().trace.push(line);
    }
    /// Writes down a fault, and counts it.
    pub(crate) fn fault(&self, kind: &'static str, what: fmt::Arguments<'_>) {
        *self.facts().faults.entry(kind).or_default() += 1;
        self.note(format_args!("{kind}{what}"));
    }
}

/// The clock of the broker's machine: the simulation's, and as much more or less as somebody has set it to.
#[derive(Clone)]
pub(crate) struct SimulatedClock {
    world: World,
    ahead_ms: Arc<AtomicI64>,
}

impl SimulatedClock {
    pub(crate) fn new(world: World) -> Self {
        Self { world, ahead_ms: Arc::default() }
    }
    pub(crate) fn jump(&self, ms: i64) {
        self.ahead_ms.fetch_add(ms, Ordering::Relaxed);
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> TimestampMs {
        let ahead = self.ahead_ms.load(Ordering::Relaxed);
        TimestampMs::new((EPOCH_MS + self.world.elapsed_ms()).saturating_add_signed(ahead))
    }
    fn monotonic(&self) -> MonotonicMs {
        MonotonicMs::new(self.world.elapsed_ms())
    }
}
