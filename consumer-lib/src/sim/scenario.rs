//! What a simulation is about, made from its seed: how many workers and shards, their settings, and how much goes wrong.

use super::world::{Conduct, Weather};
use crate::assign::Balance;
use crate::initial::InitialPosition;
use rand::RngExt;
use rand::rngs::StdRng;
use std::time::Duration;

/// How much goes wrong outside of the processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Nothing: workers come, and stop in order. Nothing may come twice.
    Calm,
    /// Workers are killed and stopped (SIGSTOP), the network is good.
    Deaths,
    /// Everything.
    Storm,
}

/// What happens to a record that fails again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    Retry,
    Skip(u32),
    StopShard(u32),
    DeadLetter(u32),
}

#[derive(Debug, Clone)]
pub(super) struct Scenario {
    pub(super) class: Class,
    pub(super) lease: Duration,
    pub(super) handoff: Duration,
    pub(super) balance: Balance,
    pub(super) initial: InitialPosition,
    pub(super) leases_max: usize,
    pub(super) policy: Policy,
    pub(super) shards: usize,
    pub(super) workers: usize,
    pub(super) conduct: Conduct,
    pub(super) weather: Weather,
    /// How long things happen.
    pub(super) eventful: Duration,
    /// Longest time that a machine runs while the others wait.
    pub(super) step_ms: u64,
    /// Mean time between events.
    pub(super) event_ms: u64,
    /// Appends in a thousand steps.
    pub(super) appends: u32,
}

fn one_of<T: Copy>(rng: &mut StdRng, all: &[T]) -> T {
    all[rng.random_range(0..all.len())]
}

impl Scenario {
    pub(super) fn new(rng: &mut StdRng) -> Self {
        let class = one_of(rng, &[Class::Calm, Class::Deaths, Class::Storm, Class::Storm]);
        let lease = Duration::from_millis(rng.random_range(800..=3000));
        let long = Duration::from_secs(60);
        let short = lease.mul_f64(rng.random_range(0.1..1.5));
        let calm = class == Class::Calm;
        let attempts = rng.random_range(1..=4);
        let policy = match rng.random_range(0..6) {
            0 | 1 => Policy::Skip(attempts),
            2 => Policy::StopShard(attempts),
            3 => Policy::DeadLetter(attempts),
            _ => Policy::Retry,
        };
        Self {
            class,
            lease,
            handoff: if calm { long } else { one_of(rng, &[Duration::ZERO, short, long, long]) },
            balance: one_of(rng, &[Balance::Count, Balance::Count, Balance::Count, Balance::Throughput]),
            initial: one_of(
                rng,
                &[InitialPosition::TrimHorizon, InitialPosition::TrimHorizon, InitialPosition::Latest],
            ),
            leases_max: one_of(rng, &[usize::MAX, usize::MAX, usize::MAX, 1, 2, 3]),
            policy,
            shards: rng.random_range(1..=8),
            workers: rng.random_range(1..=5),
            conduct: Self::conduct(rng, class, policy, lease),
            weather: Self::weather(rng, class),
            eventful: Duration::from_millis(rng.random_range(5_000..=20_000)),
            step_ms: one_of(rng, &[5, 15, 40]),
            event_ms: one_of(rng, &[300, 800, 2000]),
            appends: one_of(rng, &[50, 200, 500]),
        }
    }

    fn conduct(rng: &mut StdRng, class: Class, policy: Policy, lease: Duration) -> Conduct {
        let calm = class == Class::Calm;
        let lease_ms = lease.as_millis() as u64;
        Conduct {
            usual_ms: one_of(rng, &[0, 10, 60]),
            slow: one_of(rng, &[0, 0, 30, 100]),
            slow_ms: if calm { 1500 } else { one_of(rng, &[300, lease_ms, 3 * lease_ms]) },
            fails: one_of(rng, &[0, 20, 150]),
            panics: if calm { 0 } else { one_of(rng, &[0, 0, 10]) },
            bad_shutdowns: if calm { 0 } else { one_of(rng, &[0, 100]) },
            checkpoints: one_of(rng, &[0, 100, 500]),
            prepares: one_of(rng, &[0, 100]),
            manual: rng.random_range(0..4) == 0,
            poison: if policy == Policy::Retry { 0 } else { one_of(rng, &[0, 10, 40]) },
        }
    }

    fn weather(rng: &mut StdRng, class: Class) -> Weather {
        let storm = class == Class::Storm;
        Weather {
            delay_ms: if storm { one_of(rng, &[5, 40, 150]) } else { one_of(rng, &[2, 20]) },
            mishaps: if storm { one_of(rng, &[10, 60, 200]) } else { 0 },
            breaks: if storm { one_of(rng, &[0, 50, 200]) } else { 0 },
            ..Weather::default()
        }
    }
}
