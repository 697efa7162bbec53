use std::net::SocketAddr;
use std::path::Path;

use tokio::net::TcpStream;

use crate::process::Process;
use crate::{Context, Result, folder, port, program};

/// A real load balancer in front of one listener, that passes TCP on with a PROXY v2 header.
pub struct HaProxy {
    pub process: Process,
    pub address: SocketAddr,
}

impl HaProxy {
    /// `source` is the loopback address that it dials from.
    pub async fn start(folder: &Path, to: SocketAddr, source: &str) -> Result<Self> {
        let address = port::free()?;
        let config = folder.join("haproxy.cfg");
        folder::write(
            &config,
            format!(
                "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n\
                 listen edge\n  bind {address}\n  server edge {to} send-proxy-v2 source {source}\n"
            ),
        )?;
        let mut process = Process::start("haproxy", &program::other("haproxy")?, folder, |command| {
            command.arg("-db").arg("-f").arg(&config);
        })?;
        process.until_ready(async || TcpStream::connect(address).await.map(drop).context("connect")).await?;
        Ok(Self { process, address })
    }
}
