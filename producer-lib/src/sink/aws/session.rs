//! The session: one task that turns what the lanes have into requests, and answers into what the lanes are told.
//!
//! ```text
//!  lanes ─► gathered, by stream ──full, or has waited──► under way (bounded) ──► stored as foretold ─► lane.answer
//!                                                             │                └► stored elsewhere ─► judged ─► lane.answer
//!                                                             └► failed, whole or in part ─► lane.answer
//! ```

use super::Service;
use super::answer::{Place, error_of, results};
use super::collect::{Entry, Gathered, Sender, wait};
use crate::lane::{Appended, Next};
use crate::producer::Shared;
use crate::retrier::{BACKOFF, Decision};
use crate::sender::{Connection, HeldLanes};
use crate::ticket::First;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::HashMap;
use std::sync::Arc;
use tidemill_proto::{Error, ErrorKind};
use tidemill_types::StreamName;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::Instrument;

/// A request that has come to an end.
struct Done {
    senders: Vec<Sender>,
    began: Instant,
    outcome: Result<Vec<Result<Place, Error>>, Error>,
}

/// A batch that another shard took than the one it was made for.
struct Judged {
    sender: Sender,
    outcome: Result<Appended, Error>,
}

enum Event {
    Done(Done),
    Judged(Judged),
}

/// Runs until the producer ends it.
pub(crate) async fn run(shared: Arc<Shared>, service: Arc<Service>, connection: Arc<Connection>, seed: u64) {
    let session = Session {
        shared,
        service,
        connection,
        rng: StdRng::seed_from_u64(seed),
        next_request: 1,
        gathered: HashMap::new(),
        held: HeldLanes::default(),
        requests: 0,
        under_way: JoinSet::new(),
    };
    session.run().await;
}

struct Session {
    shared: Arc<Shared>,
    service: Arc<Service>,
    connection: Arc<Connection>,
    rng: StdRng,
    next_request: u64,
    /// Bounded by the streams.
    gathered: HashMap<StreamName, Gathered>,
    held: HeldLanes,
    /// Requests among what is under way; bounded by `requests_in_flight`.
    requests: usize,
    /// Beside them, judgements; bounded by the lanes' batches in flight.
    under_way: JoinSet<Event>,
}

impl Session {
    async fn run(mut self) {
        let wait = wait(self.shared.config.linger);
        loop {
            let room = self.requests < self.service.settings.requests_in_flight;
            let has_work = self.connection.has_work();
            let due = self.gathered.values().map(|gathered| gathered.since + wait).min().filter(|_| room);
            let timer = due.into_iter().chain(self.held.soonest()).min();
            tokio::select! {
                biased;
                Some(event) = self.under_way.join_next(), if !self.under_way.is_empty() => match event {
                    Ok(event) => self.hear(event),
                    Err(error) => tracing::error!(%error, "a request broke off"),
                },
                () = std::future::ready(()), if room && has_work => self.gather(),
                () = self.connection.has_work_at_last(), if room && !has_work => {}
                () = sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => {
                    let now = Instant::now();
                    self.held.let_go(now, &self.connection);
                    self.send_what_has_waited(now, wait);
                }
            }
        }
    }

    /// Takes a lane's next batch.
    fn gather(&mut self) {
        let Some(lane) = self.connection.take() else { return };
        let (now, request) = (Instant::now(), self.next_request);
        let cargo = match lane.next(request, now) {
            Next::Nothing => return,
            Next::Later(until) => return self.held.add(until, lane),
            Next::Batch(cargo) => cargo,
        };
        self.next_request += 1;
        let stream = lane.stream.clone();
        let entry = match Entry::pack(Sender { lane, request }, &cargo) {
            Ok(entry) => entry,
            Err((sender, error)) => return self.tell(&sender, Err(error)),
        };
        let limits = &self.service.settings;
        let gathered = self.gathered.entry(stream.clone()).or_insert_with(|| Gathered::new(now));
        if gathered.lacks_room_for(&entry, limits) {
            let full = std::mem::replace(gathered, Gathered::new(now));
            gathered.add(entry);
            return self.send(&stream, full);
        }
        gathered.add(entry);
        if gathered.is_full(limits) {
            self.gathered.remove(&stream).into_iter().for_each(|full| self.send(&stream, full));
        }
    }

    fn send_what_has_waited(&mut self, now: Instant, wait: std::time::Duration) {
        let waited = self.gathered.extract_if(|_, gathered| gathered.since + wait <= now);
        for (stream, gathered) in waited.collect::<Vec<_>>() {
            self.send(&stream, gathered);
        }
    }

    fn send(&mut self, stream: &StreamName, gathered: Gathered) {
        let (entries, user_records) = (gathered.entries(), gathered.user_records());
        let (senders, wire) = gathered.into_request();
        if let Some(sender) = senders.first() {
            sender.lane.requests.carries(entries, user_records);
        }
        let service = self.service.clone();
        let span = tracing::debug_span!("put_records", %stream, entries, user_records);
        let (stream, began) = (stream.clone(), Instant::now());
        self.requests += 1;
        let request = async move {
            let outcome = match wire {
                Ok(wire) => service.put(&stream, wire).await,
                Err(error) => Err(error),
            };
            Event::Done(Done { senders, began, outcome })
        };
        self.under_way.spawn(request.instrument(span));
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::Judged(Judged { sender, outcome }) => {
                let fits = outcome.is_ok();
                self.tell(&sender, outcome);
                if fits {
                    // what else it holds goes to where the records go by now
                    sender.lane.stop();
                    self.shared.refresh(&sender.lane);
                }
            }
            Event::Done(done) => {
                self.requests -= 1;
                self.hear_done(done);
            }
        }
    }

    fn hear_done(&mut self, done: Done) {
        let Done { senders, began, outcome } = done;
        if let Some(sender) = senders.first() {
            sender.lane.requests.took(began.elapsed());
        }
        self.connection.note(outcome.as_ref().err().cloned());
        let results = match outcome {
            Ok(results) => results,
            Err(error) => vec![Err(error); senders.len()],
        };
        for (sender, result) in senders.into_iter().zip(results) {
            match result {
                Ok(place) if place.shard != sender.lane.shard.id => self.judge(sender, place),
                Ok(place) => self.tell(&sender, Ok(appended(place))),
                Err(error) => self.tell(&sender, Err(error)),
            }
        }
    }

    fn tell(&mut self, sender: &Sender, outcome: Result<Appended, Error>) {
        let when = (self.shared.clock.now(), Instant::now());
        if sender.lane.answer(sender.request, outcome, when, &mut self.rng) == Some(Decision::Reroute) {
            self.shared.refresh(&sender.lane);
        }
    }

    /// Finds out whether the shard that took a batch is meant for all of it.
    fn judge(&mut self, sender: Sender, place: Place) {
        let service = self.service.clone();
        self.under_way.spawn(async move {
            let outcome = match service.was_meant_for(&sender, place).await {
                true => Ok(appended(place)),
                false => {
                    let told = format!("it was stored in {}, which is not meant for all of it", place.shard);
                    Err(Error::new(ErrorKind::ShardClosed, told))
                }
            };
            Event::Judged(Judged { sender, outcome })
        });
    }
}

fn appended(place: Place) -> Appended {
    Appended { shard: place.shard, first: First::Packed(place.number), duplicate: false }
}

impl Service {
    async fn put(
        &self,
        stream: &StreamName,
        entries: Vec<aws_sdk_kinesis::types::PutRecordsRequestEntry>,
    ) -> Result<Vec<Result<Place, Error>>, Error> {
        let count = entries.len();
        let put = self.client.put_records().stream_name(stream.as_str()).set_records(Some(entries));
        let output = put.send().await.map_err(|failure| error_of(&failure))?;
        Ok(results(&output, count))
    }

    /// Whether all records of a batch are meant for the shard that took it. Looks until the list of shards has changed, or
    /// nobody waits for the batch any more.
    async fn was_meant_for(&self, sender: &Sender, place: Place) -> bool {
        let Sender { lane, request } = sender;
        for failures in 1.. {
            if let Ok(list) = self.list_shards(&lane.stream).await {
                if let Some(shard) = list.shards.iter().find(|shard| shard.id == place.shard) {
                    return lane.fits(*request, shard.range).unwrap_or(false);
                }
                // it is closed again already: then its range is not known
                if !list.shards.iter().any(|shard| shard.id == lane.shard.id) {
                    return false;
                }
            }
            if lane.fits(*request, lane.shard.range).is_none() {
                return false;
            }
            let wait = BACKOFF.wait(failures, &mut rand::rng());
            sleep(wait).await;
        }
        unreachable!("it is looked at until something is found")
    }
}
