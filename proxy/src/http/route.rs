//! Host name to site: an exact name first, then the wildcard with the longest suffix, then `*`.

use std::collections::HashMap;
use std::sync::Arc;

use contract::Hostname;

use super::plugins::{self, Attached};
use crate::upstream::Upstream;

pub struct Site {
    pub upstream: Arc<Upstream>,
    pub plugins: Vec<Attached>,
}

#[derive(Default)]
pub struct Routes {
    exact: HashMap<Hostname, Arc<Site>>,
    /// By what follows `*.`
    wildcard: HashMap<Hostname, Arc<Site>>,
    any: Option<Arc<Site>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Pattern {
    Exact(Hostname),
    /// `*.suffix`: every name under the suffix, at any depth, not the suffix itself.
    Wildcard(Hostname),
    Any,
}

impl Pattern {
    pub fn parse(text: &str) -> Result<Self, String> {
        let named = |name: &str| Hostname::parse(name).map_err(|error| error.to_string());
        match text.strip_prefix("*.") {
            _ if text == "*" => Ok(Self::Any),
            Some(suffix) => named(suffix).map(Self::Wildcard),
            None => named(text).map(Self::Exact),
        }
    }

    /// The bucket of all its names, where they are of one registered domain: see [`crate::wasm::rollout_bucket`].
    pub fn bucket(&self) -> Option<u16> {
        plugins::bucket(self)
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact(name) => write!(f, "{name}"),
            Self::Wildcard(suffix) => write!(f, "*.{suffix}"),
            Self::Any => f.write_str("*"),
        }
    }
}

impl Routes {
    /// False if the pattern is taken already.
    pub fn add(&mut self, pattern: Pattern, site: Arc<Site>) -> bool {
        match pattern {
            Pattern::Exact(name) => self.exact.insert(name, site).is_none(),
            Pattern::Wildcard(suffix) => self.wildcard.insert(suffix, site).is_none(),
            Pattern::Any => self.any.replace(site).is_none(),
        }
    }

    pub fn find(&self, host: &Hostname) -> Option<&Arc<Site>> {
        if let Some(site) = self.exact.get(host) {
            return Some(site);
        }
        if !self.wildcard.is_empty() {
            let mut rest = host.as_str();
            while let Some((_, suffix)) = rest.split_once('.') {
                if let Some(site) = self.wildcard.get(suffix) {
                    return Some(site);
                }
                rest = suffix;
            }
        }
        self.any.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::UpstreamSettings;

    fn site(name: &str) -> Arc<Site> {
        let upstream = Upstream::new(name, UpstreamSettings::of("http://127.0.0.1:1")).unwrap();
        Arc::new(Site { upstream: Arc::new(upstream), plugins: vec![] })
    }

    #[test]
    fn the_most_specific_pattern_wins() {
        let mut routes = Routes::default();
        for pattern in ["a.example", "*.example.com", "*.b.example.com", "*"] {
            assert!(routes.add(Pattern::parse(pattern).unwrap(), site(pattern)));
        }
        for (host, expected) in [
            ("a.example", "a.example"),
            ("x.example.com", "*.example.com"),
            ("y.x.example.com", "*.example.com"),
            ("x.b.example.com", "*.b.example.com"),
            ("b.example.com", "*.example.com"),
            ("example.com", "*"),
            ("other.example", "*"),
        ] {
            let found = routes.find(&Hostname::parse(host).unwrap()).unwrap();
            assert_eq!(found.upstream.name, expected, "{host}");
        }
    }

    #[test]
    fn without_a_default_an_unknown_host_has_no_site() {
        let mut routes = Routes::default();
        assert!(routes.add(Pattern::parse("a.example").unwrap(), site("a")));
        assert!(routes.find(&Hostname::parse("b.example").unwrap()).is_none());
        assert!(!routes.add(Pattern::parse("A.example.").unwrap(), site("again")));
    }

    #[test]
    fn refuses_patterns_that_are_none() {
        for text in ["", "*.", "**", "a.*", "*a.example", "*.*.example", "http://a.example"] {
            assert!(Pattern::parse(text).is_err(), "{text}");
        }
    }
}
