//! One append call: batches in as fast as there is room, answers out as they become durable.
//!
//! ```text
//!  requests ─► intake: decode, room in this call, room in the engine ─► a queue per shard ─► answers
//! ```
//!
//! Why two halves: the engine may make a batch wait for room, and answers must flow meanwhile. Room is counted in bytes,
//! so that one call holds a bounded amount however it is used; when it is used up nothing is read from the connection,
//! and HTTP/2 holds the sender back. A batch that fails is an answer; only a broken request stream ends the call.

use super::super::access::{Access, Caller, PERMITTED_FOR};
use super::super::{credentials_changed, going_away, told};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use tidemill_engine::{Appended, PendingAppend, Stream};
use tidemill_proto::bulk::Incoming;
use tidemill_proto::v1::append_response::Outcome;
use tidemill_proto::v1::{self, AppendRequest, AppendResponse};
use tidemill_proto::{Error, ErrorKind};
use tidemill_types::{Frame, ShardId, ShardMapVersion};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// Bytes of unanswered batches of one call.
const ROOM_BYTES: usize = 32 << 20;
/// What a batch counts at least, so that the number of small ones is bounded too (8,192).
const ROOM_BYTES_MIN: usize = 4 << 10;
/// Answers that wait for the connection.
pub(super) const ANSWERS_WAITING_MAX: usize = 256;
/// Accepted batches on their way from intake to the queues; their number is bounded by room already.
const HANDOVER_MAX: usize = 64;
/// Streams that one call remembers by name.
const STREAMS_MAX: usize = 1024;

/// Answers of one of these come in the order of its requests.
type Lane = (Arc<str>, u32);

/// A batch that awaits its answer.
struct Waiting {
    request_id: u64,
    outcome: Result<PendingAppend, Error>,
    /// Given back when the answer is on its way.
    room: OwnedSemaphorePermit,
}

/// Runs the call until the client has closed its side and every batch is answered, or the call broke.
pub(super) async fn serve(
    access: Access,
    caller: Caller,
    requests: Incoming<AppendRequest>,
    answers: mpsc::Sender<Result<AppendResponse, Status>>,
    stopping: CancellationToken,
) {
    let (accepted, waiting) = mpsc::channel(HANDOVER_MAX);
    let intake =
        Intake { access, caller, streams: HashMap::new(), room: Arc::new(Semaphore::new(ROOM_BYTES)) };
    let (ended, ()) = tokio::join!(intake.run(requests, accepted, stopping), answer(waiting, &answers));
    if let Err(status) = ended {
        // the client may be gone; then nobody is to be told
        let _ = answers.send(Err(status)).await;
    }
}

/// A stream that the caller may write to.
struct Permitted {
    stream: Stream,
    until: Instant,
}

struct Intake {
    access: Access,
    caller: Caller,
    streams: HashMap<Arc<str>, Permitted>,
    room: Arc<Semaphore>,
}

impl Intake {
    async fn run(
        mut self,
        mut requests: Incoming<AppendRequest>,
        accepted: mpsc::Sender<(Lane, Waiting)>,
        stopping: CancellationToken,
    ) -> Result<(), Status> {
        loop {
            let request = tokio::select! {
                biased;
                () = stopping.cancelled() => return Err(going_away().into()),
                () = self.caller.ended() => return Err(credentials_changed().into()),
                () = accepted.closed() => return Ok(()),
                next = requests.message() => match next? {
                    Some(request) => request,
                    None => return Ok(()),
                },
            };
            let take = async {
                let room = self.take_room(request.frame.len()).await;
                let (request_id, lane) = (request.request_id, (self.name(&request.stream), request.shard));
                let outcome = self.submit(&lane, request).await;
                (lane, Waiting { request_id, outcome, room })
            };
            let taken = tokio::select! {
                taken = take => taken,
                () = accepted.closed() => return Ok(()),
            };
            if accepted.send(taken).await.is_err() {
                return Ok(());
            }
        }
    }

    async fn take_room(&self, bytes: usize) -> OwnedSemaphorePermit {
        let bytes = bytes.clamp(ROOM_BYTES_MIN, ROOM_BYTES);
        let permits = u32::try_from(bytes).expect("room is far below 4 GiB");
        Arc::clone(&self.room).acquire_many_owned(permits).await.expect("the semaphore is never closed")
    }

    fn name(&self, stream: &str) -> Arc<str> {
        match self.streams.get_key_value(stream) {
            Some((name, _)) => Arc::clone(name),
            None => stream.into(),
        }
    }

    async fn submit(&mut self, lane: &Lane, request: AppendRequest) -> Result<PendingAppend, Error> {
        let shard = ShardId::new(request.shard)?;
        let version = ShardMapVersion::new(request.map_version);
        let stream = self.stream(&lane.0)?;
        let frame = match stream.takes_keyless() {
            true => Frame::decode_untrusted_keyless(&request.frame)?,
            false => Frame::decode_untrusted(&request.frame)?,
        };
        let meant = request.stream_incarnation;
        if meant != 0 && meant != stream.info().incarnation.get() {
            let message = format!("stream {} was deleted and made anew since its shards were listed", lane.0);
            return Err(Error::new(ErrorKind::NotFound, message));
        }
        stream.submit(shard, version, frame).await.map_err(|e| told(&e))
    }

    /// The stream of that name, if the caller may write to it; found anew once it was deleted, and every now and then, as
    /// what the caller may can change.
    fn stream(&mut self, name: &Arc<str>) -> Result<&Stream, Error> {
        let now = Instant::now();
        let known = self.streams.get(name);
        if known.is_none_or(|known| known.stream.is_deleted() || known.until <= now) {
            self.streams.remove(name);
            let stream = self.access.open(&self.caller, "kinesis:PutRecords", name)?;
            if self.streams.len() >= STREAMS_MAX {
                self.streams.clear();
            }
            self.streams.insert(Arc::clone(name), Permitted { stream, until: now + PERMITTED_FOR });
        }
        Ok(&self.streams.get(name).expect("it was there or has been put there").stream)
    }
}

/// Sends the answers: of each lane in order, lanes among each other as they come.
async fn answer(
    mut waiting: mpsc::Receiver<(Lane, Waiting)>,
    answers: &mpsc::Sender<Result<AppendResponse, Status>>,
) {
    // a lane is here while its first batch is in `heads`; behind it wait the others
    let mut lanes: HashMap<Lane, VecDeque<Waiting>> = HashMap::new();
    let mut heads = FuturesUnordered::new();
    let mut open = true;
    while open || !heads.is_empty() {
        tokio::select! {
            () = answers.closed() => return,
            next = waiting.recv(), if open => match next {
                None => open = false,
                Some((lane, batch)) => match lanes.entry(lane) {
                    Entry::Occupied(queue) => queue.into_mut().push_back(batch),
                    Entry::Vacant(place) => {
                        heads.push(settle(place.key().clone(), batch));
                        place.insert(VecDeque::new());
                    }
                },
            },
            Some((lane, answer, room)) = heads.next() => {
                if answers.send(Ok(answer)).await.is_err() {
                    return;
                }
                drop(room);
                match lanes.get_mut(&lane).and_then(VecDeque::pop_front) {
                    Some(batch) => heads.push(settle(lane, batch)),
                    None => drop(lanes.remove(&lane)),
                }
            }
        }
    }
}

async fn settle(lane: Lane, batch: Waiting) -> (Lane, AppendResponse, OwnedSemaphorePermit) {
    let outcome = match batch.outcome {
        Ok(pending) => pending.await.map_err(|e| told(&e)),
        Err(error) => Err(error),
    };
    let outcome = match outcome {
        Ok(appended) => Outcome::Appended(appended_to_wire(appended)),
        Err(error) => Outcome::Failed(error.into()),
    };
    (lane, AppendResponse { request_id: batch.request_id, outcome: Some(outcome) }, batch.room)
}

fn appended_to_wire(appended: Appended) -> v1::Appended {
    v1::Appended {
        first_index: appended.first.get(),
        count: appended.count,
        arrival_ms: appended.arrival.get(),
        duplicate: appended.duplicate,
    }
}
