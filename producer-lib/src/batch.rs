//! A batch: records on their way together, under one number, with what is owed to their tickets.
//!
//! Its bytes are fixed once it was sent and may be stored. Before that, a record whose own time is over is cut out.

use crate::error::{AttemptLog, Error};
use crate::limiter::Charge;
use crate::ticket::Obligation;
use tidemill_types::{Frame, FrameHeader, FrameWriter, HashKey, PartitionKey, Record};
use tokio::time::Instant;

/// What a ticket that fails gives back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Returned {
    Nothing,
    /// Its record.
    Record,
}

/// Whether a batch may be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It was never sent, or each time surely refused.
    NotStored,
    MaybeStored,
}

/// Records on their way together.
pub(crate) struct Batch {
    pub(crate) frame: Frame,
    /// Bytes of its records' data.
    pub(crate) data_bytes: usize,
    /// Bytes that it takes on the wire, as they count against limits.
    pub(crate) wire_bytes: usize,
    /// The few records that are not routed by their partition key.
    pub(crate) explicit: Vec<(u32, HashKey)>,
    /// The few records that have less time than the batch.
    pub(crate) own_deadlines: Vec<(u32, Instant)>,
    pub(crate) owed: Obligation,
    /// When its first record was put.
    pub(crate) since: Instant,
    pub(crate) deadline: Instant,
    pub(crate) attempts: AttemptLog,
    /// An attempt ended without an answer: it may be stored.
    pub(crate) uncertain: bool,
    pub(crate) returned: Returned,
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
    /// Records whose tickets are not answered yet.
    pub(crate) fn unanswered(&self) -> u32 {
        self.records() - self.owed.answered()
    }
    /// Where the record at `index` is routed to, if not by its partition key.
    pub(crate) fn explicit_hash(&self, index: u32) -> Option<HashKey> {
        find(&self.explicit, index)
    }
    /// When the time of the record at `index` is over, if that is its own.
    pub(crate) fn own_deadline(&self, index: u32) -> Option<Instant> {
        find(&self.own_deadlines, index)
    }
    /// Whether all records are meant for this range.
    #[cfg(feature = "aws")]
    pub(crate) fn fits(&self, range: tidemill_types::HashKeyRange) -> bool {
        let hash = |(index, record): (u32, tidemill_types::RecordView<'_>)| {
            self.explicit_hash(index).unwrap_or_else(|| HashKey::of(record.key))
        };
        (0..).zip(self.frame.records()).all(|record| range.contains(hash(record)))
    }
    /// Fails all its tickets.
    pub(crate) fn fail(self, error: &Error) {
        match self.returned {
            Returned::Nothing => self.owed.resolve(Err(error.clone())),
            Returned::Record => {
                let records: Vec<_> = self.given().collect();
                self.owed.fail_with(error, records);
            }
        }
    }
    /// Whether a record's own time is over.
    pub(crate) fn has_expired(&self, now: Instant) -> bool {
        self.own_deadlines.iter().any(|(_, deadline)| *deadline <= now)
    }
    /// Fails the records whose own time is over, and tells how many. What may be stored stays as it is, other batches lose
    /// them; one of which nothing is left is not to be sent.
    pub(crate) fn expire_some(mut self, now: Instant, sent: Sent, error: &Error) -> (u32, Option<Self>) {
        let late: Vec<u32> =
            self.own_deadlines.iter().filter(|(_, at)| *at <= now).map(|(index, _)| *index).collect();
        self.own_deadlines.retain(|(_, at)| *at > now);
        let mut failed = 0;
        for index in late {
            if self.owed.is_answered(index) {
                continue;
            }
            let record = match self.returned {
                Returned::Nothing => None,
                Returned::Record => self.given().nth(index as usize),
            };
            let told = record.map_or_else(|| error.clone(), |record| error.of_record(record));
            self.owed.fail_one(index, self.records(), told);
            failed += 1;
        }
        match sent {
            Sent::MaybeStored => (failed, Some(self)),
            Sent::NotStored => (failed, self.without_answered()),
        }
    }

    /// The same batch without the records whose tickets are answered.
    fn without_answered(self) -> Option<Self> {
        let (header, count) = (*self.frame.header(), self.records());
        let own = |index| (find(&self.explicit, index), find(&self.own_deadlines, index));
        let owns: Vec<_> = (0..count).map(own).collect();
        let mut writer = FrameWriter::with_capacity(self.bytes() - FrameHeader::BYTES);
        let (mut explicit, mut own_deadlines, mut data_bytes) = (Vec::new(), Vec::new(), 0);
        let limiter = self.owed.limiter().clone();
        let mut owed = Obligation::moved(limiter.clone());
        let origins = self.owed.into_origins(count);
        for ((record, origin), (hash, deadline)) in self.frame.records().zip(origins).zip(owns) {
            let charge = Charge::of(record.key.len(), record.data.len());
            let Some(origin) = origin else {
                limiter.release(charge);
                continue;
            };
            let index = writer.count();
            writer.push(record.key, record.data);
            data_bytes += record.data.len();
            explicit.extend(hash.map(|hash| (index, hash)));
            own_deadlines.extend(deadline.map(|deadline| (index, deadline)));
            owed.add_moved(origin, charge);
        }
        if writer.is_empty() {
            return None;
        }
        let frame = writer.finish(header.producer, header.batch_number);
        Some(Self {
            frame,
            data_bytes,
            wire_bytes: self.wire_bytes,
            explicit,
            own_deadlines,
            owed,
            since: self.since,
            deadline: self.deadline,
            attempts: self.attempts,
            uncertain: self.uncertain,
            returned: self.returned,
        })
    }

    fn given(&self) -> impl Iterator<Item = Record> {
        records_of(&self.frame, &self.explicit)
    }
}

/// The records in a frame, as they were put; they share its memory.
pub(crate) fn records_of(frame: &Frame, explicit: &[(u32, HashKey)]) -> impl Iterator<Item = Record> {
    (0..).zip(frame.records()).map(|(index, view)| {
        let hash = find(explicit, index);
        let whole = "it was put as a record";
        if view.key.is_empty() {
            let place = hash.expect("a record without a key was put with a place");
            return Record::without_key(place, view.data_bytes()).expect(whole);
        }
        let record = Record::new(PartitionKey::new(view.key).expect(whole), view.data_bytes()).expect(whole);
        hash.map_or_else(|| record.clone(), |hash| record.clone().with_explicit_hash(hash))
    })
}

fn find<T: Copy>(of_some: &[(u32, T)], index: u32) -> Option<T> {
    let found = of_some.binary_search_by_key(&index, |(at, _)| *at);
    found.ok().map(|at| of_some[at].1)
}
