//! Reading through the consumer library: workers that take leases, process every record and checkpoint, as an application
//! does.
//!
//! Catching up is measured from the first shard a worker begins with to the last record, pass after pass, each by an
//! application of its own; taking leases in between does not count.

use super::super::deliveries::Deliveries;
use super::super::meter::{Meter, Window};
use crate::error::{Error, Result};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tidemill_consumer::{Batch, Checkpointer, ProcessError, RecordProcessor, Start, Worker};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// A stream that is not read to its end in this time will not be.
const PASS_PATIENCE: Duration = Duration::from_secs(300);
/// Workers that do not have their shards in this time will not get them.
const LEASE_PATIENCE: Duration = Duration::from_secs(60);

type Processed = std::result::Result<(), ProcessError>;

/// Reads everything with a new worker; the number of records that came.
pub(super) async fn pass(worker: Worker, wanted: u64, meter: &mut Meter) -> Result<u64> {
    let tally = Arc::new(Tally {
        wanted,
        records: AtomicU64::new(0),
        began: OnceLock::new(),
        ended: OnceLock::new(),
        all: Notify::new(),
        gaps: Mutex::new(Meter::new(Arc::clone(meter.window()))),
    });
    let waiting = Arc::clone(&tally);
    let until = async move {
        if wanted > 0 {
            // what is missing is counted
            let _ = timeout(PASS_PATIENCE, waiting.all.notified()).await;
        }
    };
    let counting = Arc::clone(&tally);
    let worked =
        worker.run(move |_| Counter { tally: Arc::clone(&counting), last: Instant::now() }, until).await;
    worked.map_err(|e| Error::failed(e.message()))?;
    let records = tally.records.load(Ordering::Relaxed);
    if let (Some(began), Some(ended)) = (tally.began.get(), tally.ended.get()) {
        meter.add(&tally.gaps.lock());
        meter.pass(*began, *ended, records);
    }
    Ok(records)
}

/// Records that all shards of a pass have had.
struct Tally {
    wanted: u64,
    records: AtomicU64,
    began: OnceLock<Instant>,
    ended: OnceLock<Instant>,
    all: Notify,
    /// Between the batches of a shard.
    gaps: Mutex<Meter>,
}

/// Processes a shard of a pass.
struct Counter {
    tally: Arc<Tally>,
    last: Instant,
}

impl RecordProcessor for Counter {
    async fn initialize(&mut self, _: &Start) -> Processed {
        self.last = Instant::now();
        self.tally.began.get_or_init(|| self.last);
        Ok(())
    }

    async fn process(&mut self, batch: Batch, _: &Checkpointer) -> Processed {
        let read = batch.records().filter(|record| !record.data().is_empty()).count() as u64;
        let now = Instant::now();
        self.tally.gaps.lock().latency(now - self.last);
        self.last = now;
        if self.tally.records.fetch_add(read, Ordering::Relaxed) + read >= self.tally.wanted {
            self.tally.ended.get_or_init(|| now);
            self.tally.all.notify_one();
        }
        Ok(())
    }
}

/// What is done with records that are pushed.
pub(super) enum Ear {
    /// They say when they were due.
    Due(Arc<Deliveries>),
    Counted(Mutex<Meter>),
}

impl Ear {
    pub(super) fn counting(window: Arc<Window>) -> Self {
        Self::Counted(Mutex::new(Meter::new(window)))
    }
}

/// All processors of a measurement, which wait for what comes.
pub(super) struct Audience {
    seats: usize,
    taken: AtomicUsize,
    full: Notify,
    ear: OnceLock<Ear>,
}

impl Audience {
    /// Of so many processors.
    pub(super) fn new(seats: usize) -> Arc<Self> {
        let (taken, full, ear) = (AtomicUsize::new(0), Notify::new(), OnceLock::new());
        Arc::new(Self { seats, taken, full, ear })
    }
}

/// Processes a shard that is pushed.
struct Listener {
    audience: Arc<Audience>,
    last: Instant,
}

impl RecordProcessor for Listener {
    async fn initialize(&mut self, _: &Start) -> Processed {
        if self.audience.taken.fetch_add(1, Ordering::Relaxed) + 1 == self.audience.seats {
            self.audience.full.notify_one();
        }
        Ok(())
    }

    async fn process(&mut self, batch: Batch, _: &Checkpointer) -> Processed {
        match self.audience.ear.get() {
            Some(Ear::Due(deliveries)) => batch.records().for_each(|record| deliveries.take(record.data())),
            Some(Ear::Counted(meter)) => {
                let read = batch.records().filter(|record| !record.data().is_empty()).count() as u64;
                meter.lock().done(self.last, read);
                self.last = Instant::now();
            }
            None => return Err(ProcessError::new("nobody listens yet")),
        }
        Ok(())
    }
}

/// Workers under way that follow what is put.
pub(super) struct Fan {
    audience: Arc<Audience>,
    working: JoinSet<Result<()>>,
    over: CancellationToken,
}

impl Fan {
    /// Returns when they have all their shards.
    pub(super) async fn start(
        workers: impl IntoIterator<Item = Worker>,
        audience: Arc<Audience>,
    ) -> Result<Self> {
        let over = CancellationToken::new();
        let mut working = JoinSet::new();
        for worker in workers {
            let (audience, over) = (Arc::clone(&audience), over.clone());
            working.spawn(async move {
                let listen = move |_: &_| Listener { audience: Arc::clone(&audience), last: Instant::now() };
                worker.run(listen, over.cancelled_owned()).await.map_err(|e| Error::failed(e.message()))
            });
        }
        let ready = tokio::select! {
            ready = timeout(LEASE_PATIENCE, audience.full.notified()) => ready.is_ok(),
            Some(ended) = working.join_next() => {
                ended.map_err(|e| Error::because("a worker broke off", e))??;
                false
            }
        };
        if !ready {
            return Err(Error::failed(format!(
                "the workers do not get their shards within {LEASE_PATIENCE:?}"
            )));
        }
        Ok(Self { audience, working, over })
    }

    /// From now on records come.
    pub(super) fn listen(&self, ear: Ear) {
        // there is one measurement
        let _ = self.audience.ear.set(ear);
    }

    /// Ends the workers; what was counted, if anything was.
    pub(super) async fn stop(mut self) -> Result<Option<Meter>> {
        self.over.cancel();
        while let Some(ended) = self.working.join_next().await {
            ended.map_err(|e| Error::because("a worker broke off", e))??;
        }
        Ok(match self.audience.ear.get() {
            Some(Ear::Counted(meter)) => {
                let mut meter = meter.lock();
                let window = Arc::clone(meter.window());
                Some(std::mem::replace(&mut *meter, Meter::new(window)))
            }
            _ => None,
        })
    }
}
