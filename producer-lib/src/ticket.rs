//! Tickets: the promise of an answer to each record, kept exactly once.
//!
//! All tickets of a batch share one [`Completion`]; a ticket is its place therein. Whoever owes the answers holds an
//! [`Obligation`], which is used up by resolving it; one that is dropped instead (a task that ended, a runtime that went
//! down) resolves its tickets as failed. So a ticket cannot hang and cannot be answered twice.
//!
//! ```text
//!  Pending ──resolve_all──► Whole(verdict of the batch)
//!     └──resolve_one──► Each(slots) ──…──► every slot filled      (a batch that was split over several shards)
//! ```

use crate::error::{Error, Result};
use crate::limiter::{Charge, Limiter};
use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use tidemill_proto::ErrorKind;
use tidemill_types::{AnySequenceNumber, Record, SequenceNumber, ShardId};

/// Where a record was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Placed {
    /// The shard that took it.
    pub shard: ShardId,
    /// Its sequence number there. In an aggregated record (Amazon) all records share that one's.
    pub number: AnySequenceNumber,
    /// Its place within an aggregated record, counted from 0; 0 for a record that travelled alone or to Tidemill.
    pub sub: u64,
    /// How often it was sent until it was acknowledged; 1 when nothing failed.
    pub attempts: u32,
    /// An earlier attempt had stored it and its acknowledgement was lost; this is that attempt's place. Only Tidemill tells.
    pub duplicate: bool,
}

/// Where a batch was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) shard: ShardId,
    pub(crate) first: First,
    pub(crate) attempts: u32,
    pub(crate) duplicate: bool,
}

/// The number of a batch's first record, and so of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum First {
    /// The others follow without gap.
    Numbered(SequenceNumber),
    /// The others share it.
    #[cfg_attr(not(feature = "aws"), expect(dead_code, reason = "only that sink packs records into one"))]
    Packed(AnySequenceNumber),
}

impl Stored {
    fn at(self, index: u32) -> Placed {
        let (number, sub) = match self.first {
            First::Numbered(first) => (first.plus(u64::from(index)).into(), 0),
            First::Packed(number) => (number, u64::from(index)),
        };
        Placed { shard: self.shard, number, sub, attempts: self.attempts, duplicate: self.duplicate }
    }
}

/// What became of a batch: where it is, or why all of its records failed.
pub(crate) type Verdict = Result<Stored>;

/// Resolves to the place of one record, once it is stored as durably as the broker promises, or to why it is not.
///
/// Await it, or drop it: the record is sent either way, and [`Producer::flush`](crate::Producer::flush) reports failures of
/// dropped tickets too. Always resolves: at the latest when the record's deadline has passed or the producer is gone.
/// Cancelling an await loses nothing; the ticket may be awaited again by reference.
#[must_use = "the record is sent anyway, but only the ticket tells whether it was stored"]
pub struct Ticket {
    completion: Arc<Completion>,
    index: u32,
}

impl Ticket {
    pub(crate) fn new(completion: Arc<Completion>, index: u32) -> Self {
        Self { completion, index }
    }
}

impl Future for Ticket {
    type Output = Result<Placed>;
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.completion.poll_one(self.index, context.waker())
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("index", &self.index).finish_non_exhaustive()
    }
}

#[derive(Default)]
pub(crate) struct Completion {
    /// Of the batch, unless its tickets are answered one by one. Set under the lock; who finds it needs none: 3.54 instead of 3.31
    /// million puts a second on one core (medians of 9, interleaved).
    whole: OnceLock<Verdict>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Answers to tickets one by one.
    each: Option<Each>,
    /// Who waits for one ticket, by its place.
    waiting: HashMap<u32, Waker>,
    /// Who waits for all of them.
    waiting_for_all: Vec<Waker>,
}

struct Each {
    slots: Vec<Option<Result<Placed>>>,
    left: usize,
}

impl Completion {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn resolve_all(&self, verdict: Verdict) {
        let wakers = {
            let mut state = self.lock();
            assert!(state.each.is_none(), "a batch is resolved whole or one by one");
            assert!(self.whole.set(verdict).is_ok(), "a batch is resolved once");
            (std::mem::take(&mut state.waiting), std::mem::take(&mut state.waiting_for_all))
        };
        wakers.0.into_values().chain(wakers.1).for_each(Waker::wake);
    }

    fn resolve_one(&self, index: u32, of: u32, result: Result<Placed>) {
        let wakers = {
            let mut state = self.lock();
            assert!(self.whole.get().is_none(), "a batch is resolved whole or one by one");
            let none = || Each { slots: vec![None; of as usize], left: of as usize };
            let Each { slots, left } = state.each.get_or_insert_with(none);
            assert!(slots[index as usize].replace(result).is_none(), "a ticket is resolved once");
            *left -= 1;
            let all = if *left == 0 { std::mem::take(&mut state.waiting_for_all) } else { Vec::new() };
            (state.waiting.remove(&index), all)
        };
        wakers.0.into_iter().chain(wakers.1).for_each(Waker::wake);
    }

    fn poll_one(&self, index: u32, waker: &Waker) -> Poll<Result<Placed>> {
        if let Some(verdict) = self.whole.get() {
            return Poll::Ready(verdict.clone().map(|stored| stored.at(index)));
        }
        let mut state = self.lock();
        if let Some(verdict) = self.whole.get() {
            return Poll::Ready(verdict.clone().map(|stored| stored.at(index))); // just now
        }
        if let Some(each) = &state.each
            && let Some(result) = &each.slots[index as usize]
        {
            return Poll::Ready(result.clone());
        }
        state.waiting.insert(index, waker.clone());
        Poll::Pending
    }

    /// Waits until every ticket is resolved; tells the first failure, if any.
    pub(crate) async fn all_resolved(&self) -> Result<()> {
        std::future::poll_fn(|context| {
            let mut state = self.lock();
            if let Some(verdict) = self.whole.get() {
                return Poll::Ready(verdict.clone().map(drop));
            }
            if let Some(Each { slots, left: 0 }) = &state.each {
                let failed = slots.iter().flatten().find_map(|result| result.as_ref().err());
                return Poll::Ready(failed.map_or(Ok(()), |error| Err(error.clone())));
            }
            let waker = context.waker();
            if !state.waiting_for_all.iter().any(|known| known.will_wake(waker)) {
                state.waiting_for_all.push(waker.clone());
            }
            Poll::Pending
        })
        .await
    }
}

/// One record's place in the completion it was first promised in.
#[derive(Clone)]
pub(crate) struct Origin {
    completion: Arc<Completion>,
    index: u32,
    of: u32,
}

impl Origin {
    fn resolve(self, result: Result<Placed>) {
        self.completion.resolve_one(self.index, self.of, result);
    }
}

enum Origins {
    /// The records of the batch, in order, are those of the completion.
    Own(Arc<Completion>),
    /// The records, in order, came from other batches, or are answered one by one; nothing for those that were.
    Each(Vec<Option<Origin>>),
    /// Resolved, or moved on.
    Settled,
}

/// The duty to answer the tickets of a batch and to give its memory back.
pub(crate) struct Obligation {
    origins: Origins,
    charge: Charge,
    limiter: Arc<Limiter>,
}

impl Obligation {
    /// For records that are put now.
    pub(crate) fn own(limiter: Arc<Limiter>) -> Self {
        Self { origins: Origins::Own(Arc::default()), charge: Charge::default(), limiter }
    }
    /// For records that come from other batches.
    pub(crate) fn moved(limiter: Arc<Limiter>) -> Self {
        Self { origins: Origins::Each(Vec::new()), charge: Charge::default(), limiter }
    }
    /// Takes on the record at `index`, already charged to the limiter.
    pub(crate) fn add_own(&mut self, index: u32, charge: Charge) -> Ticket {
        self.charge += charge;
        match &self.origins {
            Origins::Own(completion) => Ticket::new(completion.clone(), index),
            _ => panic!("records that are put now go to batches of their own"),
        }
    }
    /// Takes on a record of another batch.
    pub(crate) fn add_moved(&mut self, origin: Origin, charge: Charge) {
        self.charge += charge;
        match &mut self.origins {
            Origins::Each(origins) => origins.push(Some(origin)),
            _ => panic!("moved records go to batches of their own"),
        }
    }
    /// Answers all tickets.
    pub(crate) fn resolve(mut self, verdict: Verdict) {
        self.settle(verdict);
    }
    /// Fails all tickets, giving each its record back.
    pub(crate) fn fail_with(mut self, error: &Error, records: Vec<Record>) {
        self.release();
        let count = u32::try_from(records.len()).expect("a frame counts its records so");
        for (origin, record) in self.take(count).into_iter().zip(records) {
            if let Some(origin) = origin {
                origin.resolve(Err(error.of_record(record)));
            }
        }
    }
    /// Fails one ticket of `count`; its record stays in the batch, and its charge.
    pub(crate) fn fail_one(&mut self, index: u32, count: u32, error: Error) {
        let mut origins = self.take(count);
        let origin = origins[index as usize].take();
        self.origins = Origins::Each(origins);
        if let Some(origin) = origin {
            origin.resolve(Err(error));
        }
    }
    /// Whether the ticket at `index` is answered already.
    pub(crate) fn is_answered(&self, index: u32) -> bool {
        matches!(&self.origins, Origins::Each(origins) if origins[index as usize].is_none())
    }
    /// How many tickets are answered already.
    pub(crate) fn answered(&self) -> u32 {
        match &self.origins {
            Origins::Each(origins) => origins.iter().map(|origin| u32::from(origin.is_none())).sum(),
            _ => 0,
        }
    }
    /// Hands the `count` records on, one by one, nothing for those whose tickets are answered; their charges go with them.
    pub(crate) fn into_origins(mut self, count: u32) -> Vec<Option<Origin>> {
        self.charge = Charge::default();
        self.take(count)
    }
    fn take(&mut self, count: u32) -> Vec<Option<Origin>> {
        match std::mem::replace(&mut self.origins, Origins::Settled) {
            Origins::Own(completion) => {
                let origin = |index| Origin { completion: completion.clone(), index, of: count };
                (0..count).map(|index| Some(origin(index))).collect()
            }
            Origins::Each(origins) => origins,
            Origins::Settled => Vec::new(),
        }
    }
    /// The completions that its tickets wait on, without immediate repetition.
    pub(crate) fn completions(&self, into: &mut Vec<Arc<Completion>>) {
        match &self.origins {
            Origins::Own(completion) => into.push(completion.clone()),
            Origins::Each(origins) => {
                for origin in origins.iter().flatten() {
                    if !into.last().is_some_and(|last| Arc::ptr_eq(last, &origin.completion)) {
                        into.push(origin.completion.clone());
                    }
                }
            }
            Origins::Settled => {}
        }
    }

    pub(crate) fn limiter(&self) -> &Arc<Limiter> {
        &self.limiter
    }
    fn release(&mut self) {
        self.limiter.release(std::mem::take(&mut self.charge));
    }
    fn settle(&mut self, verdict: Verdict) {
        // first: who sees a ticket resolved finds its memory given back
        self.release();
        match std::mem::replace(&mut self.origins, Origins::Settled) {
            Origins::Own(completion) => completion.resolve_all(verdict),
            Origins::Each(origins) => {
                for (position, origin) in (0..).zip(origins) {
                    if let Some(origin) = origin {
                        origin.resolve(verdict.clone().map(|stored| stored.at(position)));
                    }
                }
            }
            Origins::Settled => {}
        }
    }
}

impl Drop for Obligation {
    fn drop(&mut self) {
        if !matches!(self.origins, Origins::Settled) {
            let message = "the producer ended before it learned whether the record was stored; close it before dropping it";
            self.settle(Err(Error::new(ErrorKind::UnknownOutcome, message)));
        }
    }
}
