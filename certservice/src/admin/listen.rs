//! The API's socket: Unix, TCP, or TCP with TLS. A connection has to send its request within a deadline, and there is a
//! bound on how many there are.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustix::fs::Mode;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::{Listen, TlsFiles};

const CONNECTIONS_MAX: usize = 1024;
const HANDSHAKE_SECONDS_MAX: u64 = 10;
const HEADER_SECONDS_MAX: u64 = 10;
/// How long requests under way may take after the signal to stop.
const STOP_SECONDS_MAX: u64 = 10;

pub struct Server {
    socket: Socket,
    builder: Builder<TokioExecutor>,
}

enum Socket {
    Unix(UnixListener, PathBuf),
    Tcp(TcpListener, Option<TlsAcceptor>),
}

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream, Option<TlsAcceptor>),
}

impl Server {
    pub async fn bind(listen: &Listen) -> Result<Self, String> {
        let socket = match listen {
            Listen::Unix(path) => Socket::Unix(bind_unix(path)?, path.clone()),
            Listen::Tcp { address, tls } => {
                let tls = tls.as_ref().map(tls_acceptor).transpose()?;
                let bound = TcpListener::bind(address).await;
                Socket::Tcp(bound.map_err(|error| format!("can't listen on {address}: {error}"))?, tls)
            }
        };
        // Not both versions: telling them apart would wait for a first byte without a deadline.
        let mut builder = Builder::new(TokioExecutor::new()).http1_only();
        let limit = Duration::from_secs(HEADER_SECONDS_MAX);
        builder.http1().timer(TokioTimer::new()).header_read_timeout(limit);
        Ok(Self { socket, builder })
    }

    /// For people and tests: with the port that the system chose.
    pub fn address(&self) -> String {
        match &self.socket {
            Socket::Unix(_, path) => format!("unix:{}", path.display()),
            Socket::Tcp(listener, tls) => {
                let scheme = if tls.is_some() { "https" } else { "http" };
                listener.local_addr().map_or_else(|error| error.to_string(), |address| format!("{scheme}://{address}"))
            }
        }
    }

    /// Serves until `stop` says so, then lets requests under way come to their end.
    pub async fn run(self, router: Router, mut stop: watch::Receiver<bool>) {
        let graceful = GracefulShutdown::new();
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(place) = room.clone().acquire_owned().await else { break };
            let stream = tokio::select! {
                stream = self.accept() => stream,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            let (builder, router, watcher) = (self.builder.clone(), router.clone(), graceful.watcher());
            tokio::spawn(async move {
                let served = match stream {
                    Stream::Unix(stream) => serve(builder, stream, router, watcher).await,
                    Stream::Tcp(stream, None) => serve(builder, stream, router, watcher).await,
                    Stream::Tcp(stream, Some(tls)) => match handshake(&tls, stream).await {
                        Ok(stream) => serve(builder, stream, router, watcher).await,
                        Err(error) => Err(format!("TLS handshake: {error}")),
                    },
                };
                if let Err(error) = served {
                    tracing::debug!(error, "a connection ended badly");
                }
                drop(place);
            });
        }
        let limit = Duration::from_secs(STOP_SECONDS_MAX);
        if tokio::time::timeout(limit, graceful.shutdown()).await.is_err() {
            tracing::warn!("requests were still under way after {STOP_SECONDS_MAX} s");
        }
        if let Socket::Unix(_, path) = &self.socket {
            // It may be gone, or another process may have put its own there; either is fine.
            let _ = std::fs::remove_file(path);
        }
    }

    async fn accept(&self) -> Stream {
        loop {
            let accepted = match &self.socket {
                Socket::Unix(listener, _) => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
                Socket::Tcp(listener, tls) => {
                    listener.accept().await.map(|(stream, _)| Stream::Tcp(stream, tls.clone()))
                }
            };
            match accepted {
                Ok(stream) => return stream,
                Err(error) => {
                    // Out of file descriptors, mostly: pausing lets connections end.
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

async fn serve<S>(
    builder: Builder<TokioExecutor>,
    stream: S,
    router: Router,
    watcher: hyper_util::server::graceful::Watcher,
) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(router);
    let connection = pin!(watcher.watch(builder.serve_connection(TokioIo::new(stream), service).into_owned()));
    connection.await.map_err(|error| error.to_string())
}

async fn handshake(tls: &TlsAcceptor, stream: TcpStream) -> io::Result<tokio_rustls::server::TlsStream<TcpStream>> {
    let limit = Duration::from_secs(HANDSHAKE_SECONDS_MAX);
    tokio::time::timeout(limit, tls.accept(stream)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// A socket that only our user may open, from its first moment. One that a crash left behind is replaced; one that
/// somebody serves is not.
fn bind_unix(path: &Path) -> Result<UnixListener, String> {
    let failed = |error: io::Error| format!("can't listen on unix:{}: {error}", path.display());
    if let Ok(metadata) = path.symlink_metadata() {
        if !metadata.file_type().is_socket() {
            return Err(format!("can't listen on unix:{}: a file that is no socket stands there", path.display()));
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(format!("can't listen on unix:{}: another process serves it", path.display()));
        }
        std::fs::remove_file(path).map_err(failed)?;
    }
    let mask = rustix::process::umask(Mode::from_raw_mode(0o177));
    let bound = UnixListener::bind(path).map_err(failed);
    rustix::process::umask(mask);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    bound
}

fn tls_acceptor(files: &TlsFiles) -> Result<TlsAcceptor, String> {
    let (certificate, key) = (files.certificate_file.display(), files.key_file.display());
    let chain = CertificateDer::pem_file_iter(&files.certificate_file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|error| format!("{certificate} holds no certificate chain in PEM: {error}"))?;
    // The error is not shown: it could quote the key.
    let private = PrivateKeyDer::from_pem_file(&files.key_file);
    let private = private.map_err(|_| format!("{key} holds no private key in PEM"))?;
    let config = ServerConfig::builder_with_provider(default_provider().into());
    let config = config.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    let config = config.with_no_client_auth().with_single_cert(chain, private);
    let mut config = config.map_err(|error| format!("{certificate} and {key} can't be used: {error}"))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
