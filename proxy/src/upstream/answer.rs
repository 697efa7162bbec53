//! What the head of an upstream's answer may be: pure. The HTTP library parses it; here is what it lets pass and what
//! would be ours to pay for, or another reader's to misread.

use http::StatusCode;
use http::header::TRANSFER_ENCODING;
use http::response::Parts;

/// Interim answers (100, 103) of one request: an endless row of them would hold it for ever.
const INTERIM_MAX: u32 = 16;
/// Of one head, 32 more for each field (RFC 9113 section 6.5.2).
const HEADER_BYTES_MAX: usize = 64 * 1024;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Nonsense {
    #[error("more than {INTERIM_MAX} interim answers and no final one")]
    Interim,
    #[error("the answer's header fields are {0} bytes, at most {HEADER_BYTES_MAX} are accepted")]
    HeaderBytes(usize),
    #[error("the answer switches to a protocol that was not asked for")]
    Switch,
    #[error("the answer's Transfer-Encoding is not `chunked` alone, so where it ends is not certain")]
    Framing,
}

/// `interim` counts this request's interim answers, this one included; `upgrade` says whether the request asked for one.
pub(super) fn check(head: &Parts, interim: u32, upgrade: bool) -> Result<(), Nonsense> {
    if head.status == StatusCode::SWITCHING_PROTOCOLS && !upgrade {
        return Err(Nonsense::Switch);
    }
    if interim > INTERIM_MAX {
        return Err(Nonsense::Interim);
    }
    let bytes = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
    if bytes > HEADER_BYTES_MAX {
        return Err(Nonsense::HeaderBytes(bytes));
    }
    let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
    let alone = codings.next().is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    if alone && codings.next().is_none() { Ok(()) } else { Err(Nonsense::Framing) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &[(&str, &str)]) -> Parts {
        let mut builder = http::Response::builder();
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap().into_parts().0
    }

    #[test]
    fn each_limit_is_accepted_and_one_more_is_refused() {
        assert_eq!(check(&head(&[]), INTERIM_MAX, false), Ok(()));
        assert_eq!(check(&head(&[]), INTERIM_MAX + 1, false), Err(Nonsense::Interim));
        let of = |bytes: usize| head(&[("a", &"x".repeat(bytes - 33))]);
        assert_eq!(check(&of(HEADER_BYTES_MAX), 0, false), Ok(()));
        assert_eq!(check(&of(HEADER_BYTES_MAX + 1), 0, false), Err(Nonsense::HeaderBytes(HEADER_BYTES_MAX + 1)));
    }

    #[test]
    fn protocols_are_switched_only_where_that_was_asked_for() {
        let mut switch = head(&[]);
        switch.status = StatusCode::SWITCHING_PROTOCOLS;
        assert_eq!((check(&switch, 1, true), check(&switch, 1, false)), (Ok(()), Err(Nonsense::Switch)));
    }

    #[test]
    fn the_end_of_an_answer_is_certain_or_it_is_refused() {
        for (fields, fit) in [
            (&[("transfer-encoding", "Chunked")][..], true),
            (&[("transfer-encoding", "gzip, chunked")], false),
            (&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], false),
            (&[("transfer-encoding", "identity")], false),
            (&[("transfer-encoding", "")], false),
        ] {
            assert_eq!(check(&head(fields), 0, false).is_ok(), fit, "{fields:?}");
        }
    }
}
