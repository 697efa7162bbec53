//! An upstream as the runtime configuration has it, and what is checked of it.

use contract::document::Faults;
use deserr::Deserr;

const PEERS_MAX: usize = 256;
/// A consistent-hash ring takes 160 points of memory for each.
const WEIGHT_MAX: u32 = 100;
const RETRIES_MAX: u32 = 5;
const CONNECT_TIMEOUT_MS_MAX: u64 = 60_000;
const READ_TIMEOUT_MS_MAX: u64 = 3_600_000;
const REQUESTS_MAX: u32 = 1_000_000;
const CHECK_PATH_BYTES_MAX: usize = 1024;
const CHECK_INTERVAL_SECONDS_MAX: u64 = 3600;
const CHECK_TIMEOUT_SECONDS_MAX: u64 = 60;
const CHECKS_IN_A_ROW_MAX: u32 = 10;

#[derive(Debug, Clone, PartialEq, Eq, Deserr)]
#[deserr(error = Faults, deny_unknown_fields)]
pub struct UpstreamSettings {
    /// Short for one peer: `http://host[:port]` or `https://host[:port]`.
    #[deserr(default)]
    pub url: Option<String>,
    #[deserr(default)]
    pub peers: Option<Vec<PeerSettings>>,
    #[deserr(default)]
    pub balance: Balance,
    /// Without it, only what visitors' requests meet tells of a peer's health.
    #[deserr(default)]
    pub health: Option<HealthSettings>,
    /// What is spoken to the peers.
    #[deserr(default)]
    pub http: HttpVersion,
    /// TCP; with TLS, twice as long for both.
    #[deserr(default = 5_000)]
    pub connect_timeout_ms: u64,
    /// Between two reads or two writes.
    #[deserr(default = 60_000)]
    pub read_timeout_ms: u64,
    /// From the end of the request to the whole head of the answer. Default: as `read_timeout_ms`.
    #[deserr(default)]
    pub answer_timeout_ms: Option<u64>,
    /// Open at once, of this edge. Default: no limit.
    #[deserr(default)]
    pub requests_max: Option<u32>,
    /// Further tries of a request, where another try is safe.
    #[deserr(default = 1)]
    pub retries: u32,
    /// Root of the peers' certificates, PEM. Default: the system's roots.
    #[deserr(default)]
    pub ca_file: Option<String>,
    /// The name that each peer's certificate must have. Default: the host of its URL.
    #[deserr(default)]
    pub server_name: Option<String>,
    /// A PROXY header before anything else on each connection.
    #[deserr(default)]
    pub send_proxy: SendProxy,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserr)]
#[deserr(error = Faults, rename_all = lowercase)]
pub enum SendProxy {
    #[default]
    None,
    V2,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserr)]
#[deserr(error = Faults, deny_unknown_fields)]
pub struct PeerSettings {
    pub url: String,
    /// Its share of the requests.
    #[deserr(default = 1)]
    pub weight: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserr)]
#[deserr(error = Faults)]
pub enum Balance {
    #[default]
    #[deserr(rename = "round_robin")]
    RoundRobin,
    #[deserr(rename = "least_connections")]
    LeastConnections,
    /// The same client goes to the same peer, for as long as that one serves.
    #[deserr(rename = "hash_client")]
    HashClient,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserr)]
#[deserr(error = Faults)]
pub enum HttpVersion {
    #[default]
    #[deserr(rename = "1.1")]
    One,
    /// Over TLS by ALPN; in the clear with prior knowledge (h2c). What gRPC needs.
    #[deserr(rename = "2")]
    Two,
}

/// An active check: a GET that must be answered 2xx.
#[derive(Debug, Clone, PartialEq, Eq, Deserr)]
#[deserr(error = Faults, deny_unknown_fields)]
pub struct HealthSettings {
    pub path: String,
    #[deserr(default = 5)]
    pub interval_seconds: u64,
    #[deserr(default = 2)]
    pub timeout_seconds: u64,
    /// Failed checks in a row that take a peer out.
    #[deserr(default = 2)]
    pub fails: u32,
    /// Passed checks in a row that take it back.
    #[deserr(default = 1)]
    pub passes: u32,
}

/// What is wrong with an upstream, and where: a JSON pointer within it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{says}")]
pub struct UpstreamError {
    pub at: String,
    pub says: String,
    pub hint: Option<&'static str>,
}

impl UpstreamError {
    pub(super) fn new(at: impl Into<String>, says: impl Into<String>) -> Self {
        Self { at: at.into(), says: says.into(), hint: None }
    }

    fn hinting(self, hint: &'static str) -> Self {
        Self { hint: Some(hint), ..self }
    }
}

/// Where a peer is, read from its URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    pub at: String,
    pub secure: bool,
    pub host: String,
    pub port: u16,
    pub weight: u32,
}

impl Origin {
    /// As a `Host` field names it.
    pub(super) fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match (self.secure, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

impl UpstreamSettings {
    /// One peer, everything else left out.
    #[cfg(test)]
    pub fn of(url: &str) -> Self {
        let document = serde_json::json!({ "url": url }).to_string();
        contract::document::read_json(&document).unwrap()
    }

    pub(super) fn answer_timeout_ms(&self) -> u64 {
        self.answer_timeout_ms.unwrap_or(self.read_timeout_ms)
    }

    /// Every fault of the settings, or the origins.
    pub(super) fn origins(&self) -> Result<Vec<Origin>, Vec<UpstreamError>> {
        let mut errors = self.out_of_range();
        let mut origins: Vec<Origin> = Vec::new();
        for (at, url, weight) in self.listed(&mut errors) {
            match parse(url) {
                Ok((secure, host, port)) => origins.push(Origin { at, secure, host, port, weight }),
                Err(says) => errors.push(UpstreamError::new(at, says)),
            }
        }
        for (index, origin) in origins.iter().enumerate() {
            let same = |other: &&Origin| (&other.host, other.port) == (&origin.host, origin.port);
            if let Some(other) = origins[..index].iter().find(same) {
                let says = format!("{}:{} is a peer already, at `{}`", origin.host, origin.port, other.at);
                errors.push(UpstreamError::new(&origin.at, says).hinting("give it more `weight` instead"));
            } else if origin.secure != origins[0].secure {
                let says = "http and https peers can't be mixed in one upstream";
                errors.push(UpstreamError::new(&origin.at, says));
            }
        }
        if origins.iter().any(|origin| !origin.secure) {
            for (at, given) in [("/ca_file", &self.ca_file), ("/server_name", &self.server_name)] {
                if given.is_some() {
                    errors.push(UpstreamError::new(at, "ca_file and server_name are for https upstreams only"));
                }
            }
        }
        if errors.is_empty() { Ok(origins) } else { Err(errors) }
    }

    /// Place, URL and weight of each peer, of whichever form.
    fn listed(&self, errors: &mut Vec<UpstreamError>) -> Vec<(String, &str, u32)> {
        match (&self.url, &self.peers) {
            (Some(url), None) => vec![("/url".into(), url, 1)],
            (None, Some(peers)) => {
                if peers.is_empty() || peers.len() > PEERS_MAX {
                    let says = format!("{} peers; an upstream has 1 to {PEERS_MAX}", peers.len());
                    errors.push(UpstreamError::new("/peers", says));
                }
                let mut listed = Vec::new();
                for (index, peer) in peers.iter().enumerate() {
                    within(errors, &format!("/peers/{index}/weight"), peer.weight.into(), 1, WEIGHT_MAX.into());
                    listed.push((format!("/peers/{index}/url"), peer.url.as_str(), peer.weight));
                }
                listed
            }
            (Some(_), Some(_)) => {
                let error = UpstreamError::new("/peers", "`url` and `peers` exclude each other");
                errors.push(error.hinting("`url` is short for one peer: list it under `peers`"));
                Vec::new()
            }
            (None, None) => {
                errors.push(UpstreamError::new("", "an upstream needs `url` or `peers`"));
                Vec::new()
            }
        }
    }

    fn out_of_range(&self) -> Vec<UpstreamError> {
        let mut errors = Vec::new();
        within(&mut errors, "/connect_timeout_ms", self.connect_timeout_ms, 1, CONNECT_TIMEOUT_MS_MAX);
        within(&mut errors, "/read_timeout_ms", self.read_timeout_ms, 1, READ_TIMEOUT_MS_MAX);
        if let Some(timeout) = self.answer_timeout_ms {
            within(&mut errors, "/answer_timeout_ms", timeout, 1, READ_TIMEOUT_MS_MAX);
            if self.http == HttpVersion::Two {
                let says = "answer_timeout_ms is for HTTP/1.1; over HTTP/2 read_timeout_ms bounds the whole head";
                errors.push(UpstreamError::new("/answer_timeout_ms", says));
            }
        }
        if let Some(most) = self.requests_max {
            within(&mut errors, "/requests_max", most.into(), 1, REQUESTS_MAX.into());
        }
        within(&mut errors, "/retries", self.retries.into(), 0, RETRIES_MAX.into());
        let Some(health) = &self.health else { return errors };
        within(&mut errors, "/health/interval_seconds", health.interval_seconds, 1, CHECK_INTERVAL_SECONDS_MAX);
        within(&mut errors, "/health/timeout_seconds", health.timeout_seconds, 1, CHECK_TIMEOUT_SECONDS_MAX);
        within(&mut errors, "/health/fails", health.fails.into(), 1, CHECKS_IN_A_ROW_MAX.into());
        within(&mut errors, "/health/passes", health.passes.into(), 1, CHECKS_IN_A_ROW_MAX.into());
        let path = &health.path;
        let visible = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        if !path.starts_with('/') || !visible || path.len() > CHECK_PATH_BYTES_MAX {
            let says = format!("`{}` is not a path; expected `/…`, at most {CHECK_PATH_BYTES_MAX} bytes", shown(path));
            errors.push(UpstreamError::new("/health/path", says));
        }
        errors
    }
}

fn within(errors: &mut Vec<UpstreamError>, at: &str, given: u64, least: u64, most: u64) {
    if !(least..=most).contains(&given) {
        errors.push(UpstreamError::new(at, format!("{given} is out of range; accepted are {least} to {most}")));
    }
}

fn parse(url: &str) -> Result<(bool, String, u16), String> {
    let wrong =
        || format!("`{}` is not an upstream; expected http://host[:port] or https://host[:port], no path", shown(url));
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

fn shown(text: &str) -> String {
    text.chars().take(200).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(document: &str) -> Vec<String> {
        let settings: UpstreamSettings = contract::document::read_json(document).unwrap();
        settings.origins().map(|_| Vec::new()).unwrap_or_else(|errors| errors.into_iter().map(|e| e.at).collect())
    }

    #[test]
    fn reads_urls_and_refuses_what_would_be_ignored() {
        assert_eq!(parse("http://a.internal"), Ok((false, "a.internal".into(), 80)));
        assert_eq!(parse("https://a.internal/"), Ok((true, "a.internal".into(), 443)));
        assert_eq!(parse("https://[::1]:8443"), Ok((true, "::1".into(), 8443)));
        for url in ["", "a:80", "ftp://a", "http://a/path", "http://a/?q", "http://u:p@a", "http://", "unix:/x"] {
            assert!(parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn one_url_or_a_list_of_peers_that_are_alike_and_different() {
        assert_eq!(places(r#"{"url": "http://a"}"#), [""; 0]);
        assert_eq!(places(r#"{"peers": [{"url": "http://a"}, {"url": "http://a:81", "weight": 100}]}"#), [""; 0]);
        assert_eq!(places(r#"{}"#), [""]);
        assert_eq!(places(r#"{"url": "http://a", "peers": []}"#), ["/peers"]);
        assert_eq!(places(r#"{"peers": []}"#), ["/peers"]);
        assert_eq!(places(r#"{"peers": [{"url": "http://a"}, {"url": "http://a:80/"}]}"#), ["/peers/1/url"]);
        assert_eq!(places(r#"{"peers": [{"url": "http://a"}, {"url": "https://b"}]}"#), ["/peers/1/url"]);
        assert_eq!(places(r#"{"url": "http://a", "server_name": "b"}"#), ["/server_name"]);
        assert_eq!(places(r#"{"url": "http://a", "ca_file": "/b"}"#), ["/ca_file"]);
    }

    #[test]
    fn each_limit_is_accepted_and_one_more_is_refused() {
        for (at, least, most) in [
            ("/peers/0/weight", 1, 100),
            ("/retries", 0, 5),
            ("/connect_timeout_ms", 1, 60_000),
            ("/read_timeout_ms", 1, 3_600_000),
            ("/health/interval_seconds", 1, 3600),
            ("/health/timeout_seconds", 1, 60),
            ("/health/fails", 1, 10),
            ("/health/passes", 1, 10),
        ] {
            let with = |value: i64| {
                let mut document = serde_json::json!({"peers": [{"url": "http://a"}], "health": {"path": "/"}});
                let (parent, key) = at.rsplit_once('/').unwrap();
                document.pointer_mut(parent).unwrap()[key] = value.into();
                document.to_string()
            };
            assert_eq!((places(&with(least)), places(&with(most))), (vec![], vec![]), "{at}");
            assert_eq!(places(&with(most + 1)), [at]);
            assert!(least == 0 || places(&with(least - 1)) == [at]);
        }
        let peers = |count: usize| {
            let peers: Vec<_> = (0..count).map(|n| serde_json::json!({"url": format!("http://h{n}")})).collect();
            serde_json::json!({ "peers": peers }).to_string()
        };
        assert_eq!((places(&peers(256)), places(&peers(257))), (vec![], vec!["/peers".to_owned()]));
    }

    #[test]
    fn a_check_needs_a_path() {
        let with = |path: &str| serde_json::json!({"url": "http://a", "health": {"path": path}}).to_string();
        assert_eq!(places(&with("/healthz?full=1")), [""; 0]);
        for path in ["", "healthz", "/a b", "/a\r\nx: y", "/#a", &format!("/{}", "x".repeat(1024))] {
            assert_eq!(places(&with(path)), ["/health/path"], "{path:?}");
        }
    }
}
