//! What concerns a broker as a whole: its backup.

use super::access::Access;
use super::told;
use bytes::Bytes;
use tidemill_engine::{Backup, BackupPart, Held, HeldBackup, LogId, Part, Row};
use tidemill_proto::v1;
use tidemill_proto::v1::admin_server::Admin;
use tidemill_types::SequenceIndex;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// No action of Kinesis, so that what a policy allows of those does not include it.
const BACKUP: &str = "tidemill:Backup";
/// Bytes of rows, or of the checkpoint, in one part.
const PART_BYTES: usize = 1 << 20;
/// Parts that wait for the connection.
const WAITING_MAX: usize = 2;

pub(crate) struct AdminService {
    access: Access,
}

impl AdminService {
    pub(super) fn new(access: Access) -> Self {
        Self { access }
    }
}

type Parts = mpsc::Sender<Result<v1::BackupPart, Status>>;

/// Nobody takes the parts any more.
struct Gone;

#[tonic::async_trait]
impl Admin for AdminService {
    type BackupStream = ReceiverStream<Result<v1::BackupPart, Status>>;

    async fn backup(
        &self,
        request: Request<v1::BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        let (caller, request) = Access::caller(request)?;
        self.access.permit_account(&caller, BACKUP)?;
        let segments = request.held.into_iter().map(held).collect::<Result<_, _>>()?;
        let held = HeldBackup { lineage: request.lineage, segments };
        let backup = self.access.engine().backup(held).await.map_err(|e| told(&e))?;
        let (parts, answers) = mpsc::channel(WAITING_MAX);
        tokio::spawn(async move {
            tokio::select! {
                _ = send(backup, &parts) => {}
                () = caller.ended() => {
                    let _ = parts.send(Err(super::credentials_changed().into())).await; // or nobody listens
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

fn held(wire: v1::HeldSegment) -> Result<Held, tidemill_proto::Error> {
    let v1::HeldSegment { log, number, base, capacity, end, next } = wire;
    let (base, next) = (SequenceIndex::new(base)?, SequenceIndex::new(next)?);
    Ok(Held { log: LogId::new(log), number, base, capacity, end, next })
}

async fn send(mut backup: Backup, parts: &Parts) -> Result<(), Gone> {
    let lineage = backup.lineage;
    for rows in pieces(std::mem::take(&mut backup.rows)) {
        let rows = rows.into_iter().map(|(key, value)| v1::MetadataRow { key, value }).collect();
        put(parts, v1::backup_part::Part::Rows(v1::MetadataRows { lineage, rows })).await?;
    }
    while let Some(part) = backup.next().await {
        match part {
            Ok(BackupPart::Segment(Part { log, number, capacity, offset, bytes })) => {
                let part = v1::SegmentPart { log: log.get(), number, capacity, offset, bytes };
                put(parts, v1::backup_part::Part::Segment(part)).await?;
            }
            Ok(BackupPart::Checkpoint(mut bytes)) => {
                while !bytes.is_empty() {
                    let piece = bytes.split_to(bytes.len().min(PART_BYTES));
                    put(parts, v1::backup_part::Part::Checkpoint(piece)).await?;
                }
            }
            Err(error) => parts.send(Err(told(&error).into())).await.map_err(|_| Gone)?,
        }
    }
    Ok(())
}

async fn put(parts: &Parts, part: v1::backup_part::Part) -> Result<(), Gone> {
    parts.send(Ok(v1::BackupPart { part: Some(part) })).await.map_err(|_| Gone)
}

/// Rows in messages of bounded size.
fn pieces(rows: Vec<Row>) -> Vec<Vec<Row>> {
    let (mut all, mut piece, mut bytes) = (Vec::new(), Vec::new(), 0);
    for (key, value) in rows {
        bytes += size(&key) + size(&value);
        piece.push((key, value));
        if bytes >= PART_BYTES {
            all.push(std::mem::take(&mut piece));
            bytes = 0;
        }
    }
    all.push(piece);
    all
}

/// On the wire, with what stands before it.
fn size(bytes: &Bytes) -> usize {
    bytes.len() + 8
}
