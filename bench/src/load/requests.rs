//! Keep-alive requests: each connection asks again as soon as it was answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use support::{Context, Result, fail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_openssl::SslStream;

use super::client::{Client, Protocol};

/// Open connections with HTTP/1, and open streams with HTTP/2.
const AT_ONCE: usize = 48;
/// Of HTTP/2, which share the streams.
const H2_CONNECTIONS: usize = 4;
/// What a browser sends besides.
const HEADERS: [(&str, &str); 6] = [
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("accept-language", "en-GB,en;q=0.7,de;q=0.3"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("cookie", "session=0123456789abcdef0123456789abcdef; theme=dark"),
    ("sec-fetch-mode", "navigate"),
];
const TARGET: &str = "/products/42?colour=red";

/// Requests under way until it is dropped.
pub struct Load {
    answered: Arc<AtomicU64>,
    tasks: JoinSet<Result<()>>,
}

impl Load {
    /// All connections are open when it returns.
    pub async fn start(client: &Client, protocol: Protocol, host: &str) -> Result<Self> {
        let mut load = Self { answered: Arc::default(), tasks: JoinSet::new() };
        match protocol {
            Protocol::Http1 => load.start_http1(client, host).await?,
            Protocol::Http2 => load.start_http2(client, host).await?,
        }
        Ok(load)
    }

    /// Requests of HTTP/1.1 for these targets in turn, all answered with that status; each connection begins elsewhere.
    pub async fn of_targets(client: &Client, host: &str, targets: &Arc<Vec<String>>, status: u16) -> Result<Self> {
        let mut load = Self { answered: Arc::default(), tasks: JoinSet::new() };
        let requests: Arc<Vec<String>> = Arc::new(targets.iter().map(|target| request(host, target)).collect());
        for begin in 0..AT_ONCE {
            let (stream, requests, answered) = (client.connect(host).await?, requests.clone(), load.answered.clone());
            load.tasks.spawn(async move {
                let mut connection = Http1::new(stream);
                let begin = begin * requests.len() / AT_ONCE;
                for request in requests.iter().cycle().skip(begin) {
                    connection.ask(request.as_bytes()).await?.expect(status)?;
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            });
        }
        Ok(load)
    }

    async fn start_http1(&mut self, client: &Client, host: &str) -> Result<()> {
        let request: Arc<[u8]> = request(host, TARGET).into_bytes().into();
        for _ in 0..AT_ONCE {
            let (stream, request, answered) = (client.connect(host).await?, request.clone(), self.answered.clone());
            self.tasks.spawn(async move {
                let mut connection = Http1::new(stream);
                loop {
                    connection.ask(&request).await?.expect_ok()?;
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Ok(())
    }

    async fn start_http2(&mut self, client: &Client, host: &str) -> Result<()> {
        for _ in 0..H2_CONNECTIONS {
            let (sender, connection) = h2::client::handshake(client.connect(host).await?).await?;
            self.tasks.spawn(async move { Ok(connection.await?) });
            for _ in 0..AT_ONCE / H2_CONNECTIONS {
                let (mut sender, answered) = (sender.clone().ready().await?, self.answered.clone());
                let request = http2_request(host, TARGET)?;
                self.tasks.spawn(async move {
                    loop {
                        sender = sender.ready().await?;
                        let (response, _) = sender.send_request(request.clone(), true)?;
                        read_http2(response.await?).await?.expect_ok()?;
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        }
        Ok(())
    }

    /// Requests answered so far; an error if one was not answered as it should.
    pub fn answered(&mut self) -> Result<u64> {
        match self.tasks.try_join_next() {
            None => Ok(self.answered.load(Ordering::Relaxed)),
            Some(Ok(Ok(()))) => fail("a connection was closed"),
            Some(Ok(Err(error))) => Err(error).context("a request"),
            Some(Err(error)) => Err(error).context("a connection"),
        }
    }
}

/// As far as it matters here.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body_bytes: usize,
    /// In lower case, as sent.
    pub head: String,
}

impl Answer {
    pub fn expect(&self, status: u16) -> Result<()> {
        if self.status == status {
            Ok(())
        } else {
            fail(format!("status {}, not {status}: {}", self.status, self.head))
        }
    }

    fn expect_ok(&self) -> Result<()> {
        if self.status == 200 && self.body_bytes == crate::standin::BODY_BYTES {
            return Ok(());
        }
        fail(format!("status {} with {} bytes of body: {}", self.status, self.body_bytes, self.head))
    }
}

/// One request on a connection of its own.
pub async fn ask(client: &Client, protocol: Protocol, host: &str, target: &str) -> Result<Answer> {
    let stream = client.connect(host).await?;
    if protocol == Protocol::Http1 {
        return Http1::new(stream).ask(request(host, target).as_bytes()).await;
    }
    let (sender, connection) = h2::client::handshake(stream).await?;
    let task = tokio::spawn(connection);
    let (response, _) = sender.ready().await?.send_request(http2_request(host, target)?, true)?;
    let answer = read_http2(response.await?).await;
    task.abort();
    answer
}

/// An HTTP/1 connection that is asked again and again.
pub struct Http1 {
    stream: SslStream<TcpStream>,
    buffer: Vec<u8>,
}

impl Http1 {
    pub fn new(stream: SslStream<TcpStream>) -> Self {
        Self { stream, buffer: vec![0; 16 * 1024] }
    }

    pub async fn ask(&mut self, request: &[u8]) -> Result<Answer> {
        self.stream.write_all(request).await?;
        let mut filled = 0;
        loop {
            let Some(rest) = self.buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) else {
                return fail("the answer is too long");
            };
            let read = self.stream.read(rest).await?;
            if read == 0 {
                return fail("the server closed the connection");
            }
            filled += read;
            let Some(end) = self.buffer[..filled].windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            let head = String::from_utf8_lossy(&self.buffer[..end]).to_ascii_lowercase();
            let length = head.split("\r\n").find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            let body_bytes = length.unwrap_or(0);
            if filled >= end + 4 + body_bytes {
                let status = head.get(9..12).and_then(|status| status.parse().ok()).context("a status")?;
                return Ok(Answer { status, body_bytes, head });
            }
        }
    }
}

pub fn request(host: &str, target: &str) -> String {
    let headers: String = HEADERS.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("GET {target} HTTP/1.1\r\nhost: {host}\r\n{headers}\r\n")
}

fn http2_request(host: &str, target: &str) -> Result<http::Request<()>> {
    let builder = http::Request::get(format!("https://{host}{target}"));
    let with_headers = HEADERS.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value));
    Ok(with_headers.body(())?)
}

async fn read_http2(response: http::Response<h2::RecvStream>) -> Result<Answer> {
    let (parts, mut body) = response.into_parts();
    let mut body_bytes = 0;
    while let Some(chunk) = body.data().await {
        let chunk: Bytes = chunk?;
        body_bytes += chunk.len();
        body.flow_control().release_capacity(chunk.len())?;
    }
    let lines = parts.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap_or("?")));
    Ok(Answer { status: parts.status.as_u16(), body_bytes, head: lines.collect::<Vec<_>>().join("\r\n") })
}
