//! Limits on one request, after its header has been parsed: how large it is, and that all agree on where it ends.

use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, PROXY_AUTHORIZATION, TRANSFER_ENCODING};
use http::request::Parts;

use crate::guard::Limits;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfit {
    #[error("the request's path and query are {0} bytes, at most {1} are accepted")]
    Uri(usize, usize),
    #[error("the request has {0} header fields, at most {1} are accepted")]
    Headers(usize, usize),
    #[error("the request's header fields are {0} bytes, at most {1} are accepted")]
    HeaderBytes(usize, usize),
    #[error("the request's body is {0} bytes, at most {1} are accepted")]
    Body(u64, u64),
    #[error("the headers of the requests open at once are more than the edge holds; let some finish")]
    OpenHeaders,
    #[error("the request's {0}, so where it ends is not certain")]
    Framing(&'static str),
    #[error("the request's `connection` field {0}")]
    Connection(&'static str),
    #[error("the request has `{0}` more than once, and which one is meant is not certain")]
    Repeated(&'static str),
}

impl Unfit {
    pub(super) fn status(self) -> u16 {
        match self {
            Self::Uri(..) => 414,
            Self::Headers(..) | Self::HeaderBytes(..) => 431,
            Self::Body(..) => 413,
            Self::OpenHeaders => 429,
            Self::Framing(_) | Self::Connection(_) | Self::Repeated(_) => 400,
        }
    }

    /// Label of the counter.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Uri(..) => "uri_too_long",
            Self::Headers(..) => "too_many_headers",
            Self::HeaderBytes(..) => "headers_too_large",
            Self::Body(..) => "body_too_large",
            Self::OpenHeaders => "open_headers",
            Self::Framing(_) => "bad_framing",
            Self::Connection(_) => "bad_connection",
            Self::Repeated(_) => "repeated_field",
        }
    }
}

/// A plugin may judge by one of two, and the upstream believe the other; a list of them means nothing (RFC 9110 section 5.3).
const ONCE: [HeaderName; 3] = [AUTHORIZATION, PROXY_AUTHORIZATION, CONTENT_TYPE];

/// `uri` is the length of the target as it came.
pub(super) fn check(uri: usize, request: &Parts, limits: &Limits) -> Result<(), Unfit> {
    if uri > limits.uri_bytes_max {
        return Err(Unfit::Uri(uri, limits.uri_bytes_max));
    }
    check_count(request.headers.len(), limits.headers_max)?;
    let bytes = header_bytes(request);
    if bytes > limits.header_bytes_max {
        return Err(Unfit::HeaderBytes(bytes, limits.header_bytes_max));
    }
    if let Some(name) = repeated(request) {
        return Err(Unfit::Repeated(name));
    }
    announced(request)?.map_or(Ok(()), |bytes| check_body(bytes, limits))
}

pub(super) fn check_count(fields: usize, most: usize) -> Result<(), Unfit> {
    if fields > most { Err(Unfit::Headers(fields, most)) } else { Ok(()) }
}

fn repeated(request: &Parts) -> Option<&'static str> {
    if request.headers.len() == request.headers.keys_len() {
        return None;
    }
    let repeated = |name: &&HeaderName| request.headers.get_all(*name).iter().nth(1).is_some();
    ONCE.iter().find(repeated).map(HeaderName::as_str)
}

/// The bytes of body that the header announces, if it can be read in one way only. The HTTP library accepts more, and
/// passes it on as it came: an upstream that reads it otherwise takes a part of the body for a request (RFC 9112 sections
/// 6.1 to 6.3).
fn announced(request: &Parts) -> Result<Option<u64>, Unfit> {
    let underscored = |name: &http::HeaderName| matches!(name.as_str(), "content_length" | "transfer_encoding");
    if request.headers.keys().any(underscored) {
        return Err(Unfit::Framing("field name has an underscore that some servers read as a hyphen"));
    }
    let mut codings = request.headers.get_all(TRANSFER_ENCODING).iter();
    let chunked = codings.next();
    if chunked.is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked")) || codings.next().is_some() {
        return Err(Unfit::Framing("Transfer-Encoding is not `chunked` alone"));
    }
    let mut lengths = request.headers.get_all(CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else { return Ok(None) };
    if lengths.next().is_some() || chunked.is_some() {
        return Err(Unfit::Framing("length is said more than once"));
    }
    let digits = length.to_str().ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    let bytes = digits.and_then(|text| text.parse().ok());
    bytes.map(Some).ok_or(Unfit::Framing("Content-Length is not a number"))
}

/// As RFC 9113 section 6.5.2 counts them, for both protocols.
pub(super) fn header_bytes(request: &Parts) -> usize {
    request.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum()
}

/// `held` by the headers of all open requests: of this connection, of the process.
pub(super) fn check_held(held: (usize, usize), limits: &Limits) -> Result<(), Unfit> {
    if held.0 > limits.open_header_bytes_max || held.1 > limits.open_header_bytes_total_max {
        return Err(Unfit::OpenHeaders);
    }
    Ok(())
}

pub(super) fn check_body(bytes: u64, limits: &Limits) -> Result<(), Unfit> {
    if bytes > limits.body_bytes_max { Err(Unfit::Body(bytes, limits.body_bytes_max)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut builder = http::Request::builder().uri(uri);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap().into_parts().0
    }

    fn limits() -> Limits {
        Limits {
            uri_bytes_max: 10,
            headers_max: 2,
            header_bytes_max: 100,
            body_bytes_max: 1000,
            ..crate::guard::test_limits()
        }
    }

    #[test]
    fn each_limit_is_accepted_and_one_more_is_refused() {
        let check = |uri: &str, headers: &[(&str, &str)]| check(uri.len(), &request(uri, headers), &limits());
        assert_eq!(check("/456789?ab", &[]), Ok(()));
        assert_eq!(check("/456789?abc", &[]), Err(Unfit::Uri(11, 10)));
        assert_eq!(check("/", &[("a", "1"), ("b", "2")]), Ok(()));
        assert_eq!(check("/", &[("a", "1"), ("b", "2"), ("c", "3")]), Err(Unfit::Headers(3, 2)));
        assert_eq!(check("/", &[("a", &"x".repeat(67))]), Ok(()));
        assert_eq!(check("/", &[("a", &"x".repeat(68))]), Err(Unfit::HeaderBytes(101, 100)));
        assert_eq!(check("/", &[("content-length", "1000")]), Ok(()));
        assert_eq!(check("/", &[("content-length", "1001")]), Err(Unfit::Body(1001, 1000)));
        let limits_held = Limits { open_header_bytes_max: 50, open_header_bytes_total_max: 70, ..limits() };
        let held = |of_connection, of_process| check_held((of_connection, of_process), &limits_held);
        assert_eq!(
            (held(50, 70), held(51, 51), held(1, 71)),
            (Ok(()), Err(Unfit::OpenHeaders), Err(Unfit::OpenHeaders))
        );
        assert_eq!((check_body(1000, &limits()), check_body(1001, &limits())), (Ok(()), Err(Unfit::Body(1001, 1000))));
    }

    #[test]
    fn refuses_two_of_what_may_come_once() {
        let check = |headers: &[(&str, &str)]| check(1, &request("/", headers), &crate::guard::test_limits());
        for name in ["authorization", "proxy-authorization", "content-type"] {
            assert_eq!(check(&[(name, "a"), ("accept", "a/b"), ("accept", "c/d")]), Ok(()));
            assert_eq!(check(&[(name, "a"), ("x", "y"), (name, "a")]), Err(Unfit::Repeated(name)));
        }
    }

    #[test]
    fn refuses_a_body_whose_end_is_not_certain() {
        let check = |headers: &[(&str, &str)]| check(1, &request("/", headers), &crate::guard::test_limits());
        assert_eq!(check(&[("transfer-encoding", "Chunked")]), Ok(()));
        for headers in [
            &[("content-length", "5"), ("content-length", "5")][..],
            &[("content-length", "5, 5")],
            &[("content-length", "+5")],
            &[("content-length", "")],
            &[("content-length", "99999999999999999999")],
            &[("content_length", "5")],
            &[("transfer_encoding", "chunked")],
            &[("content-length", "5"), ("transfer-encoding", "chunked")],
            &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
            &[("transfer-encoding", "identity, chunked")],
            &[("transfer-encoding", "xchunked")],
        ] {
            assert!(matches!(check(headers), Err(Unfit::Framing(_))), "{headers:?}");
        }
    }
}
