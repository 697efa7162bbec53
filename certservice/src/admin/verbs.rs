//! `POST /v1/domains/{name}:verb`: what is done to a domain beside keeping it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::response::{IntoResponse, Response};
use contract::Hostname;
use contract::api::{CheckReport, Domain, RevokeDomain, RevokeReason, State as DomainState};
use contract::journal::Detail;
use http::StatusCode;

use super::Api;
use super::access::Caller;
use super::body::to_the_end;
use super::domains::{hostname, json_body, unknown_domain};
use super::places::Places;
use super::problem::ApiError;
use crate::budget::{How, Shortage, Spend};
use crate::clock;
use crate::issue::Reason;
use crate::order::Job;
use crate::renew::order;
use crate::store::{Ask, Asked, OWN, Told};

/// Looks on behalf of requests that are under way at once; of one tenant.
const LOOKS_MAX: usize = 16;
const LOOKS_OF_TENANT_MAX: usize = 4;
const BUSY_SECONDS: u64 = 5;

static LOOKS: Places = Places::new("domains are being looked at", LOOKS_MAX, LOOKS_OF_TENANT_MAX, BUSY_SECONDS);

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
        return Err(own_certificate(&name));
    }
    match verb {
        "check" => check(&api, &caller, domain).await,
        "renew" => {
            let takes = takes(&api, &caller);
            renew(&api, &caller, domain, ("domain.renewal_asked", &Detail::new()), takes).await
        }
        "revoke" => {
            let wanted: RevokeDomain = json_body(request, "it may be empty or have `reason`").await?;
            // A new certificate is to be ordered, whoever hangs up.
            to_the_end("the revocation", async move { revoke(&api, &caller, domain, wanted).await }).await
        }
        _ => Err(unknown_verb()),
    }
}

/// How the domain looks now. Never contacts a CA, and changes nothing.
async fn check(api: &Api, caller: &Caller, domain: Domain) -> Result<Response, ApiError> {
    let _place = LOOKS.take(caller.tenant())?;
    let report = api.checks.look_anyway(&domain.issuer, &domain.name).await;
    let passed = report.fault().is_none();
    Ok(Json(CheckReport { name: domain.name, passed, steps: report.steps, checked_at: clock::now() }).into_response())
}

/// Of what an hour gives a tenant, where its own token asks for a certificate: what replaces one takes of no limit of the CA's.
fn takes(api: &Api, caller: &Caller) -> Option<Spend> {
    Some(Spend::renew(caller.tenant()?, api.renews?, How::Take))
}

/// An order now: the first one again, or one that replaces the certificate. The CA's limits hold. What was refused for good
/// waits for an operator.
async fn renew(
    api: &Api,
    caller: &Caller,
    domain: Domain,
    (action, detail): (&'static str, &Detail),
    takes: Option<Spend>,
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
    match api.store.order_now(&job, &Ask { actor: &caller.actor(), action, detail, takes }).await? {
        Asked::Ordered => {}
        Asked::Own => return Err(own_certificate(&domain.name)),
        Asked::Unknown => return Err(unknown_domain(&domain.name)),
        Asked::Short(short) => {
            let meanwhile =
                format!("{} is renewed by itself when it is time, and failed orders are tried again", domain.name);
            return Err(used_up(&short, now, &meanwhile));
        }
    }
    api.wake.notify_one();
    tracing::info!(domain = %domain.name, domain.tenant, "a new certificate was asked for");
    let domain = api.store.domain(&domain.name).await?.unwrap_or(domain);
    Ok((StatusCode::ACCEPTED, Json(domain)).into_response())
}

/// `meanwhile`: what is so until then.
fn used_up(short: &Shortage, now: u64, meanwhile: &str) -> ApiError {
    let seconds = short.until.saturating_sub(now).max(1);
    let says = format!(
        "{}; the next one is free at {} (Unix seconds), in {seconds} s. {meanwhile}; ask later, or an operator, who may ask at \
         any time and raise the limit",
        short.says(),
        short.until,
    );
    let error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, "renews_used_up", "Too many new certificates", says);
    error.retry_after(seconds)
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
    let (told, now) = (Told { actor: &actor, action, tenant, name, detail: detail.clone() }, clock::now());
    match takes(api, caller) {
        Some(takes) => api.store.tell_taking(&told, &takes, now).await?.map_err(|short| {
            let meanwhile = format!("the certificate of {name} was not revoked");
            used_up(&short, now, &meanwhile)
        })?,
        None => api.store.tell(&told).await?,
    }
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
    // It can't be undone, and has taken what it takes: another certificate comes.
    renew(api, caller, domain, ("certificate.revoked", &detail), None).await
}

fn own_certificate(name: &Hostname) -> ApiError {
    let says = format!(
        "the certificate of {name} was uploaded: upload another one, or DELETE /v1/domains/{name}/certificate for one of the issuers"
    );
    ApiError::new(StatusCode::CONFLICT, "own_certificate", "Uploaded certificate", says)
}

fn unknown_verb() -> ApiError {
    let says = "POST goes to /v1/domains/{name}:check, :renew or :revoke";
    ApiError::new(StatusCode::NOT_FOUND, "unknown_path", "Unknown path", says)
}
