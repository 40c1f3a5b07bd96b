//! Making, describing, listing and deleting streams.

use super::address::Opened;
use super::error::{self, ApiError};
use super::iterator::{StreamPageToken, TokenError};
use super::listing::{self, ShardFilter, cut, page_size};
use super::room::see_through;
use super::settings::warm_mibps;
use super::shape::{
    CreateStreamInput, DeleteStreamInput, DescribeStreamInput, DescribeStreamOutput,
    DescribeStreamSummaryInput, DescribeStreamSummaryOutput, Described, ListStreamsInput, ListStreamsOutput,
    Nothing, distribution,
};
use super::shards::parse_shard;
use super::{AwsState, Call};
use tidemill_engine::{ConsumersOnDelete, StreamInfo, StreamMode, StreamSettings, StreamSpec};
use tidemill_types::StreamName;

/// Shards of a new stream whose owner leaves their number to the broker (Kinesis).
const ON_DEMAND_SHARDS: u32 = 4;
/// Most streams on a page of ListStreams (Kinesis).
const STREAMS_PAGE_MAX: usize = 100;
/// Most shards on a page of DescribeStream (Kinesis).
const DESCRIBED_SHARDS_MAX: usize = 100;

type Result<T> = std::result::Result<T, ApiError>;

fn described(state: &AwsState, info: StreamInfo) -> Described {
    let arn = state.arn(&info.key);
    Described { info, arn }
}

pub(crate) async fn create_stream(call: Call, input: CreateStreamInput) -> Result<Nothing> {
    let name = StreamName::new(input.name.as_deref().unwrap_or_default())?;
    let key = call.permit_new(name)?;
    let spec = asked(input)?;
    let room = call.room_for_stream(&key, &spec)?;
    let engine = call.state.engine().clone();
    see_through(room, None, async move { engine.create_stream(&key, spec).await }).await.map(|_| Nothing)
}

/// What a new stream is to be like.
fn asked(input: CreateStreamInput) -> Result<StreamSpec> {
    let mode = input.mode.map_or(StreamMode::default(), |details| details.mode());
    let given = input.shard_count.and_then(|count| u32::try_from(count).ok());
    let shard_count = match mode {
        StreamMode::OnDemand => ON_DEMAND_SHARDS,
        StreamMode::Provisioned => given
            .ok_or_else(|| ApiError::invalid("ShardCount must be given for a stream in PROVISIONED mode."))?,
    };
    let defaults = StreamSettings::default();
    let record_kib_max = input.record_kib_max.and_then(|kib| u32::try_from(kib).ok());
    let settings = StreamSettings {
        mode,
        record_kib_max: record_kib_max.unwrap_or(defaults.record_kib_max),
        distribution: distribution(input.distribution.as_deref()),
        warm_mibps: warm_mibps(input.warm_throughput),
        tags: input.tags.unwrap_or_default(),
        ..defaults
    };
    Ok(StreamSpec { shard_count, settings })
}

pub(crate) async fn delete_stream(call: Call, input: DeleteStreamInput) -> Result<Nothing> {
    let opened = input.stream.open(&call)?;
    let consumers = if input.with_consumers { ConsumersOnDelete::Remove } else { ConsumersOnDelete::Refuse };
    let deleted = call.state.engine().delete_stream(&opened.key, consumers).await;
    deleted.map(|()| Nothing).map_err(|error| error::of_control(&error))
}

pub(crate) async fn describe_stream(call: Call, input: DescribeStreamInput) -> Result<DescribeStreamOutput> {
    let Opened { key, stream } = input.stream.open(&call)?;
    let after = input.after.as_ref().map(|text| parse_shard(text, &key)).transpose()?;
    let kept_since = stream.kept_since(call.state.now());
    let mut shards = listing::select(stream.shards(), ShardFilter::FromTrimHorizon, kept_since);
    shards.retain(|shard| after.is_none_or(|after| shard.id > after));
    let (shards, more) = cut(shards, page_size(input.limit, DESCRIBED_SHARDS_MAX));
    Ok(DescribeStreamOutput { stream: described(&call.state, stream.info()), shards, more })
}

pub(crate) async fn describe_stream_summary(
    call: Call,
    input: DescribeStreamSummaryInput,
) -> Result<DescribeStreamSummaryOutput> {
    let opened = input.stream.open(&call)?;
    Ok(DescribeStreamSummaryOutput(described(&call.state, opened.stream.info())))
}

/// The streams of the caller's own account. A token, when given, says where to go on; otherwise the name does.
pub(crate) async fn list_streams(call: Call, input: ListStreamsInput) -> Result<ListStreamsOutput> {
    let (state, now) = (&call.state, call.state.now());
    let account = call.permit_account()?;
    let after = match (&input.next_token, &input.after) {
        (Some(token), _) => {
            let page = state.tokens().open_stream_page(token, now);
            let ours = page.and_then(|page| match page.after.account == *account {
                true => Ok(page.after.name),
                false => Err(TokenError::Invalid),
            });
            Some(ours.map_err(TokenError::of_page)?)
        }
        (None, after) => after.as_deref().map(StreamName::new).transpose()?,
    };
    let limit = page_size(input.limit, STREAMS_PAGE_MAX);
    let page = state.engine().list_streams(account, after.as_ref(), limit);
    let last = page.streams.last().filter(|_| page.more);
    let next = last.map(|last| StreamPageToken { after: last.key.clone(), minted: now });
    let next_token = next.map(|next| state.tokens().seal_stream_page(&next));
    let streams = page.streams.into_iter().map(|info| described(state, info)).collect();
    Ok(ListStreamsOutput { streams, next_token })
}
