//! The processor of the simulation: tells the judge of every call, and behaves as badly as it is told to.

use super::machine::Clock;
use super::world::{Conduct, World};
use crate::checkpoint::Checkpointer;
use crate::processor::{ProcessError, RecordProcessor, Start};
use crate::record::{Batch, Record};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

pub(super) struct Probe {
    world: Arc<World>,
    clock: Clock,
    session: usize,
    shard: u32,
    rng: StdRng,
}

pub(super) fn ordinal(record: &Record) -> usize {
    std::str::from_utf8(record.data()).unwrap().parse().unwrap()
}

impl Probe {
    pub(super) fn new(world: Arc<World>, clock: Clock, instance: usize, shard: u32) -> Self {
        let session = world.judge.lock().made(clock.now(), instance, shard);
        let rng = StdRng::seed_from_u64(world.seed ^ (session as u64) << 20);
        Self { world, clock, session, shard, rng }
    }
    fn conduct(&self) -> Conduct {
        *self.world.conduct.lock()
    }
    fn chance(&mut self, in_a_thousand: u32) -> bool {
        self.rng.random_range(0..1000) < in_a_thousand
    }
    async fn take_time(&mut self) {
        let conduct = self.conduct();
        let slow = self.chance(conduct.slow);
        let time = self.rng.random_range(0..=if slow { conduct.slow_ms } else { conduct.usual_ms });
        if time > 0 {
            sleep(Duration::from_millis(time)).await;
        }
    }
    /// The call fails, or not.
    fn outcome(&mut self) -> Result<(), ProcessError> {
        let conduct = self.conduct();
        if self.chance(conduct.panics) {
            // without the noise of the panic hook
            std::panic::resume_unwind(Box::new("told to panic".to_owned()));
        }
        if self.chance(conduct.fails) { Err(ProcessError::new("told to fail")) } else { Ok(()) }
    }
    async fn checkpoint(&mut self, records: &[Record], checkpointer: &Checkpointer) {
        let conduct = self.conduct();
        // a checkpoint that fails is for the next one to make good
        if self.chance(conduct.checkpoints) {
            let last = self.rng.random_range(0..records.len());
            self.world.judge.lock().processed(self.session, ordinal(&records[0]), ordinal(&records[last]));
            let _ = checkpointer.checkpoint_at(&records[last]).await;
        }
    }
    async fn finish(&mut self, records: &[Record], checkpointer: &Checkpointer) {
        let conduct = self.conduct();
        let (first, last) = (ordinal(&records[0]), ordinal(&records[records.len() - 1]));
        self.world.judge.lock().processed(self.session, first, last);
        if self.chance(conduct.prepares) {
            if let Ok(prepared) = checkpointer.prepare(format!("up to {last}")).await {
                self.take_time().await;
                let _ = prepared.commit().await;
            }
        } else if conduct.manual {
            let _ = checkpointer.checkpoint().await;
        }
    }
    async fn try_batch(
        &mut self,
        records: &[Record],
        checkpointer: &Checkpointer,
    ) -> Result<(), ProcessError> {
        self.take_time().await;
        let conduct = self.conduct();
        let is_poison = |record: &&Record| conduct.is_poison(self.world.seed, self.shard, ordinal(record));
        let poison = records.iter().find(is_poison);
        if let Some(poison) = poison {
            let error = ProcessError::new("poison");
            return Err(if self.chance(500) { error.at(poison) } else { error });
        }
        self.checkpoint(records, checkpointer).await;
        if let Err(error) = self.outcome() {
            let named = self.rng.random_range(0..2 * records.len());
            return Err(match records.get(named) {
                Some(record) => error.at(record),
                None => error,
            });
        }
        self.finish(records, checkpointer).await;
        Ok(())
    }
}

impl RecordProcessor for Probe {
    async fn initialize(&mut self, start: &Start) -> Result<(), ProcessError> {
        self.world.judge.lock().initialize(self.clock.now(), self.session, start);
        self.take_time().await;
        let outcome = self.outcome();
        self.world.judge.lock().initialized(self.clock.now(), self.session, outcome.is_ok());
        outcome
    }

    async fn process(&mut self, batch: Batch, checkpointer: &Checkpointer) -> Result<(), ProcessError> {
        let records: Vec<Record> = batch.records().collect();
        let ordinals: Vec<usize> = records.iter().map(ordinal).collect();
        self.world.judge.lock().process(self.clock.now(), self.session, &ordinals);
        let outcome = self.try_batch(&records, checkpointer).await;
        let failed_at = match &outcome {
            Ok(()) => None,
            Err(error) => {
                let at = error.place();
                Some(records.iter().find(|record| Some(record.place()) == at).map(ordinal))
            }
        };
        self.world.judge.lock().process_ended(self.clock.now(), self.session, &ordinals, failed_at);
        outcome
    }

    async fn shard_ended(&mut self, _: &Checkpointer) -> Result<(), ProcessError> {
        self.world.judge.lock().ending(self.clock.now(), self.session);
        self.take_time().await;
        let outcome = self.outcome();
        if outcome.is_ok() {
            self.world.judge.lock().last_call(self.clock.now(), self.session, "shard_ended");
        }
        outcome
    }

    async fn lease_lost(&mut self) {
        self.world.judge.lock().last_call(self.clock.now(), self.session, "lease_lost");
    }

    async fn shutdown(&mut self, checkpointer: &Checkpointer) -> Result<(), ProcessError> {
        self.take_time().await;
        let conduct = self.conduct();
        if conduct.manual {
            let _ = checkpointer.checkpoint().await;
        }
        let fails = self.chance(conduct.bad_shutdowns);
        self.world.judge.lock().last_call(self.clock.now(), self.session, "shutdown");
        if fails { Err(ProcessError::new("told to fail")) } else { Ok(()) }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // a panic under way is no time for another one
        self.world.judge.lock().dropped(self.session, std::thread::panicking());
    }
}
