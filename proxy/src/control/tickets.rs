//! Keeps this edge's session ticket keys those of the fleet: from disk at the start, then from Redis, and from CertService
//! where Redis has nothing newer though there should be. A key is in the document a rotation before its time, so looking
//! now and then is enough.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use contract::TicketKeys;
use contract::sealed::EdgeKey;

use crate::files::write_atomically;
use crate::observe::{METRICS, disk_failed};
use crate::supply::{Supply, Tier};
use crate::tls::Tickets;

/// Longest and shortest pause between two looks, in seconds.
const LOOK_SECONDS_MAX: u64 = 60;
const LOOK_SECONDS_MIN: u64 = 1;

pub struct TicketNews {
    pub supply: Arc<Supply>,
    pub tickets: Arc<Tickets>,
    pub edge_key: Arc<EdgeKey>,
    /// The document that is in force, sealed and signed as it came.
    pub file: PathBuf,
}

impl TicketNews {
    /// What this edge had before a restart. Blocks.
    pub fn restore(&self) {
        let token = match std::fs::read_to_string(&self.file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
            Err(error) => {
                METRICS.disk_errors.inc();
                tracing::warn!(%error, "session ticket keys can't be read from disk; they are fetched");
                return;
            }
            Ok(token) => token,
        };
        if let Some(keys) = self.supply.kept_ticket_keys(&token) {
            self.turn(&keys, Tier::Disk);
        }
    }

    /// For as long as the process lives.
    pub async fn follow(self) {
        let news = Arc::new(self);
        let mut in_vain = 0;
        loop {
            let now = crate::tls::now();
            if let Err(error) = news.tickets.renew_local(now) {
                tracing::error!(%error, "a new key for session tickets can't be made");
            }
            news.look(now).await;
            let pause = match news.tickets.next_from(now) {
                Some(from) => {
                    in_vain = 0;
                    (from - now) / 2
                }
                // Not there yet, or the sources are down.
                None => {
                    in_vain = 7.min(in_vain + 1);
                    1 << (in_vain - 1)
                }
            };
            tokio::time::sleep(Duration::from_secs(pause.clamp(LOOK_SECONDS_MIN, LOOK_SECONDS_MAX))).await;
        }
    }

    async fn look(self: &Arc<Self>, now: u64) {
        if let Some((token, keys)) = self.supply.cached_ticket_keys().await {
            self.take(token, keys, Tier::Redis).await;
        }
        if self.tickets.next_from(now).is_none()
            && let Ok((token, keys)) = self.supply.ticket_keys().await
        {
            self.take(token, keys, Tier::CertService).await;
        }
        METRICS.ticket_keys_revision.set(i64::try_from(self.tickets.revision()).unwrap_or(i64::MAX));
        METRICS.ticket_keys_shared.set(i64::try_from(self.tickets.shared_keys(now)).unwrap_or(i64::MAX));
    }

    /// Opens them off the threads that wait for others, and keeps what is new.
    async fn take(self: &Arc<Self>, token: String, keys: TicketKeys, from: Tier) {
        let news = self.clone();
        let taken = tokio::task::spawn_blocking(move || {
            if news.turn(&keys, from)
                && let Err(error) = write_atomically(&news.file, token.as_bytes())
            {
                disk_failed("session ticket keys can't be kept on disk", "a restart fetches them", &error);
            }
        });
        if let Err(error) = taken.await {
            tracing::error!(%error, "taking session ticket keys ended badly");
        }
    }

    /// True if they are new. Blocks.
    fn turn(&self, keys: &TicketKeys, from: Tier) -> bool {
        let (source, revision) = (from.label(), keys.revision);
        match self.tickets.turn(keys, &self.edge_key) {
            Ok(new) => {
                if new {
                    tracing::info!(source, revision, keys = keys.keys.len(), "session ticket keys in force");
                }
                new
            }
            Err(error) => {
                METRICS.bundles_rejected.with_label_values(&[error.reason()]).inc();
                tracing::warn!(source, revision, reason = error.reason(), "session ticket keys refused: {error}");
                false
            }
        }
    }
}
