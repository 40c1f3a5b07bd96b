//! An open loop: when each record is due, whatever became of those before it.
//!
//! Latency is counted from the time a record was due. A broker that stalls thereby lengthens the latency of everything that
//! was due meanwhile, instead of being asked less (what is known as coordinated omission).
//!
//! ```text
//!  a thread that sleeps exactly ─► due times ─► lane 0 ─► put
//!   (tokio's timer has 1 ms)            └─────► lane 1 ─► put
//! ```

use super::meter::{Meter, Window};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Due records of a lane that wait for it; when it is full, the thread waits too, and nothing is left out.
const DUE_WAITING_MAX: usize = 65_536;
/// What was not sent so long after the end never will be.
const OVERTIME: Duration = Duration::from_secs(30);
/// A finished measurement is noticed in this time, however low the rate.
const NAP_MAX: Duration = Duration::from_millis(50);

/// The due times of one connection.
pub(super) struct Lane {
    due: mpsc::Receiver<Instant>,
    late_after: Instant,
}

/// Begins to pace records over so many lanes in turn.
pub(super) fn start(rate: u32, lanes: usize, window: &Arc<Window>) -> Vec<Lane> {
    let (senders, lanes): (Vec<_>, Vec<_>) = (0..lanes)
        .map(|_| {
            let (sender, due) = mpsc::channel(DUE_WAITING_MAX);
            (sender, Lane { due, late_after: window.closes() + OVERTIME })
        })
        .unzip();
    let window = Arc::clone(window);
    tokio::task::spawn_blocking(move || pace(rate, &senders, &window));
    lanes
}

fn pace(rate: u32, lanes: &[mpsc::Sender<Instant>], window: &Window) {
    sleep_exactly();
    let began = Instant::now();
    for (turn, lane) in (0..).zip(lanes.iter().cycle()) {
        let at = began + Duration::from_nanos(due_ns(turn, rate));
        loop {
            // as many as are to be counted have been, or the lanes are gone
            if window.is_full() || lane.is_closed() || at >= window.closes() {
                return;
            }
            let left = at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            std::thread::sleep(left.min(NAP_MAX));
        }
        if lane.blocking_send(at).is_err() {
            return;
        }
    }
}

/// Linux ends a sleep up to 50 µs late on purpose, which would count as latency of every record. Where that cannot be asked
/// for, it does.
fn sleep_exactly() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1)) {
        tracing::debug!(%error, "sleeps end late; latencies are told up to 50 µs too high");
    }
}

/// Nanoseconds from the beginning to the record of this turn.
fn due_ns(turn: u64, rate: u32) -> u64 {
    let ns = u128::from(turn) * 1_000_000_000 / u128::from(rate.max(1));
    u64::try_from(ns).unwrap_or(u64::MAX)
}

impl Lane {
    /// When the next record was due, once it is; none when no more are. What can no longer be sent is an error each.
    pub(super) async fn next(&mut self, meter: &mut Meter) -> Option<Instant> {
        while let Some(at) = self.due.recv().await {
            if Instant::now() < self.late_after {
                return Some(at);
            }
            meter.failed(1, format!("not sent {OVERTIME:?} after the end: --rate is more than is taken"));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_due_evenly_and_without_drift() {
        assert_eq!(due_ns(0, 3), 0);
        assert_eq!(due_ns(3, 3), 1_000_000_000);
        assert_eq!(due_ns(3_000_000_001, 3), 1_000_000_000_333_333_333);
    }

    #[tokio::test]
    async fn all_that_was_due_within_the_window_comes_however_slowly_it_is_taken() {
        let window = Window::after(Duration::ZERO, Duration::from_millis(50), u64::MAX);
        let mut meter = Meter::new(window.clone());
        let mut lanes = start(2_000, 2, &window);
        tokio::time::sleep(Duration::from_millis(80)).await;
        let mut due = Vec::new();
        for lane in &mut lanes {
            while let Some(at) = lane.next(&mut meter).await {
                due.push(at);
            }
        }
        due.sort();
        // the thread begins a little after the window
        assert!((50..=100).contains(&due.len()), "{}", due.len());
        assert!(due.windows(2).all(|pair| pair[1] - pair[0] == Duration::from_micros(500)));
        assert_eq!(meter.errors(), 0);
    }
}
