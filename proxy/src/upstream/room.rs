//! How many requests of an upstream may be open at once. A server that hangs holds its own share of this edge and no more,
//! and what is beyond it is told at once instead of after a time-out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

pub(super) struct Room {
    open: AtomicU32,
    most: Option<u32>,
}

/// Given back when it is dropped.
pub(super) struct Place(Arc<Room>);

impl Room {
    pub(super) fn new(most: Option<u32>) -> Self {
        Self { open: AtomicU32::new(0), most }
    }

    /// An error says how many there may be. Where there is no limit nothing is counted.
    pub(super) fn enter(self: &Arc<Self>) -> Result<Option<Place>, u32> {
        let Some(most) = self.most else { return Ok(None) };
        let place = Place(self.clone());
        if self.open.fetch_add(1, Relaxed) < most { Ok(Some(place)) } else { Err(most) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_as_many_as_set_and_again_when_one_leaves() {
        let room = Arc::new(Room::new(Some(2)));
        let (first, second) = (room.enter().unwrap(), room.enter().unwrap());
        assert!(first.is_some() && second.is_some());
        assert_eq!((room.enter().err(), room.enter().err()), (Some(2), Some(2)));
        drop(first);
        let third = room.enter().unwrap();
        assert!(third.is_some() && room.enter().is_err());
    }

    #[test]
    fn without_a_limit_all_enter() {
        let room = Arc::new(Room::new(None));
        assert!((0..1000).all(|_| matches!(room.enter(), Ok(None))));
    }
}
