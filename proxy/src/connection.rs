//! What is known of a connection, and how it reaches the HTTP phases.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use contract::{Hostname, Validity};
use pingora::http::ResponseHeader;
use pingora::protocols::l4::socket::SocketAddr as PingoraAddr;
use pingora::protocols::l4::stream::Stream as L4Stream;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{Digest, GetProxyDigest, GetSocketDigest, SocketDigest, Stream};
use std::os::fd::AsRawFd;

use crate::guard::Progress;

/// Who dialled: the load balancer where there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerAddr(pub SocketAddr);

/// Who the visitor is: from a trusted PROXY header, else the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddr(pub SocketAddr);

#[derive(Debug)]
pub struct Connection {
    pub peer: PeerAddr,
    pub client: ClientAddr,
    /// Where the peer dialled.
    pub server: SocketAddr,
    /// What else a trusted PROXY header said, where it said any of it.
    pub introduction: Option<Box<Introduction>>,
    /// The name that the TLS handshake was for; set once, by `tls`.
    pub sni: OnceLock<Hostname>,
    /// What the TLS handshake came to; set once, by `tls`.
    pub handshake: OnceLock<Handshake>,
    /// What the guard of its stream knows of its requests.
    pub progress: Arc<Progress>,
}

/// What balancers and clouds say of a connection, for the access log.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Introduction {
    pub unique_id: Option<Vec<u8>>,
    pub aws_vpce_id: Option<String>,
    pub azure_link_id: Option<u32>,
    pub gcp_psc_id: Option<u64>,
}

#[derive(Debug)]
pub struct Handshake {
    pub version: &'static str,
    pub cipher: &'static str,
    /// Of the key exchange.
    pub group: Option<&'static str>,
    pub resumed: bool,
    /// Where the certificate came from.
    pub tier: &'static str,
    /// Of the certificate.
    pub validity: Validity,
}

impl Connection {
    pub fn new(
        peer: PeerAddr,
        client: ClientAddr,
        server: SocketAddr,
        introduction: Option<Box<Introduction>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            peer,
            client,
            server,
            introduction,
            sni: OnceLock::new(),
            handshake: OnceLock::new(),
            progress: Arc::default(),
        })
    }

    /// Makes the stream carry the connection, and Pingora see the visitor's address. Must come before anyone asks for
    /// either.
    pub fn attach(self: &Arc<Self>, stream: &mut L4Stream) {
        let digest = SocketDigest::from_raw_fd(stream.as_raw_fd());
        // Both cells are new, so they can't be set yet.
        let _ = digest.peer_addr.set(Some(PingoraAddr::Inet(self.client.0)));
        let _ = digest.local_addr.set(Some(PingoraAddr::Inet(self.server)));
        stream.set_socket_digest(digest);
        // The one place for data of ours that Pingora hands through TLS, HTTP/1 and HTTP/2 alike; the response header
        // that its type asks for is never read on a downstream connection.
        if let Ok(unread) = ResponseHeader::build(200, Some(0)) {
            stream.set_proxy_digest(ProxyDigest::new(Box::new(unread), Some(Box::new(self.clone()))));
        }
    }

    pub fn of(digest: &Digest) -> Option<&Arc<Self>> {
        digest.proxy_digest.as_ref()?.user_data.as_ref()?.downcast_ref()
    }

    pub fn of_stream(stream: &Stream) -> Option<Arc<Self>> {
        stream.get_proxy_digest()?.user_data.as_ref()?.downcast_ref().cloned()
    }
}
