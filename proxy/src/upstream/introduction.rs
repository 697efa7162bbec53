//! A PROXY header (version 2) at the beginning of a connection to a peer, before TLS: on whose behalf it is made.
//!
//! Such a connection is one client's. It is never pooled: each request has its own, under a key that no other has, asks the
//! peer to close it, and closes it itself if the peer does not.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use nix::errno::Errno;
use pingora::connectors::l4::Connect;
use pingora::protocols::l4::socket::SocketAddr as PingoraAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, OrErr, Result};
use proxy_header::{ProxiedAddress, ProxyHeader};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// Both addresses of a client's connection; none for this edge's own ones, health checks (`LOCAL`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parties {
    pub(super) client: SocketAddr,
    pub(super) server: SocketAddr,
}

#[derive(Debug)]
struct Introducing {
    header: Vec<u8>,
    timeout: Duration,
}

/// Makes the connection to `peer` begin with the header, and nobody else's.
pub(super) fn introduce(peer: &mut HttpPeer, parties: Option<Parties>, timeout: Duration) -> Result<()> {
    static TURN: AtomicU64 = AtomicU64::new(0);
    peer.group_key = TURN.fetch_add(1, Ordering::Relaxed);
    peer.options.idle_timeout = Some(Duration::ZERO);
    peer.options.custom_l4 = Some(Arc::new(Introducing { header: encode(parties)?, timeout }));
    Ok(())
}

fn encode(parties: Option<Parties>) -> Result<Vec<u8>> {
    let header = match parties {
        Some(parties) => {
            let (client, server) = of_one_family(parties);
            ProxyHeader::with_address(ProxiedAddress::stream(client, server))
        }
        None => ProxyHeader::with_local(),
    };
    let mut bytes = Vec::new();
    header.encode_v2(&mut bytes).or_err(ErrorType::InternalError, "the PROXY header can't be written")?;
    Ok(bytes)
}

/// The header has room for one family: where they differ, an IPv4 address is written as a mapped one.
fn of_one_family(parties: Parties) -> (SocketAddr, SocketAddr) {
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let (client, server) = (canonical(parties.client), canonical(parties.server));
    if client.is_ipv4() == server.is_ipv4() {
        return (client, server);
    }
    let mapped = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    };
    (mapped(client), mapped(server))
}

#[async_trait]
impl Connect for Introducing {
    async fn connect(&self, address: &PingoraAddr) -> Result<Stream> {
        let Some(address) = address.as_inet() else {
            return Err(Error::explain(ErrorType::ConnectError, "not an IP address"));
        };
        let connected = async {
            let mut stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            stream.write_all(&self.header).await?;
            Ok(stream)
        };
        match tokio::time::timeout(self.timeout, connected).await {
            Ok(Ok(stream)) => Ok(stream.into()),
            Ok(Err(error)) => {
                let kind = why(&error);
                Err(Error::because(kind, format!("connecting to {address} with a PROXY header"), error))
            }
            Err(_) => {
                Err(Error::explain(ErrorType::ConnectTimedout, format!("no connection within {:?}", self.timeout)))
            }
        }
    }
}

/// As Pingora names them for connections of its own.
fn why(error: &std::io::Error) -> ErrorType {
    // This host has no descriptor, port or memory left for it: not the peer's failure.
    const OURS: [Errno; 5] = [Errno::EMFILE, Errno::ENFILE, Errno::EADDRNOTAVAIL, Errno::ENOBUFS, Errno::ENOMEM];
    if error.raw_os_error().is_some_and(|code| OURS.contains(&Errno::from_raw(code))) {
        return ErrorType::InternalError;
    }
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => ErrorType::ConnectRefused,
        std::io::ErrorKind::TimedOut => ErrorType::ConnectTimedout,
        std::io::ErrorKind::HostUnreachable | std::io::ErrorKind::NetworkUnreachable => ErrorType::ConnectNoRoute,
        _ => ErrorType::ConnectError,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(client: &str, server: &str) -> Vec<u8> {
        encode(Some(Parties { client: client.parse().unwrap(), server: server.parse().unwrap() })).unwrap()
    }

    #[test]
    fn writes_both_families_a_mixed_one_and_local() {
        let signature = b"\r\n\r\n\0\r\nQUIT\n";
        let v4 = [&signature[..], &[0x21, 0x11, 0, 12, 192, 0, 2, 7, 198, 51, 100, 1, 0x30, 0x39, 1, 0xbb]].concat();
        assert_eq!(of("192.0.2.7:12345", "198.51.100.1:443"), v4);
        assert_eq!(of("[::ffff:192.0.2.7]:12345", "198.51.100.1:443"), v4, "a mapped address is an IPv4 one");
        let v6 = of("[2001:db8::7]:1", "[2001:db8::1]:2");
        assert_eq!((&v6[12..16], v6.len()), (&[0x21, 0x21, 0, 36][..], 52));
        let mixed = of("192.0.2.7:1", "[2001:db8::1]:2");
        assert_eq!(&mixed[13..32], [&[0x21, 0, 36][..], &[0; 10], &[255, 255, 192, 0, 2, 7]].concat());
        assert_eq!(encode(None).unwrap(), [&signature[..], &[0x20, 0, 0, 0]].concat());
    }

    #[test]
    fn what_this_host_lacks_is_not_the_peers_failure() {
        for (code, kind) in [
            (Errno::EMFILE, ErrorType::InternalError),
            (Errno::EADDRNOTAVAIL, ErrorType::InternalError),
            (Errno::ECONNREFUSED, ErrorType::ConnectRefused),
            (Errno::EHOSTUNREACH, ErrorType::ConnectNoRoute),
            (Errno::ECONNRESET, ErrorType::ConnectError),
        ] {
            assert_eq!(why(&std::io::Error::from_raw_os_error(code as i32)), kind, "{code}");
        }
    }

    #[test]
    fn no_two_connections_have_the_same_key() {
        let parties = Parties { client: "192.0.2.7:1".parse().unwrap(), server: "198.51.100.1:443".parse().unwrap() };
        let hash = || {
            let mut peer = HttpPeer::new("127.0.0.1:1", false, String::new());
            introduce(&mut peer, Some(parties), Duration::from_secs(1)).unwrap();
            pingora::upstreams::peer::Peer::reuse_hash(&peer)
        };
        let hashes: std::collections::HashSet<_> = (0..1000).map(|_| hash()).collect();
        assert_eq!(hashes.len(), 1000);
    }
}
