//! What the rest of the proxy says to plugins and hears from them: plain values, no guest types, no HTTP library's.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::tls::Standing;

/// SHA-256 of a component, shown as `sha256:<hex>`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub(super) [u8; 32]);

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(bytes).into())
    }
}

impl From<[u8; 32]> for Digest {
    /// Of what was hashed elsewhere.
    fn from(hash: [u8; 32]) -> Self {
        Self(hash)
    }
}

impl Digest {
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Which world of `wit/` a plugin implements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Asked for each TCP connection, before TLS.
    Connection,
    /// Asked for each HTTP request.
    Http,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connection => "connection",
            Self::Http => "http",
        })
    }
}

/// Which calls a binding wants; the others need not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hooks {
    pub request: bool,
    pub response: bool,
    /// The first only where a dataset has something.
    pub found_only: bool,
    /// The body of a request is shown.
    pub request_body: bool,
    /// The body of an answer is.
    pub response_body: bool,
}

impl Hooks {
    /// What either wants to be asked about.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            request: self.request || other.request,
            response: self.response || other.response,
            found_only: self.found_only && other.found_only,
            request_body: self.request_body || other.request_body,
            response_body: self.response_body || other.response_body,
        }
    }
}

/// What a plugin says about a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    /// JSON pointer into the plugin's own configuration; empty for the whole.
    pub at: String,
    pub message: String,
    pub hint: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    Error,
    Warning,
}

/// The same during one request, so that all plugins of its chain see one moment and one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestFacts {
    /// Unix milliseconds.
    pub now_ms: u64,
    pub https: bool,
    /// The host is an IP address.
    pub ip_host: bool,
    /// Of the site's certificate.
    pub standing: Standing,
    /// 0 to 9999: see [`rollout_bucket`].
    pub rollout_bucket: u16,
    pub tenant: Tenant,
}

/// Tells registered domains apart: half of a SHA-256, so that nobody finds two that are taken for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Tenant(pub(super) u128);

impl Tenant {
    pub fn of(registrable_domain: &str) -> Self {
        let Digest([.., a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]) = Digest::of(registrable_domain.as_bytes());
        Self(u128::from_be_bytes([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]))
    }
}

/// Places a domain in one of 10,000 buckets: the same on every edge and in every version, since a rollout by percentage
/// must not shuffle the domains that already have it.
pub fn rollout_bucket(registrable_domain: &str) -> u16 {
    let Digest([a, b, c, d, ..]) = Digest::of(registrable_domain.as_bytes());
    (u32::from_be_bytes([a, b, c, d]) % u32::from(BUCKETS)) as u16
}

pub const BUCKETS: u16 = 10_000;

/// Looked at while others are served, where a plugin waits.
pub trait RequestView: Sync {
    /// Lower case, without port.
    fn host(&self) -> &str;
    /// As sent, without query.
    fn path(&self) -> &str;
    /// Without the question mark.
    fn query(&self) -> Option<&str>;
    /// The value of that name (lower case); there is one at most.
    fn header(&self, name: &str) -> Option<&[u8]>;
    fn method(&self) -> &str {
        "GET"
    }
    /// The visitor's, where it is known.
    fn client(&self) -> Option<IpAddr> {
        None
    }
}

pub trait ResponseView {
    fn status(&self) -> u16;
    /// The first value of that name (lower case).
    fn header(&self, name: &str) -> Option<&[u8]>;
}

/// What becomes of a request. Every name, value, status and location in it has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Next,
    /// Changes to the request's header fields.
    Edit(Vec<Edit>),
    Redirect {
        status: u16,
        location: String,
        edits: Vec<Edit>,
    },
    Respond {
        status: u16,
        headers: Vec<Header>,
        body: Vec<u8>,
    },
    Deny(u16),
}

impl Action {
    /// Its kind, for logs and reports.
    pub fn verdict(&self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Edit(_) => "edit",
            Self::Redirect { .. } => "redirect",
            Self::Respond { .. } => "respond",
            Self::Deny(_) => "deny",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Lower case.
    pub name: String,
    pub value: Vec<u8>,
}

/// A change to header fields. Names are lower case. Shown as `set name: value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    Set { name: String, value: Vec<u8> },
    Append { name: String, value: Vec<u8> },
    SetIfAbsent { name: String, value: Vec<u8> },
    Remove { name: String },
}

impl Edit {
    /// Of the field, in lower case.
    pub fn name(&self) -> &str {
        match self {
            Self::Set { name, .. }
            | Self::Append { name, .. }
            | Self::SetIfAbsent { name, .. }
            | Self::Remove { name } => name,
        }
    }
}

impl fmt::Display for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, name, value) = match self {
            Self::Set { name, value } => ("set", name, value),
            Self::Append { name, value } => ("append", name, value),
            Self::SetIfAbsent { name, value } => ("set-if-absent", name, value),
            Self::Remove { name } => return write!(f, "remove {name}"),
        };
        write!(f, "{what} {name}: {}", String::from_utf8_lossy(value))
    }
}

/// How the first bytes of a connection are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expectation {
    Forbid,
    Allow,
    Require,
    /// Of version 2, with a checksum.
    RequireChecksum,
}

/// What was read of a PROXY header; none where nothing was.
pub type Seen<'a> = Option<&'a crate::accept::header::Header>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Admitted; this is the client.
    Admit(SocketAddr),
    Reset,
}

/// What a call used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Of WebAssembly; each byte that one copies or fills counts as one.
    pub instructions: u64,
    /// Of the instance.
    pub memory_bytes: usize,
}

/// What a guest died of, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trap {
    pub says: String,
    /// Functions, innermost first, without addresses.
    pub stack: Vec<String>,
}

/// A plugin failed at a call. Its instance is gone; what happens to the request is the binding's `on_failure`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("plugin trapped: {}", .0.says)]
    Trap(Trap),
    #[error("plugin ran past its deadline, which is counted in instructions")]
    Deadline,
    #[error("plugin asked for more memory than its limit")]
    Memory,
    #[error("plugin returned what is not acceptable: {0}")]
    Output(String),
    #[error("plugin could not be started: {0}")]
    Unavailable(String),
    /// For so many milliseconds more.
    #[error("plugin has failed again and again and is left alone for {0} ms more")]
    Resting(u64),
}

impl Fault {
    /// Where a trap was; empty for all else.
    pub fn stack(&self) -> &[String] {
        match self {
            Self::Trap(trap) => &trap.stack,
            _ => &[],
        }
    }

    /// For a metric label.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Trap(_) => "trap",
            Self::Deadline => "deadline",
            Self::Memory => "memory",
            Self::Output(_) => "output",
            Self::Unavailable(_) => "unavailable",
            Self::Resting(_) => "resting",
        }
    }
}
