use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::redis::AsyncConnectionConfig;
use ::redis::aio::MultiplexedConnection;

use crate::process::Process;
use crate::{Context, Result, port, program};

pub struct Redis {
    pub process: Process,
    pub url: String,
    folder: PathBuf,
}

impl Redis {
    pub async fn start(folder: &Path) -> Result<Self> {
        let address: SocketAddr = port::free()?;
        let mut process = Process::start("redis", &program::other("redis-server")?, folder, |command| {
            command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--rdbcompression", "no"]);
            command.args(["--port", &address.port().to_string(), "--dir"]).arg(folder);
        })?;
        let url = format!("redis://{address}/0");
        process.until_ready(async || connect(&url).await.map(drop)).await?;
        Ok(Self { process, url, folder: folder.to_owned() })
    }

    pub async fn connection(&self) -> Result<MultiplexedConnection> {
        connect(&self.url).await
    }

    pub async fn get(&self, key: &str) -> Result<Option<String>> {
        Ok(::redis::cmd("GET").arg(key).query_async(&mut self.connection().await?).await?)
    }

    pub async fn set(&self, key: &str, value: &str) -> Result<()> {
        Ok(::redis::cmd("SET").arg(key).arg(value).query_async(&mut self.connection().await?).await?)
    }

    /// Everything that it holds, as it would lie on disk (not compressed).
    pub async fn dump(&self) -> Result<Vec<u8>> {
        let () = ::redis::cmd("SAVE").query_async(&mut self.connection().await?).await?;
        std::fs::read(self.folder.join("dump.rdb")).context("Redis' dump")
    }
}

async fn connect(url: &str) -> Result<MultiplexedConnection> {
    // The library waits for half a second; writing all to a busy disk takes longer.
    let patient = AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(30)));
    let mut connection = ::redis::Client::open(url)?.get_multiplexed_async_connection_with_config(&patient).await?;
    let () = ::redis::cmd("PING").query_async(&mut connection).await?;
    Ok(connection)
}
