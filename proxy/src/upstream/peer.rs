use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora::tls::x509::X509;
use pingora::upstreams::peer::HttpPeer;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// TCP and TLS together.
const CONNECT_TIMEOUT_TOTAL: Duration = Duration::from_secs(10);
/// Between two reads or two writes.
const IO_TIMEOUT: Duration = Duration::from_secs(60);
/// An idle pooled connection is closed after it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// An upstream as the runtime configuration has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamSettings {
    /// `http://host[:port]` or `https://host[:port]`.
    pub url: String,
    /// Root of its certificate, PEM. Default: the system's roots.
    pub ca_file: Option<String>,
    /// The name its certificate must have. Default: the host of `url`.
    pub server_name: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    #[error("`{0}` is not an upstream; expected http://host[:port] or https://host[:port], without a path")]
    Url(String),
    #[error("ca_file and server_name are for https upstreams only")]
    NotTls,
    #[error("ca_file `{0}`: {1}")]
    Root(String, String),
    #[error("`{0}` does not resolve: {1}")]
    Resolve(String, String),
}

pub struct Upstream {
    pub name: String,
    pub settings: UpstreamSettings,
    host: String,
    port: u16,
    tls: Option<Tls>,
    /// Swapped by re-resolution; empty until the first one succeeds.
    addresses: ArcSwap<Vec<SocketAddr>>,
    turn: AtomicUsize,
    /// Keeps pooled connections of different upstreams apart.
    group: u64,
}

struct Tls {
    server_name: String,
    roots: Option<Arc<Box<[X509]>>>,
}

impl Upstream {
    pub fn new(name: &str, settings: UpstreamSettings) -> Result<Self, UpstreamError> {
        let (secure, host, port) = parse(&settings.url)?;
        if !secure && (settings.ca_file.is_some() || settings.server_name.is_some()) {
            return Err(UpstreamError::NotTls);
        }
        let tls = secure.then(|| tls(&settings, &host)).transpose()?;
        let group = BuildHasherDefault::<DefaultHasher>::default().hash_one((name, &settings.url, &settings.ca_file));
        let addresses = ArcSwap::default();
        Ok(Self { name: name.to_owned(), settings, host, port, tls, addresses, turn: AtomicUsize::new(0), group })
    }

    /// Asks the system's resolver; the addresses known so far stay if it fails.
    pub async fn resolve(&self) -> Result<(), UpstreamError> {
        let failed = |why: String| UpstreamError::Resolve(self.host.clone(), why);
        let found =
            tokio::net::lookup_host((self.host.as_str(), self.port)).await.map_err(|e| failed(e.to_string()))?;
        let mut found: Vec<SocketAddr> = found.collect();
        if found.is_empty() {
            return Err(failed("no address".into()));
        }
        found.sort();
        self.addresses.store(Arc::new(found));
        Ok(())
    }

    /// The next address in turn, or none if its name never resolved.
    pub fn peer(&self) -> Option<Box<HttpPeer>> {
        let addresses = self.addresses.load();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let address = *addresses.get(turn.checked_rem(addresses.len())?)?;
        let server_name = self.tls.as_ref().map_or_else(String::new, |tls| tls.server_name.clone());
        let mut peer = HttpPeer::new(address, self.tls.is_some(), server_name);
        peer.group_key = self.group;
        let options = &mut peer.options;
        options.connection_timeout = Some(CONNECT_TIMEOUT);
        options.total_connection_timeout = Some(CONNECT_TIMEOUT_TOTAL);
        options.read_timeout = Some(IO_TIMEOUT);
        options.write_timeout = Some(IO_TIMEOUT);
        options.idle_timeout = Some(IDLE_TIMEOUT);
        options.verify_cert = true;
        options.verify_hostname = true;
        options.ca = self.tls.as_ref().and_then(|tls| tls.roots.clone());
        Some(Box::new(peer))
    }
}

fn parse(url: &str) -> Result<(bool, String, u16), UpstreamError> {
    let wrong = || UpstreamError::Url(url.chars().take(200).collect());
    let parsed = reqwest::Url::parse(url).map_err(|_| wrong())?;
    let secure = match parsed.scheme() {
        "http" => false,
        "https" => true,
        _ => return Err(wrong()),
    };
    let plain = parsed.path() == "/" && parsed.query().is_none() && parsed.fragment().is_none();
    if !plain || !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(wrong());
    }
    let host = parsed.host_str().filter(|host| !host.is_empty()).ok_or_else(wrong)?;
    let port = parsed.port_or_known_default().ok_or_else(wrong)?;
    Ok((secure, host.trim_matches(['[', ']']).to_owned(), port))
}

fn tls(settings: &UpstreamSettings, host: &str) -> Result<Tls, UpstreamError> {
    let server_name = settings.server_name.clone().unwrap_or_else(|| host.to_owned());
    let Some(path) = &settings.ca_file else {
        return Ok(Tls { server_name, roots: None });
    };
    let failed = |why: String| UpstreamError::Root(path.clone(), why);
    let pem = std::fs::read(path).map_err(|e| failed(e.to_string()))?;
    let roots = X509::stack_from_pem(&pem).ok().filter(|roots| !roots.is_empty());
    let roots = roots.ok_or_else(|| failed("no certificate in PEM".into()))?;
    Ok(Tls { server_name, roots: Some(Arc::new(roots.into_boxed_slice())) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(url: &str) -> Result<Upstream, UpstreamError> {
        Upstream::new("shop", UpstreamSettings { url: url.into(), ca_file: None, server_name: None })
    }

    #[test]
    fn reads_urls_and_refuses_what_would_be_ignored() {
        assert_eq!(parse("http://a.internal"), Ok((false, "a.internal".into(), 80)));
        assert_eq!(parse("https://a.internal/"), Ok((true, "a.internal".into(), 443)));
        assert_eq!(parse("https://[::1]:8443"), Ok((true, "::1".into(), 8443)));
        for url in ["", "a:80", "ftp://a", "http://a/path", "http://a/?q", "http://u:p@a", "http://", "unix:/x"] {
            assert!(matches!(upstream(url), Err(UpstreamError::Url(_))), "{url}");
        }
    }

    #[tokio::test]
    async fn addresses_take_turns_and_survive_a_failed_resolution() {
        let upstream = upstream("http://127.0.0.1:9").unwrap();
        assert!(upstream.peer().is_none());
        upstream.resolve().await.unwrap();
        assert_eq!(upstream.peer().unwrap()._address.to_string(), "127.0.0.1:9");
    }

    #[test]
    fn tls_settings_need_tls() {
        let settings = UpstreamSettings { url: "http://a".into(), ca_file: None, server_name: Some("b".into()) };
        assert_eq!(Upstream::new("x", settings).err(), Some(UpstreamError::NotTls));
        let settings =
            UpstreamSettings { url: "https://a".into(), ca_file: Some("/nonexistent".into()), server_name: None };
        assert!(matches!(Upstream::new("x", settings), Err(UpstreamError::Root(..))));
    }
}
