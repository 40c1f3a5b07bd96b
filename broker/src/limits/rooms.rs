//! So many at a time, of what somebody else counts: what is being made counts as well.
//!
//! Why: two calls that look at the count and then make something would both find room for one.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// How many of each name are being made.
#[derive(Clone, Default)]
pub(super) struct Rooms(Arc<Mutex<HashMap<String, u32>>>);

/// Room that is kept for what is being made. Bounded by the calls under way.
#[must_use]
pub(crate) struct Room {
    of: Option<(Rooms, String, u32)>,
}

impl Drop for Room {
    fn drop(&mut self) {
        let Some((rooms, name, count)) = self.of.take() else { return };
        let mut making = rooms.0.lock();
        if let Some(total) = making.get_mut(&name) {
            *total = total.saturating_sub(count);
            if *total == 0 {
                making.remove(&name);
            }
        }
    }
}

/// There is no room.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full {
    pub(super) taken: u32,
    pub(super) limit: u32,
}

impl Rooms {
    /// Room for so many more beside those `present`, which are counted when nobody else can take room.
    pub(super) fn take(
        &self,
        name: String,
        more: u32,
        limit: Option<u32>,
        present: impl FnOnce() -> u32,
    ) -> Result<Room, Full> {
        let Some(limit) = limit.filter(|_| more > 0) else { return Ok(Room { of: None }) };
        let mut making = self.0.lock();
        let taken = present().saturating_add(making.get(&name).copied().unwrap_or_default());
        if more > limit.saturating_sub(taken) {
            return Err(Full { taken, limit });
        }
        *making.entry(name.clone()).or_default() += more;
        Ok(Room { of: Some((self.clone(), name, more)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_being_made_counts_until_it_is_there_or_given_up() {
        let rooms = Rooms::default();
        let take = |more, present| rooms.take("a".into(), more, Some(10), move || present);
        let first = take(4, 3).unwrap();
        assert_eq!(take(4, 3).err(), Some(Full { taken: 7, limit: 10 }));
        let second = take(3, 3).unwrap();
        assert!(take(1, 3).is_err());
        assert!(take(0, 30).is_ok(), "who wants nothing gets it");
        assert!(rooms.take("b".into(), 10, Some(10), || 0).is_ok(), "others have their own");
        drop(first);
        assert!(take(1, 7).is_err(), "it is there");
        drop(second);
        assert!(take(7, 3).is_ok(), "it was given up");
        assert!(take(u32::MAX, u32::MAX).is_err());
        assert!(rooms.0.lock().is_empty());
    }
}
