//! Everything that runs beside the callers starts here, and ends here.
//!
//! One thread commits metadata; tasks run the catalog's verbs, trim old records and refresh gauges. In a simulation there is no
//! thread: tasks do its work and that of storage's ([`crate::simulation`]). They end when the engine closes, or when its last
//! handle is dropped.

use crate::catalog::owner::{Catalog, Owner};
use crate::catalog::registry::Registry;
use crate::error::{Error, ErrorKind, Result};
use crate::even_time::Watch;
use crate::lease::table::LeaseTable;
use crate::retention;
use crate::scrub;
use crate::shared::{Runs, Shared};
use crate::simulation;
use crate::store::writer::{Metadata, Writer};
use std::sync::Arc;
use std::time::Duration;
use tidemill_storage::Storage;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tracing::warn;

const GAUGES_PERIOD: Duration = Duration::from_secs(1);
/// How long the end of tasks and threads is waited for.
const STOP_WAIT_MAX: Duration = Duration::from_secs(10);

/// What runs; dropping it ends all of it without waiting.
pub(crate) struct Background {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    metadata: Metadata,
    writer_ended: oneshot::Receiver<()>,
}

/// What the tasks work on.
pub(crate) struct Work {
    pub(crate) shared: Arc<Shared>,
    pub(crate) storage: Arc<Storage>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) catalog: Catalog,
    pub(crate) leases: Arc<LeaseTable>,
}

impl Background {
    /// Starts everything, within a tokio runtime.
    pub(crate) fn start(
        work: Work,
        owner: Owner,
        metadata: Metadata,
        writer: Writer,
        watch: Watch,
    ) -> Result<Self> {
        let stop = watch::Sender::new(false);
        let mut tasks = JoinSet::new();
        let (ended, writer_ended) = oneshot::channel();
        match work.shared.runs() {
            Runs::OnThreads => run_on_thread(writer, ended)?,
            Runs::OnTasks => {
                tokio::spawn(simulation::write(writer, ended));
                let durability = work.shared.settings().storage.durability;
                tasks.spawn(simulation::drive(Arc::clone(&work.storage), durability, stop.subscribe()));
            }
        }
        tasks.spawn(owner.run());
        let (registry, catalog) = (Arc::clone(&work.registry), work.catalog.clone());
        if let Some(rate) = work.shared.settings().scrub_bytes_per_s {
            let (registry, shared) = (Arc::clone(&work.registry), Arc::clone(&work.shared));
            tasks.spawn(scrub::run(registry, shared, rate, stop.subscribe()));
        }
        let shared = Arc::clone(&work.shared);
        tasks.spawn(retention::run(registry, catalog, shared, watch, stop.subscribe()));
        tasks.spawn(refresh_gauges(work, stop.subscribe()));
        Ok(Self { stop, tasks, metadata, writer_ended })
    }

    /// Ends the tasks, then the writer behind what they sent, and waits for both.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.stop.send_replace(true);
        let ended = tokio::time::timeout(STOP_WAIT_MAX, async {
            while let Some(ended) = self.tasks.join_next().await {
                if let Err(error) = ended {
                    warn!(%error, "a background task had failed");
                }
            }
            self.metadata.stop().await;
            let _ = (&mut self.writer_ended).await; // ends with an error: nothing is ever sent
        });
        ended.await.map_err(|_| {
            let message = format!("background work did not end within {} s", STOP_WAIT_MAX.as_secs());
            Error::new(ErrorKind::Internal, message)
        })
    }
}

fn run_on_thread(writer: Writer, ended: oneshot::Sender<()>) -> Result<()> {
    let run = move || {
        writer.run();
        drop(ended);
    };
    let thread = std::thread::Builder::new().name("tidemill-metadata".to_owned()).spawn(run);
    match thread {
        Ok(_) => Ok(()),
        Err(e) => Err(Error::caused(ErrorKind::Unavailable, "could not start the metadata thread", e)),
    }
}

async fn refresh_gauges(work: Work, mut stop: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(GAUGES_PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stop.changed() => return,
        }
        let metrics = work.shared.metrics();
        metrics.queue_bytes.set(work.shared.queued_bytes() as f64);
        let streams = work.registry.all();
        metrics.streams.set(streams.len() as f64);
        metrics
            .shards
            .set(streams.iter().map(|stream| stream.shard_set().handles().count()).sum::<usize>() as f64);
        let usage = work.storage.usage();
        metrics.journal_bytes.set(usage.journal_bytes as f64);
        metrics.segment_bytes.set(usage.segment_bytes as f64);
        let leases = work.leases.count();
        metrics.leases_held.set(leases.held as f64);
        metrics.leases_expired.set(leases.expired as f64);
        metrics.leases_free.set(leases.free as f64);
    }
}
