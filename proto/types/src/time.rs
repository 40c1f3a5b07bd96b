//! Time comes in through the door: nothing below `main` asks the operating system, it asks a [`Clock`].
//!
//! Wall-clock time stamps records and ages them out; it never decides correctness. Leases use the monotonic clock.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch, wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TimestampMs(u64);

impl TimestampMs {
    /// From milliseconds since the epoch.
    pub const fn new(ms: u64) -> Self {
        Self(ms)
    }
    /// Milliseconds since the epoch.
    pub const fn get(self) -> u64 {
        self.0
    }
    /// Whole seconds since the epoch.
    pub const fn seconds(self) -> u64 {
        self.0 / 1000
    }
    /// This time less `ms`, or the epoch.
    pub const fn saturating_sub_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_sub(ms))
    }
}

impl fmt::Display for TimestampMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Milliseconds on a clock that never goes back; only differences mean anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct MonotonicMs(u64);

impl MonotonicMs {
    /// From a count of milliseconds.
    pub const fn new(ms: u64) -> Self {
        Self(ms)
    }
    /// The count of milliseconds.
    pub const fn get(self) -> u64 {
        self.0
    }
    /// The moment `ms` after this one.
    pub const fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }
    /// Milliseconds from `earlier` to this moment; 0 if it is later.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Where components ask for the time. Two real implementations: [`SystemClock`], to which a broker adds a clock that goes on
/// while its host sleeps, and [`ManualClock`].
pub trait Clock: Send + Sync + 'static {
    /// Wall-clock time.
    fn now(&self) -> TimestampMs;
    /// Monotonic time.
    fn monotonic(&self) -> MonotonicMs;
    /// Monotonic time that goes on while the host sleeps, where there is such a clock: beside it the wall clock runs evenly unless
    /// somebody sets it. Its zero is its own.
    fn monotonic_with_sleep(&self) -> MonotonicMs {
        self.monotonic()
    }
    /// Monotonic time in microseconds, for measuring.
    fn monotonic_us(&self) -> u64 {
        self.monotonic().get().saturating_mul(1000)
    }
}

/// The operating system's clocks.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// A clock whose monotonic zero is now.
    #[allow(clippy::disallowed_methods)] // the one place that asks the operating system
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods)]
    fn now(&self) -> TimestampMs {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        TimestampMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
    fn monotonic(&self) -> MonotonicMs {
        MonotonicMs(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
    fn monotonic_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// A clock that stands still until a test moves it.
#[derive(Debug)]
pub struct ManualClock {
    wall: AtomicU64,
    monotonic: AtomicU64,
}

impl ManualClock {
    /// A clock that shows `wall`, with monotonic time 0.
    pub fn new(wall: TimestampMs) -> Self {
        Self { wall: AtomicU64::new(wall.0), monotonic: AtomicU64::new(0) }
    }
    /// Moves both clocks forward.
    pub fn advance_ms(&self, ms: u64) {
        self.wall.fetch_add(ms, Ordering::SeqCst);
        self.monotonic.fetch_add(ms, Ordering::SeqCst);
    }
    /// Sets the wall clock, forward or back, and leaves the monotonic one alone.
    pub fn set_wall(&self, wall: TimestampMs) {
        self.wall.store(wall.0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> TimestampMs {
        TimestampMs(self.wall.load(Ordering::SeqCst))
    }
    fn monotonic(&self) -> MonotonicMs {
        MonotonicMs(self.monotonic.load(Ordering::SeqCst))
    }
}
