//! One shard under a lease: calls the processor in order, and checkpoints.
//!
//! ```text
//!  initialize ──► process ◄─┐ same batch again, after a pause, when the processor fails
//!   │ again         │  └────┘
//!   │ when it       ├── end of the shard ──► shard_ended ──► checkpoint the end ──► Ended
//!   │ fails         │                         │ again when it fails
//!   ▼               ▼                         ▼
//!  (no last    any time: lease lost or stream gone ──► lease_lost ───────────────► LeaseLost, Gone
//!   call)      any time: asked to stop ──► shutdown ──► checkpoint what is processed ─► Stopped
//! ```
//!
//! Whether the lease is held is asked of the own clock right before each call of the processor. What is under way is
//! finished, not cancelled. A panic of the processor ends the task; whoever runs it takes the lease back.

use crate::checkpoint::Checkpointer;
use crate::error::ErrorKind;
use crate::fetch::{Fetched, PushReader};
use crate::hold::Hold;
use crate::processor::{ProcessError, RecordProcessor};
use crate::record::{Batch, ShardRef};
use crate::settings::Checkpointing;
use crate::status::{ShardBoard, ShardPhase};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::sync::Arc;
use std::time::Duration;
use tidemill_proto::client::Backoff;
use tidemill_types::{Checkpoint, SequenceIndex, Shard};
use tokio::time::{Instant, sleep, sleep_until};
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
    Ended,
    LeaseLost,
    Stop,
    Gone(tidemill_proto::Error),
}

/// What a shard task works with.
pub(crate) struct Desk {
    pub(crate) at: ShardRef,
    pub(crate) shard: Shard,
    /// The checkpoint the lease was taken with.
    pub(crate) start: Checkpoint,
    pub(crate) hold: Arc<Hold>,
    pub(crate) checkpointer: Checkpointer,
    pub(crate) checkpointing: Checkpointing,
    pub(crate) board: Arc<ShardBoard>,
    pub(crate) stop: CancellationToken,
    /// Feeds the pauses.
    pub(crate) seed: u64,
}

pub(crate) struct ShardTask<P> {
    desk: Desk,
    processor: P,
    reader: PushReader,
    /// Everything up to here is processed.
    processed: Checkpoint,
    /// When the next automatic checkpoint may be made.
    checkpoint_due: Instant,
    rng: StdRng,
}

impl<P: RecordProcessor> ShardTask<P> {
    pub(crate) fn new(desk: Desk, processor: P, reader: PushReader) -> Self {
        let rng = StdRng::seed_from_u64(desk.seed);
        // the first batch is checkpointed at once: leases move most when workers have just come
        let (processed, checkpoint_due) = (desk.start, Instant::now());
        Self { desk, processor, reader, processed, checkpoint_due, rng }
    }

    pub(crate) async fn run(mut self) -> ShardExit {
        let mut turn = match self.initialize().await {
            Err(turn) => return exit_without_call(turn),
            Ok(()) => self.work().await,
        };
        loop {
            self.desk.board.phase(ShardPhase::Finishing);
            turn = match turn {
                Turn::Ended => match self.end_shard().await {
                    Ok(exit) => return exit,
                    Err(turn) => turn,
                },
                Turn::Stop => return self.shut_down().await,
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
            match self.processor.initialize(&self.desk.at, self.desk.start).await {
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
        let pending = self.desk.checkpointing == Checkpointing::Automatic
            && self.processed != self.desk.checkpointer.stored();
        let fetched = tokio::select! {
            biased;
            () = self.desk.hold.lost() => return Err(Turn::LeaseLost),
            () = self.desk.stop.cancelled() => return Err(Turn::Stop),
            () = sleep_until(self.checkpoint_due), if pending => return self.checkpoint_now().await,
            fetched = self.reader.next() => fetched,
        };
        match fetched {
            Fetched::Begun(index) => self.anchor(index).await,
            Fetched::Gone(error) => Err(Turn::Gone(error)),
            Fetched::Page { batch, millis_behind, received, room, end_of_shard } => {
                let records = batch.as_ref().map_or(0, Batch::len);
                if let Some(batch) = batch {
                    self.desk.board.began(millis_behind, received);
                    self.deliver(&batch).await?;
                }
                drop(room);
                if end_of_shard {
                    self.desk.board.processed_to_end(records);
                    return Err(Turn::Ended);
                }
                self.desk.board.processed(millis_behind, records);
                Ok(())
            }
        }
    }

    /// Delivers a batch until it is processed.
    async fn deliver(&mut self, batch: &Batch) -> Result<(), Turn> {
        let end = Checkpoint::At { number: batch.last_sequence_number(), sub: 0 };
        for attempt in 1.. {
            self.must_hold()?;
            self.desk.checkpointer.set_reach(end);
            match self.processor.process(batch.clone(), &self.desk.checkpointer).await {
                Ok(()) => break,
                Err(error) => {
                    // what failed is not to be checkpointed by a shutdown that comes meanwhile
                    self.desk.checkpointer.set_reach(self.processed);
                    self.pause_after("process", attempt, &error).await?;
                }
            }
        }
        self.processed = end;
        Ok(())
    }

    /// Remembers where "the newest" was, so that whoever comes next does not begin at a later one.
    async fn anchor(&mut self, index: SequenceIndex) -> Result<(), Turn> {
        if self.desk.start != Checkpoint::Latest {
            return Ok(());
        }
        let before = SequenceIndex::new(index.get().saturating_sub(1)).expect("below a valid index");
        self.processed =
            Checkpoint::At { number: self.desk.shard.number(before, self.desk.shard.created), sub: 0 };
        self.desk.checkpointer.set_reach(self.processed);
        self.checkpoint_now().await
    }

    async fn checkpoint_now(&mut self) -> Result<(), Turn> {
        self.checkpoint_due = Instant::now() + CHECKPOINT_INTERVAL;
        match self.desk.checkpointer.store(self.processed).await {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::LeaseLost => Err(Turn::LeaseLost),
            Err(error) => {
                warn!(shard = %self.desk.at, %error, "checkpoint not stored, trying again later");
                self.desk.board.troubled(format!("checkpointing: {error}"));
                Ok(())
            }
        }
    }

    /// The shard was read to its end. `Ok` once the processor's last call is made.
    async fn end_shard(&mut self) -> Result<ShardExit, Turn> {
        for attempt in 1.. {
            self.must_hold()?;
            self.desk.checkpointer.set_reach(Checkpoint::ShardEnd);
            match self.processor.shard_ended(&self.desk.checkpointer).await {
                Ok(()) => break,
                Err(error) => {
                    self.desk.checkpointer.set_reach(self.processed.max(self.desk.checkpointer.stored()));
                    self.pause_after("shard_ended", attempt, &error).await?;
                }
            }
        }
        match self.desk.checkpointer.store(Checkpoint::ShardEnd).await {
            Ok(()) => Ok(ShardExit::Ended),
            // whoever has the lease now comes to the end again
            Err(error) => {
                warn!(shard = %self.desk.at, %error, "end of the shard not checkpointed");
                Ok(ShardExit::LeaseLost)
            }
        }
    }

    async fn shut_down(&mut self) -> ShardExit {
        if !self.desk.hold.is_held() {
            self.processor.lease_lost().await;
            return ShardExit::LeaseLost;
        }
        let done = self.processor.shutdown(&self.desk.checkpointer).await;
        if let Err(error) = &done {
            warn!(shard = %self.desk.at, %error, "processor failed to shut down, not checkpointed");
        } else if self.desk.checkpointing == Checkpointing::Automatic {
            let reached = self.processed.max(self.desk.checkpointer.stored());
            if let Err(error) = self.desk.checkpointer.store(reached).await {
                warn!(shard = %self.desk.at, %error, "not checkpointed at shutdown");
            }
        }
        ShardExit::Stopped
    }

    fn must_hold(&self) -> Result<(), Turn> {
        if self.desk.hold.is_held() { Ok(()) } else { Err(Turn::LeaseLost) }
    }

    /// The processor failed: tells, and waits before the next attempt.
    async fn pause_after(&mut self, call: &str, attempts: u32, error: &ProcessError) -> Result<(), Turn> {
        self.must_hold()?;
        if self.desk.stop.is_cancelled() {
            debug!(shard = %self.desk.at, call, attempts, %error, "processor failed, not called again: the worker stops");
            return Err(Turn::Stop);
        }
        let wait = RETRY.wait(attempts, &mut self.rng);
        if attempts.is_power_of_two() {
            warn!(shard = %self.desk.at, call, attempts, %error, "processor failed, calling it again");
        } else {
            debug!(shard = %self.desk.at, call, attempts, %error, "processor failed, calling it again");
        }
        self.desk.board.phase(ShardPhase::Retrying { attempts });
        self.desk.board.troubled(format!("{call}, attempt {attempts}: {error}"));
        tokio::select! {
            biased;
            () = self.desk.hold.lost() => Err(Turn::LeaseLost),
            () = self.desk.stop.cancelled() => Err(Turn::Stop),
            () = sleep(wait) => Ok(()),
        }
    }
}

/// The processor never was initialized, so it gets no last call.
fn exit_without_call(turn: Turn) -> ShardExit {
    match turn {
        Turn::LeaseLost => ShardExit::LeaseLost,
        Turn::Gone(error) => ShardExit::Gone(error),
        Turn::Stop | Turn::Ended => ShardExit::Stopped,
    }
}
