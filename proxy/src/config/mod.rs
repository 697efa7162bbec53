//! The boot file, read, resolved and checked: what the rest of the code works with.

mod admin;
mod edge;
mod file;
mod names;
mod plugins;
mod secrets;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use contract::document::{read_toml, render};
use contract::sealed::EdgeKey;
use contract::signed::VerifyKeys;

pub use self::admin::{AdminConfig, AdminRole, AdminTcp};
pub use self::edge::token_settings;
use self::file::File;
pub use self::file::Protocol;
pub use self::plugins::{Trust, TrustError};
use self::secrets::{read_private, read_text};
use crate::guard::Limits;
use crate::observe::{AccessLogSettings, Target};
use crate::supply::{Address, CertServiceConfig, RedisConfig};
use crate::tls::{Capacity, NamePolicy};
use crate::wasm::CompileLimits;

pub struct Config {
    pub data_dir: PathBuf,
    pub threads: usize,
    pub drain: Duration,
    pub listeners: Vec<Listener>,
    pub edge_key: EdgeKey,
    pub certservice: CertServiceConfig,
    pub verify_keys: VerifyKeys,
    /// Between two looks at CertService's feed of changes.
    pub poll: Duration,
    pub redis: Option<RedisConfig>,
    pub admin: AdminConfig,
    pub tls: Tls,
    pub names: NamePolicy,
    pub limits: Limits,
    pub trust: Trust,
    pub compile: CompileLimits,
    pub access_log: Option<AccessLogSettings>,
}

#[derive(Debug, Clone)]
pub struct Listener {
    pub name: String,
    pub address: SocketAddr,
    pub protocol: Protocol,
    pub redirect_port: u16,
    pub proxy_header_timeout: Duration,
    pub proxy_header_bytes_max: usize,
}

#[derive(Debug, Clone, Copy)]
pub struct Tls {
    pub handshake_timeout: Duration,
    pub load_timeout: Duration,
    pub order_timeout: Duration,
    pub capacity: Capacity,
    pub refresh_after: Duration,
    pub open_threads: usize,
    pub opens_queued_max: usize,
}

/// How long a visitor waits for a certificate where the boot file does not say so, but for no longer than a handshake may take.
const LOAD_TIMEOUT_MS: u64 = 5000;
const ORDER_TIMEOUT_MS: u64 = 8000;

/// What is wrong with the boot file, ready to be shown.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{path}: {error}")]
    Read { path: String, error: std::io::Error },
    #[error("{0}")]
    Faults(String),
    #[error("{0}")]
    Setting(String),
}

impl Config {
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Self::resolve(read_file(path)?)
    }

    fn resolve(file: File) -> Result<Self, ConfigError> {
        let data_dir = PathBuf::from(&file.data_dir);
        let edge_key = edge::key(&file.edge)?;
        let pems = file.certservice.verify_keys.iter().map(|path| read_text(path)).collect::<Result<Vec<_>, _>>()?;
        let verify_keys = VerifyKeys::from_pems(pems.iter().map(String::as_str));
        let verify_keys = verify_keys.map_err(|e| ConfigError::Setting(format!("certservice.verify_keys: {e}")))?;
        Ok(Self {
            threads: file.threads.map_or_else(cores, usize::from).max(1),
            drain: Duration::from_secs(file.drain_seconds),
            listeners: file.listeners.into_iter().map(Listener::from).collect(),
            edge_key,
            verify_keys,
            poll: Duration::from_secs(file.certservice.poll_seconds.max(1)),
            certservice: certservice(file.certservice)?,
            redis: file.redis.map(redis).transpose()?,
            admin: admin::resolve(file.admin, &data_dir)?,
            names: names::policy(&file.tls)?,
            tls: tls(&file.tls),
            limits: limits(&file.limits),
            trust: trust(&file.plugins)?,
            compile: CompileLimits {
                seconds_max: file.plugins.compile_seconds_max,
                mib_max: file.plugins.compile_mib_max,
            },
            access_log: file.access_log.map(access_log),
            data_dir,
        })
    }
}

fn read_file(path: &Path) -> Result<File, ConfigError> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Read { path: shown.clone(), error })?;
    read_toml(&text).map_err(|faults| ConfigError::Faults(render(&faults, &shown)))
}

impl From<file::Listener> for Listener {
    fn from(listener: file::Listener) -> Self {
        Self {
            name: listener.name,
            address: listener.address,
            protocol: listener.protocol,
            redirect_port: listener.redirect_port.unwrap_or(443),
            proxy_header_timeout: Duration::from_millis(listener.proxy_header_timeout_ms),
            proxy_header_bytes_max: usize::from(listener.proxy_header_bytes_max),
        }
    }
}

fn tls(file: &file::Tls) -> Tls {
    let handshake_ms = file.handshake_timeout_ms;
    let wait = |ms: Option<u64>, usual: u64| Duration::from_millis(ms.unwrap_or(usual.min(handshake_ms)));
    Tls {
        handshake_timeout: Duration::from_millis(handshake_ms),
        load_timeout: wait(file.load_timeout_ms, LOAD_TIMEOUT_MS),
        order_timeout: wait(file.order_timeout_ms, ORDER_TIMEOUT_MS),
        capacity: Capacity {
            warm_bytes_max: u64::from(file.warm_mib_max) << 20,
            parsed_bytes_max: u64::from(file.parsed_mib_max) << 20,
        },
        refresh_after: Duration::from_secs(file.refresh_seconds),
        open_threads: file.open_threads.map_or(cores() / 2, usize::from).max(1),
        opens_queued_max: usize::from(file.opens_queued_max),
    }
}

fn limits(file: &file::Limits) -> Limits {
    let bytes = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
    Limits {
        header_timeout: Duration::from_millis(file.header_timeout_ms),
        keepalive_timeout: Duration::from_millis(file.keepalive_timeout_ms),
        h2_idle_timeout: Duration::from_millis(file.h2_idle_timeout_ms),
        stall_timeout: Duration::from_millis(file.stall_timeout_ms),
        body_rate_min: file.body_rate_min,
        header_bytes_max: bytes(file.header_bytes_max),
        headers_max: bytes(file.headers_max),
        open_header_bytes_max: bytes(file.open_headers_kib_max).saturating_mul(1024),
        open_header_bytes_total_max: bytes(file.open_headers_mib_total_max).saturating_mul(1024 * 1024),
        uri_bytes_max: bytes(file.uri_bytes_max),
        body_bytes_max: file.body_bytes_max,
        h2_streams_max: file.h2_streams_max,
        connections_per_client_max: file.connections_per_client_max,
    }
}

fn access_log(file: file::AccessLog) -> AccessLogSettings {
    AccessLogSettings {
        to: match file.to.as_str() {
            "stdout" => Target::Stdout,
            "stderr" => Target::Stderr,
            path => Target::File(path.into()),
        },
        sample_one_in: file.sample_one_in,
        query: file.query,
        buffer_bytes_max: usize::try_from(file.buffer_mib_max).unwrap_or(usize::MAX).saturating_mul(1 << 20),
    }
}

fn trust(plugins: &file::Plugins) -> Result<Trust, ConfigError> {
    let pems = plugins.trusted_keys.iter().map(|path| read_text(path)).collect::<Result<Vec<_>, _>>()?;
    let keys = match pems.len() {
        0 => None,
        _ => Some(
            VerifyKeys::from_pems(pems.iter().map(String::as_str))
                .map_err(|error| ConfigError::Setting(format!("plugins.trusted_keys: {error}")))?,
        ),
    };
    Ok(match (keys, plugins.accept_unsigned) {
        (keys, true) => Trust::Anything(keys),
        (Some(keys), false) => Trust::Signed(keys),
        (None, false) => Trust::Nothing,
    })
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn certservice(file: file::CertService) -> Result<CertServiceConfig, ConfigError> {
    let token = match &file.token_file {
        Some(path) => Some(zeroize::Zeroizing::new(read_private(path)?.trim().to_owned())),
        None => None,
    };
    let root = match &file.ca_file {
        Some(path) => Some(read_text(path)?.into_bytes()),
        None => None,
    };
    let identity = match (&file.certificate_file, &file.key_file) {
        (Some(certificate), Some(key)) => Some((read_text(certificate)?, read_private(key)?)),
        (None, None) => None,
        _ => {
            let says = "certservice.certificate_file and certservice.key_file come together";
            return Err(ConfigError::Setting(says.to_owned()));
        }
    };
    Ok(CertServiceConfig { address: certservice_address(&file.url)?, token, root, identity })
}

/// Bundles are sealed and signed, but the token is not: it never goes over a network in the clear.
fn certservice_address(url: &str) -> Result<Address, ConfigError> {
    if let Some(path) = url.strip_prefix("unix:") {
        return Ok(Address::Unix(path.into()));
    }
    let wrong = |why: &str| {
        let form = "expected https://host[:port], http:// on a loopback address, or unix:/path";
        ConfigError::Setting(format!("certservice.url `{url}`: {why}; {form}"))
    };
    let parsed = reqwest::Url::parse(url).map_err(|_| wrong("not a URL"))?;
    let host = parsed.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let loopback = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    match parsed.scheme() {
        "https" => Ok(Address::Url(url.to_owned())),
        "http" if loopback => Ok(Address::Url(url.to_owned())),
        "http" => Err(wrong("the token would cross a network unencrypted")),
        _ => Err(wrong("unknown scheme")),
    }
}

fn redis(file: file::Redis) -> Result<RedisConfig, ConfigError> {
    let wrong = |says: &str| ConfigError::Setting(says.to_owned());
    let url = match (&file.url, &file.url_file) {
        (Some(url), None) => zeroize::Zeroizing::new(url.clone()),
        (None, Some(path)) => zeroize::Zeroizing::new(read_private(path)?.trim().to_owned()),
        _ => return Err(wrong("[redis] needs either `url` or `url_file`")),
    };
    let names_files = file.ca_file.is_some() || file.certificate_file.is_some() || file.key_file.is_some();
    if names_files && !url.starts_with("rediss://") {
        return Err(wrong("redis.ca_file, certificate_file and key_file are for rediss://, which is Redis with TLS"));
    }
    let root = file.ca_file.as_ref().map(|path| read_text(path)).transpose()?;
    let identity = match (&file.certificate_file, &file.key_file) {
        (Some(certificate), Some(key)) => Some((read_text(certificate)?, read_private(key)?)),
        (None, None) => None,
        _ => return Err(wrong("redis.certificate_file and redis.key_file come together")),
    };
    Ok(RedisConfig { url, root, identity })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a boot file must have, tables first.
    const BARE: &str = "[edge]\nkey_file = 'k'\n[certservice]\nurl = 'unix:/x'\nverify_keys = []\n[[listeners]]\nname = 'a'\naddress = '127.0.0.1:1'\nprotocol = 'https'\n";

    #[test]
    fn certservice_is_never_spoken_to_in_the_clear_over_a_network() {
        for url in
            ["https://certs.internal:8443", "http://127.0.0.1:80", "http://[::1]:80", "http://localhost", "unix:/x"]
        {
            assert!(certservice_address(url).is_ok(), "{url}");
        }
        for url in [
            "http://10.0.0.1",
            "http://certs.internal",
            "ftp://127.0.0.1",
            "certs.internal:443",
            "",
            "http://127.0.0.1.evil.example",
        ] {
            assert!(certservice_address(url).is_err(), "{url}");
        }
    }

    #[test]
    fn every_fault_of_a_boot_file_is_named_with_its_line() {
        let text = "data_dir = '/tmp/x'\nthreds = 2\n[[listeners]]\nname = 'a b'\naddress = '0.0.0.0'\nprotocol = 'https'\n[edge]\nkey_file = 1\n[certservice]\nurl = 'unix:/x'\nverify_keys = []\n";
        let faults = read_toml::<File>(text).unwrap_err();
        let shown = render(&faults, "proxy.toml");
        for part in
            ["proxy.toml:2:1: unknown setting `threds` (did you mean `threads`?)", "proxy.toml:5:", "proxy.toml:8:"]
        {
            assert!(shown.contains(part), "{part}\n{shown}");
        }
    }

    #[test]
    fn a_visitor_waits_for_a_certificate_within_the_handshake() {
        let read = |settings: &str| read_toml::<File>(&format!("data_dir = 'd'\n[tls]\n{settings}\n{BARE}"));
        let waits = |settings: &str| {
            let tls = tls(&read(settings).unwrap().tls);
            [tls.load_timeout, tls.order_timeout].map(|wait| wait.as_millis())
        };
        assert_eq!(waits(""), [5000, 8000]);
        assert_eq!(waits("handshake_timeout_ms = 6000"), [5000, 6000]);
        assert_eq!(waits("load_timeout_ms = 10000\norder_timeout_ms = 0"), [10_000, 0]);
        let faults = read("load_timeout_ms = 10001\norder_timeout_ms = 20000").unwrap_err();
        let shown = render(&faults, "proxy.toml");
        for part in ["10001 ms within a handshake of 10000 ms", "20000 ms within"] {
            assert!(shown.contains(part), "{part}\n{shown}");
        }
    }

    #[test]
    fn memory_for_certificates_is_accepted_up_to_its_limits() {
        let text = |warm: u32, parsed: u32| {
            format!("data_dir = 'd'\n[tls]\nwarm_mib_max = {warm}\nparsed_mib_max = {parsed}\n{BARE}")
        };
        assert!(read_toml::<File>(&text(1, 1_048_576)).is_ok());
        let shown = render(&read_toml::<File>(&text(0, 1_048_577)).unwrap_err(), "f");
        assert!(shown.contains("f:3:16: ") && shown.contains("0 MiB"), "{shown}");
        assert!(shown.contains("f:4:18: ") && shown.contains("1048577 MiB"), "{shown}");
    }

    #[test]
    fn threads_and_queue_for_opening_are_accepted_up_to_their_limits() {
        let text = |threads: u32, queued: u32| {
            format!("data_dir = 'd'\n[tls]\nopen_threads = {threads}\nopens_queued_max = {queued}\n{BARE}")
        };
        for (threads, queued) in [(1, 1), (256, 65_535)] {
            assert!(read_toml::<File>(&text(threads, queued)).is_ok(), "{threads} {queued}");
        }
        let shown = render(&read_toml::<File>(&text(0, 0)).unwrap_err(), "f");
        assert!(shown.contains("f:3:16: 0 threads") && shown.contains("f:4:20: 0 keys"), "{shown}");
        assert!(render(&read_toml::<File>(&text(257, 1)).unwrap_err(), "f").contains("257 threads"));
        assert!(read_toml::<File>(&text(1, 65_536)).is_err());
    }

    #[test]
    fn listeners_are_checked_together() {
        let listener = |name: &str, more: &str| {
            format!("[[listeners]]\nname = '{name}'\naddress = '127.0.0.1:1'\nprotocol = 'https'\n{more}\n")
        };
        let rest = "[edge]\nkey_file = 'k'\n[certservice]\nurl = 'unix:/x'\nverify_keys = []\n";
        let text = format!("data_dir = 'd'\n{}{}{rest}", listener("a", ""), listener("a", "redirect_port = 1"));
        let shown = render(&read_toml::<File>(&text).unwrap_err(), "f");
        assert!(
            shown.contains("two listeners are named `a`") && shown.contains("only a listener with protocol `http`"),
            "{shown}"
        );
    }
}
