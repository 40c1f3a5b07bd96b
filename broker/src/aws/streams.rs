//! Making, describing, listing and deleting streams.

use super::error::{self, ApiError, stream_not_found};
use super::iterator::{StreamPageToken, TokenError};
use super::listing::{self, ShardFilter, cut, page_size};
use super::shape::{
    Address, CreateStreamInput, DeleteStreamInput, DescribeStreamInput, DescribeStreamOutput,
    DescribeStreamSummaryInput, DescribeStreamSummaryOutput, Described, ListStreamsInput, ListStreamsOutput,
    Nothing,
};
use super::{AwsState, Call};
use tidemill_engine::{ConsumersOnDelete, Stream, StreamInfo, StreamSpec};
use tidemill_types::limits::RECORD_BYTES_DEFAULT;
use tidemill_types::{ShardId, StreamArn, StreamName};

/// Most streams on a page of ListStreams (Kinesis).
const STREAMS_PAGE_MAX: usize = 100;
/// Most shards on a page of DescribeStream (Kinesis).
const DESCRIBED_SHARDS_MAX: usize = 100;

type Result<T> = std::result::Result<T, ApiError>;

impl Address {
    /// The name meant; name and ARN must agree, and the ARN must be of this account and region.
    pub(crate) fn resolve(&self, state: &AwsState) -> Result<StreamName> {
        let invalid = |error: tidemill_types::Error| ApiError::invalid(error.to_string());
        let named = self.name.as_deref().map(StreamName::new).transpose().map_err(invalid)?;
        let Some(arn) = &self.arn else {
            return named
                .ok_or_else(|| ApiError::invalid("Either StreamName or StreamARN must be provided."));
        };
        let arn: StreamArn = arn.parse().map_err(invalid)?;
        match named {
            Some(name) if name != arn.stream => Err(ApiError::invalid(format!(
                "StreamName {name} does not match the stream of StreamARN {arn}."
            ))),
            _ if arn.account != *state.account() || arn.region != *state.region() => {
                Err(stream_not_found(&arn.stream, &arn.account))
            }
            _ => Ok(arn.stream),
        }
    }

    /// The stream meant, if there is one.
    pub(crate) fn open(&self, state: &AwsState) -> Result<(StreamName, Stream)> {
        let name = self.resolve(state)?;
        let stream = state.stream(&name)?;
        Ok((name, stream))
    }
}

fn described(state: &AwsState, info: StreamInfo) -> Described {
    let arn = state.arn(&info.key.name);
    Described { info, arn }
}

pub(crate) async fn create_stream(call: Call, input: CreateStreamInput) -> Result<Nothing> {
    let name = StreamName::new(input.name.as_deref().unwrap_or_default())
        .map_err(|error| ApiError::invalid(error.to_string()))?;
    let spec = StreamSpec { shard_count: asked_shards(&input)?, ..StreamSpec::default() };
    let made = call.state.engine().create_stream(&call.state.key(&name), spec).await;
    made.map_err(|error| error::of_stream(&error, &name, call.state.account()))?;
    Ok(Nothing)
}

/// How many shards a new stream is to have; refuses what this version would have to drop silently.
fn asked_shards(input: &CreateStreamInput) -> Result<u32> {
    let refused =
        |what: &str| Err(ApiError::invalid(format!("{what} is not offered by this version of tidemill.")));
    if input.mode.as_ref().is_some_and(|details| details.mode.as_deref() == Some("ON_DEMAND")) {
        return refused("StreamMode ON_DEMAND");
    }
    if input.tags.is_some_and(|count| count > 0) {
        return refused("Tagging a stream");
    }
    if input.warm_throughput.is_some_and(|rate| rate > 0) {
        return refused("WarmThroughputMiBps");
    }
    if input.record_kib_max.is_some_and(|kib| usize::try_from(kib) != Ok(RECORD_BYTES_DEFAULT / 1024)) {
        return refused("MaxRecordSizeInKiB other than 1024");
    }
    if input.distribution.as_deref() == Some("AUTO") {
        return refused("RecordDistributionStrategy AUTO");
    }
    let count = input.shard_count.and_then(|count| u32::try_from(count).ok());
    count.ok_or_else(|| ApiError::invalid("ShardCount must be given for a stream in PROVISIONED mode."))
}

pub(crate) async fn delete_stream(call: Call, input: DeleteStreamInput) -> Result<Nothing> {
    let name = input.stream.resolve(&call.state)?;
    let deleted = call.state.engine().delete_stream(&call.state.key(&name), ConsumersOnDelete::Refuse).await;
    deleted.map_err(|error| error::of_stream(&error, &name, call.state.account()))?;
    Ok(Nothing)
}

pub(crate) async fn describe_stream(call: Call, input: DescribeStreamInput) -> Result<DescribeStreamOutput> {
    let (name, stream) = input.stream.open(&call.state)?;
    let parse = |text: &String| {
        text.parse::<ShardId>().map_err(|_| error::shard_not_found(text, &name, call.state.account()))
    };
    let after = input.after.as_ref().map(parse).transpose()?;
    let info = stream.info();
    let mut shards = listing::select(&info, stream.shards(), ShardFilter::FromTrimHorizon, call.state.now());
    shards.retain(|shard| after.is_none_or(|after| shard.id > after));
    let (shards, more) = cut(shards, page_size(input.limit, DESCRIBED_SHARDS_MAX));
    Ok(DescribeStreamOutput { stream: described(&call.state, info), shards, more })
}

pub(crate) async fn describe_stream_summary(
    call: Call,
    input: DescribeStreamSummaryInput,
) -> Result<DescribeStreamSummaryOutput> {
    let (_, stream) = input.stream.open(&call.state)?;
    Ok(DescribeStreamSummaryOutput(described(&call.state, stream.info())))
}

/// A token, when given, says where to go on; otherwise the name does.
pub(crate) async fn list_streams(call: Call, input: ListStreamsInput) -> Result<ListStreamsOutput> {
    let (state, now) = (&call.state, call.state.now());
    let after = match (&input.next_token, &input.after) {
        (Some(token), _) => {
            Some(state.tokens().open_stream_page(token, now).map_err(TokenError::of_page)?.after)
        }
        (None, after) => after
            .as_deref()
            .map(StreamName::new)
            .transpose()
            .map_err(|error| ApiError::invalid(error.to_string()))?,
    };
    let page = state.engine().list_streams(state.account(), after.as_ref(), page_size(input.limit, STREAMS_PAGE_MAX));
    let last = page.streams.last().filter(|_| page.more);
    let next = last.map(|last| StreamPageToken { after: last.key.name.clone(), minted: now });
    let next_token = next.map(|next| state.tokens().seal_stream_page(&next));
    let streams = page.streams.into_iter().map(|info| described(state, info)).collect();
    Ok(ListStreamsOutput { streams, next_token })
}
