//! A store in memory, for tests and simulations of what stands above: it can be told to fail.

use super::{Batch, Expect, Store, Verdict};
use crate::error::{Error, ErrorKind, Result};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the clones of one store share.
#[derive(Default)]
struct Contents {
    rows: BTreeMap<Bytes, Bytes>,
    commits: usize,
    failing: Option<ErrorKind>,
}

/// A store that forgets all when its last clone is dropped. What was committed stays, whatever becomes of who did.
#[derive(Clone, Default)]
pub struct MemoryStore(Arc<Mutex<Contents>>);

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryStore").field("rows", &self.0.lock().rows.len()).finish_non_exhaustive()
    }
}

impl MemoryStore {
    /// How many groups were committed.
    #[cfg(test)]
    pub(crate) fn commits(&self) -> usize {
        self.0.lock().commits
    }
    /// From now on commits fail and change nothing, or succeed again.
    pub fn set_failing(&self, failing: bool) {
        self.0.lock().failing = failing.then_some(ErrorKind::Unavailable);
    }
    /// Commits hang until the result is dropped.
    #[cfg(test)]
    pub(crate) fn hold(&self) -> impl Drop + use<'_> {
        self.0.lock()
    }
    /// From now on commits fail, and whether they were stored is not known.
    #[cfg(test)]
    pub(crate) fn lose(&self) {
        self.0.lock().failing = Some(ErrorKind::UnknownOutcome);
    }
    /// What was committed, as the next process finds it; this one and its clones are left without it and fail.
    #[must_use]
    pub fn process_crash(&self) -> Self {
        let mut contents = self.0.lock();
        contents.failing = Some(ErrorKind::UnknownOutcome);
        let (rows, commits) = (std::mem::take(&mut contents.rows), contents.commits);
        Self(Arc::new(Mutex::new(Contents { rows, commits, failing: None })))
    }
}

impl Store for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.0.lock().rows.get(key).cloned())
    }

    fn scan(&self, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>> {
        let contents = self.0.lock();
        let from =
            contents.rows.range::<[u8], _>((std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded));
        Ok(from.take_while(|(k, _)| k.starts_with(prefix)).map(|(k, v)| (k.clone(), v.clone())).collect())
    }

    fn commit(&mut self, group: &[Batch]) -> Result<Vec<Verdict>> {
        let mut contents = self.0.lock();
        if let Some(kind) = contents.failing {
            return Err(Error::new(kind, "the store was told to fail"));
        }
        contents.commits += 1;
        let rows = &mut contents.rows;
        let verdicts = group.iter().map(|batch| {
            let holds = batch.conditions.iter().all(|(key, expect)| match expect {
                Expect::Absent => !rows.contains_key(key),
                Expect::Value(value) => rows.get(key) == Some(value),
            });
            if !holds {
                return Verdict::Refused;
            }
            for (key, value) in &batch.changes {
                match value {
                    Some(value) => rows.insert(key.clone(), value.clone()),
                    None => rows.remove(key),
                };
            }
            Verdict::Done
        });
        Ok(verdicts.collect())
    }
}
