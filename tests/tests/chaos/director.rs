//! The director: strikes one process after the other, as a seed has it, and lets each come back.
//!
//! Blows are dealt from a shuffled deck, so that each kind comes soon and none rules. Of some kills of a worker the time to
//! the next owner is measured: before and after these nothing else happens to workers and broker.

use crate::LEASE;
use crate::fleet::{Post, Process, Seat, producer, worker};
use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use std::fmt;
use std::path::Path;
use std::time::Duration;
use tidemill_tests::Broker;
use tidemill_tests::chaos::{History, Kill, monotonic_ns};
use tokio::time::{Instant, sleep};

const WORKERS: usize = 4;
const PRODUCERS: usize = 2;
const TICK: Duration = Duration::from_millis(25);
/// Workers that are down or paused at a time, at most.
const AWAY_MAX: usize = 2;
const BETWEEN_MS: std::ops::Range<u64> = 200..1400;
const DOWN_MS: std::ops::Range<u64> = 0..1500;

#[derive(Debug, Clone, Copy)]
enum Blow {
    KillWorker,
    PauseWorker,
    StopWorker,
    KillProducer,
    KillBroker,
    MeasuredKill,
}

const DECK: [(Blow, usize); 6] = [
    (Blow::KillWorker, 3),
    (Blow::PauseWorker, 3),
    (Blow::StopWorker, 3),
    (Blow::KillProducer, 3),
    (Blow::KillBroker, 1),
    (Blow::MeasuredKill, 1),
];

/// How often each was struck.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Blows {
    workers_killed: u32,
    workers_paused: u32,
    workers_stopped: u32,
    producers_killed: u32,
    brokers_killed: u32,
}

impl Blows {
    pub(crate) fn all_kinds(&self) -> bool {
        let all = [self.workers_killed, self.workers_paused, self.workers_stopped, self.producers_killed];
        all.iter().all(|count| *count > 0) && self.brokers_killed > 0
    }
}

impl fmt::Display for Blows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { workers_killed, workers_paused, workers_stopped, producers_killed, brokers_killed } = self;
        write!(
            f,
            "workers {workers_killed} times killed, {workers_paused} paused, {workers_stopped} stopped, producers \
             {producers_killed} and the broker {brokers_killed} times killed"
        )
    }
}

pub(crate) struct Director {
    rng: StdRng,
    post: Post,
    /// Always there but while it is restarted.
    broker: Option<Broker>,
    seats: Vec<Seat>,
    producers: Vec<Process>,
    runs: u32,
    blows: Blows,
    history: History,
}

impl Director {
    /// Starts all workers and producers.
    pub(crate) fn start(broker: Broker, logs: &Path, seed: u64) -> Result<Self> {
        let post = Post { endpoint: broker.url(), logs: logs.to_owned() };
        let seats = (0..WORKERS).map(|seat| Ok(Seat::Up(worker(&post, seat, 0)?))).collect::<Result<_>>()?;
        let producers = (0..PRODUCERS).map(|seat| producer(&post, seat, 0)).collect::<Result<_>>()?;
        let (rng, blows) = (StdRng::seed_from_u64(seed), Blows::default());
        Ok(Self {
            rng,
            post,
            broker: Some(broker),
            seats,
            producers,
            runs: 0,
            blows,
            history: History::default(),
        })
    }

    /// Strikes for so long.
    pub(crate) async fn strike(&mut self, time: Duration) -> Result<()> {
        let over = Instant::now() + time;
        let mut deck = Vec::new();
        self.pass(LEASE).await?;
        while Instant::now() < over {
            let Some(blow) = deck.pop() else {
                deck = DECK.iter().flat_map(|(blow, count)| vec![*blow; *count]).collect();
                deck.shuffle(&mut self.rng);
                continue;
            };
            self.deal(blow).await.with_context(|| format!("{blow:?}"))?;
            let between = Duration::from_millis(self.rng.random_range(BETWEEN_MS));
            self.pass(between).await?;
        }
        Ok(())
    }

    async fn deal(&mut self, blow: Blow) -> Result<()> {
        match blow {
            Blow::KillWorker => self.kill_worker().await.map(drop),
            Blow::PauseWorker => {
                let seat = self.someone().await?;
                let time = LEASE.mul_f64(self.rng.random_range(1.25..2.0));
                self.blows.workers_paused += 1;
                self.seats[seat].pause(Instant::now() + time).await
            }
            Blow::StopWorker => {
                let (seat, until) = (self.someone().await?, self.back_at());
                self.blows.workers_stopped += 1;
                match self.seats[seat].vacate(until) {
                    Some(process) => process.stop().await,
                    None => Ok(()),
                }
            }
            Blow::KillProducer => {
                let seat = self.rng.random_range(0..PRODUCERS);
                self.runs += 1;
                self.blows.producers_killed += 1;
                self.producers[seat].running.kill_9().await?;
                self.producers[seat] = producer(&self.post, seat, self.runs)?;
                Ok(())
            }
            Blow::KillBroker => {
                let mut broker = self.broker.take().context("there is a broker")?;
                self.blows.brokers_killed += 1;
                broker.kill_9().await?;
                self.broker = Some(broker.restart().await?);
                Ok(())
            }
            Blow::MeasuredKill => self.measured_kill().await,
        }
    }

    /// Kills a worker; tells when, and its name.
    async fn kill_worker(&mut self) -> Result<Option<Kill>> {
        let (seat, until) = (self.someone().await?, self.back_at());
        let Some(mut process) = self.seats[seat].vacate(until) else { return Ok(None) };
        self.blows.workers_killed += 1;
        let at = monotonic_ns();
        process.running.kill_9().await?;
        Ok(Some(Kill { worker: process.name, at }))
    }

    async fn measured_kill(&mut self) -> Result<()> {
        self.all_up().await?;
        self.pass(LEASE.mul_f64(1.5)).await?;
        let kill = self.kill_worker().await?;
        if let Some(seat) = self.seats.iter_mut().find(|seat| !seat.is_up()) {
            *seat = Seat::Down { until: Instant::now() + LEASE * 2 };
        }
        self.pass(LEASE * 2).await?;
        self.history.kills.extend(kill);
        Ok(())
    }

    fn back_at(&mut self) -> Instant {
        Instant::now() + Duration::from_millis(self.rng.random_range(DOWN_MS))
    }

    /// A worker that is up; waits until enough are.
    async fn someone(&mut self) -> Result<usize> {
        while self.seats.iter().filter(|seat| !seat.is_up()).count() >= AWAY_MAX {
            self.pass(TICK).await?;
        }
        let up: Vec<usize> = (0..WORKERS).filter(|seat| self.seats[*seat].is_up()).collect();
        Ok(up[self.rng.random_range(0..up.len())])
    }

    async fn all_up(&mut self) -> Result<()> {
        while !self.seats.iter().all(Seat::is_up) {
            self.pass(TICK).await?;
        }
        Ok(())
    }

    /// Lets time pass; who is to come back comes back.
    async fn pass(&mut self, time: Duration) -> Result<()> {
        let over = Instant::now() + time;
        loop {
            let now = Instant::now();
            self.producers.iter_mut().try_for_each(Process::must_run)?;
            for seat in 0..WORKERS {
                self.history.pauses.extend(self.seats[seat].resume(now)?);
                if self.seats[seat].is_due(now) {
                    self.runs += 1;
                    self.seats[seat] = Seat::Up(worker(&self.post, seat, self.runs)?);
                }
            }
            if now >= over {
                return Ok(());
            }
            sleep(TICK.min(over - now)).await;
        }
    }

    /// Brings all workers back and ends the producers in order: what they have put is then acknowledged.
    pub(crate) async fn calm_down(&mut self) -> Result<()> {
        self.all_up().await?;
        for process in self.producers.drain(..) {
            process.stop().await?;
        }
        Ok(())
    }

    /// Ends the workers in order.
    pub(crate) async fn end(mut self) -> Result<(Broker, Blows, History)> {
        self.all_up().await?;
        for seat in &mut self.seats {
            if let Some(process) = seat.vacate(Instant::now()) {
                process.stop().await?;
            }
        }
        Ok((self.broker.take().context("there is a broker")?, self.blows, self.history))
    }
}
