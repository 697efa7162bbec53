//! `/v1/domains`: registering domains and seeing where they stand.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Extension, Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::{Json, body};
use contract::Hostname;
use contract::api::{Domain, DomainPage, PutDomain, State as DomainState};
use http::StatusCode;
use serde::Deserialize;

use super::access::Caller;
use super::problem::ApiError;
use super::{Api, BODY_BYTES_MAX};
use crate::config::is_tenant;
use crate::order::Job;
use crate::store::Registered;
use crate::{challenge, clock};

const PAGE_DEFAULT: u32 = 100;
const PAGE_MAX: u32 = 1000;
const BODY_SECONDS_MAX: u64 = 10;
const DEFAULT_TENANT: &str = "default";

pub(super) async fn put(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    request: axum::extract::Request,
) -> Result<Response, ApiError> {
    let name = hostname(&name)?;
    let wanted = read_body(request).await?;
    let tenant = tenant(&caller, wanted.tenant)?;
    let issuer = issuer(&api, wanted.issuer.as_ref())?;
    let job = Job::new(name, issuer, 0, clock::now());
    match api.store.register(tenant.as_deref().unwrap_or(DEFAULT_TENANT), &job).await? {
        Registered::New(domain) => {
            tracing::info!(domain = %domain.name, domain.tenant, domain.issuer, "domain registered");
            api.wake.notify_one();
            Ok((StatusCode::CREATED, Json(domain)).into_response())
        }
        Registered::Known(domain) => {
            if tenant.is_some_and(|tenant| tenant != domain.tenant) {
                let says = format!("{} belongs to another tenant", domain.name);
                return Err(ApiError::new(StatusCode::CONFLICT, "domain_taken", "Domain taken", says));
            }
            if wanted.issuer.is_some_and(|wanted| wanted != domain.issuer) {
                let says = format!("{} is with issuer `{}`, which can't be changed here", domain.name, domain.issuer);
                return Err(ApiError::new(StatusCode::CONFLICT, "other_issuer", "Other issuer", says));
            }
            Ok(Json(lift(&api, &caller, domain).await?).into_response())
        }
    }
}

/// A domain that was refused for good gets another order when an operator asks for it.
async fn lift(api: &Api, caller: &Caller, domain: Domain) -> Result<Domain, ApiError> {
    if domain.state != DomainState::Blocked || caller.tenant().is_some() {
        return Ok(domain);
    }
    let job = Job::new(domain.name.clone(), domain.issuer.clone(), 0, clock::now());
    if api.store.enqueue(&job).await? {
        api.wake.notify_one();
    }
    Ok(domain)
}

pub(super) async fn get(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<Domain>, ApiError> {
    let name = hostname(&name)?;
    let domain = api.store.domain(&name).await?;
    // Somebody else's domain looks like none.
    let domain = domain.filter(|domain| caller.tenant().is_none_or(|tenant| tenant == domain.tenant));
    domain.map(Json).ok_or_else(|| unknown_domain(&name))
}

/// Off-boards a domain.
pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    let name = hostname(&name)?;
    // A task of its own: a caller who hangs up half-way must not keep the edges from hearing of it.
    let gone = tokio::spawn(off_board(api, name, caller.tenant().map(str::to_owned)));
    gone.await.map_err(|error| {
        tracing::error!(%error, "off-boarding a domain ended badly");
        let says = "off-boarding ended badly; see CertService's log";
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "Internal error", says)
    })?
}

async fn off_board(api: Arc<Api>, name: Hostname, tenant: Option<String>) -> Result<StatusCode, ApiError> {
    let domain = api.store.domain(&name).await?;
    let domain = domain.filter(|domain| tenant.is_none_or(|tenant| tenant == domain.tenant));
    let domain = domain.ok_or_else(|| unknown_domain(&name))?;
    let gone = api.store.off_board(&name, &domain.tenant).await?.ok_or_else(|| unknown_domain(&name))?;
    tracing::info!(%name, domain.tenant, "domain off-boarded");
    api.notify.bundle_over(&name).await;
    challenge::withdraw(&gone.answers, &api.notify).await;
    if let Some(cursor) = gone.cursor {
        api.notify.changes(cursor).await;
    }
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
pub(super) struct Page {
    after: Option<String>,
    limit: Option<String>,
}

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Query(page): Query<Page>,
) -> Result<Json<DomainPage>, ApiError> {
    let after = page.after.as_deref().map(hostname).transpose()?;
    let after = after.as_ref().map_or("", Hostname::as_str);
    let limit = page.limit.map_or(Ok(PAGE_DEFAULT), |limit| limit.parse());
    let limit = limit.ok().filter(|limit| (1..=PAGE_MAX).contains(limit)).ok_or_else(|| {
        let says = format!("limit must be 1 to {PAGE_MAX}");
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_limit", "Invalid limit", says)
    })?;
    let mut domains = api.store.domains(caller.tenant(), after, limit + 1).await?;
    let more = domains.len() > limit as usize;
    domains.truncate(limit as usize);
    let next = domains.last().filter(|_| more).map(|domain| domain.name.clone());
    Ok(Json(DomainPage { domains, next }))
}

pub(super) fn hostname(text: &str) -> Result<Hostname, ApiError> {
    let invalid = |error: contract::hostname::HostnameError| {
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_name", "Invalid host name", error.to_string())
    };
    Hostname::parse(text).map_err(invalid)
}

pub(super) fn unknown_domain(name: &Hostname) -> ApiError {
    let says = format!("{name} is not registered; PUT /v1/domains/{name} registers it");
    ApiError::new(StatusCode::NOT_FOUND, "unknown_domain", "Unknown domain", says)
}

async fn read_body(request: axum::extract::Request) -> Result<PutDomain, ApiError> {
    let read = body::to_bytes(request.into_body(), BODY_BYTES_MAX);
    let read = tokio::time::timeout(Duration::from_secs(BODY_SECONDS_MAX), read).await.map_err(|_| {
        let says = format!("the body did not arrive within {BODY_SECONDS_MAX} s");
        ApiError::new(StatusCode::REQUEST_TIMEOUT, "body_too_slow", "Body too slow", says)
    })?;
    let bytes = read.map_err(|_| {
        let says = format!(
            "the body is not to be read, or more than {BODY_BYTES_MAX} bytes, which is the most that is accepted"
        );
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "Body too large", says)
    })?;
    if bytes.is_empty() {
        return Ok(PutDomain::default());
    }
    serde_json::from_slice(&bytes).map_err(|error| {
        let says = format!("the body is not as expected: {error}; it may be empty or have `tenant` and `issuer`");
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_body", "Invalid body", says)
    })
}

/// The tenant that the caller speaks for; an operator may leave it open.
fn tenant(caller: &Caller, wanted: Option<String>) -> Result<Option<String>, ApiError> {
    match (caller.tenant(), wanted) {
        (Some(own), Some(wanted)) if own != wanted => {
            let says = format!("this token is for tenant `{own}` only");
            Err(ApiError::new(StatusCode::FORBIDDEN, "forbidden", "Forbidden", says))
        }
        (Some(own), _) => Ok(Some(own.to_owned())),
        (None, Some(wanted)) if !is_tenant(&wanted) => {
            let says = "a tenant is 1 to 64 characters of A-Z a-z 0-9 . _ -";
            Err(ApiError::new(StatusCode::BAD_REQUEST, "invalid_tenant", "Invalid tenant", says))
        }
        (None, wanted) => Ok(wanted),
    }
}

fn issuer(api: &Api, wanted: Option<&String>) -> Result<String, ApiError> {
    let name = wanted.or(api.issuers.first());
    let known = name.filter(|name| api.issuers.contains(name));
    known.cloned().ok_or_else(|| {
        let says = format!("there is no such issuer; there are: {}", api.issuers.join(", "));
        ApiError::new(StatusCode::BAD_REQUEST, "unknown_issuer", "Unknown issuer", says)
    })
}
