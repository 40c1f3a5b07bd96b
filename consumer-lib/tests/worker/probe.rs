//! A processor that writes down every call and behaves as it is told.

use crate::fake::{FakeBroker, STREAM};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tidemill_consumer::{
    Batch, Checkpoint, Checkpointer, ProcessError, RecordProcessor, Start, Worker, WorkerBuilder,
    WorkerHandle,
};
use tokio::sync::Semaphore;
use tokio::time::Instant;

pub(crate) const LEASE: Duration = Duration::from_millis(900);

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Call {
    Initialize(Checkpoint),
    Process(Vec<String>),
    Failed(Vec<String>),
    ShardEnded,
    LeaseLost,
    Shutdown,
}

impl Call {
    fn is_last(&self) -> bool {
        matches!(self, Self::ShardEnded | Self::LeaseLost | Self::Shutdown)
    }
}

/// Every call of every processor: worker, shard, call.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<(String, u32, Call)>>>);

impl Log {
    pub(crate) fn add(&self, worker: &str, shard: u32, call: Call) {
        self.0.lock().push((worker.to_owned(), shard, call));
    }
    pub(crate) fn all(&self) -> Vec<(String, u32, Call)> {
        self.0.lock().clone()
    }
    /// What one worker was called with for one shard.
    pub(crate) fn of(&self, worker: &str, shard: u32) -> Vec<Call> {
        self.all()
            .into_iter()
            .filter(|(w, s, _)| w == worker && *s == shard)
            .map(|(_, _, call)| call)
            .collect()
    }
    /// The records processed of a shard, in order, by anybody.
    pub(crate) fn processed(&self, shard: u32) -> Vec<String> {
        let mut records = Vec::new();
        for (_, _, call) in self.all().into_iter().filter(|(_, s, _)| *s == shard) {
            if let Call::Process(texts) = call {
                records.extend(texts);
            }
        }
        records
    }
    /// How many records were processed, those that came twice counted twice.
    pub(crate) fn count(&self) -> usize {
        let calls = self.0.lock();
        let of = |call: &Call| if let Call::Process(texts) = call { texts.len() } else { 0 };
        calls.iter().map(|(_, _, call)| of(call)).sum()
    }
    /// All records processed by anybody.
    pub(crate) fn seen(&self) -> BTreeSet<String> {
        let calls = self.all().into_iter().filter_map(|(_, _, call)| match call {
            Call::Process(texts) => Some(texts),
            _ => None,
        });
        calls.flatten().collect()
    }
    /// Fails unless the calls for each worker and shard are: initialize, process …, exactly one last call.
    pub(crate) fn assert_paired(&self, worker: &str, shard: u32) {
        let mut open = false;
        for call in self.of(worker, shard) {
            match call {
                Call::Initialize(_) => assert!(!std::mem::replace(&mut open, true), "initialized twice"),
                call if call.is_last() => {
                    assert!(std::mem::replace(&mut open, false), "{call:?} out of place")
                }
                call => assert!(open, "{call:?} outside of initialize and a last call"),
            }
        }
        assert!(!open, "no last call for {worker} {shard}: {:?}", self.of(worker, shard));
    }
}

/// What a processor does with a batch.
pub(crate) enum Conduct {
    Succeed,
    Fail,
    Panic,
    Take(Duration),
    /// Waits until the gate has room.
    Wait(Arc<Semaphore>),
}

pub(crate) struct Probe {
    worker: String,
    shard: u32,
    log: Log,
    conduct: Arc<dyn Fn(&Batch) -> Conduct + Send + Sync>,
}

impl RecordProcessor for Probe {
    async fn initialize(&mut self, start: &Start) -> Result<(), ProcessError> {
        self.log.add(&self.worker, self.shard, Call::Initialize(start.from));
        Ok(())
    }
    async fn process(&mut self, batch: Batch, _: &Checkpointer) -> Result<(), ProcessError> {
        let texts = batch.records().map(|r| String::from_utf8(r.data().to_vec()).unwrap()).collect();
        match (self.conduct)(&batch) {
            Conduct::Succeed => {}
            Conduct::Fail => {
                self.log.add(&self.worker, self.shard, Call::Failed(texts));
                return Err(ProcessError::new("told to fail"));
            }
            Conduct::Panic => panic!("told to panic"),
            Conduct::Take(time) => tokio::time::sleep(time).await,
            Conduct::Wait(gate) => drop(gate.acquire().await?),
        }
        self.log.add(&self.worker, self.shard, Call::Process(texts));
        Ok(())
    }
    async fn shard_ended(&mut self, _: &Checkpointer) -> Result<(), ProcessError> {
        self.log.add(&self.worker, self.shard, Call::ShardEnded);
        Ok(())
    }
    async fn lease_lost(&mut self) {
        self.log.add(&self.worker, self.shard, Call::LeaseLost);
    }
    async fn shutdown(&mut self, _: &Checkpointer) -> Result<(), ProcessError> {
        self.log.add(&self.worker, self.shard, Call::Shutdown);
        Ok(())
    }
}

pub(crate) fn builder(broker: &FakeBroker, worker: &str) -> WorkerBuilder {
    Worker::builder(&broker.endpoint(), "app", STREAM).worker_id(worker).lease_duration(LEASE)
}

/// Starts a worker whose processors do as `conduct` says.
pub(crate) fn start_with(
    builder: WorkerBuilder,
    log: &Log,
    conduct: impl Fn(&Batch) -> Conduct + Send + Sync + 'static,
) -> WorkerHandle {
    let worker = builder.build().unwrap();
    let (id, log) = (worker.id().to_string(), log.clone());
    let conduct: Arc<dyn Fn(&Batch) -> Conduct + Send + Sync> = Arc::new(conduct);
    worker.start(move |at| Probe {
        worker: id.clone(),
        shard: at.shard().get(),
        log: log.clone(),
        conduct: Arc::clone(&conduct),
    })
}

pub(crate) fn start(builder: WorkerBuilder, log: &Log) -> WorkerHandle {
    start_with(builder, log, |_| Conduct::Succeed)
}

/// Waits until something holds; fails after the time with what was waited for. Returns how long it took.
pub(crate) async fn until(what: &str, most: Duration, holds: impl Fn() -> bool) -> Duration {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < most, "not within {most:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    begun.elapsed()
}
