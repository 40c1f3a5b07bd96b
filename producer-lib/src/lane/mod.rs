//! A lane: everything of one shard between putting and acknowledgement, in order.
//!
//! ```text
//!  put ─► aggregator ─► sealed ─► flights: AtBroker ──answer──► resolved
//!         (open batch)  batches              │  ▲
//!                                  lost, refused│ sent again, oldest first
//!                                            ▼  │
//!                                          Waiting            shard closed: Refused ─► routed anew (shard_map)
//! ```
//!
//! Bounded by the limiter's memory and, unanswered, by `batches_in_flight`. Locked for moments only, never across an await;
//! who sends and what an answer means is decided elsewhere (sender, retrier).

mod expiry;
mod state;

use self::state::{At, Flight, Phase, Sending, State};
use crate::aggregator::{Aggregator, Terms};
use crate::batch::Batch;
use crate::error::Error;
use crate::meters::{RequestMeters, ShardMeters};
use crate::rate::Rate;
use crate::retrier::{self, Decision, Policy, Repeats};
use crate::sender::Connection;
use crate::ticket::{Completion, First, Stored, Ticket};
use rand::Rng;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tidemill_proto::ErrorKind;
use tidemill_types::{
    Frame, HashKey, Record, Shard, ShardId, ShardMapVersion, StreamIncarnation, StreamName, TimestampMs,
};
use tokio::sync::Notify;
use tokio::time::Instant;

/// What is said of a stored batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Appended {
    pub(crate) shard: ShardId,
    pub(crate) first: First,
    pub(crate) duplicate: bool,
}

/// Why a lane takes no record.
pub(crate) enum Gone {
    /// The stream's routes have changed: route again.
    Moved,
    /// For good.
    Ended(Error),
}

/// What there is to send.
pub(crate) enum Next {
    Batch(Cargo),
    /// Not before this moment.
    Later(Instant),
    /// Nothing until something happens to the lane.
    Nothing,
}

/// What of a batch goes out.
pub(crate) struct Cargo {
    pub(crate) frame: Frame,
    /// As [`Batch::explicit`].
    #[cfg_attr(not(feature = "aws"), expect(dead_code, reason = "a frame does not carry it"))]
    pub(crate) explicit: Vec<(u32, HashKey)>,
}

/// The lane of one shard.
pub(crate) struct Lane {
    pub(crate) stream: StreamName,
    pub(crate) incarnation: StreamIncarnation,
    pub(crate) shard: Shard,
    pub(crate) connection: Arc<Connection>,
    /// A flight was answered or lost.
    pub(crate) changed: Notify,
    map_version: AtomicU64,
    in_flight_max: usize,
    pub(crate) meters: ShardMeters,
    pub(crate) requests: Arc<RequestMeters>,
    state: Mutex<State>,
}

/// What a lane is made for.
pub(crate) struct Place {
    pub(crate) stream: StreamName,
    pub(crate) shard: Shard,
    pub(crate) map_version: ShardMapVersion,
    pub(crate) incarnation: StreamIncarnation,
    pub(crate) connection: Arc<Connection>,
    pub(crate) requests: Arc<RequestMeters>,
}

/// How lanes send.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    pub(crate) in_flight_max: usize,
    pub(crate) policy: Policy,
    /// In hundredths of what a shard of Amazon takes.
    pub(crate) rate_percent: Option<u32>,
}

impl Lane {
    pub(crate) fn new(place: Place, terms: Terms, manner: Manner, meters: ShardMeters) -> Arc<Self> {
        let rate = manner.rate_percent.map(Rate::percent);
        Arc::new(Self {
            stream: place.stream,
            incarnation: place.incarnation,
            shard: place.shard,
            connection: place.connection,
            changed: Notify::new(),
            map_version: AtomicU64::new(place.map_version.get()),
            in_flight_max: manner.in_flight_max,
            meters,
            requests: place.requests,
            state: Mutex::new(State::new(terms, manner.policy, rate)),
        })
    }
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    pub(crate) fn map_version(&self) -> ShardMapVersion {
        ShardMapVersion::new(self.map_version.load(Ordering::Relaxed))
    }
    pub(crate) fn set_map_version(&self, version: ShardMapVersion) {
        self.map_version.store(version.get(), Ordering::Relaxed);
    }

    /// Takes a record that is charged to the limiter. The second value is when the collector must look at this lane.
    pub(crate) fn push(
        self: &Arc<Self>,
        record: &Record,
        time_to_live: Option<Duration>,
    ) -> Result<(Ticket, Option<Instant>), Gone> {
        let mut state = self.lock();
        match &state.phase {
            Phase::Open => {}
            Phase::Moved => return Err(Gone::Moved),
            Phase::Ended(error) => return Err(Gone::Ended(error.clone())),
        }
        let State { aggregator, sealed, .. } = &mut *state;
        let batches = sealed.len();
        let ticket = aggregator.push(record, time_to_live, sealed);
        let since = if state.lingering { None } else { state.aggregator.open_since() };
        state.lingering |= since.is_some();
        if state.sealed.len() > batches {
            state.sealed.iter().skip(batches).for_each(|batch| self.meters.received(batch.records()));
            self.enqueue(&mut state);
        }
        Ok((ticket, since))
    }
    /// Seals the open batch, of records that were put here.
    fn seal(&self, state: &mut State) {
        self.meters.received(state.aggregator.open_records());
        state.seal();
    }

    /// Seals the open batch if it is as old as `opened_before`; else tells since when it is open.
    pub(crate) fn linger(self: &Arc<Self>, opened_before: Instant) -> Option<Instant> {
        let mut state = self.lock();
        let since = state.aggregator.open_since().filter(|since| *since > opened_before);
        if since.is_none() {
            self.seal(&mut state);
            self.enqueue(&mut state);
        }
        state.lingering = since.is_some();
        since
    }

    /// Lets the connection know that there may be something to send.
    pub(crate) fn wake(self: &Arc<Self>) {
        let mut state = self.lock();
        self.enqueue(&mut state);
    }
    fn enqueue(self: &Arc<Self>, state: &mut State) {
        if !state.queued && state.pick(self.in_flight_max).is_some() {
            state.queued = true;
            self.connection.enqueue(self.clone());
        }
    }

    /// Takes the next batch to send, under `request`. Called by the connection when it has taken the lane from its queue;
    /// a lane that must wait ([`Next::Later`]) is put back there by the connection itself.
    pub(crate) fn next(self: &Arc<Self>, request: u64, now: Instant) -> Next {
        let mut state = self.lock();
        if let Some(until) = state.hold.filter(|until| now < *until) {
            return Next::Later(until);
        }
        if let Some(until) = state.rate.as_mut().and_then(|rate| rate.wait_until(now)) {
            return Next::Later(until);
        }
        state.queued = false;
        let Some(pick) = state.pick(self.in_flight_max) else { return Next::Nothing };
        let batch = state.send(pick, request, now);
        let cargo = Cargo { frame: batch.frame.clone(), explicit: batch.explicit.clone() };
        self.enqueue(&mut state);
        Next::Batch(cargo)
    }

    /// Whether all records of what was sent under `request` are meant for this range; nothing if it is not awaited any more.
    #[cfg(feature = "aws")]
    pub(crate) fn fits(&self, request: u64, range: tidemill_types::HashKeyRange) -> Option<bool> {
        let state = self.lock();
        let flight = state.flights.iter().find(|flight| flight.at == At::Broker(request))?;
        Some(flight.batch.fits(range))
    }

    /// The broker's answer to `request`. Tells when the shard turned out to be closed.
    pub(crate) fn answer(
        self: &Arc<Self>,
        request: u64,
        outcome: Result<Appended, tidemill_proto::Error>,
        (at, now): (TimestampMs, Instant),
        rng: &mut impl Rng,
    ) -> Option<Decision> {
        let mut state = self.lock();
        let position = state.flights.iter().position(|flight| flight.at == At::Broker(request))?;
        let decision = match outcome {
            Ok(appended) => {
                let flight = state.flights.remove(position).expect("found above");
                state.refusals = 0;
                self.acknowledge(flight.batch, appended, now);
                None
            }
            Err(cause) => {
                let repeats = state.policy.repeats;
                let mut decision = state.policy.decide(cause.kind());
                let flight = &mut state.flights[position];
                flight.batch.attempts.failed((at, now), &cause);
                self.meters.refused(cause.kind().name());
                tracing::debug!(stream = %self.stream, shard = %self.shard.id, error = %cause, ?decision, "batch refused");
                if decision == Decision::Reroute && repeats == Repeats::Stored {
                    // it lies in a shard that is not meant for all of it
                    flight.batch.uncertain |= cause.kind() == ErrorKind::ShardClosed;
                } else if decision == Decision::Reroute && flight.batch.uncertain {
                    // a closed shard answers a batch that it has stored with its first outcome; one that is not found, never
                    match cause.kind() {
                        ErrorKind::ShardClosed => flight.batch.uncertain = false,
                        _ => decision = Decision::Fail,
                    }
                    state.sending = Sending::Rerouting;
                }
                state.refuse(position, decision, &cause, now, rng, &self.meters);
                Some(if state.sending == Sending::Rerouting { Decision::Reroute } else { decision })
            }
        };
        self.enqueue(&mut state);
        drop(state);
        self.changed.notify_one();
        decision
    }
    fn acknowledge(&self, batch: Batch, appended: Appended, now: Instant) {
        self.meters.acknowledged(&batch, now);
        let Appended { shard, first, duplicate } = appended;
        let attempts = batch.attempts.made();
        batch.owed.resolve(Ok(Stored { shard, first, attempts, duplicate }));
    }

    /// The call broke: what was unanswered is sent again, in order.
    pub(crate) fn lost(self: &Arc<Self>, when: (TimestampMs, Instant), cause: &tidemill_proto::Error) {
        let mut state = self.lock();
        for flight in state.flights.iter_mut().filter(|flight| matches!(flight.at, At::Broker(_))) {
            flight.at = At::Waiting;
            flight.batch.uncertain = true;
            flight.batch.attempts.failed(when, cause);
            self.meters.refused(cause.kind().name());
            self.meters.retried();
        }
        self.enqueue(&mut state);
        drop(state);
        self.changed.notify_one();
    }

    /// How many records it holds, and since when the oldest.
    pub(crate) fn holds(&self) -> (u64, Option<Instant>) {
        let state = self.lock();
        let batches = || state.flights.iter().map(|flight| &flight.batch).chain(&state.sealed);
        let records: u64 = batches().map(|batch| u64::from(batch.unanswered())).sum();
        let oldest = batches().map(|batch| batch.since).chain(state.aggregator.open_since()).min();
        (records + u64::from(state.aggregator.open_records()), oldest)
    }

    /// Stops sending new batches: the shard takes no more.
    pub(crate) fn stop(&self) {
        self.lock().sending = Sending::Rerouting;
    }
    /// Sends again: the shard is open after all.
    pub(crate) fn resume(self: &Arc<Self>) {
        let mut state = self.lock();
        if state.sending == Sending::Rerouting {
            state.sending = Sending::Free;
            for flight in state.flights.iter_mut().filter(|flight| flight.at == At::Refused) {
                flight.at = At::Waiting;
            }
        }
        self.enqueue(&mut state);
    }
    /// Whether nothing is unanswered: what is left is certainly not stored by this shard.
    pub(crate) fn is_quiet(&self) -> bool {
        let state = self.lock();
        let owed = |flight: &Flight| matches!(flight.at, At::Broker(_)) || state.is_owed(&flight.batch);
        !state.flights.iter().any(owed)
    }
    pub(crate) fn is_empty(&self) -> bool {
        let state = self.lock();
        state.flights.is_empty() && state.sealed.is_empty() && state.aggregator.open_since().is_none()
    }

    /// Whether it waits for new routes.
    pub(crate) fn is_stopped(&self) -> bool {
        let state = self.lock();
        state.sending == Sending::Rerouting && matches!(state.phase, Phase::Open)
    }

    /// Begins to move everything elsewhere. Whoever puts here meanwhile waits, so be quick.
    pub(crate) fn vacate(&self) -> Vacating<'_> {
        Vacating { lane: self, state: self.lock() }
    }
    /// Takes records of a closed shard, in order, before anything is put here; then [`Lane::send_all`].
    pub(crate) fn adopt(&self, add: impl FnOnce(&mut Aggregator, &mut VecDeque<Batch>)) {
        let State { aggregator, sealed, .. } = &mut *self.lock();
        add(aggregator, sealed);
    }
    /// Seals the open batch and sends it with all others.
    pub(crate) fn send_all(self: &Arc<Self>) {
        let mut state = self.lock();
        state.seal();
        self.enqueue(&mut state);
    }

    /// Fails everything, now and later.
    pub(crate) fn end(&self, error: &Error) {
        let (flights, sealed) = {
            let mut state = self.lock();
            self.seal(&mut state);
            if !matches!(state.phase, Phase::Moved) {
                state.phase = Phase::Ended(error.clone());
            }
            (std::mem::take(&mut state.flights), std::mem::take(&mut state.sealed))
        };
        let flights = flights.into_iter().map(|flight| {
            let asked = matches!(flight.at, At::Broker(_));
            (flight.batch, asked)
        });
        for (mut batch, asked) in flights.chain(sealed.into_iter().map(|batch| (batch, false))) {
            batch.uncertain |= asked;
            let cause = tidemill_proto::Error::new(error.kind(), error.message());
            let told = retrier::refusal(&batch, &cause);
            self.meters.failed(told.kind(), batch.unanswered(), &batch.attempts);
            batch.fail(&told);
        }
        self.changed.notify_one();
    }

    /// Seals the open batch and tells what all unresolved tickets wait on.
    pub(crate) fn flush(self: &Arc<Self>, into: &mut Vec<Arc<Completion>>) {
        let mut state = self.lock();
        self.seal(&mut state);
        state.flights.iter().for_each(|flight| flight.batch.owed.completions(into));
        state.sealed.iter().for_each(|batch| batch.owed.completions(into));
        if let Some(owed) = state.aggregator.owed() {
            owed.completions(into);
        }
        self.enqueue(&mut state);
    }
}

/// A lane that is being moved.
pub(crate) struct Vacating<'a> {
    lane: &'a Lane,
    state: MutexGuard<'a, State>,
}

impl Vacating<'_> {
    /// Everything that is not acknowledged, in order.
    pub(crate) fn batches(&mut self) -> Vec<Batch> {
        self.lane.seal(&mut self.state);
        let flights = std::mem::take(&mut self.state.flights).into_iter().map(|flight| flight.batch);
        let batches: Vec<_> = flights.chain(std::mem::take(&mut self.state.sealed)).collect();
        batches.iter().for_each(|batch| self.lane.meters.left(batch.unanswered()));
        batches
    }
    /// The new routes are in force: whoever waits routes again.
    pub(crate) fn moved(mut self) {
        self.state.phase = Phase::Moved;
    }
}
