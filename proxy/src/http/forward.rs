//! What the upstream is told of the visitor. Whatever the visitor said of itself is removed first: nothing that it can
//! send decides what the upstream believes. And what of an answer was for us only.

use std::net::IpAddr;

use contract::Hostname;
use http::header::{CONNECTION, CONTENT_LENGTH, FORWARDED, HOST, PROXY_AUTHENTICATE, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::PathAndQuery;
use http::{HeaderName, StatusCode};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};

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

/// Whether a field says what only a proxy may say. CGI, WSGI and PHP make the same variable of `X-Real-IP`, `X_Real_IP`
/// and `X.Real.IP`, so any other sign is read as a hyphen. `name` is in lower case.
fn is_claim(name: &str) -> bool {
    let name = name.as_bytes();
    // Nearly all names end here.
    if !matches!(name.first(), Some(b'c' | b'f' | b'p' | b't' | b'x')) {
        return false;
    }
    let reads_as = |start: &[u8], claim: &str| {
        let as_hyphen = |byte: &u8| if byte.is_ascii_alphanumeric() { *byte } else { b'-' };
        start.iter().map(as_hyphen).eq(claim.bytes())
    };
    let listed = |claim: &&str| claim.len() == name.len() && reads_as(name, claim);
    name.get(..FORWARDED_BY.len()).is_some_and(|start| reads_as(start, FORWARDED_BY)) || CLAIMS.iter().any(listed)
}

/// `request` is what Pingora is about to send, hop-by-hop fields and those that `Connection` names removed already: our
/// own come after, so a visitor can't have them removed.
pub(super) fn rewrite(request: &mut RequestHeader, client: IpAddr, host: &Hostname, secure: bool) -> Result<()> {
    leave_path(request, host)?;
    let claims: Vec<_> = request.headers.keys().filter(|name| is_claim(name.as_str())).cloned().collect();
    for claim in &claims {
        request.remove_header(claim);
    }
    let proto = if secure { "https" } else { "http" };
    let client = client.to_canonical();
    request.insert_header("x-forwarded-for", client.to_string())?;
    request.insert_header("x-forwarded-proto", proto)?;
    request.insert_header("x-forwarded-host", host.as_str())?;
    request.insert_header(FORWARDED, forwarded(client, host, proto))
}

/// Removes the fields of an answer that are about the connection to the upstream (RFC 9110 section 7.6.1), before any of
/// ours are added: an upstream can't name those. Where the body ends stays said.
pub(super) fn end_hop(head: &mut ResponseHeader) {
    let switches = head.status == StatusCode::SWITCHING_PROTOCOLS;
    let named =
        head.headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
    let named: Vec<_> = named.filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok()).collect();
    let kept = |name: &HeaderName| *name == CONTENT_LENGTH || *name == TRANSFER_ENCODING || *name == UPGRADE;
    for name in named.iter().filter(|name| !kept(name)) {
        head.remove_header(name);
    }
    for name in ["keep-alive", "proxy-connection", PROXY_AUTHENTICATE.as_str()] {
        head.remove_header(name);
    }
    if !switches {
        head.remove_header(&CONNECTION);
    }
    // With 426 it names the protocol that the server insists on.
    if !switches && head.status != StatusCode::UPGRADE_REQUIRED {
        head.remove_header(&UPGRADE);
    }
}

/// `TE: trailers` is hop-by-hop and removed already; a hop that carries trailers may say so again (RFC 9110 section 10.1.4),
/// and gRPC asks for it.
pub(super) fn keep_trailers(visitor: &RequestHeader, request: &mut RequestHeader) -> Result<()> {
    let words = visitor.headers.get_all(TE).iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
    let asks = words.map(str::trim).any(|word| word.eq_ignore_ascii_case("trailers"));
    if asks { request.insert_header(TE, "trailers") } else { Ok(()) }
}

/// HTTP/2 names the host beside the path; a server is asked for the path (RFC 9112 section 3.2.1).
fn leave_path(request: &mut RequestHeader, host: &Hostname) -> Result<()> {
    if request.uri.authority().is_none() {
        return Ok(());
    }
    let path = request.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    request.set_uri(path.into());
    if request.headers.contains_key(HOST) { Ok(()) } else { request.insert_header(HOST, host.as_str()) }
}

/// RFC 7239 section 4.
fn forwarded(client: IpAddr, host: &Hostname, proto: &str) -> String {
    match client {
        IpAddr::V4(ip) => format!("for={ip};host={host};proto={proto}"),
        IpAddr::V6(ip) => format!("for=\"[{ip}]\";host={host};proto={proto}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(headers: &[(&'static str, &str)]) -> RequestHeader {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for (name, value) in headers {
            request.append_header(*name, *value).unwrap();
        }
        let host = Hostname::parse("a.example").unwrap();
        rewrite(&mut request, "192.0.2.7".parse().unwrap(), &host, true).unwrap();
        request
    }

    fn values(request: &RequestHeader, name: &str) -> Vec<String> {
        request.headers.get_all(name).iter().map(|v| v.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn an_answer_loses_what_was_for_us_only() {
        let ended = |status: u16| {
            let mut head = ResponseHeader::build(status, None).unwrap();
            for (name, value) in [
                ("connection", "Keep-Alive, x-hop , upgrade"),
                ("connection", "content-length, \u{e9}"),
                ("x-hop", "1"),
                ("keep-alive", "timeout=5"),
                ("proxy-authenticate", "Basic"),
                ("upgrade", "websocket"),
                ("content-length", "2"),
                ("x-stays", "1"),
            ] {
                head.append_header(name, value).unwrap();
            }
            end_hop(&mut head);
            let mut names: Vec<_> = head.headers.keys().map(|name| name.as_str().to_owned()).collect();
            names.sort();
            names
        };
        assert_eq!(ended(200), ["content-length", "x-stays"]);
        assert_eq!(ended(426), ["content-length", "upgrade", "x-stays"]);
        assert_eq!(ended(101), ["connection", "content-length", "upgrade", "x-stays"]);
    }

    #[test]
    fn asks_for_trailers_again_where_the_visitor_did() {
        for (te, expected) in
            [(&["trailers"][..], true), (&["gzip", "deflate, Trailers"], true), (&["gzip"], false), (&[], false)]
        {
            let mut visitor = RequestHeader::build("POST", b"/", None).unwrap();
            for value in te {
                visitor.append_header(TE, *value).unwrap();
            }
            let mut request = RequestHeader::build("POST", b"/", None).unwrap();
            keep_trailers(&visitor, &mut request).unwrap();
            assert_eq!(values(&request, "te"), if expected { vec!["trailers"] } else { vec![] }, "{te:?}");
        }
    }

    #[test]
    fn says_who_the_visitor_is() {
        let request = rewritten(&[]);
        assert_eq!(values(&request, "x-forwarded-for"), ["192.0.2.7"]);
        assert_eq!(values(&request, "x-forwarded-proto"), ["https"]);
        assert_eq!(values(&request, "x-forwarded-host"), ["a.example"]);
        assert_eq!(values(&request, "forwarded"), ["for=192.0.2.7;host=a.example;proto=https"]);
        let host = Hostname::parse("a.example").unwrap();
        assert_eq!(
            forwarded("2001:db8::7".parse().unwrap(), &host, "https"),
            "for=\"[2001:db8::7]\";host=a.example;proto=https"
        );
    }

    #[test]
    fn nothing_the_visitor_claims_gets_through() {
        let more = ["for", "proto", "host", "port", "server", "ssl", "prefix", "scheme", "protocol", "client-cert"];
        let more = more.map(|what| format!("{FORWARDED_BY}{what}"));
        let claims: Vec<_> = CLAIMS.iter().map(|name| (*name).to_owned()).chain(more).collect();
        let spellings = |name: &String| [name.clone(), name.replace('-', "_"), name.replace('-', ".")];
        for name in claims.iter().flat_map(spellings).chain(["x_forwarded-for".to_owned()]) {
            let mut request = RequestHeader::build("GET", b"/", None).unwrap();
            for value in ["6.6.6.6", "7.7.7.7"] {
                request.append_header(name.clone(), value).unwrap();
            }
            rewrite(&mut request, "192.0.2.7".parse().unwrap(), &Hostname::parse("a.example").unwrap(), true).unwrap();
            let mut names: Vec<_> = request.headers.keys().map(|name| name.as_str().to_owned()).collect();
            names.sort();
            assert_eq!(names, ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"], "{name}");
            assert_eq!(values(&request, "x-forwarded-for"), ["192.0.2.7"], "{name}");
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
    fn the_server_is_asked_for_the_path_and_not_for_the_url() {
        let host = Hostname::parse("a.example").unwrap();
        for (uri, asked) in
            [("https://a.example/x?y=1", "/x?y=1"), ("https://a.example", "/"), ("/x", "/x"), ("*", "*")]
        {
            let mut request = RequestHeader::build("GET", b"/", None).unwrap();
            request.set_uri(uri.parse().unwrap());
            rewrite(&mut request, "192.0.2.7".parse().unwrap(), &host, true).unwrap();
            assert_eq!(request.uri.to_string(), asked);
            let named = request.headers.get(HOST).map(|value| value.to_str().unwrap());
            assert_eq!(named, uri.starts_with("https").then_some("a.example"), "{uri}");
        }
    }
}
