//! A worker as its user handles it: build, run, look, stop. The work itself is the supervisor's.

use crate::assign::Move;
#[cfg(feature = "aws")]
use crate::aws::Kinesis;
use crate::batches::{self, Batches};
use crate::claims;
use crate::error::{Error, ErrorKind, Result};
use crate::initial::InitialPosition;
use crate::leases::Leases;
use crate::look::{Look, look};
use crate::metrics::LeaseMeters;
use crate::processor::{ForEach, ProcessError, RecordProcessor};
use crate::record::Record;
use crate::service::Holder;
use crate::settings::{Origin, Settings, WorkerBuilder};
use crate::shard::ShardRef;
use crate::status::{WorkerBoard, WorkerStatus};
use crate::streams::Streams;
use crate::supervisor::Supervisor;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tidemill_types::{StreamName, WorkerId};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long [`Worker::run`] lets processors finish once it was asked to stop.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// One of the workers of an application: shares the shards of its streams with the others through leases, and calls a
/// [`RecordProcessor`] for each shard it holds.
///
/// ```no_run
/// use tidemill_consumer::{Batch, Checkpointer, ProcessError, RecordProcessor, Worker};
///
/// struct Count(usize);
/// impl RecordProcessor for Count {
///     async fn process(&mut self, batch: Batch, _: &Checkpointer) -> Result<(), ProcessError> {
///         self.0 += batch.records().filter(|record| !record.data().is_empty()).count();
///         println!("{}: {} records", batch.shard(), self.0);
///         Ok(())
///     }
/// }
///
/// # async fn example() -> Result<(), tidemill_consumer::Error> {
/// let worker = Worker::builder("http://127.0.0.1:4567", "my-app", "events").build()?;
/// let shutdown = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
/// worker.run(|_shard| Count(0), shutdown).await
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a worker does nothing until it is run"]
pub struct Worker {
    settings: Settings,
}

impl Worker {
    /// Begins the settings of a worker: the broker's address (`http://127.0.0.1:4567`, `https://…` with TLS), the application whose workers
    /// share the work, and the stream.
    pub fn builder(endpoint: &str, app: &str, stream: &str) -> WorkerBuilder {
        WorkerBuilder::new(Origin::Broker(endpoint.to_owned()), app, stream)
    }
    /// Begins the settings of a worker that reads from a Kinesis: Amazon's or another. Its leases are in DynamoDB unless
    /// told otherwise ([`WorkerBuilder::leases_in_dynamo_db`]).
    #[cfg(feature = "aws")]
    pub fn kinesis(kinesis: Kinesis, app: &str, stream: &str) -> WorkerBuilder {
        WorkerBuilder::new(Origin::Kinesis(Box::new(kinesis)), app, stream)
    }
    pub(crate) fn new(settings: Settings) -> Self {
        Self { settings }
    }
    /// The worker's id.
    pub fn id(&self) -> &WorkerId {
        &self.settings.worker
    }

    /// Works until `shutdown` completes, then stops gracefully, for at most 30 s ([`WorkerHandle::stop`]). `factory` makes
    /// a processor for each shard whose lease is taken.
    ///
    /// Fails with [`ErrorKind::NotFound`] if a stream does not exist at the start, with [`ErrorKind::Unavailable`] if the
    /// broker cannot be reached for the first 10 s; later troubles are waited out and shown in the status. A panic of
    /// `factory` ends the worker as [`WorkerHandle::abort`] would, with [`ErrorKind::Internal`]. Cancelling is safe: the
    /// worker then stops gracefully in the background.
    pub async fn run<P, F>(self, factory: F, shutdown: impl Future<Output = ()>) -> Result<()>
    where
        P: RecordProcessor,
        F: FnMut(&ShardRef) -> P + Send + 'static,
    {
        let mut handle = self.start(factory);
        tokio::select! {
            ended = handle.ended() => return ended,
            () = shutdown => {}
        }
        handle.stop(STOP_DEADLINE).await
    }

    /// Works until `shutdown` completes, calling `handle` for each record, one at a time per shard. After an error it is
    /// called again for the same record, with back-off. What was handled is checkpointed automatically. Fails and cancels
    /// as [`Worker::run`].
    pub async fn for_each<H, Fut>(self, handle: H, shutdown: impl Future<Output = ()>) -> Result<()>
    where
        H: Fn(Record) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), ProcessError>> + Send + 'static,
    {
        let handle = Arc::new(handle);
        self.run(move |_| ForEach::new(Arc::clone(&handle)), shutdown).await
    }

    /// What would move if this worker joined now, whoever had to do it: the plan that all workers of the application would
    /// carry out together. Changes nothing, and does not start the worker. Must be called within a tokio runtime.
    ///
    /// Errors as [`Worker::run`], at once. Cancelling is safe.
    pub async fn dry_run(&self) -> Result<Vec<Move>> {
        let settings = &self.settings;
        let source = settings.source.make(settings.seed);
        let (app, worker) = (settings.app.clone(), settings.worker.clone());
        let meters = LeaseMeters::new(&app, &worker);
        let store = settings.store.make(&source, Holder { app, worker, lease: settings.lease });
        let Look { rows, .. } = look(&Leases::new(store, meters), &settings.streams.all()).await?;
        Ok(claims::dry_run(&rows, &settings.terms()))
    }

    /// Starts working in the background and gives the batches as a stream, each to be acknowledged, instead of calling a
    /// processor. Everything else is as for [`Worker::start`].
    pub fn batches(self) -> (Batches, WorkerHandle) {
        let (forward, batches) = batches::channel();
        (batches, self.start(move |_| forward.clone()))
    }

    /// Starts working in the background of the current tokio runtime (it panics outside of one). `factory` and its panics
    /// are as for [`Worker::run`].
    pub fn start<P, F>(self, factory: F) -> WorkerHandle
    where
        P: RecordProcessor,
        F: FnMut(&ShardRef) -> P + Send + 'static,
    {
        let board = Arc::new(WorkerBoard::new(self.settings.worker.clone()));
        let stop = CancellationToken::new();
        let over = CancellationToken::new();
        let streams = Arc::clone(&self.settings.streams);
        let supervisor = Supervisor::new(self.settings, factory, Arc::clone(&board), stop.clone());
        let ending = over.clone().drop_guard(); // goes with the task, however that ends
        let task = tokio::spawn(async move {
            let _ending = ending;
            supervisor.run().await
        });
        WorkerHandle { board, streams, stop, over, task: Some(task) }
    }
}

/// A worker at work. Dropping it asks the worker to stop gracefully in the background.
#[derive(Debug)]
#[must_use = "dropping the handle stops the worker"]
pub struct WorkerHandle {
    board: Arc<WorkerBoard>,
    streams: Arc<Streams>,
    stop: CancellationToken,
    /// The worker has ended.
    over: CancellationToken,
    /// Taken when the end was observed.
    task: Option<JoinHandle<Result<()>>>,
}

impl WorkerHandle {
    /// What the worker is doing now.
    pub fn status(&self) -> WorkerStatus {
        self.board.status()
    }

    /// Gives nothing more of a shard to its processor once the batch under way is done, until it is resumed. The lease is
    /// kept and renewed, checkpoints go on, and reading ahead stops when the buffer is full. Holds also when the shard is
    /// taken up later.
    pub fn pause(&self, shard: &ShardRef) {
        self.board.pause(shard, true);
    }

    /// Goes on with a shard that was paused, or that was stopped at a record its processor failed on
    /// ([`OnFailure::stop_shard_after`](crate::OnFailure::stop_shard_after)).
    pub fn resume(&self, shard: &ShardRef) {
        self.board.pause(shard, false);
    }

    /// Another stream to process, from now on, beginning at `position` (default: where the worker begins). Nothing changes
    /// if it is processed already, but for where shards begin that were never worked on. An error if that is no name; a
    /// stream that does not exist is shown as the worker's trouble until it does.
    pub fn add_stream(&self, stream: &str, position: Option<InitialPosition>) -> Result<()> {
        self.streams.add(StreamName::new(stream)?, position);
        Ok(())
    }

    /// A stream that is not to be processed any more: its shards are finished in order (`shutdown` is called, what is
    /// processed is checkpointed) and their leases given back. An error if that is no name.
    pub fn remove_stream(&self, stream: &str) -> Result<()> {
        self.streams.remove(&StreamName::new(stream)?);
        Ok(())
    }

    /// Waits until everything that this worker may process has been processed once up to the newest record: each shard
    /// it holds, and their children; what other living workers hold is theirs. That they live is seen when they renew
    /// their leases; the shards of one that died are waited for and taken over. A worker that gets no shard has caught up
    /// after one lease time at the earliest. Also returns when the worker ended. Cancelling is safe.
    pub async fn caught_up(&self) {
        let mut caught_up = self.board.watch_caught_up();
        tokio::select! {
            _ = caught_up.wait_for(|caught_up| *caught_up) => {}
            () = self.over.cancelled() => {}
        }
    }

    /// Stops gracefully: lets the batches under way finish, checkpoints (when automatic), gives the leases back, so that
    /// other workers take over at once. What is not done by the deadline is cut off as by [`WorkerHandle::abort`], with
    /// [`ErrorKind::Unavailable`]. Otherwise returns how the worker ended. Cancelling is safe: it goes on stopping in the
    /// background, then without deadline.
    pub async fn stop(mut self, deadline: Duration) -> Result<()> {
        self.stop.cancel();
        match tokio::time::timeout(deadline, self.ended()).await {
            Ok(ended) => ended,
            Err(_) => {
                let shards: Vec<_> =
                    self.status().shards.iter().map(|shard| shard.shard.to_string()).collect();
                self.abort();
                let told = format!(
                    "not stopped within {deadline:?}: {} still under work; cut off, their leases run out by themselves",
                    shards.join(", ")
                );
                Err(Error::new(ErrorKind::Unavailable, told))
            }
        }
    }

    /// Waits until the worker ends by itself: by an error, or caught up when it was built so. Cancelling stops the
    /// worker gracefully in the background.
    pub async fn join(mut self) -> Result<()> {
        self.ended().await
    }

    /// Ends at once, as a crash would: nothing is checkpointed, no lease is given back; others take over when the leases
    /// have run out. Processors are dropped at their next await.
    pub fn abort(mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }

    async fn ended(&mut self) -> Result<()> {
        let Some(task) = &mut self.task else { return Ok(()) };
        let ended = task.await;
        self.task = None;
        ended.unwrap_or_else(|error| {
            Err(Error::new(ErrorKind::Internal, format!("the worker broke off: {error}")))
        })
    }
}

impl Drop for WorkerHandle {
    fn drop(&mut self) {
        // nothing is left to stop in order of a worker that has ended or was cut off
        if self.task.is_some() {
            self.stop.cancel();
        }
    }
}
