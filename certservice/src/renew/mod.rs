//! When a certificate is replaced. Must never issue by itself; it only creates orders.

pub mod own;
mod schedule;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use contract::Hostname;
use tokio::sync::Notify as Wake;

use crate::clock;
use crate::order::Job;
use crate::store::{Renewal, Store, StoreError};

pub use self::schedule::{Load, Planned, Window, renew_at, rests_until, urgent_at, within};

const LOOK_SECONDS: u64 = 60;
/// Whose look it is among all instances.
const TURN: &str = "renewals";
/// Orders read from the store at once.
const BATCH: u64 = 500;
/// How long the planned days are believed before they are counted anew, and how many plans of our own, where that is more
/// than a hundredth of all: other instances plan as well.
const COUNT_SECONDS: u64 = 600;
const PLANS_MIN: u64 = 1000;
/// Renewals that wait for a CA: so many seconds' worth; the others stay where they are until these have left.
const IN_LINE_SECONDS: u64 = 3600;

/// What is planned for which day: counted in the store, and kept up by what this instance plans.
#[derive(Clone, Default)]
pub struct Planner(Arc<Mutex<Plans>>);

#[derive(Default)]
struct Plans {
    counted_at: u64,
    /// Certificates, when they were counted.
    counted: u64,
    /// Since then.
    planned: u64,
    /// By issuer: each has limits of its own.
    loads: HashMap<String, Load>,
}

impl Plans {
    fn of(&mut self, issuer: &str) -> &mut Load {
        self.planned += 1;
        self.loads.entry(issuer.to_owned()).or_default()
    }
}

impl Planner {
    fn plans(&self) -> MutexGuard<'_, Plans> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When to renew a certificate that has just come.
    pub fn plan(&self, issuer: &str, domain: &Hostname, not_before: u64, not_after: u64, now: u64) -> u64 {
        let latest = renew_at(domain, not_before, not_after);
        let mut plans = self.plans();
        let load = plans.of(issuer);
        let at = load.even(now, latest);
        load.add(at);
        at
    }

    /// When to renew where the CA wants it at `wanted`: then, if that day has room; else on an earlier day, which stays
    /// while the other is full.
    pub fn place(&self, issuer: &str, chosen: Option<u64>, wanted: u64, now: u64) -> u64 {
        if chosen == Some(wanted) || wanted <= now {
            return wanted;
        }
        let mut plans = self.plans();
        let load = plans.of(issuer);
        let at = match (load.even(now, wanted), chosen) {
            (at, _) if at == wanted => wanted,
            (_, Some(chosen)) if (now..wanted).contains(&chosen) => return chosen,
            (earlier, _) => earlier,
        };
        if let Some(chosen) = chosen {
            load.remove(chosen);
        }
        load.add(at);
        at
    }

    async fn count(&self, store: &Store, now: u64) -> Result<(), StoreError> {
        let fresh = {
            let plans = self.plans();
            now < plans.counted_at + COUNT_SECONDS && plans.planned < PLANS_MIN.max(plans.counted / 100)
        };
        if fresh {
            return Ok(());
        }
        let mut of_issuers: HashMap<String, Vec<Planned>> = HashMap::new();
        let mut counted = 0;
        for (issuer, planned) in store.renewals_by_day().await? {
            counted += planned.count;
            of_issuers.entry(issuer).or_default().push(planned);
        }
        let loads = of_issuers.into_iter().map(|(issuer, planned)| (issuer, Load::new(planned))).collect();
        *self.plans() = Plans { counted_at: now, counted, planned: 0, loads };
        Ok(())
    }

    /// Of each issuer: how many renewals that can wait may begin now, and how many may wait for the CA.
    fn allowances(&self, since: u64, now: u64) -> Vec<(String, u64, u64)> {
        let plans = self.plans();
        let of = |(issuer, load): (&String, &Load)| {
            (issuer.clone(), load.allowance(since, now), load.allowance(now - IN_LINE_SECONDS, now))
        };
        plans.loads.iter().map(of).collect()
    }
}

/// Creates the orders that are due, again and again.
/// `hurry` wakes it, it wakes `wake`.
pub async fn run(store: Store, planner: Planner, hurry: Arc<Wake>, wake: Arc<Wake>) {
    let mut look = tokio::time::interval(Duration::from_secs(LOOK_SECONDS));
    loop {
        let created = tokio::select! {
            _ = look.tick() => look_in_turn(&store, &planner, clock::now()).await,
            () = hurry.notified() => create_urgent(&store, clock::now()).await,
        };
        match created {
            Ok(0) => {}
            Ok(orders) => {
                tracing::info!(orders, "certificates are up for renewal");
                wake.notify_one();
            }
            Err(error) => tracing::error!(%error, "looking for renewals failed"),
        }
    }
}

/// One instance looks each minute, or each would begin as many as all may.
async fn look_in_turn(store: &Store, planner: &Planner, now: u64) -> Result<usize, StoreError> {
    planner.count(store, now).await?;
    own::warn(store, now).await?;
    match store.take_turn(TURN, now, LOOK_SECONDS / 2).await? {
        // After a stop nobody has two minutes' worth of orders good.
        Some(since) => create_orders(store, planner, since.max(now - 2 * LOOK_SECONDS), now).await,
        None => Ok(0),
    }
}

/// How many orders were created: all that are urgent, and of the others as many as keeps the days alike.
pub async fn create_orders(store: &Store, planner: &Planner, since: u64, now: u64) -> Result<usize, StoreError> {
    planner.count(store, now).await?;
    let mut created = create_urgent(store, now).await?;
    for (issuer, now_max, in_line_max) in planner.allowances(since, now) {
        // What a CA that is down holds up must not all leave in the moment that it is back.
        if store.renewals_in_line(&issuer).await? < in_line_max {
            created += enqueue(store, store.renewals(&issuer, now, now_max).await?, now).await?;
        }
    }
    Ok(created)
}

async fn create_urgent(store: &Store, now: u64) -> Result<usize, StoreError> {
    let mut created = 0;
    loop {
        let urgent = store.urgent_renewals(now, BATCH).await?;
        let more = urgent.len() as u64 == BATCH;
        created += enqueue(store, urgent, now).await?;
        if !more {
            return Ok(created);
        }
    }
}

async fn enqueue(store: &Store, renewals: Vec<Renewal>, now: u64) -> Result<usize, StoreError> {
    let mut created = 0;
    for renewal in renewals {
        // What was uploaded or renewed meanwhile stays.
        let served = renewal.revision;
        created += usize::from(store.enqueue(&order(renewal, now), served).await?);
    }
    Ok(created)
}

/// The order that replaces a certificate. It begins with whoever made that, and goes to whom the domain prefers.
pub fn order(renewal: Renewal, now: u64) -> Job {
    let Renewal { name, issuer, issuers, profile, revision, not_after, ari_id } = renewal;
    Job { deadline: not_after, replaces: ari_id, issuers, profile, ..Job::new(name, issuer, revision, now) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;
    const DAY: u64 = 86_400;

    #[test]
    fn the_cas_instant_counts_where_its_day_has_room() {
        let planner = Planner::default();
        let wanted = NOW + 30 * DAY;
        assert_eq!(planner.place("ca", Some(NOW + 29 * DAY), wanted, NOW), wanted);
        assert_eq!(planner.place("ca", Some(wanted), wanted, NOW), wanted);
        assert_eq!(planner.place("ca", None, NOW, NOW), NOW);
        let crowd = Planned { day: wanted / DAY, lifetime_seconds: 45 * DAY, count: 10_000 };
        planner.plans().loads.insert("ca".into(), Load::new([crowd]));
        let earlier = planner.place("ca", None, wanted, NOW);
        assert!(earlier < wanted && earlier > NOW, "{earlier}");
        // Asked again, it stays.
        assert_eq!(planner.place("ca", Some(earlier), wanted, NOW + DAY), earlier);
        // Another CA's days are its own.
        assert_eq!(planner.place("other", None, wanted, NOW), wanted);
    }
}
