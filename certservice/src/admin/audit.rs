//! `/v1/audit`: the journal, to read and to check.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use contract::journal::Page;
use http::StatusCode;
use serde::Deserialize;

use super::Api;
use super::problem::ApiError;

pub(super) const PAGE_MAX: u32 = 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Span {
    after: Option<u64>,
    limit: Option<u32>,
}

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    span: Result<Query<Span>, QueryRejection>,
) -> Result<Json<Page>, ApiError> {
    let invalid = |what: &str, says| {
        ApiError::new(StatusCode::BAD_REQUEST, &format!("invalid_{what}"), &format!("Invalid {what}"), says)
    };
    let Query(span) = span.map_err(|error| invalid("query", error.body_text()))?;
    let limit = span.limit.unwrap_or(PAGE_MAX);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(invalid("limit", format!("limit is {limit}; it must be 1 to {PAGE_MAX}")));
    }
    Ok(Json(api.store.journal_page(span.after.unwrap_or(0), limit).await?))
}
