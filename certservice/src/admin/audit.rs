//! `/v1/audit`: the journal, to read and to check.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, State};
use contract::journal::{Archived, Head, Page};
use http::StatusCode;
use serde::Deserialize;

use super::Api;
use super::access::Caller;
use super::domains::json_body;
use super::problem::ApiError;
use crate::store::Removal;

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

/// Removes what an archive has: whoever asks says up to which entry, and what its hash is.
pub(super) async fn archive(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    request: axum::extract::Request,
) -> Result<Json<Archived>, ApiError> {
    let until: Head = json_body(request, "it must have `seq` and `hash`").await?;
    if until.seq == 0 {
        let says = "the body must have `seq` and `hash`: the last entry of the archive";
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "invalid_body", "Invalid body", says));
    }
    let conflict = |code: &str, says: String| Err(ApiError::new(StatusCode::CONFLICT, code, "Not archived", says));
    match api.store.archive_journal(&until, &caller.actor()).await? {
        Removal::Done(removed) => {
            tracing::info!(removed, until = until.seq, "entries of the journal were archived");
            Ok(Json(Archived { removed, base: until }))
        }
        Removal::Unknown => {
            conflict("unknown_entry", format!("there is no entry {} with this hash; nothing was removed", until.seq))
        }
        Removal::Awaited(webhook) => {
            let says = format!("webhook `{webhook}` has not been told of all entries up to {}", until.seq);
            conflict("webhook_behind", format!("{says}; see GET /v1/webhooks"))
        }
    }
}
