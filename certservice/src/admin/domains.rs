//! `/v1/domains`: registering domains and seeing where they stand.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Path, Query, State};
use axum::response::{IntoResponse, Response};
use contract::Hostname;
use contract::api::{Domain, DomainPage, OrderWhen, PutDomain, State as DomainState};
use contract::journal::Detail;
use http::header::IF_NONE_MATCH;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::access::Caller;
use super::body::{self, to_the_end};
use super::problem::ApiError;
use super::verbs::first_order;
use super::{Api, BODY_BYTES_MAX, visits};
use crate::config::is_tenant;
use crate::intake::{self, Wanted};
use crate::order::Job;
use crate::store::{Ask, Asked, Filter, Registered, Wish};
use crate::{challenge, clock};

const PAGE_DEFAULT: u32 = 100;
pub(super) const PAGE_MAX: u32 = 1000;
const BODY_SECONDS_MAX: u64 = 10;

pub(super) async fn put(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    request: axum::extract::Request,
) -> Result<Response, ApiError> {
    let only_new = only_new(request.headers())?;
    let body: PutDomain = json_body(
        request,
        "it may be empty or have `tenant`, `issuer`, `issuers`, `profile`, `order`, `bulk` and `www`",
    )
    .await?;
    let to_tenant = caller.tenant().is_some() || body.tenant.is_some();
    let to_profile = body.profile.is_some();
    let to_order = body.order.is_some();
    let to_issuers = body.issuer.is_some() || body.issuers.is_some();
    let wanted = Wanted {
        name,
        tenant: body.tenant,
        issuer: body.issuer,
        issuers: body.issuers,
        profile: body.profile,
        www: body.www,
        order: body.order,
    };
    let entry = api.rules.admit(caller.tenant(), wanted)?;
    if let Some(profile) = &entry.profile {
        let issuers = if entry.issuers.is_empty() { &api.rules.preferred } else { &entry.issuers };
        if let Some(says) = api.hands.lacks_profile(issuers, profile).await {
            return Err(ApiError::new(StatusCode::BAD_REQUEST, "unknown_profile", "Unknown profile", says));
        }
    }
    let mut jobs = entry.jobs(body.bulk, clock::now()).into_iter();
    let Some(job) = jobs.next() else { return Err(unknown_domain(&entry.name)) };
    match api.store.register(&entry.tenant, &job, api.rules.names_max, &caller.actor()).await? {
        Registered::New(domain) => {
            tracing::info!(domain = %domain.name, domain.tenant, domain.issuer, "domain registered");
            if let Some(twin) = jobs.next() {
                register_twin(&api, &caller, &entry.tenant, &twin).await?;
            }
            tell_edges(&api, entry.order).await?;
            api.wake.notify_one();
            Ok((StatusCode::CREATED, Json(api.links.with(domain))).into_response())
        }
        Registered::Known(domain) if only_new => {
            let says = format!("{} is registered already, and `If-None-Match: *` asks for a new one", domain.name);
            Err(ApiError::new(StatusCode::PRECONDITION_FAILED, "domain_exists", "Domain exists", says))
        }
        Registered::Known(domain) => {
            if to_tenant && entry.tenant != domain.tenant {
                let says = format!("{} belongs to another tenant", domain.name);
                return Err(ApiError::new(StatusCode::CONFLICT, "domain_taken", "Domain taken", says));
            }
            let domain = match to_issuers && entry.issuers != domain.issuers {
                true => wish(&api, &caller, domain, Wish::Issuers(&entry.issuers)).await?,
                false => domain,
            };
            let domain = match to_profile && entry.profile != domain.profile {
                true => wish(&api, &caller, domain, Wish::Profile(entry.profile.as_deref())).await?,
                false => domain,
            };
            let domain = match to_order && entry.order != domain.order {
                true => order_when(&api, &caller, domain, entry.order).await?,
                false => domain,
            };
            if let Some(twin) = jobs.next() {
                register_twin(&api, &caller, &domain.tenant, &twin).await?;
            }
            Ok(Json(api.links.with(lift(&api, &caller, domain).await?)).into_response())
        }
        Registered::Taken => Err(taken(&entry.name)),
        Registered::TooMany => Err(api.rules.too_many(&entry.name).into()),
    }
}

fn taken(name: &Hostname) -> ApiError {
    ApiError::new(StatusCode::CONFLICT, "domain_taken", "Domain taken", intake::says_taken(name))
}

/// Asked again, what is missing comes: the two are not one.
async fn register_twin(api: &Api, caller: &Caller, tenant: &str, job: &Job) -> Result<(), ApiError> {
    match api.store.register(tenant, job, api.rules.names_max, &caller.actor()).await? {
        Registered::New(domain) => {
            tracing::info!(domain = %domain.name, domain.tenant, domain.issuer, "domain registered");
            api.wake.notify_one();
            Ok(())
        }
        Registered::Known(domain) if domain.tenant == tenant => Ok(()),
        Registered::Known(domain) => {
            let says = format!("{} belongs to another tenant; without `www` it is left alone", domain.name);
            Err(ApiError::new(StatusCode::CONFLICT, "domain_taken", "Domain taken", says))
        }
        Registered::Taken => Err(taken(&job.domain)),
        Registered::TooMany => Err(api.rules.too_many(&job.domain).into()),
    }
}

/// Whether `If-None-Match: *` insists on a domain that is not there yet (RFC 9110 section 13.1.2).
fn only_new(headers: &HeaderMap) -> Result<bool, ApiError> {
    match headers.get(IF_NONE_MATCH).map(|value| value.as_bytes().trim_ascii()) {
        None => Ok(false),
        Some(b"*") => Ok(true),
        Some(_) => {
            let says = "If-None-Match takes `*` only: domains have no ETag";
            Err(ApiError::new(StatusCode::BAD_REQUEST, "invalid_header", "Invalid header", says))
        }
    }
}

/// Other certificates from now on: what is served stays until it is renewed.
async fn wish(api: &Api, caller: &Caller, domain: Domain, wish: Wish<'_>) -> Result<Domain, ApiError> {
    if !api.store.wish(&domain.name, wish, &caller.actor()).await? {
        return Err(unknown_domain(&domain.name));
    }
    tracing::info!(domain = %domain.name, ?wish, "a domain wants other certificates");
    api.wake.notify_one();
    Ok(match wish {
        Wish::Issuers(issuers) => Domain { issuers: issuers.to_vec(), ..domain },
        Wish::Profile(profile) => Domain { profile: profile.map(str::to_owned), ..domain },
    })
}

/// When its first certificate is ordered, from now on.
async fn order_when(api: &Api, caller: &Caller, domain: Domain, when: OrderWhen) -> Result<Domain, ApiError> {
    let first = first_order(&domain, clock::now()).when(when);
    if !api.store.order_when(&domain.name, when, &first, &caller.actor()).await? {
        return Err(unknown_domain(&domain.name));
    }
    tracing::info!(domain = %domain.name, ?when, "a domain's first order has another time");
    tell_edges(api, when).await?;
    api.wake.notify_one();
    api.store.domain(&domain.name).await?.ok_or_else(|| unknown_domain(&domain.name))
}

/// Of names that are there before their certificates.
async fn tell_edges(api: &Api, order: OrderWhen) -> Result<(), ApiError> {
    if order == OrderWhen::FirstVisit {
        api.notify.changes(api.store.changes_head().await?).await;
    }
    Ok(())
}

/// A domain that was refused for good gets another order when an operator asks for it.
async fn lift(api: &Api, caller: &Caller, domain: Domain) -> Result<Domain, ApiError> {
    if domain.state != DomainState::Blocked || caller.tenant().is_some() {
        return Ok(domain);
    }
    let job = first_order(&domain, clock::now());
    let ask = Ask { actor: &caller.actor(), action: "domain.lifted", detail: &Detail::new(), takes: None };
    if api.store.order_now(&job, &ask).await? == Asked::Ordered {
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
    let domain = visits::shown(&api, domain.ok_or_else(|| unknown_domain(&name))?).await?;
    Ok(Json(api.links.with(domain)))
}

/// Off-boards a domain.
pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    let name = hostname(&name)?;
    // The edges are to hear of it, whoever hangs up.
    to_the_end("off-boarding the domain", off_board(api, name, caller)).await
}

async fn off_board(api: Arc<Api>, name: Hostname, caller: Caller) -> Result<StatusCode, ApiError> {
    let domain = api.store.domain(&name).await?;
    let domain = domain.filter(|domain| caller.tenant().is_none_or(|tenant| tenant == domain.tenant));
    let domain = domain.ok_or_else(|| unknown_domain(&name))?;
    let answers = api.store.job_answers(&name).await?;
    let gone =
        api.store.off_board(&name, &domain.tenant, &caller.actor()).await?.ok_or_else(|| unknown_domain(&name))?;
    tracing::info!(%name, domain.tenant, "domain off-boarded");
    api.hands.forget(&name);
    api.notify.bundle_over(&name).await;
    challenge::withdraw(&gone.answers, &api.notify).await;
    api.hands.clean_up(answers);
    if let Some(cursor) = gone.cursor {
        api.notify.changes(cursor).await;
    }
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    after: Option<String>,
    limit: Option<String>,
    state: Option<String>,
    tenant: Option<String>,
    expires_before: Option<String>,
}

/// In order of name or, of those that end before a time, in that order.
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<DomainPage>, ApiError> {
    let Query(page) = page.map_err(|error| invalid("query", error.body_text()))?;
    let limit = page.limit.map_or(Ok(PAGE_DEFAULT), |limit| limit.parse());
    let limit = limit.ok().filter(|limit| (1..=PAGE_MAX).contains(limit));
    let limit = limit.ok_or_else(|| invalid("limit", format!("limit must be 1 to {PAGE_MAX}")))?;
    let state = page.state.map(|text| {
        let says = "state must be working, action_needed, live or blocked".to_owned();
        serde_json::from_value::<DomainState>(text.into()).map_err(|_| invalid("state", says))
    });
    let tenant = tenant(&caller, page.tenant)?;
    let ends = page.expires_before.map(|text| {
        let says = "expires_before must be a time in Unix seconds".to_owned();
        text.parse::<u64>().map_err(|_| invalid("expires_before", says))
    });
    let ends = ends.transpose()?;
    let after = match (&page.after, ends) {
        (None, _) => (0, String::new()),
        (Some(after), None) => (0, hostname(after)?.to_string()),
        (Some(after), Some(_)) => {
            let cursor = after.split_once('~').and_then(|(end, name)| Some((end.parse().ok()?, name.to_owned())));
            cursor.ok_or_else(|| invalid("after", "after must be the `next` of the page before".to_owned()))?
        }
    };
    let filter = Filter { state: state.transpose()?, tenant: tenant.as_deref(), ends_before: ends };
    let mut domains = api.store.domains(&filter, (after.0, &after.1), limit + 1).await?;
    let more = domains.len() > limit as usize;
    domains.truncate(limit as usize);
    let next = domains.last().filter(|_| more).map(|domain| match (ends, &domain.certificate) {
        (Some(_), Some(certificate)) => format!("{}~{}", certificate.not_after, domain.name),
        _ => domain.name.to_string(),
    });
    Ok(Json(DomainPage { domains, next }))
}

fn invalid(what: &str, says: String) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, &format!("invalid_{what}"), &format!("Invalid {what}"), says)
}

pub(super) fn hostname(text: &str) -> Result<Hostname, ApiError> {
    let invalid = |error: contract::hostname::HostnameError| {
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_name", "Invalid host name", error.to_string())
    };
    Hostname::parse_domain(text).map_err(invalid)
}

pub(super) fn unknown_domain(name: &Hostname) -> ApiError {
    let says = format!("{name} is not registered; PUT /v1/domains/{name} registers it");
    ApiError::new(StatusCode::NOT_FOUND, "unknown_domain", "Unknown domain", says)
}

/// A body in JSON; none is as good as `{}`.
pub(super) async fn json_body<T: DeserializeOwned + Default>(
    request: axum::extract::Request,
    expected: &str,
) -> Result<T, ApiError> {
    let bytes = body::read(request.into_body(), BODY_BYTES_MAX, BODY_SECONDS_MAX).await?;
    if bytes.is_empty() {
        return Ok(T::default());
    }
    let invalid = |error: &str| {
        let says = format!("the body is not as expected: {error}; {expected}");
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_body", "Invalid body", says)
    };
    // A list would be taken for the fields in their order.
    if !bytes.trim_ascii_start().starts_with(b"{") {
        return Err(invalid("it is no JSON object"));
    }
    serde_json::from_slice(&bytes).map_err(|error| invalid(&error.to_string()))
}

/// The tenant that the caller speaks for; an operator may leave it open.
pub(super) fn tenant(caller: &Caller, wanted: Option<String>) -> Result<Option<String>, ApiError> {
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
