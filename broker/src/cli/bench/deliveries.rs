//! What push readers get of records that carry when they were due: the second half of `latency`.

use super::load::Stamp;
use super::meter::{Meter, Window};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// What was acknowledged and does not come in this time is missing.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);

/// Shared by all readers of a measurement.
pub(super) struct Deliveries {
    run_began: Instant,
    meter: Mutex<Meter>,
}

impl Deliveries {
    pub(super) fn new(window: &Arc<Window>) -> Arc<Self> {
        let meter = Mutex::new(Meter::new(window.beside()));
        Arc::new(Self { run_began: window.begins(), meter })
    }

    /// A record has come.
    pub(super) fn take(&self, data: &[u8]) {
        let mut meter = self.meter.lock();
        match Stamp::read(data) {
            Some(stamp) => meter.done_since(stamp.due(self.run_began), 1),
            None => meter.failed(1, "a record came that was not put like this"),
        }
    }

    /// Waits until so many have come, warm-up included; what is missing is an error each.
    pub(super) async fn expect(&self, records: u64) {
        let give_up = Instant::now() + PATIENCE;
        while self.meter.lock().acknowledged() < records && Instant::now() < give_up {
            sleep(POLL).await;
        }
        let mut meter = self.meter.lock();
        let missing = records.saturating_sub(meter.acknowledged());
        if missing > 0 {
            let told = format!("{missing} of {records} acknowledged records were not delivered");
            meter.failed(missing, told);
        }
    }

    /// What came of all, once the readers are gone or do not matter any more.
    pub(super) fn meter(&self) -> Meter {
        let mut meter = self.meter.lock();
        let window = Arc::clone(meter.window());
        std::mem::replace(&mut *meter, Meter::new(window))
    }
}
