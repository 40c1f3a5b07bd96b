//! How an intent is written down. FORMAT.md lists the fields.

use super::{Child, Reshard};
use crate::catalog::row::{parent_number, parent_of, shard_id};
use crate::error::Result;
use crate::store::row::{RowReader, RowWriter};
use bytes::Bytes;
use tidemill_storage::LogId;
use tidemill_types::{HashKey, HashKeyRange};

const VERSION: u8 = 1;

fn count(items: usize) -> u32 {
    u32::try_from(items).expect("the shards of a broker are bounded")
}

pub(crate) fn encode(reshard: &Reshard) -> Bytes {
    let mut row = RowWriter::new(VERSION).u32(count(reshard.parents.len()));
    for id in &reshard.parents {
        row = row.u32(id.get());
    }
    row = row.u32(count(reshard.children.len()));
    for child in &reshard.children {
        row = row
            .u32(child.id.get())
            .u64(child.log.get())
            .u32(child.parent.get())
            .u32(parent_number(child.adjacent_parent))
            .u128(child.range.start().get())
            .u128(child.range.end().get());
    }
    row.finish()
}

pub(crate) fn decode(bytes: &[u8]) -> Result<Reshard> {
    let mut row = RowReader::new("row of a split or merge", bytes, VERSION)?;
    let mut reshard = Reshard { parents: Vec::new(), children: Vec::new() };
    for _ in 0..row.u32()? {
        let id = row.u32()?;
        reshard.parents.push(shard_id(&row, id)?);
    }
    for _ in 0..row.u32()? {
        let (id, log, parent, adjacent) = (row.u32()?, row.u64()?, row.u32()?, row.u32()?);
        let (start, end) = (HashKey::new(row.u128()?), HashKey::new(row.u128()?));
        reshard.children.push(Child {
            id: shard_id(&row, id)?,
            log: LogId::new(log),
            parent: shard_id(&row, parent)?,
            adjacent_parent: parent_of(&row, adjacent)?,
            range: HashKeyRange::new(start, end).map_err(|e| row.damaged(e))?,
        });
    }
    row.finish()?;
    Ok(reshard)
}
