//! Reading shards by hand: to the end, again and again; or pushed, for as long as it goes.

use super::super::bare::{self, Pages, Until};
use super::super::deliveries::Deliveries;
use super::super::meter::Meter;
use crate::error::{Error, Result};
use std::sync::Arc;
use tidemill_proto::client::Channel;
use tidemill_types::{Frames, ShardId, StreamName};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Reads one shard.
pub(super) struct Reader {
    pub(super) channel: Channel,
    pub(super) stream: StreamName,
    pub(super) shard: ShardId,
}

/// Whether a pass goes on past the end of the window.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    Whole,
    UntilOver,
}

/// Whether shards are read again once they were read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    UntilOver,
    Never,
}

/// Reads shards one after the other from their beginnings to their ends, once at least.
pub(super) async fn in_turn(readers: Vec<Reader>, again: Again, mut meter: Meter) -> Result<Meter> {
    let mut first = 0;
    for reader in &readers {
        let records = reader.pass(&mut meter, Pass::Whole).await?;
        meter.read_once(records);
        first += records;
    }
    while again == Again::UntilOver && first > 0 && !meter.window().is_over() {
        for reader in &readers {
            reader.pass(&mut meter, Pass::UntilOver).await?;
        }
    }
    Ok(meter)
}

impl Reader {
    /// One call; the number of records it brought.
    async fn pass(&self, meter: &mut Meter, pass: Pass) -> Result<u64> {
        let mut pages = self.open(Until::Tip).await?;
        let mut records = 0;
        while pass == Pass::Whole || !meter.window().is_over() {
            let began = Instant::now();
            let Some(frames) = pages.next_soon().await? else { break };
            let count = bare::count(&frames)?;
            records += count;
            meter.done(began, count);
        }
        Ok(records)
    }

    pub(super) async fn open(&self, until: Until) -> Result<Pages> {
        bare::read(&self.channel, &self.stream, self.shard, until).await
    }
}

/// Counts what is pushed until the window is over.
pub(super) async fn follow(mut pages: Pages, mut meter: Meter, over: CancellationToken) -> Result<Meter> {
    loop {
        let began = Instant::now();
        let frames = tokio::select! {
            frames = pages.next() => frames?,
            () = over.cancelled() => return Ok(meter),
        };
        let frames = frames.ok_or_else(ended)?;
        meter.done(began, bare::count(&frames)?);
    }
}

/// Tells of every record that is pushed when it was due, for as long as it goes.
pub(super) async fn deliver(mut pages: Pages, to: Arc<Deliveries>) -> Result<()> {
    while let Some(frames) = pages.next().await? {
        for frame in Frames::new(frames) {
            let frame = frame.map_err(|e| Error::because("the broker sent a bad frame", e))?;
            frame.records().for_each(|record| to.take(record.data));
        }
    }
    Err(ended())
}

fn ended() -> Error {
    Error::failed("the broker ended a read that never ends")
}
