//! Keeps the keys of session tickets turning: made ahead of their time, so that every edge has a key before any of them
//! encrypts with it. Several CertServices on one database take turns by compare-and-set.
//!
//! Must never see a secret: `seal` makes it and forgets it.

mod schedule;

use std::sync::Arc;
use std::time::Duration;

use contract::TicketKeys;
use contract::sealed::Recipient;

pub use self::schedule::Pace;
use crate::clock;
use crate::keys::Keys;
use crate::notify::Notify;
use crate::observe::Metrics;
use crate::seal;
use crate::store::{Store, StoreError};

/// Longest time between two looks.
const LOOK_SECONDS_MAX: u64 = 60;
const LOOK_SECONDS_AFTER_FAILURE: u64 = 5;

pub struct Turning {
    pub store: Store,
    pub notify: Notify,
    pub keys: Keys,
    pub metrics: Arc<Metrics>,
    pub pace: Pace,
}

#[derive(Debug, thiserror::Error)]
enum TurnError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Seal(String),
}

impl Turning {
    /// For as long as the process lives.
    pub async fn run(self) {
        let usual = (self.pace.rotation_seconds / 4).clamp(1, LOOK_SECONDS_MAX);
        loop {
            let pause = match self.look(clock::now()).await {
                Ok(()) => usual,
                Err(error) => {
                    tracing::error!(%error, "the keys of session tickets can't be turned; edges go on with those they have");
                    LOOK_SECONDS_AFTER_FAILURE
                }
            };
            tokio::time::sleep(Duration::from_secs(pause)).await;
        }
    }

    /// Makes what is due, and sees to it that Redis has what is in force.
    async fn look(&self, now: u64) -> Result<(), TurnError> {
        let stored = self.store.ticket_keys().await?;
        let edges = self.keys.active().await?;
        let keys = match self.turned(stored.as_ref(), &edges, now)? {
            None => stored,
            Some(new) => {
                let before = stored.as_ref().map_or(0, |keys| keys.revision);
                if self.store.replace_ticket_keys(before, &new).await? {
                    tracing::info!(revision = new.revision, keys = new.keys.len(), "session ticket keys turned");
                    self.metrics.ticket_keys_turned.inc();
                    Some(new)
                } else {
                    // Another CertService was first.
                    self.store.ticket_keys().await?
                }
            }
        };
        if let Some(keys) = keys {
            self.metrics.ticket_keys_revision.set(i64::try_from(keys.revision).unwrap_or(i64::MAX));
            self.notify.ticket_keys(&keys).await;
        }
        Ok(())
    }

    fn turned(
        &self,
        stored: Option<&TicketKeys>,
        edges: &[Recipient],
        now: u64,
    ) -> Result<Option<TicketKeys>, TurnError> {
        let kids: Vec<_> = edges.iter().map(Recipient::kid).collect();
        let Some(plan) = schedule::next(stored, &self.pace, &kids, now) else {
            return Ok(None);
        };
        let mut keys = plan.keep;
        for time in plan.make {
            keys.push(seal::new_ticket_key(time.encrypts_from, time.accepts_until, edges).map_err(TurnError::Seal)?);
        }
        Ok(Some(TicketKeys { revision: plan.revision, lifetime_seconds: self.pace.lifetime_seconds, keys }))
    }
}
