//! The tasks of a measurement, put together; and how long a task puts up with refusals.

use super::meter::{Meter, Window};
use crate::error::{Error, Result};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// After a refusal, mostly for too much at once.
const PAUSE: Duration = Duration::from_millis(50);
/// Refusals in a row before a connection gives up.
const REFUSALS_MAX: u32 = 100;

/// What all connections came to. The first that fails ends all.
pub(super) async fn together(mut tasks: JoinSet<Result<Meter>>, window: Arc<Window>) -> Result<Meter> {
    let mut all = Meter::new(window);
    while let Some(part) = tasks.join_next().await {
        all.add(&part.map_err(|e| Error::because("a connection's task broke off", e))??);
    }
    Ok(all)
}

/// Why something was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Too much at once.
    Throttled(String),
    Failed(String),
}

/// Counts refusals in a row.
#[derive(Default)]
pub(super) struct Refusals(u32);

impl Refusals {
    /// Something was taken.
    pub(super) fn none(&mut self) {
        self.0 = 0;
    }
    /// Notes it and waits; an error when there have been too many.
    pub(super) async fn another(&mut self, meter: &mut Meter, why: Refusal) -> Result<()> {
        self.0 += 1;
        let told = match &why {
            Refusal::Throttled(told) | Refusal::Failed(told) => told,
        };
        if self.0 >= REFUSALS_MAX {
            return Err(Error::failed(format!("refused {REFUSALS_MAX} times in a row: {told}")));
        }
        note(meter, &why);
        sleep(PAUSE).await;
        Ok(())
    }
}

/// Counts a refusal.
pub(super) fn note(meter: &mut Meter, why: &Refusal) {
    match why {
        Refusal::Throttled(told) => meter.throttled(1, told),
        Refusal::Failed(told) => meter.failed(1, told),
    }
}
