//! Where bundles and challenge answers come from: Redis, then CertService. Both are asked for signed tokens, and only
//! what verifies is returned.
//!
//! Must never be reached by a request whose certificate is at hand, trust what it reads, or outlast its time-outs.

mod certservice;
mod redis;

use contract::signed::{Payload, VerifyKeys, verify};
use contract::{Bundle, Challenge, Hostname, redis_keys};

pub use self::certservice::{Address, CertService, CertServiceConfig};
pub use self::redis::Redis;
use crate::observe::METRICS;

pub struct Supply {
    redis: Option<Redis>,
    certservice: CertService,
    verify_keys: VerifyKeys,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum SupplyError {
    #[error("no such domain")]
    Unknown,
    #[error("not issued yet")]
    NotIssued,
    #[error("what was supplied is refused: {0}")]
    Rejected(String),
    #[error("{0}")]
    Unavailable(String),
}

impl SupplyError {
    fn label(&self) -> &'static str {
        match self {
            Self::Unknown | Self::NotIssued => "miss",
            Self::Rejected(_) => "rejected",
            Self::Unavailable(_) => "error",
        }
    }
}

pub struct Supplied {
    pub bundle: Bundle,
    /// From Redis, which may be stale: CertService has the last word.
    pub from_cache: bool,
}

impl Supply {
    pub fn new(redis: Option<Redis>, certservice: CertService, verify_keys: VerifyKeys) -> Self {
        Self { redis, certservice, verify_keys }
    }

    pub async fn bundle(&self, name: &Hostname) -> Result<Supplied, SupplyError> {
        if let Some(bundle) = self.cached::<Bundle>(&redis_keys::bundle(name)).await {
            return Ok(Supplied { bundle, from_cache: true });
        }
        self.bundle_from_certservice(name).await.map(|bundle| Supplied { bundle, from_cache: false })
    }

    pub async fn bundle_from_certservice(&self, name: &Hostname) -> Result<Bundle, SupplyError> {
        let token = self.certservice.bundle(name).await;
        self.checked(token)
    }

    /// The answer to an http-01 challenge of this domain, if there is one.
    pub async fn challenge(&self, name: &Hostname, token: &str) -> Result<Challenge, SupplyError> {
        let answer = match self.cached::<Challenge>(&redis_keys::challenge(name, token)).await {
            Some(answer) => answer,
            None => self.checked(self.certservice.challenge(name, token).await)?,
        };
        let is_it = answer.domain == *name && answer.token == token && answer.expires_at > crate::tls::now();
        if is_it { Ok(answer) } else { Err(SupplyError::Unknown) }
    }

    /// A verified token from Redis; all that is wrong with Redis or its content counts as a miss.
    async fn cached<T: Payload>(&self, key: &str) -> Option<T> {
        let found = self.redis.as_ref()?.get(key).await;
        let (label, value) = match found {
            Ok(None) => ("miss", None),
            Err(error) => {
                tracing::warn!(%error, "Redis does not answer; CertService is asked instead");
                ("error", None)
            }
            Ok(Some(token)) => match verify::<T>(&token, &self.verify_keys) {
                Ok(value) => ("hit", Some(value)),
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

    fn checked<T: Payload>(&self, token: Result<String, SupplyError>) -> Result<T, SupplyError> {
        let value = token.and_then(|token| {
            verify(&token, &self.verify_keys).map_err(|error| {
                METRICS.bundles_rejected.with_label_values(&["signature"]).inc();
                tracing::warn!(source = "certservice", "token refused: {error}");
                SupplyError::Rejected(error.to_string())
            })
        });
        let label = value.as_ref().map_or_else(SupplyError::label, |_| "hit");
        METRICS.certificate_lookups.with_label_values(&["certservice", label]).inc();
        value
    }

    /// For readiness: whether CertService answers.
    pub async fn check(&self) -> Result<(), String> {
        self.certservice.check().await
    }
}
