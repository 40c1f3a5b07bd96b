//! The sender: one task per connection. Sends what the lanes have, as fast as the broker takes it, and hands answers back.
//!
//! ```text
//!  Idle ──a lane has work──► connecting ──► streaming ──call breaks──► what was unanswered waits to be sent again
//!    ▲                           │ fails        │                         │
//!    └───────────── back-off ◄───┴──────────────┴─────────────────────────┘
//! ```
//!
//! Lanes take turns, a batch each. A broker that is silent for [`SILENCE_MAX`] while it owes answers is left and tried anew.

use super::{Answer, Permit, Request};
use crate::lane::{Appended, Lane, Next};
use crate::producer::Shared;
use crate::retrier::{BACKOFF, Decision};
use crate::sender::{Connection, HeldLanes};
use crate::ticket::First;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tidemill_proto::client::Endpoint;
use tidemill_proto::{Error, ErrorKind};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::Instrument;

/// How long a broker may owe answers and give none. As long as HTTP/2 keep-alive takes to find out that a broker is gone,
/// so this only catches one that lives and does not answer. Longer than any upload should take: a call that is broken under
/// way begins the upload anew, so a link must carry the largest record, 10 MiB, within this time.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// Runs until the producer ends it.
pub(crate) async fn run(shared: Arc<Shared>, endpoint: Endpoint, connection: Arc<Connection>, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut failures = 0;
    loop {
        connection.has_work_at_last().await;
        let error = match super::open(&endpoint).await {
            Ok((requests, answers)) => {
                let mut session = Session::new(&shared, &connection, &mut rng);
                let span = tracing::debug_span!("append_call", %endpoint);
                let error = session.run(&requests, answers).instrument(span).await;
                if session.answered {
                    failures = 0;
                }
                session.end(&error);
                error
            }
            Err(error) => error,
        };
        tracing::debug!(%endpoint, %error, "connection for appends lost");
        connection.note(Some(error));
        failures += 1;
        sleep(BACKOFF.wait(failures, &mut rng)).await;
    }
}

/// One append call.
struct Session<'a> {
    shared: &'a Arc<Shared>,
    connection: &'a Connection,
    rng: &'a mut StdRng,
    next_request: u64,
    /// Bounded by the lanes' batches in flight.
    unanswered: HashMap<u64, (Arc<Lane>, Instant)>,
    held: HeldLanes,
    /// The last answer, or the first request after all were answered.
    heard: Instant,
    answered: bool,
}

impl<'a> Session<'a> {
    fn new(shared: &'a Arc<Shared>, connection: &'a Connection, rng: &'a mut StdRng) -> Self {
        Self {
            shared,
            connection,
            rng,
            next_request: 1,
            unanswered: HashMap::new(),
            held: HeldLanes::default(),
            heard: Instant::now(),
            answered: false,
        }
    }

    /// Sends and hears until the call breaks; tells why it did.
    async fn run(&mut self, requests: &super::Requests, mut answers: super::Answers) -> Error {
        loop {
            let has_work = self.connection.has_work();
            let silent = (!self.unanswered.is_empty()).then(|| self.heard + SILENCE_MAX);
            let held = self.held.soonest();
            let timer = silent.into_iter().chain(held).min();
            tokio::select! {
                biased;
                answer = answers.next() => match answer {
                    Ok(answer) => self.hear(answer),
                    Err(error) => return error,
                },
                permit = requests.reserve(), if has_work => match permit {
                    Ok(permit) => self.send(permit),
                    Err(error) => return error,
                },
                () = self.connection.has_work_at_last(), if !has_work => {}
                () = sleep_until(timer.unwrap_or(self.heard)), if timer.is_some() => {
                    let now = Instant::now();
                    if silent.is_some_and(|silent| silent <= now) {
                        let told = format!("the broker gave no answer for {} s", SILENCE_MAX.as_secs());
                        return Error::new(ErrorKind::UnknownOutcome, told);
                    }
                    self.held.let_go(now, self.connection);
                }
            }
        }
    }

    fn send(&mut self, permit: Permit<'_>) {
        let Some(lane) = self.connection.take() else { return };
        let now = Instant::now();
        match lane.next(self.next_request, now) {
            Next::Nothing => {}
            Next::Later(until) => self.held.add(until, lane),
            Next::Batch(cargo) => {
                let (id, frame) = (self.next_request, cargo.frame);
                let (stream, shard, map_version) = (&lane.stream, lane.shard.id, lane.map_version());
                let incarnation = lane.incarnation;
                permit.send(&Request { id, stream, shard, map_version, incarnation, frame });
                if self.unanswered.is_empty() {
                    self.heard = now;
                }
                self.unanswered.insert(id, (lane, now));
                self.next_request += 1;
            }
        }
    }

    fn hear(&mut self, answer: Answer) {
        let now = Instant::now();
        self.heard = now;
        if !self.answered {
            self.answered = true;
            self.connection.note(None);
        }
        let Some((lane, sent)) = self.unanswered.remove(&answer.id) else {
            tracing::warn!(request = answer.id, "the broker answered what was not asked");
            return;
        };
        lane.requests.took(now.saturating_duration_since(sent));
        let at = self.shared.clock.now();
        let outcome = answer.outcome.map(|appended| Appended {
            shard: lane.shard.id,
            first: First::Numbered(lane.shard.number(appended.first, appended.arrival)),
            duplicate: appended.duplicate,
        });
        if lane.answer(answer.id, outcome, (at, now), self.rng) == Some(Decision::Reroute) {
            self.shared.refresh(&lane);
        }
    }

    fn end(&mut self, error: &Error) {
        let when = (self.shared.clock.now(), Instant::now());
        // a lane with several unanswered batches is told several times; only the first finds any
        self.unanswered.drain().for_each(|(_, (lane, _))| lane.lost(when, error));
        self.held.let_all_go(self.connection);
    }
}
