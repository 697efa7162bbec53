//! From an accepted socket to a visitor: PROXY header, client address, TLS, then the HTTP application.
//!
//! Must never know host names or HTTP, read more than its limit or wait past its deadline, or believe a header from a
//! peer that the policy does not trust.

mod clients;
mod failing;
pub mod header;
mod policy;
mod tlv;

use std::net::{SocketAddr, TcpStream as StdStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pingora::apps::ServerApp;
use pingora::protocols::l4::stream::Stream as L4Stream;
use pingora::protocols::{IO, Stream};
use pingora::server::ShutdownWatch;
use tokio::net::{TcpListener, TcpStream};

use crate::config::Listener;
use crate::connection::{Connection, PeerAddr};
use crate::control::Current;
use crate::guard::{Guarded, Limits};
use crate::observe::METRICS;
use crate::tls::{Terminator, Unfinished};
use crate::workers::Worker;
pub use clients::Clients;
use clients::Place;
use failing::Failing;
pub use policy::ConnectionPolicy;
use policy::{Admitted, Refused};

/// After a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections taken from the kernel's queue after a stop; as long as that queue can be.
const WAITING_MAX: usize = 4096;

/// One listening socket and all that a connection on it passes.
pub struct Door<App> {
    pub listener: Listener,
    /// Absent on plaintext listeners.
    pub tls: Option<Terminator>,
    /// Who serves the connections.
    pub posts: Vec<Post<App>>,
    pub current: Arc<Current>,
    pub open: Arc<AtomicUsize>,
    pub limits: Arc<Limits>,
    pub clients: Arc<Clients>,
}

/// A worker's share of a door: an application, and with it upstream connections, of its own.
pub struct Post<App> {
    pub worker: Worker,
    pub app: Arc<App>,
}

impl<App: ServerApp + Send + Sync + 'static> Door<App> {
    /// Accepts until told to stop; open connections finish on their own.
    pub async fn serve(self: Arc<Self>, socket: TcpListener, mut shutdown: ShutdownWatch) {
        let mut failing = Failing::default();
        loop {
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                _ = shutdown.changed() => break,
            };
            // Off this thread's runtime: it is tied to its worker's next.
            match accepted.and_then(|(stream, peer)| Ok((stream.into_std()?, peer))) {
                Ok((stream, peer)) => {
                    failing.over(&self.listener.name);
                    self.welcome(stream, PeerAddr(peer), &shutdown);
                }
                Err(error) if concerns_one_connection(&error) => METRICS.accept_errors.inc(),
                Err(error) => {
                    METRICS.accept_errors.inc();
                    failing.begins(&self.listener.name, &error, Instant::now());
                    // Out of file descriptors or memory: wait for some to be given back instead of spinning.
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        // New to those that are accepted from here on.
        shutdown.mark_changed();
        self.welcome_waiting(socket, &shutdown);
    }

    /// Those whose connection the kernel has accepted already: closing the socket would reset them.
    fn welcome_waiting(self: Arc<Self>, socket: TcpListener, shutdown: &ShutdownWatch) {
        let Ok(socket) = socket.into_std() else { return };
        for _ in 0..WAITING_MAX {
            let Ok((stream, peer)) = socket.accept() else { return };
            if stream.set_nonblocking(true).is_ok() {
                self.welcome(stream, PeerAddr(peer), shutdown);
            }
        }
    }

    /// Gives it to the worker with the fewest connections.
    fn welcome(self: &Arc<Self>, stream: StdStream, peer: PeerAddr, shutdown: &ShutdownWatch) {
        let Some(post) = self.posts.iter().min_by_key(|post| post.worker.open()) else { return };
        let counted = (OpenConnection::new(&self.open), post.worker.enter());
        let (door, app, shutdown) = (self.clone(), post.app.clone(), shutdown.clone());
        post.worker.runtime().spawn(async move {
            door.admit(stream, peer, app, shutdown).await;
            drop(counted);
        });
    }

    async fn admit(&self, stream: StdStream, peer: PeerAddr, app: Arc<App>, shutdown: ShutdownWatch) {
        let name = self.listener.name.as_str();
        // In a box: what a handshake needs is given back when it is over.
        match Box::pin(self.open(stream, peer)).await {
            Ok((stream, _place)) => {
                METRICS.connections.with_label_values(&[name, "served"]).inc();
                app.process_new(stream, &shutdown).await;
            }
            Err(Closed::Refused(refused)) => {
                METRICS.connections.with_label_values(&[name, "refused"]).inc();
                METRICS.connection_refusals.with_label_values(&[refused.reason()]).inc();
                tracing::info!(listener = name, peer = %peer.0, reason = refused.reason(), "connection refused: {refused}");
            }
            Err(Closed::Unfinished(unfinished)) => {
                METRICS.connections.with_label_values(&[name, "tls_failed"]).inc();
                METRICS.handshakes.with_label_values(&[unfinished.reason()]).inc();
                tracing::info!(listener = name, peer = %peer.0, reason = unfinished.reason(), "TLS handshake failed: {unfinished}");
            }
        }
    }

    fn guarded<S: IO + 'static>(&self, stream: S, connection: &Connection) -> Stream {
        Box::new(Guarded::new(stream, self.limits.clone(), connection.progress.clone()))
    }

    async fn open(&self, stream: StdStream, peer: PeerAddr) -> Result<(Stream, Option<Place>), Closed> {
        let local = stream.local_addr().map_err(Refused::Io)?;
        let stream = TcpStream::from_std(stream).map_err(Refused::Io)?;
        let snapshot = self.current.load();
        let policy = snapshot.listeners.get(self.listener.name.as_str());
        let deadline = self.listener.proxy_header_timeout;
        let asked = policy::ask(policy.map(|p| &**p), &self.listener, stream, peer);
        let Admitted { mut stream, client, introduction } =
            tokio::time::timeout(deadline, asked).await.map_err(|_| Refused::TimedOut(deadline))??;
        drop(snapshot);

        let place = self.clients.enter(client).map_err(Refused::TooManyConnections)?;
        let connection = Connection::new(peer, client, local, introduction);
        connection.attach(&mut stream);
        let stream = match &self.tls {
            Some(tls) => self.guarded(tls.handshake(stream, &connection).await?, &connection),
            None => self.guarded(stream, &connection),
        };
        Ok((stream, place))
    }
}

/// Linux tells errors of a connection that is already gone as errors of accept (accept(2)).
fn concerns_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{
        ConnectionAborted, ConnectionReset, HostUnreachable, NetworkDown, NetworkUnreachable, TimedOut,
    };
    let kinds = [ConnectionAborted, ConnectionReset, HostUnreachable, NetworkDown, NetworkUnreachable, TimedOut];
    kinds.contains(&error.kind())
}

#[derive(Debug)]
enum Closed {
    Refused(Refused),
    Unfinished(Unfinished),
}

impl From<Refused> for Closed {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<Unfinished> for Closed {
    fn from(unfinished: Unfinished) -> Self {
        Self::Unfinished(unfinished)
    }
}

/// Counts a connection from accept to close, so that a stop knows when it may end.
struct OpenConnection(Arc<AtomicUsize>);

impl OpenConnection {
    fn new(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        METRICS.open_connections.inc();
        Self(open.clone())
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
        METRICS.open_connections.dec();
    }
}

/// Binds before anything starts, so that a port in use ends the process instead of leaving it deaf.
pub fn bind(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let socket = std::net::TcpListener::bind(address)?;
    socket.set_nonblocking(true)?;
    // On Linux what is accepted inherits it: a call less for each connection.
    rustix::net::sockopt::set_tcp_nodelay(&socket, true)?;
    Ok(socket)
}

fn rewound(stream: TcpStream, bytes: &[u8]) -> L4Stream {
    let mut stream = L4Stream::from(stream);
    stream.rewind(bytes);
    stream
}
