//! Names of upstreams, resolved anew now and then.

use std::time::Duration;

use futures_util::{StreamExt, stream};

use super::Control;
use crate::upstream::Upstream;

const RESOLVE_EVERY: Duration = Duration::from_secs(30);
const RESOLVED_AT_ONCE_MAX: usize = 16;

impl Control {
    /// For as long as the process lives.
    pub(super) async fn keep_resolved(&self) {
        let mut turn = tokio::time::interval(RESOLVE_EVERY);
        loop {
            turn.tick().await;
            let current = self.current.get();
            let named = current.upstreams.values().filter(|upstream| upstream.has_names());
            stream::iter(named).for_each_concurrent(RESOLVED_AT_ONCE_MAX, |upstream| resolve(upstream)).await;
        }
    }
}

async fn resolve(upstream: &Upstream) {
    if let Err(errors) = upstream.resolve().await {
        for error in errors {
            tracing::warn!(upstream = upstream.name, "{error}; the addresses known so far stay");
        }
    }
}
