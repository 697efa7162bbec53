//! Handshakes as fast as the server does them: each connection ends as soon as it stands.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use support::{Context, Result, fail};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, Error, HandshakeKind, SignatureScheme, crypto, version::TLS13,
};

use super::client::{Client, PATIENCE};
use crate::names;

const AT_ONCE: usize = 24;
/// Coprime to every number of names: one after the other, but far apart, until all had their turn.
const STEP: usize = 7_919_777;

/// Which names are asked for, in an order that all servers get.
#[derive(Clone)]
pub struct Order {
    names: usize,
    next: Arc<AtomicUsize>,
}

impl Order {
    pub fn of(names: usize) -> Self {
        Self { names, next: Arc::default() }
    }

    pub fn next(&self) -> String {
        names::host(self.next.fetch_add(1, Ordering::Relaxed).wrapping_mul(STEP) % self.names)
    }
}

/// Handshakes under way until it is dropped.
pub struct Load {
    done: Arc<AtomicU64>,
    resumed: Arc<AtomicU64>,
    tasks: JoinSet<Result<()>>,
}

impl Load {
    /// Full ones.
    pub fn start(client: &Client, order: &Order) -> Self {
        let mut load = Self { done: Arc::default(), resumed: Arc::default(), tasks: JoinSet::new() };
        for _ in 0..AT_ONCE {
            let (client, order, done) = (client.clone(), order.clone(), load.done.clone());
            load.tasks.spawn(async move {
                loop {
                    end(client.connect(&order.next()).await?).await?;
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        load
    }

    /// Resumed ones, each with the ticket of the one before; a full one where the server resumes none.
    pub fn start_resumed(to: SocketAddr, name: &str) -> Result<Self> {
        let mut load = Self { done: Arc::default(), resumed: Arc::default(), tasks: JoinSet::new() };
        for _ in 0..AT_ONCE {
            let connector = TlsConnector::from(Arc::new(resuming()?));
            let server = ServerName::try_from(name.to_owned())?;
            let (done, resumed) = (load.done.clone(), load.resumed.clone());
            load.tasks.spawn(async move {
                loop {
                    let stream = TcpStream::connect(to).await.context("connect")?;
                    stream.set_nodelay(true)?;
                    let handshake = connector.connect(server.clone(), stream);
                    let stream = timeout(PATIENCE, handshake).await.context("TLS handshake")??;
                    if stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed) {
                        resumed.fetch_add(1, Ordering::Relaxed);
                    }
                    end(stream).await?;
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Ok(load)
    }

    /// Handshakes done so far; an error if one failed.
    pub fn done(&mut self) -> Result<u64> {
        match self.tasks.try_join_next() {
            None => Ok(self.done.load(Ordering::Relaxed)),
            Some(Ok(Ok(()))) => fail("a connection was closed"),
            Some(Ok(Err(error))) => Err(error).context("a handshake"),
            Some(Err(error)) => Err(error).context("a handshake"),
        }
    }

    /// How many of them were resumed.
    pub fn resumed(&self) -> u64 {
        self.resumed.load(Ordering::Relaxed)
    }
}

/// One full handshake with each of the names, so that the server has them all at hand.
pub async fn visit_all(client: &Client, numbers: std::ops::Range<usize>) -> Result<()> {
    let next = Arc::new(AtomicUsize::new(numbers.start));
    let mut tasks = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (client, next, end_at) = (client.clone(), next.clone(), numbers.end);
        tasks.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= end_at {
                    return Ok(());
                }
                let host = names::host(number);
                end(client.connect(&host).await.context(host)?).await?;
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        let visited: Result<()> = task?;
        visited?;
    }
    Ok(())
}

/// Says goodbye and waits for the server's: then it has done all of its part, tickets included.
async fn end(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<()> {
    // A server that closes at once without a word is as good.
    let _ = stream.shutdown().await;
    let mut rest = [0; 4096];
    let drained = async { while stream.read(&mut rest).await.is_ok_and(|read| read > 0) {} };
    timeout(PATIENCE, drained).await.context("the server to close")
}

/// TLS 1.3, and whatever session the server gives is used at the next chance.
fn resuming() -> Result<ClientConfig> {
    let mut provider = crypto::ring::default_provider();
    provider.cipher_suites.retain(|suite| suite.suite() == tokio_rustls::rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider.kx_groups.retain(|group| group.name() == tokio_rustls::rustls::NamedGroup::X25519);
    let builder = ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(&[&TLS13])?;
    let verifier = Arc::new(Trusting);
    let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::in_memory_sessions(4);
    Ok(config)
}

/// Believes every certificate: verifying would only cost the client.
#[derive(Debug)]
struct Trusting;

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_its_turn() {
        for names in [1, 1000, 10_000, 100_000] {
            let order = Order::of(names);
            let asked: std::collections::HashSet<String> = (0..names).map(|_| order.next()).collect();
            assert_eq!(asked.len(), names);
        }
    }
}
