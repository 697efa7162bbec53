//! What a request line asks for, in one form from here on (RFC 9112 section 3.2). The HTTP library keeps any other form
//! aside and sends it on as it came, while all who choose by the path see `/`.

use http::Method;
use pingora::http::RequestHeader;
use pingora::http::authority::{RawTargetAuthority, raw_target_authority};

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadTarget {
    #[error("the request asks for neither a path, which begins with `/`, nor an http or https URL")]
    Form,
    #[error("`*` is asked for, which only OPTIONS may")]
    Asterisk,
}

/// Leaves a path and a query, or the `*` of OPTIONS. Returns the authority of a URL, for the Host header to agree with.
pub(super) fn to_origin_form(request: &mut RequestHeader) -> Result<Option<String>, BadTarget> {
    let target = request.raw_path();
    if target.first() == Some(&b'/') {
        return Ok(None);
    }
    let options = request.method == Method::OPTIONS;
    if target == b"*" {
        return if options { Ok(None) } else { Err(BadTarget::Asterisk) };
    }
    let RawTargetAuthority::Absolute { scheme, authority, path_and_query } = raw_target_authority(target) else {
        return Err(BadTarget::Form);
    };
    if !scheme.eq_ignore_ascii_case(b"http") && !scheme.eq_ignore_ascii_case(b"https") {
        return Err(BadTarget::Form);
    }
    let authority = String::from_utf8_lossy(authority).into_owned();
    let path = match path_and_query {
        // RFC 9112 section 3.2.4: the server as a whole.
        [] if options => b"*".to_vec(),
        [b'/', ..] => path_and_query.to_vec(),
        query => [b"/", query].concat(),
    };
    request.set_raw_path(&path).map_err(|_| BadTarget::Form)?;
    Ok(Some(authority))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: &str, target: &[u8]) -> (Result<Option<String>, BadTarget>, RequestHeader) {
        let mut request = RequestHeader::build(method, target, None).unwrap();
        (to_origin_form(&mut request), request)
    }

    #[test]
    fn a_url_becomes_what_the_plugins_and_the_upstream_both_see() {
        for (method, target, authority, becomes) in [
            ("GET", &b"/x?y=1"[..], None, &b"/x?y=1"[..]),
            ("GET", b"//x", None, b"//x"),
            ("GET", b"/\xff", None, b"/\xff"),
            ("OPTIONS", b"*", None, b"*"),
            ("GET", b"https://a.example/admin/x?y=1", Some("a.example"), b"/admin/x?y=1"),
            ("GET", b"HTTP://a.example:80/x", Some("a.example:80"), b"/x"),
            ("GET", b"https://a.example", Some("a.example"), b"/"),
            ("GET", b"https://a.example?y", Some("a.example"), b"/?y"),
            ("GET", b"https://a.example/\xff", Some("a.example"), b"/\xff"),
            ("OPTIONS", b"https://a.example", Some("a.example"), b"*"),
            ("OPTIONS", b"https://a.example/", Some("a.example"), b"/"),
        ] {
            let (found, request) = asked(method, target);
            let shown = String::from_utf8_lossy(target);
            assert_eq!(found, Ok(authority.map(str::to_owned)), "{shown}");
            assert_eq!(request.raw_path(), becomes, "{shown}");
            let seen = request.uri.path_and_query().map(|seen| seen.as_str().to_owned());
            assert_eq!(seen.as_deref(), Some(&*String::from_utf8_lossy(becomes)), "{shown}");
        }
    }

    #[test]
    fn refuses_what_would_be_seen_as_a_slash_and_sent_on_as_it_came() {
        for target in [
            &b"admin/x"[..],
            b"?x",
            b"a.example:443",
            b"a.example",
            b"http:/a.example/x",
            b"http:x",
            b"https:///x",
            b"https://a.example\\x",
            b"ftp://a.example/x",
            b"wss://a.example/x",
            b"foo:bar://a.example/x",
            b"**",
            b"*/x",
        ] {
            let shown = String::from_utf8_lossy(target);
            assert_eq!(asked("GET", target).0, Err(BadTarget::Form), "{shown}");
            assert_eq!(asked("OPTIONS", target).0, Err(BadTarget::Form), "{shown}");
        }
        assert_eq!(asked("GET", b"*").0, Err(BadTarget::Asterisk));
    }
}
