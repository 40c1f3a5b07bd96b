//! `tidemill demo`: the main job, seen working, on real events.
//!
//! ```text
//!  flights ─► producer ─gRPC─► broker, 4 shards ─gRPC─► worker-1 ✂ halfway ─┐
//!   (file)                     (temporary                worker-2 ──────────┴─► tally ─► figures = those of the file?
//!                              directory)
//! ```
//!
//! It succeeds only if every figure agrees. What it does not do: measure the broker's limits; events are put at a steady
//! pace, so that a person can watch.

mod figures;
mod flights;
mod progress;
mod report;
mod tally;

use super::output;
use super::signals::StopSignals;
use crate::error::{Error, Result};
use crate::server::{Broker, BrokerSettings};
use flights::Flights;
use hdrhistogram::Histogram;
use progress::Progress;
use report::Report;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tally::{Tally, micros, micros_histogram};
use tidemill_consumer::{Batch, Checkpointer, ProcessError, RecordProcessor, Worker, WorkerHandle};
use tidemill_producer::{Config, PartitionKey, Producer, Record, Ticket};
use tidemill_proto::client::{Channel, Control, Endpoint};
use tidemill_types::limits::RETENTION_HOURS_DEFAULT;
use tidemill_types::{AppName, StreamKey, StreamName};
use tokio::sync::mpsc;
use tokio::time::Instant;

const STREAM: &str = "flights";
const APP: &str = "departures";
const SHARDS: u32 = 4;
/// Short, so that the takeover can be watched.
const LEASE: Duration = Duration::from_secs(2);
/// Events put per second.
const PACE: u32 = 6_000;
/// How often the pace is kept.
const TICK: Duration = Duration::from_millis(20);
/// No part of the demo may take longer.
const PATIENCE: Duration = Duration::from_secs(40);
const POLL: Duration = Duration::from_millis(20);
/// Records whose acknowledgement is awaited at a time.
const TICKETS_MAX: usize = 65_536;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args) -> Result<()> {
    let mut signals = StopSignals::catch()?;
    let report = tokio::select! {
        report = play() => report?,
        () = signals.any() => return Err(Error::failed("interrupted")),
    };
    if args.json {
        output::json(&report.json())?;
    } else {
        output::line(&report.table())?;
    }
    if report.agrees() { Ok(()) } else { Err(Error::failed("the demo's figures do not agree with the file")) }
}

/// From an empty directory to the report; the directory is removed at the end.
async fn play() -> Result<Report> {
    let flights = Flights::load()?;
    let expected = flights.figures()?;
    let dir = tempfile::tempdir().map_err(|e| Error::because("cannot make a temporary directory", e))?;
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let settings = BrokerSettings { listen, data_dir: dir.path().join("data"), ..BrokerSettings::default() };
    let broker = Broker::start(settings).await?;
    let stage = Stage::build(broker, flights.len()).await?;
    stage.progress.say(&format!(
        "{} flights of January 2013 as JSON events, keyed by tail number, into {SHARDS} shards at {}",
        flights.len(),
        stage.broker.endpoint()
    ));
    let report = stage.perform(&flights, expected).await?;
    stage.broker.shutdown().await?;
    Ok(report)
}

/// What is set up before the first event.
struct Stage {
    broker: Broker,
    tally: Arc<Tally>,
    progress: Progress,
}

/// What came of putting.
struct Produced {
    time: Duration,
    failures: usize,
    acknowledged: Histogram<u64>,
}

impl Stage {
    async fn build(broker: Broker, events: usize) -> Result<Self> {
        let endpoint = Endpoint::new(&broker.endpoint())?;
        let control = Control::new(Channel::connect(&endpoint).await?, rand::random());
        control.create_stream(&stream_name(), SHARDS, RETENTION_HOURS_DEFAULT).await?;
        Ok(Self { broker, tally: Arc::new(Tally::new(events)), progress: Progress::new(events) })
    }

    async fn perform(&self, flights: &Flights, expected: figures::Figures) -> Result<Report> {
        let started = Instant::now();
        let (doomed, survivor) = (self.worker("worker-1")?, self.worker("worker-2")?);
        within("the workers share out the shards", self.shared_out()).await?;
        self.progress.say("worker-1 and worker-2 have two shards each");
        let watch = self.progress.follow(self.tally.events());
        let (produced, takeover) = tokio::try_join!(
            within("the events are put", self.produce(flights)),
            within("worker-2 takes the shards over", self.kill(doomed, flights.len() / 2)),
        )?;
        within("all events are counted", self.counted(flights.len())).await?;
        survivor.stop(PATIENCE).await.map_err(|e| Error::failed(e.message()))?;
        watch.abort();
        let outcome = self.tally.outcome();
        self.progress.finish(outcome.events);
        Ok(Report {
            events: flights.len(),
            counted: outcome.events,
            redelivered: outcome.redelivered,
            failures: produced.failures,
            expected,
            computed: outcome.figures,
            put_time: produced.time,
            total_time: started.elapsed(),
            takeover,
            acknowledged: produced.acknowledged,
            delivered: outcome.delivered,
        })
    }

    fn worker(&self, id: &str) -> Result<WorkerHandle> {
        let worker =
            Worker::builder(&self.broker.endpoint(), APP, STREAM).worker_id(id).lease_duration(LEASE);
        let tally = Arc::clone(&self.tally);
        let worker = worker.build().map_err(|e| Error::failed(e.message()))?;
        Ok(worker.start(move |_| Counter { tally: Arc::clone(&tally) }))
    }

    /// Shards held by each worker now, by the broker's own table.
    async fn held(&self, worker: &str) -> Result<usize> {
        let app = AppName::new(APP).expect("a valid name");
        let account = BrokerSettings::default().account;
        let stream = StreamKey::new(account, stream_name());
        let rows = self.broker.engine().leases().list(&app, &stream).await;
        let rows = rows.map_err(|e| Error::because("cannot list the leases", e))?;
        let live = rows.iter().filter(|row| row.expires_in_ms > 0);
        Ok(live.filter(|row| row.owner.as_ref().is_some_and(|owner| owner.as_str() == worker)).count())
    }

    async fn shared_out(&self) -> Result<()> {
        let half = SHARDS as usize / 2;
        while (self.held("worker-1").await?, self.held("worker-2").await?) != (half, half) {
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    async fn counted(&self, events: usize) -> Result<()> {
        let mut counted = self.tally.events();
        let done = counted.wait_for(|counted| *counted >= events).await;
        done.map(drop).map_err(|e| Error::because("nobody counts any more", e))
    }

    /// Puts every event at a steady pace, and awaits every acknowledgement.
    async fn produce(&self, flights: &Flights) -> Result<Produced> {
        let failed = |e: tidemill_producer::Error| Error::because("cannot put the events", e);
        let config = Config::new(&self.broker.endpoint()).map_err(failed)?;
        let producer = Producer::new(config).await.map_err(failed)?;
        let started = Instant::now();
        let (tickets, settling) = mpsc::channel(TICKETS_MAX);
        let settled = tokio::spawn(settle(settling, self.progress.clone()));
        let per_tick =
            usize::try_from(PACE * u32::try_from(TICK.as_millis()).unwrap_or(1) / 1000).unwrap_or(1);
        let mut tick = tokio::time::interval(TICK);
        for (number, event) in flights.events().enumerate() {
            if number % per_tick == 0 {
                tick.tick().await;
            }
            let key = PartitionKey::new(&event.key).map_err(|e| Error::failed(e.to_string()))?;
            let record = Record::new(key, event.json).map_err(|e| Error::failed(e.to_string()))?;
            self.tally.put(number);
            let put_at = Instant::now();
            let ticket = producer.put(STREAM, record).await.map_err(failed)?;
            if tickets.send((ticket, put_at)).await.is_err() {
                break;
            }
        }
        drop(tickets);
        producer.close().await.map_err(failed)?;
        let (failures, acknowledged) =
            settled.await.map_err(|e| Error::because("awaiting the answers broke off", e))?;
        Ok(Produced { time: started.elapsed(), failures, acknowledged })
    }

    /// Ends a worker as a crash would once `halfway` events are counted; returns how long its shards lay still.
    async fn kill(&self, doomed: WorkerHandle, halfway: usize) -> Result<Option<Duration>> {
        self.counted(halfway).await?;
        doomed.abort();
        let died = Instant::now();
        self.progress.say("worker-1 is dead: nothing checkpointed, no lease given back");
        while self.held("worker-2").await? < SHARDS as usize {
            tokio::time::sleep(POLL).await;
        }
        let takeover = died.elapsed();
        self.progress
            .say(&format!("worker-2 has taken its shards over after {:.1} s", takeover.as_secs_f64()));
        Ok(Some(takeover))
    }
}

fn stream_name() -> StreamName {
    StreamName::new(STREAM).expect("a valid name")
}

async fn within<T>(what: &str, part: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(PATIENCE, part).await {
        Ok(done) => done,
        Err(_) => Err(Error::failed(format!("waited {} s until {what}, in vain", PATIENCE.as_secs()))),
    }
}

/// Awaits acknowledgements: how many failed, and how long the others took.
async fn settle(
    mut tickets: mpsc::Receiver<(Ticket, Instant)>,
    progress: Progress,
) -> (usize, Histogram<u64>) {
    let (mut failures, mut latency) = (0, micros_histogram());
    while let Some((ticket, put_at)) = tickets.recv().await {
        match ticket.await {
            Ok(_) => latency.saturating_record(micros(put_at.elapsed()).max(1)),
            Err(error) => {
                tracing::warn!(%error, "an event was not acknowledged");
                failures += 1;
            }
        }
        progress.acknowledged();
    }
    (failures, latency)
}

/// The application of the demo: counts every event of its shard.
struct Counter {
    tally: Arc<Tally>,
}

impl RecordProcessor for Counter {
    async fn process(&mut self, batch: Batch, _: &Checkpointer) -> std::result::Result<(), ProcessError> {
        for record in batch.records() {
            self.tally.count(&record)?;
        }
        Ok(())
    }
}
