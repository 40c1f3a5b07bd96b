//! Shards that there are, and rows that there are: which shard is processed though it has no row, and which row can go.
//!
//! The KCL deletes the rows of shards that are done once their children are under way, and makes rows of shards only as it
//! comes to them. A shard without a row is therefore either not begun or long done; what follows it tells.

use crate::shard::ShardInfo;
use std::collections::{BTreeMap, BTreeSet};
use tidemill_types::ShardId;

/// Shards without a row of their own, all of whose children have one or are done themselves: they count as processed to
/// their end, as the KCL counts parents that it does not find; it deletes the row of a shard only after its children have
/// theirs. A shard with a child that has none was never begun.
pub(super) fn done_without_row(shards: &[ShardInfo], with_row: &BTreeSet<ShardId>) -> BTreeSet<ShardId> {
    let mut children: BTreeMap<ShardId, Vec<ShardId>> = BTreeMap::new();
    for shard in shards {
        shard.parents().for_each(|parent| children.entry(parent).or_default().push(shard.id));
    }
    let mut done: BTreeSet<ShardId> = BTreeSet::new();
    // a child's number is above its parents'
    for (parent, children) in children.iter().rev() {
        let all = children.iter().all(|child| with_row.contains(child) || done.contains(child));
        if all && !with_row.contains(parent) {
            done.insert(*parent);
        }
    }
    done
}

/// Whether a row is of a shard that is gone. A higher number than all that are listed is of a shard that is yet to be seen.
pub(super) fn is_gone(shards: &[ShardInfo], id: ShardId) -> bool {
    let highest = shards.iter().map(|shard| shard.id).max();
    highest.is_some_and(|highest| id < highest) && shards.iter().all(|shard| shard.id != id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::shard;

    fn id(id: u32) -> ShardId {
        ShardId::new(id).unwrap()
    }
    fn child(number: u32, parents: [Option<u32>; 2]) -> ShardInfo {
        let [parent, adjacent_parent] = parents.map(|parent| parent.map(id));
        ShardInfo { parent, adjacent_parent, ..shard(number) }
    }

    #[test]
    fn ancestors_of_what_is_under_way_are_done_and_others_are_not_begun() {
        let shards = [
            shard(0),
            child(1, [Some(0), None]),
            child(2, [Some(0), None]),
            child(3, [Some(1), None]),
            shard(4),
        ];
        let done = |rows: &[u32]| {
            let rows = rows.iter().map(|number| id(*number)).collect();
            done_without_row(&shards, &rows).into_iter().map(ShardId::get).collect::<Vec<_>>()
        };
        assert_eq!(done(&[]), [0u32; 0]);
        assert_eq!(done(&[3]), [1], "2 is not begun, so 0 is not known to be done");
        assert_eq!(done(&[2, 3]), [0, 1]);
        assert_eq!(done(&[0, 3]), [1]);
        assert_eq!(done(&[4]), [0u32; 0]);
    }

    #[test]
    fn a_row_goes_with_its_shard_but_not_before_its_shard_was_listed() {
        let shards = [shard(3), shard(5)];
        assert!(is_gone(&shards, id(0)) && is_gone(&shards, id(4)));
        assert!(!is_gone(&shards, id(3)) && !is_gone(&shards, id(6)));
        assert!(!is_gone(&[], id(0)), "a list of nothing says nothing");
    }
}
