//! A journal that is damaged: what it says of itself without a checkpoint, and how its chain of groups is closed again.

use super::format::{
    Durable, FileHeader, GROUP_HEAD_BYTES, RUN_HEAD_BYTES, ReplayGroup, decode_group, encode_group_heads,
};
use super::name_of;
use super::replay::{FIRST_GROUP, Listed, NO_JOURNAL, Readable, find_whole, groups};
use crate::LogId;
use crate::checkpoint::Checkpoint;
use crate::disk::{ALIGNMENT, Disk, Sync, WriteMode};
use crate::error::{Error, Result};
use crate::repair::Keep;
use crate::segment::{SegmentHeader, SegmentId};
use bytes::Bytes;
use tidemill_types::SequenceIndex;

/// The first file of a journal of which nothing is left.
const NEW_FILE_BYTES: usize = 64 << 10;
/// A file that is being made; not of the journal until it has its name.
const NEW_NAME: &str = "repair-journal.new";
/// Missing groups together, as empty ones: more than the largest journal held is no journal.
const MISSING_BYTES_MAX: usize = 64 << 20;

/// What a journal says of itself.
pub(crate) struct Survey {
    /// All intact groups, in order; where groups were not durable one by one, of each file those before the first bad one.
    pub(crate) groups: Vec<ReplayGroup>,
    /// From this one on none is missing, but for bad ones.
    pub(crate) whole: usize,
    /// The number behind the last one; [`NO_JOURNAL`] where no file is.
    pub(crate) next_group: u64,
    pub(crate) durable: Durable,
}

/// Looks at all groups, whatever is between them.
pub(crate) fn survey(disk: &dyn Disk) -> Result<Survey> {
    let Listed { found, mut readable, misshapen, .. } = find_whole(disk)?;
    readable.extend(misshapen); // what there is of them counts
    readable.sort_by_key(|file| file.header.generation);
    let next_group = if found.files.is_empty() && readable.is_empty() { NO_JOURNAL } else { FIRST_GROUP };
    let mut survey = Survey { groups: Vec::new(), whole: 0, next_group, durable: Durable::EachGroup };
    for file in &readable {
        if file.header.first_group != survey.next_group {
            survey.whole = survey.groups.len();
        }
        survey.durable = file.header.durable;
        survey.next_group = file.header.first_group;
        let mut at = ALIGNMENT;
        while at < file.bytes.len() {
            let group = decode_group(&file.bytes.slice(at..), file.header.generation);
            match group.filter(|group| group.number >= survey.next_group) {
                Some(group) => {
                    survey.next_group = group.number + 1;
                    at += group.file_bytes;
                    survey.groups.push(group);
                }
                None if survey.durable == Durable::Later => break,
                None => at += ALIGNMENT,
            }
        }
    }
    Ok(survey)
}

/// Puts groups that carry nothing in the place of bad ones that others follow and of missing ones, and a header on a file that
/// has lost its own; gives each file the size it should have.
pub(crate) fn mend(disk: &dyn Disk, checkpoint: &Checkpoint, keep: Keep<'_>) -> Result<()> {
    let Listed { found, readable, headless, misshapen } = find_whole(disk)?;
    if !misshapen.is_empty() {
        return misshapen.iter().try_for_each(|file| reshape(disk, file, keep));
    }
    if found.files.is_empty() {
        return make(disk, found.next_id, &[0; NEW_FILE_BYTES]);
    }
    // one at a time: where the next one begins is known once this one can be read
    if let Some((name, content, header)) = oldest_lost_header(checkpoint, &readable, &headless) {
        return replace(disk, name, 0, &content[..FileHeader::BYTES], &header.encode(), keep);
    }
    readable.iter().try_for_each(|file| close_chain(disk, file, keep))?;
    fill_gap(disk, checkpoint.next_group, keep)
}

/// The header of the oldest file that has lost its own and holds a group that is needed.
fn oldest_lost_header<'a>(
    checkpoint: &Checkpoint,
    readable: &[Readable],
    headless: &'a [(String, Bytes)],
) -> Option<(&'a str, &'a Bytes, FileHeader)> {
    let generation_of = |(_, content): &&(String, Bytes)| {
        groups(content).find(|group| group.number >= checkpoint.next_group).map(|group| group.generation)
    };
    let (generation, (name, content)) = headless
        .iter()
        .filter_map(|file| Some((generation_of(&file)?, file)))
        .min_by_key(|(generation, _)| *generation)?;
    // what is left of former generations lies behind the groups of this one
    let first = groups(content).find(|group| group.generation == generation)?;
    let blocks = ((first.at - ALIGNMENT) / ALIGNMENT) as u64;
    let first_group = if blocks == 0 {
        first.number
    } else {
        // bad groups lie before the first intact one: at least one, at most one in each block, none that the file before has
        let before = readable
            .iter()
            .filter(|file| file.header.generation < generation)
            .max_by_key(|file| file.header.generation)
            .map_or(checkpoint.next_group, |file| chain_from(file, ALIGNMENT, file.header.first_group).1);
        before.min(first.number.saturating_sub(1)).max(first.number.saturating_sub(blocks))
    };
    let file_bytes = content.len() as u64;
    Some((name, content, FileHeader { generation, first_group, file_bytes, durable: checkpoint.durable }))
}

/// Walks a file; where a group is bad and a later one is not, what is between becomes empty groups. Where groups were not durable one
/// by one, what lies behind a bad one is void, and stays so.
fn close_chain(disk: &dyn Disk, file: &Readable, keep: Keep<'_>) -> Result<()> {
    if file.header.durable == Durable::Later {
        return Ok(());
    }
    let (mut at, mut expected) = chain_from(file, ALIGNMENT, file.header.first_group);
    while at < file.bytes.len() {
        let later = (at + ALIGNMENT..file.bytes.len()).step_by(ALIGNMENT).find_map(|behind| {
            let group = decode_group(&file.bytes.slice(behind..), file.header.generation);
            group.filter(|group| group.number > expected).map(|group| (behind, group.number))
        });
        let Some((behind, number)) = later else { return Ok(()) };
        let Some(filler) = empty_groups(file.header.generation, expected..number, behind - at) else {
            return Ok(()); // told as left
        };
        replace(disk, &file.name, at as u64, &file.bytes[at..behind], &filler, keep)?;
        (at, expected) = chain_from(file, behind, number);
    }
    Ok(())
}

/// Where the chain of groups ends that goes on at `at` with the number `expected`, and the number behind it.
fn chain_from(file: &Readable, mut at: usize, mut expected: u64) -> (usize, u64) {
    while at < file.bytes.len()
        && let Some(group) = decode_group(&file.bytes.slice(at..), file.header.generation)
        && group.number == expected
    {
        (expected, at) = (expected + 1, at + group.file_bytes);
    }
    (at, expected)
}

/// Where groups are missing between two files, or before the first that is needed, empty ones take their place: in the room at
/// the end of the file before, or else in a file of their own. Not behind a file whose groups were not durable one by one: there
/// the journal ends.
fn fill_gap(disk: &dyn Disk, from: u64, keep: Keep<'_>) -> Result<()> {
    let Listed { found, mut readable, .. } = find_whole(disk)?;
    readable.sort_by_key(|file| file.header.generation);
    let begin = readable.iter().rposition(|file| file.header.first_group <= from).unwrap_or(0);
    let mut next = from;
    for (at, file) in readable.iter().enumerate().skip(begin) {
        let FileHeader { generation, first_group, .. } = file.header;
        if first_group <= next {
            next = chain_from(file, ALIGNMENT, first_group).1.max(next);
            continue;
        }
        let before = at.checked_sub(1).map(|before| &readable[before]);
        let durable = before.unwrap_or(file).header.durable;
        if durable == Durable::Later {
            return Ok(());
        }
        if let Some(before) = before
            && let (end, follows) = chain_from(before, ALIGNMENT, before.header.first_group)
            && let Some(filler) = empty_blocks(before.header.generation, follows..first_group)
            && let Some(old) = before.bytes.get(end..end + filler.len())
        {
            return replace(disk, &before.name, end as u64, old, &filler, keep);
        }
        let own = before.map_or(generation.saturating_sub(1), |before| before.header.generation + 1);
        if own == 0 || own >= generation {
            return Ok(()); // told as left
        }
        let Some(filler) = empty_blocks(own, next..first_group) else { return Ok(()) };
        let file_bytes = (ALIGNMENT + filler.len()) as u64;
        let header = FileHeader { generation: own, first_group: next, file_bytes, durable };
        let mut content = vec![0; ALIGNMENT];
        content[..FileHeader::BYTES].copy_from_slice(&header.encode());
        content.extend_from_slice(&filler);
        return make(disk, found.next_id, &content);
    }
    Ok(())
}

/// The file with the size that its header says: what there is of it, and zeros.
fn reshape(disk: &dyn Disk, file: &Readable, keep: Keep<'_>) -> Result<()> {
    let wanted = usize::try_from(file.header.file_bytes).expect("journal files fit in memory");
    let mut content = file.bytes.to_vec();
    keep(&file.name, 0, &content)
        .map_err(|e| Error::io(format!("cannot keep a copy of {}", file.name), e))?;
    content.resize(wanted, 0);
    put(disk, &file.name, &content)
}

/// A file of the journal that was not there.
fn make(disk: &dyn Disk, id: u64, content: &[u8]) -> Result<()> {
    put(disk, &name_of(id), content)
}

fn put(disk: &dyn Disk, name: &str, content: &[u8]) -> Result<()> {
    let cannot = |e| Error::io(format!("cannot make {name}"), e);
    match disk.remove(NEW_NAME) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(cannot(error)),
        _ => {}
    }
    disk.create(NEW_NAME, content.len() as u64, WriteMode::Buffered)
        .and_then(|file| file.write(0, &[content], Sync::None).and_then(|()| file.sync()))
        .and_then(|()| disk.rename(NEW_NAME, name))
        .and_then(|()| disk.sync_dir(""))
        .map_err(cannot)
}

/// Groups with these numbers that carry nothing, a block each. `None` if so many cannot have been.
fn empty_blocks(generation: u64, numbers: std::ops::Range<u64>) -> Option<Vec<u8>> {
    let groups = usize::try_from(numbers.end.checked_sub(numbers.start)?).ok()?;
    let bytes = groups.checked_mul(ALIGNMENT).filter(|bytes| *bytes <= MISSING_BYTES_MAX)?;
    empty_groups(generation, numbers, bytes)
}

/// Groups with these numbers that carry nothing and together take `bytes`: the last one is as long as it must be. `None` if there
/// is no room for so many.
fn empty_groups(generation: u64, numbers: std::ops::Range<u64>, bytes: usize) -> Option<Vec<u8>> {
    let blocks = (bytes / ALIGNMENT) as u64;
    if numbers.is_empty() || numbers.end - numbers.start > blocks {
        return None;
    }
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
    Some(out)
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
