//! `/v1/budgets`: what the CAs' limits leave, before it is spent.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use contract::Hostname;
use contract::api::{Budget, BudgetPage, IssuerBudgets};
use http::StatusCode;
use serde::Deserialize;

use super::Api;
use super::domains::hostname;
use super::problem::ApiError;
use crate::budget::{FullAt, Limit, Limits, Name};
use crate::clock;
use crate::store::{IssuerState, Store, StoreError};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Of {
    domain: Option<String>,
}

/// Of the accounts; with `?domain=` also what is counted by that domain.
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    of: Result<Query<Of>, QueryRejection>,
) -> Result<Json<BudgetPage>, ApiError> {
    let Query(of) = of
        .map_err(|error| ApiError::new(StatusCode::BAD_REQUEST, "invalid_query", "Invalid query", error.body_text()))?;
    let domain = of.domain.as_deref().map(hostname).transpose()?;
    let first_visits = of_tenant(&api, Name::FirstVisits, api.first_visits, domain.as_ref()).await?;
    let renews = of_tenant(&api, Name::Renews, api.renews, domain.as_ref()).await?;
    Ok(Json(BudgetPage { issuers: of_issuers(&api, domain.as_ref()).await?, first_visits, renews }))
}

/// Of the tenant that a domain belongs to.
async fn of_tenant(
    api: &Api,
    name: Name,
    limit: Option<Limit>,
    domain: Option<&Hostname>,
) -> Result<Option<Budget>, StoreError> {
    let (Some(limit), Some(domain)) = (limit, domain) else { return Ok(None) };
    let Some(domain) = api.store.domain(domain).await? else { return Ok(None) };
    let full_at = api.store.full_at("", name, &domain.tenant).await?;
    Ok(Some(budget(name, domain.tenant, limit, full_at, clock::now())))
}

pub(super) async fn of_issuers(api: &Api, domain: Option<&Hostname>) -> Result<Vec<IssuerBudgets>, StoreError> {
    let mut issuers = Vec::new();
    for state in api.store.issuers().await? {
        let limits = api.limits.get(&state.name).copied().unwrap_or_default();
        issuers.push(of_issuer(&api.store, state, limits, domain, clock::now()).await?);
    }
    Ok(issuers)
}

async fn of_issuer(
    store: &Store,
    state: IssuerState,
    limits: Limits,
    domain: Option<&Hostname>,
    now: u64,
) -> Result<IssuerBudgets, StoreError> {
    let closed = state.closed_until > now;
    Ok(IssuerBudgets {
        limits: of_limits(store, &state.name, limits, domain, now).await?,
        in_line: store.in_line(&state.name).await?,
        closed_until: closed.then_some(state.closed_until),
        code: closed.then_some(state.code),
        says: closed.then_some(state.says),
        name: state.name,
    })
}

async fn of_limits(
    store: &Store,
    issuer: &str,
    limits: Limits,
    domain: Option<&Hostname>,
    now: u64,
) -> Result<Vec<Budget>, StoreError> {
    let mut budgets = Vec::new();
    for name in Name::ALL {
        let scope = match (name, domain) {
            (Name::Orders, _) => String::new(),
            (_, None) => continue,
            (_, Some(domain)) => Limits::scope(name, domain),
        };
        let Some(limit) = limits.of(name) else { continue };
        let full_at = store.full_at(issuer, name, &scope).await?;
        budgets.push(budget(name, scope, limit, full_at, now));
    }
    Ok(budgets)
}

fn budget(name: Name, scope: String, limit: Limit, full_at: FullAt, now: u64) -> Budget {
    let left = limit.left(full_at, now * 1000);
    Budget {
        limit: name.as_str().to_owned(),
        scope,
        count: limit.count,
        seconds: limit.seconds,
        left,
        next_at: (left == 0).then(|| limit.free_at(full_at, now * 1000).div_ceil(1000)),
    }
}
