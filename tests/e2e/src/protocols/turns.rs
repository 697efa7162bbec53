//! Whose turn it is over HTTP/1: requests that come before the answer to the one before, and visitors of HTTP/1.0.

use std::sync::Arc;

use serde_json::json;
use support::http1::{Kind, read};
use support::port;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::{Duration, sleep, timeout};

use super::{HOST, HTTP1, PATIENCE, tls, world};
use crate::world::World;

/// Answers by target. `/held` is answered once it may be.
struct Server {
    url: String,
    asked: Arc<Semaphore>,
    may: Arc<Semaphore>,
    task: AbortHandle,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind(port::free().unwrap()).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (asked, may) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let signs = (asked.clone(), may.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (asked, may) = signs.clone();
                // A peer that breaks off concerns only its own connection.
                tokio::spawn(async move { drop(answer_all(BufStream::new(stream), &asked, &may).await) });
            }
        });
        Self { url, asked, may, task: task.abort_handle() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer_all(mut stream: BufStream<TcpStream>, asked: &Semaphore, may: &Semaphore) -> support::Result<()> {
    while let Some(request) = read(&mut stream, Kind::Request).await? {
        let target = request.start_line.split(' ').nth(1).unwrap_or_default();
        let answer = match target {
            "/held" => {
                asked.add_permits(1);
                may.acquire().await?.forget();
                "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nheld"
            }
            "/chunked" => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
            "/until-the-end" => "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello world",
            "/hints" => {
                "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\nhello world"
            }
            _ => "HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\nhello world",
        };
        stream.write_all(answer.as_bytes()).await?;
        stream.flush().await?;
        if target == "/until-the-end" {
            break;
        }
    }
    Ok(())
}

/// What is said to a visitor of HTTP/1.0: head and body.
async fn said(world: &World, target: &str, more: &str) -> (String, String) {
    let mut stream = tls(world, HTTP1).await;
    stream.write_all(format!("GET {target} HTTP/1.0\r\nhost: {HOST}\r\n{more}\r\n").as_bytes()).await.unwrap();
    let mut all = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut all)).await.unwrap();
    let all = String::from_utf8(all).unwrap();
    let (head, body) = all.split_once("\r\n\r\n").unwrap();
    (head.to_ascii_lowercase(), body.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_visitor_of_http_1_0_gets_no_chunks_and_no_interim_answers() {
    let server = Server::start().await;
    let world = world(json!({"url": server.url})).await;
    for more in ["", "connection: keep-alive\r\n"] {
        for target in ["/chunked", "/until-the-end"] {
            let (head, body) = said(&world, target, more).await;
            assert!(head.starts_with("http/1.1 200 ") && body == "hello world", "{target}: {head}\n\n{body}");
            assert!(!head.contains("transfer-encoding") && head.contains("connection: close"), "{target}: {head}");
        }
    }
    let (head, body) = said(&world, "/hints", "").await;
    assert!(head.starts_with("http/1.1 200 ") && body == "hello world", "{head}\n\n{body}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_comes_before_its_turn_is_answered_in_turn() {
    let server = Server::start().await;
    let world = world(json!({"url": server.url})).await;
    let next = format!("GET /next HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
    let (half, rest) = next.split_at(20);
    let empty_line = format!("\r\n{next}");
    for first in [
        format!("GET /held HTTP/1.1\r\nhost: {HOST}\r\n\r\n"),
        format!("POST /held HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: 5\r\n\r\n12345"),
        format!("POST /held HTTP/1.1\r\nhost: {HOST}\r\ntransfer-encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\n\r\n"),
    ] {
        for (early, late) in [(next.as_str(), ""), (half, rest), (&empty_line, ""), ("\r\n", &next)] {
            let mut stream = BufStream::new(tls(&world, HTTP1).await);
            let mut send = async |text: &str| {
                stream.write_all(text.as_bytes()).await.unwrap();
                stream.flush().await.unwrap();
            };
            send(&first).await;
            timeout(PATIENCE, server.asked.acquire()).await.expect("the upstream to be asked").unwrap().forget();
            send(early).await;
            // Long enough for the proxy to read it.
            sleep(Duration::from_millis(200)).await;
            server.may.add_permits(1);
            let answer = timeout(PATIENCE, read(&mut stream, Kind::Response)).await.unwrap().unwrap().unwrap();
            assert!(answer.start_line.contains(" 200") && answer.text() == "held", "{early:?}: {answer:?}");
            stream.write_all(late.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
            let answer = timeout(PATIENCE, read(&mut stream, Kind::Response)).await.unwrap().unwrap().unwrap();
            assert!(answer.start_line.contains(" 200") && answer.text() == "hello world", "{early:?}: {answer:?}");
        }
    }
}
