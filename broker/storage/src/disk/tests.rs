//! What every disk must do, run on the real one (in a temporary directory and, where there is one, in memory) and on the
//! fault disk; then what only one of them does.

use super::fault::{FaultDisk, Unwritten};
use super::real::RealDisk;
use super::*;
use std::io::ErrorKind;

const BYTES: u64 = 64 << 10;

fn conforms(disk: &dyn Disk) {
    creates_lists_renames_and_removes(disk);
    writes_and_reads(disk);
    maps(disk);
    writes_directly(disk);
    refuses_foreign_names_and_ranges(disk);
}

fn creates_lists_renames_and_removes(disk: &dyn Disk) {
    assert_eq!(disk.list("").unwrap(), []);
    assert_eq!(disk.list("segments").unwrap(), []);
    disk.create("b", 10, WriteMode::Buffered).unwrap();
    disk.create("a", 0, WriteMode::Buffered).unwrap();
    disk.create("segments/c", BYTES, WriteMode::Direct).unwrap();
    assert_eq!(disk.create("b", 10, WriteMode::Buffered).err().unwrap().kind(), ErrorKind::AlreadyExists);
    assert_eq!(disk.list("").unwrap(), [("a".into(), 0), ("b".into(), 10)]);
    assert_eq!(disk.list("segments").unwrap(), [("c".into(), BYTES)]);
    assert_eq!(disk.list("nowhere").unwrap_or_default(), []);
    disk.rename("b", "a").unwrap();
    disk.sync_dir("").unwrap();
    assert_eq!(disk.list("").unwrap(), [("a".into(), 10)]);
    assert_eq!(disk.open("b", WriteMode::Buffered).err().unwrap().kind(), ErrorKind::NotFound);
    assert_eq!(disk.rename("b", "d").err().unwrap().kind(), ErrorKind::NotFound);
    assert_eq!(disk.remove("b").err().unwrap().kind(), ErrorKind::NotFound);
    let reader = disk.open("a", WriteMode::Buffered).unwrap();
    disk.remove("a").unwrap();
    disk.remove("segments/c").unwrap();
    disk.sync_dir("segments").unwrap();
    assert_eq!(disk.list("").unwrap(), []);
    let mut zeros = [1; 10];
    reader.read(0, &mut zeros).unwrap();
    assert_eq!(zeros, [0; 10]);
}

fn writes_and_reads(disk: &dyn Disk) {
    let file = disk.create("segments/w", BYTES, WriteMode::Buffered).unwrap();
    assert_eq!(file.len(), BYTES);
    for (round, sync) in [Sync::None, Sync::Data].into_iter().enumerate() {
        // more pieces than one call takes, with empty ones among them
        let bytes: Vec<u8> = (0..9000u32).map(|at| (at as usize * (round + 3)) as u8).collect();
        let mut pieces: Vec<&[u8]> = vec![&[]];
        pieces.extend(bytes.chunks(7));
        pieces.insert(5, &[]);
        file.write(123, &pieces, sync).unwrap();
        let mut read = vec![0; bytes.len()];
        file.read(123, &mut read).unwrap();
        assert_eq!(read, bytes);
    }
    file.write(5, &[], Sync::Data).unwrap();
    file.write(5, &[&[]], Sync::None).unwrap();
    file.write(BYTES - 1, &[&[9]], Sync::None).unwrap();
    file.start_write_back(0, BYTES).unwrap();
    file.sync().unwrap();
    let again = disk.open("segments/w", WriteMode::Buffered).unwrap();
    let mut last = [0; 2];
    again.read(BYTES - 2, &mut last).unwrap();
    assert_eq!(last, [0, 9]);
    let mut aligned = AlignedBuffer::default();
    aligned.extend_from_slice(&[1; ALIGNMENT]);
    assert_eq!(again.write_aligned(0, &aligned, Sync::None).unwrap_err().kind(), ErrorKind::InvalidInput);
    disk.remove("segments/w").unwrap();
}

fn maps(disk: &dyn Disk) {
    let file = disk.create("m", BYTES, WriteMode::Buffered).unwrap();
    file.write(100, &[b"before"], Sync::None).unwrap();
    let before = file.map(100, 6).unwrap();
    file.write(200, &[b"after"], Sync::None).unwrap();
    assert_eq!(before, b"before"[..]);
    assert_eq!(file.map(200, 5).unwrap(), b"after"[..]);
    assert_eq!(file.map(BYTES, 0).unwrap().len(), 0);
    assert!(file.map(BYTES - 1, 2).is_err());
    drop(file);
    disk.remove("m").unwrap();
    assert_eq!(before, b"before"[..]);
}

fn writes_directly(disk: &dyn Disk) {
    let file = disk.create("j", BYTES, WriteMode::Direct).unwrap();
    let mut buffer = AlignedBuffer::with_capacity(0);
    buffer.extend_from_slice(b"group");
    assert_eq!(file.write_aligned(0, &buffer, Sync::Data).unwrap_err().kind(), ErrorKind::InvalidInput);
    buffer.pad_to_alignment();
    assert_eq!(file.write_aligned(512, &buffer, Sync::Data).unwrap_err().kind(), ErrorKind::InvalidInput);
    file.write_aligned(4096, &buffer, Sync::Data).unwrap();
    file.write_aligned(8192, &buffer, Sync::None).unwrap();
    assert!(file.write_aligned(BYTES, &buffer, Sync::Data).is_err());
    let again = disk.open("j", WriteMode::Direct).unwrap();
    for at in [4096, 8192] {
        let mut read = [0; 6];
        again.read(at, &mut read).unwrap();
        assert_eq!(&read, b"group\0");
    }
    again.sync().unwrap();
    disk.remove("j").unwrap();
}

fn refuses_foreign_names_and_ranges(disk: &dyn Disk) {
    for name in
        ["", ".", "..", "/etc/x", "../x", "segments/../x", "a/b/c", "lock", "segments/", "./x", "x\0y"]
    {
        let error = disk.create(name, 1, WriteMode::Buffered).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name:?}");
    }
    let file = disk.create("r", 10, WriteMode::Buffered).unwrap();
    assert_eq!(disk.rename("r", "segments/r").unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(disk.list("..").unwrap_err().kind(), ErrorKind::InvalidInput);
    assert!(file.write(8, &[&[1, 2], &[3]], Sync::None).is_err());
    assert!(file.write(u64::MAX, &[&[1, 2]], Sync::None).is_err());
    assert!(file.read(10, &mut [0]).is_err());
    disk.remove("r").unwrap();
}

#[test]
fn the_fault_disk_does_what_a_disk_must() {
    conforms(&FaultDisk::new(1));
}

#[test]
fn the_real_disk_does_what_a_disk_must() {
    let dir = tempfile::tempdir().unwrap();
    conforms(&RealDisk::new(dir.path()).unwrap());
}

#[test]
fn a_file_system_in_memory_does_what_a_disk_must() {
    if let Ok(dir) = tempfile::tempdir_in("/dev/shm") {
        conforms(&RealDisk::new(dir.path()).unwrap());
    }
}

#[test]
fn a_second_lock_is_refused_by_naming_the_holder_and_granted_once_the_first_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let first = RealDisk::new(dir.path()).unwrap();
    first.lock().unwrap();
    first.lock().unwrap();
    let second = RealDisk::new(dir.path()).unwrap();
    let refusal = second.lock().unwrap_err();
    assert_eq!(refusal.kind(), ErrorKind::WouldBlock);
    assert!(refusal.to_string().contains(&format!("process {}", std::process::id())), "{refusal}");
    assert!(refusal.to_string().contains(&first.path()), "{refusal}");
    drop(first);
    second.lock().unwrap();
    assert_eq!(second.list("").unwrap(), []);

    let first = FaultDisk::new(1);
    let second = first.clone();
    first.lock().unwrap();
    first.lock().unwrap();
    assert_eq!(second.lock().unwrap_err().kind(), ErrorKind::WouldBlock);
    drop(first);
    second.lock().unwrap();
    second.crash().lock().unwrap();
}

#[test]
fn only_the_owner_may_read_what_is_stored_and_its_blocks_are_allocated() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("data");
    let disk = RealDisk::new(&dir).unwrap();
    disk.lock().unwrap();
    disk.create("segments/s", 3 << 20, WriteMode::Buffered).unwrap();
    for (name, mode) in [("", 0o700), ("segments", 0o700), ("lock", 0o600), ("segments/s", 0o600)] {
        assert_eq!(dir.join(name).metadata().unwrap().permissions().mode() & 0o777, mode, "{name}");
    }
    assert!(dir.join("segments/s").metadata().unwrap().blocks() * 512 >= 3 << 20);
}

#[test]
fn a_file_that_finds_no_room_is_storage_full_and_leaves_nothing_behind() {
    if let Ok(dir) = tempfile::tempdir_in("/dev/shm") {
        let disk = RealDisk::new(dir.path()).unwrap();
        let refusal = disk.create("huge", 1 << 50, WriteMode::Buffered).err().unwrap();
        assert_eq!(refusal.kind(), ErrorKind::StorageFull, "{refusal}");
        assert_eq!(disk.list("").unwrap(), []);
    }
    let disk = FaultDisk::new(1);
    disk.set_capacity(100);
    disk.create("a", 60, WriteMode::Buffered).unwrap();
    assert_eq!(disk.create("b", 41, WriteMode::Buffered).err().unwrap().kind(), ErrorKind::StorageFull);
    assert_eq!(disk.list("").unwrap().len(), 1);
    disk.remove("a").unwrap();
    disk.create("b", 41, WriteMode::Buffered).unwrap();
}

#[test]
fn a_map_of_a_real_file_shows_later_writes() {
    let dir = tempfile::tempdir().unwrap();
    let disk = RealDisk::new(dir.path()).unwrap();
    let file = disk.create("m", BYTES, WriteMode::Buffered).unwrap();
    let map = file.map(0, 8192).unwrap();
    file.write(5000, &[b"later"], Sync::None).unwrap();
    file.write(10, &[b"durable"], Sync::Data).unwrap();
    assert_eq!(map[5000..5005], b"later"[..]);
    assert_eq!(map[10..17], b"durable"[..]);
}

/// A file of 8 sectors of ones, durable, with its name.
fn settled_file(seed: u64) -> (FaultDisk, Arc<dyn DiskFile>) {
    let disk = FaultDisk::new(seed);
    let file = disk.create("f", 4096, WriteMode::Direct).unwrap();
    file.write(0, &[&[1; 4096]], Sync::None).unwrap();
    file.sync().unwrap();
    disk.sync_dir("").unwrap();
    (disk, file)
}

#[test]
fn a_power_cut_keeps_what_was_synced_and_loses_keeps_or_tears_the_rest() {
    let (mut lost, mut kept, mut torn) = (0, 0, 0);
    for seed in 0..200 {
        let (disk, file) = settled_file(seed);
        file.write(512, &[&[2; 2048]], Sync::None).unwrap();
        file.write(3072, &[&[3; 1024]], Sync::Data).unwrap();
        let found = disk.crash().read_file("f").unwrap();
        assert!(file.sync().is_err(), "the old handle has no power");
        assert_eq!(found[..512], [1; 512]);
        assert_eq!(found[3072..], [3; 1024], "what waited for the device is there");
        let sectors: Vec<u8> = found[512..2560].chunks(512).map(|sector| sector[0]).collect();
        assert!(found[512..2560].chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
        match sectors[..] {
            [1, 1, 1, 1] => lost += 1,
            [2, 2, 2, 2] => kept += 1,
            _ => torn += 1,
        }
    }
    assert!(lost > 20 && kept > 20 && torn > 20, "{lost} {kept} {torn}");
}

#[test]
fn a_sector_holds_what_it_held_after_one_of_its_writes() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..300 {
        let (disk, file) = settled_file(seed);
        file.write(0, &[&[2; 10]], Sync::None).unwrap();
        file.write(10, &[&[3; 10]], Sync::None).unwrap();
        file.write(0, &[&[4; 5]], Sync::None).unwrap();
        let found = disk.crash().read_file("f").unwrap();
        seen.insert([found[0], found[5], found[10], found[20]]);
    }
    let possible = [[1, 1, 1, 1], [2, 2, 1, 1], [2, 2, 3, 1], [4, 2, 3, 1]];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), possible);
}

#[test]
fn a_write_that_waits_takes_what_was_pending_in_its_sectors_along() {
    for seed in 0..100 {
        let (disk, file) = settled_file(seed);
        file.write(0, &[&[2; 600]], Sync::None).unwrap();
        file.write(10, &[&[3; 10]], Sync::Data).unwrap();
        let found = disk.crash().read_file("f").unwrap();
        assert_eq!(found[..10], [2; 10]);
        assert_eq!(found[10..20], [3; 10], "an older pending write does not come back over a durable one");
        assert_eq!(found[20..512], [2; 492]);
    }
}

#[test]
fn a_killed_process_loses_nothing_and_makes_nothing_durable() {
    let mut lost = 0;
    for seed in 0..50 {
        let (disk, file) = settled_file(seed);
        file.write(0, &[&[2; 10]], Sync::None).unwrap();
        disk.create("g", 10, WriteMode::Buffered).unwrap();
        let disk = disk.process_crash();
        assert_eq!(disk.read_file("f").unwrap()[..10], [2; 10]);
        assert_eq!(disk.files().len(), 2);
        lost += u32::from(disk.crash().read_file("f").unwrap()[0] == 1);
    }
    assert!(lost > 5, "{lost}");
}

#[test]
fn names_are_durable_once_their_folder_is_synced_and_a_rename_is_whole_or_not() {
    let (mut old, mut new) = (0, 0);
    for seed in 0..100 {
        let disk = FaultDisk::new(seed);
        disk.write_file("c", b"old").unwrap();
        disk.create("segments/s", 1, WriteMode::Buffered).unwrap();
        let next = disk.create("c.new", 3, WriteMode::Buffered).unwrap();
        next.write(0, &[b"new"], Sync::Data).unwrap();
        disk.rename("c.new", "c").unwrap();
        disk.sync_dir("segments").unwrap();
        let disk = disk.crash();
        assert_eq!(disk.list("segments").unwrap().len(), 1);
        match &disk.read_file("c").unwrap()[..] {
            b"old" => old += 1,
            b"new" => new += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(old > 10 && new > 10, "{old} {new}");
}

#[test]
fn what_a_failed_sync_left_behind_no_later_sync_makes_durable() {
    let mut lost = 0;
    for seed in 0..50 {
        let (disk, file) = settled_file(seed);
        file.write(0, &[&[2; 512]], Sync::None).unwrap();
        disk.fail_sync_after(0);
        assert!(file.sync().is_err());
        file.sync().unwrap();
        assert_eq!(disk.read_file("f").unwrap()[0], 2);
        lost += u32::from(disk.crash().read_file("f").unwrap()[0] == 1);
    }
    assert!(lost > 10, "{lost}");
}

#[test]
fn a_power_cut_in_the_middle_of_an_operation_stops_everything_after_it() {
    let (mut lost, mut torn) = (0, 0);
    for seed in 0..100 {
        let (disk, file) = settled_file(seed);
        disk.cut_power_after(1);
        file.write(0, &[&[2; 512]], Sync::Data).unwrap();
        assert!(file.write(512, &[&[3; 3584]], Sync::Data).is_err());
        assert!(!disk.is_powered());
        assert!(disk.list("").is_err());
        assert!(file.write(0, &[&[4]], Sync::None).is_err());
        let disk = disk.crash();
        let found = disk.read_file("f").unwrap();
        assert_eq!(found[..512], [2; 512]);
        lost += u32::from(found[512..] == [1; 3584]);
        torn += u32::from(found[512..].contains(&1) && found[512..].contains(&3));
        disk.open("f", WriteMode::Buffered).unwrap().write(0, &[&[5]], Sync::Data).unwrap();
    }
    assert!(lost > 5 && torn > 5, "{lost} {torn}");
}

#[test]
fn blocks_that_were_never_written_may_hold_what_lay_there_before() {
    let mut stale = 0;
    for seed in 0..100 {
        let disk = FaultDisk::new(seed);
        disk.set_unwritten(Unwritten::Stale);
        disk.write_file("old", &[7; 2048]).unwrap();
        disk.remove("old").unwrap();
        let file = disk.create("new", 4096, WriteMode::Buffered).unwrap();
        disk.sync_dir("").unwrap();
        file.write(512, &[&[1; 512]], Sync::Data).unwrap();
        let found = disk.crash().read_file("new").unwrap();
        assert_eq!(found[512..1024], [1; 512]);
        stale += u32::from(found[0] == 7);
    }
    assert!(stale > 10, "{stale}");
}

#[test]
fn the_same_seed_gives_the_same_disk() {
    let run = |seed| {
        let (disk, file) = settled_file(seed);
        file.write(0, &[&[2; 4000]], Sync::None).unwrap();
        disk.crash().read_file("f").unwrap()
    };
    assert!((0..20).all(|seed| run(seed) == run(seed)));
    assert!((0..20).any(|seed| run(seed) != run(seed + 1)));
}
