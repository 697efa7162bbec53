//! `POST /v1/domains/{name}:verb`: what is done to a domain beside keeping it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::response::{IntoResponse, Response};
use contract::api::{CheckReport, Domain, RevokeDomain, RevokeReason, State as DomainState};
use contract::journal::Detail;
use http::StatusCode;
use tokio::sync::Semaphore;

use super::Api;
use super::access::Caller;
use super::body::to_the_end;
use super::domains::{hostname, json_body, unknown_domain};
use super::problem::ApiError;
use crate::clock;
use crate::issue::Reason;
use crate::order::Job;
use crate::renew::order;
use crate::store::{OWN, Told};

/// Looks on behalf of requests that are under way at once.
const LOOKS_MAX: usize = 16;
const BUSY_SECONDS: u64 = 5;

static LOOKS: Semaphore = Semaphore::const_new(LOOKS_MAX);

pub(super) async fn post(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(path): Path<String>,
    request: axum::extract::Request,
) -> Result<Response, ApiError> {
    let (name, verb) = path.rsplit_once(':').ok_or_else(unknown_verb)?;
    let name = hostname(name)?;
    let domain = api.store.domain(&name).await?;
    let domain = domain.filter(|domain| caller.tenant().is_none_or(|tenant| tenant == domain.tenant));
    let domain = domain.ok_or_else(|| unknown_domain(&name))?;
    if domain.issuer == OWN && verb != "check" {
        let says = format!(
            "the certificate of {name} was uploaded: upload another one, or DELETE /v1/domains/{name}/certificate for one of the issuers"
        );
        return Err(ApiError::new(StatusCode::CONFLICT, "own_certificate", "Uploaded certificate", says));
    }
    match verb {
        "check" => check(&api, domain).await,
        "renew" => renew(&api, &caller, domain, "domain.renewal_asked", &Detail::new()).await,
        "revoke" => {
            let wanted: RevokeDomain = json_body(request, "it may be empty or have `reason`").await?;
            // A new certificate is to be ordered, whoever hangs up.
            to_the_end("the revocation", async move { revoke(&api, &caller, domain, wanted).await }).await
        }
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

/// An order now: the first one again, or one that replaces the certificate. The CA's limits hold. What was refused for good
/// waits for an operator.
async fn renew(
    api: &Api,
    caller: &Caller,
    domain: Domain,
    action: &'static str,
    detail: &Detail,
) -> Result<Response, ApiError> {
    if domain.state == DomainState::Blocked && caller.tenant().is_some() {
        let says = format!("{} is blocked ({}): an operator has to lift it", domain.name, domain.code);
        return Err(ApiError::new(StatusCode::CONFLICT, "blocked", "Blocked", says));
    }
    let now = clock::now();
    let job = match api.store.renewal(&domain.name).await? {
        Some(renewal) => order(renewal, now),
        None => first_order(&domain, now),
    };
    if !api.store.order_now(&job, &caller.actor(), action, detail).await? {
        return Err(unknown_domain(&domain.name));
    }
    api.wake.notify_one();
    tracing::info!(domain = %domain.name, domain.tenant, "a new certificate was asked for");
    let domain = api.store.domain(&domain.name).await?.unwrap_or(domain);
    Ok((StatusCode::ACCEPTED, Json(domain)).into_response())
}

/// Of a domain without a certificate.
pub(super) fn first_order(domain: &Domain, now: u64) -> Job {
    let (issuers, profile) = (domain.issuers.clone(), domain.profile.clone());
    Job { issuers, profile, ..Job::new(domain.name.clone(), domain.issuer.clone(), 0, now) }
}

/// The CA takes the certificate back, with the RSA one beside it, and another one is ordered at once; edges serve the old one
/// until that is there.
async fn revoke(api: &Api, caller: &Caller, domain: Domain, wanted: RevokeDomain) -> Result<Response, ApiError> {
    let reason = match wanted.reason {
        RevokeReason::Unspecified => Reason::Unspecified,
        RevokeReason::KeyCompromise => Reason::KeyCompromise,
        RevokeReason::Superseded => Reason::Superseded,
        RevokeReason::CessationOfOperation => Reason::CessationOfOperation,
    };
    let conflict = |code, says: String| ApiError::new(StatusCode::CONFLICT, code, "Not revoked", says);
    let Some(bundle) = api.store.bundle(&domain.name).await? else {
        return Err(conflict("not_issued", format!("{} has no certificate", domain.name)));
    };
    let leaf = |chain: Result<Vec<_>, _>| chain.ok().and_then(|chain| chain.into_iter().next()).unwrap_or_default();
    let leaves = bundle.certificates().map(|(chain, _)| leaf(chain));
    let detail: Detail =
        [("reason".to_owned(), wanted.reason.as_str().into()), ("revision".to_owned(), bundle.revision.into())].into();
    // Before the CA is asked: what it does can't be undone, and must not be done untold.
    let (actor, action) = (caller.actor(), "certificate.revocation_asked");
    let (tenant, name) = (domain.tenant.as_str(), domain.name.as_str());
    api.store.tell(&Told { actor: &actor, action, tenant, name, detail: detail.clone() }).await?;
    for leaf in leaves {
        match api.hands.revoke(&bundle.issuer, &leaf, reason).await {
            Ok(true) => {}
            Ok(false) => {
                let says = format!("issuer `{}` can't take certificates back", bundle.issuer);
                return Err(conflict("not_revocable", says));
            }
            Err(failure) => {
                let says = format!("the CA did not revoke it: {}", failure.says);
                return Err(ApiError::new(StatusCode::BAD_GATEWAY, "ca_refused", "Not revoked", says));
            }
        }
    }
    tracing::warn!(domain = %domain.name, domain.tenant, revision = bundle.revision, "certificate revoked");
    renew(api, caller, domain, "certificate.revoked", &detail).await
}

fn unknown_verb() -> ApiError {
    let says = "POST goes to /v1/domains/{name}:check, :renew or :revoke";
    ApiError::new(StatusCode::NOT_FOUND, "unknown_path", "Unknown path", says)
}
