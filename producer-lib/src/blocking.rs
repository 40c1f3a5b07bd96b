//! A façade for applications without an async runtime: the same producer, whose calls block the thread instead.
//!
//! ```no_run
//! use tidemill_producer::{Config, PartitionKey, Record, blocking::Producer};
//!
//! # fn hello() -> Result<(), tidemill_producer::Error> {
//! let producer = Producer::new(Config::new("http://127.0.0.1:4567")?)?;
//! let ticket = producer.put("events", Record::new(PartitionKey::new("user-1")?, "hello")?)?;
//! println!("stored in {}", ticket.wait()?.shard);
//! producer.close()
//! # }
//! ```
//!
//! The producer's tasks run on one thread of its own. A call from within an async runtime would block that runtime, so it is
//! refused as [`ErrorKind::Invalid`]: use the async [`Producer`](crate::Producer) there.

use crate::config::Config;
use crate::error::{Error, Result, TryPutError};
use crate::stats::Stats;
use crate::ticket::Placed;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidemill_proto::ErrorKind;
use tidemill_types::Record;
use tokio::runtime::{Builder, Handle, Runtime};

/// Puts records into streams from ordinary threads. Clones share everything and are cheap; any thread may use them.
///
/// Close it at the end, as the async one.
#[derive(Clone)]
pub struct Producer(Arc<Inner>);

struct Inner {
    producer: crate::Producer,
    own: Own,
}

/// The thread that the tasks run on.
struct Own {
    handle: Handle,
    /// Taken when the last clone is dropped.
    runtime: Mutex<Option<Runtime>>,
}

impl Drop for Own {
    fn drop(&mut self) {
        // may happen on a thread that must not wait
        if let Some(runtime) = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take() {
            runtime.shutdown_background();
        }
    }
}

/// As the async [`Ticket`](crate::Ticket): the record is sent either way, and dropping it loses nothing but the answer.
#[must_use = "the record is sent anyway, but only the ticket tells whether it was stored"]
#[derive(Debug)]
pub struct Ticket {
    ticket: crate::Ticket,
    handle: Handle,
}

impl Ticket {
    /// Waits until the record is stored, or surely is not going to be. At the latest when its deadline has passed.
    pub fn wait(self) -> Result<Placed> {
        refuse_async()?;
        self.handle.block_on(self.ticket)
    }
    /// The async ticket, to be awaited by whoever is async.
    pub fn into_async(self) -> crate::Ticket {
        self.ticket
    }
}

impl Producer {
    /// A producer as configured, with a thread of its own. Errors are those of [`crate::Producer::new`];
    /// [`ErrorKind::Unavailable`] also if the thread cannot be started.
    pub fn new(config: Config) -> Result<Self> {
        refuse_async()?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("tidemill-producer")
            .enable_all()
            .build()
            .map_err(|error| Error::new(ErrorKind::Unavailable, format!("cannot start a thread: {error}")))?;
        let producer = runtime.block_on(crate::Producer::new(config))?;
        let own = Own { handle: runtime.handle().clone(), runtime: Mutex::new(Some(runtime)) };
        Ok(Self(Arc::new(Inner { producer, own })))
    }
    fn wait<T>(&self, what: impl Future<Output = Result<T>>) -> Result<T> {
        refuse_async()?;
        self.0.own.handle.block_on(what)
    }
    fn ticket(&self, ticket: crate::Ticket) -> Ticket {
        Ticket { ticket, handle: self.0.own.handle.clone() }
    }

    /// Puts a record; blocks while memory is full. As [`crate::Producer::put`].
    pub fn put(&self, stream: &str, record: Record) -> Result<Ticket> {
        self.wait(self.0.producer.put(stream, record)).map(|ticket| self.ticket(ticket))
    }
    /// Puts a record that is worth sending only for a while. As [`crate::Producer::put_living`].
    pub fn put_living(&self, stream: &str, record: Record, time_to_live: Duration) -> Result<Ticket> {
        self.wait(self.0.producer.put_living(stream, record, time_to_live)).map(|ticket| self.ticket(ticket))
    }
    /// Puts a record without blocking, or gives it back. As [`crate::Producer::try_put`]; may be called from anywhere.
    pub fn try_put(&self, stream: &str, record: Record) -> std::result::Result<Ticket, TryPutError> {
        self.0.producer.try_put(stream, record).map(|ticket| self.ticket(ticket))
    }
    /// Makes a stream ready for [`Producer::try_put`].
    pub fn open(&self, stream: &str) -> Result<()> {
        self.wait(self.0.producer.open(stream))
    }
    /// Sends what lingers and blocks until all is resolved. As [`crate::Producer::flush`].
    pub fn flush(&self) -> Result<()> {
        self.wait(self.0.producer.flush())
    }
    /// Flushes and ends the producer. As [`crate::Producer::close`].
    pub fn close(&self) -> Result<()> {
        self.wait(self.0.producer.close())
    }
    /// Like [`Producer::close`], but gives up what is not acknowledged within `limit`.
    pub fn close_within(&self, limit: Duration) -> Result<()> {
        self.wait(self.0.producer.close_within(limit))
    }
    /// What the producer has done so far, and what it holds.
    pub fn stats(&self) -> Stats {
        self.0.producer.stats()
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.producer.fmt(f)
    }
}

fn refuse_async() -> Result<()> {
    match Handle::try_current() {
        Ok(_) => Err(Error::invalid("a blocking call within an async runtime; use the async producer there")),
        Err(_) => Ok(()),
    }
}
