use std::net::SocketAddr;
use std::path::Path;

use tokio::net::TcpStream;

use crate::process::Process;
use crate::{Context, Result, folder, port, program};

/// A real load balancer.
pub struct HaProxy {
    pub process: Process,
    pub address: SocketAddr,
}

impl HaProxy {
    /// In front of one listener: passes TCP on with a PROXY v2 header. `source` is the loopback address that it dials from.
    pub async fn start(folder: &Path, to: SocketAddr, source: &str) -> Result<Self> {
        Self::sending(folder, to, source, "", "").await
    }

    /// The same, with more words for `bind` and for `server`.
    pub async fn sending(folder: &Path, to: SocketAddr, source: &str, bind: &str, server: &str) -> Result<Self> {
        let lines =
            format!("  unique-id-format %[uuid()]\n  server edge {to} send-proxy-v2 {server} source {source}\n");
        Self::listening(folder, "mode tcp", bind, &lines).await
    }

    /// In place of a customer's server: demands a PROXY header, and passes requests on with the source that it names.
    pub async fn demanding(folder: &Path, to: SocketAddr, bind: &str) -> Result<Self> {
        let lines = format!("  http-request set-header x-proxied-for %[src]:%[src_port]\n  server sample {to}\n");
        Self::listening(folder, "mode http", &format!("accept-proxy {bind}"), &lines).await
    }

    async fn listening(folder: &Path, mode: &str, bind: &str, lines: &str) -> Result<Self> {
        let address = port::free()?;
        let config = folder.join(format!("haproxy-{}.cfg", address.port()));
        folder::write(
            &config,
            format!(
                "defaults\n  {mode}\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n\
                 listen edge\n  bind {address} {bind}\n{lines}"
            ),
        )?;
        let mut process = Process::start("haproxy", &program::other("haproxy")?, folder, |command| {
            command.arg("-db").arg("-f").arg(&config);
        })?;
        process.until_ready(async || TcpStream::connect(address).await.map(drop).context("connect")).await?;
        Ok(Self { process, address })
    }
}
