//! Calls of the native API that the tests need beside the two libraries: making streams, reading shards as they lie.

use crate::broker::Broker;
use crate::history::Stored;
use crate::payload::id_of;
use anyhow::{Context, Result};
use std::time::Duration;
use tidemill_proto::client::{Channel, Control, Endpoint};
use tidemill_proto::v1::{self, ReadRequest, position::At};
use tidemill_types::limits::RETENTION_HOURS_DEFAULT;
use tidemill_types::{Frames, SequenceNumber, Shard, ShardId, StreamName};
use tokio::time::timeout;

/// A read that brings nothing for this long is a failure.
const READ_DEADLINE: Duration = Duration::from_secs(20);

/// Creates a stream.
pub async fn create_stream(broker: &Broker, stream: &str, shards: u32) -> Result<()> {
    let control = control(&broker.endpoint()?).await?;
    control.create_stream(&StreamName::new(stream)?, shards, RETENTION_HOURS_DEFAULT).await?;
    Ok(())
}

async fn control(endpoint: &Endpoint) -> Result<Control> {
    Ok(Control::new(Channel::connect(endpoint).await?, rand::random()))
}

/// Everything in a stream, shard by shard, as the native API gives it.
pub async fn read_stream(broker: &Broker, stream: &str) -> Result<Vec<Stored>> {
    let endpoint = broker.endpoint()?;
    let shards = control(&endpoint).await?.list_shards(&StreamName::new(stream)?).await?.shards;
    let mut all = Vec::new();
    for shard in shards {
        read_shard(&endpoint, stream, shard.id, None, |record| {
            all.push(record);
            Ok(())
        })
        .await?;
    }
    Ok(all)
}

/// Gives `take` every record of a shard behind `after`, or from its beginning, up to its tip.
pub async fn read_shard(
    endpoint: &Endpoint,
    stream: &str,
    shard: ShardId,
    after: Option<SequenceNumber>,
    mut take: impl FnMut(Stored) -> Result<()>,
) -> Result<()> {
    let at = match after {
        Some(number) => At::AfterSequenceNumber(number.to_string()),
        None => At::TrimHorizon(v1::Empty {}),
    };
    let request = ReadRequest {
        stream: stream.to_owned(),
        shard: shard.get(),
        position: Some(v1::Position { at: Some(at) }),
        max_bytes: 0,
        stop_at_tip: true,
    };
    let mut client = Channel::connect(endpoint).await?.data();
    let call = timeout(READ_DEADLINE, client.read(request)).await.context("no answer to a read")?;
    let mut answers = call?.into_inner();
    let mut of: Option<Shard> = None;
    while let Some(answer) = timeout(READ_DEADLINE, answers.message()).await.context("a read hangs")?? {
        if let Some(told) = answer.shard {
            of = Some(told.try_into()?);
        }
        let of = of.as_ref().context("the first answer tells the shard")?;
        for frame in Frames::new(answer.frames) {
            let frame = frame?;
            for record in frame.records().filter(|record| record.index.get() >= answer.from_index) {
                let number = of.number(record.index, frame.header().arrival);
                take(Stored { shard: of.id, number, id: id_of(record.data)? })?;
            }
        }
    }
    Ok(())
}
