//! How a site's certificate stands: whether those who promise that the site stays reachable over HTTPS can rely on it.
//!
//! CertService tells of a renewal that fails. A certificate says itself when it should have been replaced, also while
//! CertService or the CA is away; and clients that turn it down are seen here, by alerts, which anyone can send: so they count only
//! where they are many, a share of all, and from several networks.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock, Mutex};

use contract::{Hostname, Validity};
use quick_cache::sync::Cache;

use super::renewals::Renewals;

/// What is left of a certificate, as a share of what is left when it is to be replaced: below this, its renewal fails.
const FAILING: (u64, u64) = (3, 4);
/// Below this, its end is near.
const ENDING: (u64, u64) = (1, 4);
/// Certificates of years are replaced later than in their last third: no more is reckoned of what is left at renewal.
const LEFT_AT_RENEWAL_MAX: u64 = 30 * 86_400;

/// Handshakes are counted for so many seconds, and then anew.
const WINDOW_SECONDS: u64 = 600;
const FAILED_MIN: u32 = 20;
/// One in so many of a window.
const FAILED_SHARE: u32 = 10;
const NETWORKS_MIN: u32 = 5;
/// After the last window that was bad.
const RECOVERY_SECONDS: u64 = 3600;
/// Names with failed handshakes that are watched.
const NAMES_MAX: usize = 16_384;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// There is no certificate: not over TLS.
    None,
    Healthy,
    /// A try to replace it has failed, or it should have been replaced by now.
    RenewalFailing(Unwell),
    Ending(Unwell),
    /// Clients in several networks turn it down.
    HandshakeErrors(Unwell),
}

/// Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unwell {
    pub since: u64,
    /// When the certificate ends.
    pub ends: u64,
}

/// Of this process.
pub static HEALTH: LazyLock<Health> = LazyLock::new(Health::new);

pub struct Health {
    pub renewals: Renewals,
    watched: Cache<Hostname, Arc<Mutex<Tally>>>,
    networks: RandomState,
}

/// Handshakes of a name.
#[derive(Debug, Default)]
struct Tally {
    began: u64,
    passed: u32,
    failed: u32,
    /// A bit for each of 64 parts of all networks that a failed one came from.
    networks: u64,
    /// Since when it has been bad without a break, and when it was last.
    bad: Option<(u64, u64)>,
}

impl Standing {
    /// By the dates alone.
    pub fn by_dates(validity: Validity, now: u64) -> Self {
        let reserve = validity.left_at_renewal().min(LEFT_AT_RENEWAL_MAX);
        let at = |(part, of): (u64, u64)| validity.not_after.saturating_sub(reserve * part / of);
        let unwell = |since| Unwell { since, ends: validity.not_after };
        match now {
            now if now >= at(ENDING) => Self::Ending(unwell(at(ENDING))),
            now if now >= at(FAILING) => Self::RenewalFailing(unwell(at(FAILING))),
            _ => Self::Healthy,
        }
    }

    /// For people and programs.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Healthy => "healthy",
            Self::RenewalFailing(_) => "renewal_failing",
            Self::Ending(_) => "ending",
            Self::HandshakeErrors(_) => "handshake_errors",
        }
    }

    pub fn unwell(self) -> Option<Unwell> {
        match self {
            Self::None | Self::Healthy => None,
            Self::RenewalFailing(unwell) | Self::Ending(unwell) | Self::HandshakeErrors(unwell) => Some(unwell),
        }
    }
}

impl Health {
    fn new() -> Self {
        Self { renewals: Renewals::default(), watched: Cache::new(NAMES_MAX), networks: RandomState::new() }
    }

    pub fn of(&self, name: &Hostname, certificate: Option<Validity>, now: u64) -> Standing {
        let Some(validity) = certificate else { return Standing::None };
        let ends = validity.not_after;
        // Another clock says it.
        let failing = self.renewals.failing_since(name).map(|since| since.min(now));
        let earlier = |unwell: Unwell| Unwell { since: failing.unwrap_or(u64::MAX).min(unwell.since), ..unwell };
        match (Standing::by_dates(validity, now), failing) {
            (Standing::Healthy, Some(since)) => Standing::RenewalFailing(Unwell { since, ends }),
            (Standing::Healthy, None) => self
                .bad_since(name, now)
                .map_or(Standing::Healthy, |since| Standing::HandshakeErrors(Unwell { since, ends })),
            (Standing::RenewalFailing(unwell), _) => Standing::RenewalFailing(earlier(unwell)),
            (Standing::Ending(unwell), _) => Standing::Ending(earlier(unwell)),
            (other, _) => other,
        }
    }

    /// A client has turned the certificate down.
    pub(super) fn failed(&self, name: &Hostname, client: IpAddr, now: u64) {
        let network = self.networks.hash_one(network(client)) % u64::from(u64::BITS);
        let watched = self.watched.get_or_insert_with(name, || Ok::<_, std::convert::Infallible>(Arc::default()));
        let Ok(watched) = watched;
        with(&watched, |tally| tally.failed(network, now));
    }

    /// Costs next to nothing while no handshake has failed.
    pub(super) fn passed(&self, name: &Hostname, now: u64) {
        if let Some(watched) = self.watch(name) {
            with(&watched, |tally| tally.passed(now));
        }
    }

    fn bad_since(&self, name: &Hostname, now: u64) -> Option<u64> {
        let watched = self.watch(name)?;
        with(&watched, |tally| tally.bad_since(now))
    }

    fn watch(&self, name: &Hostname) -> Option<Arc<Mutex<Tally>>> {
        if self.watched.is_empty() { None } else { self.watched.get(name) }
    }
}

/// Held for a few additions, and by those only who come to a name whose handshakes fail.
fn with<T>(tally: &Mutex<Tally>, act: impl FnOnce(&mut Tally) -> T) -> T {
    act(&mut tally.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
}

/// Neighbours are most likely of one hand.
fn network(client: IpAddr) -> u64 {
    match client.to_canonical() {
        IpAddr::V4(address) => u64::from(address.to_bits() >> 8),
        IpAddr::V6(address) => 1 << 48 | (address.to_bits() >> 80) as u64,
    }
}

impl Tally {
    fn failed(&mut self, network: u64, now: u64) {
        self.turn(now);
        self.failed += 1;
        self.networks |= 1 << network;
        let all = u64::from(self.failed) + u64::from(self.passed);
        if self.failed >= FAILED_MIN
            && u64::from(self.failed) * u64::from(FAILED_SHARE) >= all
            && self.networks.count_ones() >= NETWORKS_MIN
        {
            self.bad = Some((self.bad_since(now).unwrap_or(now), now));
        }
    }

    fn passed(&mut self, now: u64) {
        self.turn(now);
        self.passed = self.passed.saturating_add(1);
    }

    fn bad_since(&self, now: u64) -> Option<u64> {
        self.bad.filter(|(_, last)| now < last + RECOVERY_SECONDS).map(|(since, _)| since)
    }

    fn turn(&mut self, now: u64) {
        if now.abs_diff(self.began) >= WINDOW_SECONDS {
            *self = Self { began: now, bad: self.bad, ..Self::default() };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const DAY: u64 = 86_400;

    fn name() -> Hostname {
        Hostname::parse("shop.example").unwrap()
    }

    #[test]
    fn a_certificate_that_was_not_replaced_in_time_is_unwell_by_its_dates() {
        let of = |days: u64, now: u64| Standing::by_dates(Validity { not_before: 0, not_after: days * DAY }, now);
        let unwell = |since, days| Unwell { since, ends: days * DAY };
        // 90 days: replaced at 60, late at 67.5, near its end at 82.5.
        assert_eq!(of(90, 67 * DAY), Standing::Healthy);
        assert_eq!(of(90, 68 * DAY), Standing::RenewalFailing(unwell(67 * DAY + DAY / 2, 90)));
        assert_eq!(of(90, 83 * DAY), Standing::Ending(unwell(82 * DAY + DAY / 2, 90)));
        assert_eq!(of(90, 91 * DAY), Standing::Ending(unwell(82 * DAY + DAY / 2, 90)));
        // 6 days: replaced at 3.
        assert_eq!(of(6, 3 * DAY + DAY / 2), Standing::Healthy);
        assert_eq!(of(6, 4 * DAY), Standing::RenewalFailing(unwell(3 * DAY + DAY * 3 / 4, 6)));
        assert_eq!(of(6, 5 * DAY + DAY / 2).word(), "ending");
        // A year: as one that is replaced 30 days before its end.
        assert_eq!(of(365, 342 * DAY), Standing::Healthy);
        assert_eq!(of(365, 343 * DAY).word(), "renewal_failing");
    }

    fn with_failures(failed: u32, passed: u32, networks: u32) -> Health {
        let health = Health::new();
        for n in 0..failed {
            let client = Ipv4Addr::from_bits(((n % networks) << 8) | 1);
            health.failed(&name(), client.into(), 1000);
            (n == 0).then(|| (0..passed).for_each(|_| health.passed(&name(), 1000)));
        }
        health
    }

    fn bad(health: &Health, now: u64) -> bool {
        let validity = Validity { not_before: 0, not_after: 90 * DAY };
        health.of(&name(), Some(validity), now) == Standing::HandshakeErrors(Unwell { since: 1000, ends: 90 * DAY })
    }

    #[test]
    fn many_failed_handshakes_of_many_networks_count() {
        // 300 networks fall into more than 5 of 64 parts.
        assert!(bad(&with_failures(300, 0, 300), 1000));
        assert!(bad(&with_failures(300, 2700, 300), 1000), "a tenth");
        assert!(!bad(&with_failures(300, 2701, 300), 1000), "less than a tenth");
        assert!(!bad(&with_failures(19, 0, 19), 1000), "a few");
        assert!(!bad(&with_failures(10_000, 0, 4), 1000), "four networks");
        let other = Hostname::parse("other.example").unwrap();
        let validity = Validity { not_before: 0, not_after: 90 * DAY };
        assert_eq!(with_failures(300, 0, 300).of(&other, Some(validity), 1000), Standing::Healthy);
    }

    #[test]
    fn it_is_over_an_hour_after_the_last_bad_window() {
        let health = with_failures(300, 0, 300);
        assert!(bad(&health, 1000 + RECOVERY_SECONDS - 1));
        assert!(!bad(&health, 1000 + RECOVERY_SECONDS));
        (0..19).for_each(|n| health.failed(&name(), Ipv4Addr::from_bits(n << 8).into(), 2000));
        assert!(!bad(&health, 1000 + RECOVERY_SECONDS), "each window is counted by itself");
    }

    #[test]
    fn what_is_near_its_end_counts_for_more_than_failed_handshakes() {
        let ended = Validity { not_before: 0, not_after: 900 };
        assert_eq!(with_failures(300, 0, 300).of(&name(), Some(ended), 1000).word(), "ending");
        assert_eq!(with_failures(300, 0, 300).of(&name(), None, 1000), Standing::None);
    }

    #[test]
    fn a_renewal_that_fails_counts_from_its_first_try_on() {
        let (health, name) = (Health::new(), name());
        let validity = Some(Validity { not_before: 0, not_after: 90 * DAY });
        let of = |now| health.of(&name, validity, now);
        let unwell = |since| Unwell { since, ends: 90 * DAY };
        health.renewals.hear([(&name, Some(60 * DAY))].into_iter());
        assert_eq!(of(61 * DAY), Standing::RenewalFailing(unwell(60 * DAY)));
        assert_eq!(
            of(68 * DAY),
            Standing::RenewalFailing(unwell(60 * DAY)),
            "it stays the same for as long as it lasts"
        );
        assert_eq!(of(83 * DAY), Standing::Ending(unwell(60 * DAY)));
        assert_eq!(of(59 * DAY), Standing::RenewalFailing(unwell(59 * DAY)), "never in the future");
        assert_eq!(health.of(&name, None, 61 * DAY), Standing::None);
        health.renewals.hear([(&name, None)].into_iter());
        assert_eq!(of(61 * DAY), Standing::Healthy);
    }

    #[test]
    fn watches_a_bounded_number_of_names() {
        let health = Health::new();
        for n in 0..3 * NAMES_MAX {
            health.failed(&Hostname::parse(&format!("h{n}.example")).unwrap(), Ipv4Addr::LOCALHOST.into(), 1000);
        }
        assert!(health.watched.len() <= NAMES_MAX);
    }
}
