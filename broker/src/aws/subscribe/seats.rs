//! Who is subscribed: each consumer has one seat at each shard.
//!
//! ```text
//!  free ── take ──► taken, for 5 s nobody else may ──► taken, the next who asks gets it and the holder is ousted
//!    ▲                  │ left early: reserved until the 5 s are over
//!    └──────────────────┴──────────── left
//! ```
//!
//! Why 5 s: so AWS does it. Two workers that both believe the shard is theirs would otherwise throw each other out as
//! fast as they can. What it does not do: it ends no stream; it tells the holder, who ends its own.

use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tidemill_types::{ConsumerArn, ShardId};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// After a seat was taken nobody else gets it for so long (Kinesis).
const RESERVED: Duration = Duration::from_secs(5);
/// Most seats that are taken or reserved at one time.
const SEATS_MAX: usize = 65_536;

/// A consumer and a shard of its stream.
pub(super) type Place = (ConsumerArn, ShardId);

/// Why a seat is not to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// Someone took it less than 5 s ago.
    Reserved,
    /// The broker has no more.
    Full,
}

/// All seats. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Seats(Arc<Mutex<Taken>>);

#[derive(Default)]
struct Taken {
    holders: HashMap<Place, Holder>,
    /// Places that were left while reserved, and when they become free.
    left: VecDeque<(Instant, Place, u64)>,
    serial: u64,
}

struct Holder {
    /// Tells one holder of a place from the next.
    serial: u64,
    since: Instant,
    ousted: CancellationToken,
}

impl Taken {
    fn free_left(&mut self, now: Instant) {
        while let Some((until, place, serial)) = self.left.pop_front() {
            if until > now {
                self.left.push_front((until, place, serial));
                return;
            }
            self.vacate(&place, serial);
        }
    }

    /// Unless someone else has it by now.
    fn vacate(&mut self, place: &Place, serial: u64) {
        if self.holders.get(place).is_some_and(|holder| holder.serial == serial) {
            self.holders.remove(place);
        }
    }
}

impl Seats {
    /// Takes a seat, from its holder if need be.
    pub(super) fn take(&self, place: Place) -> Result<Seat, Refused> {
        let now = Instant::now();
        let mut taken = self.0.lock();
        taken.free_left(now);
        match taken.holders.get(&place) {
            Some(holder) if now < holder.since + RESERVED => return Err(Refused::Reserved),
            Some(holder) => holder.ousted.cancel(),
            None if taken.holders.len() >= SEATS_MAX => return Err(Refused::Full),
            None => {}
        }
        taken.serial += 1;
        let (serial, ousted) = (taken.serial, CancellationToken::new());
        taken.holders.insert(place.clone(), Holder { serial, since: now, ousted: ousted.clone() });
        Ok(Seat { seats: self.clone(), place, serial, ousted })
    }
    /// How many are taken or reserved.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.0.lock().holders.len()
    }
}

/// A seat that is held until it is dropped, or taken by someone else.
pub(super) struct Seat {
    seats: Seats,
    place: Place,
    serial: u64,
    ousted: CancellationToken,
}

impl Seat {
    /// Waits until someone else has taken the seat.
    pub(super) async fn ousted(&self) {
        self.ousted.cancelled().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.0.lock();
        let Some(holder) = taken.holders.get(&self.place) else { return };
        if holder.serial != self.serial {
            return;
        }
        let until = holder.since + RESERVED;
        if until > Instant::now() {
            let left = (until, self.place.clone(), self.serial);
            taken.left.push_back(left);
        } else {
            taken.vacate(&self.place, self.serial);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(consumer: u64, shard: u32) -> Place {
        let arn = format!("arn:aws:kinesis:us-east-1:000000000000:stream/s/consumer/c:{consumer}");
        (arn.parse().unwrap(), ShardId::new(shard).unwrap())
    }

    fn refused(seats: &Seats, place: Place) -> Option<Refused> {
        seats.take(place).err()
    }

    #[tokio::test(start_paused = true)]
    async fn a_seat_changes_hands_after_five_seconds_and_not_before() {
        let seats = Seats::default();
        let first = seats.take(place(1, 0)).unwrap();
        tokio::time::advance(Duration::from_millis(4999)).await;
        assert_eq!(refused(&seats, place(1, 0)), Some(Refused::Reserved));
        assert!(seats.take(place(1, 1)).is_ok() && seats.take(place(2, 0)).is_ok());
        assert!(!first.ousted.is_cancelled());
        tokio::time::advance(Duration::from_millis(1)).await;
        let second = seats.take(place(1, 0)).unwrap();
        first.ousted().await;
        drop(first);
        assert_eq!(refused(&seats, place(1, 0)), Some(Refused::Reserved));
        assert!(!second.ousted.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn a_seat_that_is_left_at_once_stays_reserved_and_is_then_forgotten() {
        let seats = Seats::default();
        drop(seats.take(place(1, 0)).unwrap());
        assert_eq!(refused(&seats, place(1, 0)), Some(Refused::Reserved));
        tokio::time::advance(RESERVED).await;
        let later = seats.take(place(2, 0)).unwrap();
        assert_eq!(seats.count(), 1);
        tokio::time::advance(RESERVED).await;
        drop(later);
        assert!(seats.count() == 0 && seats.0.lock().left.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn seats_are_bounded() {
        let seats = Seats::default();
        let held: Vec<Seat> =
            (0..SEATS_MAX as u32).map(|shard| seats.take(place(1, shard)).unwrap()).collect();
        assert_eq!(refused(&seats, place(2, 0)), Some(Refused::Full));
        tokio::time::advance(RESERVED).await;
        let _taken_over = seats.take(place(1, 0)).unwrap();
        drop(held);
        assert!(seats.take(place(2, 0)).is_ok());
    }
}
