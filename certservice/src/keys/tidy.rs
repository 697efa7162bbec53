//! In the background: counts bundles of before they were counted, and takes entries of retired keys out of all others, so
//! that who finds such a key later finds nothing that it opens.

use std::time::Duration;

use contract::api::KeyState;

use super::{KeySet, Keys, rewrap};
use crate::clock;
use crate::notify::Notify;
use crate::observe::Metrics;
use crate::store::{OURSELVES, Rekeyed, StoreError};

/// Between two looks where there was nothing to do.
const LOOK_SECONDS: u64 = 60;
/// Bundles of one transaction, and the pause after it: orders and edges go first.
const BATCH: usize = 100;
const PAUSE_MS: u64 = 100;

/// For as long as the process lives.
pub async fn run(keys: Keys, notify: Notify, metrics: std::sync::Arc<Metrics>) {
    loop {
        let done = match keys.tidy_some(&notify).await {
            Ok(done) => done,
            Err(error) => {
                tracing::error!(%error, "bundles can't be looked through for entries of retired edge keys");
                0
            }
        };
        let pause = if done > 0 {
            Duration::from_millis(PAUSE_MS)
        } else {
            if let Ok(custody) = keys.custody().await {
                metrics.custody(&custody);
            }
            Duration::from_secs(LOOK_SECONDS)
        };
        tokio::time::sleep(pause).await;
    }
}

impl Keys {
    /// How many bundles were changed.
    pub(super) async fn tidy_some(&self, notify: &Notify) -> Result<usize, StoreError> {
        let counted = self.store.count_bundles(BATCH).await?;
        if counted > 0 {
            return Ok(counted);
        }
        let known = self.known().await?;
        let retired: Vec<_> =
            known.iter().filter(|known| known.state == KeyState::Retired).map(|known| known.row.kid.as_str()).collect();
        let active: Vec<_> = known.iter().filter_map(|known| known.recipient.clone()).collect();
        let stale = |set: &KeySet| set.kids().any(|kid| retired.contains(&kid));
        for set in self.store.key_sets().await?.into_iter().filter(stale) {
            let stored = self.store.bundles_of_set(&set, "", BATCH).await?;
            let changes = stored.into_iter().filter_map(|before| {
                let (bundle, set) = rewrap::without(&before.bundle, &before.set, &retired, &active)?;
                Some(Rekeyed { before, bundle, set })
            });
            let changes: Vec<_> = changes.collect();
            if changes.is_empty() {
                continue;
            }
            let written = self.store.rekey(&changes, OURSELVES, "bundles.cleaned", "").await?;
            for (change, _) in changes.iter().zip(&written).filter(|(_, written)| **written) {
                notify.bundle(&change.bundle, clock::now()).await;
            }
            return Ok(changes.len());
        }
        Ok(0)
    }
}
