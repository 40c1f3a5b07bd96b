//! One run: puts the machines together, drives them step by step, breaks things when the plan says so, and mends them; in
//! the end the power goes once more, and the judge looks at what is left.

use super::hosts::{self, BROKER, BrokerMachine};
use super::judge::{Log, Verdict, judge, unprocessed};
use super::plan::{Fault, Machine, Plan};
use super::world::{Answer, SimulatedClock, World};
use rand::RngExt;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tidemill_engine::simulation::{FaultDisk, MemoryStore};
use tidemill_engine::{Durability, Engine, Health};

/// How far the time goes in a step.
const TICK: Duration = Duration::from_millis(5);
/// A broker that has died or refuses writes is started again after so long, at most.
const RESTART_MS: std::ops::Range<u64> = 50..1_500;
/// So long after things are calm everything must be done.
const DONE_WITHIN_MS: u64 = 180_000;
/// How often it is asked whether everything is done.
const LOOK_EVERY_MS: u64 = 500;

/// What a run came to.
pub(crate) struct Outcome {
    pub verdict: Verdict,
    pub world: World,
    pub acknowledged: usize,
    pub unknown: usize,
    pub stored: usize,
    pub processed: usize,
    pub simulated_ms: u64,
}

/// What is done later.
#[derive(Debug, Clone, Copy)]
enum Later {
    Fault(Fault),
    StartBroker,
    Room,
    MetadataWorks,
    Mend(Machine),
    Start(Machine),
}

struct Run<'a> {
    sim: turmoil::Sim<'a>,
    world: World,
    plan: Plan,
    machine: Rc<RefCell<BrokerMachine>>,
    agenda: BTreeMap<(u64, usize), Later>,
    arranged: usize,
    restart_due: bool,
}

pub(crate) fn run(seed: u64) -> Outcome {
    let world = World::default();
    let of_hook = world.clone();
    std::panic::set_hook(Box::new(move |info| of_hook.facts().panics.push(info.to_string())));
    let mut run = Run::new(seed, world.clone());
    let ordered: Vec<bool> = run.plan.producers.iter().map(|producing| producing.ordered).collect();
    let (log, verdict) = match run.finish() {
        Ok(log) => {
            let verdict = judge(&world.facts(), &log, &ordered);
            (log, verdict)
        }
        Err(why) => (Log::default(), Err(why)),
    };
    let simulated_ms = world.elapsed_ms();
    drop(run);
    let (acknowledged, unknown, processed) = {
        let facts = world.facts();
        let stored =
            facts.puts.values().filter(|put| matches!(put.answered, Some((_, Answer::Stored { .. }))));
        let unknown =
            facts.puts.values().filter(|put| matches!(put.answered, None | Some((_, Answer::Unknown(_)))));
        (stored.count(), unknown.count(), facts.sessions.iter().map(|session| session.processed.len()).sum())
    };
    Outcome { verdict, acknowledged, unknown, stored: log.count(), processed, simulated_ms, world }
}

impl Run<'_> {
    fn new(seed: u64, world: World) -> Self {
        let mut plan = Plan::new(seed);
        let mut builder = turmoil::Builder::new();
        builder
            .simulation_duration(Duration::from_secs(3600))
            .tick_duration(TICK)
            .tcp_capacity(4096)
            .min_message_latency(plan.latency.0)
            .max_message_latency(plan.latency.1)
            .rng_seed(plan.rng.random());
        if plan.random_order {
            builder.enable_random_order();
        }
        let machine = BrokerMachine {
            disk: FaultDisk::new(plan.rng.random()),
            metadata: MemoryStore::default(),
            clock: SimulatedClock::new(world.clone()),
            settings: plan.settings(),
            shards: plan.shards,
            engine: None,
            stop: Arc::default(),
        };
        let machine = Rc::new(RefCell::new(machine));
        let mut sim = builder.build();
        let (of_broker, of_world) = (Rc::clone(&machine), world.clone());
        sim.host(BROKER, move || hosts::broker(Rc::clone(&of_broker), of_world.clone()));
        add_clients(&mut sim, &mut plan, &world);
        let mut run =
            Self { sim, world, machine, agenda: BTreeMap::new(), arranged: 0, restart_due: false, plan };
        for (at, fault) in std::mem::take(&mut run.plan.faults) {
            run.later(at, Later::Fault(fault));
        }
        run
    }

    /// Runs until everything is done, then lets the power go and gives what is left.
    fn finish(&mut self) -> Result<Log, String> {
        while self.now() < self.plan.calm_from || !self.agenda.is_empty() {
            self.step()?;
        }
        self.calm_down();
        let give_up = self.now() + DONE_WITHIN_MS;
        loop {
            let look = self.now() + LOOK_EVERY_MS;
            while self.now() < look {
                self.step()?;
            }
            let missing = match self.missing() {
                None => break,
                Some(missing) => missing,
            };
            if self.now() > give_up {
                return Err(format!("there is no end: {missing}"));
            }
        }
        self.last_look()
    }

    fn now(&self) -> u64 {
        self.world.elapsed_ms()
    }

    fn later(&mut self, at: u64, what: Later) {
        self.arranged += 1;
        self.agenda.insert((at, self.arranged), what);
    }

    fn step(&mut self) -> Result<(), String> {
        while let Some(entry) = self.agenda.first_entry()
            && entry.key().0 <= self.world.elapsed_ms()
        {
            let what = entry.remove();
            self.act(what);
        }
        self.watch_over_broker();
        self.sim.step().map_err(|error| format!("a machine failed: {error}"))?;
        self.world.set_elapsed_ms(self.sim.elapsed().as_millis() as u64);
        match self.world.facts().panics.first() {
            Some(panic) => Err(format!("something panicked: {panic}")),
            None => Ok(()),
        }
    }

    fn act(&mut self, what: Later) {
        match what {
            Later::Fault(fault) => self.break_something(fault),
            Later::StartBroker => {
                self.restart_due = false;
                // whatever is left of the old process
                self.kill_broker(false);
                self.world.note(format_args!("broker: started"));
                self.sim.bounce(BROKER);
            }
            Later::Room => self.machine.borrow().disk.set_capacity(u64::MAX),
            Later::MetadataWorks => self.machine.borrow().metadata.set_failing(false),
            // the link is whole again; what was kept is delivered
            Later::Mend(machine) => self.sim.release(machine.host(), BROKER),
            Later::Start(machine) => self.sim.bounce(machine.host()),
        }
    }

    fn break_something(&mut self, fault: Fault) {
        let now = self.now();
        let (kind, detail) = told(fault);
        self.world.fault(kind, format_args!("{detail}"));
        match fault {
            Fault::Kill => self.kill_broker(false),
            Fault::PowerCut => self.kill_broker(true),
            Fault::PowerCutSoon(after) => self.machine.borrow().disk.cut_power_after(after),
            Fault::WriteFails(after) => self.machine.borrow().disk.fail_write_after(after),
            Fault::SyncFails(after) => self.machine.borrow().disk.fail_sync_after(after),
            Fault::DiskFull(room, for_ms) => {
                let machine = self.machine.borrow();
                let used: u64 = machine.disk.files().iter().map(|(_, bytes)| bytes).sum();
                machine.disk.set_capacity(used + room);
                drop(machine);
                self.later(now + for_ms, Later::Room);
            }
            Fault::MetadataFails(for_ms) => {
                self.machine.borrow().metadata.set_failing(true);
                self.later(now + for_ms, Later::MetadataWorks);
            }
            Fault::Restart => self.machine.borrow().stop.notify_one(),
            Fault::ClockJump(ms) => self.machine.borrow().clock.jump(ms),
            Fault::CutOff(machine, for_ms) => {
                self.sim.partition(machine.host(), BROKER);
                self.later(now + for_ms, Later::Mend(machine));
            }
            Fault::Unheard(machine, for_ms) => {
                self.sim.partition_oneway(machine.host(), BROKER);
                self.later(now + for_ms, Later::Mend(machine));
            }
            Fault::Deaf(machine, for_ms) => {
                self.sim.partition_oneway(BROKER, machine.host());
                self.later(now + for_ms, Later::Mend(machine));
            }
            Fault::Delayed(machine, for_ms) => {
                self.sim.hold(machine.host(), BROKER);
                self.later(now + for_ms, Later::Mend(machine));
            }
            Fault::Dies(machine, for_ms) => {
                self.sim.crash(machine.host());
                self.later(now + for_ms, Later::Start(machine));
            }
        }
    }

    /// Ends the broker's process; its files stay as the page cache has them, or as the device has.
    fn kill_broker(&mut self, power: bool) {
        {
            let mut machine = self.machine.borrow_mut();
            machine.disk = if power || !machine.disk.is_powered() {
                machine.disk.crash()
            } else {
                machine.disk.process_crash()
            };
            machine.metadata = machine.metadata.process_crash();
            machine.engine = None;
        }
        self.sim.crash(BROKER);
    }

    /// Starts a broker again that is not there, or that takes no writes until it is started again.
    fn watch_over_broker(&mut self) {
        let works = {
            let machine = self.machine.borrow();
            let poisoned =
                machine.engine.as_ref().is_some_and(|engine| matches!(engine.health(), Health::Poisoned(_)));
            machine.disk.is_powered() && !poisoned
        };
        if self.restart_due || (works && self.sim.is_host_running(BROKER)) {
            return;
        }
        self.restart_due = true;
        let at = self.now() + self.plan.rng.random_range(RESTART_MS);
        self.later(at, Later::StartBroker);
    }

    /// Nothing goes wrong from here on.
    fn calm_down(&mut self) {
        self.world.note(format_args!("calm"));
        self.machine.borrow().disk.call_off();
    }

    /// What is not done yet.
    fn missing(&self) -> Option<String> {
        let producers = self.plan.producers.len();
        let done = self.world.facts().producers_done.len();
        if done < producers {
            return Some(format!("{done} of {producers} producers are done"));
        }
        let Some(engine) = self.machine.borrow().engine.clone() else {
            return Some("there is no broker".to_owned());
        };
        let log = match runtime().block_on(Log::read(&engine)) {
            Ok(log) => log,
            Err(why) => return Some(why),
        };
        let facts = self.world.facts();
        let mut left = unprocessed(&facts, &log);
        left.next().map(|(shard, record)| format!("{} in {shard} is not processed", record.id))
    }

    fn last_look(&mut self) -> Result<Log, String> {
        let power = self.plan.durability == Durability::Device;
        self.kill_broker(power);
        let machine = self.machine.borrow();
        let (disk, metadata, clock) =
            (machine.disk.clone(), machine.metadata.clone(), Arc::new(machine.clock.clone()));
        runtime().block_on(async {
            let engine = Engine::simulated(disk, metadata, machine.settings.clone(), clock).await;
            Log::read(&engine.map_err(|error| format!("the broker does not open in the end: {error}"))?).await
        })
    }
}

/// For what is asked outside of all machines.
fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().expect("a runtime without threads")
}

/// The name of a fault, and what else is to be told.
fn told(fault: Fault) -> (&'static str, String) {
    match fault {
        Fault::Kill => ("kill", String::new()),
        Fault::PowerCut => ("power cut", String::new()),
        Fault::PowerCutSoon(after) => ("power cut in a write", format!(", {after} later")),
        Fault::WriteFails(after) => ("failing write", format!(", {after} later")),
        Fault::SyncFails(after) => ("failing sync", format!(", {after} later")),
        Fault::DiskFull(room, for_ms) => ("full disk", format!(": {room} bytes left for {for_ms} ms")),
        Fault::MetadataFails(for_ms) => ("failing metadata", format!(" for {for_ms} ms")),
        Fault::Restart => ("restart", String::new()),
        Fault::ClockJump(ms) => ("clock set", format!(" by {ms} ms")),
        Fault::CutOff(machine, for_ms) => ("cut off", format!(": {machine:?} for {for_ms} ms")),
        Fault::Unheard(machine, for_ms) => ("unheard", format!(": {machine:?} for {for_ms} ms")),
        Fault::Deaf(machine, for_ms) => ("deaf", format!(": {machine:?} for {for_ms} ms")),
        Fault::Delayed(machine, for_ms) => ("delayed", format!(": {machine:?} for {for_ms} ms")),
        Fault::Dies(machine, for_ms) => ("client dies", format!(": {machine:?} for {for_ms} ms")),
    }
}

fn add_clients(sim: &mut turmoil::Sim<'_>, plan: &mut Plan, world: &World) {
    for (index, producing) in (0..).zip(plan.producers.clone()) {
        let (lives, seed, world) = (Cell::new(0), plan.rng.random(), world.clone());
        sim.host(Machine::Producer(index).host(), move || {
            let life = lives.replace(lives.get() + 1);
            hosts::producer(index, life, producing.clone(), seed, world.clone())
        });
    }
    for (index, working) in (0..).zip(plan.workers.clone()) {
        let (lives, seed, lease, world) = (Cell::new(0), plan.rng.random(), plan.lease, world.clone());
        sim.host(Machine::Worker(index).host(), move || {
            let life = lives.replace(lives.get() + 1);
            hosts::worker(index, life, lease, working.clone(), seed, world.clone())
        });
    }
    let (reshards, seed, world) = (plan.reshards.clone(), plan.rng.random(), world.clone());
    sim.host("operator", move || hosts::operator(reshards.clone(), seed, world.clone()));
}
