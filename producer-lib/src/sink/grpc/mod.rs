//! The gRPC sink: one append call on one connection to a Tidemill broker. The wire begins and ends here.

pub(crate) mod session;

use std::pin::Pin;
use tidemill_proto::bulk::Incoming;
use tidemill_proto::client::{Channel, Endpoint};
use tidemill_proto::convert::required;
use tidemill_proto::{Error, ErrorKind, Result, v1};
use tidemill_types::{
    Frame, SequenceIndex, ShardId, ShardMapVersion, StreamIncarnation, StreamName, TimestampMs,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Batches handed over and not yet taken by the transport; each is at most a frame.
const REQUESTS_QUEUED_MAX: usize = 4;

/// A batch to send.
pub(crate) struct Request<'a> {
    pub(crate) id: u64,
    pub(crate) stream: &'a StreamName,
    pub(crate) shard: ShardId,
    pub(crate) map_version: ShardMapVersion,
    pub(crate) incarnation: StreamIncarnation,
    pub(crate) frame: Frame,
}

/// What the broker says of a stored batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Appended {
    pub(crate) first: SequenceIndex,
    pub(crate) arrival: TimestampMs,
    pub(crate) duplicate: bool,
}

/// The answer to one request.
pub(crate) struct Answer {
    pub(crate) id: u64,
    pub(crate) outcome: Result<Appended>,
}

/// The sending half.
pub(crate) struct Requests(mpsc::Sender<v1::AppendRequest>);

/// Room for one request.
pub(crate) struct Permit<'a>(mpsc::Permit<'a, v1::AppendRequest>);

/// The answering half; dropping it ends the call.
pub(crate) struct Answers(Call);

enum Call {
    Opening(Opening),
    Open(Box<Incoming<v1::AppendResponse>>),
}

type Opening =
    Pin<Box<dyn Future<Output = std::result::Result<Incoming<v1::AppendResponse>, tonic::Status>> + Send>>;

/// Connects and begins an append call.
pub(crate) async fn open(endpoint: &Endpoint) -> Result<(Requests, Answers)> {
    let channel = Channel::connect(endpoint).await?;
    let (requests, queued) = mpsc::channel(REQUESTS_QUEUED_MAX);
    let opening = Box::pin(async move { channel.append(ReceiverStream::new(queued)).await });
    Ok((Requests(requests), Answers(Call::Opening(opening))))
}

impl Requests {
    /// Waits until the transport has taken enough. Cancelling is safe.
    pub(crate) async fn reserve(&self) -> Result<Permit<'_>> {
        match self.0.reserve().await {
            Ok(permit) => Ok(Permit(permit)),
            Err(_) => Err(Error::new(ErrorKind::UnknownOutcome, "the connection to the broker was lost")),
        }
    }
}

impl Permit<'_> {
    pub(crate) fn send(self, request: &Request<'_>) {
        self.0.send(v1::AppendRequest {
            request_id: request.id,
            stream: request.stream.to_string(),
            shard: request.shard.get(),
            map_version: request.map_version.get(),
            stream_incarnation: request.incarnation.get(),
            frame: request.frame.bytes().clone(),
        });
    }
}

impl Answers {
    /// The next answer; an error once the call has ended. Cancelling is safe.
    pub(crate) async fn next(&mut self) -> Result<Answer> {
        loop {
            match &mut self.0 {
                Call::Opening(opening) => self.0 = Call::Open(Box::new(opening.await?)),
                Call::Open(answers) => {
                    let Some(answer) = answers.message().await? else {
                        return Err(Error::new(ErrorKind::UnknownOutcome, "the broker ended the call"));
                    };
                    return parse(answer);
                }
            }
        }
    }
}

fn parse(answer: v1::AppendResponse) -> Result<Answer> {
    use v1::append_response::Outcome;
    let outcome = match required(answer.outcome, "outcome")? {
        Outcome::Appended(appended) => Ok(Appended {
            first: SequenceIndex::new(appended.first_index)?,
            arrival: TimestampMs::new(appended.arrival_ms),
            duplicate: appended.duplicate,
        }),
        Outcome::Failed(failed) => Err(failed.into()),
    };
    Ok(Answer { id: answer.request_id, outcome })
}
