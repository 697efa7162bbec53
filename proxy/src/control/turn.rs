//! Whose turn it is to change something: one change at a time, and none when another process has taken over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, OwnedMutexGuard};

const HELD_LOOK_EVERY: Duration = Duration::from_millis(20);

/// Changes have their turn in the order they came.
#[derive(Default)]
pub(super) struct Turn(Arc<Mutex<Changes>>);

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Changes {
    #[default]
    Ours,
    /// Another process has taken over: only it may change what is on disk.
    HandedOver,
}

/// Nothing is changed while it lives.
pub struct Held(OwnedMutexGuard<Changes>);

#[derive(Debug, thiserror::Error)]
#[error("another process has just taken over from this one; send it again, and it gets it")]
pub struct HandedOver;

impl Held {
    /// Nor ever after by this process.
    pub fn hand_over(mut self) {
        *self.0 = Changes::HandedOver;
    }
}

impl Turn {
    pub(super) async fn take(&self) -> Result<Held, HandedOver> {
        let turn = self.0.clone().lock_owned().await;
        if *turn == Changes::Ours { Ok(Held(turn)) } else { Err(HandedOver) }
    }

    /// Blocks. None where a change is under way for as long as that.
    pub(super) fn hold(&self, within: Duration) -> Option<Held> {
        let until = Instant::now() + within;
        loop {
            match self.0.clone().try_lock_owned() {
                Ok(turn) => return Some(Held(turn)),
                Err(_) if Instant::now() >= until => return None,
                Err(_) => std::thread::sleep(HELD_LOOK_EVERY),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_thread_waits_for_its_turn_no_longer_than_it_may() {
        let turn = Turn::default();
        let held = turn.hold(Duration::ZERO).unwrap();
        assert!(turn.hold(Duration::from_millis(50)).is_none());
        drop(held);
        assert!(turn.hold(Duration::ZERO).is_some() && turn.take().await.is_ok());
        turn.hold(Duration::ZERO).unwrap().hand_over();
        assert!(turn.take().await.is_err(), "nor ever after");
    }
}
