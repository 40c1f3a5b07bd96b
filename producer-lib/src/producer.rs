//! The producer: what users hold. Puts records, flushes, closes; its tasks live as long as it does.

use crate::batch::Returned;
use crate::collector::{self, LingerQueue};
use crate::config::{Config, RECORD_DEADLINE_MIN};
use crate::error::{Error, Result, TryPutError};
use crate::limiter::{Charge, Limiter};
use crate::sender::Connection;
use crate::shard_map::{LaneMaker, Stream, Streams};
use crate::sink::Sink;
use crate::stats::{Counters, Held, Stats};
use crate::ticket::Ticket;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tidemill_proto::ErrorKind;
use tidemill_types::{Clock, Record, SystemClock};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// Puts records into streams, batched, pipelined and retried. Clones share everything and are cheap.
///
/// Close it at the end: when the last clone is dropped, records that are not acknowledged yet are given up and their
/// tickets say so.
#[derive(Clone)]
pub struct Producer(Arc<Handle>);

struct Handle(Arc<Shared>);

/// What the producer's tasks share. They hold this, users hold a [`Handle`]: so the tasks know when the last user is gone.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) limiter: Arc<Limiter>,
    pub(crate) streams: Streams,
    pub(crate) maker: LaneMaker,
    pub(crate) linger: LingerQueue,
    pub(crate) sink: Sink,
    pub(crate) clock: Arc<dyn Clock>,
    counters: Arc<Counters>,
    closing: AtomicBool,
    ended: watch::Sender<bool>,
}

impl Producer {
    /// A producer with the defaults, for the broker at `http://host:port`. Must be called within a tokio runtime, which
    /// runs the producer's tasks. [`ErrorKind::Unavailable`] if the broker cannot be reached. Cancelling is safe.
    pub async fn connect(endpoint: &str) -> Result<Self> {
        Self::new(Config::new(endpoint)?).await
    }

    /// A producer as configured; otherwise as [`Producer::connect`]. [`ErrorKind::Invalid`] if `linger` is more than half
    /// of `record_deadline`.
    pub async fn new(config: Config) -> Result<Self> {
        config.check()?;
        let sink = Sink::connect(&config).await?;
        let limiter = Arc::new(Limiter::new(config.memory_bytes, config.memory_records));
        let counters = Arc::new(Counters::default());
        let maker = LaneMaker {
            terms: config.terms(limiter.clone()),
            manner: config.manner(),
            counters: counters.clone(),
            connections: (0..config.connections).map(|_| Arc::<Connection>::default()).collect(),
            turn: AtomicUsize::new(0),
        };
        let shared = Arc::new(Shared {
            config,
            limiter,
            streams: Streams::default(),
            maker,
            linger: LingerQueue::default(),
            sink,
            clock: Arc::new(SystemClock::new()),
            counters,
            closing: AtomicBool::new(false),
            ended: watch::Sender::new(false),
        });
        shared.spawn(collector::run(shared.clone()));
        shared.sink.start(&shared);
        Ok(Self(Arc::new(Handle(shared))))
    }

    /// Puts a record into a stream and returns its ticket. Waits while memory is full, first come, first served, and, for
    /// the first record of a stream, until the broker has told its shards.
    ///
    /// Records of one task are stored in the order of their puts, key by key. Cancelling is safe: a put that has not
    /// returned has put nothing.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such stream, [`ErrorKind::Invalid`] for a bad name or a closed producer,
    /// [`ErrorKind::Unavailable`] if the broker cannot tell the stream's shards. All else is told by the ticket.
    pub async fn put(&self, stream: &str, record: Record) -> Result<Ticket> {
        self.0.0.put(stream, record, None).await
    }

    /// Puts a record that is worth sending only for a while: its ticket fails when `time_to_live` is over, even if its batch
    /// has more time. Otherwise as [`Producer::put`].
    ///
    /// # Errors
    /// Also [`ErrorKind::Invalid`] unless `time_to_live` is 100 ms at least, twice `linger`, and no more than
    /// `record_deadline`.
    pub async fn put_living(&self, stream: &str, record: Record, time_to_live: Duration) -> Result<Ticket> {
        let shared = &self.0.0;
        let (least, most) =
            (RECORD_DEADLINE_MIN.max(shared.config.linger * 2), shared.config.record_deadline);
        if !(least..=most).contains(&time_to_live) {
            let told = format!("a record may live for {least:?} to {most:?}, found {time_to_live:?}");
            return Err(shared.with_record(Error::invalid(told), record));
        }
        shared.linger.look_often_enough_for(time_to_live);
        shared.put(stream, record, Some(time_to_live)).await
    }

    /// Puts a record, but waits no longer than `limit`, and gives it back then: [`ErrorKind::Throttled`] when memory was
    /// full all the time. Otherwise as [`Producer::put`]; cancelling is safe.
    pub async fn put_within(
        &self,
        stream: &str,
        record: Record,
        limit: Duration,
    ) -> std::result::Result<Ticket, TryPutError> {
        let put = timeout(limit, self.0.0.put(stream, record.clone(), None)).await;
        let told =
            || Error::new(ErrorKind::Throttled, format!("there was no room for the record within {limit:?}"));
        put.unwrap_or_else(|_| Err(told())).map_err(|error| TryPutError::new(error, record))
    }

    /// Puts a record without waiting, or gives it back: [`ErrorKind::Throttled`] when memory is full,
    /// [`ErrorKind::Unavailable`] when the stream is not open yet (see [`Producer::open`]), else as [`Producer::put`].
    pub fn try_put(&self, stream: &str, record: Record) -> std::result::Result<Ticket, TryPutError> {
        let shared = &self.0.0;
        let put = || {
            shared.check_open()?;
            let open = shared.streams.get(stream).ok_or_else(|| {
                Error::new(
                    ErrorKind::Unavailable,
                    format!("the stream {stream} is not open yet; open it first"),
                )
            })?;
            shared.limiter.try_take(&record)?;
            shared.push(&open, &record, None)
        };
        put().map_err(|error| TryPutError::new(error, record))
    }

    /// Makes a stream ready for [`Producer::try_put`]; [`Producer::put`] does so by itself. Errors are those of
    /// [`Producer::put`]. Cancelling is safe.
    pub async fn open(&self, stream: &str) -> Result<()> {
        self.0.0.check_open()?;
        self.0.0.open(stream).await.map(drop)
    }

    /// Sends what lingers and waits until all records put before are resolved, at the latest when their deadlines have
    /// passed. Fails with the first failure among those that were not resolved yet; their tickets tell each its own.
    /// Cancelling is safe and undoes nothing.
    pub async fn flush(&self) -> Result<()> {
        let mut owed = Vec::new();
        self.0.0.streams.all().iter().for_each(|stream| stream.flush(&mut owed));
        let mut first_failure = Ok(());
        for completion in owed {
            first_failure = first_failure.and(completion.all_resolved().await);
        }
        first_failure
    }

    /// Refuses further puts, on all clones, flushes and ends the producer. Fails as [`Producer::flush`] does; the producer
    /// is closed all the same. Takes at most the records' deadline. When cancelled, puts are refused and the flush is not
    /// waited for; call it again.
    pub async fn close(&self) -> Result<()> {
        self.0.0.closing.store(true, Ordering::Release);
        let flushed = self.flush().await;
        self.0.0.end("the producer was closed before the record was sent");
        flushed
    }

    /// Like [`Producer::close`], but gives up what is not acknowledged within `limit`:
    /// [`ErrorKind::UnknownOutcome`] if anything was not.
    pub async fn close_within(&self, limit: Duration) -> Result<()> {
        let closed = timeout(limit, self.close()).await;
        self.0.0.end("the producer was closed before the record was acknowledged");
        closed.unwrap_or_else(|_| {
            let told =
                format!("not all records were acknowledged within {limit:?}; their tickets tell which");
            Err(Error::new(ErrorKind::UnknownOutcome, told))
        })
    }

    /// What the producer has done so far, and what it holds. Looks at each shard: not for every record.
    pub fn stats(&self) -> Stats {
        let shared = &self.0.0;
        let held = Held { bytes: shared.limiter.used(), ..shared.streams.held(Instant::now()) };
        shared.counters.snapshot(held)
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("config", &self.0.0.config).finish_non_exhaustive()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.end("the producer was dropped before the record was acknowledged; close it first");
    }
}

/// Ends the producer when one of its tasks goes away unasked: with its runtime, or by a panic.
struct EndWith(Option<Arc<Shared>>);

impl EndWith {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for EndWith {
    fn drop(&mut self) {
        if let Some(shared) = &self.0 {
            shared.end("the producer's tasks have ended");
        }
    }
}

impl Shared {
    fn check_open(&self) -> Result<()> {
        if self.closing.load(Ordering::Acquire) {
            return Err(Error::invalid("the producer is closed; make another"));
        }
        Ok(())
    }

    async fn put(self: &Arc<Self>, stream: &str, record: Record, live: Option<Duration>) -> Result<Ticket> {
        match self.try_to_put(stream, &record, live).await {
            Err(error) => Err(self.with_record(error, record)),
            ticket => ticket,
        }
    }
    async fn try_to_put(
        self: &Arc<Self>,
        stream: &str,
        record: &Record,
        live: Option<Duration>,
    ) -> Result<Ticket> {
        self.check_open()?;
        let at_once =
            |open: &Arc<Stream>| self.limiter.has_taken(record).then(|| self.push(open, record, live));
        if let Some(put) = self.streams.with(stream, at_once).flatten() {
            return put;
        }
        let open = match self.streams.get(stream) {
            Some(open) => open,
            None => self.open(stream).await?,
        };
        self.limiter.take(record).await?;
        self.push(&open, record, live)
    }
    fn with_record(&self, error: Error, record: Record) -> Error {
        match self.config.returned {
            Returned::Nothing => error,
            Returned::Record => error.of_record(record),
        }
    }

    /// Gives a record, charged to the limiter, to its lane.
    fn push(&self, stream: &Stream, record: &Record, live: Option<Duration>) -> Result<Ticket> {
        let pushed = self.check_open().and_then(|()| stream.push(record, live, &self.linger));
        if pushed.is_err() {
            self.limiter.release(Charge::of_record(record));
        }
        pushed
    }

    /// Runs a task until it is done or the producer ends.
    pub(crate) fn spawn(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        let mut ended = self.ended.subscribe();
        let guard = EndWith(Some(self.clone()));
        tokio::spawn(async move {
            tokio::select! {
                _ = ended.wait_for(|ended| *ended) => {}
                () = task => {}
            }
            guard.disarm();
        });
    }

    /// Fails what is not acknowledged and ends the tasks. The first call counts.
    fn end(&self, message: &str) {
        if self.ended.send_replace(true) {
            return;
        }
        self.closing.store(true, Ordering::Release);
        self.limiter.close();
        self.streams.end(&Error::new(ErrorKind::Unavailable, message));
        self.maker.connections.iter().for_each(|connection| connection.end());
    }
}
