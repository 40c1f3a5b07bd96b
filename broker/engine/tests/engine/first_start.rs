//! A first start that was cut short: whatever it left, the next one goes on, unless something may have been taken.

use crate::support::{Broker, START};
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;
use tidemill_engine::{Engine, Error, ErrorKind, Settings};
use tidemill_types::ManualClock;

const METADATA: &str = "metadata.redb";

async fn start(dir: &Path) -> Result<Engine, Error> {
    Engine::open(dir, Settings::default(), Arc::new(ManualClock::new(START))).await
}

/// What a kill may leave of a file of which these are the bytes: the end, or the beginning, was not written yet.
fn cut_short(bytes: &[u8]) -> Vec<Vec<u8>> {
    let ends = [0, 1, 9, 64, 320, 4096, bytes.len() / 2, bytes.len() - 1].map(|end| bytes[..end].to_vec());
    let heads = [9, 64, 320, 4096, bytes.len()].map(|head| {
        let mut headless = bytes.to_vec();
        headless[..head].fill(0);
        headless
    });
    ends.into_iter().chain(heads).collect()
}

#[tokio::test]
async fn metadata_that_was_cut_short_before_there_was_anything_else_is_made_anew() {
    let broker = Broker::new().await;
    broker.engine.close().await.unwrap();
    let bytes = std::fs::read(broker.dir.path().join(METADATA)).unwrap();
    for cut in cut_short(&bytes) {
        let dir = TempDir::new().unwrap();
        std::fs::write(dir.path().join(METADATA), &cut).unwrap();
        let engine = start(dir.path()).await.unwrap_or_else(|e| panic!("{} bytes: {e}", cut.len()));
        engine.close().await.unwrap();
    }
}

#[tokio::test]
async fn metadata_that_is_damaged_beside_anything_else_is_left_as_it_is() {
    let broker = Broker::new().await;
    broker.engine.close().await.unwrap();
    drop(broker.engine);
    let dir = broker.dir.path();
    std::fs::write(dir.join(METADATA), b"not much").unwrap();
    let mut others: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    others.retain(|path| !path.ends_with(METADATA) && path.is_file() && !path.ends_with("lock"));
    assert!(others.len() >= 2, "a checkpoint and a journal: {others:?}");
    let aside = TempDir::new().unwrap();
    let aside = |file: &Path| aside.path().join(file.file_name().unwrap());
    for left in &others {
        let gone: Vec<_> = others.iter().filter(|other| *other != left).collect();
        gone.iter().for_each(|file| std::fs::rename(file, aside(file)).unwrap());
        for _ in 0..2 {
            let error = start(dir).await.err().unwrap_or_else(|| panic!("with {left:?}"));
            assert_eq!(error.kind(), ErrorKind::Damaged, "with {left:?}: {error}");
        }
        assert_eq!(std::fs::read(dir.join(METADATA)).unwrap(), b"not much");
        gone.iter().for_each(|file| std::fs::rename(aside(file), file).unwrap());
    }
}
