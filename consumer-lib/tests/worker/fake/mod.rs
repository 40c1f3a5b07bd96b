//! A broker in memory behind real gRPC: records, shards with parents, leases with epochs and expiry. It sends no
//! heartbeats, and breaks what it is told to break.

mod model;
mod service;

use model::{LeaseModel, Model};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tidemill_proto::v1;
use tidemill_types::HashKeyRange;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub(crate) use model::STREAM;

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
        Self::start_at("127.0.0.1:0".parse().unwrap(), shard_count)
    }
    pub(crate) fn start_at(address: SocketAddr, shard_count: u32) -> Self {
        let service = Service {
            model: Arc::default(),
            news: Arc::new(watch::Sender::new(0)),
            breaks: Arc::new(watch::Sender::new(0)),
        };
        for (id, range) in (0..).zip(HashKeyRange::uniform(shard_count)) {
            service.model.lock().add_shard(id, None, range);
        }
        let incoming = tonic::transport::server::TcpIncoming::bind(address).unwrap();
        let address = incoming.local_addr().unwrap();
        let server = tonic::transport::Server::builder()
            .add_service(v1::data_server::DataServer::new(service.clone()))
            .add_service(v1::lease_server::LeaseServer::new(service.clone()))
            .add_service(v1::control_server::ControlServer::new(service.clone()))
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
