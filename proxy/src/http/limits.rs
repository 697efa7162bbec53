//! Limits on one request, after its header has been parsed.

use http::header::CONTENT_LENGTH;
use http::request::Parts;

use crate::guard::Limits;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum TooMuch {
    #[error("the request's path and query are {0} bytes, at most {1} are accepted")]
    Uri(usize, usize),
    #[error("the request has {0} header fields, at most {1} are accepted")]
    Headers(usize, usize),
    #[error("the request's header fields are {0} bytes, at most {1} are accepted")]
    HeaderBytes(usize, usize),
    #[error("the request's body is {0} bytes, at most {1} are accepted")]
    Body(u64, u64),
}

impl TooMuch {
    pub(super) fn status(self) -> u16 {
        match self {
            Self::Uri(..) => 414,
            Self::Headers(..) | Self::HeaderBytes(..) => 431,
            Self::Body(..) => 413,
        }
    }

    /// Label of the counter.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Uri(..) => "uri_too_long",
            Self::Headers(..) => "too_many_headers",
            Self::HeaderBytes(..) => "headers_too_large",
            Self::Body(..) => "body_too_large",
        }
    }
}

pub(super) fn check(request: &Parts, limits: &Limits) -> Result<(), TooMuch> {
    let uri = request.uri.path_and_query().map_or(0, |target| target.as_str().len());
    if uri > limits.uri_bytes_max {
        return Err(TooMuch::Uri(uri, limits.uri_bytes_max));
    }
    if request.headers.len() > limits.headers_max {
        return Err(TooMuch::Headers(request.headers.len(), limits.headers_max));
    }
    // As RFC 9113 section 6.5.2 counts them, for both protocols.
    let bytes = request.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
    if bytes > limits.header_bytes_max {
        return Err(TooMuch::HeaderBytes(bytes, limits.header_bytes_max));
    }
    let announced = request.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    announced.map_or(Ok(()), |announced| check_body(announced, limits))
}

pub(super) fn check_body(bytes: u64, limits: &Limits) -> Result<(), TooMuch> {
    if bytes > limits.body_bytes_max { Err(TooMuch::Body(bytes, limits.body_bytes_max)) } else { Ok(()) }
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
        let check = |uri: &str, headers: &[(&str, &str)]| check(&request(uri, headers), &limits());
        assert_eq!(check("/456789?ab", &[]), Ok(()));
        assert_eq!(check("/456789?abc", &[]), Err(TooMuch::Uri(11, 10)));
        assert_eq!(check("/", &[("a", "1"), ("b", "2")]), Ok(()));
        assert_eq!(check("/", &[("a", "1"), ("b", "2"), ("c", "3")]), Err(TooMuch::Headers(3, 2)));
        assert_eq!(check("/", &[("a", &"x".repeat(67))]), Ok(()));
        assert_eq!(check("/", &[("a", &"x".repeat(68))]), Err(TooMuch::HeaderBytes(101, 100)));
        assert_eq!(check("/", &[("content-length", "1000")]), Ok(()));
        assert_eq!(check("/", &[("content-length", "1001")]), Err(TooMuch::Body(1001, 1000)));
        assert_eq!(
            (check_body(1000, &limits()), check_body(1001, &limits())),
            (Ok(()), Err(TooMuch::Body(1001, 1000)))
        );
    }
}
