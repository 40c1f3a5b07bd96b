//! Appending as fast as it goes: bare pipelined calls, and the producer library.

use super::{Bench, RECORD_BYTES};
use crate::limits::raw_disk::noise;
use crate::window::{Meter, Window};
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use std::collections::HashMap;
use std::time::Duration;
use tidemill_producer::{Config, PartitionKey, Producer, Record, Ticket};
use tidemill_proto::client::{Channel, Endpoint};
use tidemill_proto::v1::append_response::Outcome;
use tidemill_proto::v1::{AppendRequest, AppendResponse};
use tidemill_types::{FrameWriter, ProducerId, Shard, StreamName};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;

/// Connections to the broker, the default of the producer library.
pub(super) const CONNECTIONS: usize = 2;
/// Bytes of a frame, the default of the producer library.
const FRAME_BYTES: usize = 512 << 10;
/// Unanswered frames of a shard, the default of the producer library.
const IN_FLIGHT: usize = 8;
/// Requests handed over and not taken by the transport, as in the producer library.
const REQUESTS_QUEUED: usize = 4;
/// An answer that does not come in this time will not come.
const PATIENCE: Duration = Duration::from_secs(30);
/// Tickets handed over together, and how many such chunks wait; the producer bounds their bytes.
const CHUNK: usize = 32;
const CHUNKS_MAX: usize = 4096;
const KEYS: usize = 1024;
const NOISE_BYTES: usize = 256 << 10;

/// Frames that were made before, pipelined over append calls; each answer sends the next.
pub(super) async fn bare(
    bench: &Bench,
    stream: &StreamName,
    shards: &[Shard],
    window: Window,
) -> Result<Meter> {
    let endpoint = Endpoint::new(&bench.endpoint)?;
    let version = bench.control.list_shards(stream).await?.map.version().get();
    let mut tasks = JoinSet::new();
    for connection in 0..CONNECTIONS {
        let channel = Channel::connect(&endpoint).await?;
        let mine = shards.iter().skip(connection).step_by(CONNECTIONS);
        let requests = mine.map(|shard| request(stream, shard, version)).collect::<Result<Vec<_>>>()?;
        tasks.spawn(append(channel, requests, Meter::new(window)));
    }
    together(tasks, window).await
}

/// A frame of a shard's own key, as a request without a number.
fn request(stream: &StreamName, shard: &Shard, map_version: u64) -> Result<AppendRequest> {
    let mine = |key: &String| {
        let key = PartitionKey::new(key).ok();
        let record = key.and_then(|key| Record::new(key, Bytes::new()).ok());
        record.is_some_and(|record| shard.range.contains(record.hash_key()))
    };
    let key = (0u64..).map(|n| format!("{n:016x}")).find(mine).context("a key of every shard")?;
    let data = noise(RECORD_BYTES);
    let mut frame = FrameWriter::with_capacity(FRAME_BYTES);
    while frame.frame_bytes() + FrameWriter::record_bytes(key.len(), data.len()) <= FRAME_BYTES {
        frame.push(&key, &data);
    }
    Ok(AppendRequest {
        request_id: 0,
        stream: stream.to_string(),
        shard: shard.id.get(),
        map_version,
        stream_incarnation: 0,
        frame: frame.finish(ProducerId::NONE, 0).bytes().clone(),
    })
}

/// One call. Every request of `all` is kept in flight so often.
async fn append(channel: Channel, all: Vec<AppendRequest>, mut meter: Meter) -> Result<Meter> {
    let (requests, queued) = mpsc::channel(REQUESTS_QUEUED);
    let (due, mut sending) = mpsc::unbounded_channel::<usize>();
    let (sent, mut began) = mpsc::unbounded_channel::<(u64, usize, Instant)>();
    for _ in 0..IN_FLIGHT {
        (0..all.len()).try_for_each(|place| due.send(place))?;
    }
    let feeding = tokio::spawn(async move {
        let mut id = 0;
        while let Some(place) = sending.recv().await {
            id += 1;
            if sent.send((id, place, Instant::now())).is_err() {
                return;
            }
            if requests.send(AppendRequest { request_id: id, ..all[place].clone() }).await.is_err() {
                return;
            }
        }
    });
    let mut answers = channel.data().append(ReceiverStream::new(queued)).await?.into_inner();
    let mut due = Some(due);
    let mut waiting: HashMap<u64, (usize, Instant)> = HashMap::new();
    while let Some(answer) = timeout(PATIENCE, answers.message()).await.context("no answer any more")?? {
        while let Ok((id, place, at)) = began.try_recv() {
            waiting.insert(id, (place, at));
        }
        let (place, at) = waiting.remove(&answer.request_id).context("an answer without a request")?;
        let records = appended(&answer)?;
        meter.done(at, records, records * RECORD_BYTES as u64);
        if meter.window().is_over() {
            due = None;
        } else if let Some(due) = &due {
            due.send(place)?;
        }
    }
    feeding.await?;
    Ok(meter)
}

fn appended(answer: &AppendResponse) -> Result<u64> {
    match &answer.outcome {
        Some(Outcome::Appended(appended)) => Ok(u64::from(appended.count)),
        other => bail!("a frame was not stored: {other:?}"),
    }
}

/// Records that go to all shards, and nothing on the way can compress.
pub(crate) struct Load {
    keys: Vec<PartitionKey>,
    noise: Bytes,
    turn: usize,
}

impl Load {
    pub(crate) fn new() -> Result<Self> {
        let keys = (0..KEYS).map(|_| PartitionKey::new(&format!("{:016x}", rand::random::<u64>())));
        let keys = keys.collect::<std::result::Result<_, _>>()?;
        Ok(Self { keys, noise: noise(NOISE_BYTES + RECORD_BYTES).into(), turn: 0 })
    }

    pub(crate) fn next(&mut self) -> Result<Record> {
        self.turn = self.turn.wrapping_add(1);
        let at = self.turn.wrapping_mul(61) % NOISE_BYTES;
        Ok(Record::new(self.keys[self.turn % KEYS].clone(), self.noise.slice(at..at + RECORD_BYTES))?)
    }
}

/// The producer library with its defaults, given records by as many tasks as it has connections.
pub(super) async fn library(bench: &Bench, stream: &StreamName, window: Window) -> Result<Meter> {
    let producer = Producer::new(Config::new(&bench.endpoint)?.connections(CONNECTIONS)?).await?;
    let mut tasks = JoinSet::new();
    for _ in 0..CONNECTIONS {
        tasks.spawn(put(producer.clone(), stream.clone(), u64::MAX, Meter::new(window)));
    }
    let meter = together(tasks, window).await?;
    producer.close().await?;
    Ok(meter)
}

/// Fills a stream.
pub(super) async fn fill(bench: &Bench, stream: &StreamName, records: u64) -> Result<()> {
    let config = Config::new(&bench.endpoint)?.connections(CONNECTIONS)?;
    fill_with(config, stream, records).await
}

/// Fills a stream by a producer of one's own.
pub(crate) async fn fill_with(config: Config, stream: &StreamName, records: u64) -> Result<()> {
    let producer = Producer::new(config).await?;
    let window = Window::after(Duration::ZERO, Duration::from_secs(3600));
    put(producer.clone(), stream.clone(), records, Meter::new(window)).await?;
    Ok(producer.close().await?)
}

/// Puts so many records, or until the window closes; returns when all is answered.
async fn put(producer: Producer, stream: StreamName, records: u64, meter: Meter) -> Result<Meter> {
    let window = meter.window();
    let mut load = Load::new()?;
    let (sent, settling) = mpsc::channel(CHUNKS_MAX);
    let settled = tokio::spawn(settle(settling, meter));
    let mut left = records;
    while left > 0 && !window.is_over() {
        let mut chunk = Vec::with_capacity(CHUNK);
        for _ in 0..left.min(CHUNK as u64) {
            chunk.push((Instant::now(), producer.put(stream.as_str(), load.next()?).await?));
        }
        left -= chunk.len() as u64;
        if sent.send(chunk).await.is_err() {
            break;
        }
    }
    drop(sent);
    settled.await?
}

/// Awaits tickets in the order of the puts.
async fn settle(mut settling: mpsc::Receiver<Vec<(Instant, Ticket)>>, mut meter: Meter) -> Result<Meter> {
    while let Some(chunk) = settling.recv().await {
        for (began, ticket) in chunk {
            ticket.await?;
            meter.done(began, 1, RECORD_BYTES as u64);
        }
    }
    Ok(meter)
}

async fn together(mut tasks: JoinSet<Result<Meter>>, window: Window) -> Result<Meter> {
    let mut all = Meter::new(window);
    while let Some(part) = tasks.join_next().await {
        all.add(&part??);
    }
    Ok(all)
}
