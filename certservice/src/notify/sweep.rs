//! Keeps Redis free of the bundles of off-boarded domains, whatever came between: a crash before the key was removed, or
//! an outage of a Redis that remembers. Follows the feed as edges do, from its start.

use std::time::Duration;

use contract::api::CHANGES_MAX;
use contract::redis_keys;
use redis::Cmd;

use super::Notify;
use crate::store::StoreError;

const LOOK_SECONDS: u64 = 5;

impl Notify {
    pub async fn sweep(self) {
        if self.redis.is_none() {
            return std::future::pending().await;
        }
        let mut look = tokio::time::interval(Duration::from_secs(LOOK_SECONDS));
        let mut since = 0;
        loop {
            look.tick().await;
            if let Err(error) = self.sweep_from(&mut since).await {
                tracing::error!(%error, "looking for off-boarded domains failed");
            }
        }
    }

    /// To the end of the feed, or to where Redis fails.
    async fn sweep_from(&self, since: &mut u64) -> Result<(), StoreError> {
        loop {
            let page = self.store.changes(*since, CHANGES_MAX).await?;
            let gone = page.changes.iter().filter(|change| change.revision.is_none());
            let keys: Vec<_> = gone.map(|change| redis_keys::bundle(&change.domain)).collect();
            if !keys.is_empty() && !self.send("remove_bundle", Cmd::del(keys)).await {
                return Ok(());
            }
            *since = page.cursor;
            if !page.more {
                return Ok(());
            }
        }
    }
}
