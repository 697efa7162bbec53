//! `POST /v1/domains/{name}:verb`: what is done to a domain beside keeping it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::response::{IntoResponse, Response};
use contract::api::{CheckReport, Domain};
use http::StatusCode;
use tokio::sync::Semaphore;

use super::Api;
use super::access::Caller;
use super::domains::{hostname, unknown_domain};
use super::problem::ApiError;
use crate::clock;

/// Looks on behalf of requests that are under way at once.
const LOOKS_MAX: usize = 16;
const BUSY_SECONDS: u64 = 5;

static LOOKS: Semaphore = Semaphore::const_new(LOOKS_MAX);

pub(super) async fn post(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(path): Path<String>,
) -> Result<Response, ApiError> {
    let (name, verb) = path.rsplit_once(':').ok_or_else(unknown_verb)?;
    let name = hostname(name)?;
    let domain = api.store.domain(&name).await?;
    let domain = domain.filter(|domain| caller.tenant().is_none_or(|tenant| tenant == domain.tenant));
    let domain = domain.ok_or_else(|| unknown_domain(&name))?;
    match verb {
        "check" => check(&api, domain).await,
        _ => Err(unknown_verb()),
    }
}

/// How the domain looks now. Never contacts a CA, and changes nothing.
async fn check(api: &Api, domain: Domain) -> Result<Response, ApiError> {
    let Ok(_permit) = LOOKS.try_acquire() else {
        let says = format!("{LOOKS_MAX} domains are being looked at already; try again");
        let busy = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "Busy", says);
        return Err(busy.retry_after(BUSY_SECONDS));
    };
    let report = api.checks.look_anyway(&domain.issuer, &domain.name).await;
    let passed = report.fault().is_none();
    Ok(Json(CheckReport { name: domain.name, passed, steps: report.steps, checked_at: clock::now() }).into_response())
}

fn unknown_verb() -> ApiError {
    let says = "POST goes to /v1/domains/{name}:check";
    ApiError::new(StatusCode::NOT_FOUND, "unknown_path", "Unknown path", says)
}
