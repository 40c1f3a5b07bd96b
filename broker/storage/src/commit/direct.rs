//! Large groups go straight to their places: one synchronous write through the page cache, logs in parallel.

use super::group::write_run;
use super::sequence::Group;
use crate::disk::Sync;
use crate::error::{Error, Result};
use crate::segment::{FOLDER, SegmentId};
use crate::shared::Shared;

/// A group of one log that is numbered, placed, and yet to be written.
pub(crate) struct DirectGroup(Group);

impl DirectGroup {
    pub(crate) fn new(group: Group) -> Self {
        Self(group)
    }

    /// Writes it, publishes it, answers. May run on any thread.
    pub(crate) fn write(self, shared: &Shared) {
        let started = shared.clock.monotonic_us();
        let group = self.0;
        let frames = group.runs.iter().map(|run| run.frames.len()).sum();
        let bytes = group.bytes();
        match shared.check_writable().and_then(|()| write_runs(shared, &group)) {
            Ok(()) => {
                group.publish(shared);
                shared.count_bytes(bytes);
                shared.metrics.direct_group(shared.clock.monotonic_us() - started, frames, bytes);
            }
            Err(error) => {
                let error = shared.poison("direct write", &error);
                group.fail(shared, &error);
            }
        }
    }
}

fn write_runs(shared: &Shared, group: &Group) -> Result<()> {
    let sync = shared.ack_sync();
    for run in &group.runs {
        let id = run.segment.id;
        if sync == Sync::Data {
            sync_birth(shared, group, id)?;
        }
        write_run(shared, id, run.offset, &run.pieces(), sync)?;
        if sync == Sync::None {
            shared.write_back.note_direct(id);
            shared.write_back.note([run.stretch()]);
        }
    }
    Ok(())
}

/// Before the first frame that only the segment holds: the segment's header, size and name must be on the device.
fn sync_birth(shared: &Shared, group: &Group, id: SegmentId) -> Result<()> {
    let born = |state: &crate::log_state::LogState| {
        state.segments.iter().any(|segment| segment.number == id.number && segment.birth_synced)
    };
    if born(&group.log.state.read()) {
        return Ok(());
    }
    let open = shared.open_segments.get(id)?;
    open.file
        .sync()
        .and_then(|()| shared.disk.sync_dir(FOLDER))
        .map_err(|e| Error::io(format!("cannot sync the new {}", id.file()), e))?;
    if let Some(segment) = group.log.state.write().segments.iter_mut().find(|s| s.number == id.number) {
        segment.birth_synced = true;
    }
    Ok(())
}
