//! Listing shards, and splitting, merging and scaling them.

use super::Call;
use super::address::Opened;
use super::error::{self, ApiError, stream_not_found};
use super::iterator::{ShardPageToken, TokenError};
use super::listing::{self, ShardFilter, cut, page_size};
use super::room::see_through;
use super::shape::{
    ListShardsInput, ListShardsOutput, MergeShardsInput, Nothing, ShardFilterInput, SplitShardInput,
    UpdateShardCountInput, UpdateShardCountOutput,
};
use tidemill_types::{HashKey, ShardId, StreamKey};

/// Most shards on a page of ListShards (Kinesis).
const SHARDS_PAGE_MAX: usize = 1000;

type Result<T> = std::result::Result<T, ApiError>;

/// A listing under way: of which stream, what it shows, and behind which shard this page begins.
struct Listing {
    of: Opened,
    filter: ShardFilter,
    after: Option<ShardId>,
}

pub(crate) async fn list_shards(call: Call, input: ListShardsInput) -> Result<ListShardsOutput> {
    let (state, now) = (&call.state, call.state.now());
    let Listing { of: Opened { key, stream }, filter, after } = match &input.next_token {
        Some(token) => go_on(&call, &input, token)?,
        None => begin(&call, &input)?,
    };
    let mut shards = listing::select(stream.shards(), filter, stream.kept_since(now));
    shards.retain(|shard| after.is_none_or(|after| shard.id > after));
    let (shards, more) = cut(shards, page_size(input.limit, SHARDS_PAGE_MAX));
    let next_token = shards.last().filter(|_| more).map(|last| {
        let incarnation = stream.incarnation();
        let page = ShardPageToken { stream: key, incarnation, after: last.id, filter, minted: now };
        state.tokens().seal_shard_page(&page)
    });
    Ok(ListShardsOutput { shards, next_token })
}

fn begin(call: &Call, input: &ListShardsInput) -> Result<Listing> {
    if !input.stream.is_given() {
        return Err(ApiError::invalid("Either NextToken or StreamName should be provided."));
    }
    let key = input.stream.key(call)?;
    let filter = input.filter.as_ref().map(|filter| parse_filter(filter, &key)).transpose()?;
    let after = input.after.as_ref().map(|text| parse_shard(text, &key)).transpose()?;
    let of = call.open(key, stream_not_found)?;
    if !of.was_created(input.created) {
        return Err(stream_not_found(&of.key));
    }
    Ok(Listing { of, filter: filter.unwrap_or(ShardFilter::FromTrimHorizon), after })
}

fn go_on(call: &Call, input: &ListShardsInput, token: &str) -> Result<Listing> {
    if input.stream.is_given() {
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
    let page = call.state.tokens().open_shard_page(token, call.state.now()).map_err(TokenError::of_page)?;
    // of another account's stream a token says no more than that it is of no use
    let ours = page.stream.account == *call.caller.account();
    let absent = |key: &StreamKey| if ours { stream_not_found(key) } else { TokenError::Invalid.of_page() };
    let of = call.open(page.stream, absent)?;
    if of.stream.incarnation() != page.incarnation {
        return Err(TokenError::of_earlier_stream(&of.key));
    }
    Ok(Listing { of, filter: page.filter, after: Some(page.after) })
}

pub(super) fn parse_shard(text: &str, key: &StreamKey) -> Result<ShardId> {
    text.parse().map_err(|_| error::shard_not_found(text, key))
}

/// What the filter's type demands beside it must be there, and nothing else.
fn parse_filter(input: &ShardFilterInput, key: &StreamKey) -> Result<ShardFilter> {
    let kind = input.kind.as_deref().unwrap_or_default();
    let misfit = |what: &str| Err(ApiError::invalid(format!("ShardFilter of type {kind} {what}.")));
    let timed = matches!(kind, "AT_TIMESTAMP" | "FROM_TIMESTAMP");
    match (kind, &input.shard, input.time) {
        ("AFTER_SHARD_ID", None, _) => misfit("needs a ShardId"),
        (_, _, None) if timed => misfit("needs a Timestamp"),
        (_, Some(_), _) if kind != "AFTER_SHARD_ID" => misfit("takes no ShardId"),
        (_, _, Some(_)) if !timed => misfit("takes no Timestamp"),
        ("AFTER_SHARD_ID", Some(shard), _) => Ok(ShardFilter::AfterShardId(parse_shard(shard, key)?)),
        ("AT_TIMESTAMP", _, Some(time)) => Ok(ShardFilter::AtTimestamp(time)),
        ("FROM_TIMESTAMP", _, Some(time)) => Ok(ShardFilter::FromTimestamp(time)),
        ("AT_TRIM_HORIZON", ..) => Ok(ShardFilter::AtTrimHorizon),
        ("AT_LATEST", ..) => Ok(ShardFilter::AtLatest),
        _ => Ok(ShardFilter::FromTrimHorizon),
    }
}

pub(crate) async fn split_shard(call: Call, input: SplitShardInput) -> Result<Nothing> {
    let text = input.at.as_deref().unwrap_or_default();
    let at = text.parse::<HashKey>().map_err(|_| {
        ApiError::invalid(format!(
            "Invalid NewStartingHashKey. NewStartingHashKey must be in the range: [0, 2^128-1]. Specified value was {text}"
        ))
    })?;
    let opened = input.stream.open(&call)?;
    let shard = parse_shard(input.shard.as_deref().unwrap_or_default(), &opened.key)?;
    let room = call.room_to_split(&opened, shard, at)?;
    let (engine, key) = (call.state.engine().clone(), opened.key.clone());
    see_through(room, None, async move { engine.split_shard(&key, shard, at).await }).await.map(|()| Nothing)
}

pub(crate) async fn merge_shards(call: Call, input: MergeShardsInput) -> Result<Nothing> {
    let opened = input.stream.open(&call)?;
    let shard = parse_shard(input.shard.as_deref().unwrap_or_default(), &opened.key)?;
    let adjacent = parse_shard(input.adjacent.as_deref().unwrap_or_default(), &opened.key)?;
    let merged = call.state.engine().merge_shards(&opened.key, shard, adjacent).await;
    merged.map(|()| Nothing).map_err(|error| error::of_control(&error))
}

pub(crate) async fn update_shard_count(
    call: Call,
    input: UpdateShardCountInput,
) -> Result<UpdateShardCountOutput> {
    let opened = input.stream.open(&call)?;
    let target = input.target.and_then(|count| u32::try_from(count).ok()).unwrap_or_default();
    let (room, turn) = call.leave_to_scale(&opened, target)?.unzip();
    let (engine, key) = (call.state.engine().clone(), opened.key.clone());
    let scaled = see_through(room, turn, async move { engine.scale_stream(&key, target).await }).await?;
    Ok(UpdateShardCountOutput { arn: call.state.arn(&opened.key), scaled })
}
