//! How a lease is written down: its key and its row (FORMAT.md lists the fields).
//!
//! ```text
//!  version 1:  epoch | lease ms | owner | checkpoint
//!  version 2:  epoch | lease ms | owner | checkpoint | 0, or 1 and a prepared checkpoint | its state
//! ```
//!
//! Both versions are read; version 2 is written.

use super::row::Row;
use crate::error::{Error, ErrorKind, Result};
use crate::store::row::{RowReader, RowWriter};
use bytes::{BufMut, Bytes, BytesMut};
use tidemill_types::{
    AppName, Checkpoint, LeaseEpoch, MonotonicMs, PendingCheckpoint, SequenceNumber, ShardId,
    StreamIncarnation, WorkerId,
};

/// Keys of leases begin with this.
pub(crate) const PREFIX: &[u8] = b"lease/";
const VERSION: u8 = 2;

impl Row {
    /// What is written down of it.
    pub(crate) fn encode(&self) -> Bytes {
        let writer = RowWriter::new(VERSION)
            .u64(self.epoch.get())
            .u64(self.lease_ms)
            .text(self.owner.as_ref().map_or("", WorkerId::as_str));
        let writer = put_checkpoint(writer, self.checkpoint);
        match &self.pending {
            None => writer.u8(0),
            Some(pending) => put_checkpoint(writer.u8(1), pending.at()).blob(pending.state()),
        }
        .finish()
    }

    /// From what was written down; its holder has a full lease time from `now`.
    pub(crate) fn decode(bytes: &[u8], now: MonotonicMs) -> Result<Self> {
        let mut row = RowReader::new("row of a lease", bytes, VERSION)?;
        let (epoch, lease_ms) = (LeaseEpoch::new(row.u64()?), row.u64()?);
        let owner = match row.text()? {
            "" => None,
            text => Some(WorkerId::new(text).map_err(|e| row.damaged(e))?),
        };
        let checkpoint = take_checkpoint(&mut row)?;
        let pending = match row.version() {
            1 => None,
            _ => take_pending(&mut row)?,
        };
        row.finish()?;
        Ok(Self {
            owner,
            epoch,
            checkpoint,
            pending,
            lease_ms,
            counter: 0,
            expires: now.plus_ms(lease_ms),
            handoff: None,
            bytes_per_s: 0,
        })
    }
}

fn put_checkpoint(writer: RowWriter, checkpoint: Checkpoint) -> RowWriter {
    match checkpoint {
        Checkpoint::TrimHorizon => writer.u8(0),
        Checkpoint::Latest => writer.u8(1),
        Checkpoint::At { number, sub } => writer.u8(2).text(&number.to_string()).u64(sub),
        Checkpoint::ShardEnd => writer.u8(3),
    }
}

fn take_checkpoint(row: &mut RowReader<'_>) -> Result<Checkpoint> {
    Ok(match row.u8()? {
        0 => Checkpoint::TrimHorizon,
        1 => Checkpoint::Latest,
        2 => {
            let number: SequenceNumber = row.text()?.parse().map_err(|e| row.damaged(e))?;
            Checkpoint::At { number, sub: row.u64()? }
        }
        3 => Checkpoint::ShardEnd,
        other => return Err(row.damaged(format!("unknown checkpoint {other}"))),
    })
}

fn take_pending(row: &mut RowReader<'_>) -> Result<Option<PendingCheckpoint>> {
    match row.u8()? {
        0 => Ok(None),
        1 => {
            let at = take_checkpoint(row)?;
            let state = Bytes::copy_from_slice(row.blob()?);
            PendingCheckpoint::new(at, state).map(Some).map_err(|e| row.damaged(e))
        }
        other => Err(row.damaged(format!("unknown mark {other} of a prepared checkpoint"))),
    }
}

/// The key of a lease: those of a stream lie together.
pub(crate) fn key(incarnation: StreamIncarnation, app: &AppName, shard: ShardId) -> Bytes {
    let mut key = BytesMut::from(PREFIX);
    key.put_u64(incarnation.get());
    key.put_slice(app.as_str().as_bytes());
    key.put_u8(b'/'); // no application has it in its name
    key.put_u32(shard.get());
    key.freeze()
}

/// What a key stands for.
pub(crate) fn decode_key(key: &[u8]) -> Result<(StreamIncarnation, AppName, ShardId)> {
    let parsed = || {
        let (incarnation, rest) = key.strip_prefix(PREFIX)?.split_first_chunk::<8>()?;
        let (rest, shard) = rest.split_last_chunk::<4>()?;
        let app = AppName::new(std::str::from_utf8(rest.strip_suffix(b"/")?).ok()?).ok()?;
        let shard = ShardId::new(u32::from_be_bytes(*shard)).ok()?;
        Some((StreamIncarnation::new(u64::from_be_bytes(*incarnation)), app, shard))
    };
    parsed()
        .ok_or_else(|| Error::new(ErrorKind::Damaged, "the key of a lease in the metadata store is damaged"))
}
