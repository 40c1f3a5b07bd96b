//! The rate of one shard: so many records and bytes a second, as Amazon allows them. Pure; time comes in from outside.
//!
//! Two buckets that fill with time. What is sent may overdraw them, and nothing more is sent until the debt is paid: so a
//! record larger than a bucket is not stuck, and the rate holds over any few seconds.

use std::time::Duration;
use tokio::time::Instant;

/// Amazon's limits of one shard.
const SHARD_RECORDS_PER_S: f64 = 1000.0;
const SHARD_BYTES_PER_S: f64 = 1024.0 * 1024.0;
/// A bucket that was left alone holds this much time's worth.
const BURST: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub(crate) struct Rate {
    /// Of the shard's limits.
    share: f64,
    records: f64,
    bytes: f64,
    filled: Option<Instant>,
}

impl Rate {
    /// At so many hundredths of what a shard takes.
    pub(crate) fn percent(percent: u32) -> Self {
        Self { share: f64::from(percent) / 100.0, records: 0.0, bytes: 0.0, filled: None }
    }
    /// From when on something may be sent, if not now.
    pub(crate) fn wait_until(&mut self, now: Instant) -> Option<Instant> {
        let idle = self.filled.map_or(BURST, |filled| now.saturating_duration_since(filled)).as_secs_f64();
        self.filled = Some(now);
        let fill = |held: f64, per_s: f64| {
            let per_s = per_s * self.share;
            (held + idle * per_s).min(per_s * BURST.as_secs_f64())
        };
        (self.records, self.bytes) =
            (fill(self.records, SHARD_RECORDS_PER_S), fill(self.bytes, SHARD_BYTES_PER_S));
        let debt = |held: f64, per_s: f64| (-held).max(0.0) / (per_s * self.share);
        let debt = debt(self.records, SHARD_RECORDS_PER_S).max(debt(self.bytes, SHARD_BYTES_PER_S));
        // a timer rounds to a millisecond
        (debt > 0.001).then(|| now + Duration::from_secs_f64(debt))
    }
    /// One record of so many bytes is sent.
    pub(crate) fn spend(&mut self, bytes: usize) {
        self.records -= 1.0;
        self.bytes -= bytes as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes and records sent in 10 s by one who sends as soon as he may.
    fn sent(percent: u32, bytes: usize) -> (f64, f64) {
        let (start, mut rate) = (Instant::now(), Rate::percent(percent));
        let (mut now, mut records) = (start, 0);
        while now < start + Duration::from_secs(10) {
            match rate.wait_until(now) {
                Some(until) => now = until,
                None => {
                    rate.spend(bytes);
                    records += 1;
                }
            }
        }
        (f64::from(records) * bytes as f64, f64::from(records))
    }

    #[test]
    fn a_shard_is_sent_no_more_than_its_share() {
        let (_, records) = sent(100, 100);
        assert!((9_900.0..=10_400.0).contains(&records), "{records} small records");
        let (bytes, _) = sent(100, 51_200);
        assert!((9.9..=10.4).contains(&(bytes / SHARD_BYTES_PER_S)), "{bytes} bytes of large records");
        let (bytes, _) = sent(150, 51_200);
        assert!((14.9..=15.6).contains(&(bytes / SHARD_BYTES_PER_S)), "{bytes} bytes at one and a half");
    }

    #[test]
    fn a_record_larger_than_a_bucket_goes_and_the_next_waits_for_it() {
        let (now, mut rate) = (Instant::now(), Rate::percent(100));
        assert_eq!(rate.wait_until(now), None);
        rate.spend(1 << 20);
        let until = rate.wait_until(now).expect("it overdrew the bucket");
        assert!((700..=760).contains(&(until - now).as_millis()), "{:?}", until - now);
        assert_eq!(rate.wait_until(until), None);
    }
}
