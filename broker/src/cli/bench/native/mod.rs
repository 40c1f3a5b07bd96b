//! The target `bare`: what the native protocol gives without the libraries. Frames are made before the clock starts, and
//! answers are counted by their headers, so that the load generator costs little beside what it measures.

mod append;
mod frames;
mod read;

use super::bare::{Pages, Until};
use super::connection::Connections;
use super::deliveries::Deliveries;
use super::meter::{Meter, Window};
use super::pace;
use super::plan::{Measured, Plan, Stage};
use super::tasks::together;
use crate::error::{Error, Result};
use frames::{Fill, Frames};
use read::{Again, Reader};
use std::sync::Arc;
use std::time::Duration;
use tidemill_proto::client::{Channel, Endpoint};
use tidemill_proto::v1::AppendRequest;
use tidemill_types::StreamName;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Unanswered batches of a connection, and unanswered single records.
const BATCHES_IN_FLIGHT: usize = 16;
const SINGLES_IN_FLIGHT: usize = 256;
/// Nothing of such a window counts.
const NEVER: Duration = Duration::from_secs(86_400);
/// Shards that are read at a time; each takes some 200 KB to count in.
const READERS_MAX: usize = 256;
/// A connection carries 1,024 calls at most.
const READERS_PER_CONNECTION: usize = 512;

/// Connections to a broker.
pub(super) struct Client {
    endpoint: Endpoint,
    connections: Connections,
}

impl Client {
    pub(super) async fn connect(endpoint: &Endpoint, plan: &Plan) -> Result<Self> {
        let connections = Connections::open(endpoint, plan.connections).await?;
        Ok(Self { endpoint: endpoint.clone(), connections })
    }

    pub(super) fn connections(&self) -> &Connections {
        &self.connections
    }

    async fn frames(&self, stage: &Stage) -> Result<Frames> {
        let map = self.connections.map(&stage.stream).await?;
        Frames::new(&stage.stream, map, stage.plan.record_bytes)
    }

    pub(super) async fn fill(&self, stage: &Stage) -> Result<Meter> {
        let requests = self.requests(&self.frames(stage).await?, Fill::Full);
        let course = stage.begin_fill();
        self.append(requests, BATCHES_IN_FLIGHT, &course.window).await
    }

    pub(super) async fn produce(&self, stage: &Stage) -> Result<Meter> {
        self.closed(stage, Fill::Full, BATCHES_IN_FLIGHT).await
    }

    pub(super) async fn single(&self, stage: &Stage) -> Result<Meter> {
        self.closed(stage, Fill::One, 1).await
    }

    pub(super) async fn shards(&self, stage: &Stage) -> Result<Meter> {
        self.closed(stage, Fill::One, SINGLES_IN_FLIGHT).await
    }

    async fn closed(&self, stage: &Stage, fill: Fill, in_flight: usize) -> Result<Meter> {
        let requests = self.requests(&self.frames(stage).await?, fill);
        let course = stage.begin();
        self.append(requests, in_flight, &course.window).await
    }

    /// Of each connection.
    fn requests(&self, frames: &Frames, fill: Fill) -> Vec<Vec<AppendRequest>> {
        let connections = self.connections.channels.len();
        (0..connections).map(|connection| frames.of_connection(connection, connections, fill)).collect()
    }

    async fn append(
        &self,
        requests: Vec<Vec<AppendRequest>>,
        in_flight: usize,
        window: &Arc<Window>,
    ) -> Result<Meter> {
        let mut tasks = JoinSet::new();
        for (requests, channel) in requests.into_iter().zip(&self.connections.channels) {
            let meter = Meter::new(Arc::clone(window));
            tasks.spawn(append::closed_loop(channel.clone(), requests, in_flight, meter));
        }
        together(tasks, Arc::clone(window)).await
    }

    pub(super) async fn consume(&self, stage: &Stage) -> Result<Meter> {
        let readers = self.readers(&stage.stream).await?;
        let course = stage.begin();
        read_side_by_side(readers, Again::UntilOver, Arc::clone(&course.window)).await
    }

    /// Reads everything there is, once.
    pub(super) async fn read_all(&self, stream: &StreamName) -> Result<Meter> {
        let readers = self.readers(stream).await?;
        read_side_by_side(readers, Again::Never, Window::after(NEVER, NEVER, u64::MAX)).await
    }

    async fn readers(&self, stream: &StreamName) -> Result<Vec<Reader>> {
        let shards = self.connections.shards(stream).await?;
        let channels = self.connections.channels.iter().cycle();
        let reader = |(shard, channel): (&tidemill_types::Shard, &Channel)| Reader {
            channel: channel.clone(),
            stream: stream.clone(),
            shard: shard.id,
        };
        Ok(shards.iter().zip(channels).map(reader).collect())
    }

    /// Records when they are due, and a push reader of each shard over connections of its own.
    pub(super) async fn latency(&self, stage: &Stage, rate: u32) -> Result<Measured> {
        let frames = Arc::new(self.frames(stage).await?);
        let pages = self.push_readers(stage, frames.shards()).await?;
        let course = stage.begin();
        let deliveries = Deliveries::new(&course.window);
        let mut delivering = JoinSet::new();
        for pages in pages {
            delivering.spawn(read::deliver(pages, Arc::clone(&deliveries)));
        }
        let put = async {
            let meter = self.paced(stage, rate, &frames, &course.window).await?;
            deliveries.expect(meter.acknowledged()).await;
            Ok::<_, Error>(meter)
        };
        let meter = tokio::select! {
            meter = put => meter?,
            Some(ended) = delivering.join_next() => {
                ended.map_err(|e| Error::because("a reader broke off", e))??;
                return Err(Error::failed("a push reader ended"));
            }
        };
        Ok(Measured { delivered: Some(deliveries.meter()), ..meter.into() })
    }

    /// Of each shard, over connections of their own.
    async fn push_readers(&self, stage: &Stage, shards: usize) -> Result<Vec<Pages>> {
        let needed = u32::try_from(shards.div_ceil(READERS_PER_CONNECTION)).unwrap_or(u32::MAX);
        let connections = needed.max(stage.plan.connections);
        let connections = Connections::open(&self.endpoint, connections).await?;
        let mut pages = Vec::new();
        for reader in (Self { connections, endpoint: self.endpoint.clone() }).readers(&stage.stream).await? {
            pages.push(reader.open(Until::Stopped).await?);
        }
        Ok(pages)
    }

    async fn paced(
        &self,
        stage: &Stage,
        rate: u32,
        frames: &Arc<Frames>,
        window: &Arc<Window>,
    ) -> Result<Meter> {
        // each lane has something to do every second
        let lanes = self.connections.channels.len().min(rate as usize);
        let mut tasks = JoinSet::new();
        for (lane, channel) in pace::start(rate, lanes, window).into_iter().zip(&self.connections.channels) {
            let meter = Meter::new(Arc::clone(window));
            let frames = Arc::clone(frames);
            tasks.spawn(append::open_loop(channel.clone(), frames, lane, stage.plan.record_bytes, meter));
        }
        together(tasks, Arc::clone(window)).await
    }

    /// Readers of the one shard, which is written to meanwhile: at the rate, or as fast as it goes.
    pub(super) async fn fanout(&self, stage: &Stage) -> Result<Meter> {
        let frames = Arc::new(self.frames(stage).await?);
        let shard = self.connections.shards(&stage.stream).await?.first().map(|shard| shard.id);
        let shard = shard.ok_or_else(|| Error::failed("the stream has no shard"))?;
        let requests = frames.of_connection(0, 1, Fill::Full);
        let readers = Connections::open(&self.endpoint, stage.plan.connections).await?;
        let over = CancellationToken::new();
        let course = stage.begin();
        let mut tasks = JoinSet::new();
        for channel in readers.channels.iter().cycle().take(stage.plan.readers as usize) {
            let reader = Reader { channel: channel.clone(), stream: stage.stream.clone(), shard };
            let pages = reader.open(Until::Stopped).await?;
            tasks.spawn(read::follow(pages, Meter::new(Arc::clone(&course.window)), over.clone()));
        }
        let beside = course.window.beside();
        let put = async {
            match stage.plan.rate {
                Some(rate) => self.paced(stage, rate, &frames, &beside).await,
                None => {
                    let meter = Meter::new(Arc::clone(&beside));
                    let channel = self.connections.channels[0].clone();
                    append::closed_loop(channel, requests, BATCHES_IN_FLIGHT, meter).await
                }
            }
        };
        let closed = async {
            course.window.over().await;
            over.cancel();
            Ok(())
        };
        let (put, mut meter, ()) =
            tokio::try_join!(put, together(tasks, Arc::clone(&course.window)), closed)?;
        meter.add_errors(&put);
        Ok(meter)
    }
}

/// At most so many at a time.
async fn read_side_by_side(readers: Vec<Reader>, again: Again, window: Arc<Window>) -> Result<Meter> {
    let mut groups: Vec<Vec<Reader>> = (0..READERS_MAX.min(readers.len())).map(|_| Vec::new()).collect();
    for (turn, reader) in readers.into_iter().enumerate() {
        groups[turn % READERS_MAX].push(reader);
    }
    let mut tasks = JoinSet::new();
    for group in groups {
        tasks.spawn(read::in_turn(group, again, Meter::new(Arc::clone(&window))));
    }
    together(tasks, window).await
}
