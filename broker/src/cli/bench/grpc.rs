//! Load over gRPC: the producer library in, the native read call out.

use super::Plan;
use super::load::Load;
use super::meter::{Meter, Window};
use crate::error::{Error, Result};
use std::sync::Arc;
use std::time::Duration;
use tidemill_producer::{Config, Producer, Ticket};
use tidemill_proto::client::{Channel, Control, Endpoint};
use tidemill_proto::v1;
use tidemill_types::limits::RETENTION_HOURS_DEFAULT;
use tidemill_types::{FrameHeader, ShardId, StreamName};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// Tickets handed over together.
const CHUNK: usize = 32;
/// Chunks that await their answers; the producer bounds their bytes.
const CHUNKS_MAX: usize = 4096;
const PAGE_BYTES: u32 = 1 << 20;
/// An answer that does not come in this time will not come.
const PATIENCE: Duration = Duration::from_secs(30);

/// Connections to a broker.
pub(super) struct Client {
    plan: Plan,
    endpoint: Endpoint,
    control: Control,
    channels: Vec<Channel>,
}

impl Client {
    pub(super) async fn connect(endpoint: &Endpoint, plan: Plan) -> Result<Self> {
        let mut channels = Vec::new();
        for _ in 0..plan.connections {
            channels.push(Channel::connect(endpoint).await?);
        }
        let control = Control::new(channels[0].clone(), rand::random());
        Ok(Self { plan, endpoint: endpoint.clone(), control, channels })
    }

    pub(super) async fn create(&self, stream: &StreamName) -> Result<()> {
        self.control.create_stream(stream, self.plan.shards, RETENTION_HOURS_DEFAULT).await?;
        Ok(())
    }

    pub(super) async fn delete(&self, stream: &StreamName) -> Result<()> {
        Ok(self.control.delete_stream(stream).await?)
    }

    pub(super) async fn produce(&self, stream: &StreamName, window: Arc<Window>) -> Result<Meter> {
        let config = Config::new(&self.endpoint.to_string())
            .and_then(|config| config.connections(self.plan.connections as usize))
            .map_err(cannot_put)?;
        let producer = Producer::new(config).await.map_err(cannot_put)?;
        let mut tasks = JoinSet::new();
        for _ in 0..self.plan.connections {
            let load = Load::new(self.plan.record_bytes)?;
            tasks.spawn(put(producer.clone(), stream.clone(), load, Meter::new(window.clone())));
        }
        let meter = together(tasks, window).await?;
        // what failed was told by its ticket
        let _ = producer.close().await;
        Ok(meter)
    }

    pub(super) async fn consume(&self, stream: &StreamName, window: Arc<Window>) -> Result<Meter> {
        let shards = self.control.list_shards(stream).await?.shards;
        let mut tasks = JoinSet::new();
        for (shard, channel) in shards.iter().zip(self.channels.iter().cycle()) {
            let reader = Reader { channel: channel.clone(), stream: stream.clone(), shard: shard.id };
            tasks.spawn(reader.run(Meter::new(window.clone())));
        }
        together(tasks, window).await
    }
}

fn cannot_put(error: tidemill_producer::Error) -> Error {
    Error::because("cannot put", error)
}

async fn together(mut tasks: JoinSet<Result<Meter>>, window: Arc<Window>) -> Result<Meter> {
    let mut all = Meter::new(window);
    while let Some(part) = tasks.join_next().await {
        all.add(&part.map_err(|e| Error::because("a connection's task broke off", e))??);
    }
    Ok(all)
}

/// Puts until the window closes; returns when all is answered.
async fn put(producer: Producer, stream: StreamName, mut load: Load, meter: Meter) -> Result<Meter> {
    let window = meter.window().clone();
    let (sent, settling) = mpsc::channel(CHUNKS_MAX);
    let settled = tokio::spawn(settle(settling, meter));
    while !window.is_over() {
        let mut chunk = Vec::with_capacity(CHUNK);
        for _ in 0..CHUNK {
            let began = Instant::now();
            let ticket = producer.put(stream.as_str(), load.next()?).await.map_err(cannot_put)?;
            chunk.push((began, ticket));
        }
        if sent.send(chunk).await.is_err() {
            break;
        }
    }
    drop(sent);
    settled.await.map_err(|e| Error::because("counting the answers broke off", e))
}

/// Awaits tickets in the order of the puts: the latency of one that overtook others is told too high, never too low.
async fn settle(mut settling: mpsc::Receiver<Vec<(Instant, Ticket)>>, mut meter: Meter) -> Meter {
    while let Some(chunk) = settling.recv().await {
        for (began, ticket) in chunk {
            match ticket.await {
                Ok(_) => meter.done(began, 1),
                Err(error) => meter.failed(1, error.to_string()),
            }
        }
    }
    meter
}

/// Reads one shard from its beginning to its end, again and again.
struct Reader {
    channel: Channel,
    stream: StreamName,
    shard: ShardId,
}

impl Reader {
    async fn run(self, mut meter: Meter) -> Result<Meter> {
        let first = self.pass(&mut meter, Pass::Whole).await?;
        meter.read_once(first);
        while first > 0 && !meter.window().is_over() {
            self.pass(&mut meter, Pass::UntilOver).await?;
        }
        Ok(meter)
    }

    /// One call; the number of records it brought.
    async fn pass(&self, meter: &mut Meter, pass: Pass) -> Result<u64> {
        let request = v1::ReadRequest {
            stream: self.stream.to_string(),
            shard: self.shard.get(),
            position: Some(v1::Position { at: Some(v1::position::At::TrimHorizon(v1::Empty {})) }),
            max_bytes: PAGE_BYTES,
            stop_at_tip: true,
        };
        let mut answers = self.channel.data().read(request).await.map_err(broken)?.into_inner();
        let mut records = 0;
        while pass == Pass::Whole || !meter.window().is_over() {
            let began = Instant::now();
            let answer = timeout(PATIENCE, answers.message());
            let answer = answer.await.map_err(|_| Error::failed("the broker sends nothing any more"))?;
            let Some(answer) = answer.map_err(broken)? else { break };
            let count = count(&answer.frames)?;
            records += count;
            meter.done(began, count);
        }
        Ok(records)
    }
}

/// Whether a pass goes on past the end of the window.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    Whole,
    UntilOver,
}

fn broken(status: tonic::Status) -> Error {
    tidemill_proto::Error::from(status).into()
}

/// Records in whole frames, by their headers.
fn count(mut frames: &[u8]) -> Result<u64> {
    let mut records = 0;
    while !frames.is_empty() {
        let header =
            FrameHeader::decode(frames).map_err(|e| Error::because("the broker sent a bad frame", e))?;
        records += u64::from(header.count);
        frames = frames
            .get(header.frame_bytes as usize..)
            .ok_or_else(|| Error::failed("the broker sent half a frame"))?;
    }
    Ok(records)
}
