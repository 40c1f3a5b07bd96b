//! A journal that is damaged: what it says of itself without a checkpoint, and how its chain of groups is closed again.

use super::format::{
    Durable, FileHeader, GROUP_HEAD_BYTES, RUN_HEAD_BYTES, decode_group, encode_group_heads,
};
use super::replay::{Listed, Readable, find};
use crate::LogId;
use crate::bytes_le::u64_at;
use crate::checkpoint::Checkpoint;
use crate::disk::{ALIGNMENT, Disk, Sync, WriteMode};
use crate::error::{Error, Result};
use crate::repair::Keep;
use crate::segment::{SegmentHeader, SegmentId};
use bytes::Bytes;
use std::collections::BTreeMap;
use tidemill_types::SequenceIndex;

/// What a journal says of itself.
pub(crate) struct Survey {
    /// The oldest group from which on all are there, bad ones included.
    pub(crate) next_group: u64,
    pub(crate) durable: Durable,
    /// Of each log, the first segment that the journal holds from its first frame on.
    pub(crate) first_whole: BTreeMap<LogId, u64>,
}

/// Looks at all groups, whatever is between them.
pub(crate) fn survey(disk: &dyn Disk) -> Result<Survey> {
    let Listed { mut readable, .. } = find(disk)?;
    readable.sort_by_key(|file| file.header.generation);
    let mut survey = Survey { next_group: 1, durable: Durable::EachGroup, first_whole: BTreeMap::new() };
    let mut follows = None;
    for file in &readable {
        if follows != Some(file.header.first_group) {
            // what lies before a gap was freed long ago
            survey.next_group = file.header.first_group;
            survey.first_whole.clear();
        }
        survey.durable = file.header.durable;
        let mut next = file.header.first_group;
        let mut at = ALIGNMENT;
        while at < file.bytes.len() {
            let group = decode_group(&file.bytes.slice(at..), file.header.generation);
            let Some(group) = group.filter(|group| group.number >= next) else {
                at += ALIGNMENT;
                continue;
            };
            for run in group.runs.iter().filter(|run| run.offset == SegmentHeader::BYTES as u64) {
                survey.first_whole.entry(run.segment.id.log).or_insert(run.segment.id.number);
            }
            next = group.number + 1;
            at += group.file_bytes;
        }
        follows = Some(next);
    }
    Ok(survey)
}

/// Puts groups that carry nothing in the place of bad ones that others follow, and a header on a file that has lost its own.
pub(crate) fn mend(disk: &dyn Disk, checkpoint: &Checkpoint, keep: Keep<'_>) -> Result<()> {
    let Listed { readable, headless, .. } = find(disk)?;
    for (name, content) in &headless {
        let generation = u64_at(content, ALIGNMENT + 8);
        let Some(group) = decode_group(&content.slice(ALIGNMENT..), generation) else { continue };
        if group.number >= checkpoint.next_group {
            let file_bytes = content.len() as u64;
            let durable = checkpoint.durable;
            let header = FileHeader { generation, first_group: group.number, file_bytes, durable };
            replace(disk, name, 0, &content[..FileHeader::BYTES], &header.encode(), keep)?;
        }
    }
    readable.iter().try_for_each(|file| close_chain(disk, file, keep))
}

/// Walks a file; where a group is bad and a later one is not, what is between becomes empty groups.
fn close_chain(disk: &dyn Disk, file: &Readable, keep: Keep<'_>) -> Result<()> {
    let group_at = |at: usize| decode_group(&file.bytes.slice(at..), file.header.generation);
    let (mut expected, mut at) = (file.header.first_group, ALIGNMENT);
    while at < file.bytes.len() {
        if let Some(group) = group_at(at).filter(|group| group.number == expected) {
            (expected, at) = (expected + 1, at + group.file_bytes);
            continue;
        }
        let later = (at + ALIGNMENT..file.bytes.len()).step_by(ALIGNMENT).find_map(|behind| {
            group_at(behind).filter(|group| group.number > expected).map(|group| (behind, group.number))
        });
        let Some((behind, number)) = later else { return Ok(()) };
        let filler = empty_groups(file.header.generation, expected..number, behind - at);
        replace(disk, &file.name, at as u64, &file.bytes[at..behind], &filler, keep)?;
        (expected, at) = (number, behind);
    }
    Ok(())
}

/// Groups with these numbers that carry nothing and together take `bytes`: the last one is as long as it must be.
fn empty_groups(generation: u64, numbers: std::ops::Range<u64>, bytes: usize) -> Vec<u8> {
    // announces a log that no catalog knows
    let nobody = SegmentId { log: LogId::new(u64::MAX), number: 0 };
    let nothing = SegmentHeader { id: nobody, base: SequenceIndex::ZERO, capacity: ALIGNMENT as u64 };
    let run = (nothing, SegmentHeader::BYTES as u64, 0);
    let mut out = vec![0; bytes];
    let (mut at, last) = (0, numbers.end - 1);
    for number in numbers {
        let length = if number == last { bytes - at } else { ALIGNMENT };
        let runs = vec![run; (length - GROUP_HEAD_BYTES) / RUN_HEAD_BYTES];
        encode_group_heads(&mut out[at..], generation, number, &runs);
        at += length;
    }
    out
}

fn replace(disk: &dyn Disk, name: &str, at: u64, old: &[u8], new: &[u8], keep: Keep<'_>) -> Result<()> {
    let old = Bytes::copy_from_slice(old); // a map would show what is written
    disk.open(name, WriteMode::Buffered)
        .and_then(|file| {
            keep(name, at, &old)?;
            file.write(at, &[new], Sync::None)?;
            file.sync()
        })
        .map_err(|e| Error::io(format!("cannot mend {name}"), e))
}
