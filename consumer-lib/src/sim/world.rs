//! What all machines of a simulation share: the service, the judge, the weather on the network, and how processors behave.

use super::judge::Judge;
use super::service::Service;
use parking_lot::Mutex;
use rand::RngExt;
use rand::rngs::StdRng;
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Debug)]
pub(super) struct World {
    pub(super) seed: u64,
    pub(super) service: Mutex<Service>,
    pub(super) judge: Mutex<Judge>,
    pub(super) weather: Mutex<Weather>,
    pub(super) conduct: Mutex<Conduct>,
}

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mishap {
    None,
    /// An error at once; nothing was done.
    Refused,
    /// Nothing was done, and no answer comes.
    LostRequest,
    /// It was done, and no answer comes.
    LostAnswer,
    /// It was done, and an error comes that does not tell.
    Unknown,
    /// It is done when nobody waits for it any more.
    Late,
}

/// The network.
#[derive(Debug, Clone, Default)]
pub(super) struct Weather {
    /// Longest usual delay of a request or an answer.
    pub(super) delay_ms: u64,
    /// Requests in a thousand that something happens to.
    pub(super) mishaps: u32,
    /// Reads in a thousand that break off.
    pub(super) breaks: u32,
    /// Instances that reach nobody, until when.
    pub(super) cut_off: BTreeMap<usize, Duration>,
}

impl Weather {
    pub(super) fn delay(&self, rng: &mut StdRng) -> Duration {
        Duration::from_millis(rng.random_range(0..=self.delay_ms))
    }
    pub(super) fn is_cut_off(&self, instance: usize, now: Duration) -> bool {
        self.cut_off.get(&instance).is_some_and(|until| now < *until)
    }
    pub(super) fn mishap(&self, instance: usize, now: Duration, rng: &mut StdRng) -> Mishap {
        let (chance, which) = (rng.random_range(0..1000), rng.random_range(0..5));
        if self.is_cut_off(instance, now) {
            return Mishap::LostRequest;
        }
        if chance >= self.mishaps {
            return Mishap::None;
        }
        match which {
            0 => Mishap::Refused,
            1 => Mishap::LostRequest,
            2 => Mishap::LostAnswer,
            3 => Mishap::Unknown,
            _ => Mishap::Late,
        }
    }
    pub(super) fn breaks(&self, instance: usize, now: Duration, rng: &mut StdRng) -> bool {
        rng.random_range(0..1000) < self.breaks || self.is_cut_off(instance, now)
    }
}

/// How processors behave; chances are in a thousand calls.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Conduct {
    /// Longest usual time of a call.
    pub(super) usual_ms: u64,
    pub(super) slow: u32,
    pub(super) slow_ms: u64,
    pub(super) fails: u32,
    pub(super) panics: u32,
    /// Shutdowns that fail, after which nothing is checkpointed.
    pub(super) bad_shutdowns: u32,
    /// Checkpoints within a batch.
    pub(super) checkpoints: u32,
    /// Checkpoints in two phases.
    pub(super) prepares: u32,
    /// Whether each batch is checkpointed by the processor, because nobody else does.
    pub(super) manual: bool,
    /// Records in a thousand that always fail.
    pub(super) poison: u32,
}

impl Conduct {
    pub(super) fn is_poison(&self, seed: u64, shard: u32, ordinal: usize) -> bool {
        let mixed = (seed ^ u64::from(shard) << 32 ^ ordinal as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 40) % 1000 < u64::from(self.poison)
    }
}
