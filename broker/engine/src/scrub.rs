//! The scrubber: reads every record again, slowly, so that damage is found while a copy of it may still exist elsewhere.
//!
//! ```text
//!   each shard, from its horizon to its tip ─► read as a reader would, both checksums ─► damage is counted and logged
//!                                          └─► pause, so that no more than so many bytes are read in a second
//! ```
//!
//! A pass begins ten minutes after the start, then once a day, or when the one before is done. It goes through the page cache: what lies there is not read from
//! the device again. Not here: mending (`tidemill repair`), indexes and checkpoints (`tidemill verify`).

use crate::catalog::registry::Registry;
use crate::damage;
use crate::error::Result;
use crate::shard::handle::ShardHandle;
use crate::shared::Shared;
use crate::stream::StreamCore;
use std::collections::BTreeSet;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;
use tidemill_types::SequenceIndex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{error, info, warn};

/// The first pass begins so long after the start, which has enough to read.
const FIRST_AFTER: Duration = Duration::from_secs(600);
/// A pass begins so long after the one before has begun.
const PASS_EVERY: Duration = Duration::from_secs(24 * 3600);
/// Read in one go.
const STEP_BYTES: usize = 1 << 20;

/// Places that were told already: each is told once.
type Told = BTreeSet<(u64, SequenceIndex)>;

/// Passes until the engine stops.
pub(crate) async fn run(
    registry: Arc<Registry>,
    shared: Arc<Shared>,
    bytes_per_s: NonZeroU64,
    mut stop: watch::Receiver<bool>,
) {
    let passes = async {
        let mut told = Told::new();
        let mut next = Instant::now() + FIRST_AFTER;
        loop {
            sleep_until(next).await;
            next = Instant::now() + PASS_EVERY;
            for (stream, handle) in registry.all_shards() {
                if let Err(error) = scrub(&stream, &handle, &shared, bytes_per_s, &mut told).await {
                    warn!(%error, "a shard was not scrubbed to its end");
                }
            }
            info!("every record was read and checked");
        }
    };
    tokio::select! {
        () = passes => {}
        _ = stop.changed() => {}
    }
}

/// Reads a shard up to where its tip is now.
async fn scrub(
    stream: &Arc<StreamCore>,
    handle: &Arc<ShardHandle>,
    shared: &Arc<Shared>,
    bytes_per_s: NonZeroU64,
    told: &mut Told,
) -> Result<()> {
    let tip = handle.log().marks().durable();
    let mut from = handle.log().marks().horizon();
    while from < tip && handle.check_readable().is_ok() {
        let begun = Instant::now();
        let reader = Arc::clone(handle);
        let read = shared.blocking("a read", move || Ok(reader.log().read(from, STEP_BYTES))).await?;
        let (next, bytes) = match read {
            Ok(chunk) => (chunk.next, chunk.bytes.len() as u64),
            Err(error) => match error.lost() {
                None => return Err(damage::told(stream, handle, error)),
                Some((first, next)) => {
                    if told.insert((handle.log().id().get(), first)) {
                        shared.metrics().damaged_found.increment(damage::indexes(first, next));
                        let told = damage::told(stream, handle, error);
                        error!(error = %told, "the scrubber found damage; stop the broker and run `tidemill verify`");
                    }
                    (next, STEP_BYTES as u64)
                }
            },
        };
        if next <= from {
            return Ok(()); // nothing more to be had now
        }
        from = next;
        shared.metrics().scrubbed_bytes.increment(bytes);
        sleep_until(begun + Duration::from_secs_f64(bytes as f64 / bytes_per_s.get() as f64)).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::one_stream::OneStream;
    use crate::settings::Settings;
    use crate::stream::StreamSpec;
    use tidemill_types::{PartitionKey, Record, ShardId};

    #[tokio::test(start_paused = true)]
    async fn damage_is_found_once_and_reading_keeps_to_its_rate() {
        let one = OneStream::of(&StreamSpec::default(), Settings::default());
        one.storage.start().unwrap();
        for data in ["one", "two", "three"] {
            let record =
                Record::new(PartitionKey::new("k").unwrap(), vec![data.as_bytes()[0]; 500_000]).unwrap();
            one.stream.put(vec![record]).await.remove(0).unwrap();
        }
        let core = &one.stream.core;
        let handle = core.handle(ShardId::new(0).unwrap()).unwrap();
        let rate = NonZeroU64::new(100_000).unwrap();
        let mut told = Told::new();
        let begun = Instant::now();
        scrub(core, &handle, handle.shared(), rate, &mut told).await.unwrap();
        assert!(told.is_empty(), "nothing is damaged");
        let seconds = begun.elapsed().as_secs();
        assert!((15..20).contains(&seconds), "1.5 MB at 0.1 MB/s took {seconds} s");
        let file =
            std::fs::read_dir(one.dir.path().join("segments")).unwrap().next().unwrap().unwrap().path();
        let file = std::fs::OpenOptions::new().write(true).open(file).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"?", 5000).unwrap();
        for _ in 0..2 {
            scrub(core, &handle, handle.shared(), rate, &mut told).await.unwrap();
            assert_eq!(told.len(), 1);
        }
        one.storage.close().unwrap();
    }
}
