//! Retention: lets go of records that are older than their stream keeps them.
//!
//! Every shard is looked at once in [`PERIOD`], a slice of them at a time, so that ten thousand shards cost no burst. A
//! shard without records is passed over, one whose oldest record is young costs one look at its marks. A change of the
//! retention is seen by the next look; what a shorter one lets go of is let go of by the change itself,
//! which fails if that does ([`crate::catalog::update`]).

use crate::catalog::owner::Catalog;
use crate::catalog::registry::Registry;
use crate::catalog::reshard::expiry::has_passed;
use crate::error::{Error, Result};
use crate::even_time::Watch;
use crate::shard::handle::ShardHandle;
use crate::shared::Shared;
use crate::stream::StreamCore;
use std::sync::Arc;
use std::time::Duration;
use tidemill_types::TimestampMs;
use tokio::sync::{Notify, watch};
use tracing::warn;

/// Every shard is looked at this often.
const PERIOD: Duration = Duration::from_secs(1);
const SLICES: u32 = 10;

/// Trims, and lets go of closed shards, until the engine stops. Letting go is a verb of the catalog, which may have to wait
/// for a long one; trimming goes on meanwhile.
pub(crate) async fn run(
    registry: Arc<Registry>,
    catalog: Catalog,
    shared: Arc<Shared>,
    watch: Watch,
    stop: watch::Receiver<bool>,
) {
    let passed = Notify::new();
    tokio::select! {
        () = trim_all(registry, &shared, watch, &passed, stop) => {}
        () = expire_all(&catalog, &shared, &passed) => {}
    }
}

/// Lets go of closed shards whenever some have passed the retention.
async fn expire_all(catalog: &Catalog, shared: &Shared, passed: &Notify) {
    loop {
        passed.notified().await;
        if let Err(error) = catalog.expire().await
            && shared.check_open().is_ok()
        {
            warn!(%error, "closed shards that have passed the retention could not be removed");
        }
    }
}

async fn trim_all(
    registry: Arc<Registry>,
    shared: &Shared,
    mut watch: Watch,
    passed: &Notify,
    mut stop: watch::Receiver<bool>,
) {
    let mut ticks = tokio::time::interval(PERIOD / SLICES);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for slice in (0..SLICES as usize).cycle() {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stop.changed() => return,
        }
        let (now, of_slice) = (watch.look().await, Arc::clone(&registry));
        // dropping segments unlinks files
        let trim = move || Ok(trim_slice(&of_slice, now, slice));
        let trimmed = shared.blocking("trimming", trim).await;
        match trimmed {
            Ok(Trimmed { may_go: true }) => passed.notify_one(),
            Ok(Trimmed { may_go: false }) => {}
            Err(error) => warn!(%error, "records are trimmed later"),
        }
    }
}

/// What came of a slice.
struct Trimmed {
    /// A closed shard is empty and has passed the retention.
    may_go: bool,
}

/// Lets go once more of what shorter retentions let go of: a crash may have taken it back. Blocks.
pub(crate) fn trim_at_open(registry: &Registry, now: TimestampMs) {
    let changed = |stream: &StreamCore| stream.row().kept_from > TimestampMs::default();
    for (stream, handle) in registry.all_shards().iter().filter(|(stream, _)| changed(stream)) {
        trim_or_warn(handle, stream.let_go_before(now));
    }
}

fn trim_slice(registry: &Registry, now: TimestampMs, slice: usize) -> Trimmed {
    let shards = registry.all_shards();
    for (stream, handle) in shards.iter().skip(slice).step_by(SLICES as usize) {
        trim_or_warn(handle, stream.kept_since(now));
    }
    let may_go = |(stream, handle): &(Arc<StreamCore>, Arc<ShardHandle>)| {
        let marks = handle.log().marks();
        has_passed(handle.shard(), stream.kept_since(now)) && marks.horizon() >= marks.durable()
    };
    Trimmed { may_go: slice == 0 && shards.iter().any(may_go) }
}

/// A failure is told and tried again by the next look.
fn trim_or_warn(handle: &ShardHandle, since: TimestampMs) {
    if let Err(error) = trim(handle, since) {
        warn!(shard = %handle.shard().id, log = handle.log().id().get(), %error, "old records could not be let go");
    }
}

/// Lets go of the records of a shard that arrived before `since`; an error if some of them can still be read. Blocks.
pub(crate) fn trim(handle: &ShardHandle, since: TimestampMs) -> Result<()> {
    let marks = handle.log().marks();
    if marks.horizon() >= marks.durable() || handle.check_readable().is_err() {
        return Ok(());
    }
    let what = || format!("could not let go of old records of {}", handle.shard().id);
    handle.log().trim(since).map_err(|error| Error::from_storage(&what(), error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::even_time::Known;
    use crate::one_stream::OneStream;
    use crate::settings::Settings;
    use crate::store::writer::Metadata;
    use tidemill_types::{HashKey, PartitionKey, Record, ShardId};
    use tokio::time::{sleep, timeout};

    #[tokio::test]
    async fn old_records_go_also_while_the_catalog_is_busy_with_something_long() {
        let one = OneStream::new(Settings::default());
        let (catalog, store) = one.run_owner();
        one.storage.start().unwrap();
        let split = ShardId::new(0).unwrap();
        catalog.split(one.name.clone(), split, HashKey::new(1 << 127)).await.unwrap();
        let record = Record::new(PartitionKey::new("k").unwrap(), vec![1]).unwrap();
        let placed = one.stream.put(vec![record]).await.remove(0).unwrap();
        one.clock.advance_ms(25 * 3_600_000);
        let held = store.hold(); // the closed shard could leave, but the verb cannot end
        let stop = watch::Sender::new(false);
        let (registry, shared) = (Arc::clone(&one.registry), Arc::clone(&one.shared));
        let (metadata, _writer) = Metadata::new(Box::new(store.clone()));
        let watch = Watch::new(Known::default(), Arc::clone(&shared), metadata);
        let running = tokio::spawn(run(registry, catalog, shared, watch, stop.subscribe()));
        let handle = one.stream.core.handle(placed.shard).unwrap();
        timeout(Duration::from_secs(20), async {
            while handle.log().marks().horizon() < handle.log().marks().durable() {
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .expect("the record goes");
        assert_eq!(one.stream.shards().len(), 3);
        drop(held);
        timeout(Duration::from_secs(20), async {
            while one.stream.shards().len() > 2 {
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .expect("the closed shard leaves");
        stop.send_replace(true);
        running.await.unwrap();
        one.storage.close().unwrap();
    }
}
