//! What one measurement is made with, and the stage it is played on: the stream, the window, the bar that shows it.

use super::args::{Target, Workload};
use super::meter::{Meter, Window};
use super::progress::{Bar, Progress};
use std::sync::Arc;
use std::time::Duration;
use tidemill_types::StreamName;

/// Filling takes no longer than this.
const FILL_TIME: Duration = Duration::from_secs(30);

/// One measurement.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) workload: Workload,
    pub(super) target: Target,
    pub(super) record_bytes: u32,
    pub(super) shards: u32,
    pub(super) connections: u32,
    pub(super) readers: u32,
    /// Records a second of all connections together; none: as many as are acknowledged.
    pub(super) rate: Option<u32>,
    /// None: as the producer library has it.
    pub(super) linger: Option<Duration>,
    /// Of one PutRecords.
    pub(super) batch_records: usize,
    pub(super) warmup: Duration,
    pub(super) time: Duration,
    /// Counted ones.
    pub(super) records_max: u64,
    pub(super) fill_records: u64,
}

impl Plan {
    pub(super) fn has_readers(&self) -> bool {
        self.workload == Workload::Fanout
    }
}

/// A plan under way on a stream of its own.
pub(super) struct Stage {
    pub(super) plan: Plan,
    pub(super) stream: StreamName,
    progress: Progress,
}

/// A window that has begun. The bar goes with it.
pub(super) struct Course {
    pub(super) window: Arc<Window>,
    _bar: Bar,
}

impl Stage {
    pub(super) fn new(plan: Plan, stream: StreamName, progress: Progress) -> Self {
        Self { plan, stream, progress }
    }
    /// The measurement begins with its warm-up; what can be prepared is.
    pub(super) fn begin(&self) -> Course {
        let plan = &self.plan;
        let name = format!("{} {}", plan.workload, plan.target);
        self.course(&name, Window::after(plan.warmup, plan.time, plan.records_max))
    }
    /// Filling begins: as many records as there are to be.
    pub(super) fn begin_fill(&self) -> Course {
        let name = format!("fill for {} {}", self.plan.workload, self.plan.target);
        self.course(&name, Window::after(Duration::ZERO, FILL_TIME, self.plan.fill_records))
    }
    fn course(&self, name: &str, window: Arc<Window>) -> Course {
        Course { _bar: self.progress.watch(name, &window), window }
    }
}

/// What a measurement came to; what does not apply is absent.
pub(super) struct Measured {
    pub(super) meter: Meter,
    /// From the intended time of a put to its delivery, beside the acknowledgements of `meter`.
    pub(super) delivered: Option<Meter>,
    pub(super) process: Option<Usage>,
    pub(super) ready: Option<Duration>,
}

impl From<Meter> for Measured {
    fn from(meter: Meter) -> Self {
        Self { meter, delivered: None, process: None, ready: None }
    }
}

/// What a broker in a process of its own uses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    pub(super) rss_mb: f64,
    /// Of one core.
    pub(super) cpu_percent: Option<f64>,
}
