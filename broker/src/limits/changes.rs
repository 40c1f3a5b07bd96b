//! So many in any 24 hours, of those that happened.

use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use tidemill_types::MonotonicMs;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// Streams whose changes are remembered. Beyond, those that changed longest ago are forgotten.
const REMEMBERED_MAX: usize = 32_768;

/// What may be changed only so often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    ShardCount,
    Mode,
    Encryption,
}

impl Change {
    pub(super) const fn noun(self) -> &'static str {
        match self {
            Self::ShardCount => "shard count",
            Self::Mode => "mode",
            Self::Encryption => "encryption",
        }
    }
}

/// When each of them happened, oldest first.
#[derive(Clone, Default)]
pub(super) struct Changes(Arc<Mutex<HashMap<String, VecDeque<MonotonicMs>>>>);

/// Leave for one change.
#[must_use]
pub(crate) struct Turn {
    of: Option<(Changes, String, MonotonicMs)>,
}

impl Turn {
    /// The change has happened, so it counts.
    pub(crate) fn happened(mut self) {
        self.of = None;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some((changes, name, at)) = self.of.take() else { return };
        let mut past = changes.0.lock();
        let Some(times) = past.get_mut(&name) else { return };
        if let Some(index) = times.iter().rposition(|time| *time == at) {
            times.remove(index);
        }
        if times.is_empty() {
            past.remove(&name);
        }
    }
}

impl Changes {
    /// Leave for one more of that name, or how many there may be.
    pub(super) fn take(&self, name: String, per_day: Option<u32>, now: MonotonicMs) -> Result<Turn, u32> {
        let Some(per_day) = per_day else { return Ok(Turn { of: None }) };
        let mut past = self.0.lock();
        if past.len() >= REMEMBERED_MAX && !past.contains_key(&name) {
            forget(&mut past, now);
        }
        let times = past.entry(name.clone()).or_default();
        while times.front().is_some_and(|time| now.since(*time) >= DAY_MS) {
            times.pop_front();
        }
        if times.len() >= per_day as usize {
            return Err(per_day);
        }
        times.push_back(now);
        Ok(Turn { of: Some((self.clone(), name, now)) })
    }
}

/// Makes room: what is over, or else the eighth that changed longest ago.
fn forget(past: &mut HashMap<String, VecDeque<MonotonicMs>>, now: MonotonicMs) {
    let last = |times: &VecDeque<MonotonicMs>| times.back().copied().unwrap_or_default();
    past.retain(|_, times| now.since(last(times)) < DAY_MS);
    if past.len() < REMEMBERED_MAX {
        return;
    }
    let mut ends: Vec<_> = past.values().map(last).collect();
    let (_, bound, _) = ends.select_nth_unstable(REMEMBERED_MAX / 8);
    let (bound, mut left) = (*bound, REMEMBERED_MAX / 8);
    past.retain(|_, times| {
        let goes = left > 0 && last(times) <= bound;
        left -= usize::from(goes);
        !goes
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 60 * 60 * 1000;

    #[test]
    fn the_window_rolls() {
        let changes = Changes::default();
        let change = |hour: u64| {
            let taken = changes.take("a".into(), Some(2), MonotonicMs::new(hour * HOUR_MS));
            taken.map(Turn::happened).is_ok()
        };
        assert_eq!([0, 12, 13, 23].map(change), [true, true, false, false]);
        assert_eq!([24, 25, 35, 36].map(change), [true, false, false, true]);
        assert!(changes.take("b".into(), Some(1), MonotonicMs::new(0)).is_ok());
        assert!(changes.take("a".into(), None, MonotonicMs::new(0)).is_ok(), "no limit");
        assert!(matches!(changes.take("c".into(), Some(0), MonotonicMs::new(0)), Err(0)));
    }

    #[test]
    fn what_did_not_happen_does_not_count() {
        let changes = Changes::default();
        let now = MonotonicMs::new(7);
        let first = changes.take("a".into(), Some(1), now).unwrap();
        assert!(changes.take("a".into(), Some(1), now).is_err(), "another is under way");
        drop(first);
        assert!(changes.0.lock().is_empty());
        changes.take("a".into(), Some(1), now).unwrap().happened();
        assert!(changes.take("a".into(), Some(1), now).is_err());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let changes = Changes::default();
        for at in 0..2 * REMEMBERED_MAX as u64 {
            changes.take(at.to_string(), Some(1), MonotonicMs::new(at)).unwrap().happened();
        }
        assert!(changes.0.lock().len() <= REMEMBERED_MAX);
        let newest = (2 * REMEMBERED_MAX as u64 - 1).to_string();
        assert!(changes.take(newest, Some(1), MonotonicMs::new(1 << 20)).is_err(), "the newest are kept");
    }
}
