//! What a lane does when time is over: of whole batches, and of records that were given less time than theirs.

use super::Lane;
use super::state::{At, Flight, State, drain_where};
use crate::batch::Batch;
use crate::retrier;
use std::sync::Arc;
use tidemill_proto::ErrorKind;
use tokio::time::Instant;

impl Lane {
    /// Fails what has passed its deadline.
    pub(crate) fn expire(self: &Arc<Self>, now: Instant) {
        let connection = self.connection.last_error();
        let mut state = self.lock();
        let late = |batch: &Batch| batch.deadline <= now;
        let flying: Vec<_> = drain_where(&mut state.flights, |flight| late(&flight.batch))
            .map(|flight| (flight.batch, matches!(flight.at, At::Broker(_))))
            .collect();
        let sealed: Vec<_> = drain_where(&mut state.sealed, late).map(|batch| (batch, false)).collect();
        let some = self.expire_some(&mut state, now, connection.as_ref());
        if flying.is_empty() && sealed.is_empty() && !some {
            return;
        }
        self.enqueue(&mut state);
        drop(state);
        for (batch, at_broker) in flying.into_iter().chain(sealed) {
            let error = retrier::expiry(&batch, at_broker, connection.as_ref());
            self.expired(error.kind(), batch.unanswered(), &batch);
            batch.fail(&error);
        }
        self.changed.notify_one();
    }
    fn expired(&self, kind: ErrorKind, records: u32, batch: &Batch) {
        self.meters.failed(kind, records, &batch.attempts);
        self.meters.expired(records);
    }

    /// Fails the records that have less time than their batch and no more of it; tells whether there were any.
    fn expire_some(
        &self,
        state: &mut State,
        now: Instant,
        connection: Option<&tidemill_proto::Error>,
    ) -> bool {
        let any = state.flights.iter().any(|flight| flight.batch.has_expired(now))
            || state.sealed.iter().any(|batch| batch.has_expired(now));
        if !any {
            return false;
        }
        let expire = |batch: Batch, at_broker: bool| {
            if !batch.has_expired(now) {
                return Some(batch);
            }
            let error = retrier::expiry(&batch, at_broker, connection);
            let attempts = batch.attempts.clone();
            let sent = retrier::sent(&batch, at_broker);
            let (records, left) = batch.expire_some(now, sent, &error);
            self.meters.failed(error.kind(), records, &attempts);
            self.meters.expired(records);
            left
        };
        let flights = std::mem::take(&mut state.flights).into_iter();
        state.flights = flights
            .filter_map(|Flight { batch, at }| {
                expire(batch, matches!(at, At::Broker(_))).map(|batch| Flight { batch, at })
            })
            .collect();
        state.sealed =
            std::mem::take(&mut state.sealed).into_iter().filter_map(|batch| expire(batch, false)).collect();
        true
    }
}
