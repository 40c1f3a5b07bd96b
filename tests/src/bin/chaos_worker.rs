//! A worker of the chaos test, to be killed: the consumer library with a processor that writes down what it is given.
//!
//! ```text
//!  chaos_worker ENDPOINT STREAM APP WORKER LEASE_MS automatic|manual LOG
//! ```
//!
//! What is written is written before the processor returns, so nothing is checkpointed that the log does not have. This
//! is the one place of the test that knows the consumer library.

use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tidemill_consumer::{
    Batch, Checkpoint, Checkpointer, Checkpointing, ProcessError, RecordProcessor, SequenceNumber, ShardRef,
    Start, Worker,
};
use tidemill_tests::chaos::{Ending, EventLog, Mark, RecordId, WorkerLine, monotonic_ns};
use tidemill_tests::id_of;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};

/// A batch takes up to this long, so that there is something in flight when a process is killed.
const WORK_MS_MAX: u64 = 15;

/// A processor that checkpoints by itself does so this far apart.
const CHECKPOINT_INTERVAL: Duration = Duration::from_millis(700);

/// What the processors of this process share.
struct Desk {
    log: EventLog,
    checkpointing: Checkpointing,
    sessions: AtomicU64,
}

/// Writes down one session.
struct Scribe {
    desk: Arc<Desk>,
    session: u64,
    stored: Option<Mark>,
    checkpointed: Instant,
}

impl Scribe {
    fn note(&self, line: &WorkerLine) -> Result<(), ProcessError> {
        self.desk.log.add(line).map_err(|error| ProcessError::new(format!("{error:#}")))
    }

    /// Notes the checkpoint if it has moved.
    fn note_stored(&mut self, checkpointer: &Checkpointer) -> Result<(), ProcessError> {
        let mark = mark(checkpointer.stored())?;
        if self.stored.replace(mark) != Some(mark) {
            self.note(&WorkerLine::Stored { at: monotonic_ns(), session: self.session, mark })?;
        }
        Ok(())
    }

    fn over(&self, how: Ending) -> Result<(), ProcessError> {
        self.note(&WorkerLine::Over { at: monotonic_ns(), session: self.session, how })
    }
}

impl RecordProcessor for Scribe {
    async fn initialize(&mut self, start: &Start) -> Result<(), ProcessError> {
        self.session = self.desk.sessions.fetch_add(1, Ordering::Relaxed);
        let from = mark(start.from)?;
        self.stored = Some(from);
        let (at, session, shard) = (monotonic_ns(), self.session, start.shard.shard().get());
        self.note(&WorkerLine::Began { at, session, shard, from })
    }

    async fn process(&mut self, batch: Batch, checkpointer: &Checkpointer) -> Result<(), ProcessError> {
        let at = monotonic_ns();
        let epoch = checkpointer.lease_epoch().get();
        let mut records = Vec::with_capacity(batch.len());
        for record in batch.records() {
            let id = id_of(record.data()).map_err(|error| ProcessError::new(format!("{error:#}")))?;
            let id = RecordId::from_payload(id);
            if record.partition_key() != id.partition_key() {
                return Err(ProcessError::new(format!("{id} has the key {}", record.partition_key())));
            }
            records.push((index(record.sequence_number())?, id));
        }
        self.note(&WorkerLine::Batch { at, session: self.session, epoch, records })?;
        self.note_stored(checkpointer)?;
        sleep(Duration::from_millis(rand::random_range(0..=WORK_MS_MAX))).await;
        if self.desk.checkpointing == Checkpointing::Manual
            && self.checkpointed.elapsed() > CHECKPOINT_INTERVAL
        {
            checkpointer.checkpoint().await?;
            self.checkpointed = Instant::now();
            self.note_stored(checkpointer)?;
        }
        Ok(())
    }

    async fn shard_ended(&mut self, checkpointer: &Checkpointer) -> Result<(), ProcessError> {
        checkpointer.checkpoint().await?;
        self.note_stored(checkpointer)?;
        self.over(Ending::ShardEnded)
    }

    async fn lease_lost(&mut self) {
        // a log that cannot be written has been told of before
        let _ = self.over(Ending::LeaseLost);
    }

    async fn shutdown(&mut self, checkpointer: &Checkpointer) -> Result<(), ProcessError> {
        let stored = checkpointer.checkpoint().await;
        self.note_stored(checkpointer)?;
        self.over(if stored.is_ok() { Ending::Stopped } else { Ending::StopFailed })?;
        Ok(stored?)
    }
}

/// The index in a sequence number of Tidemill.
fn index(number: SequenceNumber) -> Result<u64, ProcessError> {
    Ok(tidemill_types::SequenceNumber::try_from(number)?.index().get())
}

fn mark(checkpoint: Checkpoint) -> Result<Mark, ProcessError> {
    Ok(match checkpoint {
        Checkpoint::AtTimestamp => return Err(ProcessError::new("nobody begins at a time")),
        Checkpoint::TrimHorizon => Mark::TrimHorizon,
        Checkpoint::Latest => Mark::Latest,
        Checkpoint::At { number, sub } => Mark::At(index(number)?, sub),
        Checkpoint::ShardEnd => Mark::ShardEnd,
    })
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    ensure!(args.len() == 7, "usage: chaos_worker ENDPOINT STREAM APP WORKER LEASE_MS automatic|manual LOG");
    let checkpointing = if args[5] == "manual" { Checkpointing::Manual } else { Checkpointing::Automatic };
    let lease = Duration::from_millis(args[4].parse().context("the lease time is a number")?);
    // whoever sees the log may send the signal
    let mut stop = signal(SignalKind::terminate())?;
    let log = EventLog::create(Path::new(&args[6]))?;
    let desk = Arc::new(Desk { log, checkpointing, sessions: AtomicU64::new(0) });
    let worker = Worker::builder(&args[0], &args[2], &args[1])
        .worker_id(&args[3])
        .lease_duration(lease)
        .checkpointing(checkpointing)
        .batch_bytes(16 << 10)
        .build()?;
    let scribe = move |_: &ShardRef| Scribe {
        desk: Arc::clone(&desk),
        session: 0,
        stored: None,
        checkpointed: Instant::now(),
    };
    worker.run(scribe, async move { stop.recv().await.unwrap_or_default() }).await?;
    Ok(())
}
