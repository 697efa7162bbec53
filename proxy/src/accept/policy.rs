//! Asks the listener's connection plugin twice: what to expect of this peer before a byte is believed, and whether to
//! admit it after. Without a plugin nobody is trusted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pingora::protocols::l4::stream::Stream as L4Stream;
use tokio::net::TcpStream;

use super::header::{self, Header, HeaderError, Tlvs};
use super::rewound;
use crate::config::Listener;
use crate::connection::{ClientAddr, Introduction, PeerAddr};
use crate::wasm::{Binding, Expectation, Fault, Outcome, Shadow};

#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("a PROXY header from a peer that is not trusted to send one")]
    Untrusted,
    #[error("no PROXY header from a peer that must send one")]
    Missing,
    #[error("a PROXY header without a checksum from a peer that must send one")]
    Unchecked,
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error("no PROXY header and no first byte within {0:?}")]
    TimedOut(Duration),
    #[error("the client has {0} connections open already")]
    TooManyConnections(u32),
    #[error("by the policy of `{0}`")]
    Policy(String),
    #[error("the plugin `{0}` failed, and it fails closed: {1}")]
    Fault(String, Fault),
    #[error("socket: {0}")]
    Io(std::io::Error),
}

impl Refused {
    /// Label of the counter.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Untrusted => "proxy_header_untrusted_peer",
            Self::Missing => "proxy_header_missing",
            Self::Unchecked => "proxy_header_unchecked",
            Self::Header(HeaderError::TooLong(..)) => "proxy_header_too_long",
            Self::Header(HeaderError::WrongChecksum) => "proxy_header_wrong_checksum",
            Self::Header(HeaderError::Malformed(_)) => "proxy_header_malformed",
            Self::Header(HeaderError::Ended | HeaderError::Io(_)) | Self::Io(_) => "peer_gone",
            Self::TimedOut(_) => "timed_out",
            Self::TooManyConnections(_) => "too_many_connections",
            Self::Policy(_) => "policy",
            Self::Fault(..) => "plugin_fault",
        }
    }
}

/// A connection plugin bound to a listener, with what to do when it fails.
pub struct ConnectionPolicy {
    pub plugin: String,
    pub binding: Arc<Binding>,
    pub fail_open: bool,
    /// Asked about a share of the calls, and compared.
    pub shadow: Option<Arc<Shadow>>,
}

pub(super) struct Admitted {
    pub(super) stream: L4Stream,
    pub(super) client: ClientAddr,
    pub(super) introduction: Option<Box<Introduction>>,
}

pub(super) async fn ask(
    policy: Option<&ConnectionPolicy>,
    listener: &Listener,
    stream: TcpStream,
    peer: PeerAddr,
) -> Result<Admitted, Refused> {
    let Some(policy) = policy else {
        refuse_header(&stream).await?;
        return Ok(Admitted { stream: rewound(stream, &[]), client: ClientAddr(peer.0), introduction: None });
    };
    let expectation = policy.call(policy.expect(&listener.name, peer.0), Expectation::Forbid)?;
    let (stream, header) = match expectation {
        Expectation::Forbid => {
            refuse_header(&stream).await?;
            (rewound(stream, &[]), None)
        }
        _ => read_header(stream, listener.proxy_header_bytes_max).await?,
    };
    match (expectation, &header) {
        (Expectation::Require | Expectation::RequireChecksum, None) => return Err(Refused::Missing),
        (Expectation::RequireChecksum, Some(header)) if !header.tlvs.checked => return Err(Refused::Unchecked),
        _ => {}
    }
    tracing::debug!(peer = %peer.0, ?header, "PROXY header");
    let judged = policy.judge(&listener.name, peer.0, header.as_ref());
    match policy.call(judged, Outcome::Admit(peer.0))? {
        Outcome::Admit(client) => {
            let introduction = header.and_then(|header| introduction(header.tlvs));
            Ok(Admitted { stream, client: ClientAddr(client), introduction })
        }
        Outcome::Reset => Err(Refused::Policy(policy.plugin.clone())),
    }
}

/// What the access log tells of a header, if there is anything.
fn introduction(tlvs: Tlvs) -> Option<Box<Introduction>> {
    let Tlvs { unique_id, aws_vpce_id, azure_link_id, gcp_psc_id, .. } = tlvs;
    let said = Introduction { unique_id, aws_vpce_id, azure_link_id, gcp_psc_id };
    (said != Introduction::default()).then(|| Box::new(said))
}

impl ConnectionPolicy {
    fn expect(&self, listener: &str, peer: SocketAddr) -> Result<Expectation, Fault> {
        let sample = self.shadow.as_ref().and_then(|shadow| shadow.sample(&self.binding));
        let expectation = self.binding.expect(listener, peer);
        if let Some(sample) = sample {
            sample.expect(&expectation, listener, peer);
        }
        expectation
    }

    fn judge(&self, listener: &str, peer: SocketAddr, header: Option<&Header>) -> Result<Outcome, Fault> {
        let sample = self.shadow.as_ref().and_then(|shadow| shadow.sample(&self.binding));
        let outcome = self.binding.judge(listener, peer, header);
        if let Some(sample) = sample {
            sample.judge(&outcome, listener, peer, header);
        }
        outcome
    }

    fn call<T>(&self, answer: Result<T, Fault>, when_open: T) -> Result<T, Refused> {
        match answer {
            Ok(answer) => Ok(answer),
            Err(fault) => {
                crate::observe::plugin_fault(&self.plugin, &self.binding, "connection", &fault);
                if self.fail_open { Ok(when_open) } else { Err(Refused::Fault(self.plugin.clone(), fault)) }
            }
        }
    }
}

async fn read_header(stream: TcpStream, bytes_max: usize) -> Result<(L4Stream, Option<Header>), Refused> {
    let mut stream = L4Stream::from(stream);
    let (header, rest) = header::read(&mut stream, bytes_max).await?;
    stream.rewind(&rest);
    Ok((stream, header))
}

/// Looks at the first bytes without taking them. A PROXY header that nobody asked for would fail anyway, as bad TLS or
/// bad HTTP: this gives it its own name.
async fn refuse_header(stream: &TcpStream) -> Result<(), Refused> {
    let mut first = [0u8; 12];
    let read = stream.peek(&mut first).await.map_err(Refused::Io)?;
    if header::looks_like_header(&first[..read]) { Err(Refused::Untrusted) } else { Ok(()) }
}
