//! What a CA allows, as a model: token buckets that all instances on one store share. Says which buckets an order takes
//! from and whether they have it; the store keeps their numbers. Must never talk to the CA or to the store.

mod bucket;
mod limits;

use contract::Hostname;

pub use self::bucket::{FullAt, Limit};
pub use self::limits::{Limits, Name};

/// What an order is to a CA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    New,
    /// The same names as an earlier certificate.
    Renewal,
    /// The same, and it says so (RFC 9773): Let's Encrypt counts it nowhere.
    Replacement,
}

impl Kind {
    /// Whether it takes of what the CA limits by account. What does not, waits for no such limit.
    pub fn counts_for_account(self) -> bool {
        self == Self::New
    }
}

/// One bucket of one issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spend {
    pub name: Name,
    /// What the CA counts by: empty for the account, a registered domain, a host name.
    pub scope: String,
    pub limit: Limit,
    pub how: How,
}

impl Spend {
    /// Of an order that a tenant's domain gets for its first visitor.
    pub fn first_visit(tenant: &str, limit: Limit, how: How) -> Self {
        Self { name: Name::FirstVisits, scope: tenant.to_owned(), limit, how }
    }

    /// Of an order that a tenant asks for.
    pub fn renew(tenant: &str, limit: Limit, how: How) -> Self {
        Self { name: Name::Renews, ..Self::first_visit(tenant, limit, how) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// One must be there and is taken.
    Take,
    /// One must be there.
    Need,
    /// One is taken, there or not.
    Charge,
    /// One that was taken goes back.
    GiveBack,
    /// Full again.
    Reset,
}

/// Why an order has to wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortage {
    pub name: Name,
    pub scope: String,
    pub limit: Limit,
    /// Unix seconds.
    pub until: u64,
}

impl Shortage {
    /// It holds up every order of the issuer.
    pub fn is_of_issuer(&self) -> bool {
        self.scope.is_empty()
    }

    pub fn says(&self) -> String {
        if self.name == Name::FirstVisits {
            return format!(
                "tenant `{}` has had its {} orders an hour for first visits (domains.first_visits_per_hour_max)",
                self.scope, self.limit.count
            );
        }
        if self.name == Name::Renews {
            return format!(
                "tenant `{}` has asked for its {} new certificates an hour (domains.renews_per_hour_max)",
                self.scope, self.limit.count
            );
        }
        let of = match self.is_of_issuer() {
            true => "this account".to_owned(),
            false => self.scope.clone(),
        };
        let Limit { count, seconds } = self.limit;
        format!("the CA's limit `{}` for {of} is used up: {count} in {}", self.name.as_str(), span(seconds))
    }
}

fn span(seconds: u64) -> String {
    match seconds {
        86_400.. if seconds.is_multiple_of(86_400) => format!("{} days", seconds / 86_400),
        3600.. if seconds.is_multiple_of(3600) => format!("{} hours", seconds / 3600),
        _ => format!("{seconds} s"),
    }
}

/// The new numbers of all buckets, or why not: nothing is taken then, and what is short for longest is told.
pub fn decide(spends: &[Spend], full_at: &[FullAt], now_ms: u64) -> Result<Vec<FullAt>, Shortage> {
    let pairs = || spends.iter().zip(full_at);
    let wanted = pairs().filter(|(spend, _)| matches!(spend.how, How::Take | How::Need));
    let short = wanted.filter(|(spend, full_at)| spend.limit.left(**full_at, now_ms) == 0);
    let until = |spend: &Spend, full_at: FullAt| spend.limit.free_at(full_at, now_ms).div_ceil(1000);
    if let Some((spend, full_at)) = short.max_by_key(|(spend, full_at)| until(spend, **full_at)) {
        let Spend { name, scope, limit, .. } = spend.clone();
        return Err(Shortage { name, scope, limit, until: until(spend, *full_at) });
    }
    let after = |(spend, full_at): (&Spend, &FullAt)| match spend.how {
        How::Take | How::Charge => spend.limit.charge(*full_at, now_ms),
        How::Need => *full_at,
        How::GiveBack => spend.limit.give_back(*full_at),
        How::Reset => 0,
    };
    Ok(pairs().map(after).collect())
}

/// The domain that a CA counts certificates by: one label below the public suffix.
pub fn registered_domain(name: &Hostname) -> &str {
    psl::domain_str(name.base()).unwrap_or(name.base())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    fn name(text: &str) -> Hostname {
        Hostname::parse(text).unwrap()
    }

    #[test]
    fn an_order_takes_from_all_buckets_or_from_none() {
        let limits = Limits::lets_encrypt();
        let spends = limits.order(&name("a.shop.example"), Kind::New);
        let scopes: Vec<_> = spends.iter().map(|spend| (spend.name, spend.scope.as_str())).collect();
        assert_eq!(
            scopes,
            [
                (Name::Orders, ""),
                (Name::CertificatesPerDomain, "shop.example"),
                (Name::CertificatesPerSet, "a.shop.example"),
                (Name::FailuresPerName, "a.shop.example"),
                (Name::ConsecutiveFailures, "a.shop.example"),
            ]
        );
        let fresh = vec![0; spends.len()];
        let after = decide(&spends, &fresh, NOW).unwrap();
        assert!(after[..3].iter().all(|full_at| *full_at > NOW) && after[3..] == [0, 0]);
        // The exact set is empty for the longest.
        let short: Vec<_> = spends.iter().map(|spend| NOW + spend.limit.seconds * 1000).collect();
        let shortage = decide(&spends[..3], &short[..3], NOW).unwrap_err();
        assert_eq!((shortage.name, shortage.until), (Name::CertificatesPerSet, NOW / 1000 + 7 * 86_400 / 5));
        assert!(shortage.says().contains("5 in 7 days") && shortage.says().contains("a.shop.example"), "{shortage:?}");
        let mut one_short = fresh.clone();
        one_short[0] = short[0];
        let shortage = decide(&spends, &one_short, NOW).unwrap_err();
        assert!(shortage.is_of_issuer() && shortage.says().contains("this account"), "{shortage:?}");
    }

    #[test]
    fn renewals_cost_what_the_ca_counts() {
        let limits = Limits::lets_encrypt();
        let names =
            |kind| limits.order(&name("a.shop.example"), kind).iter().map(|spend| spend.name).collect::<Vec<_>>();
        let renewal = [Name::CertificatesPerSet, Name::FailuresPerName, Name::ConsecutiveFailures];
        assert_eq!(names(Kind::Renewal), renewal);
        assert_eq!(names(Kind::Replacement), []);
        assert_eq!(Limits::none().order(&name("a.shop.example"), Kind::New), []);
    }

    #[test]
    fn five_failures_in_an_hour_close_a_name_and_a_success_counts_from_anew() {
        let limits = Limits::lets_encrypt();
        let (name, kind) = (name("shop.example"), Kind::New);
        let need: Vec<_> = limits.order(&name, kind).into_iter().filter(|s| s.how == How::Need).collect();
        let mut full_at = vec![0; need.len()];
        for _ in 0..5 {
            assert!(decide(&need, &full_at, NOW).is_ok());
            full_at = decide(&limits.failed(&name), &full_at, NOW).unwrap();
        }
        assert_eq!(decide(&need, &full_at, NOW).unwrap_err().name, Name::FailuresPerName);
        assert!(decide(&need, &full_at, NOW + 720_000).is_ok());
        assert_eq!(limits.succeeded(&name)[0].how, How::Reset);
    }
}
