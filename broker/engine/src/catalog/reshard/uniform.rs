//! How given open shards become given ranges by splits and merges alone, so that each shard has at most two parents.
//!
//! ```text
//!   open     |───────────|───────────|      a stretch ends where an open shard and a wanted range end together;
//!   cut      |───────|───|───|───────|      within it each shard is cut at the bounds of the wanted ranges,
//!   wanted   |───────|───────|───────|      and the pieces of each wanted range are merged
//! ```
//!
//! Cutting halves what is left to cut, merging pairs what is left to merge: a record's lineage grows by the logarithm of
//! the count. A shard that has a wanted range already is not touched.

use super::plan::{Draft, Piece};
use crate::error::Result;
use tidemill_types::{HashKey, HashKeyRange};

/// Drafts the way from `open` to `wanted`; both tile the hash space, in order.
pub(super) fn reach(draft: &mut Draft, open: &[Piece], wanted: &[HashKeyRange]) -> Result<()> {
    let (mut open, mut wanted) = (open, wanted);
    while !open.is_empty() {
        let (shards, ranges) = stretch(open, wanted);
        if shards > 1 || ranges > 1 {
            reshape(draft, &open[..shards], &wanted[..ranges])?;
        }
        (open, wanted) = (&open[shards..], &wanted[ranges..]);
    }
    Ok(())
}

/// How many shards and how many ranges there are up to the first end that both have.
fn stretch(open: &[Piece], wanted: &[HashKeyRange]) -> (usize, usize) {
    let (mut shards, mut ranges) = (1, 1);
    loop {
        let (one, two) = (open[shards - 1].range.end(), wanted[ranges - 1].end());
        match one.cmp(&two) {
            std::cmp::Ordering::Less => shards += 1,
            std::cmp::Ordering::Greater => ranges += 1,
            std::cmp::Ordering::Equal => return (shards, ranges),
        }
    }
}

fn reshape(draft: &mut Draft, shards: &[Piece], ranges: &[HashKeyRange]) -> Result<()> {
    let mut pieces = Vec::new();
    for shard in shards {
        let begin_by = |key: HashKey| ranges.partition_point(|range| range.start() <= key);
        let inner = &ranges[begin_by(shard.range.start())..begin_by(shard.range.end())];
        let cuts: Vec<HashKey> = inner.iter().map(|range| range.start()).collect();
        cut(draft, shard.clone(), &cuts, &mut pieces)?;
    }
    let mut pieces = pieces.into_iter().peekable();
    for range in ranges {
        let mut within = Vec::new();
        while let Some(piece) = pieces.next_if(|piece| piece.range.end() <= range.end()) {
            within.push(piece);
        }
        join(draft, within)?;
    }
    Ok(())
}

/// Cuts a shard at all of `cuts`, the middle one first; the pieces come in order.
fn cut(draft: &mut Draft, shard: Piece, cuts: &[HashKey], pieces: &mut Vec<Piece>) -> Result<()> {
    let Some(middle) = cuts.get(cuts.len() / 2) else {
        pieces.push(shard);
        return Ok(());
    };
    let [lower, upper] = draft.split(&shard, *middle)?;
    cut(draft, lower, &cuts[..cuts.len() / 2], pieces)?;
    cut(draft, upper, &cuts[cuts.len() / 2 + 1..], pieces)
}

/// Merges neighbours pair by pair until one is left.
fn join(draft: &mut Draft, mut pieces: Vec<Piece>) -> Result<()> {
    while pieces.len() > 1 {
        let mut merged = Vec::with_capacity(pieces.len().div_ceil(2));
        for pair in pieces.chunks(2) {
            merged.push(match pair {
                [lower, upper] => draft.merge(lower, upper)?,
                alone => alone[0].clone(),
            });
        }
        pieces = merged;
    }
    Ok(())
}
