//! What every store must do: one suite, run on each of them.

use super::memory::MemoryStore;
use super::redb::RedbStore;
use super::{Batch, Expect, Store, Verdict};
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn commit(store: &mut dyn Store, batch: Batch) -> Verdict {
    let verdicts = store.commit(&[batch]).unwrap();
    assert_eq!(verdicts.len(), 1);
    verdicts[0]
}

fn a_store_keeps_orders_and_judges(store: &mut dyn Store) {
    assert_eq!(store.get(b"a").unwrap(), None);
    assert_eq!(store.scan(b"").unwrap(), []);
    assert_eq!(commit(store, Batch::put(&b"a"[..], &b"1"[..])), Verdict::Done);
    assert_eq!(store.get(b"a").unwrap().unwrap(), "1");

    let absent = Batch::compare_and_set(&b"a"[..], Expect::Absent, &b"2"[..]);
    assert_eq!(commit(store, absent), Verdict::Refused);
    let wrong = Batch::compare_and_set(&b"a"[..], Expect::Value(Bytes::from_static(b"0")), &b"2"[..]);
    assert_eq!(commit(store, wrong), Verdict::Refused);
    assert_eq!(store.get(b"a").unwrap().unwrap(), "1");
    let right = Batch::compare_and_set(&b"a"[..], Expect::Value(Bytes::from_static(b"1")), &b"2"[..]);
    assert_eq!(commit(store, right), Verdict::Done);
    assert_eq!(store.get(b"a").unwrap().unwrap(), "2");

    // a refused batch changes nothing, not even the keys without a condition
    let mixed = Batch {
        conditions: vec![(Bytes::from_static(b"a"), Expect::Absent)],
        changes: vec![(Bytes::from_static(b"b"), Some(Bytes::from_static(b"x")))],
    };
    assert_eq!(commit(store, mixed), Verdict::Refused);
    assert_eq!(store.get(b"b").unwrap(), None);

    for key in ["p/2", "p/1", "p/10", "q", "o"] {
        commit(store, Batch::put(key, key));
    }
    let keys: Vec<_> = store.scan(b"p/").unwrap().into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["p/1", "p/10", "p/2"]);

    // within a group each batch sees those before it
    let taken = Expect::Value(Bytes::from_static(b"first"));
    let group = [
        Batch::compare_and_set(&b"g"[..], Expect::Absent, &b"first"[..]),
        Batch::compare_and_set(&b"g"[..], Expect::Absent, &b"second"[..]),
        Batch {
            conditions: vec![("g".into(), taken)],
            changes: vec![("g".into(), None), ("h".into(), Some("1".into()))],
        },
    ];
    assert_eq!(store.commit(&group).unwrap(), [Verdict::Done, Verdict::Refused, Verdict::Done]);
    assert_eq!((store.get(b"g").unwrap(), store.get(b"h").unwrap()), (None, Some("1".into())));
}

#[test]
fn the_store_in_memory_keeps_orders_and_judges() {
    a_store_keeps_orders_and_judges(&mut MemoryStore::default());
}

#[test]
fn the_store_on_disk_keeps_orders_and_judges() {
    let dir = tempfile::tempdir().unwrap();
    a_store_keeps_orders_and_judges(&mut RedbStore::open(dir.path()).unwrap());
}

#[test]
fn the_store_on_disk_keeps_its_rows_across_a_reopen_for_the_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let mut store = RedbStore::open(dir.path()).unwrap();
    commit(&mut store, Batch::put(&b"a"[..], &b"1"[..]));
    drop(store);
    let store = RedbStore::open(dir.path()).unwrap();
    assert_eq!(store.get(b"a").unwrap().unwrap(), "1");
    let mode = std::fs::metadata(dir.path().join("metadata.redb")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_file_that_is_no_store_is_told_by_name() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("metadata.redb"), [7u8; 9000]).unwrap();
    let error = RedbStore::open(dir.path()).err().expect("nine thousand sevens are no database");
    assert!(error.to_string().contains("metadata.redb"), "{error}");
}

type Op = (u8, Option<Option<u8>>, Option<u8>);

fn batch((key, expect, value): Op) -> Batch {
    let key = Bytes::from(vec![key]);
    let conditions = expect.map(|expect| {
        (key.clone(), expect.map_or(Expect::Absent, |value| Expect::Value(Bytes::from(vec![value]))))
    });
    Batch {
        conditions: conditions.into_iter().collect(),
        changes: vec![(key, value.map(|v| Bytes::from(vec![v])))],
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]
    #[test]
    fn both_stores_agree_with_a_map_on_any_groups(
        groups in prop::collection::vec(
            prop::collection::vec((0u8..4, prop::option::of(prop::option::of(0u8..3)), prop::option::of(0u8..3)), 1..6),
            1..6,
        ),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (mut memory, mut disk) = (MemoryStore::default(), RedbStore::open(dir.path()).unwrap());
        let mut model: BTreeMap<u8, u8> = BTreeMap::new();
        for group in groups {
            let expected: Vec<Verdict> = group.iter().map(|(key, expect, value)| {
                if expect.is_some_and(|expect| model.get(key).copied() != expect) {
                    return Verdict::Refused;
                }
                match value {
                    Some(value) => model.insert(*key, *value),
                    None => model.remove(key),
                };
                Verdict::Done
            }).collect();
            let batches: Vec<Batch> = group.into_iter().map(batch).collect();
            prop_assert_eq!(&memory.commit(&batches).unwrap(), &expected);
            prop_assert_eq!(&disk.commit(&batches).unwrap(), &expected);
        }
        let rows: Vec<(Bytes, Bytes)> =
            model.into_iter().map(|(k, v)| (Bytes::from(vec![k]), Bytes::from(vec![v]))).collect();
        prop_assert_eq!(&memory.scan(b"").unwrap(), &rows);
        prop_assert_eq!(&disk.scan(b"").unwrap(), &rows);
    }
}
