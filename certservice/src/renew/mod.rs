//! When a certificate is replaced. Must never issue by itself; it only creates orders.

use std::sync::Arc;
use std::time::Duration;

use contract::Hostname;
use tokio::sync::Notify as Wake;

use crate::order::Job;
use crate::store::{Store, StoreError};

const LOOK_SECONDS: u64 = 60;
/// Orders created in one look.
const BATCH: u32 = 100;
const SHORT_LIVED_SECONDS: u64 = 10 * 86_400;

/// When to renew: with a third of the lifetime left, half for the short-lived; earlier by up to a tenth of what is left,
/// by name, so that certificates of one day don't renew in one minute.
pub fn renew_at(domain: &Hostname, not_before: u64, not_after: u64) -> u64 {
    let lifetime = not_after.saturating_sub(not_before);
    let left = if lifetime < SHORT_LIVED_SECONDS { lifetime / 2 } else { lifetime / 3 };
    let digest = contract::bundle::sha256(domain.as_str().as_bytes());
    let jitter = left / 10 * u64::from(u16::from_be_bytes([digest[0], digest[1]])) / u64::from(u16::MAX);
    not_after.saturating_sub(left + jitter).max(not_before)
}

/// Creates the orders that are due, again and again.
pub async fn run(store: Store, wake: Arc<Wake>) {
    let mut look = tokio::time::interval(Duration::from_secs(LOOK_SECONDS));
    loop {
        look.tick().await;
        match create_orders(&store, crate::clock::now()).await {
            Ok(0) => {}
            Ok(orders) => {
                tracing::info!(orders, "certificates are up for renewal");
                wake.notify_one();
            }
            Err(error) => tracing::error!(%error, "looking for renewals failed"),
        }
    }
}

/// How many orders were created.
pub async fn create_orders(store: &Store, now: u64) -> Result<usize, StoreError> {
    let mut created = 0;
    for domain in store.renewals(now, BATCH).await? {
        let served = domain.certificate.map_or(0, |certificate| certificate.revision);
        let job = Job::new(domain.name, domain.issuer, served, now);
        created += usize::from(store.enqueue(&job).await?);
    }
    Ok(created)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    #[test]
    fn renews_with_a_third_left_and_half_for_the_short_lived() {
        for (days, left_days) in [(90, 30), (45, 15), (10, 3), (6, 3), (1, 0)] {
            let (from, to) = (1_800_000_000, 1_800_000_000 + days * DAY);
            let at = renew_at(&Hostname::parse("shop.example").unwrap(), from, to);
            let left = to - at;
            let least = if days < 10 { days * DAY / 2 } else { days * DAY / 3 };
            assert!((least..=least + least / 10).contains(&left), "{days} days: {left} s left");
            assert_eq!(left / DAY / 2 * 2, left_days / 2 * 2, "{days} days");
        }
    }

    #[test]
    fn names_spread_and_a_name_stays() {
        let at = |n: u32| renew_at(&Hostname::parse(&format!("n{n}.example")).unwrap(), 0, 90 * DAY);
        let mut times: Vec<_> = (0..1000).map(at).collect();
        assert_eq!(times, (0..1000).map(at).collect::<Vec<_>>());
        times.sort_unstable();
        assert!(times[999] - times[0] > 2 * DAY);
        let most_in_an_hour = times.iter().map(|t| times.iter().filter(|o| (*t..t + 3600).contains(o)).count()).max();
        assert!(most_in_an_hour < Some(50), "{most_in_an_hour:?}");
    }

    #[test]
    fn odd_validities_do_no_harm() {
        let name = Hostname::parse("shop.example").unwrap();
        assert_eq!(renew_at(&name, 100, 100), 100);
        assert_eq!(renew_at(&name, 200, 100), 200);
    }
}
