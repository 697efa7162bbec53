//! Visitors who wait for leave to send a body, and such as stop sending while they are answered.

use std::time::Instant;

use serde_json::json;
use support::port;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::wire::{HTTP1, Wire};
use super::{GUARD, HOST, STALL_TIMEOUT, Siege, ended_at};

const ME: [u8; 4] = [127, 0, 0, 14];
const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-length: 200\r\n\r\n";
const HALF: &str = "half of an answer";

/// Gives leave late, reads five bytes, answers with a half and waits for more.
async fn serve(stream: TcpStream) -> std::io::Result<()> {
    let mut stream = BufStream::new(stream);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
    }
    tokio::time::sleep(STALL_TIMEOUT * 2).await;
    stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    stream.flush().await?;
    stream.read_exact(&mut [0; 5]).await?;
    stream.write_all(format!("{ANSWER}{HALF}").as_bytes()).await?;
    stream.flush().await?;
    stream.read_to_end(&mut Vec::new()).await.map(drop)
}

async fn upstream() -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind(port::free().unwrap()).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move { drop(serve(stream).await) });
        }
    });
    (url, task)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_leave_is_not_hurried_and_nothing_is_said_within_an_answer() {
    let siege = Siege::start("").await;
    let (url, task) = upstream().await;
    let config = json!({
        "plugins": {},
        "upstreams": {"slow": {"url": url}},
        "sites": [{"hosts": [HOST], "upstream": "slow"}],
    });
    siege.world.fleet.edge.apply(&config).await.unwrap();
    let head = format!("POST / HTTP/1.1\r\nhost: {HOST}\r\nexpect: 100-continue\r\ncontent-length: 100\r\n\r\n");
    for sent in ["", "12345"] {
        let mut wire = Wire::tls(&siege, ME, HTTP1).await;
        let asked = Instant::now();
        assert!(wire.send(head.as_bytes()).await);
        let leave = wire.read().await;
        assert_eq!(String::from_utf8_lossy(&leave), "HTTP/1.1 100 Continue\r\n\r\n");
        let told = wire.exchange(sent.as_bytes()).await;
        // Leave is given after twice that at the earliest, and comes here a little later than it goes.
        ended_at("a body that was given leave", asked, STALL_TIMEOUT * 3);
        match sent {
            "" => assert!(told.starts_with("HTTP/1.1 408 "), "{told}"),
            _ => assert!(told.starts_with("HTTP/1.1 200 ") && told.ends_with(HALF), "{told}"),
        }
    }
    for reason in ["body_stalled", "body_too_slow"] {
        assert_eq!(siege.count(GUARD, reason).await, 1.0, "{reason}");
    }
    task.abort();
}
