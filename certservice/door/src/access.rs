//! Who is at the other end: what a request shows is compared with what the boot file knows.

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use contract::bundle::sha256;
use ipnet::IpNet;

/// Longest bearer token that is hashed.
const TOKEN_BYTES_MAX: usize = 512;

/// From where something is allowed; from anywhere where it is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks(pub Vec<IpNet>);

impl Networks {
    pub fn allow(&self, address: Option<IpAddr>) -> bool {
        let address = address.map(|address| address.to_canonical());
        self.0.is_empty() || self.0.iter().any(|net| address.is_some_and(|address| net.contains(&address)))
    }
}

/// A bearer token: its hash and what it allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token<Grant> {
    pub grant: Grant,
    pub sha256: [u8; 32],
    pub networks: Networks,
}

/// A TLS client certificate of a CA that is believed, and what it allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate<Grant> {
    pub grant: Grant,
    pub known_by: KnownBy,
    pub networks: Networks,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KnownBy {
    Uri(String),
    UriStart(String),
    Sha256([u8; 32]),
}

/// A client certificate of a CA that is believed.
#[derive(Debug)]
pub struct Presented {
    pub sha256: [u8; 32],
    pub uris: Vec<String>,
    /// Unix seconds.
    pub not_after: u64,
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// None over a Unix socket.
    pub address: Option<IpAddr>,
    pub certificate: Option<Arc<Presented>>,
    /// Over a Unix socket, as the kernel says; none where the other end is gone already.
    pub uid: Option<u32>,
}

/// Whom the boot file knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identified<Grant> {
    pub grant: Grant,
    /// SHA-256 of the token or of the certificate.
    pub sha256: [u8; 32],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unidentified {
    /// Nothing was shown.
    Nobody,
    Unknown,
    /// Known, but not from that address.
    WrongNetwork,
}

/// Who sends a token is who the token says, whatever certificate the connection has.
pub fn identify<Grant: Clone>(
    tokens: &[Token<Grant>],
    certificates: &[ClientCertificate<Grant>],
    headers: &HeaderMap,
    peer: &Peer,
) -> Result<Identified<Grant>, Unidentified> {
    let (identified, networks) = match (headers.get(AUTHORIZATION), &peer.certificate) {
        (Some(header), _) => {
            let token = header.as_bytes().split_at_checked(7);
            let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "));
            let token = token.map(|(_, token)| token.trim_ascii()).filter(|token| token.len() <= TOKEN_BYTES_MAX);
            let found = token.and_then(|token| known(tokens, token)).ok_or(Unidentified::Unknown)?;
            (Identified { grant: found.grant.clone(), sha256: found.sha256 }, &found.networks)
        }
        (None, Some(presented)) => {
            let found = certificates.iter().find(|certificate| is(&certificate.known_by, presented));
            let found = found.ok_or(Unidentified::Unknown)?;
            (Identified { grant: found.grant.clone(), sha256: presented.sha256 }, &found.networks)
        }
        (None, None) => return Err(Unidentified::Nobody),
    };
    if networks.allow(peer.address) { Ok(identified) } else { Err(Unidentified::WrongNetwork) }
}

fn is(known_by: &KnownBy, presented: &Presented) -> bool {
    match known_by {
        KnownBy::Uri(wanted) => presented.uris.contains(wanted),
        KnownBy::UriStart(start) => presented.uris.iter().any(|uri| uri.starts_with(start)),
        KnownBy::Sha256(sha256) => presented.sha256 == *sha256,
    }
}

/// Looks at all tokens, whichever fits, so that the time tells nothing.
fn known<'a, Grant>(tokens: &'a [Token<Grant>], presented: &[u8]) -> Option<&'a Token<Grant>> {
    let digest = sha256(presented);
    let mut found = None;
    for token in tokens {
        let difference = digest.iter().zip(&token.sha256).fold(0, |sum, (a, b)| sum | (a ^ b));
        if std::hint::black_box(difference) == 0 {
            found = Some(token);
        }
    }
    found
}
