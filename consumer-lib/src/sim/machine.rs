//! A machine of the simulation: a runtime of its own, with a clock of its own that stands still unless it is driven.
//!
//! A process that was stopped (SIGSTOP) is a machine that was not driven for a while: when it goes on, nothing of it has run
//! and its clock has jumped.

use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, advance, sleep_until};

/// Time on one machine, as time since the simulation began: the same for all machines that are driven.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    base: Instant,
    begins: Duration,
}

impl Clock {
    /// Must be called on the machine.
    pub(super) fn now(&self) -> Duration {
        self.begins + (Instant::now() - self.base)
    }
    pub(super) fn instant(&self, at: Duration) -> Instant {
        self.base + at.saturating_sub(self.begins)
    }
}

#[derive(Debug)]
pub(super) struct Machine {
    pub(super) runtime: Runtime,
    pub(super) clock: Clock,
}

impl Machine {
    /// Switched on now.
    pub(super) fn new(begins: Duration) -> Self {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let base = runtime.block_on(async { Instant::now() });
        Self { runtime, clock: Clock { base, begins } }
    }
    /// Lets it run until a moment.
    pub(super) fn drive(&self, until: Duration) {
        self.runtime.block_on(async { sleep_until(self.clock.instant(until)).await });
    }
    /// It was stopped until now; it goes on when it is driven next.
    pub(super) fn skip_to(&self, now: Duration) {
        self.runtime.block_on(async { advance(now.saturating_sub(self.clock.now())).await });
    }
}
