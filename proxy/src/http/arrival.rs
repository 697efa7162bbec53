//! A request as it arrives, before anybody is asked about it: what is about the visitor's connection ends here, what only a
//! proxy may say is removed, and cookies are one field. So plugins, their shadows and the upstream see the same, and nothing
//! that a visitor sends undoes or doubles what a plugin says.

use std::sync::OnceLock;

use http::header::{CONNECTION, COOKIE, HeaderMap, HeaderName, HeaderValue};
use pingora::http::RequestHeader;

use super::limits::{self, Unfit};
use crate::guard::Limits;

/// Names that proxies set and applications trust, beside all that begin with [`FORWARDED_BY`]. `Client-Cert` is RFC 9440's;
/// `Proxy` becomes the HTTP_PROXY of a CGI program.
const CLAIMS: [&str; 22] = [
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "client-cert",
    "client-cert-chain",
    "client-ip",
    "fastly-client-ip",
    "forwarded",
    "front-end-https",
    "proxy",
    "true-client-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-forwarded",
    "x-original-forwarded-for",
    "x-original-host",
    "x-original-url",
    "x-real-ip",
    "x-remote-addr",
    "x-remote-ip",
    "x-rewrite-url",
    "x-scheme",
    "x-url-scheme",
];
const FORWARDED_BY: &str = "x-forwarded-";

/// What `Connection` says in nearly all requests. The HTTP library reads it too, and removes no field that matters for it.
const PLAIN_OPTIONS: [&[u8]; 4] = [b"close", b"keep-alive", b"upgrade", b"te"];
/// Named or not, they say where the request ends, what its visitor waits for, and to what it switches.
const KEPT: [&str; 4] = ["content-length", "expect", "transfer-encoding", "upgrade"];
/// To have them removed would change whom the request is for, or from.
const NOT_TO_BE_NAMED: [&str; 4] = ["host", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];
const NAMED_MAX: usize = 9;

/// Cookies of one request over HTTP/2, each by itself: browsers keep 180 for a site at most. Beside `headers_max`.
const COOKIES_MAX: usize = 256;
/// More lines than these leave room behind that is given back.
const LINES_LEFT_BEHIND: usize = 8;

/// Checks a request against the limits, and makes of it what all are shown. It costs no memory where there is nothing to do.
pub(super) fn admit(request: &mut RequestHeader, limits: &Limits) -> Result<(), Unfit> {
    limits::check_count(request.headers.len(), limits.headers_max.saturating_add(COOKIES_MAX))?;
    join_cookies(request);
    limits::check(request.raw_path().len(), request, limits)?;
    end_hop(request)?;
    remove_claims(request);
    Ok(())
}

/// Removes what `Connection` names, and so that nothing which is added later can be named (RFC 9110 section 7.6.1).
fn end_hop(request: &mut RequestHeader) -> Result<(), Unfit> {
    let lines = request.headers.get_all(CONNECTION).iter();
    let options = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    let is_plain = |option: &&[u8]| PLAIN_OPTIONS.iter().any(|plain| option.eq_ignore_ascii_case(plain));
    let mut named = Vec::new();
    for option in options.filter(|option| !option.is_empty() && !is_plain(option)) {
        if named.len() == NAMED_MAX {
            return Err(Unfit::Connection("names more than 9 fields"));
        }
        named.push(field_named(option)?);
    }
    if named.is_empty() {
        return Ok(());
    }
    for name in named.iter().filter(|name| !KEPT.contains(&name.as_str())) {
        request.remove_header(name);
    }
    // What else it says has been read already: whether the connection goes on.
    request.remove_header(&CONNECTION);
    Ok(())
}

fn field_named(option: &[u8]) -> Result<HeaderName, Unfit> {
    let is_token = option.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte));
    let name = HeaderName::from_bytes(option).ok().filter(|_| is_token);
    let name = name.ok_or(Unfit::Connection("names what is no field"))?;
    if NOT_TO_BE_NAMED.contains(&name.as_str()) {
        return Err(Unfit::Connection("names a field that is not the visitor's to remove"));
    }
    Ok(name)
}

fn remove_claims(request: &mut RequestHeader) {
    let claims: Vec<_> = request.headers.keys().filter(|name| is_claim(name.as_str())).cloned().collect();
    for claim in &claims {
        request.remove_header(claim);
    }
}

/// Whether a field says what only a proxy may say, in whatever spelling. `name` is in lower case.
fn is_claim(name: &str) -> bool {
    let name = name.as_bytes();
    // Nearly all names end here.
    if !matches!(name.first(), Some(b'c' | b'f' | b'p' | b't' | b'x')) {
        return false;
    }
    let is = |claim: &str| reads_as(name, claim.as_bytes());
    name.get(..FORWARDED_BY.len()).is_some_and(|start| reads_as(start, FORWARDED_BY.as_bytes()))
        || CLAIMS.iter().any(|claim| is(claim))
}

/// CGI, WSGI and PHP make the same variable of `X-Real-IP`, `X_Real_IP` and `X.Real.IP`, so any other sign is read as a
/// hyphen. Names are in lower case.
fn reads_as(name: &[u8], other: &[u8]) -> bool {
    let as_hyphen = |byte: &u8| if byte.is_ascii_alphanumeric() { *byte } else { b'-' };
    name.len() == other.len() && name.iter().map(as_hyphen).eq(other.iter().map(as_hyphen))
}

/// Removes the fields that an application may take for the one of this name (in lower case), which itself stays.
pub(super) fn remove_other_spellings(request: &mut RequestHeader, name: &str) {
    let is_other = |key: &&HeaderName| key.as_str() != name && reads_as(key.as_str().as_bytes(), name.as_bytes());
    while let Some(other) = request.headers.keys().find(is_other).cloned() {
        request.remove_header(&other);
    }
}

/// Fields of a request that have several lines, each as the one line that plugins are shown (RFC 9110 section 5.3): made when
/// the first of them is asked for, and kept for all plugins and phases. On its way the request keeps its lines, since gRPC
/// does not take one for several.
#[derive(Default)]
pub struct Lines(OnceLock<Vec<(HeaderName, Option<HeaderValue>)>>);

impl Lines {
    /// Of the request that was asked about before: where its fields change, others begin.
    pub(super) fn one<'a>(&'a self, request: &'a RequestHeader, name: &str) -> Option<&'a [u8]> {
        let headers = &request.headers;
        // As in nearly all requests.
        if headers.len() == headers.keys_len() {
            return headers.get(name).map(HeaderValue::as_bytes);
        }
        let mut lines = headers.get_all(name).iter();
        let first = lines.next()?;
        if lines.next().is_none() {
            return Some(first.as_bytes());
        }
        let made = self.0.get_or_init(|| joined(headers));
        made.iter().find(|(of, _)| of == name)?.1.as_ref().map(HeaderValue::as_bytes)
    }
}

fn joined(headers: &HeaderMap) -> Vec<(HeaderName, Option<HeaderValue>)> {
    let several = |name: &&HeaderName| headers.get_all(*name).iter().nth(1).is_some();
    headers.keys().filter(several).map(|name| (name.clone(), one_line(headers, name, b", "))).collect()
}

/// Parts of a value make a value, so there is one.
fn one_line(headers: &HeaderMap, name: &HeaderName, between: &[u8]) -> Option<HeaderValue> {
    let lines = headers.get_all(name).iter().map(|line| line.as_bytes().trim_ascii());
    let lines: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
    HeaderValue::from_bytes(&lines.join(between)).ok()
}

/// Over HTTP/2 a browser sends each cookie by itself (RFC 9113 section 8.2.3).
fn join_cookies(request: &mut RequestHeader) {
    let count = request.headers.get_all(COOKIE).iter().count();
    if count < 2 {
        return;
    }
    match one_line(&request.headers, &COOKIE, b"; ") {
        Some(cookies) => drop(request.insert_header(COOKIE, cookies)),
        None => drop(request.remove_header(&COOKIE)),
    }
    if count > LINES_LEFT_BEHIND {
        *request = request.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::test_limits;

    fn request(fields: &[(&str, &str)]) -> RequestHeader {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for (name, value) in fields {
            request.append_header((*name).to_owned(), *value).unwrap();
        }
        request
    }

    /// Names and values of what is left, in the order of the names.
    fn admitted(fields: &[(&str, &str)]) -> Result<Vec<(String, String)>, Unfit> {
        let mut request = request(fields);
        admit(&mut request, &test_limits())?;
        let left = request.headers.iter();
        let mut left: Vec<_> =
            left.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
        left.sort();
        Ok(left)
    }

    fn names(fields: &[(&str, &str)]) -> Vec<String> {
        admitted(fields).unwrap().into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn what_connection_names_ends_here_and_so_does_its_naming() {
        let more = [("x-hop", "1"), ("x-user", "1"), ("content-length", "2"), ("te", "trailers"), ("x-stays", "1")];
        let with = |connection: &'static str| [&[("connection", connection)], &more[..]].concat();
        assert_eq!(names(&with("keep-alive, X-Hop ,,x-user")), ["content-length", "te", "x-stays"]);
        assert_eq!(names(&with("content-length, x-hop, te, expect")), ["content-length", "te", "x-stays", "x-user"]);
        for plain in ["close", "Keep-Alive, TE", "Upgrade", ""] {
            assert_eq!(names(&with(plain)), ["connection", "content-length", "te", "x-hop", "x-stays", "x-user"]);
        }
        let switches = [("connection", "Upgrade"), ("connection", "x-hop"), ("upgrade", "websocket"), ("x-hop", "1")];
        assert_eq!(names(&switches), ["upgrade"]);
    }

    #[test]
    fn connection_names_what_it_may() {
        let nine = (0..9).map(|n| format!("x-{n}")).collect::<Vec<_>>().join(",");
        for (connection, accepted) in [
            ("Host", false),
            ("close, X-Forwarded-For", false),
            ("x-forwarded-host", false),
            ("x-forwarded-proto", false),
            (":authority", false),
            ("\"x-user\"", false),
            ("x user", false),
            ("x-forwarded-user, forwarded", true),
            (&nine, true),
            (&format!("{nine}, close"), true),
            (&format!("{nine}, x-9"), false),
        ] {
            let admitted = admitted(&[("connection", connection)]);
            let refused = matches!(admitted, Err(Unfit::Connection(_)));
            assert_eq!((admitted.is_ok(), refused), (accepted, !accepted), "{connection}");
        }
    }

    #[test]
    fn nothing_a_visitor_claims_is_left() {
        let more = ["for", "proto", "host", "port", "user", "ssl", "prefix", "scheme", "protocol", "client-cert"];
        let more = more.map(|what| format!("{FORWARDED_BY}{what}"));
        let claims: Vec<_> = CLAIMS.iter().map(|name| (*name).to_owned()).chain(more).collect();
        let spellings = |name: &String| [name.clone(), name.replace('-', "_"), name.replace('-', ".")];
        for name in claims.iter().flat_map(spellings) {
            assert_eq!(names(&[(&name, "6.6.6.6"), (&name, "7.7.7.7"), ("a", "b")]), ["a"], "{name}");
        }
    }

    #[test]
    fn what_is_no_claim_stays() {
        for name in
            ["cookie", "x-forward", "x-real-ip-2", "from", "x-request-id", "x-original-urls", "te", "x", "proxy2"]
        {
            assert!(!is_claim(name), "{name}");
        }
    }

    #[test]
    fn cookies_are_one_field_and_plugins_are_shown_one_line_of_each() {
        let fields = [
            ("cookie", "a=1"),
            ("accept", "text/html"),
            ("cookie", " b=2 "),
            ("accept", ""),
            ("accept", "*/*"),
            ("cookie", ""),
            ("cookie", "c=3;d=4"),
            ("x-once", "1, 2"),
        ];
        let mut request = request(&fields);
        admit(&mut request, &test_limits()).unwrap();
        let values = |request: &RequestHeader, name: &str| {
            request.headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(values(&request, "cookie"), ["a=1; b=2; c=3;d=4"]);
        assert_eq!(values(&request, "accept"), ["text/html", "", "*/*"]);
        let shown = Lines::default();
        assert_eq!(shown.one(&request, "x-once"), Some(&b"1, 2"[..]));
        assert_eq!((shown.one(&request, "cookie"), shown.one(&request, "x")), (Some(&b"a=1; b=2; c=3;d=4"[..]), None));
        assert!(shown.0.get().is_none(), "nobody has asked for one that has several lines");
        assert_eq!(shown.one(&request, "Accept"), Some(&b"text/html, */*"[..]));
        assert_eq!(shown.0.get().map(Vec::len), Some(1));
        let at = shown.one(&request, "accept").map(<[u8]>::as_ptr);
        assert_eq!(shown.one(&request, "accept").map(<[u8]>::as_ptr), at, "it is made once");
    }

    #[test]
    fn cookies_count_as_one_field() {
        let most = test_limits().headers_max;
        let lines = |name: &'static str, count: usize| vec![(name, "a=1"); count];
        assert_eq!(names(&lines("cookie", most + COOKIES_MAX)), ["cookie"]);
        assert_eq!(
            admitted(&lines("cookie", most + COOKIES_MAX + 1)),
            Err(Unfit::Headers(most + COOKIES_MAX + 1, most + COOKIES_MAX))
        );
        assert_eq!(admitted(&lines("accept", most + 1)), Err(Unfit::Headers(most + 1, most)));
    }

    #[test]
    fn the_same_name_in_another_spelling_goes() {
        for (name, left) in [
            ("x-user", ["x-user", "x-user-2", "xuser"].as_slice()),
            ("x_user", &["x-user-2", "x_user", "xuser"]),
            ("x-other", &["x-user", "x-user-2", "x.user", "x_user", "xuser"]),
        ] {
            let mut request =
                request(&["x-user", "X_User", "x.user", "xuser", "x-user-2"].map(|name| (name, "forged")));
            remove_other_spellings(&mut request, name);
            let mut names: Vec<_> = request.headers.keys().map(HeaderName::as_str).collect();
            names.sort_unstable();
            assert_eq!(names, left, "{name}");
        }
    }
}
