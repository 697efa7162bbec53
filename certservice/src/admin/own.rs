//! `/v1/domains/{name}/certificate`: what is served, and certificates that somebody brings along. The private key of one is
//! sealed before anything else is done with it; nothing of a body is logged.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Path, Request, State};
use axum::response::{IntoResponse, Response};
use contract::Hostname;
use contract::api::{BringCertificate, CertificatePage, Domain, Fault, RenewalWindow};
use http::StatusCode;
use zeroize::Zeroize;

use super::Api;
use super::access::Caller;
use super::body::{self, to_the_end};
use super::domains::{hostname, unknown_domain};
use super::problem::ApiError;
use crate::clock;
use crate::intake::Wanted;
use crate::issue::{Own, OwnFault, beside, pem, read_own};
use crate::order::Job;
use crate::renew::{Window, own};
use crate::store::{OWN, Upload, Uploaded};

/// Two chains of 8 certificates and a key of RSA-4096 each, in PEM, with room.
const BODY_BYTES_MAX: usize = 256 * 1024;
const BODY_SECONDS_MAX: u64 = 30;

pub(super) async fn put(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    if !api.confidential {
        let says = "a private key is taken over TLS or a Unix socket only: set listen.tls";
        return Err(ApiError::new(StatusCode::FORBIDDEN, "plain_connection", "Connection in clear", says));
    }
    let mut brought = brought(request).await?;
    let wanted = Wanted { name, tenant: brought.tenant.take(), ..Wanted::default() };
    let entry = api.rules.admit_own(caller.tenant(), wanted)?;
    let now = clock::now();
    let own = read_own(&brought.chain, &brought.key, &entry.name, now);
    brought.key.zeroize();
    let second = brought.rsa.as_mut().map(|second| {
        let read = read_own(&second.chain, &second.key, &entry.name, now);
        second.key.zeroize();
        read
    });
    let own = beside(own, second).map_err(invalid_certificate)?;
    // The edges are to hear of it, whoever hangs up.
    to_the_end("taking the certificate", serve(api, caller, entry.name, entry.tenant, own, now)).await
}

async fn brought(request: Request) -> Result<BringCertificate, ApiError> {
    let bytes = body::read(request.into_body(), BODY_BYTES_MAX, BODY_SECONDS_MAX).await?;
    // A list would be taken for the fields in their order.
    let is_object = bytes.trim_ascii_start().starts_with(b"{");
    let brought = serde_json::from_slice(&bytes);
    // Ours alone, as a rule: then it can be wiped.
    if let Ok(mut bytes) = bytes.try_into_mut() {
        bytes.as_mut().zeroize();
    }
    brought.ok().filter(|_| is_object).ok_or_else(|| {
        // What the parser says may quote the body.
        let says =
            "the body is JSON with `chain` and `key`, both PEM, and optionally `rsa` with the same two, and `tenant`";
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_body", "Invalid body", says)
    })
}

fn invalid_certificate(faults: Vec<OwnFault>) -> ApiError {
    let detail = match faults.len() {
        1 => "it is not served: there is a fault".to_owned(),
        count => format!("it is not served: there are {count} faults"),
    };
    let fault = |OwnFault { at, says }| Fault { at, line: None, column: None, says, hint: None };
    let error = ApiError::new(StatusCode::BAD_REQUEST, "invalid_certificate", "Invalid certificate", detail);
    error.with(faults.into_iter().map(fault).collect())
}

async fn serve(
    api: Arc<Api>,
    caller: Caller,
    name: Hostname,
    tenant: String,
    (own, second): (Own, Option<Own>),
    now: u64,
) -> Result<Response, ApiError> {
    let (bundle, shown) = api.hands.seal_own(&name, &own, second.as_ref()).await.map_err(|failure| {
        tracing::error!(domain = %name, says = failure.says, "a certificate that was brought along can't be sealed");
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "Internal error", failure.says)
    })?;
    drop((own, second));
    let (status, warn_at) = own::standing(bundle.not_before, bundle.not_after, now);
    let answers = api.store.job_answers(&name).await?;
    let upload = Upload {
        tenant: &tenant,
        bundle: &bundle,
        shown: &shown,
        status: &status,
        warn_at,
        names_max: api.rules.names_max,
        actor: &caller.actor(),
        now,
    };
    let (cursor, bundle, new) = match api.store.upload(&upload).await? {
        Uploaded::Served { cursor, bundle, new } => (cursor, bundle, new),
        Uploaded::Taken => {
            let says = format!("{name} belongs to another tenant");
            return Err(ApiError::new(StatusCode::CONFLICT, "domain_taken", "Domain taken", says));
        }
        Uploaded::TooMany => return Err(api.rules.too_many(&name).into()),
    };
    tracing::info!(domain = %name, tenant, revision = bundle.revision, "a certificate was uploaded");
    api.hands.forget(&name);
    api.hands.clean_up(answers);
    api.notify.bundle(&bundle, now).await;
    api.notify.changes(cursor).await;
    let domain = api.store.domain(&name).await?.ok_or_else(|| unknown_domain(&name))?;
    let status = if new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(api.links.with(domain))).into_response())
}

async fn of_caller(api: &Api, caller: &Caller, name: &str) -> Result<Domain, ApiError> {
    let name = hostname(name)?;
    let domain = api.store.domain(&name).await?;
    let domain = domain.filter(|domain| caller.tenant().is_none_or(|tenant| tenant == domain.tenant));
    domain.ok_or_else(|| unknown_domain(&name))
}

/// What is served, its chain, and when it is replaced. Never the key.
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<CertificatePage>, ApiError> {
    let domain = of_caller(&api, &caller, &name).await?;
    let bundle = api.store.bundle(&domain.name).await?;
    let (Some(certificate), Some(bundle)) = (domain.certificate, bundle) else {
        let says = format!("{} has no certificate", domain.name);
        return Err(ApiError::new(StatusCode::NOT_FOUND, "not_issued", "Not issued", says));
    };
    let plan = api.store.replacement(&domain.name).await?;
    let chain = bundle.chain().unwrap_or_default();
    Ok(Json(CertificatePage {
        name: domain.name,
        issuer: domain.issuer,
        certificate,
        rsa: bundle.rsa.is_some(),
        renew_at: plan.renew_at,
        window: plan.window.map(|Window { start, end }| RenewalWindow { start, end }),
        ari_id: plan.ari_id,
        ask_at: plan.ask_at,
        warn_at: plan.warn_at,
        chain: chain.iter().map(|der| pem(der)).collect(),
    }))
}

/// Back to the issuers.
pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    let domain = of_caller(&api, &caller, &name).await?;
    let served = domain.certificate.as_ref().map_or(0, |certificate| certificate.revision);
    let first = domain.issuers.first().or(api.rules.preferred.first()).cloned().unwrap_or_default();
    let job = Job::instead_of_own(&domain, first, served, clock::now());
    if domain.issuer != OWN || !api.store.give_up_own(&job, &caller.actor()).await? {
        let says = format!(
            "the certificate of {} is from issuer `{}`; only an uploaded one is removed",
            domain.name, domain.issuer
        );
        return Err(ApiError::new(StatusCode::CONFLICT, "not_own", "Not uploaded", says));
    }
    tracing::info!(domain = %domain.name, domain.tenant, "an uploaded certificate is given up for one of the issuers'");
    api.wake.notify_one();
    let domain = api.store.domain(&domain.name).await?.unwrap_or(domain);
    Ok((StatusCode::ACCEPTED, Json(api.links.with(domain))).into_response())
}
