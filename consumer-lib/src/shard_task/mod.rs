//! One shard under a lease: calls the processor in order, and checkpoints.
//!
//! ```text
//!  initialize ──► process ◄─┐ again, after a pause, when the processor fails (delivery says with what)
//!   │ again         │  └────┘
//!   │ when it       ├── end of the shard ──► shard_ended ──► checkpoint the end ──► Ended
//!   │ fails         │                         │ again when it fails
//!   ▼               ▼                         ▼
//!  (no last    any time: lease lost or stream gone ──► lease_lost ─────────────────► LeaseLost, Gone
//!   call)      any time: asked to stop or to hand over ──► shutdown ──► checkpoint what is processed ─► Stopped
//! ```
//!
//! Whether the lease is held is asked of the own clock right before each call of the processor. What is under way is
//! finished, not cancelled; what follows a failure stands in `failing`. A panic of the processor ends the task; whoever runs it gives the lease back.

mod failing;

use crate::checkpoint::Checkpointer;
use crate::delivery::{Delivery, Place};
use crate::error::ErrorKind;
use crate::failure::OnFailure;
use crate::fetch::{Fetched, Page, Reader};
use crate::hold::Hold;
use crate::metrics::ShardMeters;
use crate::place::Checkpoint;
use crate::processor::{RecordProcessor, Start};
use crate::record::Batch;
use crate::settings::Checkpointing;
use crate::shard::ShardInfo;
use crate::status::{ShardBoard, ShardPhase};
use crate::store::LeaseStore;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::sync::Arc;
use std::time::Duration;
use tidemill_proto::client::Backoff;
use tidemill_types::{AppName, WorkerId};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// Automatic checkpoints are at least this far apart.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);
/// Pauses after failures of the processor.
const RETRY: Backoff =
    Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(10), attempts_max: u32::MAX };

/// How the work on a shard ended.
#[derive(Debug)]
pub(crate) enum ShardExit {
    Ended,
    LeaseLost,
    Stopped,
    Gone(tidemill_proto::Error),
    Panicked(String),
}

/// What breaks the ordinary run of a shard.
enum Turn {
    Ended(Vec<ShardInfo>),
    LeaseLost,
    Stop,
    Gone(tidemill_proto::Error),
}

/// What a shard task works with.
pub(crate) struct Desk {
    pub(crate) start: Start,
    pub(crate) app: AppName,
    pub(crate) worker: WorkerId,
    pub(crate) hold: Arc<Hold>,
    pub(crate) store: Arc<dyn LeaseStore>,
    pub(crate) checkpointer: Checkpointer,
    pub(crate) checkpointing: Checkpointing,
    pub(crate) on_failure: OnFailure,
    pub(crate) board: Arc<ShardBoard>,
    pub(crate) meters: ShardMeters,
    /// The worker stops.
    pub(crate) stop: CancellationToken,
    /// Feeds the pauses.
    pub(crate) seed: u64,
}

impl Desk {
    /// Waits until the work is to be stopped in order.
    async fn told_to_stop(&self) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.hold.asked() => {}
        }
    }
    fn is_told_to_stop(&self) -> bool {
        self.stop.is_cancelled() || self.hold.is_asked()
    }
}

pub(crate) struct ShardTask<P> {
    desk: Desk,
    processor: P,
    reader: Reader,
    paused: watch::Receiver<bool>,
    /// Everything up to here is processed.
    processed: Checkpoint,
    checkpoint_due: Instant,
    rng: StdRng,
}

impl<P: RecordProcessor> ShardTask<P> {
    pub(crate) fn new(desk: Desk, processor: P, reader: Reader) -> Self {
        let (processed, rng) = (desk.start.from, StdRng::seed_from_u64(desk.seed));
        let checkpoint_due = Instant::now() + CHECKPOINT_INTERVAL;
        let paused = desk.board.watch_paused();
        Self { desk, processor, reader, paused, processed, checkpoint_due, rng }
    }

    pub(crate) async fn run(mut self) -> ShardExit {
        let mut turn = match self.initialize().await {
            Err(turn) => return exit_without_call(turn),
            Ok(()) => self.work().await,
        };
        loop {
            self.desk.board.phase(ShardPhase::Finishing);
            turn = match turn {
                Turn::Ended(children) => match self.end_shard(&children).await {
                    Ok(exit) => return exit,
                    Err(turn) => turn,
                },
                Turn::Stop => return self.shut_down().await,
                #[cfg(test)]
                Turn::LeaseLost if crate::sim::bugs::is_planted(crate::sim::bugs::Bug::NoLastCall) => {
                    return ShardExit::LeaseLost;
                }
                Turn::LeaseLost => {
                    self.processor.lease_lost().await;
                    return ShardExit::LeaseLost;
                }
                Turn::Gone(error) => {
                    self.processor.lease_lost().await;
                    return ShardExit::Gone(error);
                }
            }
        }
    }

    async fn initialize(&mut self) -> Result<(), Turn> {
        for attempt in 1.. {
            self.must_hold()?;
            match self.processor.initialize(&self.desk.start).await {
                Ok(()) => break,
                Err(error) => self.pause_after("initialize", attempt, &error).await?,
            }
        }
        self.desk.board.phase(ShardPhase::Processing);
        Ok(())
    }

    /// Processes until something ends it.
    async fn work(&mut self) -> Turn {
        loop {
            if let Err(turn) = self.step().await {
                return turn;
            }
        }
    }

    async fn step(&mut self) -> Result<(), Turn> {
        let pending = self.is_checkpoint_pending();
        let paused = *self.paused.borrow_and_update();
        let fetched = tokio::select! {
            biased;
            () = self.desk.hold.lost() => return Err(Turn::LeaseLost),
            () = self.desk.told_to_stop() => return Err(Turn::Stop),
            () = sleep_until(self.checkpoint_due), if pending => return self.checkpoint_now().await,
            Ok(()) = self.paused.changed() => return Ok(()),
            fetched = self.reader.next(), if !paused => fetched,
        };
        match fetched {
            Fetched::Begun(anchor) => self.anchor(anchor).await,
            Fetched::Gone(error) => Err(Turn::Gone(error)),
            Fetched::Page(page) => self.take(page).await,
        }
    }

    async fn take(&mut self, page: Page) -> Result<(), Turn> {
        let Page { batch, millis_behind, records_behind, received, room, end_of_shard } = page;
        let (records, bytes) = batch.as_ref().map_or((0, 0), |batch| (batch.len(), batch.bytes()));
        if let Some(batch) = batch {
            let left = records_behind.map(|behind| behind + records as u64);
            self.desk.board.began(millis_behind, left, received);
            self.deliver(batch).await?;
        }
        drop(room);
        self.desk.hold.processed(bytes);
        let meters = &self.desk.meters;
        meters.bytes.increment(bytes as u64);
        meters.millis_behind.set(millis_behind as f64);
        if let Some(behind) = records_behind {
            meters.records_behind.set(behind as f64);
        }
        match end_of_shard {
            Some(children) => {
                self.desk.board.processed_to_end();
                Err(Turn::Ended(children))
            }
            None => {
                self.desk.board.processed(millis_behind, records_behind);
                Ok(())
            }
        }
    }

    /// Delivers a batch until it is processed, or given up as the application wants.
    async fn deliver(&mut self, batch: Batch) -> Result<(), Turn> {
        let end = batch.last_place();
        let mut left = Some(Delivery::new(batch));
        while let Some(delivery) = left.take() {
            let Some(unit) = delivery.unit() else { break };
            self.must_hold()?;
            self.desk.checkpointer.set_reach(checkpoint_at(unit.last_place()));
            #[cfg(test)]
            if crate::sim::bugs::is_planted(crate::sim::bugs::Bug::FailedIsReached) {
                self.processed = checkpoint_at(unit.last_place());
            }
            let began = Instant::now();
            let outcome = self.processor.process(unit.clone(), &self.desk.checkpointer).await;
            self.desk.meters.process_seconds.record(began.elapsed());
            left = match outcome {
                Ok(()) => {
                    self.advance(&unit, unit.last_place());
                    delivery.done(unit.last_place())
                }
                Err(error) => {
                    // what failed is not to be checkpointed by a shutdown that comes meanwhile
                    self.desk.checkpointer.set_reach(self.reached());
                    self.desk.meters.failures.increment(1);
                    self.after_failure(delivery, &unit, &error).await?
                }
            };
        }
        // what is left was skipped as of other shards
        self.processed = checkpoint_at(end);
        self.desk.checkpointer.set_reach(self.processed);
        Ok(())
    }

    /// Records of `unit` up to a place are processed.
    fn advance(&mut self, unit: &Batch, up_to: Place) {
        let all = up_to == unit.last_place();
        let records = if all {
            unit.len()
        } else {
            unit.records().take_while(|record| record.place() <= up_to).count()
        };
        self.desk.meters.records.increment(records as u64);
        self.desk.board.counted(records);
        self.processed = checkpoint_at(up_to);
    }

    /// What a shutdown may checkpoint.
    fn reached(&self) -> Checkpoint {
        self.processed.max(self.desk.checkpointer.stored())
    }

    /// Whether an automatic checkpoint has something to tell.
    fn is_checkpoint_pending(&self) -> bool {
        self.desk.checkpointing == Checkpointing::Automatic
            && self.reached() != self.desk.checkpointer.stored()
    }

    /// Remembers where "the newest" was, so that whoever comes next does not begin at a later one.
    async fn anchor(&mut self, anchor: Option<Checkpoint>) -> Result<(), Turn> {
        match anchor.filter(|_| self.desk.start.from == Checkpoint::Latest) {
            Some(anchor) => {
                self.processed = anchor;
                self.desk.checkpointer.set_reach(anchor);
                self.checkpoint_now().await
            }
            None => Ok(()),
        }
    }

    async fn checkpoint_now(&mut self) -> Result<(), Turn> {
        self.checkpoint_due = Instant::now() + CHECKPOINT_INTERVAL;
        match self.desk.checkpointer.store(self.reached()).await {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::LeaseLost => Err(Turn::LeaseLost),
            Err(error) => {
                warn!(shard = %self.desk.start.shard, %error, "checkpoint not stored, trying again later");
                self.desk.board.troubled(format!("checkpointing: {error}"));
                Ok(())
            }
        }
    }

    /// The shard was read to its end. `Ok` once the processor's last call is made.
    async fn end_shard(&mut self, children: &[ShardInfo]) -> Result<ShardExit, Turn> {
        for attempt in 1.. {
            self.must_hold()?;
            self.desk.checkpointer.set_reach(Checkpoint::ShardEnd);
            match self.processor.shard_ended(&self.desk.checkpointer).await {
                Ok(()) => break,
                Err(error) => {
                    self.desk.checkpointer.set_reach(self.reached());
                    self.pause_after("shard_ended", attempt, &error).await?;
                }
            }
        }
        let shard = &self.desk.start.shard;
        if let Err(error) = self.desk.store.note_children(&self.desk.hold, children).await {
            // whoever lists the shards finds them too
            debug!(%shard, %error, "children of the shard not noted");
        }
        match self.desk.checkpointer.store(Checkpoint::ShardEnd).await {
            Ok(()) => Ok(ShardExit::Ended),
            // whoever has the lease now comes to the end again
            Err(error) => {
                warn!(%shard, %error, "end of the shard not checkpointed");
                Ok(ShardExit::LeaseLost)
            }
        }
    }

    async fn shut_down(&mut self) -> ShardExit {
        if !self.desk.hold.is_held() {
            self.processor.lease_lost().await;
            return ShardExit::LeaseLost;
        }
        self.desk.checkpointer.set_reach(self.reached());
        let shard = &self.desk.start.shard;
        let done = self.processor.shutdown(&self.desk.checkpointer).await;
        if let Err(error) = &done {
            warn!(%shard, %error, "processor failed to shut down, not checkpointed");
        } else if self.desk.checkpointing == Checkpointing::Automatic
            && let Err(error) = self.desk.checkpointer.store(self.reached()).await
        {
            warn!(%shard, %error, "not checkpointed at shutdown");
        }
        ShardExit::Stopped
    }

    fn must_hold(&self) -> Result<(), Turn> {
        if self.desk.hold.is_held() { Ok(()) } else { Err(Turn::LeaseLost) }
    }
}

fn checkpoint_at((number, sub): Place) -> Checkpoint {
    Checkpoint::At { number, sub }
}

/// The processor never was initialized, so it gets no last call.
fn exit_without_call(turn: Turn) -> ShardExit {
    match turn {
        Turn::LeaseLost => ShardExit::LeaseLost,
        Turn::Gone(error) => ShardExit::Gone(error),
        Turn::Stop | Turn::Ended(_) => ShardExit::Stopped,
    }
}
