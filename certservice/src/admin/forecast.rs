//! `/v1/forecast`: what renewals will take, and what an outage of the CAs would do. Looks only; nothing is changed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use contract::api::{Forecast, IssuerForecast, Outage, PlannedDay};
use http::StatusCode;
use serde::Deserialize;

use super::Api;
use super::problem::ApiError;
use crate::clock;
use crate::renew::{Load, Planned};

const DAY: u64 = 86_400;
/// Days that are told one by one.
const DAYS_SHOWN: u64 = 60;
pub(super) const OUTAGE_SECONDS_MAX: u64 = 365 * DAY;
/// Certificates that would end, told by name.
const NAMES_SHOWN: u32 = 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct If {
    ca_down_seconds: Option<u64>,
}

pub(super) async fn get(
    State(api): State<Arc<Api>>,
    condition: Result<Query<If>, QueryRejection>,
) -> Result<Json<Forecast>, ApiError> {
    let invalid = |says| ApiError::new(StatusCode::BAD_REQUEST, "invalid_query", "Invalid query", says);
    let Query(condition) = condition.map_err(|error| invalid(error.body_text()))?;
    let seconds = condition.ca_down_seconds.unwrap_or(0);
    if seconds > OUTAGE_SECONDS_MAX {
        return Err(invalid(format!("an outage of {seconds} s; at most {OUTAGE_SECONDS_MAX} are accepted")));
    }
    let now = clock::now();
    let (today, over) = (now / DAY, (now + seconds).div_ceil(DAY));
    let mut of_issuers: HashMap<String, Vec<Planned>> = HashMap::new();
    let mut days: BTreeMap<u64, u64> = BTreeMap::new();
    for (issuer, planned) in api.store.renewals_by_day().await? {
        *days.entry(planned.day.max(today)).or_default() += planned.count;
        of_issuers.entry(issuer).or_default().push(planned);
    }
    let (mut issuers, mut held_up, mut catch_up_days) = (Vec::new(), 0, 0);
    for state in api.store.issuers().await? {
        let planned = of_issuers.remove(&state.name).unwrap_or_default();
        let certificates: u64 = planned.iter().map(|planned| planned.count).sum();
        let load = Load::new(planned);
        if seconds > 0 {
            held_up += load.before(over);
            catch_up_days = load.catch_up_days(over).max(catch_up_days);
        }
        let limit = api.limits.get(&state.name).and_then(|limits| limits.orders);
        issuers.push(IssuerForecast {
            certificates,
            renewals_per_day: load.per_day(),
            renewals_per_day_max: load.pace(),
            due: load.before(today),
            orders_per_day_max: limit.map(|limit| limit.count * DAY / limit.seconds),
            in_line: api.store.in_line(&state.name).await?,
            replace_all_seconds: api.ms_per_order.get(&state.name).map(|ms| (certificates * ms).div_ceil(1000)),
            name: state.name,
        });
    }
    let (would_end, first) = api.store.ending(now, now + seconds, NAMES_SHOWN).await?;
    let day = |at| PlannedDay { at: at * DAY, renewals: days.get(&at).copied().unwrap_or(0) };
    Ok(Json(Forecast {
        at: now,
        issuers,
        days: (today..today + DAYS_SHOWN).map(day).collect(),
        ended: api.store.ended(now).await?,
        soonest_end: api.store.soonest_end(now).await?,
        outage: Outage { seconds, would_end, first, held_up, catch_up_days },
    }))
}
