//! Hints to the edges through Redis. Must never be needed for correctness: who polls finds the same truth. Redis being
//! down costs a counter and a log line, never an order.

mod sweep;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use contract::signed::{Payload, SigningKey, sign};
use contract::{Bundle, Challenge, ChallengeKind, Hostname, TicketKeys, redis_keys};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, ClientTlsConfig, Cmd, IntoConnectionInfo, TlsCertificates};
use tokio::sync::Semaphore;

use crate::clock;
use crate::config::Redis;
use crate::observe::Metrics;
use crate::store::Store;

const REDIS_SECONDS_MAX: u64 = 2;
/// After a failed write.
const REST_SECONDS: u64 = 5;
/// Writes on behalf of requests that are under way at once; more are left to the next request.
const REFILLS_MAX: usize = 32;

#[derive(Clone)]
pub struct Notify {
    redis: Option<ConnectionManager>,
    store: Store,
    key: Arc<SigningKey>,
    metrics: Arc<Metrics>,
    refills: Arc<Semaphore>,
    /// Unix seconds; until then nothing is tried. A Redis that is down must not slow orders down.
    rest_until: Arc<AtomicU64>,
}

/// Nothing is connected yet. The errors are not shown: they may quote the URL, and with it a password.
fn open(settings: &Redis) -> Result<Client, String> {
    let url = settings.url.reveal();
    if !url.starts_with("rediss://") {
        return Client::open(url).map_err(|_| "the redis URL is malformed".to_owned());
    }
    let address = url.into_connection_info().map_err(|_| "the redis URL is malformed".to_owned())?;
    let identity = settings.identity.as_ref();
    let client_tls = identity.map(|(certificate, key)| ClientTlsConfig {
        client_cert: certificate.clone(),
        client_key: key.reveal().as_bytes().to_vec(),
    });
    let certificates = TlsCertificates { client_tls, root_cert: settings.root.clone() };
    let says = "ca_file, certificate_file or key_file of [redis] holds no certificate or no PKCS #8 key in PEM";
    Client::build_with_tls(address, certificates).map_err(|_| says.to_owned())
}

impl Notify {
    /// Connects when first needed.
    pub fn new(
        settings: Option<&Redis>,
        store: Store,
        key: Arc<SigningKey>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, String> {
        let limit = Some(Duration::from_secs(REDIS_SECONDS_MAX));
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(limit)
            .set_response_timeout(limit)
            .set_number_of_retries(1)
            .set_max_delay(Duration::from_secs(REDIS_SECONDS_MAX));
        let client = settings.map(open).transpose()?;
        let lazy = |client| ConnectionManager::new_lazy_with_config(client, config).map_err(|error| error.to_string());
        let redis = client.map(lazy).transpose()?;
        Ok(Self {
            redis,
            store,
            key,
            metrics,
            refills: Arc::new(Semaphore::new(REFILLS_MAX)),
            rest_until: Arc::default(),
        })
    }

    pub async fn bundle(&self, bundle: &Bundle, now: u64) {
        if let Some(token) = self.signed(bundle) {
            self.bundle_token(bundle, &token, now).await;
        }
    }

    /// A signed bundle that an edge had to ask for: the next edge finds it. Never delays the caller.
    pub fn refill(&self, bundle: Bundle, token: String, now: u64) {
        if self.redis.is_none() {
            return;
        }
        if let Ok(permit) = self.refills.clone().try_acquire_owned() {
            let notify = self.clone();
            tokio::spawn(async move {
                notify.bundle_token(&bundle, &token, now).await;
                drop(permit);
            });
        }
    }

    async fn bundle_token(&self, bundle: &Bundle, token: &str, now: u64) {
        self.set("set_bundle", redis_keys::bundle(&bundle.domain), token, bundle.not_after.saturating_sub(now)).await;
        // It may have been replaced or off-boarded since it was read. Who writes late must not bring it back for good.
        let served = self.store.served_revision(&bundle.domain).await;
        if !served.is_ok_and(|served| served == Some(bundle.revision)) {
            self.bundle_over(&bundle.domain).await;
        }
    }

    /// The domain is off-boarded.
    pub async fn bundle_over(&self, domain: &Hostname) {
        self.send("remove_bundle", Cmd::del(redis_keys::bundle(domain))).await;
    }

    /// There are changes up to `cursor`. Said after all else that a change puts into Redis, for edges to find it.
    pub async fn changes(&self, cursor: u64) {
        self.send("publish_changes", Cmd::publish(redis_keys::CHANGES_CHANNEL, cursor)).await;
    }

    /// Said again and again: whatever becomes of Redis, it has them.
    pub async fn ticket_keys(&self, keys: &TicketKeys) {
        if let Some(token) = self.signed(keys) {
            self.send("set_ticket_keys", Cmd::set(redis_keys::TICKET_KEYS, token)).await;
        }
    }

    pub async fn challenge(&self, answer: &Challenge, now: u64) {
        if let Some(token) = self.signed(answer) {
            let key = match answer.kind {
                ChallengeKind::Http01 => redis_keys::challenge(&answer.domain, &answer.token),
                ChallengeKind::TlsAlpn01 => redis_keys::tls_challenge(&answer.domain),
                ChallengeKind::Dns01 => return,
            };
            self.set("set_challenge", key, &token, answer.expires_at.saturating_sub(now)).await;
        }
    }

    pub async fn challenge_over(&self, answer: &Challenge) {
        // Of whichever kind it was.
        let keys = [redis_keys::challenge(&answer.domain, &answer.token), redis_keys::tls_challenge(&answer.domain)];
        self.send("remove_challenge", Cmd::del(&keys)).await;
    }

    async fn set(&self, operation: &str, key: String, value: &str, seconds: u64) {
        if seconds > 0 {
            self.send(operation, Cmd::set_ex(key, value, seconds)).await;
        }
    }

    /// Whether Redis answers; `None` where there is none.
    pub async fn answers(&self) -> Option<bool> {
        self.redis.as_ref()?;
        Some(self.send("ping", redis::cmd("PING")).await)
    }

    /// Whether Redis took it.
    async fn send(&self, operation: &str, command: Cmd) -> bool {
        let Some(mut redis) = self.redis.clone() else {
            return false;
        };
        if clock::now() < self.rest_until.load(Ordering::Relaxed) {
            self.metrics.redis_errors.with_label_values(&[operation]).inc();
            return false;
        }
        let limit = Duration::from_secs(REDIS_SECONDS_MAX);
        let says = match tokio::time::timeout(limit, command.query_async::<()>(&mut redis)).await {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {REDIS_SECONDS_MAX} s"),
        };
        self.rest_until.store(clock::now() + REST_SECONDS, Ordering::Relaxed);
        self.metrics.redis_errors.with_label_values(&[operation]).inc();
        tracing::warn!(operation, error = says, "redis did not take it; edges ask CertService instead");
        false
    }

    fn signed<T: Payload>(&self, payload: &T) -> Option<String> {
        self.redis.as_ref()?;
        sign(payload, &self.key).inspect_err(|error| tracing::error!(%error, "signing failed")).ok()
    }
}
