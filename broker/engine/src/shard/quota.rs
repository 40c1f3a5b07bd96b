//! Quotas of a shard: how fast it may be written and read, as Kinesis limits it. None by default.
//!
//! What was let through takes its time at the rate: so much is *owed*, and falls with the clock. Up to one second may be
//! owed, which is the burst. A record is let through if it fits, or else, if it takes a second or more alone, while less
//! than a second is owed. A batch and a read are let through while less than a second is owed, and what they came to is
//! owed then, so that a large one holds up those behind it, and small ones never keep it waiting.
//!
//! What is under way is *held*: it counts as owed, and does not fall. A batch that turns out to be stored already, or is not
//! stored, owes nothing in the end.
//!
//! Not here: who is told what ([`crate::append`], [`crate::read`]), limits of requests (the front ends).

use parking_lot::Mutex;
use std::sync::Arc;

const SECOND_NS: u64 = 1_000_000_000;

/// How fast each shard may be written and read; none: as fast as it can be. Default: none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quota {
    /// Bytes written in a second, data and keys. Shards of on-demand streams have no quota for writing.
    pub write_bytes_per_s: Option<u64>,
    /// Records written in a second.
    pub write_records_per_s: Option<u64>,
    /// Bytes read in a second by all readers that poll, data and keys; and by each subscription.
    pub read_bytes_per_s: Option<u64>,
    /// Reads in a second by all readers that poll for records.
    pub reads_per_s: Option<u64>,
}

impl Quota {
    /// What a shard of Kinesis allows.
    pub const AWS: Self = Self {
        write_bytes_per_s: Some(1 << 20),
        write_records_per_s: Some(1000),
        read_bytes_per_s: Some(2 << 20),
        reads_per_s: Some(5),
    };

    /// Whether a rate is zero: nothing could ever pass.
    pub(crate) fn has_zero(&self) -> bool {
        let Self { write_bytes_per_s, write_records_per_s, read_bytes_per_s, reads_per_s } = self;
        [write_bytes_per_s, write_records_per_s, read_bytes_per_s, reads_per_s].contains(&&Some(0))
    }
}

/// What was let through at a rate, and is owed still.
#[derive(Debug)]
pub(crate) struct Owed {
    per_s: u64,
    /// When nothing would be owed any more.
    until_ns: u64,
    /// What is under way.
    held_ns: u128,
}

impl Owed {
    pub(crate) fn new(per_s: u64) -> Self {
        Self { per_s, until_ns: 0, held_ns: 0 }
    }
    fn cost_ns(&self, amount: u64) -> u64 {
        let ns = u128::from(amount) * u128::from(SECOND_NS) / u128::from(self.per_s.max(1));
        u64::try_from(ns).unwrap_or(u64::MAX)
    }
    fn owed_ns(&self, now_ns: u64) -> u64 {
        let held = u64::try_from(self.held_ns).unwrap_or(u64::MAX);
        self.until_ns.saturating_sub(now_ns).saturating_add(held)
    }
    /// Nanoseconds from `now_ns` until less than a second is owed; 0: it is.
    pub(crate) fn wait_ns(&self, now_ns: u64) -> u64 {
        self.owed_ns(now_ns).saturating_sub(SECOND_NS - 1)
    }
    fn allows(&self, now_ns: u64, amount: u64) -> bool {
        let (owed, cost) = (self.owed_ns(now_ns), self.cost_ns(amount));
        owed.saturating_add(cost) <= SECOND_NS || (cost >= SECOND_NS && owed < SECOND_NS)
    }
    fn hold(&mut self, amount: u64) {
        self.held_ns += u128::from(self.cost_ns(amount));
    }
    fn release(&mut self, amount: u64) {
        self.held_ns -= u128::from(self.cost_ns(amount)); // it was held
    }
    /// So much more was let through.
    pub(crate) fn add(&mut self, now_ns: u64, amount: u64) {
        self.until_ns = self.until_ns.max(now_ns).saturating_add(self.cost_ns(amount));
    }
}

/// The quotas of one shard at work.
pub(crate) struct ShardQuota {
    state: Mutex<State>,
}

struct State {
    write_bytes: Option<Owed>,
    write_records: Option<Owed>,
    read_bytes: Option<Owed>,
    reads: Option<Owed>,
}

/// Quota that a batch or a read holds while it is under way. Dropped, nothing came of it.
pub(crate) struct Held {
    quota: Arc<ShardQuota>,
    side: Side,
    records: u64,
    bytes: u64,
}

#[derive(Clone, Copy)]
enum Side {
    Write,
    Read,
}

impl State {
    /// Records and bytes of a side, as far as they are limited.
    fn of(&mut self, side: Side) -> (Option<&mut Owed>, Option<&mut Owed>) {
        match side {
            Side::Write => (self.write_records.as_mut(), self.write_bytes.as_mut()),
            Side::Read => (None, self.read_bytes.as_mut()),
        }
    }
}

impl Held {
    /// All of it came through.
    pub(crate) fn count(self, now_us: u64) {
        let (records, bytes) = (self.records, self.bytes);
        self.settle(now_us, records, bytes);
    }
    /// So many bytes came through.
    pub(crate) fn came_to(self, now_us: u64, bytes: u64) {
        let records = self.records;
        self.settle(now_us, records, bytes);
    }
    fn settle(self, now_us: u64, records: u64, bytes: u64) {
        let now_ns = now_us.saturating_mul(1000);
        let mut state = self.quota.state.lock();
        let (owed_records, owed_bytes) = state.of(self.side);
        owed_records.into_iter().for_each(|owed| owed.add(now_ns, records));
        owed_bytes.into_iter().for_each(|owed| owed.add(now_ns, bytes));
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.quota.state.lock();
        let (records, bytes) = state.of(self.side);
        records.into_iter().for_each(|owed| owed.release(self.records));
        bytes.into_iter().for_each(|owed| owed.release(self.bytes));
    }
}

impl ShardQuota {
    /// None if nothing is limited.
    pub(crate) fn new(quota: Quota) -> Option<Self> {
        let state = State {
            write_bytes: quota.write_bytes_per_s.map(Owed::new),
            write_records: quota.write_records_per_s.map(Owed::new),
            read_bytes: quota.read_bytes_per_s.map(Owed::new),
            reads: quota.reads_per_s.map(Owed::new),
        };
        (quota != Quota::default()).then(|| Self { state: Mutex::new(state) })
    }

    /// Whether a record may be written; if so it counts.
    pub(crate) fn take_record(&self, now_us: u64, bytes: u64) -> bool {
        let now_ns = now_us.saturating_mul(1000);
        let state = &mut *self.state.lock();
        let mut wanted = [(&mut state.write_records, 1), (&mut state.write_bytes, bytes)];
        let allowed =
            wanted.iter().all(|(owed, amount)| owed.as_ref().is_none_or(|o| o.allows(now_ns, *amount)));
        if allowed {
            for (owed, amount) in &mut wanted {
                owed.iter_mut().for_each(|owed| owed.add(now_ns, *amount));
            }
        }
        allowed
    }

    /// Lets a batch begin, or not.
    pub(crate) fn hold_batch(self: &Arc<Self>, now_us: u64, records: u64, bytes: u64) -> Option<Held> {
        self.hold(now_us, Side::Write, records, bytes)
    }
    /// Lets a read of up to so many bytes begin, or not.
    pub(crate) fn hold_read(self: &Arc<Self>, now_us: u64, bytes: u64) -> Option<Held> {
        self.hold(now_us, Side::Read, 0, bytes)
    }
    fn hold(self: &Arc<Self>, now_us: u64, side: Side, records: u64, bytes: u64) -> Option<Held> {
        let now_ns = now_us.saturating_mul(1000);
        let mut state = self.state.lock();
        let (owed_records, owed_bytes) = state.of(side);
        let is_free = |owed: &Option<&mut Owed>| owed.as_ref().is_none_or(|owed| owed.wait_ns(now_ns) == 0);
        if !is_free(&owed_records) || !is_free(&owed_bytes) {
            return None;
        }
        owed_records.into_iter().for_each(|owed| owed.hold(records));
        owed_bytes.into_iter().for_each(|owed| owed.hold(bytes));
        drop(state);
        Some(Held { quota: Arc::clone(self), side, records, bytes })
    }

    /// Whether another call for records may begin; if so it counts.
    pub(crate) fn take_call(&self, now_us: u64) -> bool {
        let now_ns = now_us.saturating_mul(1000);
        let mut state = self.state.lock();
        let free = state.read_bytes.as_ref().is_none_or(|owed| owed.wait_ns(now_ns) == 0);
        match &mut state.reads {
            Some(reads) if free && reads.allows(now_ns, 1) => {
                reads.add(now_ns, 1);
                true
            }
            Some(_) => false,
            None => free,
        }
    }

    /// What a call came to.
    pub(crate) fn add_read(&self, now_us: u64, bytes: u64) {
        let mut state = self.state.lock();
        state.read_bytes.iter_mut().for_each(|owed| owed.add(now_us.saturating_mul(1000), bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S: u64 = 1_000_000; // in microseconds

    #[test]
    fn a_second_may_be_written_at_once_and_then_as_fast_as_the_rate() {
        let quota = ShardQuota::new(Quota { write_records_per_s: Some(1000), ..Quota::default() }).unwrap();
        let taken = |now| (0..5000).filter(|_| quota.take_record(now, 100)).count();
        assert_eq!(taken(7 * S), 1000);
        assert_eq!(taken(7 * S + S / 10), 100);
        assert_eq!(taken(8 * S), 900);
        assert_eq!(taken(100 * S), 1000, "more than a second is never saved up");
    }

    #[test]
    fn bytes_and_records_must_both_fit_and_what_is_refused_costs_nothing() {
        let quota = ShardQuota::new(Quota::AWS).unwrap();
        assert!(quota.take_record(S, 1 << 19));
        assert!(!quota.take_record(S, (1 << 19) + 1));
        assert!(quota.take_record(S, 1 << 19));
        assert!(!quota.take_record(S, 1));
        assert_eq!((0..2000).filter(|_| quota.take_record(3 * S, 100)).count(), 1000);
        assert_eq!((0..2000).filter(|_| quota.take_record(3 * S + S / 2, 1 << 10)).count(), 500);
    }

    #[test]
    fn what_is_larger_than_a_second_passes_alone_and_is_owed() {
        let quota = ShardQuota::new(Quota::AWS).unwrap();
        assert!(quota.take_record(0, 10 << 20));
        assert!(!quota.take_record(9 * S, 1 << 20));
        assert!(quota.take_record(10 * S, 1 << 20));
        assert!(!quota.take_record(10 * S, 10 << 20));
    }

    #[test]
    fn neither_a_large_record_nor_a_batch_starves_beside_small_records() {
        let quota = Arc::new(ShardQuota::new(Quota::AWS).unwrap());
        let fill = |now| while quota.take_record(now, 100 << 10) {};
        fill(0);
        fill(S / 10);
        assert!(quota.take_record(S / 10, 5 << 20), "less than a second is owed");
        fill(5 * S + S / 5);
        let batch = quota.hold_batch(5 * S + S / 5, 500, 3 << 20).unwrap();
        assert!(quota.hold_batch(8 * S, 1, 1).is_none() && !quota.take_record(8 * S, 1), "held all the time");
        batch.count(8 * S);
        assert!(quota.hold_batch(10 * S, 1, 1).is_none());
        assert!(quota.hold_batch(10 * S + 1000, 1, 1).is_some());
    }

    #[test]
    fn what_nothing_came_of_owes_nothing() {
        let quota = Arc::new(ShardQuota::new(Quota::AWS).unwrap());
        for _ in 0..3 {
            let (batch, read) = (quota.hold_batch(0, 9000, u64::MAX), quota.hold_read(0, u64::MAX));
            assert!(quota.hold_batch(0, 1, 1).is_none() && quota.hold_read(0, 1).is_none());
            drop((batch, read));
        }
        quota.hold_read(0, u64::MAX).unwrap().came_to(0, 1 << 20);
        assert!(quota.hold_read(0, 1).is_some(), "half a second is owed");
        assert!(quota.take_record(0, 1 << 20));
    }

    #[test]
    fn a_large_page_holds_up_the_reads_behind_it_and_calls_are_counted() {
        let quota = Arc::new(ShardQuota::new(Quota::AWS).unwrap());
        assert!(quota.take_call(0));
        quota.add_read(0, 10 << 20);
        assert!(!quota.take_call(3 * S) && quota.hold_read(3 * S, 1).is_none());
        assert!(quota.hold_read(4 * S + 1, 1).is_some());
        assert_eq!((0..9).filter(|_| quota.take_call(10 * S)).count(), 5);
        assert!(!quota.take_call(10 * S + S / 10));
        assert!(quota.take_call(10 * S + S / 5));
    }

    #[test]
    fn without_a_quota_there_is_nothing_to_ask() {
        assert!(ShardQuota::new(Quota::default()).is_none());
        assert!(Quota { reads_per_s: Some(0), ..Quota::AWS }.has_zero());
        assert!(!Quota::AWS.has_zero() && !Quota::default().has_zero());
    }

    proptest! {
        #[test]
        fn never_more_than_the_rate_and_one_second_passes(
            rate in 1u64..1 << 40, asked in proptest::collection::vec((0u64..2 * S, 0u64..1 << 20), 1..200),
        ) {
            let quota = ShardQuota::new(Quota { write_bytes_per_s: Some(rate), ..Quota::default() }).unwrap();
            let (mut now, mut passed, mut largest) = (0u64, 0u128, 0);
            for (later, bytes) in asked {
                now += later;
                if quota.take_record(now, bytes) {
                    passed += u128::from(bytes);
                    largest = largest.max(bytes);
                }
                // a single larger record passes as well, and rounding is below a byte for each
                let most = u128::from(rate) * u128::from(now + S) / u128::from(S) + u128::from(largest) + 200;
                prop_assert!(passed <= most, "{passed} of {most}");
            }
        }
    }
}
