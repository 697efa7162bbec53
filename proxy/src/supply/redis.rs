//! The fleet's shared cache. Its loss costs a call to CertService, nothing else.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{AsyncCommands, ClientTlsConfig, IntoConnectionInfo, TlsCertificates};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::breaker::{Asking, Breaker};
use crate::observe::METRICS;

/// A slow Redis is as good as none.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

pub struct Redis {
    client: redis::Client,
    /// Made on first use. Reconnects by itself where it ends; where it hangs it is made anew.
    connection: Mutex<Option<ConnectionManager>>,
    breaker: Breaker,
}

/// Why there is no value, nor that there is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    #[error("{0}")]
    Failed(String),
    /// It hung a moment ago, and is left alone for a while.
    #[error("it is left alone for a while, because it did not answer")]
    Resting,
}

/// With what Redis is spoken to.
pub struct RedisConfig {
    /// With a password in it.
    pub url: Zeroizing<String>,
    /// PEM; believed instead of the system's roots.
    pub root: Option<String>,
    /// Client certificate and its key, PEM.
    pub identity: Option<(String, Zeroizing<String>)>,
}

/// The library's own errors may quote what is secret.
#[derive(Debug, thiserror::Error)]
pub enum RedisConfigError {
    #[error("the Redis URL does not parse; expected redis://[user:password@]host:port/db, or rediss:// for TLS")]
    Url,
    #[error("redis.ca_file, certificate_file or key_file holds no certificate or no PKCS #8 key in PEM")]
    Tls,
}

impl Redis {
    pub fn new(config: &RedisConfig) -> Result<Self, RedisConfigError> {
        let url = config.url.as_str();
        let client = if url.starts_with("rediss://") {
            let address = url.into_connection_info().map_err(|_| RedisConfigError::Url)?;
            let client_tls = config.identity.as_ref().map(|(certificate, key)| ClientTlsConfig {
                client_cert: certificate.as_bytes().to_vec(),
                client_key: key.as_bytes().to_vec(),
            });
            let root_cert = config.root.as_ref().map(|pem| pem.as_bytes().to_vec());
            let certificates = TlsCertificates { client_tls, root_cert };
            redis::Client::build_with_tls(address, certificates).map_err(|_| RedisConfigError::Tls)?
        } else {
            redis::Client::open(url).map_err(|_| RedisConfigError::Url)?
        };
        Ok(Self { client, connection: Mutex::default(), breaker: Breaker::default() })
    }

    pub(super) async fn get(&self, key: &str) -> Result<Option<String>, Unanswered> {
        let asking = self.breaker.ask(Instant::now()).ok_or(Unanswered::Resting)?;
        let answer = tokio::time::timeout(ANSWER_TIMEOUT + CONNECT_TIMEOUT, async {
            let mut connection = self.connect().await?;
            connection.get::<_, Option<String>>(key).await
        });
        let (answer, hung) = match answer.await {
            Ok(Ok(value)) => (Ok(value), false),
            Ok(Err(error)) => (Err(error.to_string()), error.is_timeout()),
            Err(_) => (Err(format!("no answer within {:?}", ANSWER_TIMEOUT + CONNECT_TIMEOUT)), true),
        };
        // Any error but a time-out comes at once, and holds up nobody.
        if hung {
            self.hung(asking);
        } else if asking.answered() {
            METRICS.redis_resting.set(0);
            tracing::info!("Redis answers again");
        }
        answer.map_err(Unanswered::Failed)
    }

    fn hung(&self, asking: Asking<'_>) {
        // Redis may be well, and only this connection dead: who asks next gets another one. Where it is locked, one is
        // being made.
        if let Ok(mut connection) = self.connection.try_lock() {
            *connection = None;
        }
        let Some(rest) = asking.failed(Instant::now()) else { return };
        if METRICS.redis_resting.get() == 0 {
            tracing::warn!(
                ?rest,
                "Redis does not answer in time, again and again: it is left alone for a while, and CertService is asked at once"
            );
        }
        METRICS.redis_resting.set(1);
    }

    /// Calls `hint` at once, for what was missed before, and for each message.
    pub(super) async fn listen(&self, channel: &str, hint: &(dyn Fn() + Sync)) -> redis::RedisResult<()> {
        let mut subscription = self.client.get_async_pubsub().await?;
        subscription.subscribe(channel).await?;
        hint();
        let mut messages = subscription.on_message();
        while messages.next().await.is_some() {
            hint();
        }
        Ok(())
    }

    async fn connect(&self) -> redis::RedisResult<ConnectionManager> {
        let mut connection = self.connection.lock().await;
        if let Some(made) = &*connection {
            return Ok(made.clone());
        }
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(ANSWER_TIMEOUT))
            .set_number_of_retries(1);
        let made = self.client.get_connection_manager_with_config(config).await?;
        Ok(connection.insert(made).clone())
    }
}
