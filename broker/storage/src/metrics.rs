//! What storage tells of itself: handles of the `metrics` facade, made once.

use metrics::{Counter, Histogram, Unit, counter, describe_counter, describe_histogram, histogram};

/// Handles; recording costs no look-up.
pub(crate) struct Metrics {
    journal: Route,
    direct: Route,
    checkpoint_seconds: Histogram,
}

struct Route {
    seconds: Histogram,
    frames: Histogram,
    bytes: Counter,
}

impl Route {
    fn new(route: &'static str) -> Self {
        Self {
            seconds: histogram!("tidemill_commit_seconds", "route" => route),
            frames: histogram!("tidemill_commit_group_frames", "route" => route),
            bytes: counter!("tidemill_commit_bytes_total", "route" => route),
        }
    }
    fn group(&self, micros: u64, frames: usize, bytes: u64) {
        self.seconds.record(micros as f64 / 1e6);
        self.frames.record(frames as f64);
        self.bytes.increment(bytes);
    }
}

impl Metrics {
    pub(crate) fn new() -> Self {
        describe_histogram!(
            "tidemill_commit_seconds",
            Unit::Seconds,
            "time from writing a group to its acknowledgement"
        );
        describe_histogram!("tidemill_commit_group_frames", Unit::Count, "frames committed by one write");
        describe_counter!("tidemill_commit_bytes_total", Unit::Bytes, "bytes of frames committed");
        describe_histogram!("tidemill_checkpoint_seconds", Unit::Seconds, "time to write a checkpoint");
        Self {
            journal: Route::new("journal"),
            direct: Route::new("direct"),
            checkpoint_seconds: histogram!("tidemill_checkpoint_seconds"),
        }
    }
    pub(crate) fn journal_group(&self, micros: u64, frames: usize, bytes: u64) {
        self.journal.group(micros, frames, bytes);
    }
    pub(crate) fn direct_group(&self, micros: u64, frames: usize, bytes: u64) {
        self.direct.group(micros, frames, bytes);
    }
    pub(crate) fn checkpoint(&self, micros: u64) {
        self.checkpoint_seconds.record(micros as f64 / 1e6);
    }
}
