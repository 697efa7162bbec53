//! What a guest asks, before it leaves, and what came back, before it is told.

use super::{CalloutReply, CalloutRequest, NoReply, REPLY_BODY_BYTES_MAX};
use crate::wasm::guest::callout as wit;
use crate::wasm::types::{Fault, Header};
use crate::wasm::verify::{self, shown};

const METHOD_BYTES_MAX: usize = 32;
const PATH_BYTES_MAX: usize = 8 << 10;
const HEADERS_MAX: usize = 64;
const HEADER_BYTES_MAX: usize = 32 << 10;
const BODY_BYTES_MAX: usize = 64 << 10;
const REPLY_HEADER_BYTES_MAX: usize = 64 << 10;
/// The host's own, beside those that no plugin may set.
const OURS: [&str; 3] = ["cdn-loop", "expect", "via"];

pub(super) fn request(request: wit::Request) -> Result<CalloutRequest, wit::Error> {
    let wit::Request { method, path, headers, body, .. } = request;
    method_is_legal(&method)?;
    path_is_legal(&path)?;
    at_most("header fields", headers.len(), HEADERS_MAX)?;
    let headers = headers.into_iter().map(header).collect::<Result<Vec<_>, _>>()?;
    at_most("bytes of header fields", bytes(&headers), HEADER_BYTES_MAX)?;
    at_most("bytes of body", body.len(), BODY_BYTES_MAX)?;
    Ok(CalloutRequest { method, path, headers, body, client: None })
}

fn illegal<T>(says: impl Into<String>) -> Result<T, wit::Error> {
    Err(wit::Error::Illegal(says.into()))
}

fn at_most(what: &str, given: usize, most: usize) -> Result<(), wit::Error> {
    if given > most { illegal(format!("{given} {what}, at most {most} are accepted")) } else { Ok(()) }
}

fn method_is_legal(method: &str) -> Result<(), wit::Error> {
    let legal = method.len() <= METHOD_BYTES_MAX && verify::is_token(method) && !method.eq_ignore_ascii_case("connect");
    if legal { Ok(()) } else { illegal(format!("`{}` is not a method that a callout can have", shown(method, 40))) }
}

/// An absolute path: with `//` it could be read as a host.
fn path_is_legal(path: &str) -> Result<(), wit::Error> {
    at_most("bytes of path", path.len(), PATH_BYTES_MAX)?;
    let legal = |byte: u8| byte.is_ascii_graphic() && !b"\"#<>\\^`{|}".contains(&byte);
    if path.starts_with('/') && !path.starts_with("//") && path.bytes().all(legal) {
        return Ok(());
    }
    illegal(format!("`{}` is not an absolute path, percent-encoded", shown(path, 200)))
}

fn header(header: wit::Header) -> Result<Header, wit::Error> {
    let wit::Header { name, value } = header;
    let header = verify::header(name, value).map_err(|fault| match fault {
        Fault::Output(says) => wit::Error::Illegal(says),
        other => wit::Error::Illegal(other.to_string()),
    })?;
    match OURS.iter().find(|ours| **ours == header.name) {
        Some(ours) => illegal(format!("`{ours}` is the host's to set")),
        None => Ok(header),
    }
}

pub(super) fn reply(reply: Result<CalloutReply, NoReply>) -> Result<wit::Response, wit::Error> {
    let CalloutReply { status, mut headers, body } = reply.map_err(|why| match why {
        NoReply::TimedOut => wit::Error::TimedOut,
        NoReply::Unreachable => wit::Error::Unreachable,
        NoReply::Broken => wit::Error::Broken,
        NoReply::TooLarge => wit::Error::TooLarge,
    })?;
    let named: Vec<String> = headers.iter().filter(|header| header.name == "connection").flat_map(listed).collect();
    headers.retain(|header| !verify::is_of_connection(&header.name) && !named.contains(&header.name));
    if headers.len() > HEADERS_MAX || bytes(&headers) > REPLY_HEADER_BYTES_MAX || body.len() > REPLY_BODY_BYTES_MAX {
        return Err(wit::Error::TooLarge);
    }
    let headers = headers.into_iter().map(|Header { name, value }| wit::Header { name, value }).collect();
    Ok(wit::Response { status, headers, body })
}

/// What `Connection` names is of one connection too (RFC 9110 section 7.6.1).
fn listed(connection: &Header) -> Vec<String> {
    let names = connection.value.split(|byte| *byte == b',');
    names.map(|name| String::from_utf8_lossy(name.trim_ascii()).to_ascii_lowercase()).collect()
}

fn bytes(headers: &[Header]) -> usize {
    headers.iter().map(|header| header.name.len() + header.value.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> wit::Request {
        let (upstream, method, path) = ("auth".to_owned(), "GET".to_owned(), "/verify?u=%2f".to_owned());
        wit::Request { upstream, method, path, headers: vec![], body: vec![], timeout_ms: 0 }
    }

    fn field(name: &str, value: &[u8]) -> wit::Header {
        wit::Header { name: name.to_owned(), value: value.to_vec() }
    }

    #[test]
    fn nothing_of_a_request_can_become_another_line_host_or_message() {
        assert!(request(asked()).is_ok());
        for method in ["", "G T", "GET\r\nx: y", "CONNECT", "connect", &"A".repeat(33)] {
            assert!(request(wit::Request { method: method.to_owned(), ..asked() }).is_err(), "{method:?}");
        }
        for path in ["", "verify", "//evil.example/", "http://evil.example/", "/a b", "/\r\nx: y", "/#f", "/é", "*"] {
            assert!(request(wit::Request { path: path.to_owned(), ..asked() }).is_err(), "{path:?}");
        }
        for (name, value) in [
            ("x a", &b"1"[..]),
            ("", b"1"),
            ("x-a", b"1\r\nx-b: 2"),
            ("x-a", b"\0"),
            ("Host", b"evil.example"),
            ("Content-Length", b"0"),
            ("Transfer-Encoding", b"chunked"),
            ("Connection", b"x-a"),
            ("Upgrade", b"h2c"),
            ("CDN-Loop", b"other"),
            ("Expect", b"100-continue"),
        ] {
            let refused = request(wit::Request { headers: vec![field(name, value)], ..asked() });
            assert!(matches!(refused, Err(wit::Error::Illegal(_))), "{name}: {refused:?}");
        }
    }

    #[test]
    fn each_limit_is_accepted_and_one_more_is_refused() {
        let of = |path: usize, headers: usize, header_bytes: usize, body: usize| wit::Request {
            path: format!("/{}", "x".repeat(path - 1)),
            headers: (0..headers)
                .map(|at| {
                    field(&format!("x{at:02}"), &vec![b'v'; if at == 0 { header_bytes - 3 * headers } else { 0 }])
                })
                .collect(),
            body: vec![0; body],
            ..asked()
        };
        assert!(request(of(PATH_BYTES_MAX, HEADERS_MAX, HEADER_BYTES_MAX, BODY_BYTES_MAX)).is_ok());
        for over in [
            of(PATH_BYTES_MAX + 1, 1, 10, 0),
            of(1, HEADERS_MAX + 1, 300, 0),
            of(1, HEADERS_MAX, HEADER_BYTES_MAX + 1, 0),
            of(1, 1, 10, BODY_BYTES_MAX + 1),
        ] {
            assert!(matches!(request(over), Err(wit::Error::Illegal(_))));
        }
    }

    #[test]
    fn what_is_of_the_connection_is_not_told_and_what_is_too_much_neither() {
        let header = |name: &str, value: &str| Header { name: name.to_owned(), value: value.as_bytes().to_vec() };
        let headers = vec![
            header("set-cookie", "a=1"),
            header("connection", "close, X-Hop"),
            header("x-hop", "1"),
            header("transfer-encoding", "chunked"),
            header("set-cookie", "b=2"),
        ];
        let told = reply(Ok(CalloutReply { status: 302, headers, body: vec![] })).unwrap();
        assert_eq!(told.headers.iter().map(|h| h.value.as_slice()).collect::<Vec<_>>(), [b"a=1", b"b=2"]);
        let of = |headers: usize, bytes: usize, body: usize| {
            let value = "v".repeat(bytes);
            let headers = (0..headers).map(|_| header("x", &value)).collect();
            reply(Ok(CalloutReply { status: 200, headers, body: vec![0; body] })).is_ok()
        };
        assert!(of(HEADERS_MAX, 1023, REPLY_BODY_BYTES_MAX));
        assert!(!of(HEADERS_MAX + 1, 1, 0) && !of(HEADERS_MAX, 1024, 0) && !of(1, 1, REPLY_BODY_BYTES_MAX + 1));
    }
}
