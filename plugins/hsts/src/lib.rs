//! Strict-Transport-Security (RFC 6797), rolled out by percentage of domains.

use latchkey_sdk::config::Value;
use latchkey_sdk::http::{Edit, Facts, HttpPolicy, Plan, Response, Scheme, header};
use latchkey_sdk::{Manifest, export_http};
use serde::{Deserialize, Serialize};

const FIELD: &str = "strict-transport-security";
const KEYS: [&str; 5] = ["max_age", "include_subdomains", "preload", "rollout_percent", "upstream_header"];

/// Ten years. More is most likely milliseconds.
const MAX_AGE_MOST: u64 = 315_360_000;
/// What browsers' preload lists ask for: one year.
const PRELOAD_MAX_AGE_LEAST: u64 = 31_536_000;

/// The field, ready to send.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Hsts {
    value: String,
    /// Buckets below this one are in the rollout.
    buckets: u16,
    keep_upstream: bool,
}

export_http!(Hsts);

impl HttpPolicy for Hsts {
    const MANIFEST: Manifest = Manifest {
        name: "hsts",
        version: env!("CARGO_PKG_VERSION"),
        config_schema: include_str!("../config.schema.json"),
        fail_open_safe: true,
    };

    fn plan(config: &Value<'_>) -> Option<Plan<Self>> {
        let config = config.object(&KEYS)?;
        let max_age = config.required("max_age", |v| v.integer(0..=MAX_AGE_MOST));
        let include_subdomains = config.optional("include_subdomains", false, Value::boolean);
        let preload = config.optional("preload", false, Value::boolean);
        let percent = config.optional("rollout_percent", 100, |v| v.integer(0..=100));
        let keep_upstream =
            config.optional("upstream_header", false, |v| v.one_of(&[("replace", false), ("keep", true)]));
        if preload == Some(true) {
            let refuse = |message: String, hint: &str| config.error_at("preload", message, hint);
            if include_subdomains == Some(false) {
                refuse("preload needs include_subdomains".to_owned(), "add \"include_subdomains\": true");
            }
            if let Some(max_age) = max_age.filter(|max_age| *max_age < PRELOAD_MAX_AGE_LEAST) {
                let message = format!("preload needs a max_age of at least {PRELOAD_MAX_AGE_LEAST}, it is {max_age}");
                refuse(message, "raise max_age step by step, and preload last: leaving the list takes months");
            }
            if let Some(percent) = percent.filter(|percent| *percent < 100) {
                let message = format!("preload needs a rollout_percent of 100, it is {percent}");
                refuse(message, "finish the rollout first");
            }
        }
        if percent == Some(0) {
            config.warn_at("rollout_percent", "no domain gets the header", "to withdraw it, send \"max_age\": 0");
        }
        let mut value = format!("max-age={}", max_age?);
        value.push_str(if include_subdomains? { "; includeSubDomains" } else { "" });
        value.push_str(if preload? { "; preload" } else { "" });
        let buckets = u16::try_from(percent? * 100).ok()?;
        Some(Plan::new(Self { value, buckets, keep_upstream: keep_upstream? }).on_response())
    }

    fn on_response(&self, facts: &Facts, _response: &Response<'_>) -> Vec<Edit> {
        // RFC 6797 section 7.2: only over secure transport; section 8.3: it means nothing for an IP address.
        if facts.scheme == Scheme::Http || facts.ip_literal_host || facts.rollout_bucket >= self.buckets {
            return Vec::new();
        }
        let field = header(FIELD, &self.value);
        vec![if self.keep_upstream { Edit::SetIfAbsent(field) } else { Edit::Set(field) }]
    }
}

#[cfg(test)]
mod tests {
    use latchkey_sdk::http::check;

    use super::*;

    const FACTS: Facts = Facts { now_ms: 0, scheme: Scheme::Https, ip_literal_host: false, rollout_bucket: 2500 };

    fn plan(config: &str) -> Hsts {
        check::<Hsts>(config).expect("is accepted").0.policy
    }

    fn sent(config: &str, facts: &Facts) -> Option<String> {
        let response = Response { host: "shop.example", path: "/", status: 200, wanted: &[] };
        match plan(config).on_response(facts, &response).as_slice() {
            [] => None,
            [Edit::Set(field) | Edit::SetIfAbsent(field)] => String::from_utf8(field.value.clone()).ok(),
            other => panic!("{other:?}"),
        }
    }

    fn faults(config: &str) -> Vec<String> {
        let diagnostics = check::<Hsts>(config).expect_err("is refused");
        diagnostics.into_iter().map(|d| format!("{}: {}", d.at, d.message)).collect()
    }

    #[test]
    fn sends_what_is_configured() {
        assert_eq!(sent(r#"{"max_age": 86400}"#, &FACTS).as_deref(), Some("max-age=86400"));
        let all = r#"{"max_age": 31536000, "include_subdomains": true, "preload": true}"#;
        assert_eq!(sent(all, &FACTS).as_deref(), Some("max-age=31536000; includeSubDomains; preload"));
    }

    #[test]
    fn sends_zero_to_withdraw_the_promise() {
        assert_eq!(sent(r#"{"max_age": 0}"#, &FACTS).as_deref(), Some("max-age=0"));
    }

    #[test]
    fn says_nothing_over_http_or_for_an_ip_address() {
        assert_eq!(sent(r#"{"max_age": 1}"#, &Facts { scheme: Scheme::Http, ..FACTS }), None);
        assert_eq!(sent(r#"{"max_age": 1}"#, &Facts { ip_literal_host: true, ..FACTS }), None);
    }

    #[test]
    fn rolls_out_by_bucket() {
        let at = |percent: u64| sent(&format!(r#"{{"max_age": 1, "rollout_percent": {percent}}}"#), &FACTS).is_some();
        assert_eq!([0, 25, 26, 100].map(at), [false, false, true, true]);
        let last = Facts { rollout_bucket: 9999, ..FACTS };
        assert!(sent(r#"{"max_age": 1}"#, &last).is_some());
        assert!(sent(r#"{"max_age": 1, "rollout_percent": 99}"#, &last).is_none());
    }

    #[test]
    fn keeps_the_upstreams_header_only_if_asked() {
        assert!(!plan(r#"{"max_age": 1, "upstream_header": "replace"}"#).keep_upstream);
        assert!(plan(r#"{"max_age": 1, "upstream_header": "keep"}"#).keep_upstream);
    }

    #[test]
    fn preload_needs_the_whole_promise() {
        let config = r#"{"max_age": 86400, "preload": true, "rollout_percent": 50}"#;
        assert_eq!(
            faults(config),
            [
                "/preload: preload needs include_subdomains",
                "/preload: preload needs a max_age of at least 31536000, it is 86400",
                "/preload: preload needs a rollout_percent of 100, it is 50",
            ]
        );
    }

    #[test]
    fn reports_all_faults_at_once() {
        let config = r#"{"maxage": 1, "preload": 1, "rollout_percent": 101, "upstream_header": "drop"}"#;
        assert_eq!(
            faults(config),
            [
                "/maxage: unknown key `maxage`",
                ": `max_age` is missing",
                "/preload: is 1, true or false is expected",
                "/rollout_percent: 101 is out of range, 0 to 100 are accepted",
                "/upstream_header: `drop` is not one of replace, keep",
            ]
        );
        let milliseconds = r#"{"max_age": 31536000000}"#;
        assert_eq!(faults(milliseconds), ["/max_age: 31536000000 is out of range, 0 to 315360000 are accepted"]);
    }

    #[test]
    fn warns_of_a_rollout_to_nobody() {
        let (_, warnings) = check::<Hsts>(r#"{"max_age": 1, "rollout_percent": 0}"#).expect("is accepted");
        assert_eq!(warnings.len(), 1);
    }
}
