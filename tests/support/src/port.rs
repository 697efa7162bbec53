use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

use crate::{Context, Result};

/// Below the range that the kernel hands out for outgoing connections: nobody else takes a port between our look and
/// its use.
const FIRST: u16 = 15_000;
const COUNT: u16 = 15_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A loopback address on which nobody listens; never the same twice in one process.
pub fn free() -> Result<SocketAddr> {
    let spread = (std::process::id() % u32::from(COUNT)) as u16;
    (0..COUNT)
        .map(|_| FIRST + (spread + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT)
        .find_map(take)
        .context("no free loopback port")
}

/// The wanted loopback port where it is free, else any other.
pub fn prefer(port: u16) -> Result<SocketAddr> {
    take(port).map_or_else(free, Ok)
}

fn take(port: u16) -> Option<SocketAddr> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpListener::bind(address).is_ok().then_some(address)
}
