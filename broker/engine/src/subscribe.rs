//! The subscribe verb: follows a shard, page after page, and waits at the tip.
//!
//! ```text
//!   catching up ── page ends at the tip ──► caught up ── tail moves ──► read where it stands
//!        ▲    (reads on a blocking thread)      │         (page cache, at most 256 KiB; larger
//!        │                                      │          frames on a blocking thread)
//!        └────── page ends before the tip ──────┘
//! ```
//!
//! Under a quota each subscription may read so many bytes a second, and waits when it has read more.
//!
//! Each subscription holds nothing but its place: a slow reader delays nobody else. Records that lie below the horizon
//! by the time the reader comes are skipped; [`FramePage::from`] shows it.

use crate::append::counted_bytes;
use crate::damage;
use crate::error::Result;
use crate::read::{Ending, FramePage, ending, frame_page};
use crate::shard::handle::ShardHandle;
use crate::shard::large::INLINE_BYTES_MAX;
use crate::shard::quota::Owed;
use crate::stream::{Stream, StreamCore};
use std::sync::Arc;
use std::time::Duration;
use tidemill_types::{SequenceIndex, ShardId};
use tokio::sync::watch;
use tokio::time::Instant;

/// A subscription that has read faster than its quota allows looks this often whether its stream is still there.
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// Follows one shard from a place on.
pub struct Subscription {
    core: Arc<StreamCore>,
    handle: Arc<ShardHandle>,
    next: SequenceIndex,
    tail: watch::Receiver<SequenceIndex>,
    closing: watch::Receiver<bool>,
    state: State,
    /// Whether damaged records are passed over instead of told.
    passes_damage: bool,
    /// What it has read and is to wait for, under a quota.
    owed: Option<Owed>,
    started: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    CatchingUp,
    CaughtUp,
    Ended,
}

impl Stream {
    /// Follows `shard` from `from` on. Errors: `NotFound`, `Unavailable`.
    pub fn subscribe(&self, shard: ShardId, from: SequenceIndex) -> Result<Subscription> {
        let handle = self.core.handle(shard)?;
        handle.check_readable()?;
        let (tail, closing) = (handle.tail(), handle.shared().closing());
        let core = Arc::clone(&self.core);
        let owed = handle.shared().settings().quota.read_bytes_per_s.map(Owed::new);
        let (state, started) = (State::CatchingUp, Instant::now());
        let passes_damage = false;
        Ok(Subscription { core, handle, next: from, tail, closing, state, passes_damage, owed, started })
    }
}

impl Subscription {
    /// Passes over damaged records, instead of telling of them: see the module `damage`.
    #[must_use]
    pub fn passing_over_damage(self) -> Self {
        Self { passes_damage: true, ..self }
    }

    /// The next page of up to `max_bytes` (at least one frame); waits until there are records. `None` after the page
    /// whose `end` is set was delivered. Cancel-safe: what was not returned comes again.
    ///
    /// Errors: `NotFound` once the stream is deleted, `Unavailable` once the engine closes, `Damaged`, `Internal`.
    pub async fn next(&mut self, max_bytes: usize) -> Result<Option<FramePage>> {
        self.page(max_bytes, None).await
    }

    /// Like [`Subscription::next`], but answers an empty page when no record came for `idle`.
    pub async fn next_or_idle(&mut self, max_bytes: usize, idle: Duration) -> Result<Option<FramePage>> {
        self.page(max_bytes, Some(Instant::now() + idle)).await
    }

    async fn page(&mut self, max_bytes: usize, until: Option<Instant>) -> Result<Option<FramePage>> {
        if self.state == State::Ended {
            return Ok(None);
        }
        loop {
            self.handle.check_readable()?;
            self.tail.borrow_and_update();
            let is_behind = self.next < self.handle.log().marks().durable();
            let pause = if is_behind { self.pause() } else { Duration::ZERO };
            if !pause.is_zero() {
                match self.keep_pace(pause, until).await {
                    Waited::Woken => continue,
                    Waited::Idle => return Ok(Some(self.empty_page())),
                }
            }
            if is_behind || self.is_at_end() {
                let page = self.read(max_bytes).await;
                if let (true, Err(error)) = (self.passes_damage, &page)
                    && let Some(behind) = damage::pass_over(&self.handle, error)
                {
                    self.next = behind;
                    continue;
                }
                let page = self.handle.shared().metrics().note(page)?;
                if !page.frames.is_empty() || page.end.is_some() {
                    return Ok(Some(page));
                }
                continue; // only a closing entry, or a gap between two openings
            }
            self.state = State::CaughtUp;
            if self.wait(until).await == Waited::Idle {
                return Ok(Some(self.empty_page()));
            }
        }
    }

    fn empty_page(&self) -> FramePage {
        let Ending { millis_behind, records_behind, .. } = ending(&self.core, &self.handle, self.next, None);
        FramePage {
            frames: Vec::new(),
            lying: None,
            encrypted: Vec::new(),
            from: self.next,
            next: self.next,
            millis_behind,
            records_behind,
            end: None,
        }
    }

    fn elapsed_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// How long to wait before more may be read.
    fn pause(&self) -> Duration {
        let now_ns = self.elapsed_ns();
        self.owed.as_ref().map_or(Duration::ZERO, |owed| Duration::from_nanos(owed.wait_ns(now_ns)))
    }

    /// Waits for `pause` or a part of it, so that the end of the stream is noticed soon; or until `until`.
    async fn keep_pace(&mut self, pause: Duration, until: Option<Instant>) -> Waited {
        let ready = Instant::now() + pause.min(PAUSE_MAX);
        let wake = until.map_or(ready, |until| until.min(ready));
        tokio::select! {
            () = tokio::time::sleep_until(wake) => {}
            _ = self.closing.changed() => return Waited::Woken,
        }
        if until.is_some_and(|until| Instant::now() >= until) { Waited::Idle } else { Waited::Woken }
    }

    fn is_at_end(&self) -> bool {
        !self.handle.shard().is_open() && self.next >= self.handle.log().marks().durable()
    }

    /// Whether the next page is read without another thread: it is in the page cache, and small.
    fn reads_inline(&self) -> bool {
        self.state == State::CaughtUp && !self.handle.has_large_ahead(self.next)
    }

    async fn read(&mut self, max_bytes: usize) -> Result<FramePage> {
        let from = self.next;
        let page = if self.reads_inline() {
            frame_page(&self.core, &self.handle, from, max_bytes.min(INLINE_BYTES_MAX))?
        } else {
            let (core, handle) = (Arc::clone(&self.core), Arc::clone(&self.handle));
            let shared = Arc::clone(handle.shared());
            shared.blocking("a read", move || frame_page(&core, &handle, from, max_bytes)).await?
        };
        self.next = page.next;
        let now_ns = self.elapsed_ns();
        if let Some(owed) = &mut self.owed {
            owed.add(now_ns, page.frames.iter().map(counted_bytes).sum::<usize>() as u64);
        }
        self.state = match (&page.end, page.millis_behind) {
            (Some(_), _) => State::Ended,
            (None, 0) => State::CaughtUp,
            (None, _) => State::CatchingUp,
        };
        Ok(page)
    }

    /// Waits until the tail moves, the stream goes, the engine closes, or `until`.
    async fn wait(&mut self, until: Option<Instant>) -> Waited {
        let idle = async {
            match until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        // both senders live as long as the handle, and an error would only mean: look again
        tokio::select! {
            _ = self.tail.changed() => Waited::Woken,
            _ = self.closing.changed() => Waited::Woken,
            () = idle => Waited::Idle,
        }
    }
}

#[derive(PartialEq, Eq)]
enum Waited {
    Woken,
    Idle,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::settings::StreamSettings;
    use crate::one_stream::OneStream;
    use crate::settings::Settings;
    use crate::stream::StreamSpec;
    use tidemill_types::limits::RECORD_KIB_MAX;
    use tidemill_types::{PartitionKey, Record};

    #[tokio::test]
    async fn a_large_frame_at_the_tip_is_read_on_a_blocking_thread_and_what_follows_is_not() {
        let settings = StreamSettings { record_kib_max: RECORD_KIB_MAX, ..StreamSettings::default() };
        let spec = StreamSpec { settings, ..StreamSpec::default() };
        let one = OneStream::of(&spec, Settings::default());
        one.storage.start().unwrap();
        let shard = ShardId::new(0).unwrap();
        let mut following = one.stream.subscribe(shard, SequenceIndex::ZERO).unwrap();
        let waited = following.next_or_idle(1 << 20, Duration::from_millis(1)).await.unwrap().unwrap();
        assert!(waited.frames.is_empty());
        for (bytes, inline) in [(1000, true), (8 << 20, false), (1000, true)] {
            let record = Record::new(PartitionKey::new("k").unwrap(), vec![1; bytes]).unwrap();
            one.stream.put(vec![record]).await.remove(0).unwrap();
            assert_eq!(following.reads_inline(), inline, "{bytes} bytes");
            assert_eq!(following.next(1).await.unwrap().unwrap().frames.len(), 1);
        }
        one.storage.close().unwrap();
    }

    #[tokio::test]
    async fn the_bytes_of_a_page_are_its_frames_where_they_lie() {
        let one = OneStream::of(&StreamSpec::default(), Settings::default());
        one.storage.start().unwrap();
        for data in ["a", "bc", "def"] {
            let record = Record::new(PartitionKey::new("k").unwrap(), data).unwrap();
            one.stream.put(vec![record]).await.remove(0).unwrap();
        }
        let page = one.stream.read(ShardId::new(0).unwrap(), SequenceIndex::ZERO, 1 << 20).await.unwrap();
        assert_eq!(page.frames.len(), 3);
        let joined: Vec<u8> = page.frames.iter().flat_map(|frame| frame.bytes().to_vec()).collect();
        assert_eq!(page.bytes(), joined);
        assert_eq!(page.bytes().as_ptr(), page.frames[0].bytes().as_ptr(), "they were copied");
        let decrypted = FramePage { lying: None, ..page };
        assert_eq!(decrypted.bytes(), joined);
        one.storage.close().unwrap();
    }
}
