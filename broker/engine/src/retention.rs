//! Retention: lets go of records that are older than their stream keeps them.
//!
//! Every shard is looked at once in [`PERIOD`], a slice of them at a time, so that ten thousand shards cost no burst. A
//! shard without records is passed over, one whose oldest record is young costs one look at its marks.

use crate::catalog::registry::Registry;
use crate::shared::Shared;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tracing::warn;

/// Every shard is looked at this often.
const PERIOD: Duration = Duration::from_secs(1);
const SLICES: u32 = 10;
const HOUR_MS: u64 = 3_600_000;

/// Trims until the engine stops.
pub(crate) async fn run(registry: Arc<Registry>, shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(PERIOD / SLICES);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for slice in (0..SLICES as usize).cycle() {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stop.changed() => return,
        }
        let (registry, shared) = (Arc::clone(&registry), Arc::clone(&shared));
        // dropping segments unlinks files
        let trimmed = tokio::task::spawn_blocking(move || trim_slice(&registry, &shared, slice)).await;
        if let Err(error) = trimmed {
            warn!(%error, "trimming broke off");
        }
    }
}

fn trim_slice(registry: &Registry, shared: &Shared, slice: usize) {
    let now = shared.clock().now();
    let shards = registry.all_shards();
    for (hours, handle) in shards.iter().skip(slice).step_by(SLICES as usize) {
        let marks = handle.log().marks();
        if marks.horizon() >= marks.durable() || handle.check_readable().is_err() {
            continue;
        }
        if let Err(error) = handle.log().trim(now.saturating_sub_ms(u64::from(*hours) * HOUR_MS)) {
            warn!(shard = %handle.shard().id, log = handle.log().id().get(), %error, "old records could not be let go");
        }
    }
}
