//! Repair: whatever is damaged, afterwards the directory opens, has no findings, and has lost what was hit and nothing else.

use crate::{
    FLIPS, LOGS, closed, end, fill, fill_sizes, names, open, open_with, read_all, try_open_of, verified,
};
use std::sync::Arc;
use tidemill_storage::disk::fault::FaultDisk;
use tidemill_storage::repair::{Repaired, repair};
use tidemill_storage::{Durability, ErrorKind, Storage};
use tidemill_types::{Epoch, FrameHeader, SequenceIndex};

pub(crate) type Records = Vec<(SequenceIndex, Vec<u8>)>;

/// Repairs; what was replaced must be what was there.
fn repaired(disk: &FaultDisk) -> Repaired {
    repaired_in(disk, 1)
}

pub(crate) fn repaired_in(disk: &FaultDisk, epoch: u32) -> Repaired {
    let before: Vec<_> =
        disk.files().into_iter().map(|(name, _)| (name.clone(), disk.read_file(&name).unwrap())).collect();
    let mut keep = |file: &str, offset: u64, bytes: &[u8]| {
        // of a segment, what a repair has itself put there may be replaced again; so may what it has added
        if !file.ends_with(".segment") {
            let (_, content) = before.iter().find(|(name, _)| name == file).expect("it was there");
            let there = content.get(offset as usize..).unwrap_or_default();
            let there = &there[..there.len().min(bytes.len())];
            assert!(bytes.starts_with(there), "{file} at {offset}");
        }
        Ok(())
    };
    repair(disk, Epoch::new(epoch).unwrap(), &mut keep, &mut |_, _| {}).unwrap()
}

pub(crate) fn all(disk: &FaultDisk, epoch: u32) -> Vec<Records> {
    read_logs(&open(Arc::new(disk.clone()), epoch))
}

/// All that the logs give, which is everything: nothing is damaged.
pub(crate) fn read_logs(storage: &Storage) -> Vec<Records> {
    let given = LOGS.into_iter().map(|log| {
        let given = read_all(storage, log);
        assert_eq!(given.lost, [], "nothing is damaged any more");
        given.records
    });
    given.collect()
}

/// Repairs, opens, reads everything, appends more; gives how many records are gone of those there were.
fn lost_by_repair(disk: &FaultDisk, intact: &[Records], told: &str) -> usize {
    lost_by_repair_from(disk, intact, told, 2)
}

/// The same for a directory whose next epoch is `epoch`.
fn lost_by_repair_from(disk: &FaultDisk, intact: &[Records], told: &str, epoch: u32) -> usize {
    let done = repaired_in(disk, epoch - 1);
    assert!(!done.mended.is_empty() && done.left.is_empty(), "{told}: {done:?}");
    assert_eq!(verified(disk).findings, [], "{told}");
    let left = all(disk, epoch);
    let mut lost = 0;
    for (left, intact) in left.iter().zip(intact) {
        assert!(left.iter().all(|record| intact.contains(record)), "{told}");
        assert!(left.is_sorted_by(|a, b| a.0 < b.0), "{told}");
        lost += intact.len() - left.len();
    }
    let storage = open(Arc::new(disk.clone()), epoch + 1);
    fill(&storage, 8, 5);
    storage.close().unwrap();
    drop(storage);
    let more: usize = all(disk, epoch + 2).iter().map(Vec::len).sum();
    assert_eq!(more, left.iter().map(Vec::len).sum::<usize>() + 5 * LOGS.len(), "{told}");
    assert_eq!(verified(disk).findings, [], "{told}");
    lost
}

/// Flips bits spread over `bytes` of the file of fresh directories, one in each; gives the records lost by all together.
fn flips(file: &str, bytes: std::ops::Range<u64>, make: impl Fn() -> FaultDisk) -> Vec<usize> {
    let intact = all(&make(), 2);
    let span = bytes.end - bytes.start;
    let flip = |turn: u64| {
        let disk = make();
        let (offset, bit) = (bytes.start + turn * 7919 % span, (turn % 8) as u8);
        disk.flip_bit(file, offset, bit).unwrap();
        lost_by_repair(&disk, &intact, &format!("bit {bit} at {offset} of {file}"))
    };
    (0..FLIPS).map(flip).collect()
}

#[test]
fn a_flipped_bit_of_a_segment_costs_one_record_in_the_middle_and_at_the_end() {
    let segments = names(&closed(100), |name| name.ends_with(".segment"));
    for file in [segments.first().unwrap(), segments.last().unwrap()] {
        let lost = flips(file, 64..end(&closed(100), file), || closed(100));
        assert!(lost.iter().all(|lost| *lost == 1), "{file}: {lost:?}");
    }
}

#[test]
fn a_flipped_bit_of_a_segments_header_of_the_checkpoint_or_of_an_index_costs_nothing() {
    let disk = closed(100);
    let segment = names(&disk, |name| name.ends_with(".segment")).remove(1);
    let index = names(&disk, |name| name.ends_with(".index")).remove(0);
    for file in [segment.as_str(), "checkpoint", index.as_str()] {
        let bytes = if file == segment { 64 } else { disk.read_file(file).unwrap().len() as u64 };
        let lost = flips(file, 0..bytes, || closed(100));
        assert!(lost.iter().all(|lost| *lost == 0), "{file}: {lost:?}");
    }
}

/// A directory that a process left without closing it, the newest records in the journal.
fn left(power_fails: bool) -> FaultDisk {
    let disk = FaultDisk::new(3);
    let storage = open(Arc::new(disk.clone()), 1);
    fill(&storage, 7, 12);
    if power_fails { disk.crash() } else { disk.process_crash() }
}

#[test]
fn a_flipped_bit_of_the_journal_costs_at_most_its_group_and_nothing_where_the_segments_have_it() {
    let of = |power_fails| {
        let disk = left(power_fails);
        let file = names(&disk, |name| name.starts_with("journal-") && end(&disk, name) > 8192).remove(0);
        let content = disk.read_file(&file).unwrap();
        let groups: Vec<u64> = (4096..content.len())
            .step_by(4096)
            .filter(|at| content[*at..].starts_with(b"TMGR"))
            .map(|at| at as u64)
            .collect();
        (file, groups)
    };
    for power_fails in [false, true] {
        let (file, groups) = of(power_fails);
        // each group holds a record; the newest cannot be told from one that is torn
        let lost = flips(&file, groups[0]..groups[0] + 100, || left(power_fails));
        let most = usize::from(power_fails);
        assert!(lost.iter().all(|lost| *lost <= most), "{file}, power fails: {power_fails}: {lost:?}");
        let head = flips(&file, 0..64, || left(power_fails));
        assert!(head.iter().all(|lost| *lost == 0), "{file}, power fails: {power_fails}: {head:?}");
    }
}

#[test]
fn missing_and_cut_segments_cost_what_was_in_them_and_a_missing_checkpoint_nothing() {
    let intact = all(&closed(100), 2);
    let disk = closed(100);
    let segments = names(&disk, |name| name.ends_with(".segment"));
    disk.remove_file(&segments[1]).unwrap();
    let lost = lost_by_repair(&disk, &intact, "a missing segment");
    assert!((1..60).contains(&lost), "{lost} lost");

    let disk = closed(100);
    let bytes = disk.read_file(&segments[2]).unwrap();
    disk.write_file(&segments[2], &bytes[..bytes.len() / 2]).unwrap();
    let lost = lost_by_repair(&disk, &intact, "a cut segment");
    assert!((1..30).contains(&lost), "{lost} lost");

    let disk = closed(100);
    disk.remove_file("checkpoint").unwrap();
    assert_eq!(lost_by_repair(&disk, &intact, "a missing checkpoint"), 0);
}

#[test]
fn what_is_intact_is_left_as_it_is() {
    let disk = closed(40);
    let before: Vec<_> = disk.files();
    let done = repaired(&disk);
    assert_eq!(done, Repaired::default());
    assert_eq!(disk.files(), before);
}

/// A directory that a process left with several files of its journal in use.
fn left_with_a_long_journal() -> FaultDisk {
    let disk = FaultDisk::new(3);
    let storage = open(Arc::new(disk.clone()), 1);
    fill(&storage, 7, 40);
    disk.process_crash()
}

#[test]
fn a_journal_file_that_is_cut_or_missing_is_told_and_what_the_segments_have_is_kept() {
    let intact = all(&left_with_a_long_journal(), 2);
    let files = names(&left_with_a_long_journal(), |name| name.starts_with("journal-"));
    assert!(files.len() >= 3, "{files:?}");
    for (at, file) in files.iter().enumerate() {
        for (what, cut) in
            [("missing", 0), ("cut", 8192), ("cut within a block", 5000), ("cut within its header", 70)]
        {
            let disk = left_with_a_long_journal();
            match cut {
                0 => disk.remove_file(file).unwrap(),
                _ => disk.write_file(file, &disk.read_file(file).unwrap()[..cut]).unwrap(),
            }
            let told = format!("{file} is {what}");
            // the end of a journal cannot be told from one that was never written
            if cut == 0 && at + 1 == files.len() && verified(&disk).findings.is_empty() {
                continue;
            }
            assert_eq!(lost_by_repair(&disk, &intact, &told), 0, "{told}: the segments have it");
        }
    }
}

/// Where groups are not durable one by one, a bad group ends the journal and proves nothing: what lies behind it must not be
/// made part of it again, whatever else of the journal is mended.
#[test]
fn without_a_sync_for_each_group_repair_leaves_void_what_lies_behind_a_bad_one() {
    let disk = FaultDisk::new(3);
    let storage = open_with(Arc::new(disk.clone()), 1, Durability::Os);
    fill(&storage, 7, 40);
    let disk = disk.process_crash();
    let files = names(&disk, |name| name.starts_with("journal-"));
    let (headless, void) = (&files[0], &files[1]);
    disk.flip_bit(void, 8192 + 20, 3).unwrap();
    assert_eq!(verified(&disk).findings, [], "the journal ends there");
    let before = disk.read_file(void).unwrap();
    disk.flip_bit(headless, 20, 3).unwrap();
    let done = repaired(&disk);
    assert!(done.mended.iter().any(|finding| finding.file == *headless) && done.left.is_empty(), "{done:?}");
    assert!(disk.read_file(void).unwrap() == before, "{void} was changed");
    assert_eq!(verified(&disk).findings, []);
    all(&disk, 2);
}

/// Damage that swallows the beginning of an epoch: which numbers are missing is known all the same, and nothing behind is hit.
#[test]
fn a_bad_first_frame_of_an_epoch_costs_that_record_alone() {
    let left = |is_closed: bool| {
        let disk = FaultDisk::new(5);
        let storage = open(Arc::new(disk.clone()), 1);
        fill(&storage, 7, 4);
        storage.close().unwrap();
        drop(storage);
        let storage = open(Arc::new(disk.clone()), 2);
        fill_sizes(&storage, 9, &[6000; 6]);
        if is_closed {
            storage.close().unwrap();
            drop(storage);
            return disk;
        }
        disk.crash()
    };
    for is_closed in [true, false] {
        let intact = all(&left(is_closed), 3);
        for file in names(&left(is_closed), |name| name.ends_with(".segment")) {
            let bytes = left(is_closed).read_file(&file).unwrap();
            let second = Epoch::new(2).unwrap().first_index();
            let at = (64..bytes.len() - 64)
                .find(|at| FrameHeader::decode(&bytes[*at..]).is_ok_and(|header| header.first == second));
            let Some(at) = at else { continue };
            for hit in [at + 24, at + 100] {
                let disk = left(is_closed);
                disk.flip_bit(&file, hit as u64, 2).unwrap();
                let told = format!("closed: {is_closed}, {file} at {hit}");
                assert_eq!(lost_by_repair_from(&disk, &intact, &told, 3), 1, "{told}");
            }
        }
    }
}

/// A directory that a process left with several files of its journal, and a checkpoint somewhere in the middle of one of them.
fn left_behind_a_checkpoint(after: usize, power_fails: bool) -> FaultDisk {
    let disk = FaultDisk::new(3);
    let storage = open(Arc::new(disk.clone()), 1);
    fill(&storage, 7, after);
    storage.checkpoint().unwrap();
    fill(&storage, 9, 30);
    if power_fails { disk.crash() } else { disk.process_crash() }
}

/// What is needed of a file may begin in its middle, and any of its groups may be the first that is intact.
#[test]
fn a_journal_file_that_has_lost_its_beginning_costs_what_was_in_it_wherever_the_checkpoint_lies() {
    type Damage = fn(&FaultDisk, &str);
    // each with the groups that it hits; a group holds a record
    let damages: [(&str, usize, Damage); 3] = [
        ("a bit of its header flipped", 0, |disk, file| disk.flip_bit(file, 20, 3).unwrap()),
        ("its first groups overwritten", 2, |disk, file| {
            let mut bytes = disk.read_file(file).unwrap();
            bytes[..3 * 4096].fill(0xA5);
            disk.write_file(file, &bytes).unwrap();
        }),
        ("its header and a later group bad", 1, |disk, file| {
            disk.flip_bit(file, 20, 3).unwrap();
            disk.flip_bit(file, 5 * 4096 + 30, 1).unwrap();
        }),
    ];
    let mut mended = 0;
    for (after, power_fails) in (0..16).flat_map(|after| [(after, true), (after, false)]) {
        let left = || left_behind_a_checkpoint(after, power_fails);
        let intact = all(&left(), 2);
        let files = names(&left(), |name| name.starts_with("journal-"));
        for (file, (what, groups, damage)) in
            files.iter().flat_map(|file| damages.iter().map(move |d| (file, d)))
        {
            let disk = left();
            damage(&disk, file);
            if verified(&disk).findings.is_empty() {
                continue; // nothing of it is needed
            }
            mended += 1;
            let told = format!("checkpoint after {after}, power fails: {power_fails}, {file}: {what}");
            let most = if power_fails { *groups } else { 0 };
            let lost = lost_by_repair(&disk, &intact, &told);
            assert!(lost <= most, "{told}: {lost} lost");
        }
    }
    assert!(mended > 150, "only {mended} were told");
}

#[test]
fn a_journal_of_which_nothing_is_left_is_told_and_can_be_begun_anew() {
    let intact = all(&left_with_a_long_journal(), 2);
    let disk = left_with_a_long_journal();
    let files = names(&disk, |name| name.starts_with("journal-"));
    files.iter().for_each(|file| disk.remove_file(file).unwrap());
    assert_eq!(lost_by_repair(&disk, &intact, "no journal"), 0, "the segments have it");
}

/// What a rebuilt checkpoint takes from the journal, it takes from a cut file too: here from the zeros behind its last group on.
#[test]
fn a_missing_checkpoint_costs_no_more_when_a_journal_file_is_cut_behind_its_groups() {
    let left = || {
        let disk = FaultDisk::new(3);
        let storage = open(Arc::new(disk.clone()), 1);
        fill(&storage, 7, 40);
        disk.crash()
    };
    let intact = all(&left(), 2);
    let alone = left();
    alone.remove_file("checkpoint").unwrap();
    let lost_alone = lost_by_repair(&alone, &intact, "no checkpoint");
    let mut cuts = 0;
    for file in names(&left(), |name| name.starts_with("journal-")) {
        let disk = left();
        let bytes = disk.read_file(&file).unwrap();
        let kept = (end(&disk, &file) as usize).next_multiple_of(4096).max(8192);
        if kept >= bytes.len() {
            continue;
        }
        cuts += 1;
        disk.remove_file("checkpoint").unwrap();
        disk.write_file(&file, &bytes[..kept]).unwrap();
        let lost = lost_by_repair(&disk, &intact, &format!("no checkpoint, {file} cut"));
        assert_eq!(lost, lost_alone, "{file}");
    }
    assert!(cuts > 0);
}

/// Where groups are not durable one by one, a power loss may leave some behind frames that are gone. A start cuts the log there, and
/// it goes on with other frames; a checkpoint that is made anew afterwards must not put the old ones over them.
#[test]
fn a_checkpoint_is_made_anew_without_what_a_start_has_cut() {
    let mut cuts = 0;
    for seed in 0..200 {
        let disk = FaultDisk::new(seed);
        let storage = open_with(Arc::new(disk.clone()), 1, Durability::Os);
        fill_sizes(&storage, 7, &[40, 6000, 40, 300, 300]);
        let disk = disk.crash();
        let storage = open_with(Arc::new(disk.clone()), 2, Durability::Os);
        let before: usize = read_logs(&storage).iter().map(Vec::len).sum();
        cuts += usize::from(before < 5 * LOGS.len());
        fill_sizes(&storage, 8, &[6000, 6000]); // these take their way past the journal
        let there = read_logs(&storage);
        let disk = disk.process_crash();
        disk.flip_bit("checkpoint", 20, 1).unwrap();
        assert!(repaired_in(&disk, 2).left.is_empty(), "seed {seed}");
        assert!(all(&disk, 3) == there, "seed {seed}: other records than before");
    }
    assert!(cuts > 20, "only {cuts} of 200 power losses took anything");
}

#[test]
fn a_checkpoint_that_is_made_anew_hides_no_hole_at_the_end_of_a_segment() {
    let disk = closed(100);
    let intact = all(&closed(100), 2);
    let file = &names(&disk, |name| name.ends_with(".segment"))[0];
    let bytes = disk.read_file(file).unwrap();
    let mut frames = vec![64];
    while let Ok(header) = FrameHeader::decode(&bytes[*frames.last().unwrap()..]) {
        frames.push(frames.last().unwrap() + header.frame_bytes as usize);
    }
    let last = frames[frames.len() - 2];
    disk.flip_bit(file, last as u64 + 20, 3).unwrap();
    // nor does the journal have it
    for gone in names(&disk, |name| name == "checkpoint" || name.starts_with("journal-")) {
        disk.remove_file(&gone).unwrap();
    }
    let done = repaired_in(&disk, 1);
    let told: Vec<_> = done.mended.iter().filter_map(|finding| finding.records).collect();
    assert_eq!(told.len(), 1, "the lost record is told: {:?}", done.mended);
    let left = all(&disk, 2);
    let lost: usize = left.iter().zip(&intact).map(|(left, intact)| intact.len() - left.len()).sum();
    assert_eq!(lost, 1, "{told:?}");
}

/// A refused start has removed nothing, also not the segments of logs that the catalog does not name.
#[test]
fn a_start_that_is_refused_removes_no_segment() {
    let disk = closed(20);
    let segments = names(&disk, |name| name.ends_with(".segment"));
    for gone in names(&disk, |name| name.starts_with("journal-")) {
        disk.remove_file(&gone).unwrap();
    }
    let refused = try_open_of(Arc::new(disk.clone()), 2, Durability::Device, &LOGS[..1]);
    assert_eq!(refused.err().map(|error| error.kind()), Some(ErrorKind::Damaged));
    assert_eq!(names(&disk, |name| name.ends_with(".segment")), segments);
}
