//! `/v1/rewrap`: bundles go to an edge that can open them, and come back with entries for other edge keys.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, Request, State};
use contract::api::{PROOF_HEADER, REWRAP_MAX, RewrapItem, RewrapOutcome, RewrapPage, Rewrapped};
use http::StatusCode;
use serde::Deserialize;

use super::Api;
use super::access::Caller;
use super::body;
use super::edges::signed;
use super::problem::ApiError;
use crate::clock;
use crate::keys::{Offered, RewrapError};

/// Of so many bundles with two certificates, each with new entries for 15 keys of 4096 bits, with room.
const BODY_BYTES_MAX: usize = 1024 * 1024;
const BODY_SECONDS_MAX: u64 = 30;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    kid: String,
    #[serde(default)]
    to: String,
    #[serde(default)]
    after: String,
    limit: Option<String>,
}

pub(super) async fn offer(
    State(api): State<Arc<Api>>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Json<RewrapPage>, ApiError> {
    let invalid = |says: String| ApiError::new(StatusCode::BAD_REQUEST, "invalid_query", "Invalid query", says);
    let Query(Wanted { kid, to, after, limit }) = wanted.map_err(|error| invalid(error.body_text()))?;
    let limit = limit.map_or(Ok(REWRAP_MAX), |text| {
        let says = || format!("limit is `{}`; it must be 1 to {REWRAP_MAX}", text.chars().take(64).collect::<String>());
        text.parse().ok().filter(|limit| (1..=REWRAP_MAX).contains(limit)).ok_or_else(|| invalid(says()))
    })?;
    let to: Vec<_> = to.split(',').filter(|kid| !kid.is_empty()).collect();
    let Offered { bundles, next, challenge } = api.keys.offer(&kid, &to, &after, limit, clock::now()).await?;
    let item = |(bundle, version)| Ok::<_, ApiError>(RewrapItem { token: signed(&api, &bundle)?, version });
    let bundles = bundles.into_iter().map(item).collect::<Result<_, _>>()?;
    Ok(Json(RewrapPage { bundles, next, challenge }))
}

pub(super) async fn take(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<RewrapOutcome>, ApiError> {
    let proof =
        request.headers().get(PROOF_HEADER).and_then(|proof| proof.to_str().ok()).unwrap_or_default().to_owned();
    let body = body::read(request.into_body(), BODY_BYTES_MAX, BODY_SECONDS_MAX).await?;
    let invalid = |says: String| ApiError::new(StatusCode::BAD_REQUEST, "invalid_body", "Invalid body", says);
    // A list would be taken for the fields in their order.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(invalid("the body is no JSON object".to_owned()));
    }
    let brought: Rewrapped = serde_json::from_slice(&body)
        .map_err(|error| invalid(format!("the body is not what POST /v1/rewrap takes: {error}")))?;
    let now = clock::now();
    api.keys.check_proof(&brought.kid, &body, &proof, now)?;
    let (outcome, renewed) = api.keys.take(&brought, &caller.actor()).await?;
    // What Redis has of them the edges that these entries are for can't open.
    let notify = api.notify.clone();
    tokio::spawn(async move {
        for bundle in renewed {
            notify.bundle(&bundle, now).await;
        }
    });
    Ok(Json(outcome))
}

impl From<RewrapError> for ApiError {
    fn from(error: RewrapError) -> Self {
        let (status, code, title) = match error {
            RewrapError::Store(error) => return error.into(),
            RewrapError::Unknown(_) => (StatusCode::NOT_FOUND, "unknown_key", "Unknown edge key"),
            RewrapError::Proof(_) => (StatusCode::FORBIDDEN, "no_proof", "Proof does not fit"),
            RewrapError::TooMany(_) => (StatusCode::PAYLOAD_TOO_LARGE, "too_many_bundles", "Too many bundles"),
            RewrapError::Seal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "Internal error"),
        };
        Self::new(status, code, title, error.to_string())
    }
}
