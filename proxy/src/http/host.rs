//! Which host a request is for: checked strictly and once, before anything is chosen by it (RFC 9110 section 7.2,
//! RFC 9112 section 3.2, RFC 9113 section 8.3.1).

use contract::Hostname;
use http::header::HOST;
use http::request::Parts;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum HostError {
    #[error("the request names no host")]
    Missing,
    #[error("the request names {0} hosts, exactly one is accepted")]
    Repeated(usize),
    #[error("the request line and the Host header name different hosts")]
    Conflict,
    #[error("the host is malformed: {0}")]
    Malformed(String),
}

/// The one host that a request names, without its port. `named` is the authority that an HTTP/1 request line had.
pub(super) fn of(request: &Parts, named: Option<&str>) -> Result<Hostname, HostError> {
    let mut values = request.headers.get_all(HOST).iter();
    let header = values.next();
    let more = values.count();
    if more > 0 {
        return Err(HostError::Repeated(more + 1));
    }
    let header = match header {
        Some(value) => Some(value.to_str().map_err(|_| HostError::Malformed("not ASCII".into()))?),
        None => None,
    };
    // RFC 9112 section 3.2: a request line does not stand for the Host header that is missing.
    if named.is_some() && header.is_none() {
        return Err(HostError::Missing);
    }
    let authority = request.uri.authority().map(http::uri::Authority::as_str).or(named);
    match (authority, header) {
        (None, None) => Err(HostError::Missing),
        (Some(one), None) | (None, Some(one)) => parse(one),
        (Some(authority), Some(header)) => {
            let named = parse(authority)?;
            if named == parse(header)? { Ok(named) } else { Err(HostError::Conflict) }
        }
    }
}

fn parse(authority: &str) -> Result<Hostname, HostError> {
    let malformed = |why: &str| HostError::Malformed(why.to_owned());
    if authority.is_empty() {
        return Err(HostError::Missing);
    }
    let host = match authority.rsplit_once(':') {
        None => authority,
        Some((host, port)) => {
            let digits = !port.is_empty() && port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit());
            if !digits || port.parse::<u16>().is_err() {
                return Err(malformed("the port is not a number from 0 to 65535"));
            }
            host
        }
    };
    Hostname::from_wire(host).map_err(|error| HostError::Malformed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uri: &str, hosts: &[&[u8]]) -> Parts {
        let mut builder = http::Request::builder().uri(uri);
        for host in hosts {
            builder = builder.header(HOST, http::HeaderValue::from_bytes(host).unwrap());
        }
        builder.body(()).unwrap().into_parts().0
    }

    fn host(uri: &str, hosts: &[&[u8]]) -> Result<String, HostError> {
        of(&request(uri, hosts), None).map(|host| host.to_string())
    }

    #[test]
    fn a_url_in_the_request_line_must_agree_with_the_host_header() {
        let host = |named, hosts: &[&[u8]]| of(&request("/", hosts), Some(named)).map(|host| host.to_string());
        assert_eq!(host("A.example:443", &[b"a.example"]), Ok("a.example".into()));
        assert_eq!(host("b.example", &[b"a.example"]), Err(HostError::Conflict));
        assert_eq!(host("a.example", &[]), Err(HostError::Missing));
    }

    #[test]
    fn accepts_one_host_however_it_is_named() {
        assert_eq!(host("/", &[b"a.example"]), Ok("a.example".into()));
        assert_eq!(host("/", &[b"A.Example.:443"]), Ok("a.example".into()));
        assert_eq!(host("https://a.example/x", &[]), Ok("a.example".into()));
        assert_eq!(host("https://a.example/x", &[b"a.example:443"]), Ok("a.example".into()));
    }

    #[test]
    fn refuses_none_many_and_conflicting() {
        assert_eq!(host("/", &[]), Err(HostError::Missing));
        assert_eq!(host("/", &[b""]), Err(HostError::Missing));
        assert_eq!(host("/", &[b"a.example", b"a.example"]), Err(HostError::Repeated(2)));
        assert_eq!(host("https://a.example/", &[b"b.example"]), Err(HostError::Conflict));
    }

    #[test]
    fn refuses_what_another_reader_might_take_for_another_host() {
        for text in [
            &b"a.example, evil.example"[..],
            b"a.example/evil",
            b"a.example:80:evil",
            b"a.example:",
            b"a.example:99999",
            b"a.example:8x",
            b"user@a.example",
            b"a.example#",
            b"a.example?x",
            b"a .example",
            b"a_b.example",
            b"127.0.0.1",
            b"[::1]",
            b"[::1]:443",
            b"localhost",
            b"b\xc3\xbccher.example",
            b"a.example..",
            b".a.example",
        ] {
            assert!(matches!(host("/", &[text]), Err(HostError::Malformed(_))), "{}", String::from_utf8_lossy(text));
        }
    }
}
