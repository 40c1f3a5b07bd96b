//! What the fuzz targets do with their input: arbitrary bytes must neither panic nor come back as records.
//!
//! Two runners: `tests/fuzz_smoke.rs` with random input on every toolchain, and the crate in `fuzz/` with libFuzzer.

#![allow(dead_code)] // each runner uses some of them

use bytes::Bytes;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};
use tidemill_storage::disk::fault::FaultDisk;
use tidemill_storage::{LogId, Settings, Storage};
use tidemill_types::{
    Epoch, Frame, FrameHeader, FrameKind, FrameWriter, Frames, ManualClock, ProducerId, SequenceIndex,
    TimestampMs,
};

/// Epochs that built the directory; the targets open it with the next.
const EPOCHS: u32 = 3;
const LOGS: u64 = 3;

/// Bytes as a frame, and as frames one behind the other.
pub(crate) fn frame(input: &[u8]) {
    let bytes = Bytes::copy_from_slice(input);
    if let Ok(frame) = Frame::decode(&bytes) {
        assert_eq!(
            frame.header().encode(),
            frame.bytes()[..FrameHeader::BYTES],
            "a header prints as it parses"
        );
        assert!(frame.records().count() <= frame.header().count as usize);
    }
    if let Ok(frame) = Frame::decode_untrusted(&bytes) {
        assert_eq!(frame.bytes().len(), input.len());
        assert_eq!(frame.records().count(), frame.header().count as usize);
        let mut writer = FrameWriter::with_capacity(input.len());
        for record in frame.records() {
            writer.push(record.key, record.data);
        }
        assert_eq!(
            writer.finish(ProducerId::NONE, 0).body(),
            frame.body(),
            "records are written as they are read"
        );
    }
    if let Some(frame) =
        with_right_checksums(input).and_then(|bytes| Frame::decode_untrusted_keyless(&bytes).ok())
    {
        assert_eq!(frame.records().count(), frame.header().count as usize);
    }
    let taken: usize = Frames::new(bytes).map_while(Result::ok).map(|frame| frame.bytes().len()).sum();
    assert!(taken <= input.len());
}

/// Bytes as the body of a frame whose checksums and length are right: the first four are the count of records.
fn with_right_checksums(input: &[u8]) -> Option<Bytes> {
    let (count, body) = input.split_first_chunk::<4>()?;
    let header = FrameHeader {
        frame_bytes: u32::try_from(FrameHeader::BYTES + body.len()).ok()?,
        kind: FrameKind::Records,
        attributes: 0,
        body_crc: crc32fast::hash(body),
        log: 0,
        first: SequenceIndex::ZERO,
        count: u32::from_le_bytes(*count),
        group_before: 0,
        arrival: TimestampMs::default(),
        producer: ProducerId::NONE,
        batch_number: 0,
    };
    Some(Bytes::from([&header.encode(), body].concat()))
}

/// Bytes laid over a journal file: the first four say which file and where.
pub(crate) fn journal(input: &[u8]) {
    let Some((place, bytes)) = input.split_at_checked(4) else { return };
    let mut files = directory().files.clone();
    let mut journals: Vec<_> = files.iter_mut().filter(|(name, _)| is_journal(name)).collect();
    let which = usize::from(place[0]) % journals.len();
    let content = &mut journals[which].1;
    // a quarter of the inputs replaces the whole file, size and all
    if place[1] & 3 == 0 {
        *content = bytes.to_vec();
    } else {
        let offset = usize::from(u16::from_le_bytes([place[2], place[3]])) * 8 % content.len();
        overwrite(content, offset, bytes);
    }
    open_and_check(&files);
}

/// Changes of a data directory, eight bytes each: kind, file, offset, length, value.
pub(crate) fn recovery(input: &[u8]) {
    let mut files = directory().files.clone();
    for change in input.chunks_exact(8).take(64) {
        if files.is_empty() {
            break;
        }
        let at = usize::from(change[1]) % files.len();
        let offset = usize::from(u16::from_le_bytes([change[2], change[3]]));
        let length = usize::from(change[4]) * usize::from(change[5]);
        let value = change[6];
        let other = files[usize::from(change[7]) % files.len()].1.clone();
        let (_, content) = &mut files[at];
        let offset = if content.is_empty() { 0 } else { offset % content.len() };
        match change[0] % 8 {
            0 | 1 => overwrite(content, offset, &[value]),
            2 => overwrite(content, offset, &vec![value; length]),
            3 => {
                let from = usize::from(value) * 64 % other.len().max(1);
                let piece = &other[from..other.len().min(from + length)];
                overwrite(content, offset, piece);
            }
            4 => *content = other,
            5 => content.truncate(offset),
            6 => content.resize(offset + length, value),
            _ => {
                files.remove(at);
            }
        }
    }
    open_and_check(&files);
}

fn overwrite(content: &mut [u8], offset: usize, bytes: &[u8]) {
    let end = content.len().min(offset + bytes.len());
    let bytes = &bytes[..end.saturating_sub(offset)];
    content[offset..offset + bytes.len()].copy_from_slice(bytes);
}

fn is_journal(name: &str) -> bool {
    name.starts_with("journal")
}

type Files = Vec<(String, Vec<u8>)>;

/// A data directory as a killed process leaves it, and what was written into it.
struct Directory {
    files: Files,
    written: HashMap<(u64, u64), Bytes>,
}

fn settings() -> Settings {
    Settings {
        journal_bytes_max: 256 << 10,
        journal_file_bytes: 64 << 10,
        checkpoint_bytes: 64 << 10,
        direct_bytes_min: 4 << 10,
        segment_bytes_min: 16 << 10,
        segment_bytes_max: 32 << 10,
        pool_segments_max: 1,
        ..Settings::default()
    }
}

fn open(disk: &FaultDisk, epoch: u32) -> tidemill_storage::Result<Arc<Storage>> {
    let clock = Arc::new(ManualClock::new(TimestampMs::new(1_700_000_000_000 + u64::from(epoch))));
    let logs: Vec<LogId> = (1..=LOGS).map(LogId::new).collect();
    Storage::open(Arc::new(disk.clone()), clock, settings(), &logs, Epoch::new(epoch).unwrap())
}

fn directory() -> &'static Directory {
    static BUILT: OnceLock<Directory> = OnceLock::new();
    BUILT.get_or_init(|| {
        let written = Arc::new(Mutex::new(HashMap::new()));
        let mut disk = FaultDisk::new(1);
        let mut number = 0;
        for epoch in 1..=EPOCHS {
            let storage = open(&disk, epoch).unwrap();
            for round in 0..40 {
                number += 1;
                let log = storage.log(LogId::new(round % LOGS + 1)).unwrap();
                let mut writer = FrameWriter::with_capacity(0);
                for size in [0, 30 * round as usize, if round % 13 == 0 { 5000 } else { 10 }] {
                    writer.push("key", &vec![number as u8; size]);
                }
                let frame = writer.finish(ProducerId::new(round % 2), number);
                let (written, id, body) = (written.clone(), log.id().get(), frame.body());
                log.append(frame, move |appended| {
                    written.lock().unwrap().insert((id, appended.unwrap().first.get()), body);
                });
                while storage.step() > 0 {}
                if round == 25 {
                    storage.checkpoint().unwrap();
                }
            }
            disk = disk.process_crash();
        }
        let files = disk
            .files()
            .into_iter()
            .map(|(name, _)| (name.clone(), disk.read_file(&name).unwrap()))
            .collect();
        let written = written.lock().unwrap().clone();
        assert_eq!(written.len() as u64, number, "every append was acknowledged");
        Directory { files, written }
    })
}

/// Storage opens or refuses; what it then reads are records that were written, in order, and it goes on from there.
fn open_and_check(files: &Files) {
    let disk = FaultDisk::new(2);
    for (name, content) in files {
        disk.write_file(name, content).unwrap();
    }
    let Ok(storage) = open(&disk, EPOCHS + 1) else { return };
    for id in 1..=LOGS {
        let log = storage.log(LogId::new(id)).unwrap();
        let marks = log.marks();
        let mut from = SequenceIndex::ZERO;
        let mut before = None;
        while from < marks.durable() {
            let Ok(chunk) = log.read(from, 1 << 20) else { break };
            assert!(chunk.next > from, "a read makes progress");
            for frame in chunk.frames {
                let first = frame.header().first.get();
                assert!(before < Some(first), "indexes rise");
                before = Some(first);
                let written = directory().written.get(&(id, first));
                assert_eq!(written, Some(&frame.body()), "log {id}, index {first}: not what was written");
            }
            from = chunk.next;
        }
        let _ = log.seek_time(TimestampMs::new(1_700_000_000_002));
    }
    check_an_append(&storage);
}

fn check_an_append(storage: &Storage) {
    let log = storage.log(LogId::new(1)).unwrap();
    if log.is_sealed() {
        return;
    }
    let mut writer = FrameWriter::with_capacity(0);
    writer.push("key", b"after");
    let appended = Arc::new(Mutex::new(None));
    let answer = appended.clone();
    log.append(writer.finish(ProducerId::NONE, 0), move |result| *answer.lock().unwrap() = Some(result));
    while storage.step() > 0 {}
    let appended = appended.lock().unwrap().take().expect("answered");
    if let Ok(appended) = appended {
        assert_eq!(appended.first.epoch().get(), EPOCHS + 1, "no index is used again");
        // it may lie behind damage, which is told
        if let Ok(chunk) = log.read(appended.first, 1 << 20) {
            assert_eq!(chunk.frames[0].records().next().unwrap().data, b"after");
        }
    }
}

/// Inputs to begin with: whole frames and whole journal files.
pub(crate) fn examples() -> Vec<Vec<u8>> {
    let mut writer = FrameWriter::with_capacity(0);
    writer.push("a", b"");
    writer.push("b", &[7; 300]);
    let frame = writer.finish(ProducerId::new(5), 6).bytes().to_vec();
    let mut examples = vec![frame.repeat(3), frame];
    for (name, content) in &directory().files {
        if is_journal(name) {
            let mut input = vec![0; 4];
            input.extend_from_slice(&content[..content.len().min(20_000)]);
            examples.push(input);
        }
    }
    examples
}
