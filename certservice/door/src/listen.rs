//! The API's socket: Unix, TCP, or TCP with TLS. A connection has to send its request within a deadline, and there is a
//! bound on how many there are.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::{Duration, Instant, UNIX_EPOCH};

use axum::{Extension, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use prometheus::IntGauge;
use rustix::fs::Mode;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::access::{Networks, Peer};
use crate::patience::Patience;
use crate::room::{Place, Refused, Room};
use crate::tls::{Files, handshake, presented};

/// Connections that the kernel holds until they are accepted.
const BACKLOG: u32 = 1024;
const HEADER_SECONDS_MAX: u64 = 10;
/// Of a request's header, and of what is read ahead of a body: what a connection may take before anybody knows whose it is.
const BUFFER_BYTES_MAX: usize = 32 * 1024;
/// How long requests under way may take after the signal to stop, and after their certificate may be no good any more.
const STOP_SECONDS_MAX: u64 = 10;
/// Between two looks at the files of TLS.
const LOOK_SECONDS: u64 = 2;

#[derive(Debug, Clone)]
pub enum Listen {
    Unix(PathBuf),
    Tcp { address: SocketAddr, tls: Option<TlsFiles>, networks: Networks },
}

/// They are read again when they change.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub client: Option<ClientFiles>,
}

/// By what client certificates are believed.
#[derive(Debug, Clone)]
pub struct ClientFiles {
    pub ca: PathBuf,
    pub crl: Option<PathBuf>,
    pub required: bool,
}

pub struct Server {
    socket: Socket,
    tls: Option<(Files, TlsAcceptor)>,
    networks: Networks,
    builder: Builder<TokioExecutor>,
    refused: Refused,
}

enum Socket {
    /// With the name that goes when it ends, if it is ours to remove.
    Unix(UnixListener, Option<PathBuf>),
    Tcp(TcpListener),
}

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream, IpAddr),
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
    /// `unusable`: see [`Files::open`].
    pub fn bind(listen: &Listen, unusable: &IntGauge) -> Result<Self, String> {
        match listen {
            Listen::Unix(path) => {
                let socket = Socket::Unix(bind_unix(path)?, Some(path.clone()));
                Ok(Self::new(socket, None, Networks::default()))
            }
            Listen::Tcp { address, tls, networks } => {
                let tls = tls.as_ref().map(|tls| (tls, unusable));
                Self::tcp(*address, tls, networks, false)
            }
        }
    }

    /// A socket that somebody else has made, and whose name is theirs.
    pub fn on_unix(listener: UnixListener) -> Self {
        Self::new(Socket::Unix(listener, None), None, Networks::default())
    }

    /// `shared`: another process of the same user may listen there too, which is about to take this one's place.
    pub fn tcp(
        address: SocketAddr,
        tls: Option<(&TlsFiles, &IntGauge)>,
        networks: &Networks,
        shared: bool,
    ) -> Result<Self, String> {
        let tls = tls.map(|(files, unusable)| Files::open(files.clone(), unusable.clone())).transpose()?;
        let bound = bind_tcp(address, shared).map_err(|error| format!("can't listen on {address}: {error}"))?;
        Ok(Self::new(Socket::Tcp(bound), tls, networks.clone()))
    }

    fn new(socket: Socket, tls: Option<(Files, TlsAcceptor)>, networks: Networks) -> Self {
        // Not both versions: telling them apart would wait for a first byte without a deadline.
        let mut builder = Builder::new(TokioExecutor::new()).http1_only();
        let limit = Duration::from_secs(HEADER_SECONDS_MAX);
        builder.http1().timer(TokioTimer::new()).header_read_timeout(limit).max_buf_size(BUFFER_BYTES_MAX);
        Self { socket, tls, networks, builder, refused: Refused::default() }
    }

    /// For people and tests: with the port that the system chose.
    pub fn address(&self) -> String {
        match &self.socket {
            Socket::Unix(_, path) => format!("unix:{}", path.as_deref().unwrap_or(Path::new("")).display()),
            Socket::Tcp(listener) => {
                let scheme = if self.tls.is_some() { "https" } else { "http" };
                listener.local_addr().map_or_else(|error| error.to_string(), |address| format!("{scheme}://{address}"))
            }
        }
    }

    /// Serves until `stop` says so, then lets requests under way come to their end.
    pub async fn run(mut self, router: Router, mut stop: watch::Receiver<bool>) {
        let room = Room::new();
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
                    let (read, changed) = look_again(files.take()).await;
                    files = read;
                    if let Some(acceptor) = changed {
                        let before = std::mem::replace(&mut generation, Generation::new(Some(acceptor)));
                        tokio::spawn(before.end());
                    }
                    continue;
                }
                () = said(&mut stop) => break,
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
        if let Socket::Unix(_, Some(path)) = &self.socket {
            // It may be gone, or another process may have put its own there; either is fine.
            let _ = std::fs::remove_file(path);
        }
    }

    /// A connection from where they are taken, and its place among those at once.
    async fn accept(&mut self, room: &Room) -> Option<(Stream, Place)> {
        let mut free = room.next().await?;
        loop {
            let accepted = match &self.socket {
                Socket::Unix(listener, _) => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
                Socket::Tcp(listener) => listener.accept().await.map(|(stream, from)| of_tcp(stream, from)),
            };
            let (stream, from) = match accepted {
                Ok(Stream::Tcp(stream, from)) => (Stream::Tcp(stream, from), Some(from)),
                Ok(stream) => return Some((stream, room.take(free, None).ok()?)),
                Err(error) => {
                    // Out of file descriptors, mostly: pausing lets connections end.
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let why = if self.networks.allow(from) {
                match room.take(free, from) {
                    Ok(place) => return Some((stream, place)),
                    Err(again) => free = again,
                }
                "that address has as many as it may have at once"
            } else {
                "it is from outside of the networks that the boot file names"
            };
            if let Some(count) = self.refused.one(Instant::now()) {
                tracing::warn!(?from, count, "connections were refused, the last one since {why}");
            }
        }
    }
}

/// Also where nobody can say it any more.
async fn said(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

fn of_tcp(stream: TcpStream, from: SocketAddr) -> Stream {
    Stream::Tcp(stream, from.ip().to_canonical())
}

/// Away from the threads that serve: it reads files.
async fn look_again(files: Option<Files>) -> (Option<Files>, Option<TlsAcceptor>) {
    let Some(mut files) = files else { return (None, None) };
    let looked = tokio::task::spawn_blocking(move || {
        let changed = files.look();
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
        (Stream::Unix(stream), _) => {
            let uid = stream.peer_cred().ok().map(|credentials| credentials.uid());
            serve(builder, stream, router, Peer { address: None, certificate: None, uid }, watcher).await
        }
        (Stream::Tcp(stream, from), None) => {
            serve(builder, stream, router, Peer { address: Some(from), certificate: None, uid: None }, watcher).await
        }
        (Stream::Tcp(stream, from), Some(tls)) => match handshake(&tls, stream).await {
            Ok(stream) => {
                let certificate = presented(&stream);
                let ends = certificate.as_ref().map(|certificate| certificate.not_after);
                let peer = Peer { address: Some(from), certificate, uid: None };
                tokio::select! {
                    served = serve(builder, stream, router, peer, watcher) => served,
                    () = over(ends) => Err("its client certificate has ended".to_owned()),
                }
            }
            Err(error) => Err(format!("TLS handshake with {from}: {error}")),
        },
    }
}

/// Once a certificate that ends then is no good any more.
async fn over(ends: Option<u64>) {
    let Some(ends) = ends else { return std::future::pending().await };
    let now = UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
    tokio::time::sleep(Duration::from_secs((ends + 1).saturating_sub(now))).await;
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
    let connection =
        pin!(watcher.watch(builder.serve_connection(TokioIo::new(Patience::new(stream)), service).into_owned()));
    connection.await.map_err(|error| error.to_string())
}

fn bind_tcp(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(shared)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
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
