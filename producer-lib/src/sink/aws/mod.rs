//! The AWS sink: Amazon Kinesis by its API and the official SDK, or any service that speaks it.
//!
//! ```text
//!  lanes' batches ─► packed, one record of the stream each ─► gathered, any shards ─► PutRecords ─► an answer for each
//!                    (KPL's aggregated record)                (collect)               (session)      │
//!      stored there / again / routed anew ◄───────────────────────────────────────────── judged ◄────┘
//! ```
//!
//! The API takes no numbers of batches, so a batch that is sent again may be stored again, and it routes by hash key itself,
//! so a batch that was made for a shard which has since been split may land in a child that is not meant for all of it. The
//! KCL drops such a record as a whole, so it is judged as a whole: if any of its records is not meant for the shard that
//! took it, all of them are sent again, to the shards that there are now.

mod answer;
mod collect;
pub(crate) mod session;
mod settings;

pub use settings::Aws;

use crate::error::Result;
use crate::sink::Opened;
use answer::error_of;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::types::{ShardFilter, ShardFilterType};
use std::sync::atomic::{AtomicU64, Ordering};
use tidemill_proto::client::Backoff;
use tidemill_proto::convert::ShardList;
use tidemill_proto::{Error, ErrorKind};
use tidemill_types::limits::RECORD_BYTES_DEFAULT;
use tidemill_types::{
    HashKeyRange, Shard, ShardMap, ShardMapVersion, ShardState, StreamIncarnation, StreamName, TimestampMs,
};
use tokio::time::sleep;

/// Shards of one page of a list.
const SHARDS_PER_PAGE: i32 = 1000;

/// The service, and how to use it.
pub(crate) struct Service {
    settings: Aws,
    client: Client,
    /// The service does not number its shard maps.
    versions: AtomicU64,
}

impl Service {
    pub(crate) async fn connect(settings: &Aws) -> Result<Self> {
        let client = settings.client().await?;
        Ok(Self { settings: settings.clone(), client, versions: AtomicU64::new(1) })
    }

    /// The stream's open shards, and the largest record that it takes, where that may be asked.
    pub(crate) async fn open(&self, stream: &StreamName) -> tidemill_proto::Result<Opened> {
        let list = self.list_shards(stream).await?;
        let summary = self.client.describe_stream_summary().stream_name(stream.as_str()).send().await;
        // not everybody who may put may also ask
        let summary = summary.ok().and_then(|summary| summary.stream_description_summary);
        let kib = summary.and_then(|summary| summary.max_record_size_in_kib);
        let bytes = kib.and_then(|kib| usize::try_from(kib).ok()).map(|kib| kib * 1024);
        Ok(Opened { list, record_bytes_max: Some(bytes.unwrap_or(RECORD_BYTES_DEFAULT)) })
    }

    /// The open shards, asked for until they are told or it is clear that they will not be.
    pub(crate) async fn list_shards(&self, stream: &StreamName) -> tidemill_proto::Result<ShardList> {
        let backoff = Backoff::default();
        for attempts in 1.. {
            match self.try_list_shards(stream).await {
                Err(error) if error.kind().is_retryable() => {
                    let wait = backoff.after(attempts, &mut rand::rng());
                    sleep(wait.ok_or_else(|| error.during("listing the shards"))?).await;
                }
                other => return other.map_err(|error| error.during("listing the shards")),
            }
        }
        unreachable!("attempts are bounded")
    }

    async fn try_list_shards(&self, stream: &StreamName) -> tidemill_proto::Result<ShardList> {
        let open = ShardFilter::builder().r#type(ShardFilterType::AtLatest).build();
        let open = open.map_err(|error| Error::invalid(error.to_string()))?;
        let first = self.client.list_shards().stream_name(stream.as_str()).shard_filter(open);
        let mut page =
            first.max_results(SHARDS_PER_PAGE).send().await.map_err(|failure| error_of(&failure))?;
        let mut shards = Vec::new();
        loop {
            for shard in page.shards.unwrap_or_default() {
                shards.extend(noun(&shard)?);
            }
            let Some(token) = page.next_token else { break };
            page = self
                .client
                .list_shards()
                .next_token(token)
                .send()
                .await
                .map_err(|failure| error_of(&failure))?;
        }
        let version = ShardMapVersion::new(self.versions.fetch_add(1, Ordering::Relaxed));
        // while a stream is resharded the pages may not fit each other
        let map = ShardMap::new(version, shards.iter().cloned())
            .map_err(|error| Error::new(ErrorKind::Unavailable, error.to_string()))?;
        Ok(ShardList { incarnation: StreamIncarnation::new(0), map, shards })
    }
}

/// A shard as the producer knows it, if it is open.
fn noun(shard: &aws_sdk_kinesis::types::Shard) -> tidemill_proto::Result<Option<Shard>> {
    let ended = shard.sequence_number_range.as_ref().and_then(|range| range.ending_sequence_number.as_ref());
    if ended.is_some() {
        return Ok(None);
    }
    let keys = shard.hash_key_range.as_ref();
    let keys = keys.ok_or_else(|| Error::invalid("a shard was listed without its hash keys"))?;
    let range = HashKeyRange::new(keys.starting_hash_key.parse()?, keys.ending_hash_key.parse()?)?;
    Ok(Some(Shard {
        id: shard.shard_id.parse()?,
        // neither is needed here, and the time is not told
        parent: None,
        adjacent_parent: None,
        range,
        created: TimestampMs::new(0),
        state: ShardState::Open,
    }))
}
