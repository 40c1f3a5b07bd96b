//! One look at the leases of all streams of a worker: those that may be worked on now.

use crate::initial::InitialPosition;
use crate::leases::Leases;
use crate::lineage::{self, Readiness};
use crate::place::Checkpoint;
use crate::shard::ShardRef;
use crate::store::LeaseRow;
use std::collections::BTreeMap;
use tidemill_proto::{Error, ErrorKind, Result};
use tidemill_types::StreamName;

/// The leases that may be worked on, each with where to begin if nobody has begun.
pub(crate) type Rows = BTreeMap<ShardRef, (LeaseRow, Checkpoint)>;

/// What a look found.
pub(crate) struct Look {
    pub(crate) rows: Rows,
    /// A stream does not exist.
    pub(crate) missing: Option<Error>,
}

/// Looks; an error when no stream exists or the service cannot tell. Cancelling is safe.
pub(crate) async fn look(leases: &Leases, streams: &BTreeMap<StreamName, InitialPosition>) -> Result<Look> {
    let (mut rows, mut missing, mut found) = (Rows::new(), None, false);
    for (stream, initial) in streams {
        let during = |error: Error| error.during(&format!("looking at the leases of {stream}"));
        let listed = match leases.list(stream).await.map_err(during) {
            Ok(listed) => listed,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                missing = Some(error);
                continue;
            }
            Err(error) => return Err(error),
        };
        found = true;
        let ready = lineage::readiness(&listed, *initial);
        for row in listed {
            if let Some(Readiness::Ready(from)) = ready.get(&row.shard.id) {
                rows.insert(ShardRef::new(stream.clone(), row.shard.id), (row, *from));
            }
        }
    }
    match missing {
        Some(error) if !found => Err(error),
        missing => Ok(Look { rows, missing }),
    }
}
