//! Plans of splits and merges: pure functions from the state to what is to change.

use super::{Child, Reshard, uniform};
use crate::catalog::settings::StreamMode;
use crate::catalog::state::{CatalogState, Change, Counters, StreamRow};
use crate::catalog::streams::not_found;
use crate::error::{Error, ErrorKind, Result};
use crate::stream::no_such_shard;
use tidemill_storage::LogId;
use tidemill_types::limits::SHARDS_PER_STREAM_MAX;
use tidemill_types::{HashKey, HashKeyRange, Shard, ShardId, StreamKey};

/// So many shards are kept, open and closed, for each that may be open.
const KEPT_PER_OPEN: usize = 4;

fn invalid<T>(message: String) -> Result<T> {
    Err(Error::new(ErrorKind::Invalid, message))
}

/// One shard becomes two; the upper one begins at `at`.
pub(super) fn split(state: &CatalogState, key: &StreamKey, shard: ShardId, at: HashKey) -> Result<Reshard> {
    let stream = changeable(state, key)?;
    let parent = open_shard(state, stream, shard)?;
    let (start, end) = (parent.range.start(), parent.range.end());
    if at.get() <= start.get().saturating_add(1) || at >= end {
        return invalid(format!(
            "NewStartingHashKey {at} used in SplitShard() on shard {shard} in stream {} under account {} is not both \
             greater than one plus the shard's StartingHashKey {start} and less than the shard's EndingHashKey {end}.",
            key.name, key.account
        ));
    }
    let mut draft = Draft::new(state, stream);
    draft.split(&Piece::of(parent), at)?;
    Ok(draft.finish())
}

/// Two shards whose ranges touch become one; `lower` comes first.
pub(super) fn merge(
    state: &CatalogState,
    key: &StreamKey,
    lower: ShardId,
    upper: ShardId,
) -> Result<Reshard> {
    let stream = changeable(state, key)?;
    let (one, two) = (open_shard(state, stream, lower)?, open_shard(state, stream, upper)?);
    if !one.range.touches(two.range) {
        return invalid(format!(
            "Shards {lower} and {upper} in stream {} under account {} are not an adjacent pair of shards eligible for \
             merging",
            key.name, key.account
        ));
    }
    let mut draft = Draft::new(state, stream);
    draft.merge(&Piece::of(one), &Piece::of(two))?;
    Ok(draft.finish())
}

/// `target` open shards that share the hash space equally.
pub(super) fn scale(state: &CatalogState, key: &StreamKey, target: u32) -> Result<Reshard> {
    let stream = changeable(state, key)?;
    if !(1..=SHARDS_PER_STREAM_MAX).contains(&target) {
        return invalid(format!("a stream has 1 to {SHARDS_PER_STREAM_MAX} shards, asked for {target}"));
    }
    let map = state.map(stream)?;
    if map.open().len() == target as usize {
        return invalid(format!(
            "Stream {} under account {} has {target} open shards already; the target shard count must differ.",
            key.name, key.account
        ));
    }
    let open: Vec<Piece> = map.open().iter().map(Piece::of).collect();
    let mut draft = Draft::new(state, stream);
    uniform::reach(&mut draft, &open, &HashKeyRange::uniform(target))?;
    Ok(draft.finish())
}

/// The change that notes an intent, with the numbers it takes. `shards_max` bounds the open shards of all streams; closed
/// ones that are kept, and those that are only passed through, are bounded too, more generously.
pub(super) fn intend(
    state: &CatalogState,
    key: &StreamKey,
    reshard: Reshard,
    shards_max: u32,
) -> Result<Vec<Change>> {
    let stream = state.stream(key).ok_or_else(|| not_found(key))?;
    let shards_max = shards_max as usize;
    let (open, coming, going) = (state.open_shard_count(), reshard.opening(), reshard.parents.len());
    if coming > going && open + coming - going > shards_max {
        let message = format!(
            "This request would exceed the shard limit of this broker. Current shard count of all accounts: {open}. Limit: \
             {shards_max}. Number of additional shards that would have resulted from this request: {}.",
            coming - going
        );
        return Err(Error::new(ErrorKind::Throttled, message));
    }
    let more = reshard.children.len();
    check_kept(state, more, shards_max)?;
    let counters = state.counters();
    let counters = Counters { next_log: counters.next_log + more as u64, ..counters };
    Ok(vec![Change::Counters(counters), Change::Reshard(stream.incarnation, reshard)])
}

/// Whether `more` shards may come beside those, open and closed, that the broker keeps for all accounts.
pub(in crate::catalog) fn check_kept(state: &CatalogState, more: usize, shards_max: usize) -> Result<()> {
    let (kept, open) = (state.shard_count(), state.open_shard_count());
    let kept_max = shards_max.saturating_mul(KEPT_PER_OPEN);
    if kept + more <= kept_max {
        return Ok(());
    }
    let message = format!(
        "This request would exceed the limit of shards that this broker keeps: there are {kept} of all accounts, of which \
         {open} are open and the others are kept until their records have passed the retention; {more} would come. Limit: \
         {kept_max}."
    );
    Err(Error::new(ErrorKind::Throttled, message))
}

/// The stream, if its shards may be changed by hand.
fn changeable<'a>(state: &'a CatalogState, key: &StreamKey) -> Result<&'a StreamRow> {
    let stream = state.stream(key).ok_or_else(|| not_found(key))?;
    if stream.settings.mode == StreamMode::OnDemand {
        let message = format!(
            "Request is invalid. Stream {} under account {} is in On-Demand mode.",
            key.name, key.account
        );
        return Err(Error::new(ErrorKind::Precondition, message));
    }
    Ok(stream)
}

fn open_shard<'a>(state: &'a CatalogState, stream: &StreamRow, id: ShardId) -> Result<&'a Shard> {
    let key = &stream.key;
    let row = state.shard(stream.incarnation, id).ok_or_else(|| no_such_shard(key, id))?;
    if !row.shard.is_open() {
        return invalid(format!(
            "Shard {id} in stream {} under account {} has already been merged or split, and thus is not eligible for \
             merging or splitting.",
            key.name, key.account
        ));
    }
    Ok(&row.shard)
}

/// An open shard of a draft.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    id: ShardId,
    pub(super) range: HashKeyRange,
}

impl Piece {
    fn of(shard: &Shard) -> Self {
        Self { id: shard.id, range: shard.range }
    }
}

/// A reshard in the making: ids and logs are given out as it grows.
pub(super) struct Draft {
    first: u32,
    next_log: u64,
    parents: Vec<ShardId>,
    children: Vec<Child>,
}

impl Draft {
    fn new(state: &CatalogState, stream: &StreamRow) -> Self {
        // the shard of the highest id is open, so that it is never let go of and no id comes twice
        let last = state.shards(stream.incarnation).last().map_or(0, |row| row.shard.id.get());
        let next_log = state.counters().next_log;
        Self { first: last + 1, next_log, parents: Vec::new(), children: Vec::new() }
    }

    /// The two shards that come of `piece`, the upper one beginning at `at`, which lies behind its first key.
    pub(super) fn split(&mut self, piece: &Piece, at: HashKey) -> Result<[Piece; 2]> {
        let below = HashKey::new(at.get() - 1);
        let lower = HashKeyRange::new(piece.range.start(), below).expect("the cut lies within");
        let upper = HashKeyRange::new(at, piece.range.end()).expect("the cut lies within");
        self.end(piece);
        Ok([self.child(piece, None, lower)?, self.child(piece, None, upper)?])
    }

    /// The shard that comes of two whose ranges touch.
    pub(super) fn merge(&mut self, lower: &Piece, upper: &Piece) -> Result<Piece> {
        debug_assert!(lower.range.touches(upper.range));
        let range = HashKeyRange::new(lower.range.start(), upper.range.end()).expect("they touch");
        self.end(lower);
        self.end(upper);
        self.child(lower, Some(upper), range)
    }

    fn end(&mut self, piece: &Piece) {
        if piece.id.get() < self.first {
            self.parents.push(piece.id);
        }
    }

    fn child(&mut self, parent: &Piece, adjacent: Option<&Piece>, range: HashKeyRange) -> Result<Piece> {
        let nth = self.children.len() as u64;
        let id = u32::try_from(u64::from(self.first) + nth).ok().and_then(|id| ShardId::new(id).ok());
        let id = id.ok_or_else(|| {
            let message = "the stream has used up its shard numbers; move its records to a new stream";
            Error::new(ErrorKind::Invalid, message)
        })?;
        self.children.push(Child {
            id,
            log: LogId::new(self.next_log + nth),
            parent: parent.id,
            adjacent_parent: adjacent.map(|piece| piece.id),
            range,
        });
        Ok(Piece { id, range })
    }

    fn finish(mut self) -> Reshard {
        self.parents.sort_unstable();
        Reshard { parents: self.parents, children: self.children }
    }
}
