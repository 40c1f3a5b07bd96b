//! The source that is a broker of ours: follows one shard by its server-streaming read, on a task of its own.
//!
//! ```text
//!  ─► call Read(position) ─► answer ─► wait for room in the buffer ─► hand over ─► next answer …
//!        ▲                      │                                                    │
//!        └── back off ◄─────────┴── broken, damaged, silent ◄────────────────────────┴─► end of shard; stream gone
//! ```
//!
//! After a break it goes on behind the last record handed over: within a lease nothing is lost or delivered twice. A full
//! buffer stops the reading of answers, and HTTP/2 flow control then stops the broker. Not here: who reads which shard.

use super::connections::Connections;
use super::{Fetched, NobodyReads, Outlet, Page, Reader, Reading, Source};
use crate::place::{Checkpoint, ReadFrom};
use crate::record::{Batch, Lens};
use crate::shard::ShardInfo;
use crate::store::Answer;
use parking_lot::Mutex;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::sync::Arc;
use std::time::Duration;
use tidemill_proto::client::{Backoff, Channel, Control, Endpoint};
use tidemill_proto::convert::required;
use tidemill_proto::{Error, ErrorKind, v1};
use tidemill_types::{
    AnySequenceNumber, Frame, Frames, Position, SequenceIndex, SequenceNumber, Shard, StreamName, TimestampMs,
};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};

const OPEN_DEADLINE: Duration = Duration::from_secs(10);
/// Silence after which the call is made anew, in case the broker forgot about it.
const SILENCE_MAX: Duration = Duration::from_secs(60);
const BACKOFF: Backoff =
    Backoff { base: Duration::from_millis(50), cap: Duration::from_secs(5), attempts_max: u32::MAX };
/// Failures in a row before a person is told.
const QUIET_FAILURES: u32 = 3;

/// A broker.
#[derive(Debug)]
pub(crate) struct BrokerSource {
    control: Control,
    connections: Mutex<Connections>,
}

impl BrokerSource {
    /// `seed` feeds the pauses.
    pub(crate) fn new(endpoint: Endpoint, channel: Channel, seed: u64) -> Self {
        let control = Control::new(channel, seed);
        Self { control, connections: Mutex::new(Connections::new(endpoint)) }
    }
}

impl Source for BrokerSource {
    fn shards<'a>(&'a self, stream: &'a StreamName) -> Answer<'a, Vec<ShardInfo>> {
        Box::pin(async move {
            let list = self.control.list_shards(stream).await?;
            Ok(list.shards.iter().map(ShardInfo::from).collect())
        })
    }

    fn read(&self, reading: Reading) -> Reader {
        let connection = self.connections.lock().connection();
        Reader::start(reading.prefetch_bytes, |outlet| {
            let next = Next::Start(reading.from);
            Pump { reading, connection, outlet, shard: None, next, answered: false }.run()
        })
    }
}

/// Where to go on.
#[derive(Debug, Clone, Copy)]
enum Next {
    Start(ReadFrom),
    Index(SequenceIndex),
}

/// Why one call ended.
enum CallEnd {
    /// Nothing more is to be read, or nobody reads any more.
    Finished,
    Broken(Error),
}

struct Pump {
    reading: Reading,
    connection: Arc<Channel>,
    outlet: Outlet,
    /// As the broker told it in its first answer.
    shard: Option<Shard>,
    next: Next,
    /// Whether the call under way has answered.
    answered: bool,
}

impl Pump {
    async fn run(mut self) {
        let mut rng = StdRng::seed_from_u64(self.reading.seed);
        let mut failures = 0;
        loop {
            self.answered = false;
            let error = match self.call().await {
                Ok(CallEnd::Finished) => return,
                Ok(CallEnd::Broken(error)) | Err(error) => error,
            };
            if error.kind() == ErrorKind::NotFound {
                let _ = self.outlet.put(Fetched::Gone(error)).await; // nobody reads: nobody needs to know
                return;
            }
            failures = if self.answered { 1 } else { failures + 1 };
            let shard = &self.reading.at;
            if failures == QUIET_FAILURES || error.kind() == ErrorKind::Damaged {
                warn!(%shard, failures, %error, "cannot read the shard, trying again");
            } else {
                debug!(%shard, failures, %error, "read broken off, trying again");
            }
            if failures >= QUIET_FAILURES || error.kind() == ErrorKind::Damaged {
                self.reading.board.troubled(format!("reading: {error}"));
            }
            sleep(BACKOFF.wait(failures, &mut rng)).await;
        }
    }

    async fn call(&mut self) -> Result<CallEnd, Error> {
        let silent =
            |what: Duration| Error::new(ErrorKind::UnknownOutcome, format!("nothing came for {what:?}"));
        let opened = timeout(OPEN_DEADLINE, self.connection.read(self.request()?)).await;
        let mut answers = opened.map_err(|_| silent(OPEN_DEADLINE))??;
        loop {
            let answer = timeout(SILENCE_MAX, answers.message()).await.map_err(|_| silent(SILENCE_MAX))??;
            let Some(answer) = answer else {
                return Ok(CallEnd::Broken(Error::new(ErrorKind::Unavailable, "the broker ended the call")));
            };
            if let Some(end) = self.hand_over(answer).await? {
                return Ok(end);
            }
        }
    }

    fn request(&self) -> Result<v1::ReadRequest, Error> {
        let position = match self.next {
            Next::Start(from) => position(from)?,
            Next::Index(SequenceIndex::ZERO) => Position::TrimHorizon,
            Next::Index(next) => Position::After(self.number_before(next)?),
        };
        Ok(v1::ReadRequest {
            stream: self.reading.at.stream().to_string(),
            shard: self.reading.at.shard().get(),
            position: Some(position.into()),
            max_bytes: self.reading.batch_bytes,
            stop_at_tip: false,
        })
    }

    fn number_before(&self, index: SequenceIndex) -> Result<SequenceNumber, Error> {
        let shard = self.shard.as_ref();
        let shard =
            shard.ok_or_else(|| Error::new(ErrorKind::Internal, "the broker did not tell the shard"))?;
        Ok(last_number_below(shard, index))
    }

    /// Checks an answer, waits for room and hands it over.
    async fn hand_over(&mut self, answer: v1::ReadResponse) -> Result<Option<CallEnd>, Error> {
        let received = Instant::now();
        let bytes = answer.frames.len();
        let frames = Frames::new(answer.frames).collect::<Result<Vec<Frame>, _>>();
        let frames = frames
            .map_err(|error| Error::new(ErrorKind::Damaged, format!("records arrived damaged: {error}")))?;
        if let Some(shard) = answer.shard {
            self.shard = Some(shard.try_into()?);
        }
        let created = required(self.shard.as_ref(), "shard")?.created;
        let mut from = SequenceIndex::new(answer.from_index)?;
        if let Next::Start(start) = self.next
            && self.outlet.put(Fetched::Begun(self.anchor(start, from)?)).await.is_err()
        {
            return Ok(Some(CallEnd::Finished));
        }
        if let Next::Index(next) = self.next {
            from = from.max(next);
        }
        let end_of_frames = frames.last().map_or(from, |frame| frame.header().next());
        self.next = Next::Index(SequenceIndex::new(answer.next_index)?.max(end_of_frames).max(from));
        self.answered = true;
        let room = self.outlet.room(bytes).await;
        let lens = Lens::new(self.reading.at.clone(), &self.reading.shard, self.reading.misrouted);
        let batch = Batch::of_frames(lens, created, frames, from, behind(self.reading.from));
        let children = answer.children.into_iter().map(|child| Ok(ShardInfo::from(&Shard::try_from(child)?)));
        let children = children.collect::<Result<Vec<_>, Error>>()?;
        let end_of_shard = answer.end_of_shard.then_some(children);
        let ended = end_of_shard.is_some();
        let (millis_behind, records_behind) = (answer.millis_behind, answer.records_behind);
        let page = Page { batch, millis_behind, records_behind, received, room, end_of_shard };
        let handed: Result<(), NobodyReads> = self.outlet.put(Fetched::Page(page)).await;
        Ok(if ended || handed.is_err() { Some(CallEnd::Finished) } else { None })
    }

    /// Where "the newest" was.
    fn anchor(&self, start: ReadFrom, first: SequenceIndex) -> Result<Option<Checkpoint>, Error> {
        match start {
            ReadFrom::Latest => {
                Ok(Some(Checkpoint::At { number: self.number_before(first)?.into(), sub: 0 }))
            }
            _ => Ok(None),
        }
    }
}

/// At or after the number of every record below `index`, whenever it arrived, and before that of every other.
fn last_number_below(shard: &Shard, index: SequenceIndex) -> SequenceNumber {
    let before = SequenceIndex::new(index.get().saturating_sub(1)).expect("all below an index are indexes");
    shard.number(before, TimestampMs::new(u64::MAX))
}

fn position(from: ReadFrom) -> Result<Position, Error> {
    Ok(match from {
        ReadFrom::TrimHorizon => Position::TrimHorizon,
        ReadFrom::Latest => Position::Latest,
        ReadFrom::AtTime(time) => Position::AtTime(time),
        // the record itself again: of an aggregated one there may be more
        ReadFrom::Behind { number, .. } => Position::At(number.try_into()?),
    })
}

fn behind(from: ReadFrom) -> Option<(AnySequenceNumber, u64)> {
    match from {
        ReadFrom::Behind { number, sub } => Some((number, sub)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_types::{HashKeyRange, ShardId, ShardState};

    #[test]
    fn a_place_at_the_newest_record_is_behind_it_whenever_it_arrived() {
        let shard = Shard {
            id: ShardId::new(3).unwrap(),
            parent: None,
            adjacent_parent: None,
            range: HashKeyRange::ALL,
            created: TimestampMs::new(1_795_951_889_000),
            state: ShardState::Open,
        };
        let next = SequenceIndex::new(1000).unwrap();
        let place = AnySequenceNumber::from(last_number_below(&shard, next));
        for later_ms in [0, 999, 1_000, 86_400_000, 10_000 * 86_400_000] {
            let arrival = TimestampMs::new(shard.created.get() + later_ms);
            let number = |index: u64| shard.number(SequenceIndex::new(index).unwrap(), arrival).into();
            assert!(place >= number(999), "{later_ms} ms after the shard was made");
            assert!(place < number(1000));
        }
        assert_eq!(place.to_string().parse(), Ok(place));
    }
}
