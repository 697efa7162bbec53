//! The boot file as an operator writes it. Routes, upstreams and plugins are not here: they belong to the admin API, and
//! no setting is in both.

use std::net::SocketAddr;

use contract::document::Faults;
use deserr::{Deserr, ValuePointerRef};

use super::admin::Admin;
use super::edge::Edge;
use crate::handover::LISTENERS_MAX;

#[derive(Debug, Deserr)]
#[deserr(error = Faults, deny_unknown_fields, validate = check_listeners -> Faults)]
pub(super) struct File {
    /// Folder for the applied configuration, uploaded plugins and sealed bundles; made if missing.
    pub data_dir: String,
    /// Threads that serve requests. Default: number of cores.
    #[deserr(default)]
    pub threads: Option<u16>,
    /// How long open connections may go on after a stop, in seconds. Default 30.
    #[deserr(default = 30)]
    pub drain_seconds: u64,
    pub listeners: Vec<Listener>,
    pub edge: Edge,
    pub certservice: CertService,
    #[deserr(default)]
    pub redis: Option<Redis>,
    #[deserr(default)]
    pub admin: Admin,
    #[deserr(default)]
    pub tls: Tls,
    #[deserr(default)]
    pub limits: Limits,
    /// Off without it: it holds what visitors do.
    #[deserr(default)]
    pub access_log: Option<AccessLog>,
    #[deserr(default)]
    pub plugins: Plugins,
}

#[derive(Debug, Deserr)]
#[deserr(error = Faults, deny_unknown_fields, validate = check_plugins -> Faults)]
pub(super) struct Plugins {
    /// Ed25519 public keys (PEM files): a plugin that none of them signed is refused. Default: none, so no plugin is accepted.
    #[deserr(default)]
    pub trusted_keys: Vec<String>,
    /// Take plugins without a signature from whoever reaches the admin socket. Default false.
    #[deserr(default)]
    pub accept_unsigned: bool,
    /// Processor time that compiling one plugin may take, in seconds, 1 to 3600. Default 60.
    #[deserr(default = 60)]
    pub compile_seconds_max: u32,
    /// Memory that it may take, in MiB, 256 to 1048576. Default 2048.
    #[deserr(default = 2048)]
    pub compile_mib_max: u32,
}

impl Default for Plugins {
    fn default() -> Self {
        Self { trusted_keys: Vec::new(), accept_unsigned: false, compile_seconds_max: 60, compile_mib_max: 2048 }
    }
}

#[derive(Debug, Deserr)]
#[deserr(error = Faults, deny_unknown_fields)]
pub struct Listener {
    /// What the runtime configuration and the metrics call it.
    pub name: String,
    /// `ip:port`
    #[deserr(try_from(String) = parse_address -> String)]
    pub address: SocketAddr,
    pub protocol: Protocol,
    /// `http` only: the port in the redirect's Location. Default 443.
    #[deserr(default)]
    pub redirect_port: Option<u16>,
    /// From accept to the end of the PROXY header or the first byte, in milliseconds. Default 5000.
    #[deserr(default = 5000)]
    pub proxy_header_timeout_ms: u64,
    /// Largest PROXY header of version 2 that is read, in bytes, 107 to 16384. Default 536; version 1 has at most 107.
    #[deserr(default = 536)]
    pub proxy_header_bytes_max: u16,
}

const PROXY_HEADER_BYTES: std::ops::RangeInclusive<u16> = 107..=16_384;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserr)]
#[deserr(error = Faults, rename_all = lowercase)]
pub enum Protocol {
    Https,
    Http,
}

impl Protocol {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
        }
    }
}

#[derive(Debug, Deserr)]
#[deserr(error = Faults, deny_unknown_fields)]
pub(super) struct CertService {
    /// `https://host[:port]`, `http://` on a loopback address, or `unix:/path`.
    pub url: String,
    /// Bearer token of role `edge`.
    #[deserr(default)]
    pub token_file: Option<String>,
    /// Root of CertService's TLS certificate, PEM. Default: the system's roots.
    #[deserr(default)]
    pub ca_file: Option<String>,
    /// Client certificate, PEM, where CertService takes them; its key, PEM, mode 0600.
    #[deserr(default)]
    pub certificate_file: Option<String>,
    #[deserr(default)]
    pub key_file: Option<String>,
    /// Between two looks at its feed of changes, in seconds; a hint through Redis is quicker. Default 5, at least 1.
    #[deserr(default = 5)]
    pub poll_seconds: u64,
    /// CertService's Ed25519 public keys, PEM; what none of them signed is refused.
    pub verify_keys: Vec<String>,
}

#[derive(Debug, Deserr)]
#[deserr(error = Faults, deny_unknown_fields)]
pub(super) struct Redis {
    #[deserr(default)]
    pub url: Option<String>,
    /// A file that holds the URL, for one with a password.
    #[deserr(default)]
    pub url_file: Option<String>,
    /// Of `rediss://`. Root of its certificate, PEM. Default: the system's roots.
    #[deserr(default)]
    pub ca_file: Option<String>,
    /// Client certificate, PEM, where it takes them; its key, PEM, mode 0600.
    #[deserr(default)]
    pub certificate_file: Option<String>,
    #[deserr(default)]
    pub key_file: Option<String>,
}

#[derive(Debug, Deserr)]
#[deserr(error = Faults, deny_unknown_fields, validate = check_tls -> Faults)]
pub(super) struct Tls {
    /// From the first byte to a finished handshake, in milliseconds. Default 10000.
    #[deserr(default = 10_000)]
    pub handshake_timeout_ms: u64,
    /// How long of it a visitor waits for a certificate that is not in memory, in milliseconds. Default 5000, or all of it.
    #[deserr(default)]
    pub load_timeout_ms: Option<u64>,
    /// The same for one that is being issued, in milliseconds; 0: it is not waited for. Default 8000, or all of it.
    #[deserr(default)]
    pub order_timeout_ms: Option<u64>,
    /// Memory for certificates as DER and raw key, in MiB, 1 to 1048576. Default 256, about 200,000 names.
    #[deserr(default = 256)]
    pub warm_mib_max: u32,
    /// Memory for those of them that are kept parsed besides, in MiB, 1 to 1048576. Default 64, about 8,000 names.
    #[deserr(default = 64)]
    pub parsed_mib_max: u32,
    /// A certificate in use is asked for again after so many seconds, in the background. Default 300.
    #[deserr(default = 300)]
    pub refresh_seconds: u64,
    /// Threads that open sealed keys, apart from those that serve requests; 1 to 256. Default: half the cores.
    #[deserr(default)]
    pub open_threads: Option<u16>,
    /// Keys that wait to be opened, 1 to 65535; who asks for one more is refused. Default 256.
    #[deserr(default = 256)]
    pub opens_queued_max: u16,
    /// A client that names no host: `refuse`, or serve the `default` certificate. Default `refuse`.
    #[deserr(default)]
    pub without_sni: NameAnswer,
    /// The same for one that names a host which is not ours, or something that is no host name. Default `refuse`.
    #[deserr(default)]
    pub unknown_sni: NameAnswer,
    /// Whose certificate the default one is: a domain that CertService knows.
    #[deserr(default)]
    pub default_hostname: Option<String>,
    /// Or PEM files: its chain, leaf first, and its key, mode 0600.
    #[deserr(default)]
    pub default_certificate_file: Option<String>,
    #[deserr(default)]
    pub default_key_file: Option<String>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserr)]
#[deserr(error = Faults, rename_all = lowercase)]
pub(super) enum NameAnswer {
    #[default]
    Refuse,
    Default,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            handshake_timeout_ms: 10_000,
            load_timeout_ms: None,
            order_timeout_ms: None,
            warm_mib_max: 256,
            parsed_mib_max: 64,
            refresh_seconds: 300,
            open_threads: None,
            opens_queued_max: 256,
            without_sni: NameAnswer::Refuse,
            unknown_sni: NameAnswer::Refuse,
            default_hostname: None,
            default_certificate_file: None,
            default_key_file: None,
        }
    }
}

#[derive(Debug, Deserr)]
#[deserr(error = Faults, deny_unknown_fields, validate = check_access_log -> Faults)]
pub(super) struct AccessLog {
    /// `stdout`, `stderr`, or a file's path.
    pub to: String,
    /// One in so many of the requests that went well is logged, 1 to 1000000; faults always are. Default 1.
    #[deserr(default = 1)]
    pub sample_one_in: u32,
    /// Whether the query is logged: it may hold secrets. Default false.
    #[deserr(default)]
    pub query: bool,
    /// Memory for lines that are not written yet, in MiB, 1 to 1024; what does not fit is lost and counted. Default 16.
    #[deserr(default = 16)]
    pub buffer_mib_max: u32,
}

/// What one visitor may take. Each has its own reason in `latchkey_guard_closed_total`, `latchkey_http_local_answers_total`
/// or `latchkey_connection_refusals_total`.
#[derive(Debug, Deserr)]
#[deserr(error = Faults, deny_unknown_fields)]
pub(super) struct Limits {
    /// From the first byte of a request to the end of its header, in milliseconds. Default 10000. 408.
    #[deserr(default = 10_000)]
    pub header_timeout_ms: u64,
    /// Between two requests of an HTTP/1 connection, in milliseconds. Default 60000. Closed.
    #[deserr(default = 60_000)]
    pub keepalive_timeout_ms: u64,
    /// An HTTP/2 connection without an open stream, in milliseconds; pings do not count. Default 60000. Closed.
    #[deserr(default = 60_000)]
    pub h2_idle_timeout_ms: u64,
    /// A body that does not move, in milliseconds. Default 30000. 408.
    #[deserr(default = 30_000)]
    pub stall_timeout_ms: u64,
    /// What a body must make on the whole after that, in bytes per second. Default 500. 408.
    #[deserr(default = 500)]
    pub body_rate_min: u64,
    /// Bytes of a request's header fields. Default 32768. 431.
    #[deserr(default = 32_768)]
    pub header_bytes_max: u32,
    /// Header fields of a request. Default 100. 431.
    #[deserr(default = 100)]
    pub headers_max: u32,
    /// Header fields of all open requests of one connection, in KiB. Default 1024. 429.
    #[deserr(default = 1024)]
    pub open_headers_kib_max: u32,
    /// The same of all connections together, in MiB. Default 256. 429.
    #[deserr(default = 256)]
    pub open_headers_mib_total_max: u32,
    /// Bytes of a request's path and query. Default 8192. 414.
    #[deserr(default = 8192)]
    pub uri_bytes_max: u32,
    /// Bytes of a request's body. Default 1073741824 (1 GiB). 413.
    #[deserr(default = 1_073_741_824)]
    pub body_bytes_max: u64,
    /// Streams open at once on an HTTP/2 connection. Default 100.
    #[deserr(default = 100)]
    pub h2_streams_max: u32,
    /// Connections open at once from one client address (IPv6: one /64). Default 512; 0 for no limit. Closed before TLS.
    #[deserr(default = 512)]
    pub connections_per_client_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_timeout_ms: 10_000,
            keepalive_timeout_ms: 60_000,
            h2_idle_timeout_ms: 60_000,
            stall_timeout_ms: 30_000,
            body_rate_min: 500,
            header_bytes_max: 32_768,
            headers_max: 100,
            open_headers_kib_max: 1024,
            open_headers_mib_total_max: 256,
            uri_bytes_max: 8192,
            body_bytes_max: 1_073_741_824,
            h2_streams_max: 100,
            connections_per_client_max: 512,
        }
    }
}

pub(super) fn parse_address(text: String) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("`{text}` is not an address; expected ip:port, such as 0.0.0.0:443 or [::]:443"))
}

fn check_access_log(log: AccessLog, location: ValuePointerRef<'_>) -> Result<AccessLog, Faults> {
    let within = |name: &'static str, given: u32, most: u32| {
        let says = format!("{given} is out of range; accepted are 1 to {most}");
        if (1..=most).contains(&given) { None } else { Some(Faults::at(location.push_key(name), says, None)) }
    };
    let to = (!matches!(log.to.as_str(), "stdout" | "stderr") && !log.to.starts_with('/')).then(|| {
        let says = format!("`{}` is not a place for a log; expected `stdout`, `stderr` or an absolute path", log.to);
        Faults::at(location.push_key("to"), says, None)
    });
    let ranges =
        [within("sample_one_in", log.sample_one_in, 1_000_000), within("buffer_mib_max", log.buffer_mib_max, 1024)];
    let faults = to.into_iter().chain(ranges.into_iter().flatten()).reduce(Faults::and);
    faults.map_or(Ok(log), Err)
}

/// A tebibyte: beyond it stands a slip of the pen.
const MIB_MAX: u32 = 1024 * 1024;

fn check_plugins(plugins: Plugins, location: ValuePointerRef<'_>) -> Result<Plugins, Faults> {
    let settings = [
        ("compile_seconds_max", plugins.compile_seconds_max, 1..=3600),
        ("compile_mib_max", plugins.compile_mib_max, 256..=MIB_MAX),
    ];
    let wrong = settings.into_iter().filter(|(_, given, range)| !range.contains(given)).map(|(name, given, range)| {
        let says = format!("{given} is out of range; accepted are {} to {}", range.start(), range.end());
        Faults::at(location.push_key(name), says, None)
    });
    wrong.reduce(Faults::and).map_or(Ok(plugins), Err)
}

const OPEN_THREADS_MAX: u16 = 256;

fn check_tls(tls: Tls, location: ValuePointerRef<'_>) -> Result<Tls, Faults> {
    let mut wrong = Vec::new();
    for (name, mib) in [("warm_mib_max", tls.warm_mib_max), ("parsed_mib_max", tls.parsed_mib_max)] {
        if !(1..=MIB_MAX).contains(&mib) {
            wrong.push((name, format!("{mib} MiB for certificates in memory, 1 to {MIB_MAX} are accepted")));
        }
    }
    if let Some(threads) = tls.open_threads.filter(|threads| !(1..=OPEN_THREADS_MAX).contains(threads)) {
        let says = format!("{threads} threads that open sealed keys, 1 to {OPEN_THREADS_MAX} are accepted");
        wrong.push(("open_threads", says));
    }
    for (name, ms) in [("load_timeout_ms", tls.load_timeout_ms), ("order_timeout_ms", tls.order_timeout_ms)] {
        if let Some(ms) = ms.filter(|ms| *ms > tls.handshake_timeout_ms) {
            let whole = tls.handshake_timeout_ms;
            wrong.push((
                name,
                format!("a wait of {ms} ms within a handshake of {whole} ms; raise tls.handshake_timeout_ms"),
            ));
        }
    }
    if tls.opens_queued_max == 0 {
        wrong.push(("opens_queued_max", format!("0 keys that wait to be opened, 1 to {} are accepted", u16::MAX)));
    }
    let faults = wrong.into_iter().map(|(name, says)| Faults::at(location.push_key(name), says, None));
    faults.reduce(Faults::and).map_or(Ok(tls), Err)
}

fn check_listeners(file: File, location: ValuePointerRef<'_>) -> Result<File, Faults> {
    let mut faults: Option<Faults> = None;
    let mut found = |at: ValuePointerRef<'_>, says: String| {
        let fault = Faults::at(at, says, None);
        faults = Some(match faults.take() {
            Some(faults) => faults.and(fault),
            None => fault,
        });
    };
    let listeners = location.push_key("listeners");
    if file.listeners.is_empty() {
        found(listeners, "at least one listener is needed".into());
    }
    if file.listeners.len() > LISTENERS_MAX {
        found(listeners, format!("{} listeners, at most {LISTENERS_MAX} are possible", file.listeners.len()));
    }
    for (index, listener) in file.listeners.iter().enumerate() {
        let at = listeners.push_index(index);
        let well_named = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if listener.name.is_empty() || listener.name.len() > 32 || !listener.name.bytes().all(well_named) {
            found(
                at.push_key("name"),
                format!("`{}` is not a listener name: 1 to 32 of a-z, 0-9, `-`, `_`", listener.name),
            );
        }
        if file.listeners[..index].iter().any(|other| other.name == listener.name) {
            found(at.push_key("name"), format!("two listeners are named `{}`", listener.name));
        }
        if !PROXY_HEADER_BYTES.contains(&listener.proxy_header_bytes_max) {
            let (least, most) = (PROXY_HEADER_BYTES.start(), PROXY_HEADER_BYTES.end());
            found(
                at.push_key("proxy_header_bytes_max"),
                format!("{} bytes; {least} to {most} are possible", listener.proxy_header_bytes_max),
            );
        }
        if listener.protocol == Protocol::Https && listener.redirect_port.is_some() {
            found(at.push_key("redirect_port"), "only a listener with protocol `http` redirects".into());
        }
    }
    faults.map_or(Ok(file), Err)
}
