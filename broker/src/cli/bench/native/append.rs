//! Appending over one call: a closed loop of requests that are ready, and an open loop of records when they are due.
//!
//! The id of a request is when it began, so that its answer tells its latency.

use super::super::bare::{self, Answer, Answers};
use super::super::load::{Stamp, noise};
use super::super::meter::Meter;
use super::super::pace::Lane;
use super::super::tasks::{Refusal, Refusals, note};
use super::frames::Frames;
use crate::error::{Error, Result};
use std::sync::Arc;
use std::time::Duration;
use tidemill_proto::client::Channel;
use tidemill_proto::v1::AppendRequest;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Requests of an open loop that the connection has not taken yet.
const WAITING_MAX: usize = 1024;

/// Ids that rise, and are times.
struct Ids {
    run_began: Instant,
    last: u64,
}

impl Ids {
    fn new(run_began: Instant) -> Self {
        Self { run_began, last: 0 }
    }
    fn next(&mut self, began: Instant) -> u64 {
        let ns = began.saturating_duration_since(self.run_began).as_nanos();
        self.last = u64::try_from(ns).unwrap_or(u64::MAX).max(self.last + 1);
        self.last
    }
}

fn began(run_began: Instant, id: u64) -> Instant {
    run_began + Duration::from_nanos(id)
}

/// Keeps so many requests in flight until the window is over; returns when all is answered.
pub(super) async fn closed_loop(
    channel: Channel,
    requests: Vec<AppendRequest>,
    in_flight: usize,
    mut meter: Meter,
) -> Result<Meter> {
    let run_began = meter.window().begins();
    let (sender, mut answers) = bare::append(&channel, in_flight).await?;
    let mut sender = Some(sender);
    let mut ids = Ids::new(run_began);
    let mut refusals = Refusals::default();
    let mut turn = requests.iter().cycle();
    let (mut unanswered, mut due) = (0_u64, in_flight);
    loop {
        if meter.window().is_over() {
            sender = None;
        }
        while due > 0 {
            let (Some(open), Some(request)) = (&sender, turn.next()) else { break };
            due -= 1;
            unanswered += 1;
            let request = AppendRequest { request_id: ids.next(Instant::now()), ..request.clone() };
            if open.send(request).await.is_err() {
                // the call broke; its answers tell why
                sender = None;
            }
        }
        let Some(answer) = answers.next().await? else { break };
        unanswered = unanswered.saturating_sub(1);
        due += 1;
        match taken(answer) {
            Ok((id, records)) => {
                refusals.none();
                meter.done(began(run_began, id), records);
            }
            Err(why) => refusals.another(&mut meter, why).await?,
        }
    }
    all_answered(meter, unanswered)
}

/// Appends a record whenever one is due; returns when all is answered.
pub(super) async fn open_loop(
    channel: Channel,
    frames: Arc<Frames>,
    mut lane: Lane,
    record_bytes: u32,
    meter: Meter,
) -> Result<Meter> {
    let run_began = meter.window().begins();
    let (sender, answers) = bare::append(&channel, WAITING_MAX).await?;
    let mut unsent = Meter::new(Arc::clone(meter.window()));
    let answered = tokio::spawn(settle(answers, run_began, meter));
    let sent = send(sender, &frames, &mut lane, record_bytes, &mut unsent).await;
    let (answers, mut meter) =
        answered.await.map_err(|e| Error::because("counting the answers broke off", e))??;
    meter.add(&unsent);
    all_answered(meter, sent.saturating_sub(answers))
}

/// How many were sent.
async fn send(
    sender: mpsc::Sender<AppendRequest>,
    frames: &Frames,
    lane: &mut Lane,
    record_bytes: u32,
    unsent: &mut Meter,
) -> u64 {
    let run_began = unsent.window().begins();
    let mut ids = Ids::new(run_began);
    let mut data = noise(record_bytes as usize);
    // lanes begin at different shards
    let mut turn = rand::random_range(0..frames.shards());
    let mut sent = 0;
    while let Some(due) = lane.next(unsent).await {
        turn = turn.wrapping_add(1);
        let request = frames.stamped(turn, Stamp::new(run_began, due), &mut data);
        if sender.send(AppendRequest { request_id: ids.next(due), ..request }).await.is_err() {
            break;
        }
        sent += 1;
    }
    sent
}

async fn settle(mut answers: Answers, run_began: Instant, mut meter: Meter) -> Result<(u64, Meter)> {
    let mut answered = 0;
    while let Some(answer) = answers.next().await? {
        answered += 1;
        match taken(answer) {
            Ok((id, records)) => meter.done_since(began(run_began, id), records),
            Err(why) => note(&mut meter, &why),
        }
    }
    Ok((answered, meter))
}

fn taken(answer: Answer) -> std::result::Result<(u64, u64), Refusal> {
    match answer {
        Answer::Stored { request_id, records } => Ok((request_id, records)),
        Answer::Throttled(why) => Err(Refusal::Throttled(why)),
        Answer::Failed(why) => Err(Refusal::Failed(why)),
    }
}

fn all_answered(meter: Meter, unanswered: u64) -> Result<Meter> {
    match unanswered {
        0 => Ok(meter),
        some => Err(Error::failed(format!("the broker ended the call with {some} batches unanswered"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_id_is_a_time_and_never_comes_twice() {
        let run_began = Instant::now();
        let mut ids = Ids::new(run_began);
        let at = run_began + Duration::from_nanos(7);
        assert_eq!([ids.next(at), ids.next(at), ids.next(run_began)], [7, 8, 9]);
        assert_eq!(began(run_began, 7), at);
    }
}
