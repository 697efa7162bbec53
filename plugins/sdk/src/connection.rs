//! Plugins of the world `connection-plugin`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Manifest;
use crate::bindings::connection::{self as wit, Endpoint, Ip};
use crate::bindings::control::Field;
use crate::config::{self, Diagnostic, Value};
use crate::datasets::Dataset;

pub use wit::{Client, Expectation, HeaderFields, HeaderVersion, OtherField, Outcome, PeerTls};

/// A configuration at work. Its serde form is what the proxy keeps.
pub trait ConnectionPolicy: Serialize + DeserializeOwned + 'static {
    const MANIFEST: Manifest;

    /// Reads and checks a configuration.
    fn plan(config: &Value<'_>) -> Option<Plan<Self>>;

    /// How the first bytes from this peer are to be read.
    fn expect(&self, who: &Connection<'_>) -> Expectation;

    /// What becomes of the connection.
    fn judge(&self, who: &Connection<'_>, seen: Seen) -> Outcome;
}

/// A policy, and what it needs of the proxy.
#[derive(Debug)]
pub struct Plan<P> {
    pub policy: P,
    pub(crate) wants: Vec<Field>,
}

impl<P> Plan<P> {
    pub fn new(policy: P) -> Self {
        Self { policy, wants: Vec::new() }
    }

    /// The policy is given what is found in the first of these datasets that has something; for the first that is wanted
    /// that is `found[0]`.
    pub fn wants(mut self, datasets: &[&Dataset]) -> Self {
        self.wants.push(Field::Found(datasets.iter().map(|dataset| dataset.name().to_owned()).collect()));
        self
    }
}

/// Who dialled, and where.
pub struct Connection<'a> {
    pub listener: &'a str,
    pub peer: SocketAddr,
    /// Values that were found in the datasets that the plan wants, by position.
    pub found: &'a [Option<Vec<u8>>],
}

/// What was read of a PROXY header.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)] // one a connection, on the stack: a box would be an allocation more
pub enum Seen {
    Nothing,
    Header(Header),
}

#[derive(Debug, Clone)]
pub struct Header {
    pub version: HeaderVersion,
    /// `None` if it names nobody.
    pub client: Option<SocketAddr>,
    /// The address that the client dialled.
    pub destination: Option<SocketAddr>,
    /// The peer comes on its own behalf, for a health check.
    pub local: bool,
    pub fields: HeaderFields,
}

/// Checks a configuration as the proxy would: for tests. What comes with a policy are warnings.
pub fn check<P: ConnectionPolicy>(config: &str) -> Result<(Plan<P>, Vec<Diagnostic>), Vec<Diagnostic>> {
    config::read(config.as_bytes(), P::plan)
}

pub(crate) fn address(endpoint: Endpoint) -> SocketAddr {
    let ip: IpAddr = match endpoint.ip {
        Ip::V4(bits) => Ipv4Addr::from_bits(bits).into(),
        Ip::V6((upper, lower)) => Ipv6Addr::from_bits(u128::from(upper) << 64 | u128::from(lower)).into(),
    };
    SocketAddr::new(ip, endpoint.port)
}

pub(crate) fn seen(seen: wit::Seen) -> Seen {
    match seen {
        wit::Seen::Nothing => Seen::Nothing,
        wit::Seen::Header(header) => Seen::Header(Header {
            version: header.version,
            client: header.client.map(address),
            destination: header.destination.map(address),
            local: header.local,
            fields: header.fields,
        }),
    }
}

/// Exports a [`ConnectionPolicy`] from the component. Once in a crate.
#[macro_export]
macro_rules! export_connection {
    ($policy:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            type Plugin = $crate::glue::Connection<$policy>;
    $crate::bindings::control::export_control!(Plugin with_types_in $crate::bindings::control);
    $crate::bindings::connection::export_connection_policy!(Plugin with_types_in $crate::bindings::connection);
        };
        // A native build exports nothing, and would call the policy unused.
        #[cfg(not(target_arch = "wasm32"))]
        const _: *const () = <$policy as $crate::connection::ConnectionPolicy>::plan as *const ();
    };
}
