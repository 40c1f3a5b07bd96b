//! When to try again: exponential back-off with full jitter, so that many clients that failed together do not come back
//! together. Chance comes in from outside.

use rand::{Rng, RngExt};
use std::time::Duration;

/// How long to wait before each repetition, and how often to repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Longest wait before the first repetition; doubles with each.
    pub base: Duration,
    /// Longest wait before any repetition.
    pub cap: Duration,
    /// Most attempts, the first included; at least one is made.
    pub attempts_max: u32,
}

impl Backoff {
    /// A random wait before repetition `number` (1, 2, …): anything from nothing to the doubled base, at most the cap.
    pub fn wait(&self, number: u32, rng: &mut impl Rng) -> Duration {
        let doublings = number.saturating_sub(1).min(31);
        let longest = self.base.saturating_mul(1 << doublings).min(self.cap);
        longest.mul_f64(rng.random_range(0.0..=1.0))
    }
    /// The wait after `attempts` failed attempts, or nothing when no more are to be made.
    pub fn after(&self, attempts: u32, rng: &mut impl Rng) -> Option<Duration> {
        (attempts < self.attempts_max).then(|| self.wait(attempts, rng))
    }
}

impl Default for Backoff {
    /// 20 ms, doubling up to 1 s, six attempts.
    fn default() -> Self {
        Self { base: Duration::from_millis(20), cap: Duration::from_secs(1), attempts_max: 6 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    #[test]
    fn waits_grow_to_the_cap_and_spread_below_it() {
        let backoff = Backoff::default();
        let mut rng = StdRng::seed_from_u64(1);
        for (number, longest_ms) in
            [(1, 20), (2, 40), (3, 80), (6, 640), (7, 1000), (40, 1000), (u32::MAX, 1000)]
        {
            let waits: Vec<_> = (0..500).map(|_| backoff.wait(number, &mut rng)).collect();
            let longest = Duration::from_millis(longest_ms);
            assert!(waits.iter().all(|wait| *wait <= longest));
            assert!(waits.iter().any(|wait| *wait > longest / 2), "no wait above half of {longest:?}");
            assert!(waits.iter().any(|wait| *wait < longest / 2), "no wait below half of {longest:?}");
        }
    }

    #[test]
    fn attempts_are_bounded() {
        let mut rng = StdRng::seed_from_u64(1);
        let backoff = Backoff { attempts_max: 3, ..Backoff::default() };
        assert!(backoff.after(2, &mut rng).is_some());
        assert!(backoff.after(3, &mut rng).is_none());
    }
}
