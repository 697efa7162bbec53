//! `/v1/changes`, the feed that edges follow, and `/v1/edges`, how far each of them is.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use contract::api::{CHANGES_MAX, ChangePage};
use contract::sealed::Recipient;
use http::{HeaderMap, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Api;
use super::problem::ApiError;
use super::progress::Edge;
use crate::clock;

/// The request header in which an edge says who it is: its key ID.
const EDGE_HEADER: &str = "latchkey-edge";
/// Of what somebody sent, in an error.
const QUOTED_CHARS_MAX: usize = 64;

/// A misspelt `since` must not read the feed from its start each time.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Span {
    since: Option<String>,
    limit: Option<String>,
}

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    span: Result<Query<Span>, QueryRejection>,
) -> Result<Json<ChangePage>, ApiError> {
    let Query(span) = span.map_err(|error| invalid("query", error.body_text()))?;
    let since = span.since.map_or(Ok(0), |text| {
        let says = || format!("since is `{}`; it must be a whole number: the cursor of the page before", quoted(&text));
        text.parse().map_err(|_| invalid("since", says()))
    })?;
    let limit = span.limit.map_or(Ok(CHANGES_MAX), |text| {
        let says = || format!("limit is `{}`; it must be 1 to {CHANGES_MAX}", quoted(&text));
        let limit = text.parse().ok().filter(|limit| (1..=CHANGES_MAX).contains(limit));
        limit.ok_or_else(|| invalid("limit", says()))
    })?;
    if let Some(edge) = headers.get(EDGE_HEADER) {
        let edge = String::from_utf8_lossy(edge.as_bytes());
        let active = api.keys.active().await?;
        let kids: Vec<_> = active.iter().map(Recipient::kid).collect();
        if !api.progress.saw(&kids, &edge, since, clock::now()) {
            let says = format!(
                "{EDGE_HEADER} is `{}`, which is the key ID of no active edge key; add its public key: `latchkey keys add`, or [edges] public_keys",
                quoted(&edge)
            );
            return Err(ApiError::new(StatusCode::BAD_REQUEST, "unknown_edge", "Unknown edge", says));
        }
    }
    Ok(Json(api.store.changes(since, limit).await?))
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Edges {
    edges: Vec<Edge>,
    /// The cursor of the newest change.
    head: u64,
}

pub(super) async fn edges(State(api): State<Arc<Api>>) -> Result<Json<Edges>, ApiError> {
    let head = api.store.changes_head().await?;
    Ok(Json(Edges { edges: api.progress.list(head), head }))
}

fn invalid(what: &str, says: String) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, &format!("invalid_{what}"), &format!("Invalid {what}"), says)
}

fn quoted(text: &str) -> String {
    text.chars().take(QUOTED_CHARS_MAX).collect()
}
