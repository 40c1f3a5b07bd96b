//! Conditional changes of a row, as data: what is to be set, added or removed, and what must hold for it. In the terms that
//! the KCL uses (`AttributeUpdates`, `Expected`), so that what either library writes is alike to the letter.
//!
//! ```text
//!  take        leaseOwner := me, leaseCounter := n+1, no checkpointOwner; switches + 1     if leaseCounter = n
//!  renew       leaseCounter := n+1 (throughputKBps)                                      if leaseCounter = n, no checkpointOwner
//!  checkpoint  checkpoint, sub, switches := 0, no pending…, leaseCounter := n+1           if leaseCounter = n
//!  prepare     pending…, leaseCounter := n+1                                             if leaseCounter = n
//!  ask         leaseOwner := me, checkpointOwner := old          if leaseOwner = old, no checkpointOwner
//!  evict       no leaseOwner, leaseCounter := n+1                if leaseCounter = n, leaseOwner = me, no checkpointOwner
//!  hand over   no checkpointOwner, leaseCounter := n+1           if leaseCounter = n, checkpointOwner = me
//! ```

use super::row::{
    self, CHECKPOINT, CHECKPOINT_OWNER, CHECKPOINT_SUB, CHILD_SHARDS, LEASE_COUNTER, LEASE_OWNER,
    OWNER_SWITCHES, PENDING, PENDING_STATE, PENDING_SUB, Row, THROUGHPUT, checkpoint_values, numeral, text,
};
use crate::place::{Checkpoint, PendingCheckpoint};
use aws_sdk_dynamodb::types::{
    AttributeAction, AttributeValue, AttributeValueUpdate, ExpectedAttributeValue,
};
use std::collections::HashMap;
use tidemill_types::ShardId;

/// Whether a renewal is still to find out if somebody asks for the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    NotYet,
    Already,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Change {
    pub(super) updates: HashMap<String, AttributeValueUpdate>,
    pub(super) expected: HashMap<String, ExpectedAttributeValue>,
}

impl Change {
    fn put(self, name: &str, value: AttributeValue) -> Self {
        self.update(name, AttributeAction::Put, Some(value))
    }
    fn add(self, name: &str, value: u64) -> Self {
        self.update(name, AttributeAction::Add, Some(numeral(value)))
    }
    fn delete(self, name: &str) -> Self {
        self.update(name, AttributeAction::Delete, None)
    }
    fn update(mut self, name: &str, action: AttributeAction, value: Option<AttributeValue>) -> Self {
        let update = AttributeValueUpdate::builder().action(action).set_value(value).build();
        self.updates.insert(name.to_owned(), update);
        self
    }
    fn if_is(mut self, name: &str, value: AttributeValue) -> Self {
        let expected = ExpectedAttributeValue::builder().value(value).build();
        self.expected.insert(name.to_owned(), expected);
        self
    }
    fn if_absent(mut self, name: &str) -> Self {
        self.expected.insert(name.to_owned(), ExpectedAttributeValue::builder().exists(false).build());
        self
    }
    /// What only who knows the counter may do.
    fn counted(self, counter: u64) -> Self {
        self.put(LEASE_COUNTER, numeral(counter + 1)).if_is(LEASE_COUNTER, numeral(counter))
    }
}

/// `me` takes a lease as it is in `row`.
pub(super) fn take(row: &Row, me: &str) -> Change {
    let taken = Change::default().counted(row.counter).put(LEASE_OWNER, text(me)).delete(CHECKPOINT_OWNER);
    let from_another = row.owner.as_deref().is_some_and(|owner| owner != me);
    let from_its_successor = row.checkpoint_owner.as_deref() == Some(me);
    if from_another || from_its_successor { taken.add(OWNER_SWITCHES, 1) } else { taken }
}

pub(super) fn renew(counter: u64, asked: Asked, bytes_per_s: u64) -> Change {
    let renewed = Change::default().counted(counter);
    let renewed =
        if bytes_per_s > 0 { renewed.put(THROUGHPUT, row::throughput_value(bytes_per_s)) } else { renewed };
    match asked {
        Asked::NotYet => renewed.if_absent(CHECKPOINT_OWNER),
        Asked::Already => renewed,
    }
}

pub(super) fn checkpoint(counter: u64, checkpoint: Checkpoint) -> Change {
    let (number, sub) = checkpoint_values(checkpoint);
    Change::default()
        .counted(counter)
        .put(CHECKPOINT, number)
        .put(CHECKPOINT_SUB, sub)
        .put(OWNER_SWITCHES, numeral(0))
        .delete(PENDING)
        .delete(PENDING_SUB)
        .delete(PENDING_STATE)
}

pub(super) fn prepare(counter: u64, pending: &PendingCheckpoint) -> Change {
    let (number, sub) = checkpoint_values(pending.at);
    let prepared = Change::default().counted(counter).put(PENDING, number).put(PENDING_SUB, sub);
    if pending.state.is_empty() {
        prepared.delete(PENDING_STATE)
    } else {
        prepared.put(PENDING_STATE, row::bytes(&pending.state))
    }
}

/// Notes which shards follow.
pub(super) fn children(counter: u64, children: impl IntoIterator<Item = ShardId>) -> Change {
    let noted = Change::default().counted(counter);
    match row::shard_set(children) {
        Some(children) => noted.put(CHILD_SHARDS, children),
        None => noted,
    }
}

/// `me` asks `old` to hand its lease over. The counter is the holder's to move.
pub(super) fn ask(old: &str, me: &str) -> Change {
    Change::default()
        .put(LEASE_OWNER, text(me))
        .put(CHECKPOINT_OWNER, text(old))
        .if_is(LEASE_OWNER, text(old))
        .if_absent(CHECKPOINT_OWNER)
}

/// `me` asks in the place of a successor that let its time pass.
pub(super) fn ask_instead(old: &str, successor: &str, me: &str) -> Change {
    Change::default()
        .put(LEASE_OWNER, text(me))
        .if_is(LEASE_OWNER, text(successor))
        .if_is(CHECKPOINT_OWNER, text(old))
}

/// `me` gives a lease back that nobody asked for.
pub(super) fn evict(counter: u64, me: &str) -> Change {
    Change::default()
        .counted(counter)
        .delete(LEASE_OWNER)
        .if_is(LEASE_OWNER, text(me))
        .if_absent(CHECKPOINT_OWNER)
}

/// `me` lets go of a lease, which is then its successor's.
pub(super) fn hand_over(counter: u64, me: &str) -> Change {
    Change::default().counted(counter).delete(CHECKPOINT_OWNER).if_is(CHECKPOINT_OWNER, text(me))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(owner: Option<&str>, checkpoint_owner: Option<&str>) -> Row {
        Row {
            key: "shardId-000000000000".into(),
            owner: owner.map(str::to_owned),
            checkpoint_owner: checkpoint_owner.map(str::to_owned),
            counter: 7,
            checkpoint: Checkpoint::TrimHorizon,
            pending: None,
            bytes_per_s: 0,
        }
    }

    #[test]
    fn a_take_counts_a_switch_of_owners_only_where_the_owner_changed() {
        let switches = |owner, checkpoint_owner| {
            take(&row(owner, checkpoint_owner), "me").updates.contains_key(OWNER_SWITCHES)
        };
        assert!(!switches(None, None));
        assert!(!switches(Some("me"), None));
        assert!(switches(Some("other"), None));
        assert!(switches(Some("other"), Some("me")), "taken back from its successor");
        let taken = take(&row(None, None), "me");
        assert_eq!(taken.expected.len(), 1);
        assert_eq!(taken.expected[LEASE_COUNTER].value(), Some(&numeral(7)));
        assert_eq!(taken.updates[LEASE_COUNTER].value(), Some(&numeral(8)));
        assert_eq!(taken.updates[CHECKPOINT_OWNER].action(), Some(&AttributeAction::Delete));
    }

    #[test]
    fn a_renewal_looks_for_a_successor_until_it_knows_of_one() {
        let first = renew(7, Asked::NotYet, 0);
        assert_eq!(first.expected[CHECKPOINT_OWNER].exists(), Some(false));
        assert!(!first.updates.contains_key(THROUGHPUT));
        assert!(!renew(7, Asked::Already, 0).expected.contains_key(CHECKPOINT_OWNER));
    }

    #[test]
    fn asking_leaves_the_counter_to_the_holder() {
        let asked = ask("old", "me");
        assert!(!asked.updates.contains_key(LEASE_COUNTER) && !asked.expected.contains_key(LEASE_COUNTER));
        assert_eq!(asked.updates[CHECKPOINT_OWNER].value(), Some(&text("old")));
    }

    #[test]
    fn a_checkpoint_forgets_what_was_prepared() {
        let change = checkpoint(1, Checkpoint::ShardEnd);
        for name in [PENDING, PENDING_SUB, PENDING_STATE] {
            assert_eq!(change.updates[name].action(), Some(&AttributeAction::Delete));
        }
        assert_eq!(change.updates[OWNER_SWITCHES].value(), Some(&numeral(0)));
    }
}
