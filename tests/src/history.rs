//! The checker: what was acknowledged, seen or refused, against what is stored in the end.
//!
//! ```text
//!  acknowledged  → stored exactly once, in that shard, under that number
//!  seen          → likewise: nobody reads a record that can still be lost
//!  uncertain     → stored at most once
//!  refused       → not stored
//!  stored        → numbers of a shard rise strictly; each is a record that somebody put
//! ```

use anyhow::{Result, bail, ensure};
use std::collections::{HashMap, HashSet};
use tidemill_types::{SequenceNumber, ShardId};

/// Lost records that are named.
const SHOWN_MAX: usize = 20;

/// A record as it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Its shard.
    pub shard: ShardId,
    /// Its sequence number.
    pub number: SequenceNumber,
    /// Whose payload it has.
    pub id: u64,
}

/// What clients were told, by the ids of payloads.
#[derive(Debug, Default)]
pub struct History {
    acknowledged: HashMap<u64, Stored>,
    seen: HashMap<u64, Stored>,
    uncertain: HashSet<u64>,
    refused: HashSet<u64>,
}

/// The figures of a history that held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Records whose writers were told that they are stored.
    pub acknowledged: usize,
    /// Records that a reader saw while writers were at work.
    pub seen: usize,
    /// Records whose writers know nothing, that are stored.
    pub uncertain_stored: usize,
    /// Records whose writers know nothing, that are not stored.
    pub uncertain_lost: usize,
}

impl History {
    /// A writer was told that its record is stored there. Telling it twice with another place is a failure.
    pub fn acknowledged(&mut self, stored: Stored) -> Result<()> {
        note(&mut self.acknowledged, stored)
    }

    /// A reader was given the record. Giving it twice under another number is a failure.
    pub fn seen(&mut self, stored: Stored) -> Result<()> {
        note(&mut self.seen, stored)
    }

    /// The writer does not know whether it is stored.
    pub fn uncertain(&mut self, id: u64) {
        self.uncertain.insert(id);
    }

    /// The writer was told that it is not stored.
    pub fn refused(&mut self, id: u64) {
        self.refused.insert(id);
    }

    /// Records acknowledged so far.
    pub fn acknowledged_count(&self) -> usize {
        self.acknowledged.len()
    }

    /// The ids of all records acknowledged so far.
    pub fn acknowledged_ids(&self) -> Vec<u64> {
        self.acknowledged.keys().copied().collect()
    }

    /// The same history, had nobody been told of the records that are not among these: for what damage may take.
    #[must_use]
    pub fn without_missing(&self, there: &HashSet<u64>) -> Self {
        let kept = |told: &HashMap<u64, Stored>| {
            told.iter().filter(|(id, _)| there.contains(id)).map(|(id, stored)| (*id, *stored)).collect()
        };
        Self {
            acknowledged: kept(&self.acknowledged),
            seen: kept(&self.seen),
            uncertain: self.uncertain.clone(),
            refused: self.refused.clone(),
        }
    }

    /// Checks everything against what is stored: each shard's records in the order in which they are read.
    pub fn verify(&self, stored: &[Stored]) -> Result<Verified> {
        let mut last: HashMap<ShardId, SequenceNumber> = HashMap::new();
        let mut found: HashMap<u64, Stored> = HashMap::new();
        for record in stored {
            if let Some(before) = last.insert(record.shard, record.number) {
                ensure!(before < record.number, "{} follows {before} in {}", record.number, record.shard);
            }
            ensure!(record.number.shard() == record.shard, "{record:?} was read from another shard");
            if let Some(first) = found.insert(record.id, *record) {
                bail!("record {:x} is stored twice: {first:?} and {record:?}", record.id);
            }
        }
        let all = [("acknowledged", &self.acknowledged), ("seen by a reader", &self.seen)];
        for (what, told) in all {
            let mut missing: Vec<_> = told.values().filter(|told| !found.contains_key(&told.id)).collect();
            missing.sort_by_key(|told| (told.shard, told.number));
            let count = missing.len();
            missing.truncate(SHOWN_MAX);
            ensure!(count == 0, "{count} of {} records {what} are lost, such as {missing:?}", told.len());
            for (id, told) in told {
                let is = found[id];
                ensure!(is == *told, "record {id:x} was {what} as {told:?}, and now is {is:?}");
            }
        }
        let mut numbers: HashMap<SequenceNumber, u64> = HashMap::new();
        for (id, told) in self.acknowledged.iter().chain(&self.seen) {
            if let Some(other) = numbers.insert(told.number, *id).filter(|other| other != id) {
                bail!("the number {} was used for {other:x} and {id:x}", told.number);
            }
        }
        if let Some(id) = self.refused.iter().find(|id| found.contains_key(id)) {
            bail!("record {id:x} was refused, yet it is stored");
        }
        let known = |id: &u64| self.acknowledged.contains_key(id) || self.uncertain.contains(id);
        if let Some(id) = found.keys().find(|id| !known(id)) {
            bail!("record {id:x} is stored, but nobody put it");
        }
        let uncertain_stored = self.uncertain.iter().filter(|id| found.contains_key(id)).count();
        Ok(Verified {
            acknowledged: self.acknowledged.len(),
            seen: self.seen.len(),
            uncertain_stored,
            uncertain_lost: self.uncertain.len() - uncertain_stored,
        })
    }
}

fn note(told: &mut HashMap<u64, Stored>, stored: Stored) -> Result<()> {
    if let Some(before) = told.insert(stored.id, stored).filter(|before| *before != stored) {
        bail!("record {:x} was told as {before:?}, then as {stored:?}", stored.id);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_types::{SequenceIndex, TimestampMs};

    fn stored(shard: u32, index: u64, id: u64) -> Stored {
        let (time, shard) = (TimestampMs::new(5000), ShardId::new(shard).unwrap());
        let number = SequenceNumber::new(time, shard, SequenceIndex::new(index).unwrap(), time);
        Stored { shard, number, id }
    }

    fn history() -> History {
        let mut history = History::default();
        for record in [stored(0, 1, 10), stored(0, 2, 20), stored(1, 1, 30)] {
            history.acknowledged(record).unwrap();
        }
        history.uncertain(40);
        history.uncertain(41);
        history.refused(50);
        history
    }

    #[test]
    fn a_history_that_holds_is_counted() {
        let read = [stored(0, 1, 10), stored(1, 1, 30), stored(0, 2, 20), stored(1, 2, 41)];
        let expected = Verified { acknowledged: 3, seen: 0, uncertain_stored: 1, uncertain_lost: 1 };
        assert_eq!(history().verify(&read).unwrap(), expected);
    }

    #[test]
    fn every_broken_promise_is_told() {
        let (a, b, c) = (stored(0, 1, 10), stored(0, 2, 20), stored(1, 1, 30));
        let broken: [(&str, Vec<Stored>); 7] = [
            ("lost", vec![a, c]),
            ("stored twice", vec![a, b, stored(0, 3, 10), c]),
            ("follows", vec![b, a, c]),
            ("now is", vec![a, stored(0, 3, 20), c]),
            ("refused", vec![a, b, c, stored(1, 2, 50)]),
            ("nobody put it", vec![a, b, c, stored(1, 2, 60)]),
            ("follows", vec![a, b, stored(0, 2, 41), c]),
        ];
        for (word, read) in broken {
            let error = history().verify(&read).unwrap_err().to_string();
            assert!(error.contains(word), "{word}: {error}");
        }
    }

    #[test]
    fn a_number_told_to_two_writers_or_a_reader_that_saw_what_is_gone_is_told() {
        let mut seen = history();
        seen.seen(stored(1, 2, 40)).unwrap();
        let read = [stored(0, 1, 10), stored(0, 2, 20), stored(1, 1, 30)];
        assert!(seen.verify(&read).unwrap_err().to_string().contains("seen by a reader are lost"));
        assert!(history().acknowledged(stored(0, 7, 10)).is_err());
    }
}
