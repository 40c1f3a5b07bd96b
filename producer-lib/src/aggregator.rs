//! The aggregator: gathers the records of one shard into batches, by size and count; the collector adds time.
//!
//! A batch is sealed when the next record would take it past its target, when it has reached it, or when it has lingered.
//! A record that is larger than the target goes alone. Batches are numbered in the order in which they are sealed.

use crate::error::AttemptLog;
use crate::limiter::Limiter;
use crate::ticket::{Obligation, Origin, Ticket};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tidemill_types::limits::FRAME_RECORDS_MAX;
use tidemill_types::{Frame, FrameHeader, FrameWriter, HashKey, ProducerId, Record, RecordView};
use tokio::time::Instant;

/// A new batch has room for at least this much, so that the first few records do not move.
const CAPACITY_BYTES_MIN: usize = 1024;

/// Records on their way together, under one number.
pub(crate) struct Batch {
    pub(crate) frame: Frame,
    /// The few records that are not routed by their partition key.
    pub(crate) explicit: Vec<(u32, HashKey)>,
    pub(crate) owed: Obligation,
    pub(crate) deadline: Instant,
    pub(crate) attempts: AttemptLog,
    /// An attempt ended without an answer: it may be stored.
    pub(crate) uncertain: bool,
}

impl Batch {
    pub(crate) fn number(&self) -> u64 {
        self.frame.header().batch_number
    }
    pub(crate) fn records(&self) -> u32 {
        self.frame.header().count
    }
    pub(crate) fn bytes(&self) -> usize {
        self.frame.bytes().len()
    }
    /// Where the record at `index` is routed to, if not by its partition key.
    pub(crate) fn explicit_hash(&self, index: u32) -> Option<HashKey> {
        let found = self.explicit.binary_search_by_key(&index, |(at, _)| *at);
        found.ok().map(|at| self.explicit[at].1)
    }
}

/// What does not change from batch to batch.
#[derive(Clone)]
pub(crate) struct Terms {
    pub(crate) producer: ProducerId,
    pub(crate) batch_bytes: usize,
    pub(crate) record_deadline: Duration,
    pub(crate) limiter: Arc<Limiter>,
}

struct Open {
    writer: FrameWriter,
    explicit: Vec<(u32, HashKey)>,
    owed: Obligation,
    since: Instant,
    deadline: Instant,
    attempts: AttemptLog,
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
    /// Adds a record that is put now and already charged; batches that it fills go to `sealed`.
    pub(crate) fn push(&mut self, record: &Record, sealed: &mut VecDeque<Batch>) -> Ticket {
        let (key, data) = (record.key().as_str(), &record.data()[..]);
        self.make_room(key.len(), data.len(), sealed);
        if self.open.is_none() {
            let now = Instant::now();
            let owed = Obligation::own(self.terms.limiter.clone());
            self.begin(now, now + self.terms.record_deadline, owed, AttemptLog::default(), data.len());
        }
        let open = self.open.as_mut().expect("begun above");
        let index = open.add(key, data, record.explicit_hash());
        let ticket = open.owed.add_own(index, Limiter::charge(key.len(), data.len()));
        self.seal_if_full(sealed);
        ticket
    }
    /// Adds a record of another batch. `terms` are that batch's deadline and history; the stricter of two counts.
    pub(crate) fn push_moved(
        &mut self,
        record: &RecordView<'_>,
        explicit: Option<HashKey>,
        origin: Origin,
        (deadline, attempts): (Instant, &AttemptLog),
        sealed: &mut VecDeque<Batch>,
    ) {
        self.make_room(record.key.len(), record.data.len(), sealed);
        if self.open.is_none() {
            let owed = Obligation::moved(self.terms.limiter.clone());
            self.begin(Instant::now(), deadline, owed, attempts.clone(), record.data.len());
        }
        let open = self.open.as_mut().expect("begun above");
        open.deadline = open.deadline.min(deadline);
        if attempts.made() > open.attempts.made() {
            open.attempts = attempts.clone();
        }
        open.add(record.key, record.data, explicit);
        open.owed.add_moved(origin, Limiter::charge(record.key.len(), record.data.len()));
        self.seal_if_full(sealed);
    }
    /// Ends the open batch, if there is one.
    pub(crate) fn seal(&mut self, sealed: &mut VecDeque<Batch>) {
        let Some(open) = self.open.take() else { return };
        self.last_body_bytes = open.writer.frame_bytes() - FrameHeader::BYTES;
        let frame = open.writer.finish(self.terms.producer, self.next_number);
        self.next_number += 1;
        let Open { explicit, owed, deadline, attempts, .. } = open;
        sealed.push_back(Batch { frame, explicit, owed, deadline, attempts, uncertain: false });
    }
    /// The completion that the open batch's tickets wait on.
    pub(crate) fn owed(&self) -> Option<&Obligation> {
        self.open.as_ref().map(|open| &open.owed)
    }

    fn make_room(&mut self, key_bytes: usize, data_bytes: usize, sealed: &mut VecDeque<Batch>) {
        let Some(open) = &self.open else { return };
        let bytes = open.writer.frame_bytes() + FrameWriter::record_bytes(key_bytes, data_bytes);
        if bytes > self.terms.batch_bytes || !open.writer.fits(key_bytes, data_bytes) {
            self.seal(sealed);
        }
    }

    fn begin(
        &mut self,
        since: Instant,
        deadline: Instant,
        owed: Obligation,
        attempts: AttemptLog,
        data_bytes: usize,
    ) {
        // as much as the last batch took: steady load does not grow its buffers step by step
        let body = self.last_body_bytes.clamp(CAPACITY_BYTES_MIN, self.terms.batch_bytes).max(data_bytes);
        let writer = FrameWriter::with_capacity(body);
        self.open = Some(Open { writer, explicit: Vec::new(), owed, since, deadline, attempts });
    }

    fn seal_if_full(&mut self, sealed: &mut VecDeque<Batch>) {
        let full = |open: &Open| {
            open.writer.frame_bytes() >= self.terms.batch_bytes || open.writer.count() >= FRAME_RECORDS_MAX
        };
        if self.open.as_ref().is_some_and(full) {
            self.seal(sealed);
        }
    }
}

impl Open {
    fn add(&mut self, key: &str, data: &[u8], explicit: Option<HashKey>) -> u32 {
        let index = self.writer.count();
        self.writer.push(key, data);
        if let Some(hash) = explicit {
            self.explicit.push((index, hash));
        }
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tidemill_types::PartitionKey;

    const MEMORY: usize = 64 << 20;

    fn aggregator(batch_bytes: usize) -> (Aggregator, Arc<Limiter>) {
        let limiter = Arc::new(Limiter::new(MEMORY));
        let producer = ProducerId::new(7);
        let record_deadline = Duration::from_secs(30);
        (Aggregator::new(Terms { producer, batch_bytes, record_deadline, limiter: limiter.clone() }), limiter)
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
                tickets.push(aggregator.push(&record, &mut sealed));
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
            drop(aggregator.push(&record, &mut sealed));
            if size == 1 {
                aggregator.seal(&mut sealed);
            }
        }
        assert_eq!(sealed.iter().map(Batch::records).collect::<Vec<_>>(), [1, 1, 1]);
    }
}
