//! A customer's server that reads requests in the one shape that two readers can't read differently, and remembers them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

/// The answer to this target is far larger than what sockets buffer.
pub(super) const LARGE: &str = "/large";
pub(super) const LARGE_BYTES: usize = 64 << 20;

#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Seen {
    pub(super) fn values(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str()).collect()
    }
}

#[derive(Default)]
struct Log {
    requests: Vec<Seen>,
    malformed: Vec<String>,
}

/// Ends with the value.
pub(super) struct Recorder {
    address: SocketAddr,
    log: Arc<Mutex<Log>>,
    task: AbortHandle,
}

impl Recorder {
    pub(super) async fn start(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let log = Arc::<Mutex<Log>>::default();
        let task = tokio::spawn(serve(listener, log.clone())).abort_handle();
        Self { address, log, task }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Whole requests so far. Fails where anything else came.
    pub(super) fn seen(&self) -> Vec<Seen> {
        let log = self.log.lock().unwrap();
        assert!(log.malformed.is_empty(), "{:?}", log.malformed);
        log.requests.clone()
    }

    /// The requests for one target.
    pub(super) fn seen_at(&self, target: &str) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| seen.target == target).collect()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, log: Arc<Mutex<Log>>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((stream, _)) = listener.accept() => {
                let log = log.clone();
                connections.spawn(async move {
                    if let Err(Broken::Malformed(what)) = answer_all(stream, &log).await {
                        log.lock().unwrap().malformed.push(what);
                    }
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

enum Broken {
    /// The proxy broke off, as it does when its visitor did.
    Gone,
    Malformed(String),
}

impl From<std::io::Error> for Broken {
    fn from(_: std::io::Error) -> Self {
        Self::Gone
    }
}

async fn answer_all(stream: TcpStream, log: &Mutex<Log>) -> Result<(), Broken> {
    let mut stream = BufStream::new(stream);
    loop {
        let seen = read(&mut stream).await?;
        let (large, head) = (seen.target == LARGE, seen.method == "HEAD");
        log.lock().unwrap().requests.push(seen);
        if large && !head {
            write_large(&mut stream).await?;
        } else {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await?;
            stream.flush().await?;
        }
    }
}

async fn write_large(stream: &mut (impl AsyncWrite + Unpin)) -> Result<(), Broken> {
    stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE_BYTES}\r\n\r\n").as_bytes()).await?;
    let chunk = vec![b'x'; 64 * 1024];
    for _ in 0..LARGE_BYTES / chunk.len() {
        stream.write_all(&chunk).await?;
    }
    Ok(stream.flush().await?)
}

async fn line(stream: &mut (impl AsyncBufRead + Unpin)) -> Result<String, Broken> {
    let mut line = Vec::new();
    stream.take(64 * 1024).read_until(b'\n', &mut line).await?;
    if !line.ends_with(b"\n") {
        return Err(Broken::Gone);
    }
    let text = line.strip_suffix(b"\r\n").and_then(|line| str::from_utf8(line).ok());
    let clean = text.filter(|text| !text.contains(['\r', '\n', '\0']));
    clean.map(str::to_owned).ok_or_else(|| malformed("line", &String::from_utf8_lossy(&line)))
}

fn malformed(what: &str, text: &str) -> Broken {
    Broken::Malformed(format!("{what}: {text:?}"))
}

async fn read(stream: &mut (impl AsyncBufRead + Unpin)) -> Result<Seen, Broken> {
    let start = line(stream).await?;
    let parts: Vec<_> = start.split(' ').collect();
    let [method, target, "HTTP/1.1"] = parts[..] else { return Err(malformed("request line", &start)) };
    if !method.bytes().all(|b| b.is_ascii_uppercase())
        || !(target.starts_with('/') || parts[0] == "OPTIONS" && target == "*")
    {
        return Err(malformed("request line", &start));
    }
    let mut seen = Seen { method: method.into(), target: target.into(), headers: Vec::new(), body: Vec::new() };
    loop {
        let field = line(stream).await?;
        if field.is_empty() {
            break;
        }
        let is_name = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let Some((name, value)) = field.split_once(':').filter(|(name, _)| is_name(name)) else {
            return Err(malformed("header field", &field));
        };
        seen.headers.push((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()));
    }
    if seen.values("host").len() != 1 {
        return Err(malformed("hosts", &format!("{:?}", seen.headers)));
    }
    let (lengths, codings) = (seen.values("content-length"), seen.values("transfer-encoding"));
    seen.body = match (&lengths[..], &codings[..]) {
        ([], []) => Vec::new(),
        ([length], []) if length.bytes().all(|b| b.is_ascii_digit()) => {
            exactly(stream, length.parse().map_err(|_| malformed("content-length", length))?).await?
        }
        ([], ["chunked"]) => chunks(stream).await?,
        _ => return Err(malformed("framing", &format!("{:?}", seen.headers))),
    };
    Ok(seen)
}

async fn exactly(stream: &mut (impl AsyncBufRead + Unpin), length: usize) -> Result<Vec<u8>, Broken> {
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(body)
}

async fn chunks(stream: &mut (impl AsyncBufRead + Unpin)) -> Result<Vec<u8>, Broken> {
    let mut body = Vec::new();
    loop {
        let size = line(stream).await?;
        let length = Some(&size).filter(|s| s.bytes().all(|b| b.is_ascii_hexdigit()));
        let length = length.and_then(|s| usize::from_str_radix(s, 16).ok()).ok_or_else(|| malformed("chunk", &size))?;
        body.extend(exactly(stream, length).await?);
        let end = line(stream).await?;
        if !end.is_empty() {
            return Err(malformed("end of chunk, or trailer", &end));
        }
        if length == 0 {
            return Ok(body);
        }
    }
}
