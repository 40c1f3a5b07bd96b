//! Runs a worker: looks at the leases, takes its share, runs a task for each shard held, and stops in order.
//!
//! ```text
//!  round, every third of the lease time, when a lease is about to run out, a shard has ended, or one is to be handed over:
//!      list ─► which are ready (lineage) ─► plan (assign, claims) ─► ask, take ─► a shard task for each taken
//!  in between: tasks that ended are cleared away; asked to stop: all tasks stop, each gives its lease back
//! ```
//!
//! It owns everything of the worker that changes, except the leases themselves, which are renewed on a task of their own
//! until the last shard task has ended. Not here: what is done with a shard (shard_task).

use crate::checkpoint::Checkpointer;
use crate::claims::{Claims, claims};
use crate::error::{Error, ErrorKind, Result};
use crate::fetch::{Reading, Source};
use crate::hold::Hold;
use crate::leases::Leases;
use crate::look::{Look, Rows, look};
use crate::metrics::{LeaseMeters, ShardMeters};
use crate::outlook::Outlook;
use crate::place::ReadFrom;
use crate::processor::{RecordProcessor, Start};
use crate::service::Holder;
use crate::settings::Settings;
use crate::shard::ShardRef;
use crate::shard_task::{Desk, ShardExit, ShardTask};
use crate::status::{ShardBoard, WorkerBoard};
use crate::store::{Ask, LeaseRow, Take};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// How long the first answer of the service may take.
const FIRST_CONTACT_DEADLINE: Duration = Duration::from_secs(10);
/// Leases asked for at the same time.
const TAKES_AT_ONCE: usize = 32;
/// Rounds are at least this far apart.
const ROUND_INTERVAL_MIN: Duration = Duration::from_millis(50);
/// Time between rounds while a lease is being handed over to this worker, unless a tenth of the lease time is shorter.
const HANDOFF_INTERVAL: Duration = Duration::from_millis(250);

pub(crate) struct Supervisor<F> {
    settings: Settings,
    factory: F,
    board: Arc<WorkerBoard>,
    stop: CancellationToken,
    source: Arc<dyn Source>,
    leases: Arc<Leases>,
    /// Shards under work, each by one task.
    running: BTreeMap<ShardRef, Arc<Hold>>,
    tasks: JoinSet<(ShardRef, ShardExit)>,
    /// Shards whose processor panicked: not to be taken before, and what it said.
    resting: BTreeMap<ShardRef, (Instant, String)>,
    /// Leases that were seen free, since when.
    free_since: BTreeMap<ShardRef, Instant>,
    outlook: Outlook,
    progress: Arc<Notify>,
    rng: StdRng,
}

impl<P, F> Supervisor<F>
where
    P: RecordProcessor,
    F: FnMut(&ShardRef) -> P + Send + 'static,
{
    pub(crate) fn new(
        settings: Settings,
        factory: F,
        board: Arc<WorkerBoard>,
        stop: CancellationToken,
    ) -> Self {
        let mut rng = StdRng::seed_from_u64(settings.seed);
        let source = settings.source.make(rng.random());
        let (app, worker) = (settings.app.clone(), settings.worker.clone());
        let meters = LeaseMeters::new(&app, &worker);
        let store = settings.store.make(&source, Holder { app, worker, lease: settings.lease });
        Self {
            leases: Arc::new(Leases::new(store, meters)),
            source,
            outlook: Outlook::new(settings.lease),
            rng,
            settings,
            factory,
            board,
            stop,
            running: BTreeMap::new(),
            tasks: JoinSet::new(),
            resting: BTreeMap::new(),
            free_since: BTreeMap::new(),
            progress: Arc::new(Notify::new()),
        }
    }

    pub(crate) async fn run(mut self) -> Result<()> {
        // its end with this function is the end of renewing
        let mut renewing = JoinSet::new();
        let leases = Arc::clone(&self.leases);
        renewing.spawn(async move { leases.keep_renewing().await });
        let worked = self.work().await;
        while let Some(ended) = self.tasks.join_next().await {
            self.clear_away(ended);
        }
        info!(worker = %self.settings.worker, "worker ended");
        worked
    }

    async fn work(&mut self) -> Result<()> {
        let begun = Instant::now();
        let mut contacted = false;
        let mut next_round = begun;
        let (stop, progress) = (self.stop.clone(), Arc::clone(&self.progress));
        let streams = Arc::clone(&self.settings.streams);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                Some(ended) = self.tasks.join_next() => {
                    if self.clear_away(ended) {
                        next_round = next_round.min(Instant::now() + ROUND_INTERVAL_MIN);
                    }
                }
                () = progress.notified() => {}
                () = streams.changed() => {
                    self.outlook.unsettle();
                    next_round = Instant::now();
                }
                () = sleep_until(next_round) => {
                    next_round = Instant::now() + match self.round().await {
                        Ok(wait) => {
                            contacted = true;
                            wait
                        }
                        Err(error) if self.is_final(&error, contacted, begun.elapsed()) => return Err(self.told(error)),
                        Err(error) => self.trouble(&error, contacted),
                    };
                }
            }
            if contacted && self.outlook.is_caught_up(self.running.is_empty(), self.board.all_caught_up()) {
                self.board.caught_up();
                if self.settings.until_caught_up {
                    self.stop.cancel();
                    return Ok(());
                }
            }
        }
    }

    /// Whether a failed round is the end of the worker.
    fn is_final(&self, error: &tidemill_proto::Error, contacted: bool, elapsed: Duration) -> bool {
        let kind = Error::from(error.clone()).kind();
        if contacted {
            return kind == ErrorKind::NotFound && self.settings.until_caught_up;
        }
        kind != ErrorKind::Unavailable || elapsed > FIRST_CONTACT_DEADLINE
    }

    fn told(&self, error: tidemill_proto::Error) -> Error {
        let told = Error::from(error);
        if told.kind() != ErrorKind::Unavailable {
            return told;
        }
        let source = &self.settings.source;
        Error::new(told.kind(), format!("no answer from {source}: {told}; is it running?"))
    }

    /// A round failed; tells, and says when to try again.
    fn trouble(&self, error: &tidemill_proto::Error, contacted: bool) -> Duration {
        let told = if contacted {
            format!("cannot look at the leases, trying again: {error}")
        } else {
            let source = &self.settings.source;
            format!("no answer from {source} yet, waiting up to {FIRST_CONTACT_DEADLINE:?} for it: {error}")
        };
        if self.board.status().trouble.is_none() {
            warn!(worker = %self.settings.worker, "{told}");
        }
        self.board.trouble(Some(told));
        (self.settings.lease / 6).min(Duration::from_secs(1))
    }

    /// Looks at all leases and takes the share of this worker. Returns when to look again.
    async fn round(&mut self) -> Result<Duration, tidemill_proto::Error> {
        let stop = self.stop.clone();
        let wanted = self.settings.streams.all();
        // what is no longer wanted is given back in order
        self.running
            .iter()
            .filter(|(at, _)| !wanted.contains_key(at.stream()))
            .for_each(|(_, hold)| hold.ask());
        let Look { rows, missing } = tokio::select! {
            () = stop.cancelled() => return Ok(Duration::ZERO),
            looked = look(&self.leases, &wanted) => looked?,
        };
        if let Some(missing) = missing.clone().filter(|_| !self.outlook.has_looked()) {
            return Err(missing);
        }
        let now = Instant::now();
        self.resting.retain(|_, (until, _)| *until > now);
        let panicked =
            self.resting.iter().map(|(at, (_, told))| format!("{at}: the processor panicked: {told}")).next();
        self.board.trouble(missing.map(|error| error.message().to_owned()).or(panicked));
        self.free_since.retain(|shard, _| rows.get(shard).is_some_and(|(row, _)| !row.is_held()));
        let Claims { mut take, ask, waits_for_handoff } = self.claim(&rows, now);
        take.retain(|take| !self.running.contains_key(&take.at) && !self.resting.contains_key(&take.at));
        take.truncate(self.settings.leases_max.saturating_sub(self.running.len()));
        let (wanted, held_before) = (take.len(), self.running.len());
        let unheld = self.take_all(take).await;
        ask_all(Arc::clone(&self.leases), ask).await;
        if wanted > 0 {
            let (taken, held) = (self.running.len() - held_before, self.running.len());
            info!(worker = %self.settings.worker, taken, held, "leases taken");
        }
        let room = self.settings.leases_max > self.running.len();
        let unclaimed = room && rows.iter().any(|(shard, (row, _))| self.is_claimable(shard, row));
        self.outlook.note(&rows, &self.settings.worker, unheld || unclaimed);
        Ok(self.until_next_round(&rows, waits_for_handoff))
    }

    /// Whether a lease is there to be taken and was not.
    fn is_claimable(&self, shard: &ShardRef, row: &LeaseRow) -> bool {
        let mine = row.owner.as_ref() == Some(&self.settings.worker);
        (!row.is_held() || mine) && !self.running.contains_key(shard)
    }

    /// Which leases to take and to ask for now.
    fn claim(&mut self, rows: &Rows, now: Instant) -> Claims {
        let settings = &self.settings;
        let terms = settings.terms();
        let running = &self.running;
        let works_on = |shard: &ShardRef, row: &LeaseRow| {
            running.get(shard).is_some_and(|hold| hold.epoch() == row.epoch && hold.is_held())
        };
        let claims = claims(rows, &terms, &mut self.free_since, now, works_on);
        if !claims.ask.is_empty() {
            info!(worker = %settings.worker, leases = claims.ask.len(), "asking other workers for leases, for an even share");
        }
        claims
    }

    /// Takes leases and starts their tasks. Returns whether any was not to be had.
    async fn take_all(&mut self, picks: Vec<Take>) -> bool {
        let mut missed = false;
        for picks in picks.chunks(TAKES_AT_ONCE) {
            let mut taking = JoinSet::new();
            for take in picks.iter().cloned() {
                let leases = Arc::clone(&self.leases);
                taking.spawn(async move {
                    let taken = leases.take(&take).await;
                    (take, taken)
                });
            }
            while let Some(taken) = taking.join_next().await {
                match taken {
                    Ok((take, Ok(Some((hold, row))))) => self.begin(take, hold, &row),
                    Ok((take, Ok(None))) => {
                        debug!(shard = %take.at, "another worker was faster");
                        missed = true;
                    }
                    Ok((take, Err(error))) => {
                        warn!(shard = %take.at, %error, "lease not taken, trying again");
                        missed = true;
                    }
                    Err(broken) => warn!(%broken, "lease not taken, trying again"),
                }
            }
            if self.stop.is_cancelled() {
                break;
            }
        }
        missed
    }

    fn begin(&mut self, take: Take, hold: Arc<Hold>, row: &LeaseRow) {
        let Take { at, initial, .. } = take;
        let Some(stream_begins) = self.settings.streams.initial(at.stream()) else {
            // removed while the lease was taken: whoever wants it takes it when it has run out
            return self.leases.forget(&hold);
        };
        let from = row.checkpoint.unwrap_or(initial);
        debug!(worker = %self.settings.worker, shard = %at, epoch = %hold.epoch(), ?from, "lease taken");
        let store = Arc::clone(self.leases.store());
        let checkpointer = Checkpointer::new(Arc::clone(&store), Arc::clone(&hold), from);
        let board = Arc::new(ShardBoard::new(checkpointer.clone(), Arc::clone(&self.progress)));
        self.board.add(at.clone(), Arc::clone(&board));
        let reader = self.source.read(Reading {
            at: at.clone(),
            shard: row.shard.clone(),
            from: ReadFrom::behind(from, stream_begins.time()),
            misrouted: self.settings.misrouted,
            batch_bytes: self.settings.batch_bytes,
            prefetch_bytes: self.settings.prefetch_bytes,
            board: Arc::clone(&board),
            seed: self.rng.random(),
        });
        let desk = Desk {
            start: Start { shard: at.clone(), from, pending: row.pending.clone(), epoch: hold.epoch() },
            app: self.settings.app.clone(),
            worker: self.settings.worker.clone(),
            hold: Arc::clone(&hold),
            store,
            checkpointer,
            checkpointing: self.settings.checkpointing,
            on_failure: self.settings.on_failure.clone(),
            board,
            meters: ShardMeters::new(&self.settings.app, &at),
            stop: self.stop.clone(),
            seed: self.rng.random(),
        };
        let processor = (self.factory)(&at);
        self.running.insert(at, Arc::clone(&hold));
        let task = ShardTask::new(desk, processor, reader);
        self.tasks.spawn(attend(task, hold, Arc::clone(&self.leases)));
    }

    /// Notes the end of a shard task. Returns whether a new round is due at once.
    fn clear_away(&mut self, ended: Result<(ShardRef, ShardExit), JoinError>) -> bool {
        let Ok((at, exit)) = ended else { return true }; // only when aborted together with this worker
        self.running.remove(&at);
        self.board.remove(&at);
        let worker = &self.settings.worker;
        match exit {
            ShardExit::Ended => {
                info!(%worker, shard = %at, "shard processed to its end");
                self.outlook.unsettle();
                return true;
            }
            ShardExit::LeaseLost => info!(%worker, shard = %at, "lease lost"),
            ShardExit::Stopped => {
                debug!(%worker, shard = %at, "lease given back");
            }
            ShardExit::Gone(error) => {
                warn!(%worker, shard = %at, %error, "shard is gone, lease given up");
                self.board.trouble(Some(format!("{at}: {error}")));
            }
            ShardExit::Panicked(told) => {
                warn!(%worker, shard = %at, told, "processor panicked, lease given back");
                self.board.trouble(Some(format!("{at}: the processor panicked: {told}")));
                self.resting.insert(at, (Instant::now() + self.settings.lease, told));
            }
        }
        self.outlook.unsettle();
        false
    }

    /// A third of the lease time, a little varied, or when the first lease of another worker runs out; sooner while one is
    /// being handed over.
    fn until_next_round(&mut self, rows: &Rows, waits_for_handoff: bool) -> Duration {
        let others = rows.values().filter(|(row, _)| row.owner.as_ref() != Some(&self.settings.worker));
        let soonest = others.map(|(row, _)| row.expires_in_ms).filter(|ms| *ms > 0).min();
        let regular = (self.settings.lease / 3).mul_f64(self.rng.random_range(0.85..=1.0));
        let soonest = soonest.map_or(regular, |ms| Duration::from_millis(ms + 5));
        let handoff = HANDOFF_INTERVAL.min(self.settings.lease / 10);
        let handoff = if waits_for_handoff { handoff } else { regular };
        regular.min(soonest).min(handoff).max(ROUND_INTERVAL_MIN)
    }
}

/// Asks for leases; what cannot be asked now is looked at again in the next round.
async fn ask_all(leases: Arc<Leases>, asks: Vec<Ask>) {
    for asks in asks.chunks(TAKES_AT_ONCE) {
        let mut asking = JoinSet::new();
        for ask in asks.iter().cloned() {
            let leases = Arc::clone(&leases);
            asking.spawn(async move {
                match leases.ask(&ask).await {
                    Ok(asked) => debug!(shard = %ask.at, asked, "lease asked for"),
                    Err(error) => debug!(shard = %ask.at, %error, "lease not asked for, trying again"),
                }
            });
        }
        while asking.join_next().await.is_some() {}
    }
}

/// Runs a shard task to its end, whatever end that is, and gives the lease back.
async fn attend<P: RecordProcessor>(
    task: ShardTask<P>,
    hold: Arc<Hold>,
    leases: Arc<Leases>,
) -> (ShardRef, ShardExit) {
    // a task of its own, so that a panic of the processor stays in it
    let mut inner = JoinSet::new();
    inner.spawn(task.run());
    let exit = match inner.join_next().await {
        Some(Ok(exit)) => exit,
        Some(Err(error)) => ShardExit::Panicked(tell_panic(error)),
        None => ShardExit::Stopped,
    };
    leases.give_back(&hold).await;
    (hold.at().clone(), exit)
}

fn tell_panic(error: JoinError) -> String {
    let Ok(panic) = error.try_into_panic() else { return "aborted".to_owned() };
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic.downcast_ref::<&str>().map_or("without a message", |text| text).to_owned(),
    }
}
