//! Health and metrics.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;

use super::Api;
use super::budgets::of_issuers;
use super::problem::ApiError;

/// The process answers.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// It can do its work: the database answers. Redis may be down.
pub(super) async fn readyz(State(api): State<Arc<Api>>) -> Result<&'static str, ApiError> {
    api.store.ready().await?;
    Ok("ready\n")
}

pub(super) async fn metrics(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    let (jobs, head) = (api.store.jobs_by_step().await?, api.store.changes_head().await?);
    api.metrics.budgets(&of_issuers(&api, None).await?);
    api.metrics.follow(head, api.progress.behind_max(head));
    match api.metrics.render(&jobs) {
        Ok(text) => Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()),
        Err(error) => {
            let says = format!("the metrics can't be written: {error}");
            Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "Internal error", says))
        }
    }
}
