//! A broker in memory behind real gRPC: records, shards with parents, leases with epochs and expiry. It sends no
//! heartbeats, and breaks what it is told to break.

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tidemill_proto::v1;
use tidemill_proto::{Error, ErrorKind};
use tidemill_types::{
    Checkpoint, Frame, FrameHeader, FrameWriter, HashKeyRange, Position, ProducerId, SequenceIndex,
    SequenceNumber, Shard, ShardId, ShardState, TimestampMs,
};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

pub(crate) const STREAM: &str = "events";
const CREATED: TimestampMs = TimestampMs::new(1_700_000_000_000);

struct ShardModel {
    shard: Shard,
    frames: Vec<Frame>,
    next: u64,
}

#[derive(Default, Clone)]
pub(crate) struct LeaseModel {
    pub(crate) owner: String,
    pub(crate) epoch: u64,
    counter: u64,
    pub(crate) checkpoint: Option<Checkpoint>,
    expires: Option<Instant>,
    lease_ms: u64,
}

impl LeaseModel {
    fn left_ms(&self) -> u64 {
        let left = self.expires.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()));
        if self.owner.is_empty() { 0 } else { u64::try_from(left.as_millis()).unwrap() }
    }
}

#[derive(Default)]
struct Model {
    shards: BTreeMap<u32, ShardModel>,
    leases: BTreeMap<u32, LeaseModel>,
    deleted: bool,
    /// Workers whose lease calls fail.
    cut_off: BTreeSet<String>,
    takes: Vec<(u32, String)>,
    reads: usize,
    damage: usize,
}

#[derive(Clone)]
struct Service {
    model: Arc<Mutex<Model>>,
    /// Moves when there is something new to read.
    news: Arc<watch::Sender<u64>>,
    /// Moves when all reads are to break.
    breaks: Arc<watch::Sender<u64>>,
}

pub(crate) struct FakeBroker {
    service: Service,
    address: SocketAddr,
    _server: JoinSet<()>,
}

impl FakeBroker {
    pub(crate) async fn start(shard_count: u32) -> Self {
        let service = Service {
            model: Arc::default(),
            news: Arc::new(watch::Sender::new(0)),
            breaks: Arc::new(watch::Sender::new(0)),
        };
        for (id, range) in (0..).zip(HashKeyRange::uniform(shard_count)) {
            service.model.lock().add_shard(id, None, range);
        }
        let incoming = tonic::transport::server::TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = incoming.local_addr().unwrap();
        let server = tonic::transport::Server::builder()
            .add_service(v1::data_server::DataServer::new(service.clone()))
            .add_service(v1::lease_server::LeaseServer::new(service.clone()))
            .serve_with_incoming(incoming);
        let mut task = JoinSet::new();
        task.spawn(async move { server.await.unwrap() });
        Self { service, address, _server: task }
    }
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }
    /// Appends one frame of records.
    pub(crate) fn append(&self, shard: u32, records: &[String]) {
        self.service.model.lock().append(shard, records);
        self.service.news.send_modify(|count| *count += 1);
    }
    /// Appends records `0-0`, `0-1`, …: `count` to each of the shards, one frame each.
    pub(crate) fn fill(
        &self,
        shards: std::ops::Range<u32>,
        records: std::ops::Range<usize>,
    ) -> BTreeSet<String> {
        let mut made = BTreeSet::new();
        for n in records {
            for shard in shards.clone() {
                let text = format!("{shard}-{n}");
                self.append(shard, std::slice::from_ref(&text));
                made.insert(text);
            }
        }
        made
    }
    /// Closes a shard and begins two children.
    pub(crate) fn split(&self, parent: u32) -> [u32; 2] {
        let children = self.service.model.lock().split(parent);
        self.service.news.send_modify(|count| *count += 1);
        children
    }
    pub(crate) fn delete_stream(&self) {
        self.service.model.lock().deleted = true;
        self.service.breaks.send_modify(|count| *count += 1);
    }
    pub(crate) fn break_reads(&self) {
        self.service.breaks.send_modify(|count| *count += 1);
    }
    /// The next so many answers carry a flipped bit.
    pub(crate) fn damage_answers(&self, count: usize) {
        self.service.model.lock().damage = count;
    }
    pub(crate) fn cut_off(&self, worker: &str) {
        self.service.model.lock().cut_off.insert(worker.to_owned());
    }
    pub(crate) fn let_back(&self, worker: &str) {
        self.service.model.lock().cut_off.remove(worker);
    }
    /// Gives a lease to a worker that does not exist, for so long.
    pub(crate) fn give_away(&self, shard: u32, lease: Duration) {
        let mut model = self.service.model.lock();
        let lease_row = model.leases.entry(shard).or_default();
        lease_row.owner = "intruder".to_owned();
        lease_row.epoch += 1;
        lease_row.expires = Some(Instant::now() + lease);
    }
    pub(crate) fn lease(&self, shard: u32) -> LeaseModel {
        self.service.model.lock().leases.get(&shard).cloned().unwrap_or_default()
    }
    /// How many live leases each worker holds.
    pub(crate) fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for lease in self.service.model.lock().leases.values().filter(|lease| lease.left_ms() > 0) {
            *counts.entry(lease.owner.clone()).or_default() += 1;
        }
        counts
    }
    /// Every lease taken so far, in order.
    pub(crate) fn takes(&self) -> Vec<(u32, String)> {
        self.service.model.lock().takes.clone()
    }
    /// How many read calls were made.
    pub(crate) fn reads(&self) -> usize {
        self.service.model.lock().reads
    }
}

impl Model {
    fn add_shard(&mut self, id: u32, parent: Option<ShardId>, range: HashKeyRange) {
        let shard = Shard {
            id: ShardId::new(id).unwrap(),
            parent,
            adjacent_parent: None,
            range,
            created: CREATED,
            state: ShardState::Open,
        };
        self.shards.insert(id, ShardModel { shard, frames: Vec::new(), next: 1 });
    }
    fn append(&mut self, shard: u32, records: &[String]) {
        let model = self.shards.get_mut(&shard).unwrap();
        assert!(model.shard.is_open());
        let mut writer = FrameWriter::with_capacity(1024);
        records.iter().for_each(|record| writer.push("key", record.as_bytes()));
        let made = writer.finish(ProducerId::NONE, 0);
        let header = FrameHeader {
            first: SequenceIndex::new(model.next).unwrap(),
            arrival: CREATED,
            ..*made.header()
        };
        let mut bytes = header.encode().to_vec();
        bytes.extend_from_slice(&made.body());
        model.frames.push(Frame::decode(&bytes.into()).unwrap());
        model.next += records.len() as u64;
    }
    fn split(&mut self, parent: u32) -> [u32; 2] {
        let first = self.shards.keys().max().unwrap() + 1;
        let model = self.shards.get_mut(&parent).unwrap();
        model.shard.state =
            ShardState::Closed { ending: SequenceIndex::new(model.next).unwrap(), closed: CREATED };
        model.next += 1;
        let (id, range) = (model.shard.id, model.shard.range);
        self.add_shard(first, Some(id), range);
        self.add_shard(first + 1, Some(id), range);
        [first, first + 1]
    }
    fn check_stream(&self, stream: &str) -> Result<(), Status> {
        if self.deleted || stream != STREAM {
            return Err(Error::new(ErrorKind::NotFound, format!("stream {stream} not found")).into());
        }
        Ok(())
    }
    fn check_worker(&self, worker: &str) -> Result<(), Status> {
        if self.cut_off.contains(worker) {
            return Err(Error::new(ErrorKind::Unavailable, "cut off by the test").into());
        }
        Ok(())
    }
    /// The lease, if worker and epoch hold it.
    fn held(&mut self, worker: &str, lease: &v1::HeldLease) -> Result<&mut LeaseModel, Status> {
        self.check_worker(worker)?;
        self.check_stream(&lease.stream)?;
        let row = self.leases.entry(lease.shard).or_default();
        if row.owner != worker || row.epoch != lease.epoch || row.left_ms() == 0 {
            return Err(Error::new(ErrorKind::Conflict, "the lease is lost").into());
        }
        Ok(row)
    }
    fn row(&self, shard: u32) -> v1::LeaseRow {
        let lease = self.leases.get(&shard).cloned().unwrap_or_default();
        v1::LeaseRow {
            shard: Some((&self.shards[&shard].shard).into()),
            owner: lease.owner.clone(),
            epoch: lease.epoch,
            counter: lease.counter,
            checkpoint: lease.checkpoint.map(Into::into),
            expired: lease.left_ms() == 0,
            expires_in_ms: lease.left_ms(),
        }
    }
    /// The next answer from an index on, or nothing when there is nothing new.
    fn answer(
        &mut self,
        shard: u32,
        next: &mut u64,
        max_bytes: usize,
        first: bool,
    ) -> Option<v1::ReadResponse> {
        let model = &self.shards[&shard];
        let from = *next;
        let mut frames = BytesMut::new();
        for frame in model.frames.iter().filter(|frame| frame.header().last().get() >= from) {
            if !frames.is_empty() && frames.len() + frame.bytes().len() > max_bytes {
                break;
            }
            frames.extend_from_slice(frame.bytes());
            *next = frame.header().next().get();
        }
        let closed = !model.shard.is_open();
        let last = model.frames.last().map_or(0, |frame| frame.header().next().get());
        let end_of_shard = closed && *next >= last;
        if frames.is_empty() && !first && !end_of_shard {
            return None;
        }
        if self.damage > 0 && !frames.is_empty() {
            self.damage -= 1;
            let at = frames.len() - 1;
            frames[at] ^= 1;
        }
        Some(v1::ReadResponse {
            shard: first.then(|| (&model.shard).into()),
            frames: Bytes::from(frames),
            from_index: from,
            next_index: *next,
            millis_behind: if *next >= last { 0 } else { 1000 },
            end_of_shard,
            children: Vec::new(),
        })
    }
}

type Answers = Pin<Box<dyn tokio_stream::Stream<Item = Result<v1::ReadResponse, Status>> + Send>>;

#[tonic::async_trait]
impl v1::data_server::Data for Service {
    type AppendStream = Pin<Box<dyn tokio_stream::Stream<Item = Result<v1::AppendResponse, Status>> + Send>>;
    type ReadStream = Answers;

    async fn append(
        &self,
        _: Request<tonic::Streaming<v1::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        Err(Status::unimplemented("not needed here"))
    }

    async fn read(&self, request: Request<v1::ReadRequest>) -> Result<Response<Answers>, Status> {
        let request = request.into_inner();
        let service = self.clone();
        let mut next = {
            let mut model = service.model.lock();
            model.check_stream(&request.stream)?;
            model.reads += 1;
            let shard = &model.shards[&request.shard];
            let own = |number: SequenceNumber| {
                assert_eq!(number.shard(), shard.shard.id, "a number of another shard");
                number.index().get()
            };
            match Position::try_from(request.position.unwrap()).unwrap() {
                Position::TrimHorizon => 1,
                Position::Latest => shard.next,
                Position::At(number) => own(number),
                Position::After(number) => own(number) + 1,
                Position::AtTime(_) => unreachable!("not asked for by workers"),
            }
        };
        let (tx, rx) = mpsc::channel(2);
        tokio::spawn(async move {
            let (mut news, mut breaks) = (service.news.subscribe(), service.breaks.subscribe());
            let mut first = true;
            loop {
                news.mark_unchanged();
                let answer =
                    service.model.lock().answer(request.shard, &mut next, request.max_bytes as usize, first);
                first = false;
                let ended = answer.as_ref().is_some_and(|answer| answer.end_of_shard);
                let sending = async {
                    match answer {
                        Some(answer) => tx.send(Ok(answer)).await.is_ok(),
                        None => news.changed().await.is_ok(),
                    }
                };
                tokio::select! {
                    gone_on = sending => if !gone_on || ended { return },
                    _ = breaks.changed() => {
                        let gone = service.model.lock().check_stream(&request.stream).err();
                        let broken = gone.unwrap_or_else(|| Status::unavailable("broken by the test"));
                        let _ = tx.send(Err(broken)).await;
                        return;
                    }
                    () = tx.closed() => return,
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(rx))))
    }
}

#[tonic::async_trait]
impl v1::lease_server::Lease for Service {
    async fn list_leases(
        &self,
        request: Request<v1::ListLeasesRequest>,
    ) -> Result<Response<v1::ListLeasesResponse>, Status> {
        let model = self.model.lock();
        model.check_stream(&request.get_ref().stream)?;
        let leases = model.shards.keys().map(|shard| model.row(*shard)).collect();
        Ok(Response::new(v1::ListLeasesResponse { leases }))
    }

    async fn take_lease(
        &self,
        request: Request<v1::TakeLeaseRequest>,
    ) -> Result<Response<v1::TakeLeaseResponse>, Status> {
        let request = request.into_inner();
        let mut model = self.model.lock();
        model.check_worker(&request.worker)?;
        model.check_stream(&request.stream)?;
        let row = model.leases.entry(request.shard).or_default();
        if row.epoch != request.expected_epoch || (row.left_ms() > 0 && !request.steal) {
            return Err(Error::new(ErrorKind::Conflict, "somebody was faster").into());
        }
        row.owner.clone_from(&request.worker);
        row.epoch += 1;
        row.counter += 1;
        row.lease_ms = request.lease_ms;
        row.expires = Some(Instant::now() + Duration::from_millis(request.lease_ms));
        let initial = request.initial.map(|initial| initial.try_into().unwrap());
        row.checkpoint = row.checkpoint.or(initial);
        model.takes.push((request.shard, request.worker));
        Ok(Response::new(v1::TakeLeaseResponse { lease: Some(model.row(request.shard)) }))
    }

    async fn renew_leases(
        &self,
        request: Request<v1::RenewLeasesRequest>,
    ) -> Result<Response<v1::RenewLeasesResponse>, Status> {
        let request = request.into_inner();
        let mut model = self.model.lock();
        model.check_worker(&request.worker)?;
        let mut lost = Vec::new();
        for lease in request.leases {
            match model.held(&request.worker, &lease) {
                Ok(row) => {
                    row.counter += 1;
                    row.expires = Some(Instant::now() + Duration::from_millis(row.lease_ms));
                }
                Err(_) => lost.push(lease),
            }
        }
        Ok(Response::new(v1::RenewLeasesResponse { lost }))
    }

    async fn release_lease(
        &self,
        request: Request<v1::ReleaseLeaseRequest>,
    ) -> Result<Response<v1::ReleaseLeaseResponse>, Status> {
        let request = request.into_inner();
        let mut model = self.model.lock();
        model.held(&request.worker, &request.lease.unwrap())?.owner.clear();
        Ok(Response::new(v1::ReleaseLeaseResponse {}))
    }

    async fn set_checkpoint(
        &self,
        request: Request<v1::SetCheckpointRequest>,
    ) -> Result<Response<v1::SetCheckpointResponse>, Status> {
        let request = request.into_inner();
        let mut model = self.model.lock();
        let row = model.held(&request.worker, &request.lease.unwrap())?;
        let checkpoint = Checkpoint::try_from(request.checkpoint.unwrap()).unwrap();
        if Some(checkpoint) < row.checkpoint {
            return Err(Status::failed_precondition("checkpoints do not move back"));
        }
        row.checkpoint = Some(checkpoint);
        Ok(Response::new(v1::SetCheckpointResponse {}))
    }
}
