//! The audit log, to read.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use contract::admin::AuditPage;

use super::super::Control;
use super::problem;

pub(super) const LIMIT_MAX: usize = 1000;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Newest {
    limit: Option<usize>,
}

pub(super) async fn get(State(control): State<Arc<Control>>, Query(Newest { limit }): Query<Newest>) -> Response {
    let limit = limit.unwrap_or(100);
    if !(1..=LIMIT_MAX).contains(&limit) {
        let says = format!("limit: {limit} is out of range; accepted are 1 to {LIMIT_MAX}");
        return problem(StatusCode::BAD_REQUEST, "bad_query", &says, vec![]);
    }
    match tokio::task::spawn_blocking(move || control.audit.newest(limit)).await {
        Ok(Ok(entries)) => Json(AuditPage { entries }).into_response(),
        Ok(Err(error)) => unread(&error.to_string()),
        Err(error) => unread(&error.to_string()),
    }
}

fn unread(why: &str) -> Response {
    let says = format!("the audit log can't be read: {why}");
    problem(StatusCode::INTERNAL_SERVER_ERROR, "unread", &says, vec![])
}
