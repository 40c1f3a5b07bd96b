//! The events of a run, and what must hold once it has come to rest.

use super::facts::Fate;
use super::run::{Instance, Run, STREAM};
use super::scenario::{Class, Policy};
use crate::assign::Balance;
use crate::initial::InitialPosition;
use crate::shard::ShardRef;
use crate::store::{LeaseRow, LeaseStore, MemoryStore};
use rand::RngExt;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tidemill_types::{AppName, ShardId, StreamName, WorkerId};

/// Workers at most, at a time.
const WORKERS_MAX: usize = 5;
const SHARDS_MAX: usize = 24;
const RECORDS_MAX: usize = 1500;

impl Run {
    pub(super) fn play(&mut self) {
        let first = self.rng.random_range(1..=self.scenario.workers);
        for worker in 0..first {
            self.start(&format!("w{worker}"));
        }
        let mut next = self.after_a_while();
        while self.now < self.scenario.eventful && self.is_well() {
            if self.now >= next {
                self.event();
                next = self.after_a_while();
            }
            self.append();
            self.step();
        }
        self.clear_up();
        self.settle();
    }

    fn after_a_while(&mut self) -> Duration {
        self.now + Duration::from_millis(self.rng.random_range(1..=2 * self.scenario.event_ms))
    }

    fn append(&mut self) {
        if self.rng.random_range(0..1000) >= self.scenario.appends || self.appended >= RECORDS_MAX {
            return;
        }
        let open = self.world.service.lock().open();
        let shard = open[self.rng.random_range(0..open.len())];
        for _ in 0..self.rng.random_range(1..=3) {
            let users = if self.rng.random_range(0..4) == 0 { self.rng.random_range(2..=4) } else { 1 };
            let number = self.world.service.lock().append(self.now, shard, users);
            self.world.judge.lock().appended(self.now, shard, number, users);
            self.appended += users;
        }
    }

    fn event(&mut self) {
        let class = self.scenario.class;
        let most = match class {
            Class::Calm => 6,
            Class::Deaths => 10,
            Class::Storm => 12,
        };
        match self.rng.random_range(0..most) {
            0 | 1 => self.someone_starts(),
            2 => self.someone_stops(),
            3 => self.split(),
            4 => self.merge(),
            5 => self.delete(),
            6 | 7 => {
                if let Some(at) = self.anyone() {
                    self.kill(at);
                }
            }
            8 | 9 => self.someone_stands_still(),
            _ => self.someone_is_cut_off(),
        }
    }

    fn anyone(&mut self) -> Option<usize> {
        let count = self.instances.len();
        (count > 0).then(|| self.rng.random_range(0..count))
    }
    fn someone_starts(&mut self) {
        let free = |name: &String| !self.instances.iter().any(|instance| instance.worker.as_str() == name);
        // under an old id, or a new one
        let names: Vec<_> = (0..WORKERS_MAX + 3).map(|at| format!("w{at}")).filter(free).collect();
        if self.instances.len() < self.scenario.workers {
            let name = names[self.rng.random_range(0..names.len())].clone();
            self.start(&name);
        }
    }
    fn someone_stops(&mut self) {
        let calm = self.scenario.class == Class::Calm;
        let deadline = Duration::from_secs(if calm { 600 } else { self.rng.random_range(1..=30) });
        if let Some(at) = self.anyone() {
            self.stop(at, deadline);
        }
    }
    fn someone_stands_still(&mut self) {
        let time = self.scenario.lease.mul_f64(self.rng.random_range(0.05..3.0));
        let until = self.now + Duration::from_millis(time.as_millis() as u64);
        if let Some(at) = self.anyone() {
            let instance = &self.instances[at];
            self.note(format_args!("{}#{} stands still until {until:?}", instance.worker, instance.number));
            self.instances[at].stopped_until = until;
        }
    }
    fn someone_is_cut_off(&mut self) {
        let until = self.now + self.scenario.lease.mul_f64(self.rng.random_range(0.1..3.0));
        if let Some(at) = self.anyone() {
            let number = self.instances[at].number;
            self.note(format_args!("#{number} is cut off until {until:?}"));
            self.world.weather.lock().cut_off.insert(number, until);
        }
    }
    fn split(&mut self) {
        let open = self.world.service.lock().open();
        if self.world.judge.lock().shards.len() < SHARDS_MAX {
            let parent = open[self.rng.random_range(0..open.len())];
            self.add_shards(&[parent], 2);
        }
    }
    fn merge(&mut self) {
        let open = self.world.service.lock().open();
        if open.len() >= 2 && self.world.judge.lock().shards.len() < SHARDS_MAX {
            let at = self.rng.random_range(0..open.len() - 1);
            self.add_shards(&[open[at], open[at + 1]], 1);
        }
    }
    /// The retention of a shard that is processed passes.
    fn delete(&mut self) {
        let mut judge = self.world.judge.lock();
        let ended = |shard: &&u32| judge.shards[**shard as usize].is_ended();
        let all: Vec<u32> = (0..judge.shards.len() as u32).collect();
        let Some(shard) =
            all.iter().find(ended).filter(|shard| !judge.shards[**shard as usize].deleted).copied()
        else {
            return;
        };
        judge.shard(shard).deleted = true;
        judge.note(self.now, format_args!("shard {shard} is deleted"));
        self.world.service.lock().delete(shard);
    }

    /// Lets everything come to rest.
    fn settle(&mut self) {
        let left_behind = self.last_death();
        self.hire();
        let lease = self.scenario.lease;
        let begun = self.now;
        let most = begun + Duration::from_secs(90) + 30 * lease;
        let mut next_resume = self.now;
        while self.is_well() {
            if self.now >= next_resume && matches!(self.scenario.policy, Policy::StopShard(_)) {
                self.resume_all();
                next_resume = self.now + Duration::from_secs(1);
            }
            self.step();
            self.must_be_taken_over(&left_behind);
            let rest = 3 * lease;
            let last = self.world.judge.lock().last_move.max(begun);
            let quiet = self.now.saturating_sub(last) > rest;
            let left = self.left();
            if left.is_none() && quiet {
                break;
            }
            if self.now > most {
                let left = left.unwrap_or_else(|| "leases still move".to_owned());
                self.world.judge.lock().wrong(format!("not at rest in time: {left}"));
            }
        }
        if self.is_well() {
            self.look_at_the_rest();
        }
    }

    /// Workers that live and were not told to stop.
    fn staying(&self) -> impl Iterator<Item = &Instance> {
        self.instances.iter().filter(|instance| instance.handle.is_some())
    }

    /// Kills a worker while nothing else goes wrong; the leases it held, by shard and epoch, and until when they must be
    /// others'.
    fn last_death(&mut self) -> (Vec<(u32, u64)>, Duration) {
        let due = self.now + 2 * self.scenario.lease + Duration::from_secs(1);
        // in a storm the dead still renew: requests of theirs are under way
        let fits = self.scenario.class == Class::Deaths && self.scenario.leases_max == usize::MAX;
        if !fits || self.staying().count() < 2 || self.rng.random_range(0..2) == 0 {
            return (Vec::new(), due);
        }
        let staying = |at: &usize| self.instances[*at].handle.is_some();
        let at = (0..self.instances.len()).find(staying).expect("two are staying");
        let (worker, number) = (self.instances[at].worker.clone(), self.instances[at].number);
        let judge = self.world.judge.lock();
        let held = (0u32..).zip(&judge.shards).filter(|(_, facts)| {
            let its = facts.taken.get(&facts.epoch).is_some_and(|taken| taken.instance == number);
            its && facts.owner.as_ref() == Some(&worker) && !facts.is_ended() && !facts.deleted
        });
        let held = held.map(|(shard, facts)| (shard, facts.epoch)).collect();
        drop(judge);
        self.kill(at);
        (held, due)
    }
    fn must_be_taken_over(&self, (held, due): &(Vec<(u32, u64)>, Duration)) {
        let mut judge = self.world.judge.lock();
        for (shard, epoch) in held.iter().filter(|_| self.now > *due) {
            if judge.shard(*shard).epoch == *epoch {
                judge.wrong(format!(
                    "shard {shard}: not taken over within two lease times of its worker's death"
                ));
            }
        }
    }

    /// There must be a worker that stays, and room for all leases.
    fn hire(&mut self) {
        let staying = self.staying().count();
        let open = self.world.judge.lock().shards.len();
        let room = staying.saturating_mul(self.scenario.leases_max);
        if staying == 0 || room < open {
            self.scenario.leases_max = usize::MAX;
            self.start("the last");
        }
    }
    fn resume_all(&mut self) {
        let stream = StreamName::new(STREAM).unwrap();
        let shards = self.world.judge.lock().shards.len() as u32;
        for handle in self.instances.iter().filter_map(|instance| instance.handle.as_ref()) {
            for shard in 0..shards {
                handle.resume(&ShardRef::new(stream.clone(), ShardId::new(shard).unwrap()));
            }
        }
    }

    /// What is left to do, if anything.
    fn left(&self) -> Option<String> {
        let mut judge = self.world.judge.lock();
        let latest = self.scenario.initial == InitialPosition::Latest;
        for shard in 0..judge.shards.len() as u32 {
            let facts = judge.shard(shard);
            let all = facts.places.len();
            let passed_over = latest && facts.checkpoint.is_none() && facts.closed;
            if facts.deleted || passed_over {
                continue;
            }
            let settled = facts.settled();
            if settled < all {
                return Some(format!("record {settled} of {all} of shard {shard} is not processed"));
            }
            let Some(checkpoint) = facts.checkpoint else {
                return Some(format!("shard {shard} was never taken"));
            };
            // who checkpoints by hand hears nothing of a last record that is given up
            let last_is_left_out = match facts.fates.last() {
                Some(Fate::GivenUp) => self.scenario.conduct.manual,
                last => last == Some(&Fate::Before),
            };
            if facts.covered(checkpoint) < all && !last_is_left_out {
                return Some(format!(
                    "shard {shard} is checkpointed at {checkpoint:?}, it has {all} records"
                ));
            }
            if facts.closed && !facts.is_ended() {
                return Some(format!("the end of shard {shard} is not checkpointed"));
            }
            let holder = |owner: &WorkerId| self.staying().any(|instance| instance.worker == *owner);
            if !facts.closed && !facts.owner.as_ref().is_some_and(holder) {
                return Some(format!("nobody who lives holds shard {shard}"));
            }
        }
        None
    }

    /// Every lease is held by a worker that lives, and evenly.
    fn look_at_the_rest(&self) {
        let rows = self.rows();
        let mut held: BTreeMap<&WorkerId, usize> =
            self.staying().map(|instance| (&instance.worker, 0)).collect();
        let mut judge = self.world.judge.lock();
        for row in rows.iter().filter(|row| row.shard.is_open()) {
            let shard = row.shard.id.get();
            let Some(owner) = row.owner.as_ref().filter(|_| row.is_held()) else {
                judge.wrong(format!("at rest nobody holds shard {shard}"));
                continue;
            };
            match held.get_mut(owner) {
                Some(count) => *count += 1,
                None => judge.wrong(format!("at rest {owner} holds shard {shard}, and it does not live")),
            }
        }
        let (most, least) = (held.values().max(), held.values().min());
        let even = most.zip(least).is_some_and(|(most, least)| most - least <= 1);
        let bounded =
            self.scenario.leases_max < usize::MAX || held.contains_key(&WorkerId::new("the last").unwrap());
        if !even && self.scenario.balance == Balance::Count && !bounded {
            judge.wrong(format!("at rest the leases are not shared evenly: {held:?}"));
        }
        judge.note(self.now, format_args!("at rest: {held:?}"));
    }

    fn rows(&self) -> Vec<LeaseRow> {
        let source = super::service::SimSource {
            world: Arc::clone(&self.world),
            clock: self.far.clock,
            instance: usize::MAX,
        };
        let (app, worker) = (AppName::new(super::run::APP).unwrap(), WorkerId::new("nobody").unwrap());
        let store = MemoryStore::new(self.leases.clone(), Arc::new(source), app, worker, self.scenario.lease);
        let stream = StreamName::new(STREAM).unwrap();
        self.far.runtime.block_on(store.list(&stream)).unwrap()
    }
}
