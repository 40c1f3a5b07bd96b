//! What one log must hold: the plain model.
//!
//! `history` is what was acknowledged (or found after a reopening), in order. `waiting` has no answer yet; `doubtful` was
//! answered "unknown", or never, before a crash: it may turn out to be stored, in order, without gaps.

use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tidemill_storage::{Appended, ErrorKind, LogId, Result, ShardLog};
use tidemill_types::{Epoch, Frame, FrameKind, ProducerId, SequenceIndex, TimestampMs};

/// Batch numbers that are surely recognised, counted back from the highest.
const SURELY_KNOWN: u64 = 64;

/// A producer and its number for a batch.
pub(crate) type Batch = (u64, u64);

/// A frame that is stored.
#[derive(Clone)]
pub(crate) struct Stored {
    pub(crate) first: u64,
    pub(crate) count: u32,
    pub(crate) arrival: u64,
    pub(crate) kind: FrameKind,
    pub(crate) body: Bytes,
    pub(crate) batch: Option<Batch>,
    /// It was trimmed, and then perhaps lost: a retry may be stored again.
    pub(crate) is_forgotten: bool,
}

impl Stored {
    pub(crate) fn next(&self) -> u64 {
        self.first + u64::from(self.count).max(1)
    }
}

pub(crate) type Answer = Arc<Mutex<Option<Result<Appended>>>>;

/// A frame that was given to storage.
#[derive(Clone)]
pub(crate) struct Waiting {
    pub(crate) kind: FrameKind,
    pub(crate) count: u32,
    pub(crate) body: Bytes,
    pub(crate) batch: Option<Batch>,
    pub(crate) answer: Answer,
}

/// What else the environment explains.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Circumstances {
    pub(crate) epoch: Epoch,
    pub(crate) room_is_short: bool,
    pub(crate) is_poisoned: bool,
    pub(crate) is_faulty: bool,
    /// Acknowledged means durable (mode `device`).
    pub(crate) waits_for_device: bool,
}

/// What must be there after a reopening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Survives {
    /// Everything acknowledged.
    All,
    /// What was acknowledged and made durable.
    Durable,
}

pub(crate) struct ExpectedLog {
    pub(crate) id: LogId,
    pub(crate) history: Vec<Stored>,
    /// So many of `history` survive a power cut.
    pub(crate) certain: usize,
    pub(crate) waiting: Vec<Waiting>,
    pub(crate) doubtful: Vec<Waiting>,
    pub(crate) horizon: u64,
    /// The horizon that a crash may go back to.
    pub(crate) horizon_certain: u64,
    pub(crate) batches: HashMap<u64, u64>,
    /// It was ended before it had a frame: no entry says so, a reopening may find it open.
    ended_unwritten: bool,
    /// Every index ever seen, with what it stood for.
    used: HashMap<u64, (u32, Bytes)>,
}

impl ExpectedLog {
    pub(crate) fn new(log: &ShardLog) -> Self {
        let horizon = log.marks().horizon().get();
        Self {
            id: log.id(),
            history: Vec::new(),
            certain: 0,
            waiting: Vec::new(),
            doubtful: Vec::new(),
            horizon,
            horizon_certain: 0,
            batches: HashMap::new(),
            ended_unwritten: false,
            used: HashMap::new(),
        }
    }
    pub(crate) fn is_sealed(&self) -> bool {
        self.ended_unwritten || self.history.last().is_some_and(|last| last.kind == FrameKind::Close)
    }
    /// Position of the first stored frame that begins at or after `index`.
    pub(crate) fn position(&self, index: u64) -> usize {
        self.history.partition_point(|stored| stored.first < index)
    }
    /// Position of the first stored frame that arrived at or after `time` and is kept.
    pub(crate) fn position_at(&self, time: u64) -> usize {
        let kept = self.position(self.horizon);
        kept + self.history[kept..].partition_point(|stored| stored.arrival < time)
    }
    fn find(&self, batch: Batch) -> Option<&Stored> {
        self.history.iter().rev().find(|stored| stored.batch == Some(batch))
    }
    fn note_used(&mut self, stored: &Stored) {
        let meaning = (stored.count, stored.body.clone());
        let before = self.used.entry(stored.first).or_insert_with(|| meaning.clone());
        assert!(*before == meaning, "log {:?}: index {} stands for two records", self.id, stored.first);
    }

    /// Takes in the answers that have come.
    pub(crate) fn settle(&mut self, log: &ShardLog, now: Circumstances) {
        for waiting in std::mem::take(&mut self.waiting) {
            let answer = waiting.answer.lock().take();
            match answer {
                None => {
                    assert!(now.is_faulty, "{:?}: an append was not answered by a step", self.id);
                    self.doubtful.push(waiting);
                }
                Some(Ok(appended)) => self.acknowledged(log, waiting, appended, now),
                Some(Err(error)) => self.refused(waiting, error.kind(), &error.to_string(), now),
            }
        }
        if now.waits_for_device {
            self.certain = self.history.len();
        }
    }

    fn acknowledged(&mut self, log: &ShardLog, waiting: Waiting, appended: Appended, now: Circumstances) {
        assert!(
            self.doubtful.is_empty(),
            "{:?}: acknowledged behind an append whose outcome is unknown",
            self.id
        );
        let first = appended.first.get();
        let known = waiting.batch.and_then(|batch| self.find(batch));
        if let Some(stored) = known.filter(|stored| appended.duplicate || !stored.is_forgotten) {
            assert!(appended.duplicate, "{:?}: batch {:?} was stored twice", self.id, waiting.batch);
            let outcome = (stored.first, stored.count, stored.arrival);
            assert_eq!(
                (first, appended.count, appended.arrival.get()),
                outcome,
                "a retry got another outcome"
            );
            return;
        }
        assert!(!appended.duplicate, "{:?}: batch {:?} was never stored", self.id, waiting.batch);
        assert!(!self.is_sealed(), "{:?}: acknowledged behind the closing entry", self.id);
        assert_eq!(appended.count, waiting.count);
        let begin = now.epoch.first_index().get();
        let expected = self.history.last().map_or(begin, |last| last.next().max(begin));
        assert_eq!(first, expected, "{:?}: an index is not the next", self.id);
        if waiting.kind == FrameKind::Close && log.marks().durable() == appended.first {
            assert!(self.history.iter().all(|stored| stored.is_forgotten), "{:?}: no closing entry", self.id);
            assert!(log.is_sealed());
            self.ended_unwritten = true;
            return;
        }
        let arrival = appended.arrival.get();
        let before = self.history.last().filter(|last| !last.is_forgotten);
        assert!(before.is_none_or(|before| before.arrival <= arrival), "an arrival time fell");
        let Waiting { kind, count, body, batch, .. } = waiting;
        let stored = Stored { first, count, arrival, kind, body, batch, is_forgotten: false };
        self.note_used(&stored);
        self.history.push(stored);
    }

    fn refused(&mut self, waiting: Waiting, kind: ErrorKind, message: &str, now: Circumstances) {
        let is_explained = match kind {
            ErrorKind::Unknown => {
                self.doubtful.push(waiting);
                now.is_faulty
            }
            ErrorKind::Full => now.room_is_short || now.is_faulty,
            ErrorKind::Closed => self.is_sealed() || self.doubtful.iter().any(|w| w.kind == FrameKind::Close),
            ErrorKind::Poisoned => now.is_poisoned,
            ErrorKind::Stale => waiting.batch.is_some_and(|(producer, number)| {
                number + SURELY_KNOWN <= self.batches.get(&producer).copied().unwrap_or(0)
            }),
            _ => false,
        };
        assert!(is_explained, "{:?}: {kind:?} ({message}) is not explained by {now:?}", self.id);
    }

    /// The appends that never got an answer may be stored, too.
    pub(crate) fn give_up_waiting(&mut self) {
        for waiting in std::mem::take(&mut self.waiting) {
            match &*waiting.answer.lock() {
                None => {}
                Some(Err(error)) if error.kind() == ErrorKind::Unknown => {}
                Some(Err(_)) => continue,
                Some(Ok(_)) => panic!("{:?}: acknowledged without a step", self.id),
            }
            self.doubtful.push(waiting);
        }
    }

    /// Compares with what was found after a reopening, and goes on from that.
    pub(crate) fn reopened(&mut self, log: &ShardLog, survives: Survives, waits_for_device: bool) {
        let id = self.id;
        let marks = log.marks();
        let horizon = marks.horizon().get();
        let (trimmed, trimmed_surely) = (self.position(self.horizon), self.position(self.horizon_certain));
        let mut at = self.position(horizon);
        assert!(
            at >= trimmed_surely,
            "{id:?}: the horizon {horizon} went back behind {}",
            self.horizon_certain
        );
        if at > trimmed {
            // a log of which nothing was durable begins anew
            assert_eq!(marks.horizon(), marks.durable(), "{id:?}: the horizon passed {}", self.horizon);
            at = trimmed;
        }
        assert_eq!(marks.durable(), marks.written(), "{id:?}: nothing is under way after a recovery");
        self.ended_unwritten &= log.is_sealed();
        self.drop_doubtful_retries();
        let mut doubtful = std::mem::take(&mut self.doubtful).into_iter().peekable();
        for frame in read_all(log, 1 << 16) {
            if at < self.history.len() {
                check_frame(&frame, &self.history[at]);
            } else {
                let end = self.history.last().map_or(0, Stored::next);
                let is_it = |waiting: &Waiting| !self.may_be_known(waiting) || waiting.body == frame.body();
                let Some(waiting) = doubtful.find(is_it) else {
                    panic!("{id:?}: found a frame at {} that was never written", frame.header().first.get());
                };
                let header = frame.header();
                assert!(header.first.get() >= end, "{id:?}: indexes do not rise");
                let Waiting { kind, count, body, batch, .. } = waiting;
                let (first, arrival) = (header.first.get(), header.arrival.get());
                let stored = Stored { first, count, arrival, kind, body, batch, is_forgotten: false };
                check_frame(&frame, &stored);
                self.note_used(&stored);
                self.history.push(stored);
            }
            at += 1;
        }
        if log.is_sealed() && !(at == self.history.len() && self.is_sealed()) {
            if at == self.history.len() {
                let close = doubtful.next().filter(|waiting| waiting.kind == FrameKind::Close);
                let close =
                    close.unwrap_or_else(|| panic!("{id:?}: found a closing entry that was never written"));
                let first = marks.durable().get() - 1;
                let arrival = log.newest().map_or(0, |newest| newest.get());
                let Waiting { kind, count, body, batch, .. } = close;
                self.history.push(Stored { first, count, arrival, kind, body, batch, is_forgotten: false });
            }
            assert_eq!(
                self.history[at].kind,
                FrameKind::Close,
                "{id:?}: frames are missing before the closing entry"
            );
            at += 1;
        }
        let needed = if survives == Survives::All { self.history.len() } else { self.certain };
        assert!(
            at >= needed,
            "{id:?}: {} acknowledged frames are lost: {at} of {needed} are there",
            needed - at
        );
        self.history.truncate(at);
        let trimmed = self.position(horizon);
        if survives == Survives::Durable && self.certain < trimmed {
            self.history[self.certain..trimmed].iter_mut().for_each(|stored| stored.is_forgotten = true);
            if self.is_sealed() && !log.is_sealed() {
                self.history.pop_if(|close| close.is_forgotten);
            }
        }
        assert_eq!(log.is_sealed(), self.is_sealed(), "{id:?}: sealed");
        self.certain =
            if waits_for_device { self.history.len() } else { self.certain.min(self.history.len()) };
        (self.horizon, self.horizon_certain) = (horizon, horizon.min(self.horizon_certain));
        let end = self.history.last().map_or(0, Stored::next);
        assert!(marks.durable().get() >= end);
        self.batches =
            self.history.iter().filter_map(|stored| stored.batch).fold(HashMap::new(), |mut all, (p, n)| {
                let highest = all.entry(p).or_insert(n);
                *highest = n.max(*highest);
                all
            });
    }

    /// Whether it is a retry of a batch that storage has perhaps forgotten, and may have stored or not.
    fn may_be_known(&self, waiting: &Waiting) -> bool {
        waiting.batch.and_then(|batch| self.find(batch)).is_some_and(|stored| stored.is_forgotten)
    }

    /// A retry of a batch that is stored, or doubtful before it, adds no frame.
    fn drop_doubtful_retries(&mut self) {
        let mut seen: Vec<Batch> = Vec::new();
        for waiting in std::mem::take(&mut self.doubtful) {
            if let Some(batch) = waiting.batch {
                if self.find(batch).is_some_and(|stored| !stored.is_forgotten) || seen.contains(&batch) {
                    continue;
                }
                seen.push(batch);
            }
            self.doubtful.push(waiting);
        }
    }

    /// Everything that is kept is read, and nothing else.
    pub(crate) fn check_all(&self, log: &ShardLog, max_bytes: usize) {
        let kept =
            self.history[self.position(self.horizon)..].iter().filter(|s| s.kind == FrameKind::Records);
        let last = self.history.last().filter(|last| last.first >= self.horizon);
        assert_eq!(
            log.newest().map(TimestampMs::get),
            last.map(|last| last.arrival),
            "{:?}: newest",
            self.id
        );
        let found = read_all(log, max_bytes);
        assert_eq!(found.len(), kept.clone().count(), "{:?}: frames read", self.id);
        for (frame, stored) in found.iter().zip(kept) {
            check_frame(frame, stored);
        }
    }

    /// One read from anywhere gives the frames that follow.
    pub(crate) fn check_read(&self, log: &ShardLog, from: u64, max_bytes: usize) {
        let marks = log.marks();
        let from = from.min(marks.durable().get());
        let chunk = log.read(SequenceIndex::new(from).unwrap(), max_bytes).unwrap();
        let start = from.max(self.horizon);
        let at =
            self.history.partition_point(|stored| stored.next() <= start).max(self.position(self.horizon));
        let mut expected = self.history[at..].iter().filter(|stored| stored.kind == FrameKind::Records);
        let mut bytes = 0;
        let mut next = from;
        for frame in &chunk.frames {
            check_frame(frame, expected.next().expect("no more frames than there are"));
            assert!(frame.header().next() <= marks.durable(), "a frame past the durable mark was read");
            bytes += frame.bytes().len();
            next = frame.header().next().get();
        }
        assert!(bytes <= max_bytes || chunk.frames.len() == 1, "{bytes} bytes read, asked for {max_bytes}");
        assert!(chunk.next.get() >= next);
        match expected.next() {
            Some(following) => {
                assert!(!chunk.frames.is_empty(), "{:?}: nothing read at {from} of {marks:?}", self.id);
                assert!(chunk.next.get() <= following.first, "a frame would be skipped");
            }
            None => assert!(chunk.next <= marks.durable().max(marks.horizon())),
        }
        self.check_behind(log, from);
    }

    /// What is told to lie behind a place is what lies there.
    fn check_behind(&self, log: &ShardLog, from: u64) {
        let start = from.max(self.horizon);
        let is_behind = |stored: &&Stored| stored.kind == FrameKind::Records && stored.next() > start;
        let behind: Vec<_> = self.history.iter().filter(is_behind).collect();
        let count = |stored: &&Stored| stored.next() - stored.first.max(start);
        let from = SequenceIndex::new(from).unwrap();
        let records: u64 = behind.iter().map(count).sum();
        assert_eq!(log.records_from(from).unwrap(), records, "{:?}: records from {from}", self.id);
        let is_before = |stored: &&Stored| {
            stored.kind == FrameKind::Records && stored.first < from.get() && stored.next() > self.horizon
        };
        let before = self.history.iter().rev().find(is_before);
        let before = before.map(|stored| (stored.next().min(from.get()) - 1, stored.arrival));
        let found = log.record_before(from).unwrap().map(|(index, arrival)| (index.get(), arrival.get()));
        assert_eq!(found, before.filter(|(index, _)| *index >= self.horizon), "{:?}: before {from}", self.id);
        let arrival = log.arrival_from(from).unwrap().map(TimestampMs::get);
        assert_eq!(arrival, behind.first().map(|first| first.arrival), "{:?}: arrival from {from}", self.id);
    }
}

fn check_frame(frame: &Frame, stored: &Stored) {
    let header = frame.header();
    let batch = (header.producer != ProducerId::NONE).then_some((header.producer.get(), header.batch_number));
    assert_eq!(
        (header.first.get(), header.count, header.arrival.get(), header.kind, batch),
        (stored.first, stored.count, stored.arrival, stored.kind, stored.batch),
        "a frame is not the one that was written"
    );
    assert!(frame.body() == stored.body, "a frame at {} has other bytes than were written", stored.first);
    assert_eq!(frame.records().count(), stored.count as usize);
}

/// All frames from the horizon to the end, read piece by piece.
pub(crate) fn read_all(log: &ShardLog, max_bytes: usize) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut from = SequenceIndex::ZERO;
    let end = log.marks().durable();
    while from < end {
        let chunk =
            log.read(from, max_bytes).unwrap_or_else(|e| panic!("{:?}: reading from {from}: {e}", log.id()));
        assert!(chunk.next > from, "{:?}: a read at {from} of {end} makes no progress", log.id());
        from = chunk.next;
        frames.extend(chunk.frames);
    }
    frames
}
