//! What the CAs' limits leave, and what renewals will take.

use serde::{Deserialize, Serialize};

use crate::Hostname;

/// Answer of `GET /v1/budgets`: what the CAs' limits leave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct BudgetPage {
    pub issuers: Vec<IssuerBudgets>,
    /// With `domain`: orders that first visits may bring to its tenant. No CA counts them; absent where there is no such limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_visits: Option<Budget>,
    /// With `domain`: new certificates that its tenant may ask for. Absent where there is no such limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renews: Option<Budget>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct IssuerBudgets {
    pub name: String,
    /// Unix seconds; no order leaves to it before. Absent while it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_until: Option<u64>,
    /// Why it is closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub says: Option<String>,
    /// Orders that were looked at and wait for the budget, for the issuer or for a place.
    pub in_line: u64,
    pub limits: Vec<Budget>,
}

/// One limit of a CA: `count` in `seconds`, refilled evenly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Budget {
    /// `orders`, `certificates_per_domain`, `certificates_per_set`, `failures_per_name`, `consecutive_failures`, `first_visits`, `renews`.
    pub limit: String,
    /// What it is counted by: empty for the account, a registered domain, a host name, a tenant.
    pub scope: String,
    pub count: u64,
    pub seconds: u64,
    pub left: u64,
    /// Unix seconds; when there is one again. Absent while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_at: Option<u64>,
}

/// Answer of `GET /v1/forecast`: what renewals will take, and what an outage of the CAs would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Forecast {
    /// Unix seconds.
    pub at: u64,
    pub issuers: Vec<IssuerForecast>,
    /// Renewals of all issuers, of the days from today.
    pub days: Vec<PlannedDay>,
    /// Certificates that have ended, and are not replaced.
    pub ended: u64,
    /// Unix seconds; of those that have not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soonest_end: Option<u64>,
    pub outage: Outage,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct IssuerForecast {
    pub name: String,
    pub certificates: u64,
    /// Renewals that its certificates need by their lifetimes.
    pub renewals_per_day: u64,
    /// Most renewals that begin in a day while they can wait.
    pub renewals_per_day_max: u64,
    /// Their time has come.
    pub due: u64,
    /// New orders that the CA's limit lets leave in a day; absent without a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orders_per_day_max: Option<u64>,
    /// If all its certificates had to be replaced at once, such as after it has revoked them: how long that takes at best.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replace_all_seconds: Option<u64>,
    /// Orders that wait for it.
    pub in_line: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PlannedDay {
    /// Unix seconds; where it begins, UTC.
    pub at: u64,
    pub renewals: u64,
}

/// If no CA answered from now on, for so long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Outage {
    pub seconds: u64,
    /// Certificates that would end in that time.
    pub would_end: u64,
    /// The first of them.
    pub first: Vec<EndingCertificate>,
    /// Renewals that would wait when it is over.
    pub held_up: u64,
    /// Until all of them were caught up with, at the usual pace.
    pub catch_up_days: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EndingCertificate {
    pub name: Hostname,
    /// Unix seconds.
    pub ends_at: u64,
}
