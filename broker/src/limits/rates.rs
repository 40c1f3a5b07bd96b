//! So many a second: a bucket for each name, in one number each.
//!
//! The number is the moment at which the bucket will be full again. A call puts it off by its share of a second; if that
//! leaves more than a second to wait, the call is refused and nothing changes. So a second's worth may come at once.

//! A bucket that was not asked of for a second is full, and is forgotten: those asked of lie in a generation that lasts a
//! second, and are dropped as one with the generation after. A generation that grows too large ends early.

use parking_lot::Mutex;
use std::collections::HashMap;

const SECOND_US: u64 = 1_000_000;
/// Buckets of one generation, at most.
const BUCKETS_MAX: usize = 16_384;

#[derive(Default)]
pub(super) struct Rates(Mutex<Generations>);

#[derive(Default)]
struct Generations {
    begun_us: u64,
    /// When each will be full again.
    recent: HashMap<String, u64>,
    before: HashMap<String, u64>,
}

impl Generations {
    fn bucket(&mut self, name: String, now_us: u64) -> &mut u64 {
        if now_us.saturating_sub(self.begun_us) >= SECOND_US || self.recent.len() >= BUCKETS_MAX {
            self.before = std::mem::take(&mut self.recent);
            self.begun_us = now_us;
        }
        let before = &mut self.before;
        self.recent.entry(name).or_insert_with_key(|name| before.remove(name).unwrap_or(now_us))
    }
}

impl Rates {
    /// Whether one more of that name may come now, in microseconds of a monotonic clock; then it is counted.
    pub(super) fn admit(&self, name: String, per_s: u32, now_us: u64) -> bool {
        if per_s == 0 {
            return false;
        }
        let mut generations = self.0.lock();
        let full_at = generations.bucket(name, now_us);
        let next = (*full_at).max(now_us) + SECOND_US / u64::from(per_s);
        let is_admitted = next - now_us <= SECOND_US;
        if is_admitted {
            *full_at = next;
        }
        is_admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seconds_worth_comes_at_once_and_the_next_when_its_time_has_come() {
        let rates = Rates::default();
        let come = |now_us| rates.admit("a".into(), 5, now_us);
        assert_eq!([0; 7].map(come), [true, true, true, true, true, false, false]);
        assert!(!come(199_999), "what was refused does not put off the next");
        assert!(come(200_000) && !come(200_001));
        assert!(rates.admit("b".into(), 5, 0), "others have their own");
        assert_eq!([9_000_000; 6].map(come), [true, true, true, true, true, false], "rest is not saved up");
        assert!(!rates.admit("c".into(), 0, 0));
    }

    #[test]
    fn over_a_minute_the_rate_is_kept() {
        for per_s in [1, 3, 7, 1000] {
            let rates = Rates::default();
            let come = (0..60_000).filter(|ms| rates.admit("a".into(), per_s, ms * 1000)).count();
            let due = 60 * per_s as usize;
            assert!((due..=due + per_s as usize).contains(&come), "{come} of {due}");
        }
    }

    #[test]
    fn names_that_come_and_go_leave_nothing_behind_and_shut_nobody_out() {
        let rates = Rates::default();
        for name in 0..5 * BUCKETS_MAX as u64 {
            assert!(rates.admit(format!("x{name}"), 1, 7), "all at once");
        }
        let count = || {
            let generations = rates.0.lock();
            generations.recent.len() + generations.before.len()
        };
        assert!(count() <= 2 * BUCKETS_MAX);
        for second in 1..3 {
            assert!(rates.admit("y".into(), 1, 7 + second * SECOND_US));
        }
        assert_eq!(count(), 1, "those of the first second are gone");
    }

    #[test]
    fn a_generation_that_ends_takes_no_calls_back() {
        let rates = Rates::default();
        let come = |now_us| rates.admit("a".into(), 2, now_us);
        assert_eq!([900_000, 900_000, 900_000].map(come), [true, true, false]);
        assert_eq!([1_000_000, 1_399_999, 1_400_000, 1_500_000].map(come), [false, false, true, false]);
    }
}
