//! What all shards of an engine share: clock, settings, the budget of waiting bytes, metrics, and the end of it all.

use crate::catalog::state::StreamRow;
use crate::error::{Error, ErrorKind, Result};
use crate::even_time::EvenTime;
use crate::metrics::Metrics;
use crate::settings::Settings;
use std::sync::Arc;
use tidemill_types::{Clock, TimestampMs};
use tokio::sync::{Semaphore, watch};

/// What does the work that blocks or goes on by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runs {
    /// Threads.
    OnThreads,
    /// The tasks of the runtime and nothing else, so that what happens follows from the order of tasks.
    OnTasks,
}

/// Shared by everything in one engine. Nothing in it leads back to the streams.
pub(crate) struct Shared {
    clock: Arc<dyn Clock>,
    settings: Settings,
    runs: Runs,
    queue: Arc<Semaphore>,
    closing: watch::Sender<bool>,
    metrics: Metrics,
    even_time: EvenTime,
}

impl Shared {
    pub(crate) fn new(clock: Arc<dyn Clock>, settings: Settings, runs: Runs) -> Arc<Self> {
        let queue = Arc::new(Semaphore::new(settings.queue_bytes_total));
        let (closing, metrics) = (watch::Sender::new(false), Metrics::new());
        let even_time = EvenTime::new(&*clock);
        Arc::new(Self { clock, settings, runs, queue, closing, metrics, even_time })
    }
    /// What work that blocks runs on.
    pub(crate) fn runs(&self) -> Runs {
        self.runs
    }
    /// Does `work`, which may block, where it stops nobody else. It goes on if nobody waits any more; `what` it is, is told if
    /// it panics.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        what: &str,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if self.runs == Runs::OnTasks {
            return work();
        }
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|e| Error::caused(ErrorKind::Internal, format!("{what} broke off"), e))?
    }
    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }
    /// What is known of the clock.
    pub(crate) fn even_time(&self) -> &EvenTime {
        &self.even_time
    }
    /// Records of a stream that arrived earlier are no longer kept at the time `now`; the beginning of time if the clock is in doubt.
    pub(crate) fn kept_since(&self, row: &StreamRow, now: TimestampMs) -> TimestampMs {
        self.even_time.certain(row.kept_since(now), now, &*self.clock)
    }
    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }
    /// Permits are bytes of appends that wait, of all shards.
    pub(crate) fn queue(&self) -> &Arc<Semaphore> {
        &self.queue
    }
    /// Bytes of appends that wait.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.settings.queue_bytes_total.saturating_sub(self.queue.available_permits())
    }
    /// Turns to `true` once, when the engine closes.
    pub(crate) fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }
    /// Ends what waits; returns whether this was the first call.
    pub(crate) fn begin_closing(&self) -> bool {
        let first = !self.closing.send_replace(true);
        self.queue.close();
        first
    }
    /// An error once the engine is closing.
    pub(crate) fn check_open(&self) -> Result<()> {
        if *self.closing.borrow() { Err(closing()) } else { Ok(()) }
    }
}

/// The error of every verb from the moment the engine begins to close.
pub(crate) fn closing() -> Error {
    Error::new(ErrorKind::Unavailable, "the broker is shutting down")
}
