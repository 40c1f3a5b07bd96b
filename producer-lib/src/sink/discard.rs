//! The sink that keeps nothing: each batch is answered as stored at once and dropped, so that what is left to measure is the
//! producer itself. Behind the feature `discard`, for benchmarks.

use crate::lane::{Appended, Next};
use crate::producer::Shared;
use crate::sender::Connection;
use crate::ticket::First;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::sync::Arc;
use tidemill_proto::Result;
use tidemill_proto::convert::ShardList;
use tidemill_types::{
    HashKeyRange, SequenceIndex, Shard, ShardId, ShardMap, ShardMapVersion, ShardState, StreamIncarnation,
    TimestampMs,
};
use tokio::time::Instant;

/// Every stream has the same shards.
pub(crate) fn list_shards(count: u32) -> Result<ShardList> {
    let shards = (0..).zip(HashKeyRange::uniform(count)).map(|(id, range)| {
        Ok(Shard {
            id: ShardId::new(id)?,
            parent: None,
            adjacent_parent: None,
            range,
            created: TimestampMs::new(0),
            state: ShardState::Open,
        })
    });
    let shards = shards.collect::<Result<Vec<_>>>()?;
    let map = ShardMap::new(ShardMapVersion::default(), shards.iter().cloned())?;
    Ok(ShardList { incarnation: StreamIncarnation::new(1), map, shards })
}

/// Runs until the producer ends it.
pub(crate) async fn run(shared: Arc<Shared>, connection: Arc<Connection>, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut request = 0;
    loop {
        connection.has_work_at_last().await;
        let Some(lane) = connection.take() else { continue };
        request += 1;
        let now = Instant::now();
        match lane.next(request, now) {
            Next::Batch(_) => {
                let at = shared.clock.now();
                let first = First::Numbered(lane.shard.number(SequenceIndex::ZERO, at));
                let stored = Appended { shard: lane.shard.id, first, duplicate: false };
                lane.answer(request, Ok(stored), (at, now), &mut rng);
            }
            // nothing is ever refused, so nothing is held back
            Next::Nothing | Next::Later(_) => {}
        }
    }
}
