//! Looks at what CertService lives on: database, disk, clock, CAs, DNS, Redis, the way to the edges. Must never change what it
//! looks at, and never wait for longer than its deadline.

mod outside;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use contract::api::{DoctorCheck, DoctorReport, KeyState};

use self::outside::Ca;
use crate::clock;
use crate::config::{Config, IssuerKind};
use crate::keys::Keys;
use crate::notify::Notify;
use crate::precheck::Checks;
use crate::store::{Store, StoreError};

/// Slower than that, a write to the database holds up orders.
const WRITE_MS_MAX: u128 = 250;
const FREE_BYTES_MIN: u64 = 512 * 1024 * 1024;
const FREE_PERCENT_MIN: u64 = 5;
/// Of the clock: signatures of tickets and answers to CAs bear no more.
const SKEW_SECONDS_MAX: u64 = 60;
const LOOK_SECONDS_MAX: u64 = 10;
/// Old keys of session tickets, in rotations.
const ROTATIONS_MAX: u64 = 3;

pub struct Doctor {
    store: Store,
    notify: Notify,
    checks: Checks,
    data_dir: PathBuf,
    cas: Vec<Ca>,
    /// Where customers' domains point to.
    addresses: Vec<IpAddr>,
    keys: Keys,
    rotation_seconds: u64,
}

/// What a look found: holds, does not, or can't be told.
fn found(id: impl Into<String>, ok: Option<bool>, says: impl Into<String>, fix: &str) -> DoctorCheck {
    let fix = (ok == Some(false)).then(|| fix.to_owned());
    DoctorCheck { id: id.into(), ok, says: says.into(), fix }
}

impl Doctor {
    pub fn new(config: &Config, store: Store, keys: Keys, notify: Notify, checks: Checks) -> Result<Self, String> {
        let mut cas = Vec::new();
        for issuer in &config.issuers {
            if let IssuerKind::Acme(acme) = &issuer.kind {
                cas.push(Ca::open(&issuer.name, &acme.directory, acme.root.as_deref(), acme.profile.clone())?);
            }
        }
        Ok(Self {
            store,
            notify,
            checks,
            data_dir: config.data_dir.clone(),
            cas,
            addresses: config.precheck.targets.addresses.clone(),
            keys,
            rotation_seconds: config.tickets.rotation_seconds,
        })
    }

    /// All looks, at once.
    pub async fn look(&self) -> DoctorReport {
        let (store, redis, dns, cas, ports) =
            tokio::join!(self.store(), self.redis(), self.dns(), self.cas(), self.ports());
        let mut checks = vec![store, disk(&self.data_dir)];
        checks.extend([self.bundles().await, redis, dns].into_iter().flatten());
        checks.extend(cas);
        checks.extend(ports);
        checks.push(self.keys().await);
        checks.push(self.custody().await);
        checks.push(self.certificates().await);
        let passed = checks.iter().all(|check| check.ok != Some(false));
        DoctorReport { checked_at: clock::now(), passed, checks }
    }

    async fn store(&self) -> DoctorCheck {
        let begun = Instant::now();
        let wrote = self.store.take_turn("doctor", clock::now(), 0).await;
        let ms = begun.elapsed().as_millis();
        let fix =
            "look at the database's disk and load, and at the way to it; with SQLite, at other processes on the file";
        match wrote {
            Ok(_) => found(
                "store",
                Some(ms <= WRITE_MS_MAX),
                format!("a write took {ms} ms, at most {WRITE_MS_MAX} are good"),
                fix,
            ),
            Err(error) => {
                tracing::error!(%error, "the doctor could not write");
                found("store", Some(false), "the database did not take a write; CertService's log has the reason", fix)
            }
        }
    }

    /// The database of bundles, where they are apart.
    async fn bundles(&self) -> Option<DoctorCheck> {
        let fix = "look at the database at `store.bundles` and at the way to it; no order leaves before it answers";
        let begun = Instant::now();
        let wrote = self.store.write_to_bundles().await?;
        let ms = begun.elapsed().as_millis();
        Some(match wrote {
            Ok(()) => {
                let says = format!("a write took {ms} ms, at most {WRITE_MS_MAX} are good");
                found("bundle store", Some(ms <= WRITE_MS_MAX), says, fix)
            }
            Err(error) => {
                tracing::error!(%error, "the doctor could not write to the database of bundles");
                let says = "the database of bundles did not take a write; CertService's log has the reason";
                found("bundle store", Some(false), says, fix)
            }
        })
    }

    async fn redis(&self) -> Option<DoctorCheck> {
        let fix = "start Redis, or look at redis.url; edges ask CertService meanwhile";
        let says = |ok| if ok { "Redis answers" } else { "Redis does not answer" };
        self.notify.answers().await.map(|ok| found("redis", Some(ok), says(ok), fix))
    }

    async fn dns(&self) -> Option<DoctorCheck> {
        let host = self.cas.iter().find_map(|ca| ca.host.clone())?;
        let fix = "look at /etc/resolv.conf, or at precheck.resolver: no order leaves without DNS";
        Some(match self.checks.addresses_of(&host).await {
            Ok(0) => found("dns", Some(false), format!("{host} has no address"), fix),
            Ok(count) => found("dns", Some(true), format!("{host} has {count} addresses"), fix),
            Err(says) => found("dns", Some(false), format!("{host}: {says}"), fix),
        })
    }

    /// Whether they answer, take orders, and have our time.
    async fn cas(&self) -> Vec<DoctorCheck> {
        let closed = self.store.issuers().await.unwrap_or_default();
        let mut checks = Vec::new();
        let mut skews = Vec::new();
        for (ca, answer) in futures_util::future::join_all(self.cas.iter().map(Ca::ask)).await {
            let id = format!("ca {}", ca.name);
            let now = clock::now();
            let closed = closed.iter().find(|state| state.name == ca.name && state.closed_until > now);
            let (ok, says) = match (&answer, closed) {
                (Err(says), _) => (false, says.clone()),
                (Ok(_), Some(state)) => {
                    (false, format!("it is left alone for {} s: {}", state.closed_until - now, state.says))
                }
                (Ok(answer), None) => (true, format!("its directory came in {} ms", answer.ms)),
            };
            skews.extend(answer.ok().and_then(|answer| answer.ahead_seconds));
            let fix = "look at issuers.directory, at the way out to the internet, and at the CA's status page";
            checks.push(found(id, Some(ok), says, fix));
        }
        if let Some(skew) = skews.into_iter().min_by_key(|skew| skew.unsigned_abs()) {
            let ok = skew.unsigned_abs() <= SKEW_SECONDS_MAX;
            let says = format!("{} s {} the CA's", skew.unsigned_abs(), if skew < 0 { "behind" } else { "ahead of" });
            checks.push(found("clock", Some(ok), says, "let chrony or systemd-timesyncd keep the time"));
        }
        checks
    }

    /// Whether CAs and visitors could reach the edges where customers' domains point to.
    async fn ports(&self) -> Vec<DoctorCheck> {
        let all = self.addresses.iter().flat_map(|address| [(*address, 80), (*address, 443)]);
        let looks = all.map(|(address, port)| async move {
            let fix = "look at the edges' listeners, the balancer and the firewall before them";
            let id = format!("port {port} of {address}");
            match outside::connect(address, port).await {
                Ok(()) => found(id, Some(true), "it takes connections", fix),
                Err(says) => found(id, Some(false), says, fix),
            }
        });
        futures_util::future::join_all(looks).await
    }

    async fn keys(&self) -> DoctorCheck {
        let edges = self.keys.active().await.map_or(0, |active| active.len());
        let fix = "see CertService's log for why session ticket keys are not turned";
        match self.store.ticket_keys().await {
            Ok(Some(keys)) => {
                let age = clock::now().saturating_sub(keys.revision);
                let ok = age <= self.rotation_seconds * ROTATIONS_MAX;
                found(
                    "keys",
                    Some(ok),
                    format!("sealed to {edges} edge keys; session ticket keys turned {age} s ago"),
                    fix,
                )
            }
            Ok(None) => found("keys", None, format!("sealed to {edges} edge keys; no session ticket keys yet"), fix),
            Err(_) => found("keys", None, "the database did not answer", fix),
        }
    }

    /// Whether the edges can open what they are to serve, and no edge key was tampered with.
    async fn custody(&self) -> DoctorCheck {
        let fix = "`latchkey keys custody` has the numbers: re-wrap what an edge key lacks (`latchkey keys rewrap` on an edge), \
                   retire altered keys and add them anew";
        let Ok(custody) = self.keys.custody().await else {
            return found("custody", None, "the database did not answer", fix);
        };
        let of = |state| custody.keys.iter().filter(move |key| key.state == state);
        let lacking = of(KeyState::Active).map(|key| key.missing + key.unconfirmed).max().unwrap_or(0);
        let altered = of(KeyState::Altered).count();
        let ok = lacking == 0 && custody.unreadable == 0 && altered == 0;
        let says = format!(
            "of {} bundles {} can be opened by no edge; the edge key that lacks most lacks {lacking}; {altered} edge keys in \
             the database are not what was written",
            custody.bundles, custody.unreadable
        );
        found("custody", Some(ok), says, fix)
    }

    async fn certificates(&self) -> DoctorCheck {
        let now = clock::now();
        let fix = "`latchkey domain ls --expires-within 0` names them, `latchkey domain show NAME` says who must act";
        let numbers = async || Ok::<_, StoreError>((self.store.ended(now).await?, self.store.soonest_end(now).await?));
        match numbers().await {
            Ok((0, None)) => found("certificates", None, "there are none yet", fix),
            Ok((0, Some(end))) => {
                let says =
                    format!("none has ended; the next does in {} hours if it is not replaced", (end - now) / 3600);
                found("certificates", Some(true), says, fix)
            }
            Ok((ended, _)) => {
                found("certificates", Some(false), format!("{ended} have ended and are not replaced"), fix)
            }
            Err(_) => found("certificates", None, "the database did not answer", fix),
        }
    }
}

fn disk(data_dir: &Path) -> DoctorCheck {
    let fix = "make room: without it nothing can be stored, and no order leaves";
    match rustix::fs::statvfs(data_dir) {
        Ok(disk) => {
            let free = disk.f_bavail * disk.f_frsize;
            let percent = disk.f_bavail * 100 / disk.f_blocks.max(1);
            let ok = free >= FREE_BYTES_MIN && percent >= FREE_PERCENT_MIN;
            let says = format!("{} MiB of {} are free ({percent} %)", free >> 20, data_dir.display());
            found("disk", Some(ok), says, fix)
        }
        Err(error) => found("disk", Some(false), format!("{} can't be looked at: {error}", data_dir.display()), fix),
    }
}

const LOOK: Duration = Duration::from_secs(LOOK_SECONDS_MAX);
