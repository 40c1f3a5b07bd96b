//! One round of the commit: the small frames of many logs as one journal write, the large ones handed on.

use super::direct::DirectGroup;
use super::sequence::{Group, sequence};
use crate::disk::{AlignedBuffer, Sync};
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{Journal, RUN_HEAD_BYTES, Room};
use crate::log_state::Run;
use crate::segment::SegmentId;
use crate::shard_log::LogInner;
use crate::shared::Shared;
use crate::sync::atomic::Ordering;
use std::sync::Arc;

/// Logs whose small frames go into one group, at most.
const LOGS_MAX: usize = 4096;
/// Runs of one log in a group of less than `direct_bytes_min`, at most: segments have at least 16 KiB.
const RUNS_PER_LOG: usize = 8;
/// Bytes of one log that are written in one go, large frames.
const DIRECT_BYTES_MAX: usize = 4 << 20;

/// The one who writes the journal. Holding its lock means that every journal group is settled.
pub(crate) struct Committer {
    pub journal: Journal,
    buffer: AlignedBuffer,
}

impl Committer {
    pub(crate) fn new(journal: Journal) -> Self {
        Self { journal, buffer: AlignedBuffer::with_capacity(1 << 20) }
    }
}

/// Commits what is ready. Large groups are given to `direct`, to be written by whoever takes them. `None` once the
/// queue is closed and empty; otherwise the number of groups that were taken.
pub(crate) fn round(shared: &Shared, wait: bool, mut direct: impl FnMut(DirectGroup)) -> Option<usize> {
    let logs_max = LOGS_MAX.min(
        usize::try_from(shared.settings.journal_file_bytes).unwrap_or(LOGS_MAX)
            / 4
            / RUN_HEAD_BYTES
            / RUNS_PER_LOG,
    );
    let logs = shared.queue.take_ready(logs_max, wait)?;
    let taken = logs.len();
    if taken == 0 {
        return Some(0);
    }
    if let Err(error) = shared.check_writable().and_then(|()| make_room(shared, logs.len() * RUNS_PER_LOG)) {
        for log in logs {
            refuse(shared, &log, &error);
        }
        return Some(taken);
    }
    let mut committer = shared.committer.lock();
    let checkpoints = shared.checkpoints.load(Ordering::Relaxed);
    let (mut small, mut small_bytes) = (Vec::new(), 0);
    let (mut large, mut announcements) = (Vec::new(), Vec::new());
    let small_max = committer.journal.group_bytes_max();
    for log in logs {
        let mut queue = log.queue.lock();
        let bytes = queue.bytes();
        let looks_large = bytes >= shared.settings.direct_bytes_min;
        // what looks large may be small once duplicates are out: room is made for one such surprise
        if small_bytes > small_max || (!looks_large && small_bytes + bytes > small_max) {
            drop(queue);
            shared.finished(&log); // its turn comes in a later round
            continue;
        }
        let items = queue.take(if looks_large { DIRECT_BYTES_MAX } else { usize::MAX });
        drop(queue);
        let group = sequence(shared, &log, items);
        if group.runs.is_empty() {
            group.publish(shared);
        } else if group.bytes() >= shared.settings.direct_bytes_min as u64 {
            announcements.extend(announce(&group, checkpoints));
            large.push(group);
        } else {
            small_bytes += usize::try_from(group.bytes()).expect("below direct_bytes_min");
            small.push(group);
        }
    }
    // without announcements, large groups need not wait for the small ones
    if announcements.is_empty() {
        large.drain(..).for_each(|group| direct(DirectGroup::new(group)));
    }
    if !small.is_empty() || !announcements.is_empty() {
        commit_small(shared, &mut committer, small, &announcements);
    }
    large.into_iter().for_each(|group| direct(DirectGroup::new(group)));
    Some(taken)
}

/// What tells recovery that frames of this log lie in its segments alone: an empty run in the journal, once between two
/// checkpoints. Without it every large segment would have to be looked at on every start.
fn announce(group: &Group, checkpoints: u64) -> Option<Run> {
    let mut state = group.log.state.write();
    if state.announced == checkpoints {
        return None;
    }
    state.announced = checkpoints;
    let first = group.runs.first()?;
    Some(Run { segment: first.segment, offset: first.offset, bytes: 0, frames: Vec::new() })
}

/// Room in the journal for the largest group; waits for a checkpoint if that is what it takes.
fn make_room(shared: &Shared, runs: usize) -> Result<()> {
    // each checkpoint frees every used file, so the second look succeeds unless the disk fails
    for _ in 0..3 {
        let room = shared.committer.lock().journal.ensure_room(runs, shared.settings.direct_bytes_min);
        match room {
            Ok(Room::Ready) => return Ok(()),
            Ok(Room::NeedsCheckpoint) => shared.checkpoint()?,
            Err(error) => {
                shared.note_full(&error);
                if error.kind() == ErrorKind::Poisoned {
                    shared.poison("journal", &error);
                }
                return Err(error);
            }
        }
    }
    Err(Error::new(ErrorKind::Full, "the journal is full and no checkpoint could free any of it"))
}

/// Answers all that waits for a log with an error; nothing of it was written.
fn refuse(shared: &Shared, log: &Arc<LogInner>, error: &Error) {
    let items = log.queue.lock().take(usize::MAX);
    for item in items {
        item.done.call(Err(error.clone()));
    }
    shared.finished(log);
}

/// One journal write for all, then every run to its place, then the answers.
fn commit_small(shared: &Shared, committer: &mut Committer, groups: Vec<Group>, announcements: &[Run]) {
    let started = shared.clock.monotonic_us();
    let sync = shared.ack_sync();
    let runs: Vec<&Run> = groups.iter().flat_map(|group| &group.runs).collect();
    let bytes: u64 = runs.iter().map(|run| run.bytes).sum();
    let frames: usize = runs.iter().map(|run| run.frames.len()).sum();
    let all: Vec<&Run> = runs.iter().copied().chain(announcements).collect();
    let written = committer.journal.append(&mut committer.buffer, &all, sync);
    let settled = match written {
        Ok(frames_at) => settle(shared, &committer.buffer.as_slice()[frames_at..], &runs),
        Err(error) => Err(Error::io("cannot write the journal", error)),
    };
    match settled {
        Ok(()) => {
            for group in groups {
                group.publish(shared);
            }
            shared.count_bytes(committer.buffer.len() as u64); // what they take in the journal
            shared.metrics.journal_group(shared.clock.monotonic_us() - started, frames, bytes);
        }
        Err(error) => {
            let error = shared.poison("commit", &error);
            for group in groups {
                group.fail(shared, &error);
            }
        }
    }
}

/// Copies frames that the journal holds to their places, in the page cache.
fn settle(shared: &Shared, frames: &[u8], runs: &[&Run]) -> Result<()> {
    let mut at = 0;
    for run in runs {
        let length = usize::try_from(run.bytes).expect("a group is bounded");
        write_run(shared, run.segment.id, run.offset, &[&frames[at..at + length]], Sync::None)?;
        at += length;
    }
    shared.write_back.note(runs.iter().map(|run| run.stretch()));
    Ok(())
}

pub(super) fn write_run(
    shared: &Shared,
    id: SegmentId,
    offset: u64,
    pieces: &[&[u8]],
    sync: Sync,
) -> Result<()> {
    let open = shared.open_segments.get(id)?;
    open.file
        .write(offset, pieces, sync)
        .map_err(|e| Error::io(format!("cannot write {} at {offset}", id.file()), e))
}
