//! Tells other systems what the journal tells: each entry, in order, at least once, signed. Must never hold up what it tells
//! of: how far each has come is remembered, and who is away is tried again.

mod poster;
mod signature;

use std::time::Duration;

use contract::journal::Entry;

pub(crate) use self::poster::Poster;
pub use self::signature::signature;
use crate::clock;
use crate::config::Webhook;
use crate::store::{Store, StoreError};

const LOOK_SECONDS: u64 = 1;
/// Entries read at once.
const BATCH: u32 = 100;
/// How long a webhook stays with an instance that says nothing any more: longer than a try takes.
const HOLD_SECONDS: u64 = 60;
const RETRY_SECONDS_MIN: u64 = 2;
pub(crate) const RETRY_SECONDS_MAX: u64 = 3600;
/// Of what went wrong, in the database.
const SAYS_CHARS_MAX: usize = 500;

pub struct Sender {
    store: Store,
    webhook: Webhook,
    /// This instance, unlike any other on the store.
    holder: String,
    poster: Poster,
}

impl Sender {
    pub async fn open(store: Store, webhook: Webhook, holder: String) -> Result<Self, String> {
        let named = |says| format!("webhook `{}`: {says}", webhook.name);
        let poster = Poster::open(webhook.secret.clone(), webhook.root.as_deref(), webhook.plain).map_err(named)?;
        store.know_webhook(&webhook.name).await.map_err(|error| error.to_string())?;
        Ok(Self { store, webhook, holder, poster })
    }

    /// For as long as the process lives.
    pub async fn run(self) {
        loop {
            if let Err(error) = self.catch_up(clock::now()).await {
                tracing::error!(webhook = self.webhook.name, %error, "what a webhook has to be told can't be read");
            }
            tokio::time::sleep(Duration::from_secs(LOOK_SECONDS)).await;
        }
    }

    /// Tells what is new, until all is told or one is not taken.
    async fn catch_up(&self, now: u64) -> Result<(), StoreError> {
        let Webhook { name, tenant, .. } = &self.webhook;
        let held = self.store.hold_webhook(name, &self.holder, now + HOLD_SECONDS, now).await?;
        let Some((mut seq, mut failures)) = held else { return Ok(()) };
        loop {
            // Before the entries: none up to it is missing among them.
            let head = self.store.journal_head().await?.seq;
            let entries = self.store.journal(tenant.as_deref(), seq, BATCH).await?;
            if entries.is_empty() {
                // Those of other tenants it has not to be told of: it is not behind.
                return if head > seq { self.store.webhook_took(name, &self.holder, head).await } else { Ok(()) };
            }
            for entry in entries {
                // As long as it goes on it stays ours.
                let now = clock::now();
                if self.store.hold_webhook(name, &self.holder, now + HOLD_SECONDS, now).await?.is_none() {
                    return Ok(());
                }
                if let Err(says) = self.send(&entry).await {
                    let pause = pause_seconds(failures);
                    tracing::warn!(webhook = name, seq = entry.seq, says, pause, "a webhook did not take an event");
                    let says: String = says.chars().take(SAYS_CHARS_MAX).collect();
                    return self.store.webhook_failed(name, &self.holder, now + pause, &says).await;
                }
                (seq, failures) = (entry.seq, 0);
                self.store.webhook_took(name, &self.holder, seq).await?;
            }
        }
    }

    async fn send(&self, entry: &Entry) -> Result<(), String> {
        let body = serde_json::to_vec(entry).map_err(|error| error.to_string())?;
        self.poster.post(&self.webhook.url, Some(entry.seq), body).await
    }
}

fn pause_seconds(failures: u64) -> u64 {
    (RETRY_SECONDS_MIN << failures.min(16)).min(RETRY_SECONDS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_an_hour() {
        let pauses: Vec<_> = (0..13).map(pause_seconds).collect();
        assert_eq!(pauses[..5], [2, 4, 8, 16, 32]);
        assert_eq!((pauses[10], pauses[11], pauses[12], pause_seconds(u64::MAX)), (2048, 3600, 3600, 3600));
    }
}
