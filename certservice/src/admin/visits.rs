//! Visitors that came for a domain without a certificate: what they bring about, and how that is shown.

use contract::api::{Domain, State, Who};
use http::StatusCode;

use super::Api;
use super::problem::ApiError;
use super::verbs::first_order;
use crate::budget::Shortage;
use crate::clock;
use crate::order::AWAITED;
use crate::store::Visited;

/// For a certificate that is being obtained: an edge lets its visitor wait for it.
const COMING_SECONDS: u64 = 1;
/// For one that is not: the visitor is told so.
const RETRY_SECONDS_MIN: u64 = 2;
const RETRY_SECONDS_MAX: u64 = 60;

/// Why an edge gets no certificate, and when it is to ask again.
pub(super) async fn visited(api: &Api, domain: Domain, now: u64) -> Result<ApiError, ApiError> {
    let first = first_order(&domain, now).visited(now);
    let visited = api.store.visit(&domain, &first, api.first_visits, now).await?;
    let result = match &visited {
        Visited::Coming { begun: true } => {
            tracing::info!(domain = %domain.name, domain.tenant, "a first visitor has come: a certificate is ordered");
            api.wake.notify_one();
            "ordered"
        }
        Visited::Short(_) => "limit_reached",
        Visited::Covered(_) => "covered",
        Visited::Coming { begun: false } | Visited::Waits => "",
    };
    if !result.is_empty() {
        api.metrics.first_visits.with_label_values(&[result]).inc();
    }
    let later = |at: Option<u64>| at.unwrap_or(0).saturating_sub(now).clamp(RETRY_SECONDS_MIN, RETRY_SECONDS_MAX);
    let next_check_at = domain.next_check_at;
    let (retry, domain) = match visited {
        Visited::Coming { .. } => (COMING_SECONDS, domain),
        Visited::Waits => (later(next_check_at), domain),
        Visited::Short(short) => (later(Some(short.until)), short_of_visits(domain, &short)),
        Visited::Covered(wildcard) => (RETRY_SECONDS_MAX, covered(domain, &wildcard)),
    };
    let says = format!("{} has no certificate yet ({}): {}", domain.name, domain.code, domain.says);
    Ok(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "not_issued", "Not issued yet", says).retry_after(retry))
}

/// A domain that waits for its first visitor, with what would keep that one waiting.
pub(super) async fn shown(api: &Api, domain: Domain) -> Result<Domain, ApiError> {
    let now = clock::now();
    if domain.code != AWAITED || domain.state != State::Working {
        return Ok(domain);
    }
    if let Some(wildcard) = api.store.covered_by(&domain.name, &domain.tenant, now).await? {
        return Ok(covered(domain, &wildcard));
    }
    Ok(match api.store.first_visits_short(&domain.tenant, api.first_visits, now).await? {
        Some(short) => short_of_visits(domain, &short),
        None => domain,
    })
}

fn covered(domain: Domain, wildcard: &str) -> Domain {
    let says = format!("visitors get the certificate of {wildcard}: none of its own is ordered");
    instead(domain, "covered_by_wildcard", says, None)
}

fn short_of_visits(domain: Domain, short: &Shortage) -> Domain {
    let says = format!("{}; the next one is free at {} (Unix seconds)", short.says(), short.until);
    let fix = "nothing: visitors bring orders again by themselves; sooner with `order` `now` for the domain, or where an operator \
        raises the limit";
    Domain { next_check_at: Some(short.until), ..instead(domain, "first_visits_used_up", says, Some(fix)) }
}

fn instead(mut domain: Domain, code: &str, says: String, fix: Option<&str>) -> Domain {
    for step in domain.steps.iter_mut().filter(|step| step.code == AWAITED) {
        (step.code, step.says, step.fix) = (code.to_owned(), says.clone(), fix.map(str::to_owned));
    }
    Domain { code: code.to_owned(), says, who: Who::Nobody, ..domain }
}
