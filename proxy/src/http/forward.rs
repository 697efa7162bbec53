//! What the upstream is told of the visitor, and what of an answer was for us only.

use std::net::IpAddr;

use contract::Hostname;
use http::header::{CONNECTION, CONTENT_LENGTH, FORWARDED, HOST, PROXY_AUTHENTICATE, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, StatusCode};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};

use super::arrival;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// `request` is what Pingora is about to send. What a visitor claims of itself went when it arrived; these fields a plugin
/// can't set either.
pub(super) fn rewrite(request: &mut RequestHeader, client: IpAddr, host: &Hostname, secure: bool) -> Result<()> {
    leave_path(request, host)?;
    let proto = if secure { "https" } else { "http" };
    let client = client.to_canonical();
    say(request, X_FORWARDED_FOR, client.to_string())?;
    say(request, X_FORWARDED_PROTO, proto)?;
    say(request, X_FORWARDED_HOST, host.as_str())?;
    say(request, FORWARDED, forwarded(client, host, proto))
}

fn say(request: &mut RequestHeader, name: HeaderName, value: impl TryInto<HeaderValue>) -> Result<()> {
    arrival::remove_other_spellings(request, name.as_str());
    request.insert_header(name, value)
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
    fn a_plugin_says_more_of_the_visitor_but_not_otherwise() {
        let request = rewritten(&[
            ("x-forwarded-for", "6.6.6.6"),
            ("x_forwarded_for", "6.6.6.6"),
            ("forwarded", "for=6.6.6.6"),
            ("x-forwarded-user", "7"),
            ("x-real-ip", "192.0.2.8"),
        ]);
        assert_eq!(values(&request, "x-forwarded-for"), ["192.0.2.7"]);
        assert_eq!(values(&request, "forwarded"), ["for=192.0.2.7;host=a.example;proto=https"]);
        assert_eq!(
            (values(&request, "x-forwarded-user"), values(&request, "x-real-ip")),
            (vec!["7".to_owned()], vec!["192.0.2.8".to_owned()])
        );
        assert_eq!(values(&request, "x_forwarded_for"), Vec::<String>::new());
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
