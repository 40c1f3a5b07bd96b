//! A broker in memory behind a real gRPC server: keeps what it was sent, recognises repeated batches, and fails as told.

#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "this is test code")]

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use tidemill_producer::{HashKey, ShardId};
use tidemill_proto::convert::ShardList;
use tidemill_proto::v1::control_server::{Control, ControlServer};
use tidemill_proto::v1::data_server::{Data, DataServer};
use tidemill_proto::v1::{self, append_response::Outcome};
use tidemill_proto::{Error, ErrorKind};
use tidemill_types::limits::GRPC_MESSAGE_BYTES_MAX;
use tidemill_types::{
    Frame, HashKeyRange, ProducerId, SequenceIndex, Shard, ShardMap, ShardMapVersion, ShardState,
    StreamIncarnation, TimestampMs,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

/// What happens to a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The call breaks before the batch is stored.
    BreakBefore,
    /// The call breaks after the batch was stored.
    BreakAfter,
    /// Refused; nothing is stored.
    Refuse(ErrorKind),
    /// Stored, but the answer says that nobody knows.
    UnknownAfter,
    /// Neither stored nor answered.
    Silence,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredRecord {
    pub(crate) key: String,
    pub(crate) data: Vec<u8>,
}

pub(crate) struct FakeShard {
    pub(crate) shard: Shard,
    pub(crate) stored: Vec<StoredRecord>,
    batches: HashMap<(ProducerId, u64), v1::Appended>,
}

pub(crate) struct FakeStream {
    incarnation: u64,
    version: u64,
    pub(crate) shards: BTreeMap<u32, FakeShard>,
}

#[derive(Default)]
pub(crate) struct Model {
    pub(crate) streams: HashMap<String, FakeStream>,
    /// Faults of the next batches, one each; then `always`.
    pub(crate) script: VecDeque<Option<Fault>>,
    pub(crate) always: Option<Fault>,
    pub(crate) batches_seen: u64,
    pub(crate) duplicates: u64,
    /// Split the first open shard of "s" when this many batches have been seen.
    pub(crate) split_at: Vec<u64>,
    incarnations: u64,
}

impl Model {
    pub(crate) fn create(&mut self, name: &str, shards: u32) {
        self.incarnations += 1;
        let mut stream = FakeStream { incarnation: self.incarnations, version: 1, shards: BTreeMap::new() };
        for range in HashKeyRange::uniform(shards) {
            stream.add(range, None);
        }
        self.streams.insert(name.to_owned(), stream);
    }
    /// All records of a stream, shard by shard.
    pub(crate) fn stored(&self, name: &str) -> Vec<StoredRecord> {
        self.streams[name].shards.values().flat_map(|shard| shard.stored.clone()).collect()
    }
    pub(crate) fn at(&self, name: &str, shard: ShardId, index: SequenceIndex) -> &StoredRecord {
        &self.streams[name].shards[&shard.get()].stored[index.get() as usize - 1]
    }
    /// Ends a shard in two halves.
    pub(crate) fn split(&mut self, name: &str, id: u32) {
        let stream = self.streams.get_mut(name).unwrap();
        let shard = stream.shards.get_mut(&id).unwrap();
        let ending = SequenceIndex::new(shard.stored.len() as u64 + 1).unwrap();
        shard.shard.state = ShardState::Closed { ending, closed: TimestampMs::new(1) };
        let (start, end) = (shard.shard.range.start(), shard.shard.range.end());
        let middle = start.get() + (end.get() - start.get()) / 2;
        let parent = shard.shard.id;
        stream.version += 1;
        stream.add(HashKeyRange::new(start, HashKey::new(middle)).unwrap(), Some(parent));
        stream.add(HashKeyRange::new(HashKey::new(middle + 1), end).unwrap(), Some(parent));
    }

    fn append(&mut self, request: &v1::AppendRequest) -> Result<v1::Appended, Error> {
        let frame = Frame::decode_untrusted(&request.frame)?;
        let not_found = |what: &str| Error::new(ErrorKind::NotFound, format!("no such {what}"));
        let stream = self.streams.get_mut(&request.stream).ok_or_else(|| not_found("stream"))?;
        let shard = stream.shards.get_mut(&request.shard).ok_or_else(|| not_found("shard"))?;
        let batch = (frame.header().producer, frame.header().batch_number);
        assert!(batch.0 != ProducerId::NONE && batch.1 > 0);
        if let Some(first) = shard.batches.get(&batch) {
            self.duplicates += 1;
            return Ok(v1::Appended { duplicate: true, ..*first });
        }
        if !shard.shard.is_open() {
            return Err(Error::new(ErrorKind::ShardClosed, "the shard is closed"));
        }
        let first_index = shard.stored.len() as u64 + 1;
        for record in frame.records() {
            assert!(shard.shard.range.contains(HashKey::of(record.key)), "a record went to the wrong shard");
            shard.stored.push(StoredRecord { key: record.key.to_owned(), data: record.data.to_vec() });
        }
        let count = frame.header().count;
        let appended = v1::Appended { first_index, count, arrival_ms: 1_700_000_000_000, duplicate: false };
        shard.batches.insert(batch, appended);
        Ok(appended)
    }
}

impl FakeStream {
    fn add(&mut self, range: HashKeyRange, parent: Option<ShardId>) {
        let id = self.shards.len() as u32;
        let created = TimestampMs::new(1_700_000_000_000 + u64::from(id) * 1000);
        let state = ShardState::Open;
        let id = ShardId::new(id).unwrap();
        let shard = Shard { id, parent, adjacent_parent: None, range, created, state };
        self.shards.insert(id.get(), FakeShard { shard, stored: Vec::new(), batches: HashMap::new() });
    }
}

/// A running broker; stops when dropped or told to.
#[derive(Clone)]
pub(crate) struct FakeBroker {
    pub(crate) address: SocketAddr,
    model: Arc<Mutex<Model>>,
}

impl FakeBroker {
    pub(crate) async fn start() -> Self {
        let model = Arc::new(Mutex::new(Model::default()));
        let (broker, _) = Self::serve(model, "127.0.0.1:0".parse().unwrap()).await;
        broker
    }
    /// Serves a model until the task is aborted.
    pub(crate) async fn serve(
        model: Arc<Mutex<Model>>,
        address: SocketAddr,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        let broker = Self { address: listener.local_addr().unwrap(), model };
        let control = ControlServer::new(broker.clone());
        let data = DataServer::new(broker.clone()).max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX);
        let serving = tonic::transport::Server::builder()
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20)
            .add_service(control)
            .add_service(data)
            .serve_with_incoming(TcpListenerStream::new(listener));
        let task = tokio::spawn(async move { serving.await.unwrap() });
        (broker, task)
    }
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
    pub(crate) fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap()
    }

    /// The answer to a request, none for silence, or an error that breaks the call.
    fn handle(&self, request: &v1::AppendRequest) -> Result<Option<v1::AppendResponse>, Status> {
        let mut model = self.model();
        model.batches_seen += 1;
        if let Some(at) = model.split_at.iter().position(|at| *at <= model.batches_seen) {
            model.split_at.remove(at);
            let open = model.streams["s"].shards.values().find(|shard| shard.shard.is_open()).unwrap();
            let id = open.shard.id.get();
            model.split("s", id);
        }
        let fault = model.script.pop_front().unwrap_or(model.always);
        let outcome = match fault {
            Some(Fault::BreakBefore) => return Err(Status::unavailable("broken before")),
            Some(Fault::Silence) => return Ok(None),
            Some(Fault::Refuse(kind)) => Err(Error::new(kind, "refused by the script")),
            None | Some(Fault::BreakAfter | Fault::UnknownAfter) => model.append(request),
        };
        let outcome = match fault {
            Some(Fault::BreakAfter) => return Err(Status::unavailable("broken after")),
            Some(Fault::UnknownAfter) => Err(Error::new(ErrorKind::UnknownOutcome, "who knows")),
            _ => outcome,
        };
        let outcome = match outcome {
            Ok(appended) => Outcome::Appended(appended),
            Err(error) => Outcome::Failed(error.into()),
        };
        Ok(Some(v1::AppendResponse { request_id: request.request_id, outcome: Some(outcome) }))
    }
}

#[tonic::async_trait]
impl Data for FakeBroker {
    type AppendStream = ReceiverStream<Result<v1::AppendResponse, Status>>;
    type ReadStream = Pin<Box<dyn tokio_stream::Stream<Item = Result<v1::ReadResponse, Status>> + Send>>;

    async fn append(
        &self,
        request: Request<Streaming<v1::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let (answers, queued) = mpsc::channel(64);
        let (broker, mut requests) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                match broker.handle(&request) {
                    Ok(Some(answer)) => drop(answers.send(Ok(answer)).await),
                    Ok(None) => {}
                    Err(status) => return drop(answers.send(Err(status)).await),
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(queued)))
    }
    async fn read(&self, _: Request<v1::ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        Err(Status::unimplemented("not read here"))
    }
}

#[tonic::async_trait]
impl Control for FakeBroker {
    async fn create_stream(
        &self,
        request: Request<v1::CreateStreamRequest>,
    ) -> Result<Response<v1::CreateStreamResponse>, Status> {
        let request = request.into_inner();
        self.model().create(&request.stream, request.shard_count);
        Ok(Response::new(v1::CreateStreamResponse { stream: None }))
    }
    async fn delete_stream(
        &self,
        request: Request<v1::DeleteStreamRequest>,
    ) -> Result<Response<v1::DeleteStreamResponse>, Status> {
        self.model().streams.remove(&request.into_inner().stream);
        Ok(Response::new(v1::DeleteStreamResponse {}))
    }
    async fn describe_stream(
        &self,
        _: Request<v1::DescribeStreamRequest>,
    ) -> Result<Response<v1::DescribeStreamResponse>, Status> {
        Err(Status::unimplemented("not described here"))
    }
    async fn list_streams(
        &self,
        _: Request<v1::ListStreamsRequest>,
    ) -> Result<Response<v1::ListStreamsResponse>, Status> {
        Err(Status::unimplemented("not listed here"))
    }
    async fn list_shards(
        &self,
        request: Request<v1::ListShardsRequest>,
    ) -> Result<Response<v1::ListShardsResponse>, Status> {
        let model = self.model();
        let not_found = || Error::new(ErrorKind::NotFound, "no such stream");
        let stream = model.streams.get(&request.into_inner().stream).ok_or_else(not_found)?;
        let shards: Vec<_> = stream.shards.values().map(|shard| shard.shard.clone()).collect();
        let list = ShardList {
            incarnation: StreamIncarnation::new(stream.incarnation),
            map: ShardMap::new(ShardMapVersion::new(stream.version), shards.iter().cloned()).unwrap(),
            shards,
        };
        Ok(Response::new((&list).into()))
    }
    async fn split_shard(
        &self,
        _: Request<v1::SplitShardRequest>,
    ) -> Result<Response<v1::SplitShardResponse>, Status> {
        Err(Status::unimplemented("not split here"))
    }
    async fn merge_shards(
        &self,
        _: Request<v1::MergeShardsRequest>,
    ) -> Result<Response<v1::MergeShardsResponse>, Status> {
        Err(Status::unimplemented("not merged here"))
    }
    async fn scale_stream(
        &self,
        _: Request<v1::ScaleStreamRequest>,
    ) -> Result<Response<v1::ScaleStreamResponse>, Status> {
        Err(Status::unimplemented("not scaled here"))
    }
}
