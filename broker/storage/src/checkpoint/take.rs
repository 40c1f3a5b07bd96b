//! Taking a checkpoint: every log at a moment at which all journal groups are settled, synced, written, and only then the
//! journal files and trimmed segments that it no longer needs are freed.

use super::{Checkpoint, LogEntry, SegmentEntry};
use crate::disk::Sync;
use crate::error::{ErrorKind, Result};
use crate::log_state::{Closing, Segment};
use crate::segment::{Retired, SegmentHeader, SegmentId};
use crate::shard_log::LogInner;
use crate::shared::Shared;
use crate::sync::atomic::Ordering;
use std::collections::BTreeSet;

impl Shared {
    /// Makes every log safe without the journal groups so far, then frees them. One at a time; a failure poisons.
    pub(crate) fn checkpoint(&self) -> Result<()> {
        let mut covered = self.checkpointed.lock();
        self.check_writable()?;
        let started = self.clock.monotonic_us();
        self.write_sidecars();
        let (checkpoint, to_sync, retired) = self.snapshot();
        let written = self.sync_segments(&to_sync).and_then(|()| checkpoint.write(&*self.disk));
        if let Err(error) = written {
            if error.kind() == ErrorKind::Full {
                // nothing was taken away: the old checkpoint stands, its segments must be synced by the next
                self.write_back.put_back(to_sync);
                self.retired.lock().extend(retired);
                self.note_full(&error);
                return Err(error);
            }
            self.poison("checkpoint", &error);
            return Err(error);
        }
        *covered = checkpoint.next_group;
        self.committer.lock().journal.release(checkpoint.next_group);
        for gone in &retired {
            match self.pool.release(gone, &self.open_segments) {
                Ok(file) => file.into_iter().for_each(|file| self.leaving.add(file)),
                Err(error) => {
                    tracing::warn!(%error, "a trimmed segment could not be removed; the next start removes it");
                }
            }
        }
        self.metrics.checkpoint(self.clock.monotonic_us() - started);
        Ok(())
    }

    /// All logs at a moment at which every journal group is settled.
    fn snapshot(&self) -> (Checkpoint, BTreeSet<SegmentId>, Vec<Retired>) {
        let committer = self.committer.lock();
        let retired = std::mem::take(&mut *self.retired.lock());
        self.bytes_since.store(0, Ordering::Relaxed);
        self.checkpoints.fetch_add(1, Ordering::Relaxed);
        let now = self.clock.monotonic();
        let logs = self.logs.read().values().map(|log| entry_of(log, now)).collect();
        // behind the entries: a large group is written beside this, is noted, then published, so what an entry shows is noted
        let to_sync = self.write_back.take_to_sync();
        let checkpoint = Checkpoint {
            next_group: committer.journal.next_group(),
            epoch: self.epoch,
            directory: self.directory,
            durable: self.written_durable(),
            logs,
        };
        (checkpoint, to_sync, retired)
    }

    /// Writes the indexes of segments that have been filled since the last checkpoint, and lets go of them in memory.
    fn write_sidecars(&self) {
        let logs: Vec<_> = self.logs.read().values().cloned().collect();
        let now = self.clock.monotonic();
        for log in logs {
            if log.state.read().producers.is_any() {
                log.state.write().producers.forget_silent(now);
            }
            let full: Vec<_> = {
                let state = log.state.read();
                // the last one with frames is not full for good: what follows it may be torn by a crash
                let filled = state
                    .segments
                    .iter()
                    .rposition(|s| s.durable_end > SegmentHeader::BYTES as u64)
                    .unwrap_or(0);
                let done =
                    |segment: &&Segment| segment.index.is_some() && segment.placed_end == segment.durable_end;
                state.segments.iter().take(filled).filter(done).cloned().collect()
            };
            for segment in full {
                self.write_sidecar(&log, &segment);
            }
        }
    }

    fn write_sidecar(&self, log: &LogInner, segment: &Segment) {
        let id = SegmentId { log: log.id, number: segment.number };
        let Some(index) = &segment.index else { return };
        let bytes = index.encode(id);
        let written = self
            .disk
            .create(&id.index_file(), bytes.len() as u64, crate::disk::WriteMode::Buffered)
            .and_then(|file| file.write(0, &[&bytes], Sync::None));
        if let Err(error) = written
            && error.kind() != std::io::ErrorKind::AlreadyExists
        {
            tracing::debug!(%error, file = %id.index_file(), "an index was not written; it will be made from the segment");
        }
        let mut state = log.state.write();
        if let Some(segment) = state.segments.iter_mut().find(|s| s.number == id.number) {
            segment.index = None;
        }
    }
}

/// A log as it stands.
pub(crate) fn entry_of(log: &LogInner, now: tidemill_types::MonotonicMs) -> LogEntry {
    let state = log.state.read();
    let durable = state.marks.durable();
    let kept: Vec<&Segment> =
        state.segments.iter().filter(|segment| segment.durable_end > SegmentHeader::BYTES as u64).collect();
    LogEntry {
        id: log.id,
        horizon: state.marks.horizon(),
        durable,
        next_segment: kept.last().map_or_else(
            || state.segments.front().map_or(state.next_segment, |first| first.number),
            |last| last.number + 1,
        ),
        newest: state.newest,
        sealed: state.closing == Closing::Sealed,
        in_flight: state.marks.durable() < state.marks.written(),
        segments: kept
            .iter()
            .map(|segment| SegmentEntry {
                number: segment.number,
                base: segment.base,
                capacity: segment.capacity,
                end: segment.durable_end,
                first_arrival: segment.first_arrival,
                last_arrival: segment.last_arrival,
            })
            .collect(),
        index: kept
            .last()
            .and_then(|last| last.index.as_ref())
            .map_or_else(Vec::new, |index| index.entries().to_vec()),
        producers: state.producers.snapshot(now),
    }
}
