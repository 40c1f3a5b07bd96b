//! The aggregator: gathers the records of one shard into batches, by size and count; the collector adds time.
//!
//! A batch is sealed when the next record would take it past its target, when it has reached it, or when it has lingered.
//! A record that is larger than the target goes alone. Batches are numbered in the order in which they are sealed. For
//! Amazon a batch is what becomes one aggregated record, so its size is counted as that.

use crate::batch::{Batch, Returned};
use crate::error::AttemptLog;
use crate::limiter::{Charge, Limiter};
use crate::ticket::{Obligation, Origin, Ticket};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tidemill_proto::aggregate::PackedSize;
use tidemill_types::limits::FRAME_RECORDS_MAX;
use tidemill_types::{FrameHeader, FrameWriter, HashKey, ProducerId, Record, RecordView};
use tokio::time::Instant;

/// A new batch has room for at least this much, so that the first few records do not move.
const CAPACITY_BYTES_MIN: usize = 1024;

/// What a batch becomes on the wire, which is how its size is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    /// A frame.
    Frame,
    /// An aggregated record.
    #[cfg(feature = "aws")]
    Aggregate,
}

/// What does not change from batch to batch.
#[derive(Clone)]
pub(crate) struct Terms {
    pub(crate) producer: ProducerId,
    pub(crate) packing: Packing,
    pub(crate) batch_bytes: usize,
    pub(crate) batch_records: u32,
    pub(crate) record_deadline: Duration,
    pub(crate) returned: Returned,
    pub(crate) limiter: Arc<Limiter>,
}

/// What a record brings along that comes from another batch.
pub(crate) struct Moved<'a> {
    pub(crate) explicit: Option<HashKey>,
    pub(crate) origin: Origin,
    /// Its own deadline, if it has one.
    pub(crate) own_deadline: Option<Instant>,
    /// Of its batch.
    pub(crate) since: Instant,
    pub(crate) deadline: Instant,
    pub(crate) attempts: &'a AttemptLog,
    pub(crate) uncertain: bool,
}

struct Open {
    writer: FrameWriter,
    packed: Option<PackedSize>,
    data_bytes: usize,
    explicit: Vec<(u32, HashKey)>,
    own_deadlines: Vec<(u32, Instant)>,
    owed: Obligation,
    since: Instant,
    deadline: Instant,
    attempts: AttemptLog,
    uncertain: bool,
}

/// The open batch of one shard, if there is one.
pub(crate) struct Aggregator {
    terms: Terms,
    open: Option<Open>,
    next_number: u64,
    last_body_bytes: usize,
}

impl Aggregator {
    pub(crate) fn new(terms: Terms) -> Self {
        Self { terms, open: None, next_number: 1, last_body_bytes: CAPACITY_BYTES_MIN }
    }
    /// Since when there is an open batch.
    pub(crate) fn open_since(&self) -> Option<Instant> {
        self.open.as_ref().map(|open| open.since)
    }
    /// Records in the open batch.
    pub(crate) fn open_records(&self) -> u32 {
        self.open.as_ref().map_or(0, |open| open.writer.count())
    }
    /// Adds a record that is put now and already charged; batches that it fills go to `sealed`. `time_to_live` if it has
    /// one of its own.
    pub(crate) fn push(
        &mut self,
        record: &Record,
        time_to_live: Option<Duration>,
        sealed: &mut VecDeque<Batch>,
    ) -> Ticket {
        let (key, data) = (record.key().as_str(), &record.data()[..]);
        self.make_room(key, record.explicit_hash(), data.len(), sealed);
        if self.open.is_none() {
            let now = Instant::now();
            let owed = Obligation::own(self.terms.limiter.clone());
            self.begin((now, now + self.terms.record_deadline), owed, AttemptLog::new(now), data.len());
        }
        let open = self.open.as_mut().expect("begun above");
        let own_deadline = time_to_live.map(|live| Instant::now() + live);
        let index = open.add(key, data, record.explicit_hash(), own_deadline);
        let ticket = open.owed.add_own(index, Charge::of(key.len(), data.len()));
        self.seal_if_full(sealed);
        ticket
    }
    /// Adds a record of another batch. Of two deadlines and histories the stricter counts.
    pub(crate) fn push_moved(
        &mut self,
        record: &RecordView<'_>,
        moved: Moved<'_>,
        sealed: &mut VecDeque<Batch>,
    ) {
        self.make_room(record.key, moved.explicit, record.data.len(), sealed);
        if self.open.is_none() {
            let owed = Obligation::moved(self.terms.limiter.clone());
            let times = (moved.since, moved.deadline);
            self.begin(times, owed, moved.attempts.clone(), record.data.len());
        }
        let open = self.open.as_mut().expect("begun above");
        open.deadline = open.deadline.min(moved.deadline);
        open.uncertain |= moved.uncertain;
        if moved.attempts.made() > open.attempts.made() {
            open.attempts = moved.attempts.clone();
        }
        open.add(record.key, record.data, moved.explicit, moved.own_deadline);
        open.owed.add_moved(moved.origin, Charge::of(record.key.len(), record.data.len()));
        self.seal_if_full(sealed);
    }
    /// Ends the open batch, if there is one.
    pub(crate) fn seal(&mut self, sealed: &mut VecDeque<Batch>) {
        let Some(open) = self.open.take() else { return };
        self.last_body_bytes = open.writer.frame_bytes() - FrameHeader::BYTES;
        let wire_bytes = match &open.packed {
            Some(packed) if open.writer.count() > 1 => packed.bytes(),
            Some(_) => self.last_body_bytes,
            None => open.writer.frame_bytes(),
        };
        let frame = open.writer.finish(self.terms.producer, self.next_number);
        self.next_number += 1;
        let Open { data_bytes, explicit, own_deadlines, owed, since, deadline, attempts, uncertain, .. } =
            open;
        let returned = self.terms.returned;
        sealed.push_back(Batch {
            frame,
            data_bytes,
            wire_bytes,
            explicit,
            own_deadlines,
            owed,
            since,
            deadline,
            attempts,
            uncertain,
            returned,
        });
    }
    /// The completion that the open batch's tickets wait on.
    pub(crate) fn owed(&self) -> Option<&Obligation> {
        self.open.as_ref().map(|open| &open.owed)
    }

    fn make_room(
        &mut self,
        key: &str,
        hash: Option<HashKey>,
        data_bytes: usize,
        sealed: &mut VecDeque<Batch>,
    ) {
        let Some(open) = &self.open else { return };
        let bytes = match &open.packed {
            Some(packed) => packed.with(key, hash, data_bytes),
            None => open.writer.frame_bytes() + FrameWriter::record_bytes(key.len(), data_bytes),
        };
        if bytes > self.terms.batch_bytes || !open.writer.fits(key.len(), data_bytes) {
            self.seal(sealed);
        }
    }

    fn begin(
        &mut self,
        (since, deadline): (Instant, Instant),
        owed: Obligation,
        attempts: AttemptLog,
        data_bytes: usize,
    ) {
        // as much as the last batch took: steady load does not grow its buffers step by step
        let body =
            self.last_body_bytes.clamp(CAPACITY_BYTES_MIN, self.terms.batch_bytes.max(CAPACITY_BYTES_MIN));
        let writer = FrameWriter::with_capacity(body.max(data_bytes));
        let packed = match self.terms.packing {
            Packing::Frame => None,
            #[cfg(feature = "aws")]
            Packing::Aggregate => Some(PackedSize::new()),
        };
        self.open = Some(Open {
            writer,
            packed,
            data_bytes: 0,
            explicit: Vec::new(),
            own_deadlines: Vec::new(),
            owed,
            since,
            deadline,
            attempts,
            uncertain: false,
        });
    }

    fn seal_if_full(&mut self, sealed: &mut VecDeque<Batch>) {
        let full = |open: &Open| {
            let bytes = open.packed.as_ref().map_or(open.writer.frame_bytes(), PackedSize::bytes);
            bytes >= self.terms.batch_bytes
                || open.writer.count() >= self.terms.batch_records.min(FRAME_RECORDS_MAX)
        };
        if self.open.as_ref().is_some_and(full) {
            self.seal(sealed);
        }
    }
}

impl Open {
    fn add(
        &mut self,
        key: &str,
        data: &[u8],
        explicit: Option<HashKey>,
        own_deadline: Option<Instant>,
    ) -> u32 {
        let index = self.writer.count();
        self.writer.push(key, data);
        self.data_bytes += data.len();
        if let Some(packed) = &mut self.packed {
            packed.add(key, explicit, data.len());
        }
        self.explicit.extend(explicit.map(|hash| (index, hash)));
        self.own_deadlines.extend(own_deadline.map(|deadline| (index, deadline)));
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tidemill_types::{Frame, PartitionKey};

    const MEMORY: usize = 64 << 20;

    impl Terms {
        pub(crate) fn for_tests(batch_bytes: usize, limiter: Arc<Limiter>) -> Self {
            Self {
                producer: ProducerId::new(7),
                packing: Packing::Frame,
                batch_bytes,
                batch_records: FRAME_RECORDS_MAX,
                record_deadline: Duration::from_secs(30),
                returned: Returned::Nothing,
                limiter,
            }
        }
    }

    fn aggregator(batch_bytes: usize) -> (Aggregator, Arc<Limiter>) {
        let limiter = Arc::new(Limiter::new(MEMORY, None));
        (Aggregator::new(Terms::for_tests(batch_bytes, limiter.clone())), limiter)
    }

    fn record(key: &str, data: Vec<u8>) -> Record {
        Record::new(PartitionKey::new(key).unwrap(), data).unwrap()
    }

    proptest! {
        #[test]
        fn records_leave_as_they_came_in_batches_within_the_target(
            records in proptest::collection::vec(("[a-z]{1,9}", 0usize..3000, any::<bool>(), any::<bool>()), 1..300),
            batch_bytes in 1024usize..8192,
        ) {
            let (mut aggregator, limiter) = aggregator(batch_bytes);
            let mut sealed = VecDeque::new();
            let mut tickets = Vec::new();
            let mut expected = Vec::new();
            for (n, (key, size, explicit, lingered)) in (0u32..).zip(records) {
                let plain = record(&key, vec![n as u8; size]);
                let hash = explicit.then(|| HashKey::new(u128::from(n)));
                let record = hash.map_or(plain.clone(), |hash| plain.clone().with_explicit_hash(hash));
                limiter.try_take(&record).unwrap();
                tickets.push(aggregator.push(&record, None, &mut sealed));
                expected.push((key, plain.data().clone(), hash));
                if lingered {
                    aggregator.seal(&mut sealed);
                }
            }
            aggregator.seal(&mut sealed);
            let mut found = Vec::new();
            for (number, batch) in (1..).zip(&sealed) {
                prop_assert_eq!(batch.number(), number);
                prop_assert!(batch.bytes() <= batch_bytes || batch.records() == 1);
                Frame::decode_untrusted(batch.frame.bytes()).unwrap();
                for (at, view) in (0..).zip(batch.frame.records()) {
                    found.push((view.key.to_owned(), view.data_bytes(), batch.explicit_hash(at)));
                }
            }
            prop_assert_eq!(found, expected);
            prop_assert!(limiter.used() > 0);
            sealed.clear();
            prop_assert_eq!(limiter.used(), 0, "memory is given back");
            drop(tickets);
        }
    }

    #[test]
    fn a_record_of_the_largest_size_goes_alone() {
        let (mut aggregator, limiter) = aggregator(1024);
        let mut sealed = VecDeque::new();
        let key = "\u{10348}".repeat(256);
        for size in [1, 10 << 20, 1] {
            let record = record(&key, vec![0; size]);
            limiter.try_take(&record).unwrap();
            drop(aggregator.push(&record, None, &mut sealed));
            if size == 1 {
                aggregator.seal(&mut sealed);
            }
        }
        assert_eq!(sealed.iter().map(Batch::records).collect::<Vec<_>>(), [1, 1, 1]);
    }
}
