//! A server that plugins ask: how it behaves, the path says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use support::http1::{Kind, Message, read};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

/// What it says where nothing else is asked for: `/echo` tells what it saw.
const PIECE: &[u8] = &[b'x'; 16 << 10];

#[derive(Default)]
pub(crate) struct Seen {
    /// Questions, ever.
    pub(crate) asked: AtomicUsize,
    /// Questions that it lets wait, whose other end is still there.
    pub(crate) hanging: AtomicUsize,
}

/// Ends with the value.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Seen>,
    task: AbortHandle,
}

impl Server {
    pub(crate) async fn start(name: &'static str, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let seen = Arc::<Seen>::default();
        let task = tokio::spawn(serve(listener, name, seen.clone())).abort_handle();
        Self { address, seen, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn asked(&self) -> usize {
        self.seen.asked.load(Ordering::SeqCst)
    }

    pub(crate) fn hanging(&self) -> usize {
        self.seen.hanging.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, name: &'static str, seen: Arc<Seen>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((stream, _)) = listener.accept() => {
                let seen = seen.clone();
                connections.spawn(async move { drop(answer_all(stream, name, &seen).await) });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn answer_all(stream: TcpStream, name: &str, seen: &Seen) -> support::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufStream::new(stream);
    while let Some(request) = read(&mut stream, Kind::Request).await? {
        seen.asked.fetch_add(1, Ordering::SeqCst);
        let target = request.start_line.split(' ').nth(1).unwrap_or_default().to_owned();
        let answer = match target.as_str() {
            "/verify" => verified(&request),
            "/hang" => {
                seen.hanging.fetch_add(1, Ordering::SeqCst);
                let left = stream.read(&mut [0; 1]).await;
                seen.hanging.fetch_sub(1, Ordering::SeqCst);
                left?;
                return Ok(());
            }
            "/trickle" => {
                for byte in "HTTP/1.1 200 OK\r\nx-slow: ".bytes().chain(std::iter::repeat_n(b'x', 400)) {
                    stream.write_all(&[byte]).await?;
                    stream.flush().await?;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                return Ok(());
            }
            "/vast" => {
                stream
                    .write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 64 * PIECE.len()).as_bytes())
                    .await?;
                for _ in 0..64 {
                    stream.write_all(PIECE).await?;
                    stream.flush().await?;
                }
                return Ok(());
            }
            "/half" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").await?;
                stream.flush().await?;
                return Ok(());
            }
            "/garbage" => {
                stream.write_all(b"SSH-2.0-no-http\r\n\r\n").await?;
                stream.flush().await?;
                return Ok(());
            }
            "/slow" => {
                tokio::time::sleep(Duration::from_millis(1500)).await;
                whole(200, &[], name)
            }
            _ => whole(200, &[], &told(name, &request)),
        };
        stream.write_all(&answer).await?;
        stream.flush().await?;
    }
    Ok(())
}

fn whole(status: u16, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let fields: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n{fields}\r\n{body}", body.len()).into_bytes()
}

fn told(name: &str, request: &Message) -> String {
    let fields: String = request.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    format!("{name}\n{}\n{fields}{}", request.start_line, request.text())
}

/// As who is logged in, who is not, and who may not.
fn verified(request: &Message) -> Vec<u8> {
    let uri = request.header("x-forwarded-uri").unwrap_or_default();
    let cookies: Vec<_> = request.header("cookie").unwrap_or_default().split("; ").collect();
    match cookies.as_slice() {
        cookies if cookies.contains(&"s=good") => {
            whole(200, &[("X-User", "7"), ("X-Forwarded-User", "7"), ("X-Uri", uri), ("Keep-Alive", "5")], "")
        }
        cookies if cookies.contains(&"s=bad") => {
            whole(403, &[("X-Internal", "1"), ("Content-Type", "text/plain")], "not you")
        }
        _ => {
            let cookies =
                [("Set-Cookie", "state=1; Secure"), ("Set-Cookie", "other=2"), ("Location", "/login?from=here")];
            whole(302, &cookies, "")
        }
    }
}
