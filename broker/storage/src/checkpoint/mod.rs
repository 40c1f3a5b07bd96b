//! The checkpoint: how far each log is safe in its segments, without the journal.
//!
//! One file, `checkpoint`, replaced as a whole (written aside, synced, renamed). It lists every log with its segments, so that
//! opening reads it and not the data.
//!
//! ```text
//!  0 magic 8 | 8 crc32 of 12.. | 12 version 4 | 16 durable flag 4 | 20 logs 4 | 24 epoch 4 | 28 directory 4 | 32 next group 8
//!  per log: id 8 | horizon 8 | durable 8 | next segment 8 | newest arrival + 1 (0: none) 8 | flags 4 (1: sealed, 2: in flight)
//!           segments 4 | per segment: number 8 | base 8 | capacity 8 | end 8 | first arrival 8 | last arrival 8
//!           index entries of the last segment 4 | per entry: index 8 | arrival 8 | offset 8
//!           producers 4 | per producer: id 8 | batches 4 | per batch: number 8 | first 8 | count 4 | arrival 8
//! ```
//!
//! Not here: syncing what the checkpoint speaks of; that is done before it is written (`take`).

mod take;

pub(crate) use take::entry_of;

use crate::LogId;
use crate::bytes_le::{Fields, put_u32, u32_at};
use crate::disk::{Disk, Sync, WriteMode};
use crate::error::{Error, ErrorKind, Result};
use crate::journal::Durable;
use crate::producers::Batch;
use crate::segment::{IndexEntry, SegmentHeader};
use tidemill_types::{Epoch, ProducerId, SequenceIndex, TimestampMs};

pub(crate) const NAME: &str = "checkpoint";
const NEW_NAME: &str = "checkpoint.new";
const MAGIC: &[u8; 8] = b"TMCHKP01";
const VERSION: u32 = 1;
const SEALED: u32 = 1;
const IN_FLIGHT: u32 = 2;

/// One segment, as far as it is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SegmentEntry {
    pub number: u64,
    pub base: SequenceIndex,
    pub capacity: u64,
    pub end: u64,
    pub first_arrival: TimestampMs,
    pub last_arrival: TimestampMs,
}

/// One log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogEntry {
    pub id: LogId,
    pub horizon: SequenceIndex,
    pub durable: SequenceIndex,
    pub next_segment: u64,
    pub newest: Option<TimestampMs>,
    pub sealed: bool,
    /// Frames were on their way to its segments.
    pub in_flight: bool,
    pub segments: Vec<SegmentEntry>,
    pub index: Vec<IndexEntry>,
    pub producers: Vec<(ProducerId, Vec<Batch>)>,
}

impl LogEntry {
    /// Whether its fields can be those of one log.
    fn is_consistent(&self) -> bool {
        let begins = SegmentHeader::BYTES as u64;
        let fits = |s: &SegmentEntry| (begins..=s.capacity).contains(&s.end) && s.number < self.next_segment;
        let last_end = self.segments.last().map_or(0, |last| last.end);
        self.horizon <= self.durable
            && self.segments.iter().all(fits)
            && self.segments.is_sorted_by(|a, b| a.number + 1 == b.number && a.base <= b.base)
            && self.index.iter().all(|entry| (begins..last_end).contains(&entry.offset))
    }
}

/// All logs at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// Journal groups below are not needed.
    pub next_group: u64,
    pub epoch: Epoch,
    /// The directory it belongs to, as its owner names it; 0: not told.
    pub directory: u32,
    /// Whether what was written after this checkpoint was made durable write by write.
    pub durable: Durable,
    pub logs: Vec<LogEntry>,
}

impl Checkpoint {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Out(Vec::with_capacity(64 + self.logs.len() * 128));
        out.0.extend_from_slice(MAGIC);
        out.u32(0);
        out.u32(VERSION);
        out.u32(u32::from(self.durable == Durable::EachGroup));
        out.count(self.logs.len());
        out.u32(self.epoch.get());
        out.u32(self.directory);
        out.u64(self.next_group);
        for log in &self.logs {
            out.log(log);
        }
        let crc = crc32fast::hash(&out.0[12..]);
        put_u32(&mut out.0, 8, crc);
        out.0
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let bad = |what: &str| Error::new(ErrorKind::Damaged, format!("the file {NAME} is damaged: {what}"));
        if bytes.len() < 40 || &bytes[..8] != MAGIC {
            return Err(bad("it does not begin as a checkpoint does (offset 0)"));
        }
        if u32_at(bytes, 8) != crc32fast::hash(&bytes[12..]) {
            return Err(bad("its checksum (offset 8) does not match"));
        }
        let version = u32_at(bytes, 12);
        if version != VERSION {
            return Err(Error::new(
                ErrorKind::Refused,
                format!(
                    "the data directory has format {version}, this version of tidemill knows {VERSION}; use the later version"
                ),
            ));
        }
        Self::fields(&mut Fields(&bytes[16..])).ok_or_else(|| bad("a field is out of bounds"))
    }

    fn fields(fields: &mut Fields<'_>) -> Option<Self> {
        let durable = if fields.u32()? != 0 { Durable::EachGroup } else { Durable::Later };
        let count = usize::try_from(fields.u32()?).ok()?;
        let epoch = Epoch::new(fields.u32()?).ok()?;
        let directory = fields.u32()?;
        let next_group = fields.u64()?;
        let mut logs = Vec::new();
        for _ in 0..count {
            logs.push(log_entry(fields)?);
        }
        fields.0.is_empty().then_some(Self { next_group, epoch, directory, durable, logs })
    }

    /// Makes this the checkpoint of the directory, durably.
    pub(crate) fn write(&self, disk: &dyn Disk) -> Result<()> {
        let bytes = self.encode();
        let io = |e| Error::io("cannot write a checkpoint", e);
        match disk.remove(NEW_NAME) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io(e)),
            _ => {}
        }
        let file = disk.create(NEW_NAME, bytes.len() as u64, WriteMode::Buffered).map_err(io)?;
        // there was room for it; what fails from here on is final
        file.write(0, &[&bytes], Sync::None)
            .and_then(|()| file.sync())
            .and_then(|()| disk.rename(NEW_NAME, NAME))
            .and_then(|()| disk.sync_dir(""))
            .map_err(|e| io(e).with_kind(ErrorKind::Io))
    }

    /// The checkpoint of the directory; `None` if there is none.
    pub(crate) fn read(disk: &dyn Disk) -> Result<Option<Self>> {
        let io = |e| Error::io("cannot read the checkpoint", e);
        let file = match disk.open(NAME, WriteMode::Buffered) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io(e)),
        };
        let mut bytes = vec![0; usize::try_from(file.len()).expect("a checkpoint fits in memory")];
        file.read(0, &mut bytes).map_err(io)?;
        Self::decode(&bytes).map(Some)
    }
}

struct Out(Vec<u8>);

impl Out {
    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
    fn count(&mut self, count: usize) {
        self.u32(u32::try_from(count).expect("counts of a checkpoint are bounded"));
    }
    fn log(&mut self, log: &LogEntry) {
        self.u64(log.id.get());
        self.u64(log.horizon.get());
        self.u64(log.durable.get());
        self.u64(log.next_segment);
        self.u64(log.newest.map_or(0, |newest| newest.get() + 1));
        self.u32(if log.sealed { SEALED } else { 0 } | if log.in_flight { IN_FLIGHT } else { 0 });
        self.count(log.segments.len());
        for segment in &log.segments {
            self.u64(segment.number);
            self.u64(segment.base.get());
            self.u64(segment.capacity);
            self.u64(segment.end);
            self.u64(segment.first_arrival.get());
            self.u64(segment.last_arrival.get());
        }
        self.count(log.index.len());
        for entry in &log.index {
            self.u64(entry.first.get());
            self.u64(entry.arrival.get());
            self.u64(entry.offset);
        }
        self.count(log.producers.len());
        for (id, batches) in &log.producers {
            self.u64(id.get());
            self.count(batches.len());
            for batch in batches {
                self.u64(batch.number);
                self.u64(batch.first.get());
                self.u32(batch.count);
                self.u64(batch.arrival.get());
            }
        }
    }
}

fn index(fields: &mut Fields<'_>) -> Option<SequenceIndex> {
    SequenceIndex::new(fields.u64()?).ok()
}

fn time(fields: &mut Fields<'_>) -> Option<TimestampMs> {
    fields.u64().map(TimestampMs::new)
}

fn log_entry(fields: &mut Fields<'_>) -> Option<LogEntry> {
    let id = LogId::new(fields.u64()?);
    let (horizon, durable) = (index(fields)?, index(fields)?);
    let next_segment = fields.u64()?;
    let newest = fields.u64()?.checked_sub(1).map(TimestampMs::new);
    let flags = fields.u32()?;
    let (sealed, in_flight) = (flags & SEALED != 0, flags & IN_FLIGHT != 0);
    let mut segments = Vec::new();
    for _ in 0..fields.count(48)? {
        segments.push(SegmentEntry {
            number: fields.u64()?,
            base: index(fields)?,
            capacity: fields.u64()?,
            end: fields.u64()?,
            first_arrival: time(fields)?,
            last_arrival: time(fields)?,
        });
    }
    let mut entries = Vec::new();
    for _ in 0..fields.count(24)? {
        entries.push(IndexEntry { first: index(fields)?, arrival: time(fields)?, offset: fields.u64()? });
    }
    let mut producers = Vec::new();
    for _ in 0..fields.count(12)? {
        let id = ProducerId::new(fields.u64()?);
        let mut batches = Vec::new();
        for _ in 0..fields.count(28)? {
            batches.push(Batch {
                number: fields.u64()?,
                first: index(fields)?,
                count: fields.u32()?,
                arrival: time(fields)?,
            });
        }
        producers.push((id, batches));
    }
    let log = LogEntry {
        id,
        horizon,
        durable,
        next_segment,
        newest,
        sealed,
        in_flight,
        segments,
        index: entries,
        producers,
    };
    log.is_consistent().then_some(log)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Checkpoint {
        let at = |value| SequenceIndex::new(value).unwrap();
        Checkpoint {
            next_group: 77,
            epoch: Epoch::new(5).unwrap(),
            directory: 6,
            durable: Durable::EachGroup,
            logs: vec![LogEntry {
                id: LogId::new(9),
                horizon: at(3),
                durable: at(30),
                next_segment: 2,
                newest: Some(TimestampMs::new(0)),
                sealed: true,
                in_flight: true,
                segments: vec![SegmentEntry {
                    number: 1,
                    base: at(2),
                    capacity: 65_536,
                    end: 4000,
                    first_arrival: TimestampMs::new(1),
                    last_arrival: TimestampMs::new(2),
                }],
                index: vec![IndexEntry { first: at(2), arrival: TimestampMs::new(1), offset: 64 }],
                producers: vec![(
                    ProducerId::new(4),
                    vec![Batch { number: 1, first: at(2), count: 3, arrival: TimestampMs::new(1) }],
                )],
            }],
        }
    }

    #[test]
    fn a_checkpoint_gives_back_what_was_noted() {
        assert_eq!(Checkpoint::decode(&sample().encode()).unwrap(), sample());
    }

    #[test]
    fn any_changed_byte_and_any_cut_is_noticed_without_a_panic() {
        let bytes = sample().encode();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x40;
            assert!(Checkpoint::decode(&changed).is_err(), "byte {at}");
            assert!(Checkpoint::decode(&bytes[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_later_format_is_refused_by_name() {
        let mut bytes = sample().encode();
        put_u32(&mut bytes, 12, VERSION + 1);
        let crc = crc32fast::hash(&bytes[12..]);
        put_u32(&mut bytes, 8, crc);
        assert_eq!(Checkpoint::decode(&bytes).unwrap_err().kind(), ErrorKind::Refused);
    }
}
