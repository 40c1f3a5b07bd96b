//! One read call: what there is from a position on, then what comes.
//!
//! The first answer comes at once, with the shard and whatever is there. Then pages follow as fast as the reader takes
//! them: two wait here, the rest stays on disk. When nothing comes an empty answer tells that the call is alive.

use super::super::access::{Access, Caller, PERMITTED_FOR};
use super::super::{HEARTBEAT, credentials_changed, going_away, told};
use super::pages::Pages;
use tidemill_engine::{FramePage, Stream};
use tidemill_proto::convert::required;
use tidemill_proto::v1::{ReadRequest, ReadResponse};
use tidemill_proto::{Error, Result};
use tidemill_types::limits::FRAME_BYTES_MAX;
use tidemill_types::{Position, SequenceIndex, Shard, ShardId};
use tokio_util::sync::CancellationToken;
use tonic::Status;

const ACTION: &str = "kinesis:GetRecords";
const PAGE_BYTES_DEFAULT: usize = 1 << 20;

/// Where a call ends.
enum Until {
    /// When the reader goes or a closed shard ends.
    Forever,
    /// Once everything below this has been sent.
    Tip(SequenceIndex),
}

/// A read call whose position is known to be right.
pub(super) struct Reader {
    name: String,
    stream: Stream,
    shard: Shard,
    from: SequenceIndex,
    until: Until,
    page_bytes: usize,
}

impl Reader {
    pub(super) async fn open(
        access: &Access,
        caller: &Caller,
        request: ReadRequest,
    ) -> std::result::Result<Self, Status> {
        let id = ShardId::new(request.shard).map_err(Error::from)?;
        let position = Position::try_from(required(request.position, "position")?)?;
        let stream = access.open(caller, ACTION, &request.stream)?;
        let from = stream.resolve(id, position).await.map_err(|e| told(&e))?;
        let shard = stream.shards().into_iter().find(|shard| shard.id == id).ok_or_else(|| {
            Error::new(tidemill_proto::ErrorKind::NotFound, format!("Stream {} has no {id}.", request.stream))
        })?;
        let until = if request.stop_at_tip {
            Until::Tip(stream.resolve(id, Position::Latest).await.map_err(|e| told(&e))?)
        } else {
            Until::Forever
        };
        let page_bytes = match request.max_bytes as usize {
            0 => PAGE_BYTES_DEFAULT,
            bytes => bytes.min(FRAME_BYTES_MAX),
        };
        Ok(Self { name: request.stream, stream, shard, from, until, page_bytes })
    }

    /// Sends pages until the end: the reader's, the broker's, or that of the credentials or of the permission.
    pub(super) async fn serve(
        self,
        pages: Pages,
        stopping: CancellationToken,
        access: Access,
        caller: Caller,
    ) {
        let ended = tokio::select! {
            ended = self.send_pages(&pages) => ended.map_err(Status::from),
            () = pages.closed() => return,
            () = pages.taken_back() => return,
            () = stopping.cancelled() => Err(going_away().into()),
            () = caller.ended() => Err(credentials_changed().into()),
            refused = self.refused(&access, &caller) => Err(refused),
        };
        if let Err(status) = ended {
            pages.end(status).await;
        }
    }

    /// Waits until the caller may no longer read; says why.
    async fn refused(&self, access: &Access, caller: &Caller) -> Status {
        loop {
            tokio::time::sleep(PERMITTED_FOR).await;
            if let Err(status) = access.permit(caller, ACTION, &self.name) {
                return status;
            }
        }
    }

    async fn send_pages(&self, pages: &Pages) -> Result<()> {
        let id = self.shard.id;
        let page = self.stream.read(id, self.from, self.page_bytes).await.map_err(|e| told(&e))?;
        let mut next = page.next;
        let mut more = self.wants_more(&page);
        let first = ReadResponse { shard: Some((&self.shard).into()), ..to_wire(page) };
        if pages.send(first).await.is_err() || !more {
            return Ok(());
        }
        let mut subscription = self.stream.subscribe(id, next).map_err(|e| told(&e))?;
        while more {
            let page = subscription.next_or_idle(self.page_bytes, HEARTBEAT).await.map_err(|e| told(&e))?;
            let Some(page) = page else {
                return Ok(());
            };
            debug_assert!(page.next >= next, "a subscription never goes back");
            next = page.next;
            more = self.wants_more(&page);
            if pages.send(to_wire(page)).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn wants_more(&self, page: &FramePage) -> bool {
        page.end.is_none()
            && match self.until {
                Until::Forever => true,
                Until::Tip(tip) => page.next < tip,
            }
    }
}

fn to_wire(page: FramePage) -> ReadResponse {
    ReadResponse {
        shard: None,
        frames: page.bytes(),
        from_index: page.from.get(),
        next_index: page.next.get(),
        millis_behind: page.millis_behind,
        end_of_shard: page.end.is_some(),
        children: page.end.unwrap_or_default().iter().map(Into::into).collect(),
        records_behind: page.records_behind,
    }
}
