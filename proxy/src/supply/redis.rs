//! The fleet's shared cache. Its loss costs a call to CertService, nothing else.

use std::time::Duration;

use futures_util::StreamExt;
use redis::AsyncCommands;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use tokio::sync::OnceCell;

/// A slow Redis is as good as none.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

pub struct Redis {
    client: redis::Client,
    /// Made on first use, reconnects by itself.
    connection: OnceCell<ConnectionManager>,
}

#[derive(Debug, thiserror::Error)]
#[error("the Redis URL does not parse; expected redis://[user:password@]host:port/db, or rediss:// for TLS")]
pub struct RedisUrlError;

impl Redis {
    pub fn new(url: &str) -> Result<Self, RedisUrlError> {
        let client = redis::Client::open(url).map_err(|_| RedisUrlError)?;
        Ok(Self { client, connection: OnceCell::new() })
    }

    pub(super) async fn get(&self, key: &str) -> Result<Option<String>, String> {
        let answer = tokio::time::timeout(ANSWER_TIMEOUT + CONNECT_TIMEOUT, async {
            let mut connection = self.connect().await?;
            connection.get::<_, Option<String>>(key).await
        });
        match answer.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {:?}", ANSWER_TIMEOUT + CONNECT_TIMEOUT)),
        }
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
        let connect = || async {
            let config = ConnectionManagerConfig::new()
                .set_connection_timeout(Some(CONNECT_TIMEOUT))
                .set_response_timeout(Some(ANSWER_TIMEOUT))
                .set_number_of_retries(1);
            self.client.get_connection_manager_with_config(config).await
        };
        self.connection.get_or_try_init(connect).await.cloned()
    }
}
