//! An engine that follows from its seed: no thread, no file and no time of this machine.
//!
//! Why: a fault that shows in one run of ten thousand can be looked for only if that run can be had again. How it lives:
//! [`Engine::simulated`] takes the disk, the metadata and the clock, all work runs as tasks of a runtime of one thread, and
//! whoever drives that runtime decides what happens when. What blocks is done at once, by the task that asks for it.
//! Not here: faults (the disk and the store have their own), the network.

use crate::engine::{Engine, Ground};
use crate::error::Result;
use crate::settings::Settings;
use crate::shared::Runs;
pub use crate::store::memory::MemoryStore;
use crate::store::writer::Writer;
use std::sync::Arc;
use std::time::Duration;
pub use tidemill_storage::disk::fault::FaultDisk;
use tidemill_storage::{Durability, Storage};
use tidemill_types::Clock;
use tokio::sync::{oneshot, watch};
use tracing::debug;

/// What is queued is written so often.
const WRITE_EVERY: Duration = Duration::from_millis(1);
/// A commit of metadata takes so long.
const COMMIT_TAKES: Duration = Duration::from_millis(2);
/// Turns of writing between two turns of housekeeping, at which a checkpoint is written, and in mode `interval` what was
/// acknowledged is synced.
const HOUSEKEEPING_TURNS: u32 = 500;

impl Engine {
    /// Opens what `disk` and `metadata` hold, as [`Engine::open`] does with a directory. Nothing runs but tasks of the current
    /// runtime, so that nothing more is done once that is dropped: a crash.
    pub async fn simulated(
        disk: FaultDisk,
        metadata: MemoryStore,
        settings: Settings,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let ground = Ground { disk: Arc::new(disk), store: Box::new(metadata) };
        Self::open_on(move || Ok(ground), settings, clock, Runs::OnTasks).await
    }
}

/// Commits metadata.
pub(crate) async fn write(writer: Writer, ended: oneshot::Sender<()>) {
    writer.run_on_task(COMMIT_TAKES).await;
    drop(ended);
}

/// Does what the threads of storage do.
pub(crate) async fn drive(storage: Arc<Storage>, durability: Durability, mut stop: watch::Receiver<bool>) {
    let mut turns = 0;
    loop {
        tokio::select! {
            biased;
            _ = stop.changed() => return,
            () = tokio::time::sleep(WRITE_EVERY) => {}
        }
        while storage.step() > 0 {}
        turns = (turns + 1) % HOUSEKEEPING_TURNS;
        if turns == 0 {
            let synced = match durability {
                Durability::Interval { .. } => storage.sync(),
                Durability::Device | Durability::Os => Ok(()),
            };
            // a fault; who appends is told of it
            if let Err(error) = synced.and_then(|()| storage.checkpoint()) {
                debug!(%error, "no checkpoint was written");
            }
        }
    }
}
