//! Asks another server whether a visitor may pass, as nginx's `auth_request` and Traefik's `forwardAuth` do:
//! `{"upstream": "auth", "path": "/verify"}`.
//!
//! It is told the URL and some of the visitor's fields. 2xx: the visitor passes, and chosen fields of the answer go along to
//! the site's server. A redirect, 401, 403 and 404 are passed on, cookies included. Anything else, and no answer, is what
//! `on_error` says.

use latchkey_sdk::callout::{self, Response};
use latchkey_sdk::config::{Value, brief};
use latchkey_sdk::http::{
    Action, Depends, Edit, Facts, Field, Header, HttpPolicy, LocalResponse, Plan, Request, Verdict,
};
use latchkey_sdk::http::{Redirect, RedirectStatus, header};
use latchkey_sdk::log::{self, Level};
use latchkey_sdk::{Manifest, export_http};
use serde::{Deserialize, Serialize};

const NAMES_MAX: usize = 16;
/// Of a denial, these fields go to the visitor.
const TOLD: [&str; 5] = ["set-cookie", "www-authenticate", "content-type", "cache-control", "retry-after"];
/// The proxy checks that it can send what it is given; a longer page would be refused as a whole.
const PAGE_BYTES_MAX: usize = 32 << 10;

#[derive(Serialize, Deserialize)]
struct ForwardAuth {
    upstream: String,
    path: String,
    pass: Vec<String>,
    copy: Vec<String>,
    cache_seconds: u32,
    timeout_ms: u32,
    open: bool,
}

export_http!(ForwardAuth);

impl HttpPolicy for ForwardAuth {
    const MANIFEST: Manifest = Manifest {
        name: "forward-auth",
        version: env!("CARGO_PKG_VERSION"),
        config_schema: include_str!("../config.schema.json"),
        // `on_error` is for servers that fail; a failing plugin lets nobody in.
        fail_open_safe: false,
    };

    fn plan(config: &Value<'_>) -> Option<Plan<Self>> {
        let config = config.object(&["upstream", "path", "pass", "copy", "cache_seconds", "timeout_ms", "on_error"])?;
        let upstream = config.required("upstream", granted);
        let path = config.optional("path", "/".to_owned(), path);
        let pass = config.optional("pass", vec!["cookie".to_owned(), "authorization".to_owned()], names);
        let copy = config.optional("copy", Vec::new(), names);
        let cache_seconds = config.optional("cache_seconds", 0, |v| v.integer(0..=3600));
        let timeout_ms = config.optional("timeout_ms", 0, |v| v.integer(1..=5000));
        let open = config.optional("on_error", false, |v| v.one_of(&[("deny", false), ("allow", true)]));
        let pass = pass?;
        let wants = pass.clone();
        let policy = Self {
            upstream: upstream?,
            path: path?,
            pass,
            copy: copy?,
            cache_seconds: u32::try_from(cache_seconds?).ok()?,
            timeout_ms: u32::try_from(timeout_ms?).ok()?,
            open: open?,
        };
        let plan = Plan::new(policy).on_request();
        Some(wants.into_iter().fold(plan, |plan, name| plan.wants(Field::RequestHeader(name))))
    }

    fn on_request(&self, facts: &Facts, request: &Request<'_>) -> Verdict {
        match callout::send(self.question(facts, request)) {
            Ok(answer) => match answer.status {
                200..=299 => self.allowed(&answer),
                301 | 302 | 303 | 307 | 308 => redirected(&answer).unwrap_or_else(|| self.undecided("no location")),
                401 | 403 | 404 => refused(&answer),
                status => self.undecided(&format!("it answered {status}")),
            },
            Err(error) => self.undecided(&format!("{error:?}")),
        }
    }
}

impl ForwardAuth {
    fn question(&self, facts: &Facts, request: &Request<'_>) -> callout::Request {
        let query = request.query.map(|query| format!("?{query}")).unwrap_or_default();
        let mut headers = vec![
            header("x-forwarded-proto", if facts.is_https() { "https" } else { "http" }),
            header("x-forwarded-host", request.host),
            header("x-forwarded-uri", &format!("{}{query}", request.path)),
        ];
        // An answer that is given again can't depend on them.
        if self.cache_seconds == 0 {
            let visitor = callout::visitor();
            headers.push(header("x-forwarded-method", &visitor.method));
            headers.extend(visitor.address.map(|address| header("x-forwarded-for", &address.to_string())));
        }
        let passed = self.pass.iter().zip(request.wanted);
        headers.extend(passed.filter_map(|(name, value)| Some(Header { name: name.clone(), value: value.clone()? })));
        let timeout_ms = self.timeout_ms;
        callout::Request { headers, timeout_ms, ..callout::Request::get(&self.upstream, &self.path) }
    }

    fn allowed(&self, answer: &Response) -> Verdict {
        // What the visitor sent under these names is not what the server says.
        let edits = self.copy.iter().map(|name| match answer.values(name).next() {
            Some(value) => Edit::Set(Header { name: name.clone(), value: value.to_vec() }),
            None => Edit::Remove(name.clone()),
        });
        let edits: Vec<_> = edits.collect();
        let verdict = Verdict::from(if edits.is_empty() { Action::Next } else { Action::Edit(edits) });
        match self.cache_seconds {
            0 => verdict,
            seconds => verdict.holds(Depends::HOST | Depends::PATH | Depends::QUERY | Depends::WANTED, seconds),
        }
    }

    /// Nobody has said yes or no.
    fn undecided(&self, why: &str) -> Verdict {
        log::write(Level::Debug, || format!("{} has not decided: {why}", self.upstream));
        if self.open { self.allowed_without_answer() } else { Action::Deny(503).into() }
    }

    fn allowed_without_answer(&self) -> Verdict {
        Verdict { memo: None, ..self.allowed(&Response::default()) }
    }
}

fn redirected(answer: &Response) -> Option<Verdict> {
    let location = String::from_utf8(answer.values("location").next()?.to_vec()).ok()?;
    let status = match answer.status {
        301 => RedirectStatus::MovedPermanently,
        303 => RedirectStatus::SeeOther,
        307 => RedirectStatus::TemporaryRedirect,
        308 => RedirectStatus::PermanentRedirect,
        _ => RedirectStatus::Found,
    };
    let cookies = answer.values("set-cookie");
    let edits = cookies.map(|value| Edit::Append(Header { name: "set-cookie".to_owned(), value: value.to_vec() }));
    Some(Action::Redirect(Redirect { status, location, edits: edits.collect() }).into())
}

fn refused(answer: &Response) -> Verdict {
    let headers = answer.headers.iter().filter(|header| TOLD.contains(&header.name.as_str())).cloned().collect();
    let body = if answer.body.len() <= PAGE_BYTES_MAX { answer.body.clone() } else { Vec::new() };
    Action::Respond(LocalResponse { status: answer.status, headers, body }).into()
}

fn granted(value: &Value<'_>) -> Option<String> {
    let name = value.text()?;
    let granted = callout::granted();
    if granted.iter().any(|granted| granted == name) {
        return Some(name.to_owned());
    }
    let hint = match granted.as_slice() {
        [] => format!("write \"callouts\": [\"{}\"] beside \"config\"", brief(name)),
        names => format!("granted: {}", names.join(", ")),
    };
    value.refuse(format!("the upstream `{}` is not granted to this binding", brief(name)), Some(hint))
}

fn path(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    if !text.starts_with('/') || text.starts_with("//") || !text.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
        return value.refuse(format!("`{}` is not an absolute path", brief(text)), None);
    }
    Some(text.to_owned())
}

fn names(value: &Value<'_>) -> Option<Vec<String>> {
    let list = value.list(NAMES_MAX)?;
    let named: Vec<_> = list.iter().filter_map(name).collect();
    (named.len() == list.len()).then_some(named)
}

fn name(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
        return value.refuse(format!("`{}` is not a header name", brief(text)), None);
    }
    Some(text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use latchkey_sdk::callout::{Error, testing};
    use latchkey_sdk::http::check;

    use super::*;

    fn answer(status: u16, headers: &[(&str, &str)]) -> Response {
        Response { status, headers: headers.iter().map(|(name, value)| header(name, value)).collect(), body: vec![] }
    }

    fn asked(config: &str, answer: Result<Response, Error>) -> Verdict {
        testing::grant(&["auth"], move |_| answer.clone());
        let (plan, _) = check::<ForwardAuth>(config).expect("is accepted");
        let wanted = [Some(b"s=1".to_vec()), None];
        let request = Request { host: "shop.example", path: "/cart", query: Some("a=b"), wanted: &wanted };
        plan.policy.on_request(&Facts::EXAMPLE, &request)
    }

    const COPIES: &str = r#"{"upstream": "auth", "copy": ["X-User", "X-Plan"], "cache_seconds": 10}"#;

    #[test]
    fn who_is_let_in_brings_what_the_server_says_and_nothing_of_the_same_name() {
        let verdict = asked(COPIES, Ok(answer(200, &[("x-user", "7"), ("x-other", "1")])));
        let edits = vec![Edit::Set(header("x-user", "7")), Edit::Remove("x-plan".to_owned())];
        assert_eq!(verdict.action, Action::Edit(edits));
        assert!(verdict.memo.is_some_and(|memo| memo.for_ms == 10_000 && memo.on.contains(Depends::WANTED)));
    }

    #[test]
    fn a_redirect_takes_its_cookies_along() {
        let headers = [("location", "/login"), ("set-cookie", "a=1"), ("set-cookie", "b=2")];
        let Action::Redirect(redirect) = asked(COPIES, Ok(answer(302, &headers))).action else { panic!("no redirect") };
        assert_eq!((redirect.location.as_str(), redirect.edits.len()), ("/login", 2));
    }

    #[test]
    fn what_nobody_has_decided_is_as_configured_and_never_given_again() {
        for answered in [Err(Error::TimedOut), Ok(answer(500, &[])), Ok(answer(302, &[]))] {
            assert_eq!(asked(COPIES, answered.clone()).action, Action::Deny(503));
            let open = r#"{"upstream": "auth", "copy": ["x-user"], "cache_seconds": 10, "on_error": "allow"}"#;
            let verdict = asked(open, answered);
            assert_eq!(verdict.action, Action::Edit(vec![Edit::Remove("x-user".to_owned())]));
            assert!(verdict.memo.is_none());
        }
    }

    #[test]
    fn every_fault_of_a_configuration_is_told() {
        testing::grant(&["auth"], |_| Err(Error::TimedOut));
        let faults = check::<ForwardAuth>(r#"{"upstream": "x", "path": "a", "copy": ["a b"], "on_error": "open"}"#);
        let faults = faults.err().expect("is refused");
        assert_eq!(
            faults.iter().map(|d| d.at.as_str()).collect::<Vec<_>>(),
            ["/upstream", "/path", "/copy/0", "/on_error"]
        );
    }
}
