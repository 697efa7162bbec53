//! `[domains]` and `[issuance]` of the boot file.

use contract::document::Faults;
use deserr::Deserr;

/// What may be registered.
#[derive(Debug, Deserr)]
#[deserr(error = Faults, deny_unknown_fields)]
pub struct DomainsTable {
    /// Names below and including one registered domain; 0 is no limit.
    #[deserr(default = 100)]
    pub names_per_registered_domain_max: u32,
    /// Whether `www.` comes with a registered domain, and that with its `www.`.
    #[deserr(default)]
    pub www: bool,
    /// Whom orders go to, in order of preference, where a domain does not say otherwise. Default: the first of `issuers`.
    #[deserr(default)]
    pub issuers: Option<Vec<String>>,
    /// When the first certificate of a domain is ordered, where nobody says otherwise.
    #[deserr(default)]
    pub order: OrderWord,
    /// Orders that first visits may bring, of one tenant and hour; 0 is no limit.
    #[deserr(default = 60)]
    pub first_visits_per_hour_max: u32,
    /// Orders that tenants' own tokens may ask for, and revocations, of one tenant and hour; 0 is no limit.
    #[deserr(default = 60)]
    pub renews_per_hour_max: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserr)]
#[deserr(error = Faults)]
pub enum OrderWord {
    #[default]
    #[deserr(rename = "now")]
    Now,
    #[deserr(rename = "first_visit")]
    FirstVisit,
}

impl Default for DomainsTable {
    fn default() -> Self {
        Self {
            names_per_registered_domain_max: 100,
            www: false,
            issuers: None,
            order: OrderWord::Now,
            first_visits_per_hour_max: 60,
            renews_per_hour_max: 60,
        }
    }
}

#[derive(Debug, Deserr)]
#[deserr(error = Faults, deny_unknown_fields)]
pub struct IssuanceTable {
    /// Orders worked on at once.
    #[deserr(default = 8)]
    pub concurrency: u32,
    /// Before the first retry of a failed order; doubles with each failure.
    #[deserr(default = 20)]
    pub retry_seconds_min: u32,
    #[deserr(default = 3600)]
    pub retry_seconds_max: u32,
    /// An RSA certificate beside the ECDSA one, for clients without ECDSA: two orders for each domain. Default false.
    #[deserr(default)]
    pub rsa: bool,
    /// How long a renewal waits for the issuer that is preferred before it goes to another.
    #[deserr(default = 21_600)]
    pub renewals_wait_seconds: u32,
}

impl Default for IssuanceTable {
    fn default() -> Self {
        Self {
            concurrency: 8,
            retry_seconds_min: 20,
            retry_seconds_max: 3600,
            rsa: false,
            renewals_wait_seconds: 21_600,
        }
    }
}
