//! The observer: lists the leases all the time, over the wire, and keeps what has changed since the look before.

use crate::{APP, STREAM};
use anyhow::Result;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tidemill_proto::client::{Channel, Endpoint};
use tidemill_proto::convert::required;
use tidemill_proto::v1::{LeaseRow, ListLeasesRequest};
use tidemill_tests::chaos::{Mark, Sighting, monotonic_ns};
use tidemill_types::Checkpoint;
use tokio::time::{Instant, sleep, timeout};

/// Looks are at least this far apart.
pub(crate) const INTERVAL: Duration = Duration::from_millis(50);
const LOOK_DEADLINE: Duration = Duration::from_secs(5);

/// Looks until it is asked to stop. A broker that is away is asked again.
pub(crate) async fn observe(endpoint: Endpoint, stop: Arc<AtomicBool>) -> Result<Vec<Sighting>> {
    let channel = Channel::lazy(&endpoint);
    let mut last: HashMap<u32, Sighting> = HashMap::new();
    let mut changes = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let (asked, began) = (monotonic_ns(), Instant::now());
        let request = ListLeasesRequest { app: APP.to_owned(), stream: STREAM.to_owned(), with_lag: false };
        if let Ok(Ok(answer)) = timeout(LOOK_DEADLINE, channel.lease().list_leases(request)).await {
            let answered = monotonic_ns();
            for row in answer.into_inner().leases {
                let row = sighting(row, asked, answered)?;
                if last.get(&row.shard).is_none_or(|before| !same(before, &row)) {
                    changes.push(row.clone());
                    last.insert(row.shard, row);
                }
            }
        }
        // long lists are asked for less often
        sleep(INTERVAL.max(began.elapsed() * 2)).await;
    }
    Ok(changes)
}

fn sighting(row: LeaseRow, asked: u64, answered: u64) -> Result<Sighting> {
    let shard = required(row.shard, "shard")?.id;
    let checkpoint = row.checkpoint.map(Checkpoint::try_from).transpose()?;
    let owner = (!row.owner.is_empty()).then_some(row.owner);
    let (epoch, live, mark) = (row.epoch, row.expires_in_ms > 0, checkpoint.map(Mark::from));
    Ok(Sighting { asked, answered, shard, owner, epoch, mark, live })
}

fn same(a: &Sighting, b: &Sighting) -> bool {
    (&a.owner, a.epoch, a.mark, a.live) == (&b.owner, b.epoch, b.mark, b.live)
}
