//! Listing shards.

use super::error::{self, ApiError, Code, stream_not_found};
use super::iterator::{ShardPageToken, TokenError};
use super::listing::{self, ShardFilter, cut, page_size};
use super::shape::{ListShardsInput, ListShardsOutput, ShardFilterInput};
use super::{AwsState, Call};
use tidemill_engine::Stream;
use tidemill_types::{AccountId, ShardId, StreamName};

/// Most shards on a page of ListShards (Kinesis).
const SHARDS_PAGE_MAX: usize = 1000;

type Result<T> = std::result::Result<T, ApiError>;

/// A listing under way: of which stream, what it shows, and behind which shard this page begins.
struct Listing {
    name: StreamName,
    stream: Stream,
    filter: ShardFilter,
    after: Option<ShardId>,
}

pub(crate) async fn list_shards(call: Call, input: ListShardsInput) -> Result<ListShardsOutput> {
    let (state, now) = (&call.state, call.state.now());
    let listing = match &input.next_token {
        Some(token) => go_on(state, &input, token)?,
        None => begin(state, &input)?,
    };
    let info = listing.stream.info();
    let mut shards = listing::select(&info, listing.stream.shards(), listing.filter, now);
    shards.retain(|shard| listing.after.is_none_or(|after| shard.id > after));
    let (shards, more) = cut(shards, page_size(input.limit, SHARDS_PAGE_MAX));
    let next_token = shards.last().filter(|_| more).map(|last| {
        let (stream, incarnation) = (listing.name, info.incarnation);
        let filter = listing.filter;
        state.tokens().seal_shard_page(&ShardPageToken {
            stream,
            incarnation,
            after: last.id,
            filter,
            minted: now,
        })
    });
    Ok(ListShardsOutput { shards, next_token })
}

fn begin(state: &AwsState, input: &ListShardsInput) -> Result<Listing> {
    if input.stream.name.is_none() && input.stream.arn.is_none() {
        return Err(ApiError::invalid("Either NextToken or StreamName should be provided."));
    }
    let name = input.stream.resolve(state)?;
    let filter =
        input.filter.as_ref().map(|filter| parse_filter(filter, &name, state.account())).transpose()?;
    let parse = |text: &String| parse_shard(text, &name, state.account());
    let after = input.after.as_ref().map(parse).transpose()?;
    let stream = state.stream(&name)?;
    // clients send the time back in whole seconds or in milliseconds
    let other = |created: tidemill_types::TimestampMs| created.seconds() != stream.info().created.seconds();
    if input.created.is_some_and(other) {
        return Err(stream_not_found(&name, state.account()));
    }
    Ok(Listing { name, stream, filter: filter.unwrap_or(ShardFilter::FromTrimHorizon), after })
}

fn go_on(state: &AwsState, input: &ListShardsInput, token: &str) -> Result<Listing> {
    if input.stream.name.is_some() || input.stream.arn.is_some() {
        return Err(ApiError::invalid("NextToken and StreamName cannot be provided together."));
    }
    let others = [
        ("StreamCreationTimestamp", input.created.is_some()),
        ("ExclusiveStartShardId", input.after.is_some()),
        ("ShardFilter", input.filter.is_some()),
    ];
    if let Some((other, _)) = others.iter().find(|(_, given)| *given) {
        return Err(ApiError::invalid(format!("NextToken and {other} cannot be provided together.")));
    }
    let page = state.tokens().open_shard_page(token, state.now()).map_err(TokenError::of_page)?;
    let stream = state.stream(&page.stream)?;
    if stream.info().incarnation != page.incarnation {
        return Err(ApiError::new(
            Code::ExpiredNextToken,
            format!("The NextToken is of an earlier stream named {}. List again without it.", page.stream),
        ));
    }
    Ok(Listing { name: page.stream, stream, filter: page.filter, after: Some(page.after) })
}

fn parse_shard(text: &str, name: &StreamName, account: &AccountId) -> Result<ShardId> {
    text.parse().map_err(|_| error::shard_not_found(text, name, account))
}

/// What the filter's type demands beside it must be there, and nothing else.
fn parse_filter(input: &ShardFilterInput, name: &StreamName, account: &AccountId) -> Result<ShardFilter> {
    let kind = input.kind.as_deref().unwrap_or_default();
    let misfit = |what: &str| Err(ApiError::invalid(format!("ShardFilter of type {kind} {what}.")));
    let timed = matches!(kind, "AT_TIMESTAMP" | "FROM_TIMESTAMP");
    match (kind, &input.shard, input.time) {
        ("AFTER_SHARD_ID", None, _) => misfit("needs a ShardId"),
        (_, _, None) if timed => misfit("needs a Timestamp"),
        (_, Some(_), _) if kind != "AFTER_SHARD_ID" => misfit("takes no ShardId"),
        (_, _, Some(_)) if !timed => misfit("takes no Timestamp"),
        ("AFTER_SHARD_ID", Some(shard), _) => {
            Ok(ShardFilter::AfterShardId(parse_shard(shard, name, account)?))
        }
        ("AT_TIMESTAMP", _, Some(time)) => Ok(ShardFilter::AtTimestamp(time)),
        ("FROM_TIMESTAMP", _, Some(time)) => Ok(ShardFilter::FromTimestamp(time)),
        ("AT_TRIM_HORIZON", ..) => Ok(ShardFilter::AtTrimHorizon),
        ("AT_LATEST", ..) => Ok(ShardFilter::AtLatest),
        _ => Ok(ShardFilter::FromTrimHorizon),
    }
}
