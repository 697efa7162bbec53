//! What edges ask for: bundles, answers to challenges, keys of session tickets, signed.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use contract::signed::{Payload, sign};
use http::StatusCode;
use http::header::CONTENT_TYPE;

use super::domains::{hostname, unknown_domain};
use super::problem::ApiError;
use super::{Api, visits};
use crate::{challenge, clock};

pub(super) async fn bundle(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Result<Response, ApiError> {
    let name = hostname(&name)?;
    let now = clock::now();
    let Some(bundle) = api.store.bundle(&name).await? else {
        let domain = api.store.domain(&name).await?.ok_or_else(|| unknown_domain(&name))?;
        // An edge asks because somebody has come.
        return Err(visits::visited(&api, domain, now).await?);
    };
    let token = signed(&api, &bundle)?;
    api.notify.refill(bundle, token.clone(), now);
    Ok(jose(token))
}

/// The sealed keys of session tickets.
pub(super) async fn ticket_keys(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    match api.store.ticket_keys().await? {
        Some(keys) => Ok(jose(signed(&api, &keys)?)),
        None => {
            let says = "the first session ticket keys are not made yet; ask again in a moment";
            Err(ApiError::new(StatusCode::NOT_FOUND, "no_ticket_keys", "No ticket keys", says))
        }
    }
}

pub(super) async fn challenge(
    State(api): State<Arc<Api>>,
    Path((name, token)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let name = hostname(&name)?;
    let now = clock::now();
    let own = challenge::find_self_check(&name, &token, api.signing_key.kid(), now);
    let found = match own {
        Some(own) => Some(own),
        None => challenge::find(&api.store, &name, &token, now).await?,
    };
    match found {
        Some(answer) => Ok(jose(signed(&api, &answer)?)),
        None => {
            let says = format!("no order of {name} waits for this token");
            Err(ApiError::new(StatusCode::NOT_FOUND, "unknown_challenge", "Unknown challenge", says))
        }
    }
}

/// The answer to a tls-alpn-01 challenge.
pub(super) async fn tls_challenge(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Result<Response, ApiError> {
    let name = hostname(&name)?;
    match challenge::find_tls(&api.store, &name, clock::now()).await? {
        Some(answer) => Ok(jose(signed(&api, &answer)?)),
        None => {
            let says = format!("no order of {name} waits for a tls-alpn-01 challenge");
            Err(ApiError::new(StatusCode::NOT_FOUND, "unknown_challenge", "Unknown challenge", says))
        }
    }
}

pub(super) fn signed<T: Payload>(api: &Api, payload: &T) -> Result<String, ApiError> {
    sign(payload, &api.signing_key).map_err(|error| {
        tracing::error!(%error, "signing failed");
        let says = "signing failed; see CertService's log";
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "Internal error", says)
    })
}

fn jose(token: String) -> Response {
    ([(CONTENT_TYPE, "application/jose")], token).into_response()
}
