//! Parents before children: which shards of a stream an application may work on, and where it begins.
//!
//! A shard waits until each of its parents is processed to its end or no longer exists. A child of a processed parent
//! begins at its oldest record, whatever the initial position: its records follow those of the parent. An application
//! that starts at the newest records does not walk through shards that were closed before it ever looked.

use crate::initial::InitialPosition;
use crate::place::Checkpoint;
use crate::store::LeaseRow;
use std::collections::BTreeMap;
use tidemill_types::ShardId;

/// Whether a shard may be worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// It may; without a checkpoint it begins here.
    Ready(Checkpoint),
    /// A parent is not processed to its end yet.
    WaitsForParent,
    /// It is processed to its end.
    Processed,
    /// It was closed before an application that begins at the newest records looked.
    Skipped,
}

/// The readiness of each shard among the leases of one stream.
pub(crate) fn readiness(rows: &[LeaseRow], initial: InitialPosition) -> BTreeMap<ShardId, Readiness> {
    let by_id: BTreeMap<ShardId, &LeaseRow> = rows.iter().map(|row| (row.shard.id, row)).collect();
    let mut known = BTreeMap::new();
    // a child's number is above its parents', so one pass in order of numbers settles all
    for (id, row) in &by_id {
        let parents = row.shard.parents().filter(|parent| by_id.contains_key(parent));
        let parents: Vec<_> = parents.map(|parent| known.get(&parent).copied()).collect();
        let settled =
            |parent: &Option<Readiness>| matches!(parent, Some(Readiness::Processed | Readiness::Skipped));
        let follows = parents.contains(&Some(Readiness::Processed));
        let state = match row.checkpoint {
            Some(Checkpoint::ShardEnd) => Readiness::Processed,
            _ if !parents.iter().all(settled) => Readiness::WaitsForParent,
            _ if follows => Readiness::Ready(Checkpoint::TrimHorizon),
            None if initial == InitialPosition::Latest && !row.shard.is_open() => Readiness::Skipped,
            _ => Readiness::Ready(initial.into()),
        };
        known.insert(*id, state);
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::shard;
    use crate::shard::{ShardInfo, ShardState};

    fn row(id: u32, parents: [Option<u32>; 2], checkpoint: Option<Checkpoint>, open: bool) -> LeaseRow {
        let [parent, adjacent_parent] = parents.map(|p| p.map(|p| ShardId::new(p).unwrap()));
        let state = if open { ShardState::Open } else { ShardState::Closed };
        let shard = ShardInfo { parent, adjacent_parent, state, ..shard(id) };
        LeaseRow { checkpoint, ..LeaseRow::untaken(shard) }
    }

    fn states(rows: &[LeaseRow], initial: InitialPosition) -> Vec<Readiness> {
        readiness(rows, initial).into_values().collect()
    }

    const END: Option<Checkpoint> = Some(Checkpoint::ShardEnd);
    const OLDEST: Readiness = Readiness::Ready(Checkpoint::TrimHorizon);

    #[test]
    fn children_wait_for_both_parents_of_a_merge() {
        let rows = |one, two| {
            [
                row(0, [None; 2], one, false),
                row(1, [None; 2], two, false),
                row(2, [Some(0), Some(1)], None, true),
            ]
        };
        use Readiness::{Processed, WaitsForParent};
        let from = InitialPosition::TrimHorizon;
        assert_eq!(states(&rows(None, END), from), [OLDEST, Processed, WaitsForParent]);
        assert_eq!(states(&rows(END, END), from), [Processed, Processed, OLDEST]);
    }

    #[test]
    fn children_of_parents_that_are_gone_do_not_wait() {
        let rows = [row(5, [Some(1), None], None, true)];
        assert_eq!(states(&rows, InitialPosition::Latest), [Readiness::Ready(Checkpoint::Latest)]);
    }

    #[test]
    fn a_child_of_a_processed_parent_begins_at_its_oldest_record() {
        let rows = [row(0, [None; 2], END, false), row(1, [Some(0), None], None, true)];
        assert_eq!(states(&rows, InitialPosition::Latest)[1], OLDEST);
    }

    #[test]
    fn an_application_that_begins_at_the_newest_passes_over_shards_closed_before() {
        let rows = [
            row(0, [None; 2], None, false),
            row(1, [Some(0), None], None, false),
            row(2, [Some(1), None], None, true),
        ];
        let latest = [Readiness::Skipped, Readiness::Skipped, Readiness::Ready(Checkpoint::Latest)];
        assert_eq!(states(&rows, InitialPosition::Latest), latest);
        let oldest = [OLDEST, Readiness::WaitsForParent, Readiness::WaitsForParent];
        assert_eq!(states(&rows, InitialPosition::TrimHorizon), oldest);
    }

    #[test]
    fn a_closed_shard_that_was_begun_is_finished_also_by_an_application_that_began_at_the_newest() {
        let rows = [row(0, [None; 2], Some(Checkpoint::Latest), false), row(1, [Some(0), None], None, true)];
        let expected = [Readiness::Ready(Checkpoint::Latest), Readiness::WaitsForParent];
        assert_eq!(states(&rows, InitialPosition::Latest), expected);
    }
}
