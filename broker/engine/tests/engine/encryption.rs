//! Streams that are encrypted: what readers and writers see of it, and what happens when keys change, go, or are wrong.

use crate::support::{START, frame, named, record, shard, texts};
use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;
use tidemill_engine::{
    ConsumersOnDelete, Engine, ErrorKind, KeyMaterial, KeyRing, Settings, Stream, StreamSettings, StreamSpec,
    StreamUpdate, WrappingKey,
};
use tidemill_types::{
    Clock, Frame, FrameHeader, HashKey, ManualClock, PartitionKey, Position, Record, SequenceIndex,
    limits::RECORD_DATA_BYTES_MAX,
};

/// An engine with keys that a test can change.
struct Vault {
    dir: TempDir,
    ring: KeyRing,
    engine: Engine,
}

fn keys(of: &[(&str, u8)]) -> Vec<WrappingKey> {
    let key = |(id, byte): &(&str, u8)| {
        let material = KeyMaterial::secret([*byte; 32]);
        WrappingKey { id: (*id).to_owned(), aliases: Vec::new(), material }
    };
    of.iter().map(key).collect()
}

async fn open(dir: &Path, ring: &KeyRing) -> Engine {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(START));
    let settings = Settings { keys: ring.clone(), ..Settings::default() };
    Engine::open(dir, settings, clock).await.unwrap()
}

impl Vault {
    /// With the keys `alias/a` and `alias/b`, and a stream `s` that takes the largest records.
    async fn new() -> (Self, Stream) {
        let (dir, ring) = (tempfile::tempdir().unwrap(), KeyRing::default());
        ring.replace(keys(&[("alias/a", 1), ("alias/b", 2)])).unwrap();
        let engine = open(dir.path(), &ring).await;
        let settings = StreamSettings { record_kib_max: 10_240, ..StreamSettings::default() };
        engine.create_stream(&named("s"), StreamSpec { settings, ..StreamSpec::default() }).await.unwrap();
        let stream = engine.stream(&named("s")).unwrap();
        (Self { dir, ring, engine }, stream)
    }
    /// Closes and opens again; all handles must be gone.
    async fn reopen(self) -> (Self, Stream) {
        let Self { dir, ring, engine } = self;
        engine.close().await.unwrap();
        drop(engine);
        let engine = open(dir.path(), &ring).await;
        let stream = engine.stream(&named("s")).unwrap();
        (Self { dir, ring, engine }, stream)
    }
    async fn encrypt(&self, key_id: &str) -> Result<u32, ErrorKind> {
        let update = StreamUpdate::Encrypt { key_id: key_id.to_owned() };
        let updated = self.engine.update_stream(&named("s"), update).await.map_err(|error| error.kind())?;
        let encryption = updated.after.settings.encryption.unwrap();
        assert_eq!(encryption.key_id, key_id);
        Ok(encryption.data_key)
    }
    async fn stop(&self, key_id: &str) -> Result<(), ErrorKind> {
        let update = StreamUpdate::StopEncryption { key_id: key_id.to_owned() };
        let updated = self.engine.update_stream(&named("s"), update).await.map_err(|error| error.kind())?;
        assert_eq!(updated.after.settings.encryption, None);
        Ok(())
    }
}

/// Puts a record and tells whether it lies encrypted.
async fn put(stream: &Stream, data: &str) -> Result<bool, ErrorKind> {
    let placed = stream.put(vec![record("k", data)]).await.remove(0);
    placed.map(|placed| placed.encrypted).map_err(|error| error.kind())
}

/// All records, each with whether it lay encrypted, as `GetRecords` reads them.
async fn all(stream: &Stream) -> Result<Vec<(String, bool)>, ErrorKind> {
    let mut from = stream.resolve(shard(0), Position::TrimHorizon).await.unwrap();
    let mut found = Vec::new();
    loop {
        let page = stream.read_records(shard(0), from, 3, 1 << 20).await.map_err(|error| error.kind())?;
        if page.records.is_empty() {
            return Ok(found);
        }
        let text = |data: &Bytes| String::from_utf8(data.to_vec()).unwrap();
        found.extend(page.records.iter().map(|record| (text(&record.data), record.encrypted)));
        from = page.next;
    }
}

fn told(of: &[(&str, bool)]) -> Vec<(String, bool)> {
    of.iter().map(|(data, encrypted)| ((*data).to_owned(), *encrypted)).collect()
}

#[tokio::test]
async fn a_stream_holds_clear_and_encrypted_records_and_keeps_both_through_rotation_and_restart() {
    let (vault, stream) = Vault::new().await;
    assert_eq!(put(&stream, "clear").await, Ok(false));
    assert_eq!(vault.encrypt("alias/a").await, Ok(1));
    assert_eq!(put(&stream, "one").await, Ok(true));
    assert_eq!(vault.encrypt("alias/a").await, Ok(2), "the same key again: a new data key");
    assert_eq!(put(&stream, "two").await, Ok(true));
    assert_eq!(vault.encrypt("alias/b").await, Ok(3));
    assert_eq!(put(&stream, "three").await, Ok(true));
    assert_eq!(vault.stop("alias/b").await, Ok(()));
    assert_eq!(put(&stream, "clear again").await, Ok(false));
    let expected =
        told(&[("clear", false), ("one", true), ("two", true), ("three", true), ("clear again", false)]);
    assert_eq!(all(&stream).await.unwrap(), expected);
    drop(stream);
    let (vault, stream) = vault.reopen().await;
    assert_eq!(all(&stream).await.unwrap(), expected);
    assert_eq!(vault.encrypt("alias/a").await, Ok(4), "numbers go on");
    assert_eq!(put(&stream, "four").await, Ok(true));
    drop(stream);
    let (_vault, stream) = vault.reopen().await;
    assert_eq!(stream.info().settings.encryption.unwrap().data_key, 4);
    assert_eq!(put(&stream, "five").await, Ok(true));
    assert_eq!(all(&stream).await.unwrap()[5..], told(&[("four", true), ("five", true)]));
}

#[tokio::test]
async fn readers_of_frames_and_subscribers_get_plain_frames_and_are_told_which_were_encrypted() {
    let (vault, stream) = Vault::new().await;
    put(&stream, "clear").await.unwrap();
    vault.encrypt("alias/a").await.unwrap();
    put(&stream, "sealed").await.unwrap();
    let page = stream.read(shard(0), SequenceIndex::ZERO, 1 << 20).await.unwrap();
    let mut following = stream.subscribe(shard(0), SequenceIndex::ZERO).unwrap();
    let pushed = following.next(1 << 20).await.unwrap().unwrap();
    for page in [page, pushed] {
        assert_eq!(
            (texts(&page), &page.encrypted[..]),
            (vec!["clear".into(), "sealed".into()], &[false, true][..])
        );
        for frame in &page.frames {
            assert_eq!(Frame::decode_untrusted(frame.bytes()).unwrap(), *frame, "an ordinary frame");
            assert!(frame.header().first > SequenceIndex::ZERO && frame.header().arrival == START);
        }
    }
    put(&stream, "live").await.unwrap();
    assert_eq!(texts(&following.next(1 << 20).await.unwrap().unwrap()), ["live"]);
}

#[tokio::test]
async fn a_key_that_is_not_there_is_told_and_nothing_changes() {
    let (vault, stream) = Vault::new().await;
    assert_eq!(vault.encrypt("alias/none").await, Err(ErrorKind::KeyNotFound));
    assert_eq!(vault.encrypt("/etc/hostname").await, Err(ErrorKind::KeyNotFound));
    let state = |material| vec![WrappingKey { id: "alias/x".into(), aliases: Vec::new(), material }];
    vault.ring.replace(state(KeyMaterial::Disabled)).unwrap();
    assert_eq!(vault.encrypt("alias/x").await, Err(ErrorKind::KeyDisabled));
    vault.ring.replace(state(KeyMaterial::Unreadable("mode 0644".into()))).unwrap();
    assert_eq!(vault.encrypt("alias/x").await, Err(ErrorKind::KeyDenied));
    assert_eq!(stream.info().settings.encryption, None);
    assert_eq!(put(&stream, "clear").await, Ok(false));
    assert_eq!(vault.stop("alias/x").await, Ok(()), "nothing to stop");
}

#[tokio::test]
async fn only_the_key_in_use_in_whatever_spelling_stops_the_encryption() {
    let (vault, stream) = Vault::new().await;
    vault.encrypt("alias/a").await.unwrap();
    assert_eq!(vault.stop("alias/b").await, Err(ErrorKind::Invalid));
    assert_eq!(put(&stream, "sealed").await, Ok(true));
    assert_eq!(vault.stop("arn:aws:kms:us-east-1:000000000000:alias/a").await, Ok(()));
    vault.encrypt("alias/a").await.unwrap();
    vault.ring.replace(Vec::new()).unwrap();
    assert_eq!(vault.stop("alias/a").await, Ok(()), "also when the key is gone: that is the way out");
    assert_eq!(put(&stream, "clear").await, Ok(false));
}

#[tokio::test]
async fn a_wrong_or_missing_key_stops_writers_and_readers_of_sealed_records_until_it_is_back() {
    let (vault, stream) = Vault::new().await;
    put(&stream, "clear").await.unwrap();
    vault.encrypt("alias/a").await.unwrap();
    put(&stream, "sealed").await.unwrap();
    drop(stream);
    vault.ring.replace(keys(&[("alias/a", 9)])).unwrap();
    let (vault, stream) = vault.reopen().await;
    for (ring, kind) in [
        (keys(&[("alias/a", 9)]), ErrorKind::KeyUnusable),
        (keys(&[("alias/b", 1)]), ErrorKind::KeyNotFound),
        (Vec::new(), ErrorKind::KeyNotFound),
    ] {
        vault.ring.replace(ring).unwrap();
        assert_eq!(put(&stream, "lost").await, Err(kind));
        let batch = stream.submit(shard(0), stream.map().version(), frame(&["lost"], 7, 1)).await;
        assert_eq!(batch.unwrap_err().kind(), kind);
        assert_eq!(all(&stream).await, Err(kind));
        let page = stream.read_records(shard(0), SequenceIndex::ZERO, 10, 1 << 20).await.unwrap();
        assert_eq!(page.records.len(), 1, "what lies in the clear before it is read");
        let frames = stream.read(shard(0), SequenceIndex::ZERO, 1 << 20).await.unwrap();
        assert_eq!((texts(&frames), frames.next), (vec!["clear".to_owned()], page.next));
        assert_eq!(stream.read(shard(0), frames.next, 1 << 20).await.unwrap_err().kind(), kind);
        let mut following = stream.subscribe(shard(0), frames.next).unwrap();
        assert_eq!(following.next(1 << 20).await.unwrap_err().kind(), kind);
    }
    vault.ring.replace(keys(&[("alias/a", 1)])).unwrap();
    assert_eq!(put(&stream, "kept").await, Ok(true));
    assert_eq!(all(&stream).await.unwrap(), told(&[("clear", false), ("sealed", true), ("kept", true)]));
}

#[tokio::test]
async fn a_repeated_batch_is_stored_once_though_it_is_sealed_anew_also_across_restart_and_rotation() {
    let (vault, stream) = Vault::new().await;
    let version = stream.map().version();
    let submit = async |stream: &Stream| {
        let sent = stream.submit(shard(0), version, frame(&["a", "b"], 7, 1)).await.unwrap();
        sent.await.unwrap()
    };
    vault.encrypt("alias/a").await.unwrap();
    let first = submit(&stream).await;
    let second = submit(&stream).await;
    assert!(!first.duplicate && second.duplicate && second.first == first.first);
    vault.encrypt("alias/b").await.unwrap();
    assert!(submit(&stream).await.duplicate);
    drop(stream);
    let (vault, stream) = vault.reopen().await;
    assert_eq!(submit(&stream).await.first, first.first);
    vault.stop("alias/b").await.unwrap();
    assert!(submit(&stream).await.duplicate);
    assert_eq!(all(&stream).await.unwrap(), told(&[("a", true), ("b", true)]));
}

#[tokio::test]
async fn a_record_of_ten_mebibytes_is_sealed_and_read() {
    let (vault, stream) = Vault::new().await;
    vault.encrypt("alias/a").await.unwrap();
    let key = PartitionKey::new("k").unwrap();
    let data = Bytes::from(vec![7; RECORD_DATA_BYTES_MAX - 1]);
    let placed = stream.put(vec![Record::new(key, data.clone()).unwrap()]).await.remove(0).unwrap();
    assert!(placed.encrypted);
    let page = stream.read_records(shard(0), SequenceIndex::ZERO, 1, 10 << 20).await.unwrap();
    assert_eq!(page.records[0].data, data);
    drop((page, stream));
    let (_vault, stream) = vault.reopen().await;
    let page = stream.read(shard(0), SequenceIndex::ZERO, 1).await.unwrap();
    assert_eq!(page.frames[0].records().next().unwrap().data, data);
}

/// Checksums are no protection against one who writes them anew.
#[tokio::test]
async fn a_sealed_record_that_was_changed_on_disk_is_told_as_damaged_whatever_its_checksums_say() {
    let (vault, stream) = Vault::new().await;
    vault.encrypt("alias/a").await.unwrap();
    put(&stream, "sealed").await.unwrap();
    let Vault { dir, ring, engine } = vault;
    drop(stream);
    engine.close().await.unwrap();
    drop(engine);
    let segments = std::fs::read_dir(dir.path().join("segments")).unwrap();
    let mut changed = 0;
    for path in
        segments.map(|entry| entry.unwrap().path()).filter(|path| path.extension().unwrap() == "segment")
    {
        let mut bytes = std::fs::read(&path).unwrap();
        let old = Frame::decode(&Bytes::copy_from_slice(&bytes[64..])).unwrap();
        assert!(old.header().is_sealed());
        let mut body = old.body().to_vec();
        body[30] ^= 1;
        let header = FrameHeader { body_crc: crc32(&body), ..*old.header() };
        bytes[64..128].copy_from_slice(&header.encode());
        bytes[128..128 + body.len()].copy_from_slice(&body);
        std::fs::write(&path, &bytes).unwrap();
        changed += 1;
    }
    assert_eq!(changed, 1);
    let engine = open(dir.path(), &ring).await;
    let stream = engine.stream(&named("s")).unwrap();
    assert_eq!(all(&stream).await, Err(ErrorKind::Damaged));
    assert_eq!(put(&stream, "more").await, Ok(true), "the shard goes on");
}

/// As in zlib.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xEDB8_8320 & (0u32.wrapping_sub(crc & 1)));
        }
    }
    !crc
}

#[tokio::test]
async fn data_keys_go_with_their_stream_and_a_new_one_of_the_name_begins_anew() {
    let (vault, stream) = Vault::new().await;
    vault.encrypt("alias/a").await.unwrap();
    vault.encrypt("alias/a").await.unwrap();
    drop(stream);
    vault.engine.delete_stream(&named("s"), ConsumersOnDelete::Refuse).await.unwrap();
    vault.engine.create_stream(&named("s"), StreamSpec::default()).await.unwrap();
    assert_eq!(vault.encrypt("alias/b").await, Ok(1));
    let (_vault, stream) = vault.reopen().await;
    assert_eq!(put(&stream, "sealed").await, Ok(true));
    assert_eq!(all(&stream).await.unwrap(), told(&[("sealed", true)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_change_under_load_and_every_record_is_read_once_and_in_order() {
    let (vault, stream) = Vault::new().await;
    let writers: Vec<_> = (0..4u64)
        .map(|writer| {
            let stream = stream.clone();
            tokio::spawn(async move {
                for n in 0..100u64 {
                    let batch = frame(&[&format!("{writer}-{n}")], writer + 1, n);
                    stream.submit(shard(0), stream.map().version(), batch).await.unwrap().await.unwrap();
                }
            })
        })
        .collect();
    for turn in 0..10 {
        vault.encrypt(if turn % 2 == 0 { "alias/a" } else { "alias/b" }).await.unwrap();
        assert_eq!(put(&stream, "mark").await, Ok(true), "what is put after the change is sealed");
        if turn % 3 == 2 {
            vault.stop("alias/a").await.or(vault.stop("alias/b").await).unwrap();
            assert_eq!(put(&stream, "mark").await, Ok(false));
        }
    }
    for writer in writers {
        writer.await.unwrap();
    }
    drop(stream);
    let (_vault, stream) = vault.reopen().await;
    let mut next = [0; 4];
    for (text, _) in all(&stream).await.unwrap().into_iter().filter(|(text, _)| text != "mark") {
        let (writer, n) = text.split_once('-').unwrap();
        let writer: usize = writer.parse().unwrap();
        assert_eq!(n.parse(), Ok(next[writer]));
        next[writer] += 1;
    }
    assert_eq!(next, [100; 4]);
}

#[tokio::test]
async fn a_batch_repeated_with_its_key_off_gets_its_first_outcome_and_one_for_a_closed_shard_is_told_so() {
    let (vault, stream) = Vault::new().await;
    vault.encrypt("alias/a").await.unwrap();
    let version = stream.map().version();
    let submit = async |number| stream.submit(shard(0), version, frame(&["x"], 7, number)).await?.await;
    let first = submit(1).await.unwrap();
    vault.ring.replace(Vec::new()).unwrap();
    assert_eq!(submit(2).await.unwrap_err().kind(), ErrorKind::KeyNotFound);
    let again = submit(1).await.unwrap();
    assert!(again.duplicate);
    assert_eq!((again.first, again.count, again.arrival), (first.first, first.count, first.arrival));

    vault.engine.split_shard(&named("s"), shard(0), HashKey::new(1 << 127)).await.unwrap();
    assert_eq!(submit(2).await.unwrap_err().kind(), ErrorKind::ShardClosed);
    assert!(submit(1).await.unwrap().duplicate);
}
