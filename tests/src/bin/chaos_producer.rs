//! A producer of the chaos test, to be killed: the producer library in order, with a log of what was acknowledged.
//!
//! ```text
//!  chaos_producer ENDPOINT STREAM FIRST_KEY INCARNATION LOG
//! ```
//!
//! An acknowledgement is written once the ticket has told it, so the log never has one that was not given. This is the one
//! place of the test that knows the producer library.

use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::time::Duration;
use tidemill_producer::{Config, ErrorKind, PartitionKey, Placed, Producer, Record, Ticket};
use tidemill_tests::chaos::{EventLog, ProducerLine, RecordId, monotonic_ns};
use tidemill_tests::payload;
use tidemill_types::SequenceNumber;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// Keys of one producer.
const KEYS: u8 = 16;
const TICKETS_MAX: usize = 512;
/// Four records each.
const PAUSE: Duration = Duration::from_millis(8);
/// The broker may be away when a producer starts.
const CONNECT_DEADLINE: Duration = Duration::from_secs(20);

/// Batches one after the other, so that a key stays in order whatever fails.
fn in_order(endpoint: &str) -> Result<Config> {
    let config = Config::new(endpoint)?.linger(Duration::from_millis(2))?;
    Ok(config.ordered().record_deadline(Duration::from_secs(120))?)
}

async fn connect(endpoint: &str) -> Result<Producer> {
    let given_up = Instant::now() + CONNECT_DEADLINE;
    loop {
        match Producer::new(in_order(endpoint)?).await {
            Err(error) if error.kind() == ErrorKind::Unavailable && Instant::now() < given_up => {
                sleep(Duration::from_millis(50)).await;
            }
            made => return Ok(made?),
        }
    }
}

/// Waits for tickets, many at a time, and writes down what each tells.
async fn settle(mut tickets: mpsc::Receiver<(RecordId, Ticket)>, log: EventLog) -> Result<()> {
    let mut waiting: JoinSet<(RecordId, Result<Placed, tidemill_producer::Error>)> = JoinSet::new();
    let mut open = true;
    while open || !waiting.is_empty() {
        let room = open && waiting.len() < TICKETS_MAX;
        tokio::select! {
            ticket = tickets.recv(), if room => match ticket {
                Some((id, ticket)) => drop(waiting.spawn(async move { (id, ticket.await) })),
                None => open = false,
            },
            Some(told) = waiting.join_next() => {
                let (id, told) = told?;
                let at = monotonic_ns();
                log.add(&match told {
                    Ok(placed) => ProducerLine::Acked {
                        at,
                        id,
                        shard: placed.shard.get(),
                        index: SequenceNumber::try_from(placed.number)?.index().get(),
                    },
                    Err(error) => ProducerLine::Failed { at, id, why: format!("{:?}", error.kind()) },
                })?;
            }
        }
    }
    Ok(())
}

/// Puts records, key by key in turn, until asked to stop.
async fn put_all(
    producer: &Producer,
    args: &[String],
    mut stop: Signal,
    tickets: mpsc::Sender<(RecordId, Ticket)>,
) -> Result<()> {
    let first: u8 = args[2].parse().context("the first key is a number")?;
    let incarnation: u16 = args[3].parse().context("the incarnation is a number")?;
    let put_forever = async {
        for count in 0.. {
            let key = first + u8::try_from(count % u64::from(KEYS)).expect("below the number of keys");
            let id = RecordId::new(incarnation, key, count / u64::from(KEYS));
            let data = payload(id.get(), rand::random_range(40..400));
            let record = Record::new(PartitionKey::new(&id.partition_key())?, data)?;
            let ticket = loop {
                match producer.put(&args[1], record.clone()).await {
                    // nothing was put: the broker could not tell the shards
                    Err(error) if error.kind() == ErrorKind::Unavailable => sleep(PAUSE).await,
                    put => break put?,
                }
            };
            tickets.send((id, ticket)).await?;
            if count % 4 == 0 {
                sleep(PAUSE).await;
            }
        }
        anyhow::Ok(())
    };
    tokio::select! {
        ended = put_forever => ended,
        _ = stop.recv() => Ok(()),
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    ensure!(args.len() == 5, "usage: chaos_producer ENDPOINT STREAM FIRST_KEY INCARNATION LOG");
    // whoever sees the log may send the signal
    let stop = signal(SignalKind::terminate())?;
    let log = EventLog::create(Path::new(&args[4]))?;
    let producer = connect(&args[0]).await?;
    let (sent, tickets) = mpsc::channel(TICKETS_MAX);
    let settling = tokio::spawn(settle(tickets, log));
    put_all(&producer, &args, stop, sent).await?;
    producer.close().await?;
    settling.await?
}
