//! The sender: one task per connection. Sends what the lanes have, as fast as the broker takes it, and hands answers back.
//!
//! ```text
//!  Idle ──a lane has work──► connecting ──► streaming ──call breaks──► what was unanswered waits to be sent again
//!    ▲                           │ fails        │                         │
//!    └───────────── back-off ◄───┴──────────────┴─────────────────────────┘
//! ```
//!
//! Lanes take turns, a batch each. A broker that is silent for [`SILENCE_MAX`] while it owes answers is left and tried anew.

use crate::lane::{Lane, Next};
use crate::producer::Shared;
use crate::retrier::{BACKOFF, Decision};
use crate::sink::grpc::{self, Answer, Permit, Request};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidemill_proto::{Error, ErrorKind};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

/// How long a broker may owe answers and give none. As long as HTTP/2 keep-alive takes to find out that a broker is gone,
/// so this only catches one that lives and does not answer. Longer than any upload should take: a call that is broken under
/// way begins the upload anew, so a link must carry the largest record, 10 MiB, within this time.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// The lanes that have something to send over one connection, each once; and what last went wrong there.
#[derive(Default)]
pub(crate) struct Connection {
    lanes: Mutex<VecDeque<Arc<Lane>>>,
    work: Notify,
    last_error: Mutex<Option<Error>>,
}

impl Connection {
    /// Called by a lane that is not in the queue yet.
    pub(crate) fn enqueue(&self, lane: Arc<Lane>) {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).push_back(lane);
        self.work.notify_one();
    }
    fn has_work(&self) -> bool {
        !self.lanes.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
    fn take(&self) -> Option<Arc<Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
    /// Why the connection does not work at the moment; nothing while it does.
    pub(crate) fn last_error(&self) -> Option<Error> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    fn note(&self, error: Option<Error>) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }
    /// Lets go of the lanes, which hold this.
    pub(crate) fn end(&self) {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Runs until the producer ends it.
pub(crate) async fn run(shared: Arc<Shared>, connection: Arc<Connection>, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut failures = 0;
    loop {
        while !connection.has_work() {
            connection.work.notified().await;
        }
        let error = match grpc::open(&shared.config.endpoint).await {
            Ok((requests, answers)) => {
                let mut session = Session::new(&shared, &connection, &mut rng);
                let error = session.run(&requests, answers).await;
                if session.answered {
                    failures = 0;
                }
                session.end(&error);
                error
            }
            Err(error) => error,
        };
        tracing::debug!(endpoint = %shared.config.endpoint, %error, "connection for appends lost");
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
    unanswered: HashMap<u64, Arc<Lane>>,
    held: BinaryHeap<Held>,
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
            held: BinaryHeap::new(),
            heard: Instant::now(),
            answered: false,
        }
    }

    /// Sends and hears until the call breaks; tells why it did.
    async fn run(&mut self, requests: &grpc::Requests, mut answers: grpc::Answers) -> Error {
        loop {
            let has_work = self.connection.has_work();
            let silent = (!self.unanswered.is_empty()).then(|| self.heard + SILENCE_MAX);
            let held = self.held.peek().map(|held| held.until.0);
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
                () = self.connection.work.notified(), if !has_work => {}
                () = sleep_until(timer.unwrap_or(self.heard)), if timer.is_some() => {
                    let now = Instant::now();
                    if silent.is_some_and(|silent| silent <= now) {
                        let told = format!("the broker gave no answer for {} s", SILENCE_MAX.as_secs());
                        return Error::new(ErrorKind::UnknownOutcome, told);
                    }
                    self.let_go(now);
                }
            }
        }
    }

    fn send(&mut self, permit: Permit<'_>) {
        let Some(lane) = self.connection.take() else { return };
        let now = Instant::now();
        match lane.next(self.next_request, now) {
            Next::Nothing => {}
            Next::Later(until) => self.held.push(Held { until: Reverse(until), lane }),
            Next::Batch(frame) => {
                let id = self.next_request;
                let (stream, shard, map_version) = (&lane.stream, lane.shard.id, lane.map_version());
                let incarnation = lane.incarnation;
                permit.send(&Request { id, stream, shard, map_version, incarnation, frame });
                if self.unanswered.is_empty() {
                    self.heard = now;
                }
                self.unanswered.insert(id, lane);
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
        let Some(lane) = self.unanswered.remove(&answer.id) else {
            tracing::warn!(request = answer.id, "the broker answered what was not asked");
            return;
        };
        let at = self.shared.clock.now();
        if lane.answer(answer.id, answer.outcome, (at, now), self.rng) == Some(Decision::Reroute) {
            self.shared.refresh(&lane);
        }
    }

    fn let_go(&mut self, now: Instant) {
        while self.held.peek().is_some_and(|held| held.until.0 <= now) {
            if let Some(held) = self.held.pop() {
                self.connection.enqueue(held.lane);
            }
        }
    }

    fn end(&mut self, error: &Error) {
        let at = self.shared.clock.now();
        // a lane with several unanswered batches is told several times; only the first finds any
        self.unanswered.drain().for_each(|(_, lane)| lane.lost(at, error));
        self.held.drain().for_each(|held| self.connection.enqueue(held.lane));
    }
}

/// A lane that must wait, soonest first.
struct Held {
    until: Reverse<Instant>,
    lane: Arc<Lane>,
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.until == other.until
    }
}
impl Eq for Held {}
impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Held {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.until.cmp(&other.until)
    }
}
