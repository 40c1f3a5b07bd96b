//! Putting through the producer library: as fast as records are acknowledged, one by one, or when they are due.

use super::super::load::{Load, Stamp};
use super::super::meter::{Meter, Window};
use super::super::pace::{self, Lane};
use super::super::plan::Plan;
use super::super::site::{Credentials, Native};
use super::super::tasks::together;
use crate::error::{Error, Result};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::sync::Arc;
use tidemill_producer::{Config, Producer, Record, Ticket};
use tidemill_types::StreamName;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Tickets handed over together.
const CHUNK: usize = 32;
/// Chunks that await their answers; the producer bounds their bytes.
const CHUNKS_MAX: usize = 4096;
/// Tickets of an open loop on their way to be awaited.
const TICKETS_MAX: usize = 4096;
/// Most connections of one producer.
const PRODUCER_CONNECTIONS_MAX: usize = 16;

/// Whether connections share a producer, as in an application, or batch apart from each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    Shared,
    Alone,
}

/// Producers with as many connections together as the plan has.
pub(super) struct Fleet {
    producers: Vec<Producer>,
    connections: usize,
}

impl Fleet {
    pub(super) async fn new(native: &Native, plan: &Plan, manner: Manner) -> Result<Self> {
        let connections = plan.connections as usize;
        let each = match manner {
            Manner::Shared => connections.div_ceil(connections.div_ceil(PRODUCER_CONNECTIONS_MAX)),
            Manner::Alone => 1,
        };
        let mut producers = Vec::new();
        for _ in 0..connections.div_ceil(each) {
            let config = config(native, plan, each).map_err(cannot_put)?;
            producers.push(Producer::new(config).await.map_err(cannot_put)?);
        }
        Ok(Self { producers, connections })
    }

    /// Tasks that put, one for each connection.
    pub(super) fn len(&self) -> usize {
        self.connections
    }

    /// The producer of each task.
    pub(super) fn iter(&self) -> impl Iterator<Item = Producer> + '_ {
        self.producers.iter().cycle().take(self.connections).cloned()
    }

    /// Records for each task.
    pub(super) fn loads(&self, plan: &Plan) -> Result<Vec<Load>> {
        (0..self.connections).map(|_| Load::new(plan.record_bytes)).collect()
    }

    /// As fast as records are acknowledged.
    pub(super) async fn produce(self, stream: &str, loads: Vec<Load>, window: Arc<Window>) -> Result<Meter> {
        let mut tasks = JoinSet::new();
        for (producer, load) in self.iter().zip(loads) {
            tasks.spawn(fast(producer, stream.to_owned(), load, Meter::new(Arc::clone(&window))));
        }
        let meter = together(tasks, window).await?;
        self.close().await;
        Ok(meter)
    }

    /// When they are due.
    pub(super) async fn paced(
        &self,
        stream: &StreamName,
        loads: Vec<Load>,
        rate: u32,
        window: &Arc<Window>,
    ) -> Result<Meter> {
        // each lane has something to do every second
        let lanes = pace::start(rate, self.len().min(rate as usize), window);
        let mut tasks = JoinSet::new();
        for ((producer, load), lane) in self.iter().zip(loads).zip(lanes) {
            let meter = Meter::new(Arc::clone(window));
            tasks.spawn(when_due(producer, stream.clone(), load, lane, meter));
        }
        together(tasks, Arc::clone(window)).await
    }

    pub(super) async fn close(&self) {
        for producer in &self.producers {
            // what failed was told by its ticket
            let _ = producer.close().await;
        }
    }
}

fn config(native: &Native, plan: &Plan, connections: usize) -> tidemill_producer::Result<Config> {
    let mut config = Config::new(&native.endpoint.to_string())?.connections(connections)?;
    if let Some(pem) = native.endpoint.authorities() {
        config = config.ca_certificate(pem)?;
    }
    if let Some(Credentials { id, secret, .. }) = &native.credentials {
        config = config.credentials(id, secret.reveal())?;
    }
    match plan.linger {
        Some(linger) => config.linger(linger),
        None => Ok(config),
    }
}

fn cannot_put(error: tidemill_producer::Error) -> Error {
    Error::because("cannot put", error)
}

/// Puts until the window closes; returns when all is answered.
async fn fast(producer: Producer, stream: String, mut load: Load, meter: Meter) -> Result<Meter> {
    let window = meter.window().clone();
    let (sent, settling) = mpsc::channel(CHUNKS_MAX);
    let settled = tokio::spawn(settle_in_order(settling, meter));
    while !window.is_over() {
        let (began, mut chunk) = (Instant::now(), Vec::with_capacity(CHUNK));
        for _ in 0..CHUNK {
            chunk.push(producer.put(&stream, load.next()?).await.map_err(cannot_put)?);
        }
        if sent.send((began, chunk)).await.is_err() {
            break;
        }
    }
    drop(sent);
    settled.await.map_err(broken_off)
}

fn broken_off(error: tokio::task::JoinError) -> Error {
    Error::because("counting the answers broke off", error)
}

/// Awaits tickets in the order of the puts, and looks at the clock once for those of a chunk: the latency of one that overtook
/// others is told too high, never too low.
async fn settle_in_order(mut settling: mpsc::Receiver<(Instant, Vec<Ticket>)>, mut meter: Meter) -> Meter {
    while let Some((began, chunk)) = settling.recv().await {
        let mut stored = 0;
        for ticket in chunk {
            match ticket.await {
                Ok(_) => stored += 1,
                Err(error) => meter.failed(1, error.to_string()),
            }
        }
        meter.done(began, stored);
    }
    meter
}

/// One record at a time, the next when it is acknowledged.
pub(super) async fn one_by_one(
    producer: Producer,
    stream: StreamName,
    mut load: Load,
    mut meter: Meter,
) -> Result<Meter> {
    while !meter.window().is_over() {
        let record = load.next()?;
        let began = Instant::now();
        match acknowledged(&producer, &stream, record).await {
            Ok(()) => meter.done(began, 1),
            Err(error) => meter.failed(1, error.to_string()),
        }
    }
    Ok(meter)
}

async fn acknowledged(
    producer: &Producer,
    stream: &StreamName,
    record: Record,
) -> tidemill_producer::Result<()> {
    producer.put(stream.as_str(), record).await?.await.map(drop)
}

/// Puts each record when it is due; returns when all is answered.
pub(super) async fn when_due(
    producer: Producer,
    stream: StreamName,
    mut load: Load,
    mut lane: Lane,
    meter: Meter,
) -> Result<Meter> {
    let mut unsent = Meter::new(Arc::clone(meter.window()));
    let run_began = meter.window().begins();
    let (sent, settling) = mpsc::channel(TICKETS_MAX);
    let settled = tokio::spawn(settle(settling, meter));
    while let Some(due) = lane.next(&mut unsent).await {
        let record = load.next_stamped(Stamp::new(run_began, due))?;
        let ticket = producer.put(stream.as_str(), record).await.map_err(cannot_put)?;
        if sent.send((due, ticket)).await.is_err() {
            break;
        }
    }
    drop(sent);
    let mut meter = settled.await.map_err(broken_off)?;
    meter.add(&unsent);
    Ok(meter)
}

/// Awaits tickets in whatever order they are answered. The producer bounds how many there are.
async fn settle(mut settling: mpsc::Receiver<(Instant, Ticket)>, mut meter: Meter) -> Meter {
    let mut waiting = FuturesUnordered::new();
    let mut open = true;
    while open || !waiting.is_empty() {
        tokio::select! {
            Some((due, answer)) = waiting.next() => match answer {
                Ok(_) => meter.done_since(due, 1),
                Err(error) => {
                    let error: tidemill_producer::Error = error;
                    meter.failed(1, error.to_string());
                }
            },
            sent = settling.recv(), if open => match sent {
                Some((due, ticket)) => waiting.push(async move { (due, ticket.await) }),
                None => open = false,
            },
        }
    }
    meter
}
