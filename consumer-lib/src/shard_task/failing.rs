//! What a shard task does when its processor fails: waits and calls again, or gives the record up as the application wants.

use super::{RETRY, ShardTask, Turn, checkpoint_at};
use crate::delivery::{Delivery, Next, Place};
use crate::failure::{DeadLetter, Policy};
use crate::processor::{ProcessError, RecordProcessor};
use crate::record::{Batch, Record};
use crate::status::ShardPhase;
use tokio::time::{sleep, sleep_until};
use tracing::{debug, warn};

impl<P: RecordProcessor> ShardTask<P> {
    /// The processor said that records up to this one are processed, while a later one failed.
    fn processed_before(&mut self, delivery: &mut Delivery, unit: &Batch, up_to: Option<Place>) {
        if let Some(up_to) = up_to {
            self.advance(unit, up_to);
            self.desk.checkpointer.set_reach(self.reached());
            delivery.processed_before(up_to);
        }
    }

    /// The processor failed; what is left to deliver.
    pub(super) async fn after_failure(
        &mut self,
        mut delivery: Delivery,
        unit: &Batch,
        error: &ProcessError,
    ) -> Result<Option<Delivery>, Turn> {
        match delivery.failed(unit, error, &self.desk.on_failure) {
            Next::Again => self.pause_after("process", delivery.failures(), error).await?,
            Next::Behind(up_to) => {
                self.processed_before(&mut delivery, unit, up_to);
                self.pause_after("process", delivery.failures(), error).await?;
            }
            Next::OneByOne => {
                warn!(shard = %self.desk.start.shard, %error, "a batch failed again and again, delivering it record by record");
            }
            Next::Stop(up_to) => {
                self.processed_before(&mut delivery, unit, up_to);
                self.halt(delivery.failures(), error).await?;
                delivery.resumed();
            }
            Next::GiveUp(record, attempts) => {
                if let Some(before) =
                    unit.records().map(|r| r.place()).take_while(|p| *p < record.place()).last()
                {
                    self.advance(unit, before);
                }
                self.give_up(&record, attempts, error).await?;
                self.processed = checkpoint_at(record.place());
                self.desk.checkpointer.set_reach(self.reached());
                return Ok(delivery.done(record.place()));
            }
        }
        Ok(Some(delivery))
    }

    /// Skips a record, or puts it among the dead letters; never silently.
    async fn give_up(&mut self, record: &Record, attempts: u32, error: &ProcessError) -> Result<(), Turn> {
        let shard = &self.desk.start.shard;
        let (number, sub) = record.place();
        let Policy::DeadLetter(_, put) = self.desk.on_failure.0.clone() else {
            warn!(%shard, %number, sub, attempts, %error, "record skipped: the processor failed on it");
            self.desk.meters.skipped.increment(1);
            self.desk.board.skipped();
            return Ok(());
        };
        warn!(%shard, %number, sub, attempts, %error, "record is put among the dead letters: the processor failed on it");
        let letter = DeadLetter {
            record: record.clone(),
            attempts,
            error: error.to_string(),
            app: self.desk.app.clone(),
            worker: self.desk.worker.clone(),
        };
        for attempt in 1.. {
            self.must_hold()?;
            match put(letter.clone()).await {
                Ok(()) => break,
                Err(error) => self.pause_after("putting a dead letter", attempt, &error).await?,
            }
        }
        self.desk.meters.dead_lettered.increment(1);
        self.desk.board.dead_lettered();
        Ok(())
    }

    /// The shard is stopped at a record that fails, until somebody resumes it.
    async fn halt(&mut self, attempts: u32, error: &ProcessError) -> Result<(), Turn> {
        warn!(shard = %self.desk.start.shard, attempts, %error, "shard stopped: the processor fails on a record; resume it when that is mended");
        self.desk.board.phase(ShardPhase::Halted { attempts });
        self.desk.board.troubled(format!("stopped after {attempts} attempts: {error}"));
        let mut resumes = self.desk.board.watch_resumes();
        loop {
            let pending = self.is_checkpoint_pending();
            tokio::select! {
                biased;
                () = self.desk.hold.lost() => return Err(Turn::LeaseLost),
                () = self.desk.told_to_stop() => return Err(Turn::Stop),
                () = sleep_until(self.checkpoint_due), if pending => self.checkpoint_now().await?,
                Ok(()) = resumes.changed() => return Ok(()),
            }
        }
    }

    /// The processor failed: tells, and waits before the next attempt.
    pub(super) async fn pause_after(
        &mut self,
        call: &str,
        attempts: u32,
        error: &ProcessError,
    ) -> Result<(), Turn> {
        self.must_hold()?;
        let shard = &self.desk.start.shard;
        if self.desk.is_told_to_stop() {
            debug!(%shard, call, attempts, %error, "processor failed, not called again: the work stops");
            return Err(Turn::Stop);
        }
        let wait = RETRY.wait(attempts, &mut self.rng);
        if attempts.is_power_of_two() {
            warn!(%shard, call, attempts, %error, "processor failed, calling it again");
        } else {
            debug!(%shard, call, attempts, %error, "processor failed, calling it again");
        }
        self.desk.board.phase(ShardPhase::Retrying { attempts });
        self.desk.board.troubled(format!("{call}, attempt {attempts}: {error}"));
        tokio::select! {
            biased;
            () = self.desk.hold.lost() => Err(Turn::LeaseLost),
            () = self.desk.told_to_stop() => Err(Turn::Stop),
            () = sleep(wait) => Ok(()),
        }
    }
}
