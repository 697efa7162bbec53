//! Asks CAs when they would like certificates to be replaced (RFC 9773), and keeps the instant chosen for each. The answer
//! is bound to the certificate's own identifier: what is known of one says nothing of the next.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify as Wake;
use tokio::task::JoinSet;

use super::act::Hands;
use crate::clock;
use crate::issue::Suggestion;
use crate::renew::{Planner, within};
use crate::store::{Store, StoreError, Suggested};

const LOOK_SECONDS: u64 = 1;
/// Asked at once, and so at most in each look.
const BATCH: u32 = 32;
/// Nobody else asks meanwhile; after a crash somebody does.
const ASKING_SECONDS: u64 = 300;
/// A CA that can't be asked, or knows no windows, is asked again after this.
const AGAIN_SECONDS: u64 = 6 * 3600;
/// RFC 9773 section 4.3.3: bounds for what a CA asks for.
const POLL_SECONDS_MIN: u64 = 60;
const POLL_SECONDS_MAX: u64 = 86_400;

/// Wakes `hurry` where a renewal can't wait.
pub async fn run(store: Store, hands: Arc<Hands>, planner: Planner, hurry: Arc<Wake>) {
    let mut look = tokio::time::interval(Duration::from_secs(LOOK_SECONDS));
    loop {
        look.tick().await;
        match ask_due(&store, &hands, &planner, clock::now()).await {
            Ok(true) => hurry.notify_one(),
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "asking CAs for renewal windows failed"),
        }
    }
}

/// Whether a renewal can't wait.
async fn ask_due(store: &Store, hands: &Arc<Hands>, planner: &Planner, now: u64) -> Result<bool, StoreError> {
    let due = store.windows_due(now, now + ASKING_SECONDS, BATCH).await?;
    let mut urgent = false;
    let mut asking = JoinSet::new();
    for suggested in due {
        let (store, hands, planner) = (store.clone(), hands.clone(), planner.clone());
        asking.spawn(async move { ask(&store, &hands, &planner, suggested, now).await });
    }
    while let Some(done) = asking.join_next().await {
        match done {
            Ok(Ok(one)) => urgent |= one,
            Ok(Err(error)) => tracing::error!(%error, "a renewal window could not be stored"),
            Err(error) => tracing::error!(%error, "asking for a renewal window ended badly"),
        }
    }
    Ok(urgent)
}

async fn ask(
    store: &Store,
    hands: &Hands,
    planner: &Planner,
    mut suggested: Suggested,
    now: u64,
) -> Result<bool, StoreError> {
    let domain = suggested.name.clone();
    let pause = match hands.suggestion(&suggested.issuer, &suggested.ari_id).await {
        Ok(Some(Suggestion { window, again_seconds })) => {
            if let Some(wanted) = within(&domain, suggested.renew_at, window, now) {
                let at = planner.place(&suggested.issuer, suggested.renew_at, wanted, now).max(suggested.rests_until);
                if Some(at) != suggested.renew_at {
                    tracing::info!(%domain, renew_at = at, "the CA suggests another time for the renewal");
                }
                suggested.renew_at = Some(at);
                suggested.window = Some(window);
                suggested.urgent |= window.end <= now && at <= now;
            } else {
                tracing::warn!(%domain, start = window.start, end = window.end, "the CA's renewal window ends before it begins");
            }
            again_seconds.clamp(POLL_SECONDS_MIN, POLL_SECONDS_MAX)
        }
        Ok(None) => AGAIN_SECONDS,
        Err(failure) => {
            tracing::debug!(%domain, says = failure.says, "the CA did not tell when to renew");
            AGAIN_SECONDS
        }
    };
    store.save_window(&suggested, now + pause, now).await?;
    Ok(suggested.urgent)
}
