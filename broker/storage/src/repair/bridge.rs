//! Frames that say "lost", in the place of bad bytes: the log goes on over them, and the numbers stay taken.

use super::{Keep, io};
use crate::checkpoint::Checkpoint;
use crate::disk::{Disk, Sync, WriteMode};
use crate::error::{Error, ErrorKind, Result};
use crate::segment::{FOLDER, SegmentId};
use crate::verify::Bridge;
use tidemill_types::limits::{FRAME_BYTES_MAX, FRAME_RECORDS_MAX};
use tidemill_types::{FrameHeader, FrameKind, ProducerId};

/// Lays the frames, and takes back the places that indexes name within them.
pub(super) fn lay(disk: &dyn Disk, bridge: &Bridge, keep: Keep<'_>) -> Result<()> {
    let name = bridge.segment.file();
    let frames = frames(bridge)?;
    let file = disk.open(&name, WriteMode::Buffered).map_err(io("open", &name))?;
    let mut old = vec![0; length(bridge)];
    file.read(bridge.from, &mut old)
        .and_then(|()| keep(&name, bridge.from, &old))
        .map_err(io("keep a copy of", &name))?;
    drop_index(disk, bridge.segment)?;
    forget_places(disk, bridge)?;
    let mut offset = bridge.from;
    for header in frames {
        let body = vec![0; header.frame_bytes as usize - FrameHeader::BYTES];
        let head = FrameHeader { body_crc: crc32fast::hash(&body), ..header }.encode();
        file.write(offset, &[&head, &body], Sync::None).map_err(io("write", &name))?;
        offset += u64::from(header.frame_bytes);
    }
    file.sync().map_err(io("sync", &name))
}

fn length(bridge: &Bridge) -> usize {
    usize::try_from(bridge.to - bridge.from).expect("segments fit in memory maps")
}

/// The headers, one behind the other, their bodies' checksums not set.
fn frames(bridge: &Bridge) -> Result<Vec<FrameHeader>> {
    let bytes = length(bridge);
    let known = (bridge.first.epoch() == bridge.next.epoch())
        .then(|| bridge.next.get().saturating_sub(bridge.first.get()));
    let pieces = bytes.div_ceil(FRAME_BYTES_MAX) as u64;
    let pieces = pieces.max(known.unwrap_or(1).div_ceil(u64::from(FRAME_RECORDS_MAX)));
    // how far an epoch that is over had come is not known: one number for each frame is as good as any
    let lost = known.unwrap_or(pieces);
    let head = FrameHeader::BYTES as u64;
    if lost < pieces || (bytes as u64) < pieces * head {
        let message = format!(
            "{} bytes at {} of {} cannot stand for {lost} lost records",
            bytes,
            bridge.from,
            bridge.segment.file()
        );
        return Err(Error::new(ErrorKind::Damaged, message));
    }
    let (mut first, mut left, mut room) = (bridge.first, lost, bytes as u64);
    let mut headers = Vec::new();
    for piece in (1..=pieces).rev() {
        let count = (left - (piece - 1)).min(u64::from(FRAME_RECORDS_MAX));
        let frame_bytes = (room - (piece - 1) * head).min(FRAME_BYTES_MAX as u64);
        let header = FrameHeader {
            frame_bytes: u32::try_from(frame_bytes).expect("below the maximum of a frame"),
            kind: FrameKind::Lost,
            attributes: 0,
            body_crc: 0,
            log: bridge.segment.log.get(),
            first,
            count: u32::try_from(count).expect("below the maximum of a frame"),
            group_before: 0,
            arrival: bridge.arrival,
            producer: ProducerId::NONE,
            batch_number: 0,
        };
        (first, left, room) = (header.next(), left - count, room - frame_bytes);
        headers.push(header);
    }
    Ok(headers)
}

/// Removes the index beside a segment, if there is one; it is made anew when it is needed.
pub(super) fn drop_index(disk: &dyn Disk, id: SegmentId) -> Result<()> {
    let name = id.index_file();
    match disk.remove(&name) {
        Ok(()) => disk.sync_dir(FOLDER).map_err(io("sync", FOLDER)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io("remove", &name)(error)),
    }
}

/// The checkpoint carries the index of the newest segment of a log.
fn forget_places(disk: &dyn Disk, bridge: &Bridge) -> Result<()> {
    let Some(mut checkpoint) = Checkpoint::read(disk)? else { return Ok(()) };
    let log = checkpoint.logs.iter_mut().find(|log| log.id == bridge.segment.log);
    let Some(log) = log.filter(|log| log.segments.last().is_some_and(|s| s.number == bridge.segment.number))
    else {
        return Ok(());
    };
    let places = log.index.len();
    log.index.retain(|entry| entry.offset <= bridge.from || entry.offset >= bridge.to);
    if log.index.len() == places { Ok(()) } else { checkpoint.write(disk) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LogId;
    use proptest::prelude::*;
    use tidemill_types::{SequenceIndex, TimestampMs};

    proptest! {
        /// However much is lost: the frames fill the bytes, take the numbers without gap, and each can be decoded.
        #[test]
        fn a_bridge_fills_its_bytes_and_takes_its_numbers(frames in 1u64..40, records in 1u64..70_000, more in 0u64..1_000_000) {
            let records = records.min(u64::from(FRAME_RECORDS_MAX));
            let first = SequenceIndex::new(77).unwrap();
            let bridge = Bridge {
                segment: SegmentId { log: LogId::new(3), number: 0 },
                from: 64,
                to: 64 + frames * 64 + more,
                first,
                next: first.plus(frames * records),
                arrival: TimestampMs::new(5),
            };
            let headers = super::frames(&bridge).unwrap();
            let bytes: u64 = headers.iter().map(|header| u64::from(header.frame_bytes)).sum();
            prop_assert_eq!(bytes, bridge.to - bridge.from);
            let mut expected = first;
            for header in &headers {
                prop_assert_eq!(header.first, expected);
                prop_assert_eq!(FrameHeader::decode(&header.encode()).unwrap(), *header);
                expected = header.next();
            }
            prop_assert_eq!(expected, bridge.next);
        }
    }
}
