//! Requests of HTTP/1 that the HTTP library refuses by itself, before any of our code has seen them. It answers with a bare
//! status; the visitor gets a page of ours instead, which says why and has an ID.

use std::hash::{BuildHasher, Hasher, RandomState};

/// A request that was refused before it began. It is the last of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Names it on its page and in the logs.
    pub id: u64,
    pub why: Flaw,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    #[error("the request is not valid HTTP")]
    NotHttp,
    /// Two readers may take two of them for the one.
    #[error("the request names {0} hosts, exactly one is accepted")]
    Hosts(usize),
    #[error("CONNECT is not accepted: this is no forward proxy")]
    Connect,
}

impl Refusal {
    /// `first` is how the request began, `answer` what the HTTP library says to it.
    pub(super) fn of(first: &[u8], answer: &[u8]) -> Self {
        let why = match (answer.get(9..12), hosts(first)) {
            (Some(b"405"), _) => Flaw::Connect,
            (_, hosts @ 2..) => Flaw::Hosts(hosts),
            _ => Flaw::NotHttp,
        };
        Self { id: fault_id(), why }
    }

    pub fn status(self) -> u16 {
        if self.why == Flaw::Connect { 405 } else { 400 }
    }

    pub(super) fn page(self) -> Vec<u8> {
        let phrase = if self.why == Flaw::Connect { "Method Not Allowed\r\nallow: GET" } else { "Bad Request" };
        let (status, body) = (self.status(), format!("{}\nFault {:016x}\n", self.why, self.id));
        let length = body.len();
        format!(
            "HTTP/1.1 {status} {phrase}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {length}\r\n\
             connection: close\r\n\r\n{body}"
        )
        .into_bytes()
    }
}

/// Hard to guess, unlike any other.
pub fn fault_id() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// `Host` fields of a header that begins so.
fn hosts(first: &[u8]) -> usize {
    let lines = first.split(|byte| *byte == b'\n').skip(1);
    let fields = lines.take_while(|line| !line.trim_ascii_end().is_empty());
    fields.filter(|field| field.get(..5).is_some_and(|name| name.eq_ignore_ascii_case(b"host:"))).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSED: &[u8] = b"HTTP/1.1 400 Bad Request\r\n";

    #[test]
    fn says_why_as_far_as_the_first_bytes_tell() {
        for (first, answer, why) in [
            (&b"GET / HTTP/1.1\r\nhost: a\r\nHOST:b\r\n\r\n"[..], REFUSED, Flaw::Hosts(2)),
            (b"GET / HTTP/1.1\nhost: a\nhost: a\nHost: a\n\n", REFUSED, Flaw::Hosts(3)),
            (b"GET / HTTP/1.1\r\nhost: a\r\n\r\nhost: body\r\nhost: body\r\n", REFUSED, Flaw::NotHttp),
            (b"host: a HTTP/1.1\r\nhost: a\r\nx-host: b\r\nhosts: c\r\n\r\n", REFUSED, Flaw::NotHttp),
            (b"", REFUSED, Flaw::NotHttp),
            (b"\0", b"", Flaw::NotHttp),
            (b"CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n", b"HTTP/1.1 405 Method Not Allowed\r\n", Flaw::Connect),
        ] {
            assert_eq!(Refusal::of(first, answer).why, why, "{}", first.escape_ascii());
        }
    }

    #[test]
    fn the_page_is_a_whole_answer_with_the_id() {
        let refusal = Refusal { id: 0xabc, why: Flaw::Hosts(2) };
        let page = String::from_utf8(refusal.page()).unwrap();
        let (head, body) = page.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n") && head.contains("\r\nconnection: close"), "{head}");
        assert!(head.contains(&format!("\r\ncontent-length: {}\r\n", body.len())), "{head}");
        assert_eq!(body, "the request names 2 hosts, exactly one is accepted\nFault 0000000000000abc\n");
        assert_ne!(Refusal::of(b"", b"").id, Refusal::of(b"", b"").id);
    }
}
