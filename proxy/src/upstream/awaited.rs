//! How long a peer may take for the head of an answer, all of it together, once it has the whole request. A read that brings nothing ends by itself
//! (`read_timeout_ms`); a peer that sends a byte now and then would hold a request for ever.
//!
//! The HTTP library has no hook while it reads and no deadline but that of one read. So the socket is shut down under it,
//! which it takes for the end of the connection, and [`super::Attempt`] knows why. Over HTTP/2 a head comes in whole
//! frames, and the time-out of a read is that of the whole head: there is nothing to do.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use nix::sys::socket::{Shutdown, SockaddrStorage, getpeername, shutdown};

use super::peer::now_ms;

/// How late a deadline is noticed at most.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// While the peer waits itself, for more of the request.
const NEVER: u64 = u64::MAX;

const WAITING: u8 = 0;
/// The head came, or nobody waits for it any more.
const OVER: u8 = 1;
const LATE: u8 = 2;

/// The head of an answer is waited for, until this is dropped.
pub(super) struct Awaited {
    watch: Arc<Watch>,
    timeout_ms: u64,
}

struct Watch {
    socket: RawFd,
    peer: SocketAddr,
    until: AtomicU64,
    state: AtomicU8,
}

thread_local! {
    /// What this worker waits for; what is over leaves it with the next look.
    static WATCHED: RefCell<Vec<Arc<Watch>>> = const { RefCell::new(Vec::new()) };
    static LOOKING: Cell<bool> = const { Cell::new(false) };
}

impl Awaited {
    /// Without a deadline yet. `socket` is the connection's own for as long as this is not dropped. Called on a worker: whatever concerns one
    /// request happens on one thread, so the socket is not closed while it is being looked at.
    pub(super) fn begin(socket: RawFd, peer: SocketAddr, timeout_ms: u64) -> Self {
        let watch = Arc::new(Watch { socket, peer, until: AtomicU64::new(NEVER), state: AtomicU8::new(WAITING) });
        WATCHED.with_borrow_mut(|watched| watched.push(watch.clone()));
        if !LOOKING.replace(true) {
            tokio::spawn(look_while_there_is_something());
        }
        Self { watch, timeout_ms }
    }

    /// From now on the peer has no more to wait for.
    pub(super) fn arm(&self) {
        self.watch.until.store(now_ms().saturating_add(self.timeout_ms), Relaxed);
    }

    /// The request goes on.
    pub(super) fn disarm(&self) {
        self.watch.until.store(NEVER, Relaxed);
    }

    /// Whether the connection was ended for it.
    pub(super) fn is_late(&self) -> bool {
        self.watch.state.load(Relaxed) == LATE
    }

    pub(super) fn timeout_ms(&self) -> u64 {
        self.timeout_ms
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.watch.state.store(OVER, Relaxed);
    }
}

async fn look_while_there_is_something() {
    while LOOKING.get() {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = now_ms();
        WATCHED.with_borrow_mut(|watched| {
            watched.retain(|watch| watch.goes_on(now));
            LOOKING.set(!watched.is_empty());
        });
    }
}

impl Watch {
    fn goes_on(&self, now: u64) -> bool {
        if self.state.load(Relaxed) != WAITING {
            return false;
        }
        if now < self.until.load(Relaxed) {
            return true;
        }
        self.state.store(LATE, Relaxed);
        self.end();
        false
    }

    /// Sockets are numbers: that this one still leads to the peer is certain, and looked at all the same.
    fn end(&self) {
        let leads_to = getpeername::<SockaddrStorage>(self.socket).ok().and_then(|address| socket_address(&address));
        if leads_to != Some(self.peer) {
            tracing::error!(peer = %self.peer, ?leads_to, "a late answer's connection is not where it should be");
        } else if let Err(error) = shutdown(self.socket, Shutdown::Both) {
            tracing::debug!(peer = %self.peer, %error, "a late answer's connection has ended already");
        }
    }
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into())))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    async fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    fn watched() -> usize {
        WATCHED.with_borrow(Vec::len)
    }

    #[tokio::test]
    async fn a_late_connection_is_ended_and_no_other() {
        let (mut late, _far) = connection().await;
        let (mut other, _other_far) = connection().await;
        let awaited = Awaited::begin(late.as_raw_fd(), late.peer_addr().unwrap(), 1);
        let in_time = Awaited::begin(other.as_raw_fd(), other.peer_addr().unwrap(), 3_600_000);
        awaited.arm();
        in_time.arm();
        assert_eq!(late.read(&mut [0]).await.unwrap(), 0);
        assert!(awaited.is_late() && !in_time.is_late());
        // A number that leads elsewhere by now is left alone.
        let (stranger, _stranger_far) = connection().await;
        let mistaken = Awaited::begin(other.as_raw_fd(), stranger.peer_addr().unwrap(), 1);
        mistaken.arm();
        while !mistaken.is_late() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let still = tokio::time::timeout(Duration::from_millis(50), other.read(&mut [0])).await;
        assert!(still.is_err(), "the other connection goes on");
    }

    #[tokio::test]
    async fn what_is_over_is_forgotten_and_what_is_still_being_sent_is_not_late() {
        let (near, _far) = connection().await;
        for _ in 0..100 {
            let over = Awaited::begin(near.as_raw_fd(), near.peer_addr().unwrap(), 1);
            over.arm();
        }
        let (sending, resumed) = (
            Awaited::begin(near.as_raw_fd(), near.peer_addr().unwrap(), 1),
            Awaited::begin(near.as_raw_fd(), near.peer_addr().unwrap(), 1),
        );
        resumed.arm();
        resumed.disarm();
        while watched() > 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(!sending.is_late() && !resumed.is_late());
        drop((sending, resumed));
        while LOOKING.get() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(watched(), 0);
    }
}
