//! How fast an empty broker is ready and how little disk it takes. A test binary of its own: nothing else of these tests
//! runs beside it.

use anyhow::Result;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use tidemill_tests::{Broker, tell};

/// A broker on an empty directory is ready in under this time.
const READY_MAX: Duration = Duration::from_millis(200);
/// And occupies less than this.
const DISK_BYTES_MAX: u64 = 100 * 1000 * 1000;
const STARTS: usize = 5;

/// Bytes that files really occupy, by their blocks.
fn occupied(path: &Path) -> Result<u64> {
    let meta = std::fs::symlink_metadata(path)?;
    let mut bytes = meta.blocks() * 512;
    if meta.is_dir() {
        for entry in std::fs::read_dir(path)? {
            bytes += occupied(&entry?.path())?;
        }
    }
    Ok(bytes)
}

#[tokio::test]
async fn a_broker_on_an_empty_directory_is_ready_at_once_and_takes_little_disk() -> Result<()> {
    let mut times = Vec::new();
    for _ in 0..STARTS {
        let home = TempDir::new()?;
        // the directory itself is made by the broker
        let dir = home.path().join("data");
        let broker = Broker::start(&dir, &[]).await?;
        times.push(broker.ready_after());
        let bytes = occupied(&dir)?;
        assert!(bytes < DISK_BYTES_MAX, "an empty broker occupies {bytes} bytes");
        broker.terminate().await?;
    }
    times.sort();
    let median = times[STARTS / 2];
    tell(&format!("ready on an empty directory after {median:?} (of {times:?})"));
    assert!(median < READY_MAX, "the median of {times:?}");
    Ok(())
}
