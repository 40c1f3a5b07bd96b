//! So many a second: a bucket for each name, in one number each.
//!
//! The number is the moment at which the bucket will be full again. A call puts it off by its share of a second; if that
//! leaves more than a second to wait, the call is refused and nothing changes. So a second's worth may come at once.

use parking_lot::Mutex;
use std::collections::HashMap;

const SECOND_US: u64 = 1_000_000;
/// Buckets that are not full, at most. Beyond, who has none is refused: those who fill the table do so within a second.
const BUCKETS_MAX: usize = 16_384;

#[derive(Default)]
pub(super) struct Rates(Mutex<HashMap<String, u64>>);

impl Rates {
    /// Whether one more of that name may come now, in microseconds of a monotonic clock; then it is counted.
    pub(super) fn admit(&self, name: String, per_s: u32, now_us: u64) -> bool {
        if per_s == 0 {
            return false;
        }
        let mut full_at = self.0.lock();
        if full_at.len() >= BUCKETS_MAX && !full_at.contains_key(&name) {
            full_at.retain(|_, at| *at > now_us);
            if full_at.len() >= BUCKETS_MAX {
                return false;
            }
        }
        let at = full_at.entry(name).or_insert(now_us);
        let next = (*at).max(now_us) + SECOND_US / u64::from(per_s);
        let is_admitted = next - now_us <= SECOND_US;
        if is_admitted {
            *at = next;
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
    fn names_that_come_and_go_leave_nothing_behind() {
        let rates = Rates::default();
        for name in 0..3 * BUCKETS_MAX as u64 {
            assert!(rates.admit(name.to_string(), 1000, name * 1000));
        }
        assert!(rates.0.lock().len() <= BUCKETS_MAX);
        let at_once = (0..3 * BUCKETS_MAX as u64).filter(|name| rates.admit(format!("x{name}"), 1, 1 << 40));
        assert_eq!(at_once.count(), BUCKETS_MAX);
        assert!(rates.0.lock().len() <= BUCKETS_MAX);
    }
}
