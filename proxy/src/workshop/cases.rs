//! A file of cases (TOML), as a plugin's author writes it.

use std::net::SocketAddr;

use contract::document::{Faults, JsonObject, Named};
use deserr::{Deserr, ValuePointerRef};
use serde_json::{Map, Value};

use super::outcome::KEYS;

#[derive(Debug, Deserr)]
#[deserr(error = Faults, deny_unknown_fields)]
pub(super) struct File {
    /// The component, seen from this file's folder. Default: the one that the command names.
    #[deserr(default)]
    pub plugin: Option<String>,
    /// Configuration of the cases that have none of their own. Default: `{}`.
    #[deserr(default)]
    pub config: JsonObject,
    /// Tables that a configuration may name: files, seen from this file's folder.
    #[deserr(default)]
    pub tables: Named<String>,
    /// Upstreams that the plugin may ask.
    #[deserr(default)]
    pub callouts: Vec<String>,
    #[deserr(default)]
    pub limits: Limits,
    pub cases: Vec<Case>,
}

/// What the calls of a case may use; none is no limit.
#[derive(Debug, Default, Deserr)]
#[deserr(error = Faults, deny_unknown_fields)]
pub(super) struct Limits {
    /// Time of all calls of a case, in microseconds: the shortest of 20 runs, since other programs take their turns.
    #[deserr(default)]
    pub micros: Option<u64>,
    /// About one for each instruction of the guest: the same on every machine.
    #[deserr(default)]
    pub instructions: Option<u64>,
    /// Memory of the instance, in KiB.
    #[deserr(default)]
    pub memory_kib: Option<u64>,
}

#[derive(Debug, Deserr)]
#[deserr(error = Faults, deny_unknown_fields, validate = check_case -> Faults)]
pub(super) struct Case {
    /// For people.
    pub name: String,
    #[deserr(default)]
    pub config: Option<JsonObject>,
    /// Unix seconds. Default: 1800000000 (2027-01-15).
    #[deserr(default = 1_800_000_000)]
    pub now: u64,
    /// 0 to 9999. Default: the one of the request's host.
    #[deserr(default)]
    pub rollout_bucket: Option<u16>,
    /// How the site's certificate stands at `now`. Default: `healthy`.
    #[deserr(default = Certificate::Healthy)]
    pub certificate: Certificate,
    /// An HTTP plugin is asked about it.
    #[deserr(default)]
    pub request: Option<Request>,
    /// Then it is asked about this answer to the request.
    #[deserr(default)]
    pub response: Option<Response>,
    /// A connection plugin is asked about it.
    #[deserr(default)]
    pub connection: Option<Connection>,
    /// What other servers say to its questions, in their order; to further ones nobody answers.
    #[deserr(default)]
    pub answers: Vec<Reply>,
    /// What must come out; what is not named is not compared.
    pub expect: Expected,
}

#[derive(Debug, Deserr)]
#[deserr(error = Faults, deny_unknown_fields)]
pub(super) struct Request {
    /// Default `https`.
    #[deserr(default = Scheme::Https)]
    pub scheme: Scheme,
    /// Default `shop.example`.
    #[deserr(default = "shop.example".to_owned())]
    pub host: String,
    /// With its query, if any. Default `/`.
    #[deserr(default = "/".to_owned())]
    pub path: String,
    #[deserr(default)]
    pub headers: Named<String>,
    /// Shown to a plugin that sees bodies of requests. Default: none.
    #[deserr(default)]
    pub body: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserr)]
#[deserr(error = Faults, rename_all = lowercase)]
pub(super) enum Scheme {
    Http,
    Https,
}

/// Unwell is since a day; a certificate whose renewal fails has 20 days left, one that is about to end 2 days.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserr)]
#[deserr(error = Faults, rename_all = lowercase)]
pub(super) enum Certificate {
    Healthy,
    #[deserr(rename = "renewal_failing")]
    RenewalFailing,
    Ending,
    #[deserr(rename = "handshake_errors")]
    HandshakeErrors,
}

#[derive(Debug, Deserr)]
#[deserr(error = Faults, deny_unknown_fields)]
pub(super) struct Response {
    /// Default 200.
    #[deserr(default = 200)]
    pub status: u16,
    #[deserr(default)]
    pub headers: Named<String>,
    /// Shown to a plugin that sees bodies of answers. Default: none.
    #[deserr(default)]
    pub body: Option<String>,
}

/// Of another server.
#[derive(Debug, Deserr)]
#[deserr(error = Faults, deny_unknown_fields)]
pub(super) struct Reply {
    /// Default 200.
    #[deserr(default = 200)]
    pub status: u16,
    #[deserr(default)]
    pub headers: Named<String>,
    #[deserr(default)]
    pub body: String,
    /// No answer, instead.
    #[deserr(default)]
    pub fails: Option<Fails>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserr)]
#[deserr(error = Faults)]
pub(super) enum Fails {
    #[deserr(rename = "timed_out")]
    TimedOut,
    #[deserr(rename = "unreachable")]
    Unreachable,
    #[deserr(rename = "broken")]
    Broken,
    #[deserr(rename = "too_large")]
    TooLarge,
}

#[derive(Debug, Deserr)]
#[deserr(error = Faults, deny_unknown_fields)]
pub(super) struct Connection {
    /// Name of the listener. Default `https`.
    #[deserr(default = "https".to_owned())]
    pub listener: String,
    /// Who dialled, `ip:port`.
    #[deserr(try_from(String) = parse_address -> String)]
    pub peer: SocketAddr,
    /// The PROXY header that was read. Default: none.
    #[deserr(default)]
    pub header: Option<ProxyHeader>,
}

#[derive(Debug, Deserr)]
#[deserr(error = Faults, deny_unknown_fields)]
pub(super) struct ProxyHeader {
    /// Default `v2`.
    #[deserr(default = HeaderVersion::V2)]
    pub version: HeaderVersion,
    /// The client that it names, `ip:port`. Default: none.
    #[deserr(default, try_from(Option<String>) = parse_some_address -> String)]
    pub client: Option<SocketAddr>,
    /// v2 `LOCAL`. Default: false.
    #[deserr(default)]
    pub local: bool,
    /// A CRC32C was there, and right. Default: false.
    #[deserr(default)]
    pub checked: bool,
    /// The private endpoint that the client came through. Default: none.
    #[deserr(default)]
    pub aws_vpce_id: Option<String>,
    #[deserr(default)]
    pub azure_link_id: Option<u32>,
    #[deserr(default)]
    pub gcp_psc_id: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserr)]
#[deserr(error = Faults, rename_all = lowercase)]
pub(super) enum HeaderVersion {
    V1,
    V2,
}

#[derive(Debug, Deserr)]
#[deserr(error = Faults, try_from(JsonObject) = Expected::read -> String)]
pub(super) struct Expected(pub Map<String, Value>);

impl Expected {
    fn read(JsonObject(value): JsonObject) -> Result<Self, String> {
        let Value::Object(expected) = value else { return Err("is no table".to_owned()) };
        if expected.is_empty() {
            return Err(format!("is empty, so it would hold whatever happens; expect some of {}", KEYS.join(", ")));
        }
        match expected.keys().find(|key| !KEYS.contains(&key.as_str())) {
            Some(unknown) => Err(format!("`{unknown}` never comes out; expect some of {}", KEYS.join(", "))),
            None => Ok(Self(expected)),
        }
    }
}

fn parse_address(text: String) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("`{text}` is not an address; ip:port is expected, such as 192.0.2.1:443"))
}

fn parse_some_address(text: Option<String>) -> Result<Option<SocketAddr>, String> {
    text.map(parse_address).transpose()
}

fn check_case(case: Case, location: ValuePointerRef<'_>) -> Result<Case, Faults> {
    let says = match (&case.request, &case.response, &case.connection) {
        (Some(_), _, Some(_)) => "has a request and a connection; a plugin is asked about one of them",
        (None, Some(_), _) => "has a response, but not the request that it answers",
        _ => return Ok(case),
    };
    Err(Faults::at(location, says, None))
}
