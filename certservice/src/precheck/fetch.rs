//! Asks an address for the challenge path as a CA does: HTTP, port 80, the domain as host. Reads a little, follows
//! nothing.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use contract::Challenge;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const CONNECT_SECONDS_MAX: u64 = 5;
const EXCHANGE_SECONDS_MAX: u64 = 10;
const ANSWER_BYTES_MAX: u64 = 16 * 1024;

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fetched {
    /// Our edge's answer.
    Ours { cdn: Option<&'static str> },
    /// The CA would follow it; we can't tell where that ends.
    Redirect,
    /// Somebody else's answer.
    Other { status: u16, cdn: Option<&'static str> },
    /// No HTTP came back.
    Unreachable(String),
    /// Something takes connections there; what, a CA sees by itself.
    Open,
    /// From this host there is no way to the address, which says nothing of the CA's.
    NoWay,
    /// Not asked: no CA could reach it.
    NotPublic,
}

/// Only whether somebody listens: for tls-alpn-01.
pub(super) async fn knock(address: SocketAddr) -> Fetched {
    connect(address).await.map_or_else(|fetched| fetched, |_| Fetched::Open)
}

async fn connect(address: SocketAddr) -> Result<TcpStream, Fetched> {
    let limit = Duration::from_secs(CONNECT_SECONDS_MAX);
    match tokio::time::timeout(limit, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) if is_ours(error.kind()) => Err(Fetched::NoWay),
        Ok(Err(error)) => Err(Fetched::Unreachable(error.to_string())),
        Err(_) => Err(Fetched::Unreachable(format!("no connection within {CONNECT_SECONDS_MAX} s"))),
    }
}

pub(super) async fn ask(address: SocketAddr, answer: &Challenge) -> Fetched {
    let stream = match connect(address).await {
        Ok(stream) => stream,
        Err(fetched) => return fetched,
    };
    let limit = Duration::from_secs(EXCHANGE_SECONDS_MAX);
    match tokio::time::timeout(limit, exchange(stream, answer)).await {
        Ok(Ok(text)) => read(&text, answer),
        Ok(Err(error)) => Fetched::Unreachable(error.to_string()),
        Err(_) => Fetched::Unreachable(format!("no answer within {EXCHANGE_SECONDS_MAX} s")),
    }
}

fn is_ours(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NetworkUnreachable | ErrorKind::AddrNotAvailable | ErrorKind::PermissionDenied)
}

async fn exchange(mut stream: TcpStream, answer: &Challenge) -> std::io::Result<String> {
    let request = format!(
        "GET /.well-known/acme-challenge/{} HTTP/1.1\r\nHost: {}\r\nUser-Agent: latchkey-precheck\r\n\
         Accept: */*\r\nConnection: close\r\n\r\n",
        answer.token, answer.domain
    );
    stream.write_all(request.as_bytes()).await?;
    let mut bytes = Vec::new();
    let read = stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes).await;
    // Who sends an answer and then resets has answered.
    match read {
        Err(error) if bytes.is_empty() => Err(error),
        _ => Ok(String::from_utf8_lossy(&bytes).into_owned()),
    }
}

fn read(text: &str, answer: &Challenge) -> Fetched {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
    let status =
        head.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)).and_then(|code| code.parse().ok());
    let cdn = cdn(head);
    match status {
        None => Fetched::Unreachable("what answers on this port does not speak HTTP".to_owned()),
        Some(200) if body.contains(&answer.key_authorization) => Fetched::Ours { cdn },
        Some(301 | 302 | 303 | 307 | 308) => Fetched::Redirect,
        Some(status) => Fetched::Other { status, cdn },
    }
}

/// A header line that a CDN adds, in lower case, and whose it is.
const CDNS: [(&str, &str); 11] = [
    ("cf-ray:", "Cloudflare"),
    ("server: cloudflare", "Cloudflare"),
    ("x-amz-cf-id:", "CloudFront"),
    ("x-served-by: cache-", "Fastly"),
    ("server: akamaighost", "Akamai"),
    ("x-akamai-", "Akamai"),
    ("x-vercel-id:", "Vercel"),
    ("x-nf-request-id:", "Netlify"),
    ("x-azure-ref:", "Azure Front Door"),
    ("x-sucuri-id:", "Sucuri"),
    ("server: bunnycdn", "Bunny"),
];

fn cdn(head: &str) -> Option<&'static str> {
    let lines = head.lines().skip(1).map(str::to_ascii_lowercase);
    lines.filter_map(|line| CDNS.iter().find(|(start, _)| line.starts_with(start))).map(|(_, name)| *name).next()
}

#[cfg(test)]
mod tests {
    use contract::Hostname;

    use super::*;

    fn answer() -> Challenge {
        crate::challenge::self_check(&Hostname::parse("shop.example").unwrap(), "kid", 1_800_000_000)
    }

    #[test]
    fn only_our_edges_answer_counts() {
        let answer = answer();
        let body = &answer.key_authorization;
        let ours = read(&format!("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{body}"), &answer);
        assert_eq!(ours, Fetched::Ours { cdn: None });
        let proxied = read(&format!("HTTP/1.1 200 OK\r\nCF-RAY: 1\r\n\r\n{body}"), &answer);
        assert_eq!(proxied, Fetched::Ours { cdn: Some("Cloudflare") });
        // An echo of what was asked for is no answer.
        let echo = read(&format!("HTTP/1.1 200 OK\r\n\r\nGET /{}", answer.token), &answer);
        assert_eq!(echo, Fetched::Other { status: 200, cdn: None });
        let header = read(&format!("HTTP/1.1 200 OK\r\nX: {body}\r\n\r\n"), &answer);
        assert_eq!(header, Fetched::Other { status: 200, cdn: None });
    }

    #[test]
    fn other_answers_are_told_apart() {
        let cases = [
            ("HTTP/1.1 301 Moved\r\nLocation: https://x\r\n\r\n", Fetched::Redirect),
            ("HTTP/1.0 404 No\r\nServer: AkamaiGHost\r\n\r\n", Fetched::Other { status: 404, cdn: Some("Akamai") }),
            ("HTTP/1.1 503 X\r\n\r\ncf-ray: in the body", Fetched::Other { status: 503, cdn: None }),
        ];
        for (text, fetched) in cases {
            assert_eq!(read(text, &answer()), fetched, "{text}");
        }
        for text in ["SSH-2.0-x\r\n", "", "HTTP/1.1", "HTTP/1.1 x y\r\n\r\n"] {
            assert!(matches!(read(text, &answer()), Fetched::Unreachable(_)), "{text}");
        }
    }
}
