//! The native calls that carry records, by hand: append with frames that are ready, read without processing. Everything that
//! touches the data calls of a channel is here.

use crate::error::{Error, Result};
use bytes::Bytes;
use std::time::Duration;
use tidemill_proto::bulk::Incoming;
use tidemill_proto::client::Channel;
use tidemill_proto::v1::append_response::Outcome;
use tidemill_proto::v1::{self, AppendRequest, AppendResponse, ReadResponse};
use tidemill_types::{FrameHeader, ShardId, StreamName};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;

const PAGE_BYTES: u32 = 1 << 20;
/// An answer that does not come in this time will not come.
const PATIENCE: Duration = Duration::from_secs(30);

/// The answers of an append call.
pub(super) struct Answers(Incoming<AppendResponse>);

/// What became of one frame.
pub(super) enum Answer {
    Stored { request_id: u64, records: u64 },
    Throttled(String),
    Failed(String),
}

/// Opens an append call. Requests go into the sender, at most `waiting_max` unsent at a time; dropping it ends the call
/// once all is answered.
pub(super) async fn append(
    channel: &Channel,
    waiting_max: usize,
) -> Result<(mpsc::Sender<AppendRequest>, Answers)> {
    let (requests, waiting) = mpsc::channel(waiting_max);
    let answers = channel.append(ReceiverStream::new(waiting)).await.map_err(broken)?;
    Ok((requests, Answers(answers)))
}

impl Answers {
    /// The next answer; none when the call has ended.
    pub(super) async fn next(&mut self) -> Result<Option<Answer>> {
        let answer = timeout(PATIENCE, self.0.message());
        let answer = answer.await.map_err(|_| Error::failed("the broker answers nothing any more"))?;
        Ok(answer.map_err(broken)?.map(Answer::from))
    }
}

impl From<AppendResponse> for Answer {
    fn from(answer: AppendResponse) -> Self {
        match answer.outcome {
            Some(Outcome::Appended(appended)) => {
                Self::Stored { request_id: answer.request_id, records: appended.count.into() }
            }
            Some(Outcome::Failed(failed)) if failed.kind() == v1::ErrorKind::Throttled => {
                Self::Throttled(failed.message)
            }
            Some(Outcome::Failed(failed)) => Self::Failed(failed.message),
            None => Self::Failed("the broker answers without an outcome".to_owned()),
        }
    }
}

/// Where a read ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// At the newest record.
    Tip,
    /// Never: it follows the shard.
    Stopped,
}

/// The answers of a read call.
pub(super) struct Pages(Incoming<ReadResponse>);

/// Reads a shard from its beginning.
pub(super) async fn read(
    channel: &Channel,
    stream: &StreamName,
    shard: ShardId,
    until: Until,
) -> Result<Pages> {
    let request = v1::ReadRequest {
        stream: stream.to_string(),
        shard: shard.get(),
        position: Some(v1::Position { at: Some(v1::position::At::TrimHorizon(v1::Empty {})) }),
        max_bytes: PAGE_BYTES,
        stop_at_tip: until == Until::Tip,
    };
    Ok(Pages(channel.read(request).await.map_err(broken)?))
}

impl Pages {
    /// The next frames; none when the call has ended.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>> {
        Ok(self.0.message().await.map_err(broken)?.map(|page| page.frames))
    }
    /// The same, where more is known to come, or the end.
    pub(super) async fn next_soon(&mut self) -> Result<Option<Bytes>> {
        timeout(PATIENCE, self.next())
            .await
            .map_err(|_| Error::failed("the broker sends nothing any more"))?
    }
}

/// Records in whole frames, by their headers.
pub(super) fn count(mut frames: &[u8]) -> Result<u64> {
    let mut records = 0;
    while !frames.is_empty() {
        let header =
            FrameHeader::decode(frames).map_err(|e| Error::because("the broker sent a bad frame", e))?;
        records += u64::from(header.count);
        frames = frames
            .get(header.frame_bytes as usize..)
            .ok_or_else(|| Error::failed("the broker sent half a frame"))?;
    }
    Ok(records)
}

fn broken(status: tonic::Status) -> Error {
    tidemill_proto::Error::from(status).into()
}
