//! A TLS client that offers exactly what it is told to: one cipher suite, one key exchange, one protocol.

use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use openssl::ssl::{Ssl, SslContext, SslMethod, SslVerifyMode, SslVersion};
use support::{Context, Result, proxy_header};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_openssl::SslStream;

/// For anything that answers in milliseconds when nobody else needs the machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Key exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    X25519,
    /// Hybrid, post-quantum.
    X25519MlKem768,
}

impl Group {
    fn name(self) -> &'static str {
        match self {
            Self::X25519 => "X25519",
            Self::X25519MlKem768 => "X25519MLKEM768",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

impl Protocol {
    fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"\x08http/1.1",
            Self::Http2 => b"\x02h2",
        }
    }
}

#[derive(Clone)]
pub struct Client {
    context: SslContext,
    pub to: SocketAddr,
    /// Sent first, where a load balancer would send one.
    proxy_header: bool,
}

impl Client {
    pub fn new(to: SocketAddr, group: Group, protocol: Protocol) -> Result<Self> {
        let mut builder = SslContext::builder(SslMethod::tls_client())?;
        builder.set_min_proto_version(Some(SslVersion::TLS1_3))?;
        builder.set_ciphersuites("TLS_AES_128_GCM_SHA256")?;
        builder.set_groups_list(group.name())?;
        // Certificates are not verified: that would only cost the client.
        builder.set_verify(SslVerifyMode::NONE);
        builder.set_alpn_protos(protocol.alpn())?;
        Ok(Self { context: builder.build(), to, proxy_header: false })
    }

    pub fn behind_balancer(self, proxy_header: bool) -> Self {
        Self { proxy_header, ..self }
    }

    /// A finished handshake.
    pub async fn connect(&self, host: &str) -> Result<SslStream<TcpStream>> {
        let mut ssl = Ssl::new(&self.context)?;
        ssl.set_hostname(host)?;
        timeout(PATIENCE, self.handshake(ssl)).await.context("TLS handshake")?
    }

    async fn handshake(&self, ssl: Ssl) -> Result<SslStream<TcpStream>> {
        let mut stream = TcpStream::connect(self.to).await.context(format!("connect to {}", self.to))?;
        stream.set_nodelay(true)?;
        if self.proxy_header {
            // A client that only a PROXY header can name (RFC 5737).
            let client = SocketAddr::from(([203, 0, 113, 7], 51_000));
            stream.write_all(&proxy_header::v2(client, self.to)).await?;
        }
        let mut stream = SslStream::new(ssl, stream)?;
        Pin::new(&mut stream).connect().await.context("TLS handshake")?;
        Ok(stream)
    }
}
