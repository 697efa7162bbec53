//! The demo's runtime configuration, as an operator would apply it.

use std::collections::BTreeMap;

use contract::Hostname;
use serde_json::{Value, json};

pub(super) const PLUGINS: [&str; 3] = ["hsts", "redirects", "proxy-policy"];

/// Only this loopback address plays the load balancer that may send PROXY headers.
pub(super) const LOAD_BALANCER: [u8; 4] = [127, 0, 0, 2];

pub(super) struct SiteConfig<'a> {
    /// Plugin → digest, as pushed.
    pub(super) digests: &'a BTreeMap<&'static str, String>,
    /// Host → URL of its server.
    pub(super) sites: &'a [(Hostname, String)],
    pub(super) hsts_seconds: u32,
}

impl SiteConfig<'_> {
    pub(super) fn json(&self) -> Value {
        let plugins: BTreeMap<_, _> =
            self.digests.iter().map(|(name, digest)| (name, json!({"digest": digest}))).collect();
        let upstreams: BTreeMap<_, _> =
            self.sites.iter().map(|(host, url)| (label(host), json!({"url": url}))).collect();
        let site = |(host, _): &(Hostname, String)| {
            json!({
                "hosts": [host],
                "upstream": label(host),
                "plugins": [
                    {"plugin": "hsts", "config": {"max_age": self.hsts_seconds}},
                    {"plugin": "redirects", "config": {"rules": [{"from": "/old", "to": "/new", "status": 308}]}},
                ],
            })
        };
        let [a, b, c, d] = LOAD_BALANCER;
        let trust = json!({"trusted": [format!("{a}.{b}.{c}.{d}/32")], "header": "require"});
        let policy = json!({"plugins": [{"plugin": "proxy-policy", "config": trust, "on_failure": "closed"}]});
        json!({
            "plugins": plugins,
            "upstreams": upstreams,
            "sites": self.sites.iter().map(site).collect::<Vec<_>>(),
            "listeners": {"https": policy, "http": policy},
        })
    }
}

/// `shop` of `shop.localhost`.
fn label(host: &Hostname) -> &str {
    host.as_str().split('.').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_site_finds_its_upstream() {
        let digests = PLUGINS.map(|name| (name, "sha256:00".to_owned())).into();
        let sites = [(Hostname::parse("shop.localhost").unwrap(), "http://127.0.0.1:1".to_owned())];
        let config = SiteConfig { digests: &digests, sites: &sites, hsts_seconds: 60 }.json();
        let upstream = config["sites"][0]["upstream"].as_str().unwrap();
        assert_eq!(config["upstreams"][upstream]["url"], "http://127.0.0.1:1");
        assert_eq!(config["listeners"]["https"]["plugins"][0]["config"]["trusted"][0], "127.0.0.2/32");
    }
}
