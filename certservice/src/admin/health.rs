//! Health and metrics.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;

use super::Api;
use super::budgets::of_issuers;
use super::problem::ApiError;
use crate::clock;
use crate::order::Lane;
use crate::store::LEFT_BOUNDS;

/// The process answers.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// It can do its work: the database answers, and that of bundles where they are apart. Redis may be down.
pub(super) async fn readyz(State(api): State<Arc<Api>>) -> Result<&'static str, ApiError> {
    api.store.ready().await?;
    if let Some(ready) = api.store.bundles_ready().await {
        ready?;
    }
    Ok("ready\n")
}

/// What is counted in the database for who watches.
async fn count(api: &Api, now: u64) -> Result<(), ApiError> {
    let queues = api.store.queues().await?;
    api.metrics.queues(Lane::ALL.map(|lane| {
        let queue = queues.iter().find(|queue| queue.lane == lane as i64);
        let age = queue.map_or(0, |queue| now.saturating_sub(queue.oldest_at));
        (lane.as_str(), queue.map_or(0, |queue| queue.count), age)
    }));
    if !api.metrics.counts_now(now) {
        return Ok(());
    }
    let lifetimes = api.store.lifetimes(now).await?;
    let remaining: Vec<_> = LEFT_BOUNDS.into_iter().zip(lifetimes).collect();
    let soonest = match api.store.ended(now).await? {
        0 => api.store.soonest_end(now).await?.map(|end| i64::try_from(end.saturating_sub(now)).unwrap_or(i64::MAX)),
        _ => Some(-1),
    };
    api.metrics.own_certificates(&api.store.own_by_code().await?);
    api.metrics.domains(&api.store.domains_by_state().await?, &remaining, soonest);
    Ok(())
}

pub(super) async fn metrics(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    let (jobs, head) = (api.store.jobs_by_step().await?, api.store.changes_head().await?);
    let now = clock::now();
    api.metrics.bundle_store_up.set(i64::from(api.store.bundles_down() != Some(true)));
    api.metrics.keys_in_memory.set(i64::try_from(api.hands.keys_in_memory()).unwrap_or(i64::MAX));
    api.metrics.budgets(&of_issuers(&api, None).await?, now);
    count(&api, now).await?;
    api.metrics.follow(head, api.progress.behind_max(head));
    match api.metrics.render(&jobs) {
        Ok(text) => Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()),
        Err(error) => {
            let says = format!("the metrics can't be written: {error}");
            Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "Internal error", says))
        }
    }
}
