//! What the disk holds of an encrypted stream: neither its records nor its data keys.

use crate::keys::{KeyMaterial, KeyRing, WrappingKey};
use crate::{Engine, Settings, StreamSpec, StreamUpdate};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tidemill_types::{
    AccountId, FrameWriter, ManualClock, PartitionKey, ProducerId, Record, ShardId, StreamKey, StreamName,
    TimestampMs,
};

/// All files below a folder.
fn files(below: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(below).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The files that hold one of these byte strings.
fn holding(dir: &Path, wanted: &[&[u8]]) -> Vec<PathBuf> {
    let holds = |path: &PathBuf| {
        let bytes = std::fs::read(path).unwrap();
        wanted.iter().any(|wanted| memfind(&bytes, wanted))
    };
    files(dir).into_iter().filter(holds).collect()
}

fn memfind(bytes: &[u8], wanted: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| *byte == wanted[0]) {
        rest = &rest[at..];
        if rest.starts_with(wanted) {
            return true;
        }
        rest = &rest[1..];
    }
    false
}

async fn open(dir: &Path) -> Engine {
    let material = KeyMaterial::secret(*b"the wrapping key of the operator");
    let key = WrappingKey { id: "alias/a".into(), aliases: Vec::new(), material };
    let settings = Settings { keys: KeyRing::new(vec![key]).unwrap(), ..Settings::default() };
    let clock = Arc::new(ManualClock::new(TimestampMs::new(1_700_000_000_000)));
    Engine::open(dir, settings, clock).await.unwrap()
}

/// Small records go through the journal, large ones straight to a segment; the metadata store holds the wrapped key.
#[tokio::test]
async fn neither_records_nor_data_keys_are_on_disk_before_and_after_a_restart() {
    let (plain, key, clear) = (b"SECRET-of-the-record", "SECRET-of-the-key", b"meant to be seen");
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path()).await;
    let name = StreamKey::new(AccountId::new("000000000000").unwrap(), StreamName::new("s").unwrap());
    engine.create_stream(&name, StreamSpec::default()).await.unwrap();
    let stream = engine.stream(&name).unwrap();
    let put = async |data: Vec<u8>| {
        let record = Record::new(PartitionKey::new(key).unwrap(), data).unwrap();
        stream.put(vec![record]).await.remove(0).unwrap()
    };
    engine.update_stream(&name, StreamUpdate::Encrypt { key_id: "alias/a".into() }).await.unwrap();
    assert!(put(plain.to_vec()).await.encrypted);
    assert!(put(plain.repeat(40_000)).await.encrypted);
    let mut writer = FrameWriter::with_capacity(100);
    writer.push(key, plain);
    let (shard, batch) = (ShardId::new(0).unwrap(), writer.finish(ProducerId::new(3), 1));
    let sent = stream.submit(shard, stream.map().version(), batch).await.unwrap();
    assert!(sent.is_encrypted());
    sent.await.unwrap();

    let data_key = {
        let wrapped = stream.core.keys().wrapped.load();
        let wrapped = &wrapped[&1];
        let ring = stream.core.keys().ring.now();
        ring.unwrap(wrapped, &stream.core.keys().owner.binding(1, &wrapped.key_id)).unwrap()
    };
    let wanted: [&[u8]; 4] = [plain, key.as_bytes(), &*data_key, b"the wrapping key of the operator"];
    assert_eq!(holding(dir.path(), &wanted), Vec::<PathBuf>::new(), "while it runs");
    drop(stream);
    engine.close().await.unwrap();
    drop(engine);
    assert_eq!(holding(dir.path(), &wanted), Vec::<PathBuf>::new(), "at rest");

    let engine = open(dir.path()).await;
    assert_eq!(holding(dir.path(), &wanted), Vec::<PathBuf>::new(), "after recovery");
    let stream = engine.stream(&name).unwrap();
    let page = stream.read_records(shard, tidemill_types::SequenceIndex::ZERO, 10, 10 << 20).await.unwrap();
    let found: Vec<_> = page.records.iter().map(|record| (record.encrypted, record.data.len())).collect();
    assert_eq!(found, [(true, 20), (true, 800_000), (true, 20)]);
    // the search finds what is there
    engine.update_stream(&name, StreamUpdate::StopEncryption { key_id: "alias/a".into() }).await.unwrap();
    let record = Record::new(PartitionKey::new("k").unwrap(), clear.to_vec()).unwrap();
    assert!(!stream.put(vec![record]).await.remove(0).unwrap().encrypted);
    assert!(!holding(dir.path(), &[clear]).is_empty());
    engine.close().await.unwrap();
}
