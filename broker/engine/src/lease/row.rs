//! One lease and its rules, as a pure value; and how it is written down (FORMAT.md lists the fields).
//!
//! ```text
//!            take                     runs out (monotonic clock)
//!   free ──────────► held by a worker ──────────────────────────► expired: still the worker's until someone takes it
//!    ▲   epoch + 1    │ renew, checkpoint: worker and epoch must match       │
//!    └──── release ───┘◄─────────────── take, epoch + 1 ────────────────────┘
//! ```

use crate::error::{Error, ErrorKind, Result};
use crate::store::row::{RowReader, RowWriter};
use bytes::{BufMut, Bytes, BytesMut};
use tidemill_types::{
    AppName, Checkpoint, LeaseEpoch, MonotonicMs, SequenceNumber, ShardId, StreamIncarnation, WorkerId,
};

/// Keys of leases begin with this.
pub(crate) const PREFIX: &[u8] = b"lease/";
const VERSION: u8 = 1;

/// A lease that was taken at least once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) owner: Option<WorkerId>,
    pub(crate) epoch: LeaseEpoch,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) lease_ms: u64,
    /// Not written down: how often it was taken or renewed under this epoch.
    pub(crate) counter: u64,
    /// Not written down: after a restart every holder gets one full lease time.
    pub(crate) expires: MonotonicMs,
}

/// Who asks to take a lease, and on what terms.
pub(crate) struct Claim<'a> {
    pub(crate) worker: &'a WorkerId,
    pub(crate) expected: LeaseEpoch,
    pub(crate) lease_ms: u64,
    pub(crate) may_steal: bool,
    pub(crate) initial: Checkpoint,
}

impl Row {
    /// The lease after `claim`, on a lease that is now `row` (none: never taken).
    pub(crate) fn take(row: Option<&Self>, claim: &Claim<'_>, now: MonotonicMs) -> Result<Self> {
        let epoch = row.map_or(LeaseEpoch::default(), |row| row.epoch);
        if epoch != claim.expected {
            let message =
                format!("the lease is at epoch {epoch}, not {}: another worker was faster", claim.expected);
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        let holder = row.filter(|row| now < row.expires).and_then(|row| row.owner.as_ref());
        if let Some(holder) = holder.filter(|holder| *holder != claim.worker && !claim.may_steal) {
            return Err(Error::new(ErrorKind::Conflict, format!("worker {holder} holds the lease")));
        }
        Ok(Self {
            owner: Some(claim.worker.clone()),
            epoch: epoch.next(),
            checkpoint: row.map_or(claim.initial, |row| row.checkpoint),
            lease_ms: claim.lease_ms,
            counter: 1,
            expires: now.plus_ms(claim.lease_ms),
        })
    }

    /// Whether `worker` holds it under `epoch`; one that ran out and was not taken since is still held.
    pub(crate) fn is_held_by(&self, worker: &WorkerId, epoch: LeaseEpoch) -> bool {
        self.owner.as_ref() == Some(worker) && self.epoch == epoch
    }
    /// An error unless `worker` holds it under `epoch`.
    pub(crate) fn check_held_by(&self, worker: &WorkerId, epoch: LeaseEpoch) -> Result<()> {
        if self.is_held_by(worker, epoch) {
            return Ok(());
        }
        let holder =
            self.owner.as_ref().map_or_else(|| "nobody".to_owned(), |owner| format!("worker {owner}"));
        let message = format!(
            "worker {worker} has lost the lease of epoch {epoch}: {holder} holds it, under epoch {}",
            self.epoch
        );
        Err(Error::new(ErrorKind::Conflict, message))
    }
    /// Another full lease time from now.
    pub(crate) fn renew(&mut self, now: MonotonicMs) {
        self.counter += 1;
        self.expires = now.plus_ms(self.lease_ms);
    }
    /// Moves the checkpoint, or leaves it where it is. An error if it would go back.
    pub(crate) fn advance(&mut self, checkpoint: Checkpoint) -> Result<()> {
        if checkpoint < self.checkpoint {
            let message = format!(
                "a checkpoint only moves forward: at {:?}, asked for {checkpoint:?}",
                self.checkpoint
            );
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        self.checkpoint = checkpoint;
        Ok(())
    }
    /// Milliseconds until it runs out; 0 if it has, or nobody holds it.
    pub(crate) fn expires_in_ms(&self, now: MonotonicMs) -> u64 {
        if self.owner.is_some() { self.expires.since(now) } else { 0 }
    }

    /// What is written down of it.
    pub(crate) fn encode(&self) -> Bytes {
        let writer = RowWriter::new(VERSION)
            .u64(self.epoch.get())
            .u64(self.lease_ms)
            .text(self.owner.as_ref().map_or("", WorkerId::as_str));
        match self.checkpoint {
            Checkpoint::TrimHorizon => writer.u8(0),
            Checkpoint::Latest => writer.u8(1),
            Checkpoint::At { number, sub } => writer.u8(2).text(&number.to_string()).u64(sub),
            Checkpoint::ShardEnd => writer.u8(3),
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
        let checkpoint = match row.u8()? {
            0 => Checkpoint::TrimHorizon,
            1 => Checkpoint::Latest,
            2 => {
                let number: SequenceNumber = row.text()?.parse().map_err(|e| row.damaged(e))?;
                Checkpoint::At { number, sub: row.u64()? }
            }
            3 => Checkpoint::ShardEnd,
            other => return Err(row.damaged(format!("unknown checkpoint {other}"))),
        };
        row.finish()?;
        Ok(Self { owner, epoch, checkpoint, lease_ms, counter: 0, expires: now.plus_ms(lease_ms) })
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
