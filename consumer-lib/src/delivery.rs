//! Delivers a batch until every record of it is processed, or given up as the application wants.
//!
//! ```text
//!  batch ─► process ─ok──────────────────────────────────────────────────────────► done
//!             │ ▲                                        ┌─► skip ───────────────┐
//!       fails │ │ again, after a pause                   ├─► dead letter, until put ┴─► the rest
//!             ▼ │                                        │
//!        so often in a row, and the record is known? ─yes┼─► stop the shard, until resumed ─► again
//!               └─no─► record by record from here on     └
//! ```
//!
//! A plan of what is left and who failed how often, kept apart from calls and clocks so that it is tested without them.

use crate::failure::{OnFailure, Policy};
use crate::processor::ProcessError;
use crate::record::{Batch, Record};
use tidemill_types::AnySequenceNumber;

/// A place in a shard: number and sub-sequence number.
pub(crate) type Place = (AnySequenceNumber, u64);

/// What is left of a batch.
#[derive(Debug)]
pub(crate) struct Delivery {
    rest: Batch,
    /// The batch failed as often as it may, and nobody knows which record it was.
    one_by_one: bool,
    /// Failures in a row of the record at this place; of the whole unit, if nobody said which.
    failures: (Option<Place>, u32),
}

/// What to do after a failure.
#[derive(Debug)]
pub(crate) enum Next {
    /// Call the processor again, after a pause.
    Again,
    /// Records up to this one are processed; call it with the rest, after a pause.
    Behind(Option<Place>),
    /// Go on record by record, at once.
    OneByOne,
    /// This record is to be given up, after so many attempts.
    GiveUp(Box<Record>, u32),
    /// Records up to this one are processed; the shard is to be stopped until somebody resumes it.
    Stop(Option<Place>),
}

impl Delivery {
    pub(crate) fn new(batch: Batch) -> Self {
        Self { rest: batch, one_by_one: false, failures: (None, 0) }
    }
    /// What the processor is to be called with; nothing if every record left is skipped.
    pub(crate) fn unit(&self) -> Option<Batch> {
        if self.one_by_one { self.rest.first_alone() } else { Some(self.rest.clone()) }
            .filter(|unit| !unit.is_empty())
    }
    /// Failures in a row of what is delivered now.
    pub(crate) fn failures(&self) -> u32 {
        self.failures.1
    }
    /// Records up to and including this one are done. `None` when nothing is left.
    pub(crate) fn done(self, up_to: Place) -> Option<Self> {
        let Self { rest, one_by_one, .. } = self;
        Some(Self { rest: rest.behind(Some(up_to))?, one_by_one, failures: (None, 0) })
    }
    /// The shard was resumed: attempts count anew.
    pub(crate) fn resumed(&mut self) {
        self.failures = (None, 0);
    }

    /// The processor failed on `unit`.
    pub(crate) fn failed(&mut self, unit: &Batch, error: &ProcessError, policy: &OnFailure) -> Next {
        let named = error.place().and_then(|place| unit.records().find(|record| record.place() == place));
        let culprit = named.or_else(|| if unit.len() == 1 { unit.records().next() } else { None });
        let place = culprit.as_ref().map(Record::place);
        if self.failures.0 != place {
            self.failures = (place, 0);
        }
        self.failures.1 = self.failures.1.saturating_add(1);
        let failures = self.failures.1;
        let before = culprit.as_ref().and_then(|culprit| before(unit, culprit.place()));
        if policy.attempts().is_none_or(|attempts| failures < attempts.get()) {
            return if before.is_some() { Next::Behind(before) } else { Next::Again };
        }
        match (culprit, &policy.0) {
            (None, _) => {
                self.one_by_one = true;
                self.failures = (None, 0);
                Next::OneByOne
            }
            (Some(_), Policy::StopShard(_)) => Next::Stop(before),
            (Some(culprit), _) => Next::GiveUp(Box::new(culprit), failures),
        }
    }

    /// As [`Delivery::done`], for records that the processor said are processed while a later one failed: what that one has
    /// on its account stays.
    pub(crate) fn processed_before(&mut self, up_to: Place) {
        if let Some(rest) = self.rest.clone().behind(Some(up_to)) {
            self.rest = rest;
        }
    }
}

/// The last record of a batch in front of a place.
fn before(unit: &Batch, place: Place) -> Option<Place> {
    unit.records().map(|record| record.place()).take_while(|other| *other < place).last()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::{at, shard};
    use crate::record::{Lens, Misrouted, StoredRecord};
    use bytes::Bytes;
    use tidemill_types::TimestampMs;

    fn batch(names: &[&str]) -> Batch {
        let stored = (1u64..).zip(names).map(|(number, name)| StoredRecord {
            number: number.to_string().parse().unwrap(),
            arrival: TimestampMs::new(5),
            key: Bytes::from("key"),
            data: Bytes::copy_from_slice(name.as_bytes()),
        });
        Batch::of_stored(Lens::new(at(0), &shard(0), Misrouted::Deliver), stored.collect(), None).unwrap()
    }

    /// Runs a delivery against a processor that fails on `poison` for ever; what it processed, what was given up, and how
    /// often it was called.
    fn run(
        names: &[&str],
        poison: &str,
        tells: bool,
        policy: &OnFailure,
    ) -> (Vec<String>, Vec<(String, u32)>, u32) {
        let text = |record: &Record| String::from_utf8(record.data().to_vec()).unwrap();
        let (mut processed, mut given_up, mut calls) = (Vec::new(), Vec::new(), 0);
        let mut left = Some(Delivery::new(batch(names)));
        while let Some(mut delivery) = left.take() {
            let unit = delivery.unit().unwrap();
            calls += 1;
            assert!(calls < 1000, "it never ends");
            let Some(culprit) = unit.records().find(|record| text(record) == poison) else {
                processed.extend(unit.records().map(|record| text(&record)));
                left = delivery.done(unit.last_place());
                continue;
            };
            let error = ProcessError::new("poison");
            let error = if tells { error.at(&culprit) } else { error };
            left = match delivery.failed(&unit, &error, policy) {
                Next::Again | Next::OneByOne => Some(delivery),
                Next::Behind(up_to) => {
                    let up_to = up_to.unwrap();
                    processed
                        .extend(unit.records().filter(|r| r.place() <= up_to).map(|record| text(&record)));
                    delivery.processed_before(up_to);
                    Some(delivery)
                }
                Next::GiveUp(record, attempts) => {
                    processed.extend(unit.records().filter(|r| r.place() < record.place()).map(|r| text(&r)));
                    given_up.push((text(&record), attempts));
                    delivery.done(record.place())
                }
                Next::Stop(up_to) => {
                    processed.extend(
                        unit.records().filter(|r| Some(r.place()) <= up_to).map(|record| text(&record)),
                    );
                    given_up.push(("stopped".to_owned(), delivery.failures()));
                    None
                }
            };
        }
        (processed, given_up, calls)
    }

    const NAMES: [&str; 5] = ["a", "b", "bad", "c", "d"];

    #[test]
    fn only_the_record_that_fails_is_given_up_whether_the_processor_names_it_or_not() {
        for tells in [true, false] {
            let (processed, given_up, calls) = run(&NAMES, "bad", tells, &OnFailure::skip_after(3).unwrap());
            assert_eq!(processed, ["a", "b", "c", "d"], "named: {tells}");
            assert_eq!(given_up, [("bad".to_owned(), 3)]);
            // named: three attempts and the rest; else three of the batch, two records, three attempts, two records
            assert_eq!(calls, if tells { 4 } else { 10 });
        }
    }

    #[test]
    fn a_shard_is_stopped_at_the_record_that_fails_and_what_is_before_it_is_processed() {
        for (tells, attempts) in [(true, 1), (true, 2), (false, 2)] {
            let policy = OnFailure::stop_shard_after(attempts).unwrap();
            let (processed, given_up, _) = run(&NAMES, "bad", tells, &policy);
            assert_eq!(processed, ["a", "b"], "named: {tells}");
            assert_eq!(given_up, [("stopped".to_owned(), attempts)]);
        }
    }

    #[test]
    fn without_a_policy_it_is_tried_again_for_ever_and_nothing_is_given_up() {
        let mut delivery = Delivery::new(batch(&NAMES));
        let unit = delivery.unit().unwrap();
        for _ in 0..10_000 {
            let next = delivery.failed(&unit, &ProcessError::new("no"), &OnFailure::retry());
            assert!(matches!(next, Next::Again));
        }
        assert_eq!(delivery.unit().unwrap().len(), NAMES.len());
    }

    #[test]
    fn attempts_of_one_record_are_not_counted_against_another() {
        let mut delivery = Delivery::new(batch(&NAMES));
        let policy = OnFailure::skip_after(2).unwrap();
        let unit = delivery.unit().unwrap();
        let fail = |delivery: &mut Delivery, index: usize| {
            let record = unit.records().nth(index).unwrap();
            delivery.failed(&unit, &ProcessError::new("no").at(&record), &policy)
        };
        assert!(matches!(fail(&mut delivery, 1), Next::Behind(Some(_))));
        assert!(matches!(fail(&mut delivery, 3), Next::Behind(Some(_))));
        assert!(matches!(fail(&mut delivery, 3), Next::GiveUp(_, 2)));
    }

    #[test]
    fn a_name_that_is_not_in_the_batch_counts_as_none() {
        let mut delivery = Delivery::new(batch(&NAMES[..2]));
        let unit = delivery.unit().unwrap();
        let stranger = batch(&NAMES).records().last().unwrap();
        let next = delivery.failed(
            &unit,
            &ProcessError::new("no").at(&stranger),
            &OnFailure::skip_after(1).unwrap(),
        );
        assert!(matches!(next, Next::OneByOne));
    }
}
