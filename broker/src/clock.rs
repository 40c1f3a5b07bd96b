//! The clocks of the host a broker runs on: those of [`SystemClock`], and one that goes on while the host sleeps.
//!
//! Why: a laptop that was closed for a night is not one whose clock was set. What waits (leases, producers that are silent) goes
//! by the time that the host was awake.

use tidemill_types::{Clock, MonotonicMs, SystemClock, TimestampMs};

/// The clocks of this host.
#[derive(Debug, Default)]
pub(crate) struct HostClock(SystemClock);

impl Clock for HostClock {
    fn now(&self) -> TimestampMs {
        self.0.now()
    }
    fn monotonic(&self) -> MonotonicMs {
        self.0.monotonic()
    }
    #[cfg(any(target_os = "linux", target_vendor = "apple"))]
    fn monotonic_with_sleep(&self) -> MonotonicMs {
        #[cfg(target_os = "linux")]
        const GOES_ON: rustix::time::ClockId = rustix::time::ClockId::Boottime;
        #[cfg(target_vendor = "apple")]
        const GOES_ON: rustix::time::ClockId = rustix::time::ClockId::Monotonic;
        let since_boot = rustix::time::clock_gettime(GOES_ON);
        let ms = since_boot.tv_sec.saturating_mul(1000).saturating_add(since_boot.tv_nsec / 1_000_000);
        MonotonicMs::new(u64::try_from(ms).unwrap_or_default())
    }
    fn monotonic_us(&self) -> u64 {
        self.0.monotonic_us()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn both_monotonic_clocks_go_on_alike_while_the_host_is_awake() {
        let clock = HostClock::default();
        let begun = (clock.monotonic(), clock.monotonic_with_sleep());
        std::thread::sleep(Duration::from_millis(50));
        let (awake, all) = (clock.monotonic().since(begun.0), clock.monotonic_with_sleep().since(begun.1));
        assert!(awake >= 50 && awake.abs_diff(all) < 1000, "{awake} ms and {all} ms");
    }
}
