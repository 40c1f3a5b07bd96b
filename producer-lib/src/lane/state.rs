//! What a lane holds, and what of it may be sent: plain data under the lane's lock, decided without I/O.

use crate::aggregator::{Aggregator, Terms};
use crate::batch::Batch;
use crate::error::Error;
use crate::meters::ShardMeters;
use crate::rate::Rate;
use crate::retrier::{self, BACKOFF, Decision, Policy, Repeats};
use rand::Rng;
use std::collections::VecDeque;
use tidemill_types::limits::PRODUCER_BATCHES_IN_FLIGHT_MAX;
use tokio::time::Instant;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sending {
    Free,
    /// The shard takes no more: only batches of which an attempt is unanswered are sent, to learn their outcome.
    Rerouting,
}

/// Which batch is next.
#[derive(Clone, Copy)]
pub(super) enum Pick {
    /// The flight at this place, again.
    Again(usize),
    /// The first sealed one.
    Sealed,
}

pub(super) enum Phase {
    Open,
    Moved,
    Ended(Error),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    /// Sent under this request id.
    Broker(u64),
    /// To be sent again.
    Waiting,
    /// Certainly not stored by this shard; to be routed anew.
    Refused,
}

pub(super) struct Flight {
    pub(super) batch: Batch,
    pub(super) at: At,
}

pub(super) struct State {
    pub(super) phase: Phase,
    pub(super) aggregator: Aggregator,
    pub(super) sealed: VecDeque<Batch>,
    pub(super) flights: VecDeque<Flight>,
    pub(super) sending: Sending,
    pub(super) policy: Policy,
    /// How fast it may be sent, if that is limited.
    pub(super) rate: Option<Rate>,
    /// Rounds of refusals in a row; what was refused together is one.
    pub(super) refusals: u32,
    /// A batch was refused and nothing sent since: nothing is sent before this moment.
    pub(super) hold: Option<Instant>,
    /// In the connection's queue of lanes that have something to send, or held back by it.
    pub(super) queued: bool,
    /// In the collector's queue.
    pub(super) lingering: bool,
}

impl State {
    pub(super) fn new(terms: Terms, policy: Policy, rate: Option<Rate>) -> Self {
        Self {
            phase: Phase::Open,
            aggregator: Aggregator::new(terms),
            sealed: VecDeque::new(),
            flights: VecDeque::new(),
            sending: Sending::Free,
            policy,
            rate,
            refusals: 0,
            hold: None,
            queued: false,
            lingering: false,
        }
    }
    pub(super) fn seal(&mut self) {
        self.aggregator.seal(&mut self.sealed);
    }
    /// What may be sent now, but for a hold.
    pub(super) fn pick(&self, in_flight_max: usize) -> Option<Pick> {
        // after a refusal the oldest goes alone, when all that was under way is answered: nothing overtakes it again
        if self.refusals > 0 && self.flights.iter().any(|flight| matches!(flight.at, At::Broker(_))) {
            return None;
        }
        let rerouting = self.sending == Sending::Rerouting;
        let again = |flight: &Flight| flight.at == At::Waiting && (!rerouting || self.is_owed(&flight.batch));
        if let Some(at) = self.flights.iter().position(again) {
            return Some(Pick::Again(at));
        }
        let next = self.sealed.front()?.number();
        // the broker recognises a repetition only so far back
        let oldest = self.flights.front().map_or(next, |flight| flight.batch.number());
        let in_window = next < oldest + PRODUCER_BATCHES_IN_FLIGHT_MAX as u64;
        (!rerouting && in_window && self.flights.len() < in_flight_max).then_some(Pick::Sealed)
    }
    /// Whether its outcome can still be learnt, by sending it again to the same shard.
    pub(super) fn is_owed(&self, batch: &Batch) -> bool {
        batch.uncertain && self.policy.repeats == Repeats::Recognised
    }
    pub(super) fn send(&mut self, pick: Pick, request: u64, now: Instant) -> &Batch {
        let at = match pick {
            Pick::Again(at) => at,
            Pick::Sealed => {
                let batch = self.sealed.pop_front().expect("it was picked");
                self.flights.push_back(Flight { batch, at: At::Waiting });
                self.flights.len() - 1
            }
        };
        let flight = &mut self.flights[at];
        flight.at = At::Broker(request);
        flight.batch.attempts.sent(now);
        self.hold = None;
        if let Some(rate) = &mut self.rate {
            rate.spend(flight.batch.wire_bytes);
        }
        &flight.batch
    }

    pub(super) fn refuse(
        &mut self,
        position: usize,
        decision: Decision,
        cause: &tidemill_proto::Error,
        now: Instant,
        rng: &mut impl Rng,
        meters: &ShardMeters,
    ) {
        let flight = &mut self.flights[position];
        match decision {
            Decision::Again => {
                flight.at = At::Waiting;
                flight.batch.uncertain |= cause.kind().outcome() == tidemill_proto::Outcome::Unknown;
                // what was under way together is refused together and waits once: nothing was sent since the first of them
                if self.refusals == 0 || self.hold.is_none() {
                    self.refusals = self.refusals.saturating_add(1);
                    self.hold = Some(now + BACKOFF.wait(self.refusals, rng));
                }
                meters.retried();
            }
            Decision::Reroute => {
                flight.at = At::Refused;
                self.sending = Sending::Rerouting;
            }
            Decision::Fail => {
                let flight = self.flights.remove(position).expect("the caller found it");
                let error = retrier::refusal(&flight.batch, cause);
                meters.failed(error.kind(), flight.batch.unanswered(), &flight.batch.attempts);
                flight.batch.fail(&error);
            }
        }
    }
}

/// Takes out what matches, keeping the order of the rest.
pub(super) fn drain_where<T>(
    queue: &mut VecDeque<T>,
    matches: impl Fn(&T) -> bool,
) -> impl Iterator<Item = T> {
    let mut taken = Vec::new();
    if queue.iter().any(&matches) {
        let mut kept = VecDeque::with_capacity(queue.len());
        for item in queue.drain(..) {
            if matches(&item) { taken.push(item) } else { kept.push_back(item) }
        }
        *queue = kept;
    }
    taken.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limiter::Limiter;
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use std::sync::Arc;
    use tidemill_proto::ErrorKind;
    use tidemill_types::{PartitionKey, Record, ShardId, StreamName};

    /// A lane with so many batches at the broker, under the requests 1, 2, ….
    fn under_way(batches: u64) -> State {
        let limiter = Arc::new(Limiter::new(1 << 20, None));
        let terms = Terms::for_tests(1024, limiter.clone());
        let mut state = State::new(terms, Policy::RECOGNISED, None);
        for request in 1..=batches {
            let record = Record::new(PartitionKey::new("k").unwrap(), "data").unwrap();
            limiter.try_take(&record).unwrap();
            let State { aggregator, sealed, .. } = &mut state;
            drop(aggregator.push(&record, None, sealed));
            state.seal();
            state.send(Pick::Sealed, request, Instant::now());
        }
        state
    }

    #[test]
    fn batches_that_are_refused_together_wait_once() {
        let (mut state, mut rng) = (under_way(8), StdRng::seed_from_u64(1));
        let cause = tidemill_proto::Error::new(ErrorKind::Throttled, "slower");
        let (stream, shard) = (StreamName::new("s").unwrap(), ShardId::new(0).unwrap());
        let meters = ShardMeters::new(Arc::default(), &stream, shard);
        let mut refuse = |state: &mut State, position, now| {
            state.refuse(position, Decision::Again, &cause, now, &mut rng, &meters);
        };
        let now = Instant::now();
        for position in 0..8u32 {
            // however slowly the answers come
            refuse(&mut state, position as usize, now + position * BACKOFF.base);
        }
        assert_eq!(state.refusals, 1);
        let until = state.hold.expect("a refusal is followed by a wait");
        assert!(until <= now + BACKOFF.base, "the wait grew with the number of batches: {:?}", until - now);
        assert!(state.flights.iter().all(|flight| flight.at == At::Waiting), "one is not sent again");

        state.send(Pick::Again(0), 9, until);
        refuse(&mut state, 0, until);
        assert_eq!(state.refusals, 2, "the next round counts");
        assert!(state.hold > Some(until));
    }
}
