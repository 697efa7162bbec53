//! The API's socket: Unix, TCP, or TCP with TLS. A connection has to send its request within a deadline, and there is a
//! bound on how many there are.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use prometheus::IntGauge;
use rustix::fs::Mode;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use super::tls::{Files, Presented, handshake, presented};
use crate::config::{Listen, Networks};
use crate::observe::Metrics;

const CONNECTIONS_MAX: usize = 1024;
const HEADER_SECONDS_MAX: u64 = 10;
/// How long requests under way may take after the signal to stop, and after their certificate may be no good any more.
const STOP_SECONDS_MAX: u64 = 10;
/// Between two looks at the files of TLS.
const LOOK_SECONDS: u64 = 2;

pub struct Server {
    socket: Socket,
    tls: Option<(Files, TlsAcceptor)>,
    metrics: Arc<Metrics>,
    networks: Networks,
    builder: Builder<TokioExecutor>,
}

enum Socket {
    Unix(UnixListener, PathBuf),
    Tcp(TcpListener),
}

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream, IpAddr),
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Peer {
    /// None over a Unix socket.
    pub(super) address: Option<IpAddr>,
    pub(super) certificate: Option<Arc<Presented>>,
}

/// Connections that were accepted by the same certificates, CAs and revocation lists. They end together when others come
/// into force: what was believed then may be revoked now.
struct Generation {
    tls: Option<TlsAcceptor>,
    graceful: GracefulShutdown,
    over: watch::Sender<bool>,
}

impl Generation {
    fn new(tls: Option<TlsAcceptor>) -> Self {
        Self { tls, graceful: GracefulShutdown::new(), over: watch::Sender::new(false) }
    }

    /// Requests under way may come to their end, within a deadline.
    async fn end(self) {
        let limit = Duration::from_secs(STOP_SECONDS_MAX);
        if tokio::time::timeout(limit, self.graceful.shutdown()).await.is_err() {
            tracing::warn!("requests were still under way after {STOP_SECONDS_MAX} s");
        }
        self.over.send_replace(true);
    }
}

impl Server {
    pub async fn bind(listen: &Listen, metrics: Arc<Metrics>) -> Result<Self, String> {
        let (socket, tls, networks) = match listen {
            Listen::Unix(path) => (Socket::Unix(bind_unix(path)?, path.clone()), None, Networks::default()),
            Listen::Tcp { address, tls, networks } => {
                let tls = tls.clone().map(Files::open).transpose()?;
                let bound = TcpListener::bind(address).await;
                let bound = bound.map_err(|error| format!("can't listen on {address}: {error}"))?;
                (Socket::Tcp(bound), tls, networks.clone())
            }
        };
        // Not both versions: telling them apart would wait for a first byte without a deadline.
        let mut builder = Builder::new(TokioExecutor::new()).http1_only();
        let limit = Duration::from_secs(HEADER_SECONDS_MAX);
        builder.http1().timer(TokioTimer::new()).header_read_timeout(limit);
        Ok(Self { socket, tls, metrics, networks, builder })
    }

    /// For people and tests: with the port that the system chose.
    pub fn address(&self) -> String {
        match &self.socket {
            Socket::Unix(_, path) => format!("unix:{}", path.display()),
            Socket::Tcp(listener) => {
                let scheme = if self.tls.is_some() { "https" } else { "http" };
                listener.local_addr().map_or_else(|error| error.to_string(), |address| format!("{scheme}://{address}"))
            }
        }
    }

    /// Serves until `stop` says so, then lets requests under way come to their end.
    pub async fn run(mut self, router: Router, mut stop: watch::Receiver<bool>) {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut files = None;
        let mut generation = Generation::new(self.tls.take().map(|(read, acceptor)| {
            files = Some(read);
            acceptor
        }));
        let mut look = tokio::time::interval(Duration::from_secs(LOOK_SECONDS));
        loop {
            let (stream, place) = tokio::select! {
                Some(accepted) = self.accept(&room) => accepted,
                _ = look.tick(), if files.is_some() => {
                    let (read, changed) = look_again(files.take(), self.metrics.tls_files_unusable.clone()).await;
                    files = read;
                    if let Some(acceptor) = changed {
                        let before = std::mem::replace(&mut generation, Generation::new(Some(acceptor)));
                        tokio::spawn(before.end());
                    }
                    continue;
                }
                _ = stop.wait_for(|stop| *stop) => break,
            };
            let (builder, router) = (self.builder.clone(), router.clone());
            let (tls, watcher, mut over) =
                (generation.tls.clone(), generation.graceful.watcher(), generation.over.subscribe());
            tokio::spawn(async move {
                let served = tokio::select! {
                    served = serve_stream(builder, stream, tls, router, watcher) => served,
                    _ = over.wait_for(|over| *over) => Err("it outlived the certificates that it began with".to_owned()),
                };
                if let Err(error) = served {
                    tracing::debug!(error, "a connection ended badly");
                }
                drop(place);
            });
        }
        generation.end().await;
        if let Socket::Unix(_, path) = &self.socket {
            // It may be gone, or another process may have put its own there; either is fine.
            let _ = std::fs::remove_file(path);
        }
    }

    /// A connection from where they are taken, and its place among those at once.
    async fn accept(&self, room: &Arc<Semaphore>) -> Option<(Stream, OwnedSemaphorePermit)> {
        let place = room.clone().acquire_owned().await.ok()?;
        loop {
            let accepted = match &self.socket {
                Socket::Unix(listener, _) => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
                Socket::Tcp(listener) => listener.accept().await.map(|(stream, from)| of_tcp(stream, from)),
            };
            match accepted {
                Ok(Stream::Tcp(_, from)) if !self.networks.allow(Some(from)) => {
                    tracing::warn!(%from, "a connection from outside of listen.networks was refused");
                }
                Ok(stream) => return Some((stream, place)),
                Err(error) => {
                    // Out of file descriptors, mostly: pausing lets connections end.
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

fn of_tcp(stream: TcpStream, from: SocketAddr) -> Stream {
    Stream::Tcp(stream, from.ip().to_canonical())
}

/// Away from the threads that serve: it reads files.
async fn look_again(files: Option<Files>, unusable: IntGauge) -> (Option<Files>, Option<TlsAcceptor>) {
    let Some(mut files) = files else { return (None, None) };
    let looked = tokio::task::spawn_blocking(move || {
        let changed = files.look(&unusable);
        (Some(files), changed)
    });
    looked.await.unwrap_or((None, None))
}

async fn serve_stream(
    builder: Builder<TokioExecutor>,
    stream: Stream,
    tls: Option<TlsAcceptor>,
    router: Router,
    watcher: Watcher,
) -> Result<(), String> {
    match (stream, tls) {
        (Stream::Unix(stream), _) => serve(builder, stream, router, Peer::default(), watcher).await,
        (Stream::Tcp(stream, from), None) => {
            serve(builder, stream, router, Peer { address: Some(from), certificate: None }, watcher).await
        }
        (Stream::Tcp(stream, from), Some(tls)) => match handshake(&tls, stream).await {
            Ok(stream) => {
                let peer = Peer { address: Some(from), certificate: presented(&stream) };
                serve(builder, stream, router, peer, watcher).await
            }
            Err(error) => Err(format!("TLS handshake with {from}: {error}")),
        },
    }
}

async fn serve<S>(
    builder: Builder<TokioExecutor>,
    stream: S,
    router: Router,
    peer: Peer,
    watcher: Watcher,
) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(router.layer(Extension(peer)));
    let connection = pin!(watcher.watch(builder.serve_connection(TokioIo::new(stream), service).into_owned()));
    connection.await.map_err(|error| error.to_string())
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
