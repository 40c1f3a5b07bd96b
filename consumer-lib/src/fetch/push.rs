//! Follows one shard by the broker's server-streaming read, on a task of its own.
//!
//! ```text
//!  ─► call Read(position) ─► answer ─► wait for room in the buffer ─► hand over ─► next answer …
//!        ▲                      │                                                    │
//!        └── back off ◄─────────┴── broken, damaged, silent ◄────────────────────────┴─► end of shard; stream gone
//! ```
//!
//! After a break it goes on behind the last record handed over: within a lease nothing is lost or delivered twice. A full
//! buffer stops the reading of answers, and HTTP/2 flow control then stops the broker. Not here: who reads which shard.

use crate::record::Batch;
use crate::status::ShardBoard;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::sync::Arc;
use std::time::Duration;
use tidemill_proto::client::{Backoff, Channel};
use tidemill_proto::{Error, ErrorKind, v1};
use tidemill_types::{Frame, Frames, Position, SequenceIndex, Shard, StreamName};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};

/// Answers waiting at most, however small.
const ANSWERS_MAX: usize = 64;
const OPEN_DEADLINE: Duration = Duration::from_secs(10);
/// Silence after which the call is made anew, in case the broker forgot about it.
const SILENCE_MAX: Duration = Duration::from_secs(60);
const BACKOFF: Backoff =
    Backoff { base: Duration::from_millis(50), cap: Duration::from_secs(5), attempts_max: u32::MAX };
/// Failures in a row before a person is told.
const QUIET_FAILURES: u32 = 3;

/// What to read, and how.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) connection: Arc<Channel>,
    pub(crate) stream: StreamName,
    pub(crate) shard: Shard,
    pub(crate) from: Position,
    pub(crate) batch_bytes: u32,
    pub(crate) prefetch_bytes: usize,
    /// Feeds the pauses.
    pub(crate) seed: u64,
}

/// What came.
#[derive(Debug)]
pub(crate) enum Fetched {
    /// The read began: records from this index on will come.
    Begun(SequenceIndex),
    /// Records, or none when there is only news of how far behind the end of what came is.
    Page {
        batch: Option<Batch>,
        millis_behind: u64,
        received: Instant,
        room: OwnedSemaphorePermit,
        /// The shard is closed and this was its end; nothing follows.
        end_of_shard: bool,
    },
    /// There is no such stream or shard any more.
    Gone(Error),
}

/// The buffer of one shard. Dropping it ends the read.
#[derive(Debug)]
pub(crate) struct PushReader {
    fetched: mpsc::Receiver<Fetched>,
    _task: JoinSet<()>,
}

impl PushReader {
    pub(crate) fn start(source: Source, board: Arc<ShardBoard>) -> Self {
        let (tx, fetched) = mpsc::channel(ANSWERS_MAX);
        let room_bytes = u32::try_from(source.prefetch_bytes).unwrap_or(u32::MAX);
        let room = Arc::new(Semaphore::new(room_bytes as usize));
        let next = Next::Start(source.from);
        let mut task = JoinSet::new();
        task.spawn(Pump { source, board, tx, room, room_bytes, next, answered: false }.run());
        Self { fetched, _task: task }
    }
    /// The next thing that came. Cancelling is safe: nothing is lost.
    pub(crate) async fn next(&mut self) -> Fetched {
        match self.fetched.recv().await {
            Some(fetched) => fetched,
            None => Fetched::Gone(Error::new(
                ErrorKind::Internal,
                "the reading task ended unasked; it is a fault",
            )),
        }
    }
}

/// Where to go on.
#[derive(Debug, Clone, Copy)]
enum Next {
    Start(Position),
    Index(SequenceIndex),
}

/// Why one call ended.
enum CallEnd {
    /// Nothing more is to be read, or nobody reads any more.
    Finished,
    Broken(Error),
}

struct Pump {
    source: Source,
    board: Arc<ShardBoard>,
    tx: mpsc::Sender<Fetched>,
    room: Arc<Semaphore>,
    room_bytes: u32,
    next: Next,
    /// Whether the call under way has answered.
    answered: bool,
}

impl Pump {
    async fn run(mut self) {
        let mut rng = StdRng::seed_from_u64(self.source.seed);
        let mut failures = 0;
        loop {
            self.answered = false;
            let error = match self.call().await {
                Ok(CallEnd::Finished) => return,
                Ok(CallEnd::Broken(error)) | Err(error) => error,
            };
            if error.kind() == ErrorKind::NotFound {
                let _ = self.tx.send(Fetched::Gone(error)).await; // nobody reads: nobody needs to know
                return;
            }
            failures = if self.answered { 1 } else { failures + 1 };
            let (stream, shard) = (&self.source.stream, self.source.shard.id);
            if failures == QUIET_FAILURES || error.kind() == ErrorKind::Damaged {
                warn!(%stream, %shard, failures, %error, "cannot read the shard, trying again");
            } else {
                debug!(%stream, %shard, failures, %error, "read broken off, trying again");
            }
            if failures >= QUIET_FAILURES || error.kind() == ErrorKind::Damaged {
                self.board.troubled(format!("reading: {error}"));
            }
            sleep(BACKOFF.wait(failures, &mut rng)).await;
        }
    }

    async fn call(&mut self) -> Result<CallEnd, Error> {
        let silent =
            |what: Duration| Error::new(ErrorKind::UnknownOutcome, format!("nothing came for {what:?}"));
        let mut client = self.source.connection.data();
        let opened = timeout(OPEN_DEADLINE, client.read(self.request())).await;
        let mut answers = opened.map_err(|_| silent(OPEN_DEADLINE))??.into_inner();
        loop {
            let answer = timeout(SILENCE_MAX, answers.message()).await.map_err(|_| silent(SILENCE_MAX))??;
            let Some(answer) = answer else {
                return Ok(CallEnd::Broken(Error::new(ErrorKind::Unavailable, "the broker ended the call")));
            };
            if let Some(end) = self.hand_over(answer).await? {
                return Ok(end);
            }
        }
    }

    fn request(&self) -> v1::ReadRequest {
        let position = match self.next {
            Next::Start(position) => position,
            Next::Index(SequenceIndex::ZERO) => Position::TrimHorizon,
            Next::Index(next) => {
                let before = SequenceIndex::new(next.get() - 1).expect("below a valid index");
                Position::After(self.source.shard.number(before, self.source.shard.created))
            }
        };
        v1::ReadRequest {
            stream: self.source.stream.to_string(),
            shard: self.source.shard.id.get(),
            position: Some(position.into()),
            max_bytes: self.source.batch_bytes,
            stop_at_tip: false,
        }
    }

    /// Checks an answer, waits for room and hands it over.
    async fn hand_over(&mut self, answer: v1::ReadResponse) -> Result<Option<CallEnd>, Error> {
        let received = Instant::now();
        let bytes = u32::try_from(answer.frames.len()).unwrap_or(u32::MAX);
        let frames = Frames::new(answer.frames).collect::<Result<Vec<Frame>, _>>();
        let frames = frames
            .map_err(|error| Error::new(ErrorKind::Damaged, format!("records arrived damaged: {error}")))?;
        let mut from = SequenceIndex::new(answer.from_index)?;
        let begins = matches!(self.next, Next::Start(_));
        if begins && self.tx.send(Fetched::Begun(from)).await.is_err() {
            return Ok(Some(CallEnd::Finished));
        }
        if let Next::Index(next) = self.next {
            from = from.max(next);
        }
        let end_of_frames = frames.last().map_or(from, |frame| frame.header().next());
        self.next = Next::Index(SequenceIndex::new(answer.next_index)?.max(end_of_frames).max(from));
        self.answered = true;
        let room = Arc::clone(&self.room).acquire_many_owned(bytes.clamp(1, self.room_bytes)).await;
        let room = room.expect("the semaphore is never closed");
        let batch = Batch::new(&self.source.stream, &self.source.shard, frames, from);
        let end_of_shard = answer.end_of_shard;
        let page = Fetched::Page { batch, millis_behind: answer.millis_behind, received, room, end_of_shard };
        let handed = self.tx.send(page).await;
        Ok(if end_of_shard || handed.is_err() { Some(CallEnd::Finished) } else { None })
    }
}
