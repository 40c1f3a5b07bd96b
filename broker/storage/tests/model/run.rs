//! One run: a seed's settings, operations and faults.

use crate::chance::Chance;
use crate::expected::{Answer, Circumstances, ExpectedLog, Survives, Waiting};
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemill_storage::disk::fault::{FaultDisk, Unwritten};
use tidemill_storage::{Durability, ErrorKind, Health, LogId, Settings, ShardLog, Storage};
use tidemill_types::{Clock, Epoch, Frame, FrameKind, FrameWriter, ManualClock, ProducerId, TimestampMs};

const STARTED: u64 = 1_700_000_000_000;
/// Rounds after which a loop that should have ended counts as endless.
const ROUNDS_MAX: usize = 10_000;

/// What a run did, kept only when asked for.
#[derive(Default)]
pub(crate) struct Trace {
    lines: Option<Vec<String>>,
}

impl Trace {
    pub(crate) fn recording() -> Self {
        Self { lines: Some(Vec::new()) }
    }
    pub(crate) fn lines(&self) -> &[String] {
        self.lines.as_deref().unwrap_or_default()
    }
    fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(line());
        }
    }
}

/// A log and what it must hold.
struct Live {
    log: ShardLog,
    expected: ExpectedLog,
}

struct Run<'a> {
    chance: Chance,
    trace: &'a mut Trace,
    disk: FaultDisk,
    clock: Arc<ManualClock>,
    settings: Settings,
    epoch: Epoch,
    /// `None` only while it is being opened again.
    storage: Option<Arc<Storage>>,
    logs: BTreeMap<u64, Live>,
    next_log: u64,
    next_record: u64,
    room_is_short: bool,
    is_faulty: bool,
}

/// Runs one seed; panics when a promise is broken.
pub(crate) fn run(seed: u64, trace: &mut Trace) {
    let mut run = Run::new(seed, trace);
    let operations = run.chance.within(20, 80);
    for _ in 0..operations {
        run.operation();
    }
    run.finish();
}

fn settings(chance: &mut Chance, durability: Durability) -> Settings {
    let segment_bytes_min = chance.pick(&[16 << 10, 20 << 10, 64 << 10]);
    let journal_file_bytes = chance.pick(&[64 << 10, 64 << 10, 128 << 10]);
    Settings {
        durability,
        journal_bytes_max: journal_file_bytes * chance.within(4, 7),
        journal_file_bytes,
        checkpoint_bytes: chance.pick(&[16 << 10, 64 << 10, 256 << 10]),
        direct_bytes_min: chance.pick(&[1 << 10, 4 << 10, 16 << 10]),
        segment_bytes_min,
        segment_bytes_max: segment_bytes_min * chance.pick(&[1, 1, 4]),
        pool_segments_max: chance.pick(&[0, 1, 3]),
        open_segments_max: chance.pick(&[1, 2, 8]),
        ..Settings::default()
    }
}

impl<'a> Run<'a> {
    fn new(seed: u64, trace: &'a mut Trace) -> Self {
        let mut chance = Chance::new(seed);
        let modes = [Durability::Device, Durability::Device, Durability::Interval { ms: 50 }, Durability::Os];
        let durability = chance.pick(&modes);
        let settings = settings(&mut chance, durability);
        trace.note(|| format!("seed {seed}: {settings:?}"));
        let disk = FaultDisk::new(chance.next());
        disk.set_unwritten(chance.pick(&[Unwritten::Zero, Unwritten::Stale]));
        let clock = Arc::new(ManualClock::new(TimestampMs::new(STARTED)));
        let epoch = Epoch::new(1).unwrap();
        let storage =
            Storage::open(Arc::new(disk.clone()), clock.clone(), settings.clone(), &[], epoch).unwrap();
        let mut run = Self {
            chance,
            trace,
            disk,
            clock,
            settings,
            epoch,
            storage: Some(storage),
            logs: BTreeMap::new(),
            next_log: 1,
            next_record: 0,
            room_is_short: false,
            is_faulty: false,
        };
        for _ in 0..run.chance.within(1, 4) {
            run.create_log();
        }
        run
    }

    fn operation(&mut self) {
        match self.chance.within(0, 100) {
            0..30 => self.append_some(),
            30..48 => self.step(),
            48..58 => self.read(),
            58..61 => self.seek(),
            61..66 => self.trim(),
            66..73 => self.move_clock(),
            73..77 => self.checkpoint(),
            77 => self.sync(),
            78 => self.create_log(),
            79 => self.delete_log(),
            80 => self.seal(),
            81..84 => self.close_and_reopen(),
            84..86 => self.kill(),
            86..88 => self.cut_power(),
            88..97 => self.fault(),
            _ => self.run_full(),
        }
    }

    fn storage(&self) -> &Storage {
        self.storage.as_ref().expect("it is open between operations")
    }
    fn waits_for_device(&self) -> bool {
        self.settings.durability == Durability::Device
    }
    fn circumstances(&self) -> Circumstances {
        Circumstances {
            epoch: self.epoch,
            room_is_short: self.room_is_short,
            is_poisoned: matches!(self.storage().health(), Health::Poisoned(_)),
            is_faulty: self.is_faulty,
            waits_for_device: self.waits_for_device(),
        }
    }
    fn settle(&mut self) {
        let now = self.circumstances();
        for live in self.logs.values_mut() {
            live.expected.settle(&live.log, now);
        }
    }
    fn pick_log(&mut self) -> Option<u64> {
        let ids: Vec<u64> = self.logs.keys().copied().collect();
        (!ids.is_empty()).then(|| self.chance.pick(&ids))
    }

    /// A frame with records that occur once.
    fn frame(&mut self, producer: Option<(u64, u64)>) -> Frame {
        let bytes_max = self.chance.pick(&[1, 200, 200, 2_000, 6_000, 40_000]);
        let mut writer = FrameWriter::with_capacity(256);
        for _ in 0..self.chance.within(1, 4) {
            self.next_record += 1;
            let number = self.next_record;
            let bytes = self.chance.within(0, bytes_max) as usize;
            let data: Vec<u8> = number.to_le_bytes().into_iter().cycle().take(bytes).collect();
            writer.push(&format!("key-{number}"), &data);
        }
        let (producer, number) = producer.unwrap_or((0, 0));
        writer.finish(ProducerId::new(producer), number)
    }

    fn append_some(&mut self) {
        let Some(id) = self.pick_log() else { return };
        for _ in 0..self.chance.within(1, 6) {
            self.append(id);
        }
    }

    fn append(&mut self, id: u64) {
        let batch = self.chance.one_in(3).then(|| self.batch(id));
        let frame = self.frame(batch);
        self.trace.note(|| format!("append to {id}: {} bytes, batch {batch:?}", frame.bytes().len()));
        self.give(id, &frame, batch);
    }

    /// The next batch of a producer, or one of its last again.
    fn batch(&mut self, id: u64) -> (u64, u64) {
        let producer = self.chance.within(1, 4);
        let expected = &mut self.logs.get_mut(&id).expect("picked").expected;
        let highest = expected.batches.get(&producer).copied().unwrap_or(0);
        let number = match self.chance.within(0, 3) {
            0 => self.chance.within(highest.saturating_sub(20), highest + 1).max(1),
            _ => highest + 1,
        };
        expected.batches.insert(producer, highest.max(number));
        (producer, number)
    }

    fn give(&mut self, id: u64, frame: &Frame, batch: Option<(u64, u64)>) {
        let live = self.logs.get_mut(&id).expect("picked");
        let answer = Answer::default();
        let (kind, count) = (FrameKind::Records, frame.header().count);
        let waiting = Waiting { kind, count, body: frame.body(), batch, answer: answer.clone() };
        live.expected.waiting.push(waiting);
        live.log.append(frame.clone(), move |result| {
            assert!(answer.lock().replace(result).is_none(), "answered twice");
        });
    }

    fn seal(&mut self) {
        let Some(id) = self.pick_log() else { return };
        self.trace.note(|| format!("seal {id}"));
        let live = self.logs.get_mut(&id).expect("picked");
        let answer = Answer::default();
        let waiting = Waiting {
            kind: FrameKind::Close,
            count: 0,
            body: bytes::Bytes::new(),
            batch: None,
            answer: answer.clone(),
        };
        live.expected.waiting.push(waiting);
        live.log.seal(move |result| {
            assert!(answer.lock().replace(result).is_none(), "answered twice");
        });
    }

    fn step(&mut self) {
        self.trace.note(|| "step".to_owned());
        self.step_storage();
        self.settle();
    }

    fn step_storage(&self) {
        let rounds = (0..ROUNDS_MAX).take_while(|_| self.storage().step() > 0).count();
        assert!(rounds < ROUNDS_MAX, "there is no end to stepping");
    }

    /// What the timer of mode `interval` does.
    fn sync(&mut self) {
        self.trace.note(|| "sync".to_owned());
        match self.storage().sync() {
            Ok(()) => {
                self.logs.values_mut().for_each(|live| live.expected.certain = live.expected.history.len())
            }
            Err(error) => assert!(self.is_faulty, "a sync failed: {error}"),
        }
    }

    fn read(&mut self) {
        let Some(id) = self.pick_log() else { return };
        let live = &self.logs[&id];
        let from = if self.chance.one_in(4) || live.expected.history.is_empty() {
            self.chance.within(0, live.log.marks().durable().get() + 1)
        } else {
            let at = self.chance.within(0, live.expected.history.len() as u64) as usize;
            live.expected.history[at].first + self.chance.within(0, 3)
        };
        let max_bytes = self.chance.pick(&[1, 500, 5_000, 100_000]);
        self.trace.note(|| format!("read {id} from {from}, {max_bytes} bytes"));
        live.expected.check_read(&live.log, from, max_bytes);
    }

    fn random_time(&mut self, id: u64) -> u64 {
        let history = &self.logs[&id].expected.history;
        if history.is_empty() || self.chance.one_in(3) {
            return self.clock.now().get() - self.chance.within(0, 1000);
        }
        history[self.chance.within(0, history.len() as u64) as usize].arrival + self.chance.within(0, 2)
    }

    fn seek(&mut self) {
        let Some(id) = self.pick_log() else { return };
        let time = self.random_time(id);
        self.trace.note(|| format!("seek {id} to {time}"));
        let Live { log, expected } = &self.logs[&id];
        let found = log.seek_time(TimestampMs::new(time)).unwrap();
        assert!(found <= log.marks().durable());
        assert_eq!(
            expected.position(found.get()),
            expected.position_at(time),
            "{id}: sought {time}, found {found}"
        );
    }

    fn trim(&mut self) {
        let Some(id) = self.pick_log() else { return };
        let time = self.random_time(id);
        self.trace.note(|| format!("trim {id} before {time}"));
        let Live { log, expected } = self.logs.get_mut(&id).expect("picked");
        let horizon = log.trim(TimestampMs::new(time)).unwrap();
        assert_eq!(horizon, log.marks().horizon());
        assert_eq!(
            expected.position(horizon.get()),
            expected.position_at(time),
            "{id}: trimmed before {time}"
        );
        assert!(horizon.get() >= expected.horizon, "the horizon went back");
        expected.horizon = horizon.get();
    }

    fn move_clock(&mut self) {
        let ms = self.chance.pick(&[1, 5, 60, 500]);
        if self.chance.one_in(6) {
            self.clock.set_wall(TimestampMs::new(self.clock.now().get() - ms));
        } else {
            self.clock.advance_ms(ms);
        }
        self.trace.note(|| format!("clock at {}", self.clock.now()));
    }

    fn checkpoint(&mut self) {
        self.trace.note(|| "checkpoint".to_owned());
        match self.storage().checkpoint() {
            Ok(()) => self.everything_is_certain(),
            Err(error) => {
                assert!(self.is_faulty || self.room_is_short, "a checkpoint failed: {error}");
                self.trace.note(|| format!("  checkpoint: {error}"));
            }
        }
    }

    fn everything_is_certain(&mut self) {
        for Live { expected, .. } in self.logs.values_mut() {
            expected.certain = expected.history.len();
            expected.horizon_certain = expected.horizon;
        }
    }

    fn create_log(&mut self) {
        let id = self.next_log;
        self.next_log += 1;
        self.trace.note(|| format!("create {id}"));
        let log = self.storage().create_log(LogId::new(id));
        let expected = ExpectedLog::new(&log);
        self.logs.insert(id, Live { log, expected });
    }

    /// What waits when a log is deleted, and what comes later, is told that it is closed.
    fn delete_log(&mut self) {
        let Some(id) = self.pick_log() else { return };
        self.trace.note(|| format!("delete {id}"));
        let frame = self.frame(None);
        self.storage().delete_log(LogId::new(id));
        self.give(id, &frame, None);
        let live = self.logs.remove(&id).expect("picked");
        assert!(self.storage().log(LogId::new(id)).is_none());
        self.step_storage();
        for waiting in &live.expected.waiting {
            match waiting.answer.lock().take() {
                Some(Err(error)) => assert_eq!(error.kind(), ErrorKind::Closed, "{error}"),
                Some(Ok(appended)) if appended.duplicate => {} // its first outcome is still true
                other => panic!("an append to a deleted log came to {other:?}"),
            }
        }
        self.settle();
    }

    fn close_and_reopen(&mut self) {
        self.trace.note(|| "close".to_owned());
        self.storage().close().unwrap();
        self.settle();
        self.everything_is_certain();
        self.reopen(self.disk.clone(), Survives::All);
    }

    /// The process is killed between two operations.
    fn kill(&mut self) {
        self.trace.note(|| "kill the process".to_owned());
        let disk = self.disk.process_crash();
        self.reopen(disk, Survives::All);
    }

    /// The power goes between two operations.
    fn cut_power(&mut self) {
        self.trace.note(|| "cut the power".to_owned());
        let disk = self.disk.crash();
        self.reopen(disk, Survives::Durable);
    }

    /// Something fails in the middle of an operation.
    fn fault(&mut self) {
        match self.chance.within(0, 4) {
            0 | 1 => {
                let after = self.chance.within(0, 12);
                self.trace.note(|| format!("the power or the process will go after {after} operations"));
                self.disk.cut_power_after(after);
            }
            2 => {
                let after = self.chance.within(0, 6);
                self.trace.note(|| format!("a write will fail after {after}"));
                self.disk.fail_write_after(after);
            }
            _ => {
                let after = self.chance.within(0, 4);
                self.trace.note(|| format!("a sync will fail after {after}"));
                self.disk.fail_sync_after(after);
            }
        }
        self.is_faulty = true;
        for _ in 0..self.chance.within(0, 4) {
            self.append_some();
        }
        match self.chance.within(0, 6) {
            0 => self.checkpoint(),
            1 => self.sync(),
            2 => self.fault_while_closing(),
            _ => self.step_storage(),
        }
        self.after_fault();
    }

    fn fault_while_closing(&mut self) {
        self.trace.note(|| "close, and fail".to_owned());
        match self.storage().close() {
            Ok(()) => {
                self.settle();
                self.everything_is_certain();
            }
            Err(error) => self.trace.note(|| format!("  close: {error}")),
        }
        self.disk.cut_power_after(0);
        let _ = tidemill_storage::disk::Disk::sync_dir(&self.disk, "");
    }

    fn after_fault(&mut self) {
        let is_powered = self.disk.is_powered();
        let health = self.storage().health();
        let is_poisoned = matches!(health, Health::Poisoned(_));
        self.trace.note(|| format!("  powered {is_powered}, {health:?}"));
        if is_powered && !is_poisoned {
            self.disk.call_off();
            self.step_storage();
            self.settle();
            self.is_faulty = false;
            return;
        }
        self.settle();
        if is_powered {
            self.check_poisoned();
        }
        self.is_faulty = false;
        if self.chance.one_in(3) { self.kill() } else { self.cut_power() }
    }

    /// Poisoned storage refuses writes and goes on serving reads.
    fn check_poisoned(&mut self) {
        self.disk.call_off();
        let Some(id) = self.pick_log() else { return };
        let frame = self.frame(None);
        self.give(id, &frame, None);
        self.step_storage();
        let waiting = self.logs.get_mut(&id).expect("picked").expected.waiting.pop().expect("just given");
        let answer = waiting.answer.lock().take();
        match answer {
            Some(Err(error)) => {
                assert!(matches!(error.kind(), ErrorKind::Poisoned | ErrorKind::Closed), "{error}")
            }
            other => panic!("an append to poisoned storage came to {other:?}"),
        }
        for Live { log, expected } in self.logs.values() {
            expected.check_all(log, 10_000);
        }
    }

    /// The disk has little room for a while.
    fn run_full(&mut self) {
        let used: u64 = self.disk.files().iter().map(|(_, bytes)| bytes).sum();
        let room = self.chance.pick(&[0, 0, 10_000, 70_000]);
        self.trace.note(|| format!("the disk has room for {room} more bytes"));
        self.disk.set_capacity(used + room);
        self.room_is_short = true;
        for _ in 0..self.chance.within(1, 20) {
            match self.chance.within(0, 12) {
                0..6 => self.append_some(),
                6..9 => self.step(),
                9 => self.read(),
                10 => self.trim(),
                _ => self.checkpoint(),
            }
        }
        self.step();
        if self.chance.one_in(4) {
            let disk = self.disk.crash();
            disk.set_capacity(u64::MAX);
            self.room_is_short = false;
            return self.reopen(disk, Survives::Durable);
        }
        self.trace.note(|| "the disk has room again".to_owned());
        self.disk.set_capacity(u64::MAX);
        self.room_is_short = false;
        for id in self.logs.keys().copied().collect::<Vec<_>>() {
            self.append(id);
        }
        self.step();
        for Live { log, expected } in self.logs.values() {
            expected.check_all(log, 10_000);
        }
    }

    /// Opens what `disk` holds, perhaps with the power going again meanwhile, and compares.
    fn reopen(&mut self, mut disk: FaultDisk, mut survives: Survives) {
        let mut all: BTreeMap<u64, ExpectedLog> =
            std::mem::take(&mut self.logs).into_iter().map(|(id, live)| (id, live.expected)).collect();
        if self.chance.one_in(8)
            && let Some(id) = all.keys().next().copied()
        {
            self.trace.note(|| format!("  {id} is not in the catalog any more"));
            all.remove(&id);
        }
        let mut live: Vec<LogId> = all.keys().map(|id| LogId::new(*id)).collect();
        let made_in_catalog = self.chance.one_in(8).then_some(self.next_log);
        if let Some(id) = made_in_catalog {
            self.next_log += 1;
            live.push(LogId::new(id));
        }
        if self.chance.one_in(4) {
            let durability = self.settings.durability;
            self.settings = settings(&mut self.chance, durability);
        }
        self.storage = None;
        let storage = loop {
            self.epoch = Epoch::new(self.epoch.get() + 1).unwrap();
            let goes_again = self.chance.one_in(8);
            if goes_again {
                disk.cut_power_after(self.chance.within(0, 30));
            }
            self.trace.note(|| format!("open, epoch {}: {:?}", self.epoch.get(), disk.files()));
            let (for_storage, clock) = (Arc::new(disk.clone()), self.clock.clone());
            match Storage::open(for_storage, clock, self.settings.clone(), &live, self.epoch) {
                Ok(storage) if disk.is_powered() => break storage,
                Ok(_) => {}
                Err(error) => assert!(!disk.is_powered(), "storage does not open: {error}"),
            }
            self.trace.note(|| "  the power went while opening".to_owned());
            (disk, survives) = match self.chance.one_in(3) {
                true => (disk.process_crash(), survives),
                false => (disk.crash(), Survives::Durable),
            };
        };
        disk.call_off();
        self.disk = disk;
        for (id, mut expected) in all {
            let log = storage.log(LogId::new(id)).expect("the catalog knows it");
            expected.give_up_waiting();
            let marks = log.marks();
            self.trace.note(|| format!("  log {id}: {marks:?}, sealed {}", log.is_sealed()));
            expected.reopened(&log, survives, self.waits_for_device());
            self.trace.note(|| format!("  log {id}: {} frames in all", expected.history.len()));
            self.logs.insert(id, Live { log, expected });
        }
        if let Some(id) = made_in_catalog {
            let log = storage.log(LogId::new(id)).expect("the catalog knows it");
            assert_eq!(
                log.marks().horizon(),
                log.marks().written(),
                "a log that only the catalog knows is empty"
            );
            let expected = ExpectedLog::new(&log);
            self.logs.insert(id, Live { log, expected });
        }
        self.storage = Some(storage);
    }

    /// At the end everything is closed well, and what a power cut leaves of that is everything.
    fn finish(&mut self) {
        self.step();
        for Live { log, expected } in self.logs.values() {
            expected.check_all(log, 3_000);
        }
        self.close_and_reopen();
        self.close_and_cut_power();
        for Live { log, expected } in self.logs.values() {
            expected.check_all(log, 1 << 20);
        }
    }

    fn close_and_cut_power(&mut self) {
        self.trace.note(|| "close, then cut the power".to_owned());
        self.storage().close().unwrap();
        self.settle();
        self.everything_is_certain();
        self.cut_power();
    }
}
