//! Which limits a CA publishes, and which of them an order touches.

use contract::Hostname;

use super::{How, Kind, Limit, Spend, registered_domain};

const HOUR: u64 = 3600;
const DAY: u64 = 86_400;

/// What is counted. The words stand in the API, in the boot file and in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Name {
    /// New orders of the account.
    Orders,
    CertificatesPerDomain,
    CertificatesPerSet,
    FailuresPerName,
    ConsecutiveFailures,
    /// Orders that a first visit brought, of a tenant. Ours: no CA counts them.
    FirstVisits,
    /// Orders that a tenant has asked for, beside those that come by themselves. Ours, too.
    Renews,
}

impl Name {
    /// What CAs count.
    pub const ALL: [Self; 5] = [
        Self::Orders,
        Self::CertificatesPerDomain,
        Self::CertificatesPerSet,
        Self::FailuresPerName,
        Self::ConsecutiveFailures,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Orders => "orders",
            Self::CertificatesPerDomain => "certificates_per_domain",
            Self::CertificatesPerSet => "certificates_per_set",
            Self::FailuresPerName => "failures_per_name",
            Self::ConsecutiveFailures => "consecutive_failures",
            Self::FirstVisits => "first_visits",
            Self::Renews => "renews",
        }
    }
}

/// Of one issuer; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    pub orders: Option<Limit>,
    pub certificates_per_domain: Option<Limit>,
    pub certificates_per_set: Option<Limit>,
    pub failures_per_name: Option<Limit>,
    pub consecutive_failures: Option<Limit>,
}

impl Limits {
    pub fn none() -> Self {
        Self::default()
    }

    /// As published at letsencrypt.org/docs/rate-limits, in 2026.
    pub fn lets_encrypt() -> Self {
        Self {
            orders: Some(Limit::new(300, 3 * HOUR)),
            certificates_per_domain: Some(Limit::new(50, 7 * DAY)),
            certificates_per_set: Some(Limit::new(5, 7 * DAY)),
            failures_per_name: Some(Limit::new(5, HOUR)),
            consecutive_failures: Some(Limit::new(1152, 1152 * DAY)),
        }
    }

    /// As published at letsencrypt.org/docs/staging-environment.
    pub fn lets_encrypt_staging() -> Self {
        Self {
            orders: Some(Limit::new(1500, 3 * HOUR)),
            certificates_per_domain: Some(Limit::new(30_000, 7 * DAY)),
            certificates_per_set: Some(Limit::new(30_000, 7 * DAY)),
            failures_per_name: Some(Limit::new(200, HOUR)),
            consecutive_failures: Some(Limit::new(3600, 3600 * 6 * HOUR)),
        }
    }

    pub fn of(&self, name: Name) -> Option<Limit> {
        match name {
            Name::Orders => self.orders,
            Name::CertificatesPerDomain => self.certificates_per_domain,
            Name::CertificatesPerSet => self.certificates_per_set,
            Name::FailuresPerName => self.failures_per_name,
            Name::ConsecutiveFailures => self.consecutive_failures,
            Name::FirstVisits | Name::Renews => None,
        }
    }

    /// What the CA counts by, for a domain.
    pub fn scope(name: Name, domain: &Hostname) -> String {
        match name {
            Name::Orders | Name::FirstVisits | Name::Renews => String::new(),
            Name::CertificatesPerDomain => registered_domain(domain).to_owned(),
            Name::CertificatesPerSet | Name::FailuresPerName | Name::ConsecutiveFailures => domain.to_string(),
        }
    }

    fn spend(&self, name: Name, domain: &Hostname, how: How) -> Option<Spend> {
        let limit = self.of(name)?;
        Some(Spend { name, scope: Self::scope(name, domain), limit, how })
    }

    /// What a new order takes, and what has to be there.
    pub fn order(&self, domain: &Hostname, kind: Kind) -> Vec<Spend> {
        let spends = [
            (Name::Orders, How::Take, kind.counts_for_account()),
            (Name::CertificatesPerDomain, How::Take, kind == Kind::New),
            (Name::CertificatesPerSet, How::Take, kind != Kind::Replacement),
            (Name::FailuresPerName, How::Need, kind != Kind::Replacement),
            (Name::ConsecutiveFailures, How::Need, kind != Kind::Replacement),
        ];
        let counted = spends.into_iter().filter(|(.., counted)| *counted);
        counted.filter_map(|(name, how, _)| self.spend(name, domain, how)).collect()
    }

    /// The CA looked at the domain and did not find what it wanted.
    pub fn failed(&self, domain: &Hostname) -> Vec<Spend> {
        let names = [Name::FailuresPerName, Name::ConsecutiveFailures];
        names.into_iter().filter_map(|name| self.spend(name, domain, How::Charge)).collect()
    }

    /// The CA found it.
    pub fn succeeded(&self, domain: &Hostname) -> Vec<Spend> {
        self.spend(Name::ConsecutiveFailures, domain, How::Reset).into_iter().collect()
    }

    /// An order that ended without a certificate: those were not issued.
    pub fn not_issued(&self, domain: &Hostname, kind: Kind) -> Vec<Spend> {
        let names =
            [(Name::CertificatesPerDomain, kind == Kind::New), (Name::CertificatesPerSet, kind != Kind::Replacement)];
        let taken = names.into_iter().filter(|(_, taken)| *taken);
        taken.filter_map(|(name, _)| self.spend(name, domain, How::GiveBack)).collect()
    }
}
