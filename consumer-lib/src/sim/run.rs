//! Runs a scenario: drives the machines step by step in an order drawn from the seed, makes things happen, then lets
//! everything come to rest and looks at what is left.
//!
//! ```text
//!  events: appends, splits, merges, deletions; workers start, stop, die, are stopped; the network breaks
//!    └─► faults end ─► settling: all records processed, all leases held by the living, within a time ─► rest: nothing moves
//! ```

use super::facts::ShardFacts;
use super::judge::{Asker, Judge, Rules};
use super::machine::Machine;
use super::network::SimStore;
use super::probe::{Probe, ordinal};
use super::scenario::{Class, Policy, Scenario};
use super::service::{Service, SimSource};
use super::world::{Weather, World};
use crate::failure::OnFailure;
use crate::processor::ProcessError;
use crate::service::{SourceChoice, StoreChoice};
use crate::settings::{Checkpointing, Origin, WorkerBuilder};
use crate::store::{MemoryLeases, MemoryStore};
use crate::worker::WorkerHandle;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tidemill_types::{AppName, WorkerId};

pub(super) const STREAM: &str = "s";
pub(super) const APP: &str = "app";

/// How a run ended.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) verdict: Option<String>,
    pub(super) hash: u64,
    pub(super) trace: Vec<String>,
    pub(super) records: usize,
    pub(super) redelivered: u64,
    pub(super) moves: u64,
    pub(super) virtual_time: Duration,
}

/// A worker from start to end; a restarted one is another instance.
pub(super) struct Instance {
    pub(super) number: usize,
    pub(super) worker: WorkerId,
    pub(super) machine: Machine,
    /// Gone when it was told to stop.
    pub(super) handle: Option<WorkerHandle>,
    /// The worker ended by itself or as told.
    pub(super) over: Arc<AtomicBool>,
    /// It does not run until then.
    pub(super) stopped_until: Duration,
}

/// Is set when it goes.
struct Flag(Arc<AtomicBool>);

impl Drop for Flag {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub(super) struct Run {
    pub(super) scenario: Scenario,
    pub(super) rng: StdRng,
    pub(super) world: Arc<World>,
    pub(super) leases: MemoryLeases,
    /// The machine of the store.
    pub(super) far: Machine,
    pub(super) now: Duration,
    pub(super) instances: Vec<Instance>,
    pub(super) started: usize,
    pub(super) appended: usize,
}

/// Runs the scenario of a seed.
pub(super) fn run(seed: u64) -> Outcome {
    let mut run = Run::new(seed);
    run.play();
    run.close()
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let scenario = Scenario::new(&mut rng);
        let rules = Rules {
            calm: scenario.class == Class::Calm,
            lease: scenario.lease,
            no_handoff: scenario.handoff.is_zero(),
            skipped_after: match scenario.policy {
                Policy::Skip(attempts) => Some(attempts),
                _ => None,
            },
        };
        let world = Arc::new(World {
            seed,
            service: Mutex::new(Service::default()),
            judge: Mutex::new(Judge::new(rules)),
            weather: Mutex::new(scenario.weather.clone()),
            conduct: Mutex::new(scenario.conduct),
        });
        world.judge.lock().note(Duration::ZERO, format_args!("{scenario:?}"));
        let mut run = Self {
            far: Machine::new(Duration::ZERO),
            leases: MemoryLeases::new(),
            now: Duration::ZERO,
            instances: Vec::new(),
            started: 0,
            appended: 0,
            scenario,
            rng,
            world,
        };
        for _ in 0..run.scenario.shards {
            run.add_shards(&[], 1);
        }
        run
    }

    pub(super) fn add_shards(&mut self, parents: &[u32], count: usize) {
        let mut service = self.world.service.lock();
        let made = if parents.is_empty() {
            vec![service.add_shard(&[])]
        } else {
            service.reshard(self.now, parents, count)
        };
        let mut judge = self.world.judge.lock();
        made.into_iter().for_each(|shard| judge.shard_made(self.now, shard, parents));
    }

    /// Whether nothing was wrong up to now.
    pub(super) fn is_well(&self) -> bool {
        self.world.judge.lock().verdict.is_none()
    }
    pub(super) fn note(&self, what: std::fmt::Arguments<'_>) {
        self.world.judge.lock().note(self.now, what);
    }

    /// Lets time pass for all machines, in any order.
    pub(super) fn step(&mut self) {
        let until = self.now + Duration::from_millis(self.rng.random_range(1..=self.scenario.step_ms));
        let mut order: Vec<Option<usize>> = (0..self.instances.len()).map(Some).chain([None]).collect();
        order.shuffle(&mut self.rng);
        for which in order {
            match which.map(|at| &self.instances[at]) {
                None => self.far.drive(until),
                Some(instance) if instance.stopped_until > until => {}
                Some(instance) => {
                    if instance.stopped_until > self.now {
                        instance.machine.skip_to(self.now);
                    }
                    instance.machine.drive(until);
                }
            }
        }
        self.now = until;
        let (over, alive): (Vec<_>, Vec<_>) =
            self.instances.drain(..).partition(|instance| instance.over.load(Ordering::Relaxed));
        self.instances = alive;
        for instance in over {
            self.note(format_args!("{}#{} has ended", instance.worker, instance.number));
            self.must_be_done(&instance);
        }
    }

    /// A worker that ended in order has dropped all its processors.
    fn must_be_done(&self, instance: &Instance) {
        let mut judge = self.world.judge.lock();
        let number = instance.number;
        let left = judge.sessions.iter().any(|session| session.instance == number && !session.is_dropped());
        if left && !judge.killed.contains(&number) {
            judge.wrong(format!("#{number} has ended, and a processor of it has not"));
        }
        let calm = self.scenario.class == Class::Calm;
        let holds = |facts: &&ShardFacts| {
            let its = facts.taken.get(&facts.epoch).is_some_and(|taken| taken.instance == number);
            its && facts.owner.as_ref() == Some(&instance.worker) && !facts.deleted
        };
        if calm && judge.shards.iter().any(|facts| holds(&facts)) {
            judge.wrong(format!("#{number} has ended in order, and still holds a lease"));
        }
    }

    pub(super) fn start(&mut self, worker: &str) {
        let (number, worker) = (self.started, WorkerId::new(worker).unwrap());
        self.started += 1;
        self.note(format_args!("{worker}#{number} starts"));
        let machine = Machine::new(self.now);
        let clock = machine.clock;
        let source = Arc::new(SimSource { world: Arc::clone(&self.world), clock, instance: number });
        let (app, lease) = (AppName::new(APP).unwrap(), self.scenario.lease);
        let inner = MemoryStore::new(self.leases.clone(), source.clone(), app, worker.clone(), lease);
        let store = SimStore {
            world: Arc::clone(&self.world),
            asker: Asker { instance: number, worker: worker.clone() },
            clock,
            far: self.far.runtime.handle().clone(),
            far_clock: self.far.clock,
            inner: Arc::new(inner),
            rng: Mutex::new(StdRng::seed_from_u64(self.rng.random())),
        };
        let built = self
            .builder(SourceChoice::Given(source))
            .leases_in(StoreChoice::Given(Arc::new(store)))
            .worker_id(worker.as_str())
            .seed(self.rng.random())
            .build()
            .unwrap();
        let (world, over) = (Arc::clone(&self.world), Arc::new(AtomicBool::new(false)));
        let flag = Flag(Arc::clone(&over));
        let handle = {
            let _on_it = machine.runtime.enter();
            built.start(move |at| {
                let _ends_with_the_worker = &flag;
                Probe::new(Arc::clone(&world), clock, number, at.shard().get())
            })
        };
        let handle = Some(handle);
        self.instances.push(Instance {
            number,
            worker,
            machine,
            handle,
            over,
            stopped_until: Duration::ZERO,
        });
    }

    fn builder(&self, source: SourceChoice) -> WorkerBuilder {
        let scenario = &self.scenario;
        let checkpointing =
            if scenario.conduct.manual { Checkpointing::Manual } else { Checkpointing::Automatic };
        let world = Arc::clone(&self.world);
        let on_failure = match scenario.policy {
            Policy::Retry => OnFailure::retry(),
            Policy::Skip(attempts) => OnFailure::skip_after(attempts).unwrap(),
            Policy::StopShard(attempts) => OnFailure::stop_shard_after(attempts).unwrap(),
            Policy::DeadLetter(due) => OnFailure::dead_letter_after(due, move |letter| {
                let world = Arc::clone(&world);
                async move {
                    let (shard, ordinal) = (letter.record.shard().get(), ordinal(&letter.record));
                    if letter.attempts % 2 == 1 && ordinal % 3 == 0 && letter.attempts == due {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    world.judge.lock().dead_letter(shard, ordinal, letter.attempts, due);
                    Ok::<(), ProcessError>(())
                }
            })
            .unwrap(),
        };
        WorkerBuilder::new(Origin::Other(source), APP, STREAM)
            .lease_duration(scenario.lease)
            .handoff_deadline(scenario.handoff)
            .balance(scenario.balance)
            .initial_position(scenario.initial)
            .leases_max(scenario.leases_max)
            .checkpointing(checkpointing)
            .on_failure(on_failure)
    }

    /// Asks a worker to stop in order.
    pub(super) fn stop(&mut self, at: usize, deadline: Duration) {
        let Some(handle) = self.instances[at].handle.take() else { return };
        let instance = &self.instances[at];
        let (number, clock) = (instance.number, instance.machine.clock);
        self.note(format_args!("{}#{number} is told to stop within {deadline:?}", instance.worker));
        let (world, calm) = (Arc::clone(&self.world), self.scenario.class == Class::Calm);
        instance.machine.runtime.spawn(async move {
            let stopped = handle.stop(deadline).await;
            let mut judge = world.judge.lock();
            judge.note(
                clock.now(),
                format_args!("#{number} stopped: {:?}", stopped.as_ref().err().map(|e| e.kind())),
            );
            if let Err(error) = stopped {
                judge.killed.push(number);
                if calm {
                    judge.wrong(format!("#{number} did not stop in order: {error}"));
                }
            }
        });
    }

    pub(super) fn kill(&mut self, at: usize) {
        let instance = self.instances.remove(at);
        self.note(format_args!("{}#{} is killed", instance.worker, instance.number));
        self.world.judge.lock().killed.push(instance.number);
    }

    /// Nothing goes wrong any more.
    pub(super) fn clear_up(&mut self) {
        self.note(format_args!("faults end"));
        let scenario = &self.scenario;
        let delay_ms = scenario.weather.delay_ms.min(20);
        *self.world.weather.lock() = Weather { delay_ms, ..Weather::default() };
        let mut conduct = self.world.conduct.lock();
        (conduct.slow, conduct.fails, conduct.panics, conduct.bad_shutdowns) = (0, 0, 0, 0);
        if !matches!(scenario.policy, Policy::Skip(_) | Policy::DeadLetter(_)) {
            conduct.poison = 0;
        }
        drop(conduct);
        let now = self.now;
        self.instances.iter_mut().filter(|instance| instance.stopped_until > now).for_each(|instance| {
            instance.machine.skip_to(now);
            instance.stopped_until = Duration::ZERO;
        });
    }

    fn close(mut self) -> Outcome {
        // what is dropped with its machine was not told to end
        let numbers = self.instances.iter().map(|instance| instance.number);
        self.world.judge.lock().killed.extend(numbers);
        self.instances.clear();
        let mut judge = self.world.judge.lock();
        Outcome {
            verdict: judge.verdict.take(),
            hash: judge.hash,
            records: judge.shards.iter().map(|shard| shard.places.len()).sum(),
            redelivered: judge.redelivered,
            moves: judge.moves,
            trace: std::mem::take(&mut judge.trace),
            virtual_time: self.now,
        }
    }
}
