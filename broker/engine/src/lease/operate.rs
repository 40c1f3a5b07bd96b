//! What operators do to leases: see which applications there are, move their checkpoints, forget them.

use super::nouns::{App, AppPage, AppStream, ResetCheckpoints};
use super::reset::{self, Effect, Holders, ResetRow, check_unheld};
use super::row::Row;
use super::stored;
use super::table::{LeaseTable, check_room, durable};
use crate::error::{Error, ErrorKind, Result};
use crate::shared::Shared;
use crate::store::Batch;
use crate::stream::{Stream, StreamCore};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use tidemill_types::{AccountId, AppName, Checkpoint, MonotonicMs, Position, ShardId, StreamKey};

impl LeaseTable {
    /// Applications that have leases on streams of `account` that pass `may_see`, with names above `after`, ascending, at
    /// most `limit`. Errors: `Unavailable`.
    pub fn apps(
        &self,
        account: &AccountId,
        after: Option<&AppName>,
        limit: usize,
        may_see: impl Fn(&StreamKey) -> bool,
    ) -> Result<AppPage> {
        self.shared.metrics().note(self.shared.check_open())?;
        let leased: HashSet<_> = self.rows.lock().keys().map(|(incarnation, _)| *incarnation).collect();
        let cores = self.registry.of_account(account).into_iter();
        let seen: HashMap<_, _> = cores
            .filter(|core| leased.contains(&core.incarnation()) && may_see(core.key()))
            .map(|core| (core.incarnation(), core.key().name.clone()))
            .collect();
        let (now, rows) = (self.now(), self.rows.lock());
        let mut found: BTreeMap<&AppName, Vec<AppStream>> = BTreeMap::new();
        for ((incarnation, app), taken) in rows.iter() {
            if let Some(stream) = seen.get(incarnation).filter(|_| after.is_none_or(|after| app > after)) {
                let holders: Vec<_> = taken.values().filter_map(|row| row.holder(now)).collect();
                found.entry(app).or_default().push(AppStream {
                    stream: stream.clone(),
                    leases: taken.len(),
                    held: holders.len(),
                    workers: holders.into_iter().collect::<HashSet<_>>().len(),
                });
            }
        }
        let more = found.len() > limit;
        let page = found.into_iter().take(limit).map(|(app, mut streams)| {
            streams.sort_by(|one, other| one.stream.cmp(&other.stream));
            App { app: app.clone(), streams }
        });
        Ok(AppPage { apps: page.collect(), more })
    }

    /// The streams of `account` on which an application has leases, by name.
    pub fn streams_of(&self, account: &AccountId, app: &AppName) -> Vec<StreamKey> {
        let rows = self.rows.lock();
        let cores = self.registry.of_account(account).into_iter();
        let leased = cores.filter(|core| rows.contains_key(&(core.incarnation(), app.clone())));
        leased.map(|core| core.key().clone()).collect()
    }

    /// Moves the checkpoints of an application on a stream anywhere, also back, and tells what that means for each shard. A
    /// shard whose lease nobody took gets one, so that it holds for it too. What is told of a rehearsal is what would be
    /// done, whoever holds leases. Once called it may happen even if the caller stops waiting.
    ///
    /// Errors: `NotFound`; `Conflict` if a worker that is to be respected holds a lease concerned; `Invalid` for a sequence
    /// number that is not of the stream; `Throttled` at the limit of all leases; `Unavailable`, `UnknownOutcome`; `Damaged`.
    pub async fn reset(
        &self,
        app: &AppName,
        stream: &StreamKey,
        request: ResetCheckpoints,
    ) -> Result<Vec<ResetRow>> {
        self.shared.metrics().note(self.reset_now(app, stream, request).await)
    }

    async fn reset_now(
        &self,
        app: &AppName,
        stream: &StreamKey,
        request: ResetCheckpoints,
    ) -> Result<Vec<ResetRow>> {
        self.shared.check_open()?;
        let core = self.registry.get(stream)?;
        let mut targets = targets(&self.shared, &core, request.to).await?;
        let slot = self.metadata.reserve().await?;
        let (told, commit) = {
            let mut rows = self.rows.lock();
            core.check_there()?;
            let set = core.shard_set();
            targets.retain(|shard, _| set.get(*shard).is_some()); // it may have expired meanwhile
            let (now, of_app) = (self.now(), (core.incarnation(), app.clone()));
            let known = rows.get(&of_app);
            let holders = match request.effect {
                Effect::Rehearse => Holders::Fence, // to be told, with its owners
                Effect::Apply => request.holders,
            };
            let moved = reset::plan(known, &targets, holders, now)?;
            let told = set.shards().map(|shard| told(shard.id, known, &targets, now)).collect();
            if request.effect == Effect::Rehearse {
                return Ok(told);
            }
            let made = moved.keys().filter(|shard| known.is_none_or(|known| !known.contains_key(shard)));
            check_room(&rows, made.count())?;
            let put = |(shard, row): (&ShardId, &Row)| {
                (stored::key(core.incarnation(), app, *shard), Some(row.encode()))
            };
            let changes = moved.iter().map(put).collect();
            rows.entry(of_app).or_default().extend(moved);
            (told, slot.send(Batch { conditions: Vec::new(), changes }))
        };
        durable(commit).await?;
        Ok(told)
    }

    /// Forgets all leases of an application on these streams; returns how many there were. Its workers begin again as new
    /// ones do. Once called it may happen even if the caller stops waiting.
    ///
    /// Errors: `NotFound` if there is none, or no such stream; `Conflict` if a worker that is to be respected holds one;
    /// `Unavailable`, `UnknownOutcome`.
    pub async fn delete_app(
        &self,
        app: &AppName,
        streams: &[StreamKey],
        holders: Holders,
        effect: Effect,
    ) -> Result<usize> {
        self.shared.metrics().note(self.delete_app_now(app, streams, holders, effect).await)
    }

    async fn delete_app_now(
        &self,
        app: &AppName,
        streams: &[StreamKey],
        holders: Holders,
        effect: Effect,
    ) -> Result<usize> {
        self.shared.check_open()?;
        let cores = streams.iter().map(|stream| self.registry.get(stream)).collect::<Result<Vec<_>>>()?;
        let slot = self.metadata.reserve().await?;
        let (count, commit) = {
            let (now, mut rows) = (self.now(), self.rows.lock());
            let of_app: Vec<_> = cores.iter().map(|core| (core.incarnation(), app.clone())).collect();
            let mut changes = Vec::new();
            for key in &of_app {
                let Some(taken) = rows.get(key) else { continue };
                if (holders, effect) == (Holders::Respect, Effect::Apply) {
                    check_unheld(taken.iter().map(|(shard, row)| (*shard, row)), now)?;
                }
                changes.extend(taken.keys().map(|shard| (stored::key(key.0, app, *shard), None)));
            }
            if changes.is_empty() {
                let message = format!("application {app} has no leases there");
                return Err(Error::new(ErrorKind::NotFound, message));
            }
            if effect == Effect::Rehearse {
                return Ok(changes.len());
            }
            of_app.iter().for_each(|key| drop(rows.remove(key)));
            (changes.len(), slot.send(Batch { conditions: Vec::new(), changes }))
        };
        durable(commit).await?;
        Ok(count)
    }
}

/// The checkpoint that each shard concerned is to have.
async fn targets(
    shared: &Shared,
    core: &Arc<StreamCore>,
    to: Position,
) -> Result<BTreeMap<ShardId, Checkpoint>> {
    if let Position::At(number) | Position::After(number) = to
        && let Err(problem) = (Stream { core: Arc::clone(core) }).check_number(number.shard(), &number)
    {
        let message = format!("{number} is no place in stream {}: {problem}", core.key());
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    let set = core.shard_set();
    let shards: Vec<_> = set.shards().cloned().collect();
    let placed = move || {
        let goals = reset::goals(&shards, to).into_iter();
        let with_log = goals.filter_map(|(shard, goal)| Some((shard, set.get(shard)?, goal)));
        with_log.map(|(shard, handle, goal)| Ok((shard, reset::place(handle, goal)?))).collect()
    };
    shared.blocking("a look for positions", placed).await
}

fn told(
    shard: ShardId,
    known: Option<&BTreeMap<ShardId, Row>>,
    targets: &BTreeMap<ShardId, Checkpoint>,
    now: MonotonicMs,
) -> ResetRow {
    let row = known.and_then(|known| known.get(&shard));
    let before = row.map(|row| row.checkpoint);
    let after = targets.get(&shard).copied().or(before);
    ResetRow { shard, before, after, owner: row.and_then(|row| row.holder(now)).cloned() }
}
