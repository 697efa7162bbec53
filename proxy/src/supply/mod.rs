//! Where bundles and challenge answers come from: this edge's disk, Redis, then CertService. All hold signed tokens, and
//! only what verifies is returned.
//!
//! Must never be reached by a request whose certificate is at hand, trust what it reads, or outlast its time-outs.

mod breaker;
mod certservice;
mod disk;
mod redis;

use std::sync::Arc;

use contract::api::ChangePage;
use contract::signed::{Payload, VerifyError, VerifyKeys, verify};
use contract::{Bundle, Challenge, ChallengeKind, Hostname, TicketKeys, redis_keys};

pub use self::certservice::{Address, CertService, CertServiceConfig};
pub use self::disk::Disk;
use self::redis::Unanswered;
pub use self::redis::{Redis, RedisConfig};
use crate::observe::{METRICS, disk_failed};

pub struct Supply {
    disk: Arc<Disk>,
    redis: Option<Redis>,
    certservice: CertService,
    verify_keys: Arc<VerifyKeys>,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum SupplyError {
    #[error("no such domain")]
    Unknown,
    #[error("not issued yet")]
    NotIssued,
    #[error("being issued now")]
    Coming,
    #[error("what was supplied is refused: {0}")]
    Rejected(String),
    #[error("{0}")]
    Unavailable(String),
}

impl SupplyError {
    fn label(&self) -> &'static str {
        match self {
            Self::Unknown | Self::NotIssued | Self::Coming => "miss",
            Self::Rejected(_) => "rejected",
            Self::Unavailable(_) => "error",
        }
    }
}

/// A bundle whose signature is good, and where it came from.
pub struct Supplied {
    pub bundle: Bundle,
    token: String,
    pub tier: Tier,
    /// Unix seconds; when CertService or Redis last said that it is the current one.
    pub checked_at: u64,
}

impl Supplied {
    /// Known to have been replaced: good for nothing but to be served where nothing else is to be had.
    pub fn is_outdated(&self) -> bool {
        self.checked_at == disk::OUTDATED
    }
}

/// Nearest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    Disk,
    Redis,
    CertService,
}

impl Tier {
    pub const ALL: [Self; 3] = [Self::Disk, Self::Redis, Self::CertService];

    pub fn label(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Redis => "redis",
            Self::CertService => "certservice",
        }
    }
}

impl Supply {
    pub fn new(disk: Disk, redis: Option<Redis>, certservice: CertService, verify_keys: VerifyKeys) -> Self {
        Self { disk: Arc::new(disk), redis, certservice, verify_keys: Arc::new(verify_keys) }
    }

    /// Asks one tier. All that is wrong with disk or Redis, and with what they hold, is a miss; CertService has the last
    /// word.
    pub async fn bundle(&self, name: &Hostname, tier: Tier) -> Result<Option<Supplied>, SupplyError> {
        let now = crate::tls::now();
        let supplied = |(token, bundle, checked_at)| Supplied { bundle, token, tier, checked_at };
        let found = match tier {
            Tier::Disk => self.kept(name).await,
            Tier::Redis => self.cached(&redis_keys::bundle(name)).await.map(|(token, bundle)| (token, bundle, now)),
            Tier::CertService => {
                let (token, bundle) = self.checked(self.certservice.bundle(name).await)?;
                Some((token, bundle, now))
            }
        };
        Ok(found.map(supplied))
    }

    /// Keeps on disk what was opened, or notes that it is still the current one. Not waited for.
    pub fn keep(&self, name: &Hostname, supplied: Supplied) {
        if supplied.tier == Tier::Disk {
            return;
        }
        let (disk, name, keys) = (self.disk.clone(), name.clone(), self.verify_keys.clone());
        tokio::task::spawn_blocking(move || {
            // CertService has the last word; Redis may be behind what is kept already.
            let newer = |kept: disk::Kept| {
                let other = kept.token != supplied.token;
                other && verify::<Bundle>(&kept.token, &keys).is_ok_and(|kept| kept.revision > supplied.bundle.revision)
            };
            if supplied.tier == Tier::Redis && disk.get(&name).ok().flatten().is_some_and(newer) {
                return;
            }
            if let Err(error) = disk.put(&name, &supplied.token) {
                disk_failed(
                    "a bundle can't be kept on disk",
                    "it is served from memory, and lost with a restart",
                    &error,
                );
                tracing::debug!(%name, "not kept on disk");
            }
        });
    }

    /// What is on disk has been replaced: it is asked for again, also after a restart. Not waited for.
    pub fn outdate(&self, name: &Hostname) {
        if !self.disk.has(name) {
            return;
        }
        let (disk, name) = (self.disk.clone(), name.clone());
        tokio::task::spawn_blocking(move || {
            if let Err(error) = disk.outdate(&name) {
                disk_failed("a bundle can't be marked as outdated on disk", "a restart may serve it once more", &error);
            }
        });
    }

    /// Removes from disk what did not open or is no longer to be served. Not waited for.
    pub fn forget(&self, name: &Hostname) {
        if !self.disk.has(name) {
            return;
        }
        let (disk, name) = (self.disk.clone(), name.clone());
        tokio::task::spawn_blocking(move || {
            if let Err(error) = disk.remove(&name) {
                disk_failed("a bundle can't be removed from disk", "it is not served any more", &error);
            }
        });
    }

    async fn kept(&self, name: &Hostname) -> Option<(String, Bundle, u64)> {
        let (label, value) = match self.read(name).await {
            Ok(None) => ("miss", None),
            Err(error) => {
                disk_failed("a bundle can't be read from disk", "the next tier is asked", &error);
                ("error", None)
            }
            Ok(Some(kept)) => match verify(&kept.token, &self.verify_keys) {
                Ok(bundle) => ("hit", Some((kept.token, bundle, kept.checked_at))),
                Err(error) => {
                    METRICS.bundles_rejected.with_label_values(&["signature"]).inc();
                    tracing::warn!(%name, source = "disk", "token refused: {error}");
                    // A key that is missing in the boot file comes back with it.
                    if !matches!(error, VerifyError::UnknownKey(_)) {
                        self.forget(name);
                    }
                    ("rejected", None)
                }
            },
        };
        METRICS.certificate_lookups.with_label_values(&["disk", label]).inc();
        value
    }

    async fn read(&self, name: &Hostname) -> std::io::Result<Option<disk::Kept>> {
        if !self.disk.has(name) {
            return Ok(None);
        }
        let (disk, name) = (self.disk.clone(), name.clone());
        tokio::task::spawn_blocking(move || disk.get(&name)).await.map_err(std::io::Error::other)?
    }

    /// The answer to an http-01 challenge of this domain, if there is one.
    pub async fn challenge(&self, name: &Hostname, token: &str) -> Result<Challenge, SupplyError> {
        let answer = match self.cached::<Challenge>(&redis_keys::challenge(name, token)).await {
            Some((_, answer)) => answer,
            None => self.checked(self.certservice.challenge(name, token).await)?.1,
        };
        let is_it = answer.domain == *name && answer.token == token && answer.expires_at > crate::tls::now();
        if is_it { Ok(answer) } else { Err(SupplyError::Unknown) }
    }

    /// The answer to a tls-alpn-01 challenge of this domain, if there is one.
    pub async fn tls_challenge(&self, name: &Hostname) -> Result<Challenge, SupplyError> {
        let answer = match self.cached::<Challenge>(&redis_keys::tls_challenge(name)).await {
            Some((_, answer)) => answer,
            None => self.checked(self.certservice.tls_challenge(name).await)?.1,
        };
        let of_kind = answer.kind == ChallengeKind::TlsAlpn01;
        let is_it = of_kind && answer.domain == *name && answer.expires_at > crate::tls::now();
        if is_it { Ok(answer) } else { Err(SupplyError::Unknown) }
    }

    /// The session ticket keys that Redis has.
    pub async fn cached_ticket_keys(&self) -> Option<(String, TicketKeys)> {
        let found = self.redis.as_ref()?.get(redis_keys::TICKET_KEYS).await;
        let token = found.inspect_err(|error| tracing::debug!(%error, "no session ticket keys from Redis")).ok()??;
        let keys = self.verified(&token, "redis").ok()?;
        Some((token, keys))
    }

    /// The session ticket keys that CertService has.
    pub async fn ticket_keys(&self) -> Result<(String, TicketKeys), SupplyError> {
        let token = self.certservice.ticket_keys().await?;
        let keys = self.verified(&token, "certservice")?;
        Ok((token, keys))
    }

    /// The session ticket keys that were kept on disk.
    pub fn kept_ticket_keys(&self, token: &str) -> Option<TicketKeys> {
        self.verified(token, "disk").ok()
    }

    fn verified<T: Payload>(&self, token: &str, source: &str) -> Result<T, SupplyError> {
        verify(token, &self.verify_keys).map_err(|error| {
            METRICS.bundles_rejected.with_label_values(&["signature"]).inc();
            tracing::warn!(source, "token refused: {error}");
            SupplyError::Rejected(error.to_string())
        })
    }

    /// A verified token from Redis; all that is wrong with Redis or its content counts as a miss.
    async fn cached<T: Payload>(&self, key: &str) -> Option<(String, T)> {
        let found = self.redis.as_ref()?.get(key).await;
        let (label, value) = match found {
            Ok(None) => ("miss", None),
            Err(Unanswered::Resting) => ("skipped", None),
            Err(error) => {
                tracing::warn!(%error, "Redis does not answer; CertService is asked instead");
                ("error", None)
            }
            Ok(Some(token)) => match verify::<T>(&token, &self.verify_keys) {
                Ok(value) => ("hit", Some((token, value))),
                Err(error) => {
                    METRICS.bundles_rejected.with_label_values(&["signature"]).inc();
                    tracing::warn!(key, source = "redis", "token refused: {error}");
                    ("rejected", None)
                }
            },
        };
        METRICS.certificate_lookups.with_label_values(&["redis", label]).inc();
        value
    }

    fn checked<T: Payload>(&self, token: Result<String, SupplyError>) -> Result<(String, T), SupplyError> {
        let value = token.and_then(|token| {
            let verified = self.verified(&token, "certservice")?;
            Ok((token, verified))
        });
        let label = value.as_ref().map_or_else(SupplyError::label, |_| "hit");
        METRICS.certificate_lookups.with_label_values(&["certservice", label]).inc();
        value
    }

    /// What changed after a cursor (CertService only: the feed is not in Redis).
    pub async fn changes(&self, since: u64, limit: u32, edge: &str) -> Result<ChangePage, SupplyError> {
        self.certservice.changes(since, limit, edge).await
    }

    /// Calls `hint` whenever there may be changes, until the connection to Redis ends; waits for ever without Redis.
    pub async fn hints(&self, hint: &(dyn Fn() + Sync)) {
        match &self.redis {
            None => std::future::pending().await,
            Some(redis) => {
                if let Err(error) = redis.listen(redis_keys::CHANGES_CHANNEL, hint).await {
                    tracing::debug!(%error, "no hints from Redis; changes come with the next poll");
                }
            }
        }
    }

    /// For readiness: whether CertService answers.
    pub async fn check(&self) -> Result<(), String> {
        self.certservice.check().await
    }
}
