//! `/v1/keys` and `/v1/custody`: the edge keys, and what is sealed to them.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use contract::api::{AddKey, Custody, KeyPage, RetiredKey};
use http::StatusCode;
use serde::Deserialize;

use super::Api;
use super::access::Caller;
use super::domains::json_body;
use super::problem::ApiError;
use crate::keys::KeysError;

/// A misspelt `dry_run` must not be carried out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct How {
    #[serde(default)]
    force: bool,
    #[serde(default)]
    dry_run: bool,
}

pub(super) async fn list(State(api): State<Arc<Api>>) -> Result<Json<KeyPage>, ApiError> {
    Ok(Json(KeyPage { keys: api.keys.list().await? }))
}

pub(super) async fn add(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    how: Result<Query<How>, QueryRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let Query(how) = how.map_err(invalid_query)?;
    let AddKey { pool, public_key } = json_body(request, "it has `pool` and `public_key`, which is PEM").await?;
    let (key, new) = api.keys.add(&pool, &public_key, &caller.actor(), how.dry_run).await?;
    let status = if new && !how.dry_run { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(key)).into_response())
}

pub(super) async fn retire(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(kid): Path<String>,
    how: Result<Query<How>, QueryRejection>,
) -> Result<Json<RetiredKey>, ApiError> {
    let Query(how) = how.map_err(invalid_query)?;
    Ok(Json(api.keys.retire(&kid, how.force, how.dry_run, &caller.actor()).await?))
}

pub(super) async fn custody(State(api): State<Arc<Api>>) -> Result<Json<Custody>, ApiError> {
    Ok(Json(api.keys.custody().await?))
}

fn invalid_query(error: QueryRejection) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "invalid_query", "Invalid query", error.body_text())
}

impl From<KeysError> for ApiError {
    fn from(error: KeysError) -> Self {
        let (status, code, title) = match &error {
            KeysError::Store(_) => (StatusCode::SERVICE_UNAVAILABLE, "", ""),
            KeysError::Key(_) => (StatusCode::BAD_REQUEST, "invalid_key", "Invalid edge key"),
            KeysError::Pool(_) => (StatusCode::BAD_REQUEST, "invalid_pool", "Invalid pool"),
            KeysError::Unknown(_) => (StatusCode::NOT_FOUND, "unknown_key", "Unknown edge key"),
            KeysError::Retired(_) => (StatusCode::CONFLICT, "retired_key", "Retired edge key"),
            KeysError::OtherPool(..) => (StatusCode::CONFLICT, "other_pool", "In another pool"),
            KeysError::TooMany => (StatusCode::CONFLICT, "too_many_keys", "Too many edge keys"),
            KeysError::Last(_) => (StatusCode::CONFLICT, "last_key", "Last edge key"),
            KeysError::Unreadable { .. } => (StatusCode::CONFLICT, "unreadable", "Bundles would be unreadable"),
            KeysError::Uncounted(_) => (StatusCode::CONFLICT, "uncounted", "Bundles are not counted yet"),
            KeysError::Busy => (StatusCode::CONFLICT, "busy", "Changed meanwhile"),
        };
        match error {
            KeysError::Store(error) => error.into(),
            error => Self::new(status, code, title, error.to_string()),
        }
    }
}
