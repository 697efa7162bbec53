//! Types of CertService's HTTP API (`/v1`), shared with its clients.

mod certificate;
mod forecast;
mod keys;

use serde::{Deserialize, Serialize};

pub use self::certificate::{BringCertificate, BringSecond, CertificateInfo, CertificatePage, RenewalWindow};
pub use self::forecast::{
    Budget, BudgetPage, EndingCertificate, Forecast, IssuerBudgets, IssuerForecast, Outage, PlannedDay,
};
pub use self::keys::{
    AddKey, Custody, EdgeKeyInfo, KeyCustody, KeyPage, KeyState, PROOF_HEADER, PoolCustody, REWRAP_MAX, RetiredKey,
    RewrapItem, RewrapOutcome, RewrapPage, RewrapRefusal, Rewrapped, RewrappedBundle,
};
use crate::Hostname;

/// Body of `PUT /v1/domains/{name}`. All fields may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PutDomain {
    /// Who the domain belongs to. Unit: 1 to 64 characters of `[A-Za-z0-9._-]`. Default: the tenant of the caller's token, else `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Which configured issuer to order from: the same as `issuers` with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Which configured issuers to order from, in order of preference; empty: those of the boot file. Default: as it is, and
    /// for a new domain those of the boot file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuers: Option<Vec<String>>,
    /// What kind of certificate, as the CA calls it, such as `shortlived`; empty: the issuer's own. Default: as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Whether a certificate is ordered at once, or when the first visitor comes. Default: as it is, and for a new domain as
    /// the boot file says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<OrderWhen>,
    /// After all others: one of a large import. Default: no.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bulk: bool,
    /// With `www.` of a registered domain, and with the registered domain of a `www.`. Default: as the boot file says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub www: Option<bool>,
}

/// When the first certificate of a domain is ordered. Later ones replace it by the clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum OrderWhen {
    #[default]
    Now,
    /// When a visitor's handshake asks for it.
    FirstVisit,
}

/// Body of `POST /v1/domains/{name}:revoke`. All fields may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RevokeDomain {
    /// What the CA is told (RFC 5280 section 5.3.1). Default: `unspecified`.
    #[serde(default)]
    pub reason: RevokeReason,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum RevokeReason {
    #[default]
    Unspecified,
    KeyCompromise,
    Superseded,
    CessationOfOperation,
}

impl RevokeReason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::KeyCompromise => "key_compromise",
            Self::Superseded => "superseded",
            Self::CessationOfOperation => "cessation_of_operation",
        }
    }
}

/// A registered domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Domain {
    pub name: Hostname,
    pub tenant: String,
    /// Whose certificate it has; without one, whom it is ordered from.
    pub issuer: String,
    /// Its own order of preference; absent where it has none, and follows the boot file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub issuers: Vec<String>,
    /// Which kind of certificate it wants of a CA; absent where its issuer decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// When its first certificate is ordered.
    #[serde(default)]
    pub order: OrderWhen,
    /// Why the last order did not go to those that are preferred.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passed_over: Vec<PassedOver>,
    pub state: State,
    /// Stable code of where it stands, such as `issued`, `queued`, `challenge_failed`, `rate_limited`.
    pub code: String,
    /// The same for a person; the CA's own words where it refused.
    pub says: String,
    /// Who must act now.
    pub who: Who,
    /// Unix seconds.
    pub created_at: u64,
    /// Unix seconds; when it is looked at again without anyone acting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_check_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateInfo>,
    /// What has to hold for a certificate, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<DomainStep>,
    /// Path of a page that shows the same to whoever has the link: nobody can guess it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<String>,
}

/// An issuer that an order did not go to, though it is preferred.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PassedOver {
    pub issuer: String,
    /// Stable, such as `ca_unavailable`, `rate_limited`, `name_refused`.
    pub code: String,
    /// The same for a person; the CA's own words where it refused.
    pub says: String,
    /// Unix seconds; from then on it may be asked again.
    pub until: u64,
}

/// Longest text of somebody else that is kept, in characters.
const SAYS_MAX: usize = 600;

/// What somebody else wrote (a CA, a record in DNS), as it is kept and shown: not too long, and on one line.
pub fn for_a_person(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SAYS_MAX).collect()
}

/// One thing that has to hold, how it stands, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DomainStep {
    /// `dns`, `caa`, `http`, `tls`, `delegation`, `order` or `certificate`.
    pub id: String,
    /// Absent while nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ok: Option<bool>,
    /// Stable.
    pub code: String,
    /// The same for a person; the CA's own words where it refused.
    pub says: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
    /// Who can do that.
    pub who: Who,
}

/// Answer of `POST /v1/domains/{name}:check`: how the domain looks now, asked without any CA.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CheckReport {
    pub name: Hostname,
    /// An order would leave.
    pub passed: bool,
    pub steps: Vec<DomainStep>,
    /// Unix seconds.
    pub checked_at: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// In hand; nobody needs to do anything.
    Working,
    /// Somebody has to change something.
    ActionNeeded,
    /// A certificate is being served.
    Live,
    /// Refused for good, or until an operator lifts it.
    Blocked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Who {
    Customer,
    Saas,
    Operator,
    CertificateAuthority,
    Nobody,
}

/// Answer of `GET /v1/webhooks`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WebhookPage {
    pub webhooks: Vec<WebhookState>,
    /// The newest entry of the journal.
    pub head: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WebhookState {
    pub name: String,
    /// The last entry of the journal that it has taken, or that was not for it.
    pub seq: u64,
    /// In a row.
    pub failures: u64,
    /// Unix seconds; when it is tried again.
    pub due_at: u64,
    /// Why it failed last; empty where it did not.
    pub says: String,
}

/// Answer of `GET /v1/doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DoctorReport {
    /// Unix seconds.
    pub checked_at: u64,
    pub passed: bool,
    pub checks: Vec<DoctorCheck>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DoctorCheck {
    /// `store`, `bundle store`, `disk`, `redis`, `dns`, `ca NAME`, `clock`, `port NUMBER of ADDRESS`, `keys`, `custody`, `certificates`.
    pub id: String,
    /// Absent where it can't be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ok: Option<bool>,
    pub says: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// Answer of `GET /v1/domains`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DomainPage {
    pub domains: Vec<Domain>,
    /// Give it as `?after=`; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Answer of `POST /v1/imports` and `GET /v1/imports/{id}`: a list of domains on its way in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DomainList {
    pub id: String,
    /// Unix seconds.
    pub created_at: u64,
    /// Every line was read; orders may still be under way.
    pub over: bool,
    pub lines: u64,
    /// Lines that were read.
    pub done: u64,
    /// Domains that are new.
    pub registered: u64,
    /// Domains that were there.
    pub known: u64,
    /// Faulty lines, and names that were refused.
    pub refused: u64,
    /// Where its domains stand now.
    pub domains: Vec<DomainCount>,
    /// At most 1000, those after `?errors_after=LINE`; of a list the first 10,000 are kept.
    pub errors: Vec<ListError>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DomainCount {
    pub state: State,
    pub code: String,
    pub count: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ListError {
    /// From 1.
    pub line: u64,
    /// Where the line could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Stable: those of `PUT /v1/domains/{name}`, and `invalid_line`.
    pub code: String,
    pub says: String,
}

/// Every error of the APIs (RFC 9457, `application/problem+json`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Problem {
    pub status: u16,
    /// Stable, for programs: `unknown_domain`, `not_issued`, `invalid_name`, `forbidden`, …
    pub code: String,
    pub title: String,
    /// What, where, and what to do.
    pub detail: String,
    /// Each fault of a configuration, where there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Fault>,
    /// What was changed meanwhile, where somebody else was first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(skip))] // of the edges' admin API
    pub diff: Option<Box<crate::admin::Diff>>,
}

/// One fault in a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Fault {
    /// JSON pointer (RFC 6901) into the document.
    pub at: String,
    /// From 1; absent where the place is not in the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    pub says: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Answer of `GET /v1/changes?since=CURSOR&limit=N`: what became of which domain, oldest first. A domain stands in it
/// once, with its latest change, so that reading from 0 lists every domain that has a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ChangePage {
    pub changes: Vec<Change>,
    /// Give it as `since` next time.
    pub cursor: u64,
    /// There is more after `cursor` already.
    pub more: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Change {
    pub cursor: u64,
    pub domain: Hostname,
    /// Of the bundle to be served; absent for a domain that is off-boarded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// Unix seconds; the first try to renew what is served that failed, until one brings another. Absent while all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewal_failing_since: Option<u64>,
}

/// Most changes in one page, and the default.
pub const CHANGES_MAX: u32 = 10_000;
