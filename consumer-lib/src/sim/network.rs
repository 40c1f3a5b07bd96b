//! The lease store as one worker reaches it: a [`MemoryStore`] on a machine of its own behind a network that delays, loses
//! and repeats nothing twice, but does what was asked late, or without telling.
//!
//! ```text
//!  worker ──(delay, may be lost)──► done on the store's machine, told to the judge ──(delay, may be lost)──► worker
//!    └── waits for half of the lease time at most, as for a broker: then the outcome is unknown
//! ```

use super::bugs::{Bug, is_planted};
use super::judge::Asker;
use super::machine::Clock;
use super::world::{Mishap, World};
use crate::hold::Hold;
use crate::place::{Checkpoint, PendingCheckpoint};
use crate::store::{Answer, Ask, LeaseRow, LeaseStore, MemoryStore, Renewed, Take};
use parking_lot::Mutex;
use rand::RngExt;
use rand::rngs::StdRng;
use std::sync::Arc;
use std::time::Duration;
use tidemill_proto::{Error, ErrorKind, Result};
use tidemill_types::StreamName;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};

/// What does a request, on the store's machine.
type Doing<T> = std::pin::Pin<Box<dyn Future<Output = Result<T>> + Send>>;

#[derive(Debug)]
pub(super) struct SimStore {
    pub(super) world: Arc<World>,
    pub(super) asker: Asker,
    pub(super) clock: Clock,
    /// The machine of the store, and its clock.
    pub(super) far: Handle,
    pub(super) far_clock: Clock,
    pub(super) inner: Arc<MemoryStore>,
    pub(super) rng: Mutex<StdRng>,
}

impl SimStore {
    /// Sends a request. `told` tells the judge, on the store's machine, right when it was done.
    async fn call<T: Send + 'static>(
        &self,
        doing: impl FnOnce(Arc<MemoryStore>) -> Doing<T> + Send + 'static,
        told: impl FnOnce(&World, &Asker, Duration, &Result<T>) + Send + 'static,
    ) -> Result<T> {
        let lease = self.inner.lease();
        let sent = self.clock.now();
        let (mishap, before, after, late) = {
            let (weather, mut rng) = (self.world.weather.lock(), self.rng.lock());
            let mishap = weather.mishap(self.asker.instance, sent, &mut rng);
            let late = lease.mul_f64(rng.random_range(0.5..3.0));
            (mishap, weather.delay(&mut rng), weather.delay(&mut rng), late)
        };
        let before = if mishap == Mishap::Late { late } else { before };
        let (tx, rx) = oneshot::channel();
        match mishap {
            Mishap::Refused => return Err(Error::new(ErrorKind::Unavailable, "told to refuse")),
            Mishap::LostRequest => {}
            _ => {
                let (world, asker, clock) = (Arc::clone(&self.world), self.asker.clone(), self.far_clock);
                let inner = Arc::clone(&self.inner);
                self.far.spawn(async move {
                    let now = clock.now().max(sent);
                    sleep_until(clock.instant(now + before)).await;
                    let done = doing(inner).await;
                    told(&world, &asker, clock.now(), &done);
                    sleep_until(clock.instant(clock.now() + after)).await;
                    let cut_off = world.weather.lock().is_cut_off(asker.instance, clock.now());
                    if mishap != Mishap::LostAnswer && !cut_off {
                        // nobody may wait any more
                        let _ = tx.send((done, clock.now()));
                    }
                });
            }
        }
        let unknown = |told| Err(Error::new(ErrorKind::UnknownOutcome, told));
        match timeout(lease / 2, rx).await {
            Ok(Ok((done, answered))) => {
                sleep_until(self.clock.instant(answered)).await;
                if mishap == Mishap::Unknown { unknown("told not to tell") } else { done }
            }
            Ok(Err(_)) => {
                sleep_until(self.clock.instant(sent + lease / 2)).await;
                unknown("no answer in time")
            }
            Err(_) => unknown("no answer in time"),
        }
    }
}

/// For the store, a hold is a shard and an epoch.
fn copied(hold: &Hold) -> Hold {
    Hold::new(hold.at().clone(), hold.epoch(), Instant::now())
}

impl LeaseStore for SimStore {
    fn lease(&self) -> Duration {
        self.inner.lease()
    }

    fn list<'a>(&'a self, stream: &'a StreamName) -> Answer<'a, Vec<LeaseRow>> {
        let stream = stream.clone();
        Box::pin(async move {
            let listed =
                self.call(move |inner| Box::pin(async move { inner.list(&stream).await }), |_, _, _, _| {});
            let mut rows = listed.await?;
            if is_planted(Bug::OneParent) {
                rows.iter_mut().for_each(|row| row.shard.adjacent_parent = None);
            }
            Ok(rows)
        })
    }

    fn take<'a>(&'a self, take: &'a Take) -> Answer<'a, LeaseRow> {
        Box::pin(async move {
            let (take, shard, sent) = (take.clone(), take.at.shard().get(), self.clock.now());
            let taken = self.call(
                move |inner| Box::pin(async move { inner.take(&take).await }),
                move |world, asker, now, done| world.judge.lock().taken(now, asker, shard, done),
            );
            let mut row = taken.await?;
            if is_planted(Bug::FromBehind)
                && let Some(Checkpoint::At { sub, .. }) = &mut row.checkpoint
            {
                *sub += 1;
            }
            let until = sent + self.lease();
            self.world.judge.lock().granted(&self.asker, shard, row.epoch.get(), self.clock.now(), until);
            Ok(row)
        })
    }

    fn ask<'a>(&'a self, ask: &'a Ask) -> Answer<'a, ()> {
        Box::pin(async move {
            let (ask, shard, deadline) = (ask.clone(), ask.at.shard().get(), ask.deadline);
            let asked = self.call(
                move |inner| Box::pin(async move { inner.ask(&ask).await }),
                move |world, asker, now, done| world.judge.lock().asked(now, asker, shard, deadline, done),
            );
            asked.await
        })
    }

    fn renew<'a>(&'a self, held: &'a [Arc<Hold>]) -> Answer<'a, Vec<(Arc<Hold>, Renewed)>> {
        Box::pin(async move {
            let (held, sent) = (held.to_vec(), self.clock.now());
            let renewed = self.call(
                move |inner| Box::pin(async move { inner.renew(&held).await }),
                |world, asker, now, done| world.judge.lock().renewed(now, asker, done),
            );
            let fates = renewed.await?;
            for (hold, renewed) in &fates {
                let (shard, epoch) = (hold.at().shard().get(), hold.epoch().get());
                if *renewed != Renewed::Lost {
                    let (now, until) = (self.clock.now(), sent + self.lease());
                    self.world.judge.lock().granted(&self.asker, shard, epoch, now, until);
                }
                if *renewed == Renewed::Asked && is_planted(Bug::HandsOverUndrained) {
                    let _ = self.release(hold).await;
                }
            }
            Ok(fates)
        })
    }

    fn release<'a>(&'a self, hold: &'a Hold) -> Answer<'a, ()> {
        Box::pin(async move {
            let (hold, shard, epoch) = (copied(hold), hold.at().shard().get(), hold.epoch().get());
            let released = self.call(
                move |inner| Box::pin(async move { inner.release(&hold).await }),
                move |world, asker, now, done| world.judge.lock().released(now, asker, shard, epoch, done),
            );
            released.await
        })
    }

    fn checkpoint<'a>(&'a self, hold: &'a Hold, checkpoint: Checkpoint) -> Answer<'a, ()> {
        Box::pin(async move {
            let (hold, shard, epoch) = (copied(hold), hold.at().shard().get(), hold.epoch().get());
            let stored = self.call(
                move |inner| Box::pin(async move { inner.checkpoint(&hold, checkpoint).await }),
                move |world, asker, now, done| {
                    world.judge.lock().checkpointed(now, asker, shard, epoch, checkpoint, done);
                },
            );
            stored.await
        })
    }

    fn prepare<'a>(&'a self, hold: &'a Hold, pending: &'a PendingCheckpoint) -> Answer<'a, ()> {
        Box::pin(async move {
            let (hold, pending, shard) = (copied(hold), pending.clone(), hold.at().shard().get());
            let noted = pending.clone();
            let stored = self.call(
                move |inner| Box::pin(async move { inner.prepare(&hold, &pending).await }),
                move |world, _, _, done| world.judge.lock().prepared(shard, &noted, done),
            );
            stored.await
        })
    }
}
