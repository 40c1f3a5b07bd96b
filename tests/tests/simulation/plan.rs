//! What a seed stands for: how large everything is, and what goes wrong when.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::time::Duration;
use tidemill_engine::{Durability, Settings, StorageSettings};

/// A fault, or the end of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The broker's process is killed.
    Kill,
    /// Its machine loses power.
    PowerCut,
    /// The same in the middle of a write, so many operations later.
    PowerCutSoon(u64),
    /// A write or sync fails, so many later.
    WriteFails(u64),
    SyncFails(u64),
    /// The disk has room for so many bytes more, for so long.
    DiskFull(u64, u64),
    /// Changes of metadata fail for so long.
    MetadataFails(u64),
    /// The broker is stopped in order and started again.
    Restart,
    /// The broker's wall clock is set.
    ClockJump(i64),
    /// A machine is cut off from the broker for so long: wholly, or in one direction.
    CutOff(Machine, u64),
    Unheard(Machine, u64),
    Deaf(Machine, u64),
    /// What a machine and the broker send is kept for so long, then delivered.
    Delayed(Machine, u64),
    /// A client's process is killed, and started again so much later.
    Dies(Machine, u64),
}

/// A machine besides the broker's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Machine {
    Producer(u8),
    Worker(u8),
}

impl Machine {
    pub(crate) fn host(self) -> String {
        match self {
            Self::Producer(n) => format!("producer-{n}"),
            Self::Worker(n) => format!("worker-{n}"),
        }
    }
}

/// How a producer goes about it.
#[derive(Debug, Clone)]
pub(crate) struct Producing {
    pub records: u32,
    pub keys: u32,
    /// Between two puts, on average.
    pub pause_ms: u64,
    pub linger_ms: u64,
    /// Largest record; one of a few is as large.
    pub bytes_max: usize,
    pub ordered: bool,
}

/// How a worker goes about it.
#[derive(Debug, Clone)]
pub(crate) struct Working {
    /// A batch takes up to so long.
    pub batch_ms: u64,
    /// Of a thousand batches, so many fail at first.
    pub fails: u32,
}

/// Everything that follows from a seed.
#[derive(Debug)]
pub(crate) struct Plan {
    pub rng: StdRng,
    pub shards: u32,
    pub durability: Durability,
    pub producers: Vec<Producing>,
    pub workers: Vec<Working>,
    pub lease: Duration,
    pub latency: (Duration, Duration),
    /// Whether the machines run in another order in each step.
    pub random_order: bool,
    /// When the operator changes the number of shards.
    pub reshards: Vec<u64>,
    /// By time, ascending.
    pub faults: Vec<(u64, Fault)>,
    /// Nothing new goes wrong from here on.
    pub calm_from: u64,
}

/// How often each kind of fault comes, relative to the others.
const CHAOS: u32 = 24;

impl Plan {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let durability = match rng.random_range(0..10) {
            0 => Durability::Os,
            1 => Durability::Interval { ms: 50 },
            _ => Durability::Device,
        };
        let producers = (0..rng.random_range(1..=3)).map(|_| producing(&mut rng)).collect::<Vec<_>>();
        let workers = (0..rng.random_range(1..=3)).map(|_| working(&mut rng)).collect::<Vec<_>>();
        let calm_from = rng.random_range(3_000..12_000);
        let reshards = (0..rng.random_range(0..4)).map(|_| rng.random_range(1_000..calm_from)).collect();
        let mut plan = Self {
            shards: rng.random_range(1..=4),
            durability,
            producers,
            workers,
            lease: Duration::from_millis(rng.random_range(1_000..4_000)),
            latency: (Duration::from_millis(1), Duration::from_millis(rng.random_range(2..40))),
            random_order: rng.random(),
            reshards,
            faults: Vec::new(),
            calm_from,
            rng,
        };
        let faults = plan.rng.random_range(0..12);
        plan.faults = (0..faults).map(|_| (plan.rng.random_range(800..calm_from), plan.fault())).collect();
        plan.faults.sort_by_key(|(at, _)| *at);
        plan.reshards.sort_unstable();
        plan
    }

    fn machine(&mut self) -> Machine {
        let (producers, workers) = (self.producers.len() as u8, self.workers.len() as u8);
        match self.rng.random_range(0..producers + workers) {
            n if n < producers => Machine::Producer(n),
            n => Machine::Worker(n - producers),
        }
    }

    fn fault(&mut self) -> Fault {
        let (machine, for_ms) = (self.machine(), self.rng.random_range(50..8_000));
        let soon = self.rng.random_range(0..40);
        // what is not on the device is not promised to survive these
        let device = self.durability == Durability::Device;
        match self.rng.random_range(0..CHAOS) {
            0..4 if device => Fault::PowerCut,
            4..6 if device => Fault::PowerCutSoon(soon),
            6 if device => Fault::WriteFails(soon),
            7 if device => Fault::SyncFails(soon),
            8 | 23 => Fault::DiskFull(self.rng.random_range(0..200_000), for_ms / 4),
            9 => Fault::MetadataFails(for_ms),
            10 => Fault::Restart,
            11 => Fault::ClockJump(self.rng.random_range(-3_600_000..3_600_000)),
            12 | 13 => Fault::CutOff(machine, for_ms),
            14 => Fault::Unheard(machine, for_ms),
            15 => Fault::Deaf(machine, for_ms),
            16 | 17 => Fault::Delayed(machine, for_ms),
            18..21 => Fault::Dies(machine, for_ms),
            _ => Fault::Kill,
        }
    }

    /// Small files, so that a few seconds see many of them come and go.
    pub(crate) fn settings(&self) -> Settings {
        let storage = StorageSettings {
            durability: self.durability,
            journal_bytes_max: 2 << 20,
            journal_file_bytes: 64 << 10,
            checkpoint_bytes: 128 << 10,
            direct_bytes_min: 8 << 10,
            segment_bytes_min: 16 << 10,
            segment_bytes_max: 128 << 10,
            ..StorageSettings::default()
        };
        Settings { storage, ..Settings::default() }
    }
}

fn producing(rng: &mut StdRng) -> Producing {
    Producing {
        records: rng.random_range(50..400),
        keys: rng.random_range(1..20),
        pause_ms: rng.random_range(1..20),
        linger_ms: rng.random_range(0..20),
        bytes_max: [100, 3_000, 40_000][rng.random_range(0..3)],
        ordered: rng.random(),
    }
}

fn working(rng: &mut StdRng) -> Working {
    Working { batch_ms: rng.random_range(0..60), fails: [0, 0, 30, 200][rng.random_range(0..4)] }
}
