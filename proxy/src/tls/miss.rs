//! A name that memory does not have: one load per name however many visitors wait, a cap on loads in flight, and a
//! deadline for each visitor. The only place in `tls` that reaches the network, through `supply`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use contract::sealed::OpenError;
use contract::{Challenge, Hostname};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};

use super::acme;
use super::certificate::{CertificateError, Opener};
use super::pool::{NotRun, Patience, Pool};
use super::table::{Found, Table, Tier};
use super::warm::Certificate;
use crate::observe::METRICS;
use crate::supply::{self, Supplied, Supply, SupplyError};

/// Loads in flight at once; a visitor over it is turned away at once.
const LOADS_MAX: usize = 512;
/// Beside them, of names that are served meanwhile: so that these take no visitor's place while the sources hang.
const REFRESHES_MAX: usize = 32;
/// Handshakes that wait at once for certificates that are being issued; they take no load's place. One over it is refused
/// at once.
const ORDER_WAITS_MAX: usize = 256;
/// Of them for one name, so that a name that many visit leaves room for others.
const ORDER_WAITS_OF_NAME_MAX: usize = 64;
/// Between two looks of such a handshake; doubled each time.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(1);

/// Why there is no certificate for a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Miss {
    #[error("no such domain")]
    Unknown,
    #[error("registered, but its certificate is not issued yet")]
    NotIssued,
    #[error("registered, and its certificate is being issued")]
    Coming,
    #[error(
        "{ORDER_WAITS_MAX} other visitors wait for certificates that are being issued, or {ORDER_WAITS_OF_NAME_MAX} for this one"
    )]
    OrderWaitsBusy,
    #[error("its bundle was refused: {0}")]
    Rejected(String),
    #[error("not on disk, and neither Redis nor CertService answers: {0}")]
    Unavailable(String),
    #[error("{0}")]
    KeyUnavailable(String),
    #[error("{LOADS_MAX} other names are being loaded already")]
    Busy,
    #[error("{0} other keys wait to be opened already (tls.opens_queued_max)")]
    OpensBusy(usize),
    #[error("not loaded within {0:?}")]
    TimedOut(Duration),
}

impl Miss {
    /// Label of the counter.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unknown => "unknown_sni",
            Self::NotIssued => "not_issued",
            Self::Coming => "not_issued_in_time",
            Self::OrderWaitsBusy => "order_waits_busy",
            Self::Rejected(_) => "bundle_rejected",
            Self::Unavailable(_) => "sources_unavailable",
            Self::KeyUnavailable(_) => "key_unavailable",
            Self::Busy => "loads_busy",
            Self::OpensBusy(_) => "opens_busy",
            Self::TimedOut(_) => "load_timed_out",
        }
    }

    /// There is no such certificate, or not yet: nothing is wrong with us.
    pub(super) fn is_none_yet(&self) -> bool {
        matches!(self, Self::Unknown | Self::NotIssued | Self::Coming | Self::OrderWaitsBusy)
    }

    /// Short enough that a new domain works soon, long enough that a flood for one name costs little.
    pub(super) fn remembered_for(&self) -> Duration {
        match self {
            Self::Unknown => Duration::from_secs(2),
            // Asked for four times a second, however many wait.
            Self::Coming => LOOK_AGAIN,
            _ => Duration::from_secs(1),
        }
    }
}

/// What a load is content with.
#[derive(Clone, Copy)]
enum Want {
    Any,
    /// Not what is on this edge's disk, and at least this revision.
    News {
        revision: u64,
    },
}

type Answer = Option<Loaded>;
type Loaded = Result<(Arc<Certificate>, Tier), Miss>;

pub struct Misses {
    table: Arc<Table>,
    supply: Arc<Supply>,
    opener: Arc<Opener>,
    /// Where it fetches and verifies: no thread that serves waits for that.
    runtime: Handle,
    /// Where it opens.
    pool: Pool,
    /// Names being loaded; locked for a look-up only, never across an await.
    loading: Mutex<HashMap<Hostname, watch::Receiver<Answer>>>,
    permits: Arc<Semaphore>,
    refreshes: Arc<Semaphore>,
    order_waits: Places,
}

impl Misses {
    pub fn new(table: Arc<Table>, supply: Arc<Supply>, opener: Opener, pool: Pool, runtime: Handle) -> Arc<Self> {
        let (permits, refreshes) = (Arc::new(Semaphore::new(LOADS_MAX)), Arc::new(Semaphore::new(REFRESHES_MAX)));
        let (opener, loading, order_waits) = (Arc::new(opener), Mutex::default(), Places::default());
        Arc::new(Self { table, supply, opener, runtime, pool, loading, permits, refreshes, order_waits })
    }

    /// Waits for the name's certificate, at most until the deadline. The load goes on if the visitor gives up.
    pub async fn wait(self: &Arc<Self>, name: &Hostname, deadline: Duration) -> Loaded {
        let mut answer = self.join(name, Want::Any).ok_or(Miss::Busy)?;
        let answered = tokio::time::timeout(deadline, answer.wait_for(Option::is_some)).await;
        match answered {
            Err(_) => Err(Miss::TimedOut(deadline)),
            Ok(Ok(answer)) => answer.clone().unwrap_or(Err(Miss::Unavailable("load ended".into()))),
            Ok(Err(_)) => Err(Miss::Unavailable("the load was abandoned".into())),
        }
    }

    /// The same for one that is being issued: CertService is asked again until it is there. Between two looks nothing is held
    /// but a place among those who wait.
    pub async fn wait_for_order(self: &Arc<Self>, name: &Hostname, deadline: Duration) -> Loaded {
        let waited = |result| METRICS.certificate_lookups.with_label_values(&["order", result]).inc();
        let Some(_place) = self.order_waits.take(name) else {
            waited("busy");
            return Err(Miss::OrderWaitsBusy);
        };
        let looked = tokio::time::timeout(deadline, self.until_issued(name)).await;
        waited(match &looked {
            Ok(Ok(_)) => "hit",
            Ok(Err(_)) => "miss",
            Err(_) => "timed_out",
        });
        looked.unwrap_or(Err(Miss::Coming))
    }

    /// Ends with anything but the news that it is still being issued, or that a look has no place now.
    async fn until_issued(self: &Arc<Self>, name: &Hostname) -> Loaded {
        let mut pause = LOOK_AGAIN;
        loop {
            tokio::time::sleep(pause).await;
            pause = LOOK_AGAIN_MAX.min(pause * 2);
            let found = match self.table.find(name, super::now()) {
                Found::Fresh(certificate, tier) | Found::Aging(certificate, tier) => Ok((certificate, tier)),
                Found::Absent(miss) => Err(miss),
                // It ends within its own time-outs.
                Found::Nothing => self.wait(name, Duration::MAX).await,
            };
            // That others are being loaded meanwhile is no reason to turn this one away: there is time left.
            if !matches!(found, Err(Miss::Coming | Miss::Busy | Miss::OpensBusy(_))) {
                return found;
            }
        }
    }

    /// Looks for the answer to a tls-alpn-01 challenge, for a CA that waits. Not remembered: each is asked for a few
    /// times only.
    pub(super) async fn challenge(&self, name: &Hostname) -> Result<Challenge, Miss> {
        let _permit = acme::LOOKUPS.try_acquire().map_err(|_| Miss::Busy)?;
        let answered = tokio::time::timeout(acme::LOOKUP_TIMEOUT, self.supply.tls_challenge(name)).await;
        Ok(answered.map_err(|_| Miss::TimedOut(acme::LOOKUP_TIMEOUT))??)
    }

    /// Whether somebody waits for this name already.
    pub fn loading(&self, name: &Hostname) -> bool {
        self.loading.lock().unwrap_or_else(PoisonError::into_inner).contains_key(name)
    }

    /// Asks again for a name that is being served meanwhile.
    pub fn refresh(self: &Arc<Self>, name: &Hostname) {
        self.join(name, Want::News { revision: 0 });
    }

    /// Fetches a revision that is known to be there. Waits for its turn: this is not for visitors.
    pub async fn renew(self: &Arc<Self>, name: &Hostname, revision: u64) {
        let mut answer = loop {
            match self.join(name, Want::News { revision }) {
                Some(answer) => break answer,
                None => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        };
        // How it went is counted and logged by the load.
        let _ = answer.wait_for(Option::is_some).await;
    }

    fn join(self: &Arc<Self>, name: &Hostname, want: Want) -> Option<watch::Receiver<Answer>> {
        let mut loading = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = loading.get(name) {
            return Some(answer.clone());
        }
        let permits = match want {
            Want::Any => &self.permits,
            Want::News { .. } => &self.refreshes,
        };
        let permit = permits.clone().try_acquire_owned().ok()?;
        let (tell, answer) = watch::channel(None);
        loading.insert(name.clone(), answer.clone());
        let (misses, name) = (self.clone(), name.clone());
        self.runtime.spawn(async move {
            let loaded = misses.load(&name, want).await;
            misses.loading.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
            tell.send_replace(Some(loaded));
            drop(permit);
        });
        Some(answer)
    }

    /// The nearest tier whose bundle opens and is new enough.
    async fn load(&self, name: &Hostname, want: Want) -> Loaded {
        // A load may have ended between a visitor's look into memory and this one's begin.
        if let (Want::Any, Found::Fresh(certificate, tier) | Found::Aging(certificate, tier)) =
            (want, self.table.find(name, super::now()))
        {
            return Ok((certificate, tier));
        }
        let (mut miss, mut outdated) = (Miss::Unavailable("only bundles that are outdated were found".into()), None);
        let (tiers, revision_min, patience) = match want {
            Want::Any => (&supply::Tier::ALL[..], 0, Patience::None),
            Want::News { revision } => (&supply::Tier::ALL[1..], revision, Patience::Endless),
        };
        for &tier in tiers {
            let started = Instant::now();
            let supplied = match self.supply.bundle(name, tier).await {
                Ok(Some(supplied)) if supplied.is_outdated() || self.is_behind(name, &supplied, revision_min) => {
                    outdated = Some(supplied).filter(|_| tier == supply::Tier::Disk).or(outdated);
                    continue;
                }
                Ok(Some(supplied)) => supplied,
                Ok(None) => continue,
                Err(error) => {
                    // A refused bundle of a nearer tier says more than that this one has none.
                    miss = if matches!(miss, Miss::Rejected(_)) { miss } else { error.into() };
                    continue;
                }
            };
            match self.open(name, &supplied, patience).await {
                Ok(certificate) => {
                    // Outdated since this load began: the next tier may be ahead.
                    let Some(kept) = self.table.keep(name, certificate) else { continue };
                    if kept.revision == supplied.bundle.revision {
                        self.supply.keep(name, supplied);
                    }
                    METRICS.certificate_cost(tier.label(), started.elapsed());
                    return Ok((kept, Tier::Supplied(tier)));
                }
                Err(NotOpened::Busy(queued)) => {
                    miss = Miss::OpensBusy(queued);
                    break;
                }
                // Nothing is wrong with the bundle: it is kept, and no other one would open.
                Err(NotOpened::Refused(CertificateError::Key(error @ OpenError::Unavailable(_)))) => {
                    METRICS.bundles_rejected.with_label_values(&["key_unavailable"]).inc();
                    tracing::error!(%name, source = tier.label(), "{error}");
                    miss = Miss::KeyUnavailable(error.to_string());
                    break;
                }
                Err(NotOpened::Lost) => {
                    miss = Miss::Unavailable("its key was not opened, as the work broke off".into())
                }
                Err(NotOpened::Refused(error)) => miss = self.refused(name, tier, &error),
            }
        }
        self.missed(name, miss, outdated, patience).await
    }

    /// Older than what is wanted, than what the feed has told, or than what is served already.
    fn is_behind(&self, name: &Hostname, supplied: &Supplied, revision_min: u64) -> bool {
        let held = self.table.revision(name).unwrap_or(0);
        supplied.bundle.revision < revision_min.max(self.table.floor(name)).max(held)
    }

    fn refused(&self, name: &Hostname, tier: supply::Tier, error: &CertificateError) -> Miss {
        METRICS.bundles_rejected.with_label_values(&[error.reason()]).inc();
        tracing::warn!(%name, source = tier.label(), reason = error.reason(), "bundle refused: {error}");
        if tier == supply::Tier::Disk && !error.may_pass() {
            self.supply.forget(name);
        }
        Miss::Rejected(error.to_string())
    }

    /// No tier has what is wanted. `outdated` is what the disk has.
    async fn missed(&self, name: &Hostname, miss: Miss, outdated: Option<Supplied>, patience: Patience) -> Loaded {
        let miss = if self.table.withdrawn(name) { Miss::Unknown } else { miss };
        if miss == Miss::Unknown {
            // CertService itself says so: the domain is off-boarded, whether or not the feed of changes told.
            self.table.remove(name);
            self.supply.forget(name);
        }
        if matches!(miss, Miss::Unavailable(_))
            && let Some(supplied) = outdated
            && let Ok(certificate) = self.open(name, &supplied, patience).await
            && let Some(kept) = self.table.keep_outdated(name, certificate)
        {
            tracing::info!(%name, "served by a certificate that was replaced: the new one is not to be had: {miss}");
            return Ok((kept, Tier::Supplied(supply::Tier::Disk)));
        }
        // Else what is served already stays: only a name without a certificate is turned away by this.
        self.table.keep_absent(name, miss.clone());
        Err(miss)
    }

    async fn open(&self, name: &Hostname, supplied: &Supplied, patience: Patience) -> Result<Certificate, NotOpened> {
        let (opener, name, bundle, checked_at) =
            (self.opener.clone(), name.clone(), supplied.bundle.clone(), supplied.checked_at);
        let work = move || opener.open(&bundle, &name, checked_at, super::now());
        match self.pool.run(patience, work).await {
            Ok(opened) => opened.map_err(NotOpened::Refused),
            Err(NotRun::Full(queued)) => Err(NotOpened::Busy(queued)),
            Err(NotRun::Lost) => Err(NotOpened::Lost),
        }
    }
}

/// Those who wait for certificates that are being issued, by name.
#[derive(Default)]
struct Places(Mutex<HashMap<Hostname, usize>>);

/// Given back when dropped.
struct Place<'a>(&'a Places, &'a Hostname);

impl Places {
    fn take<'a>(&'a self, name: &'a Hostname) -> Option<Place<'a>> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_name = taken.get(name).copied().unwrap_or(0);
        if of_name == ORDER_WAITS_OF_NAME_MAX || taken.values().sum::<usize>() >= ORDER_WAITS_MAX {
            return None;
        }
        taken.insert(name.clone(), of_name + 1);
        Some(Place(self, name))
    }

    #[cfg(test)]
    fn taken(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut taken = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.get_mut(self.1) {
            Some(of_name) if *of_name > 1 => *of_name -= 1,
            _ => drop(taken.remove(self.1)),
        }
    }
}

enum NotOpened {
    Busy(usize),
    Lost,
    Refused(CertificateError),
}

impl From<SupplyError> for Miss {
    fn from(error: SupplyError) -> Self {
        match error {
            SupplyError::Unknown => Self::Unknown,
            SupplyError::NotIssued => Self::NotIssued,
            SupplyError::Coming => Self::Coming,
            SupplyError::Rejected(why) => Self::Rejected(why),
            SupplyError::Unavailable(why) => Self::Unavailable(why),
        }
    }
}

#[cfg(test)]
#[path = "miss_tests.rs"]
mod tests;
#[cfg(test)]
#[path = "order_wait_tests.rs"]
mod order_wait_tests;
