//! An engine in a temporary directory, and short names for what every test does.

use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;
use tidemill_engine::{Engine, Settings, Stream, StreamSpec};
use tidemill_types::{
    AccountId, Clock, Frame, FrameWriter, HashKey, ManualClock, PartitionKey, ProducerId, Record, ShardId,
    StreamKey, StreamName, TimestampMs,
};

/// Where every test's clock starts.
pub(crate) const START: TimestampMs = TimestampMs::new(1_700_000_000_000);

pub(crate) struct Broker {
    pub(crate) dir: TempDir,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) engine: Engine,
}

pub(crate) async fn open(dir: &TempDir, clock: &Arc<ManualClock>) -> Engine {
    let clock = Arc::clone(clock) as Arc<dyn Clock>;
    Engine::open(dir.path(), Settings::default(), clock).await.unwrap()
}

impl Broker {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(START));
        let engine = open(&dir, &clock).await;
        Self { dir, clock, engine }
    }
    /// Closes and opens again; all handles must be gone.
    pub(crate) async fn reopen(self) -> Self {
        let Self { dir, clock, engine } = self;
        engine.close().await.unwrap();
        drop(engine);
        let engine = open(&dir, &clock).await;
        Self { dir, clock, engine }
    }
    /// Goes on with the directory as it is at this moment: what a killed process leaves behind.
    pub(crate) async fn crash(self) -> Self {
        let dir = tempfile::tempdir().unwrap();
        copy(self.dir.path(), dir.path());
        let engine = open(&dir, &self.clock).await;
        Self { dir, clock: Arc::clone(&self.clock), engine }
    }
    pub(crate) async fn stream(&self, name: &str, shard_count: u32) -> Stream {
        let spec = StreamSpec { shard_count, ..StreamSpec::default() };
        self.engine.create_stream(&named(name), spec).await.unwrap();
        self.engine.stream(&named(name)).unwrap()
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}

pub(crate) fn account() -> AccountId {
    AccountId::new("000000000000").unwrap()
}

pub(crate) fn named(name: &str) -> StreamKey {
    StreamKey::new(account(), StreamName::new(name).unwrap())
}

pub(crate) fn shard(id: u32) -> ShardId {
    ShardId::new(id).unwrap()
}

pub(crate) fn record(key: &str, data: &str) -> Record {
    Record::new(PartitionKey::new(key).unwrap(), Bytes::copy_from_slice(data.as_bytes())).unwrap()
}

/// A record of the first shard, whatever its key.
pub(crate) fn first_shard_record(data: &str) -> Record {
    record("k", data).with_explicit_hash(HashKey::MIN)
}

pub(crate) fn frame(data: &[&str], producer: u64, number: u64) -> Frame {
    let mut writer = FrameWriter::with_capacity(100);
    data.iter().for_each(|data| writer.push("k", data.as_bytes()));
    writer.finish(ProducerId::new(producer), number)
}

/// The data of all records of a page of frames from `from` on.
pub(crate) fn texts(page: &tidemill_engine::FramePage) -> Vec<String> {
    let records = page.frames.iter().flat_map(|frame| frame.records().filter(|r| r.index >= page.from));
    records.map(|record| String::from_utf8(record.data.to_vec()).unwrap()).collect()
}
