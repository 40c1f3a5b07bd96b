//! The leases this worker holds: list, take, renew, give back.
//!
//! Renewing runs on a task of its own, every third of the lease time, so that a slow processor does not cost a lease.
//! Leases that could not be renewed in time are lost by themselves ([`Hold`]); this module only keeps trying.
//! Which leases to take is decided elsewhere (assign).

use crate::hold::Hold;
use crate::metrics::LeaseMeters;
use crate::shard::ShardRef;
use crate::store::{Ask, LeaseRow, LeaseStore, Renewed, Take};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tidemill_proto::{Error, ErrorKind};
use tidemill_types::StreamName;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info, warn};

#[derive(Debug)]
pub(crate) struct Leases {
    store: Arc<dyn LeaseStore>,
    held: Mutex<BTreeMap<ShardRef, Arc<Hold>>>,
    meters: LeaseMeters,
}

impl Leases {
    pub(crate) fn new(store: Arc<dyn LeaseStore>, meters: LeaseMeters) -> Self {
        Self { store, held: Mutex::new(BTreeMap::new()), meters }
    }
    pub(crate) fn store(&self) -> &Arc<dyn LeaseStore> {
        &self.store
    }

    /// All leases of the application on a stream. A lease held here that the store gives to another is lost at once, one that
    /// a successor waits for is to be handed over.
    pub(crate) async fn list(&self, stream: &StreamName) -> Result<Vec<LeaseRow>, Error> {
        let rows = self.store.list(stream).await?;
        let held = self.held.lock();
        for row in &rows {
            let hold = held.get(&ShardRef::new(stream.clone(), row.shard.id));
            // a lease taken after the rows were read has a higher epoch than they tell
            match hold {
                Some(hold) if row.epoch > hold.epoch() => hold.lost_by_word(),
                Some(hold) if row.epoch == hold.epoch() && row.successor.is_some() => hold.ask(),
                _ => {}
            }
        }
        Ok(rows)
    }

    /// Takes a lease; nothing if somebody else was faster.
    pub(crate) async fn take(&self, take: &Take) -> Result<Option<(Arc<Hold>, LeaseRow)>, Error> {
        let sent = Instant::now();
        let row = match self.store.take(take).await {
            Ok(row) => row,
            Err(error) if error.kind() == ErrorKind::Conflict => return Ok(None),
            Err(error) => return Err(error),
        };
        let hold = Arc::new(Hold::new(take.at.clone(), row.epoch, sent + self.store.lease()));
        self.held.lock().insert(take.at.clone(), Arc::clone(&hold));
        self.meters.taken();
        Ok(Some((hold, row)))
    }

    /// Asks that a lease be handed over to this worker. Returns whether its holder will be told.
    pub(crate) async fn ask(&self, ask: &Ask) -> Result<bool, Error> {
        match self.store.ask(ask).await {
            Ok(()) => {
                self.meters.asked();
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Stops renewing a lease and, unless it is known to be lost, gives it back so that others need not wait. When that
    /// fails it runs out by itself.
    pub(crate) async fn give_back(&self, hold: &Hold) {
        self.stop_renewing(hold);
        if hold.is_lost_by_word() {
            return;
        }
        // a checkpointer that the processor kept is of no use from now on
        hold.lost_by_word();
        if let Err(error) = self.store.release(hold).await {
            debug!(shard = %hold.at(), %error, "lease not given back, it runs out by itself");
        }
    }

    /// Stops renewing a lease that is not worked on; it runs out by itself.
    pub(crate) fn forget(&self, hold: &Hold) {
        self.stop_renewing(hold);
        hold.lost_by_word();
    }

    fn stop_renewing(&self, hold: &Hold) {
        let mut held = self.held.lock();
        if held.get(hold.at()).is_some_and(|current| current.epoch() == hold.epoch()) {
            held.remove(hold.at());
        }
    }

    /// Renews everything held, for ever.
    pub(crate) async fn keep_renewing(&self) {
        let period = self.store.lease() / 3;
        let mut troubled = false;
        let mut measured = Instant::now();
        loop {
            let begun = Instant::now();
            self.measure(begun - std::mem::replace(&mut measured, begun));
            match self.renew(begun).await {
                Ok(()) => {
                    if troubled {
                        info!("leases are renewed again");
                    }
                    troubled = false;
                    sleep_until(begun + period).await;
                }
                Err(error) => {
                    if !troubled {
                        warn!(%error, "leases cannot be renewed, trying again until they run out");
                    }
                    troubled = true;
                    sleep(period / 4).await;
                }
            }
        }
    }

    fn measure(&self, elapsed: Duration) {
        let held = self.held.lock();
        held.values().for_each(|hold| hold.measure(elapsed));
        self.meters.held(held.len());
    }

    async fn renew(&self, sent: Instant) -> Result<(), Error> {
        let held: Vec<Arc<Hold>> = self.held.lock().values().filter(|hold| hold.is_held()).cloned().collect();
        if held.is_empty() {
            return Ok(());
        }
        for (hold, renewed) in self.store.renew(&held).await? {
            match renewed {
                Renewed::Lost => {
                    self.meters.lost();
                    hold.lost_by_word();
                }
                Renewed::Held => hold.extend(sent + self.store.lease()),
                Renewed::Asked => {
                    hold.extend(sent + self.store.lease());
                    hold.ask();
                }
            }
        }
        Ok(())
    }
}
