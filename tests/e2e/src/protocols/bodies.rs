//! Requests that wait before they send a body, and answers that have none, end early, or end with trailers.

use std::net::SocketAddr;

use serde_json::json;
use support::http1::{Kind, read};
use support::port;
use support::upstream::Upstream;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::{HOST, HTTP1, PATIENCE, tls, world};
use crate::world::{World, run, stderr, stdout};

/// Answers by target, as real servers do.
struct Server {
    address: SocketAddr,
    task: AbortHandle,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind(port::free().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A peer that breaks off concerns only its own connection.
                tokio::spawn(async move { drop(answer_all(BufStream::new(stream)).await) });
            }
        });
        Self { address, task: task.abort_handle() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer_all(mut stream: BufStream<TcpStream>) -> support::Result<()> {
    loop {
        // Whoever asks for this has its body refused before it was read.
        if stream.fill_buf().await?.starts_with(b"PUT /too-large") {
            let mut line = String::new();
            while line != "\r\n" {
                line.clear();
                stream.read_line(&mut line).await?;
            }
            stream
                .write_all(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 7\r\nconnection: close\r\n\r\nrefused")
                .await?;
            stream.flush().await?;
            // Closed at once, what was sent would be lost with a reset.
            let _ = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await;
            return Ok(());
        }
        let Some(request) = read(&mut stream, Kind::Request).await? else { return Ok(()) };
        let mut words = request.start_line.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let answer = match target {
            "/204" => "204 No Content\r\n\r\n".into(),
            "/304" => "304 Not Modified\r\netag: \"1\"\r\ncontent-length: 5\r\n\r\n".into(),
            "/trailers" => {
                "200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 1\r\nx-more: 2\r\n\r\n".into()
            }
            _ => format!("200 OK\r\ncontent-length: 5\r\n\r\n{}", if method == "HEAD" { "" } else { "hello" }),
        };
        stream.write_all(format!("HTTP/1.1 {answer}").as_bytes()).await?;
        stream.flush().await?;
    }
}

/// What curl prints of an answer: its head, its body, then the number of connections it opened.
async fn curl(world: &World, arguments: &[&str], targets: &[&str]) -> String {
    let address = world.fleet.edge_setup.https;
    let output = run("curl", |command| {
        command.args([
            "-sSik",
            "--max-time",
            "60",
            "--resolve",
            &format!("{HOST}:{}:{}", address.port(), address.ip()),
        ]);
        command.args(["-w", "<%{num_connects}>\n"]).args(arguments);
        for target in targets {
            command.arg(format!("https://{HOST}:{}{target}", address.port()));
        }
    });
    let output = output.await;
    assert!(output.status.success(), "curl {arguments:?} {targets:?}: {}{}", stderr(&output), stdout(&output));
    stdout(&output)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_visitor_who_waits_for_100_is_told_to_go_on() {
    let sample = Upstream::start("one", port::free().unwrap()).await.unwrap();
    let world = world(json!({"url": sample.url()})).await;
    let mut stream = BufStream::new(tls(&world, HTTP1).await);
    let head = format!("POST /up HTTP/1.1\r\nhost: {HOST}\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut told = String::new();
    for _ in 0..2 {
        timeout(PATIENCE, stream.read_line(&mut told)).await.unwrap().unwrap();
    }
    assert_eq!(told, "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"12345").await.unwrap();
    stream.flush().await.unwrap();
    let answer = timeout(PATIENCE, read(&mut stream, Kind::Response)).await.unwrap().unwrap().unwrap();
    assert!(answer.start_line.contains(" 200") && answer.text().contains("body-bytes: 5"), "{answer:?}");
    for protocol in ["--http1.1", "--http2"] {
        let arguments = [protocol, "-H", "expect: 100-continue", "--expect100-timeout", "50", "--data-binary", "12345"];
        let shown = curl(&world, &arguments, &["/up"]).await;
        assert!(shown.contains("body-bytes: 5"), "{protocol}: {shown}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_without_a_body_and_with_trailers_leave_the_connection_usable() {
    let server = Server::start().await;
    let world = world(json!({"url": format!("http://{}", server.address)})).await;
    for protocol in ["--http1.1", "--http2"] {
        let shown = curl(&world, &[protocol], &["/204", "/304", "/trailers", "/plain", "/304", "/plain"]).await;
        assert_eq!(shown.matches("hello").count(), 3, "{protocol}: {shown}");
        assert_eq!((shown.matches(" 204").count(), shown.matches(" 304").count()), (1, 2), "{protocol}: {shown}");
        assert_eq!(
            (shown.matches("<1>").count(), shown.matches("<0>").count()),
            (1, 5),
            "{protocol}: one connection\n{shown}"
        );
        let heads = curl(&world, &[protocol, "--head"], &["/plain", "/204", "/plain"]).await;
        assert_eq!(
            (heads.matches("content-length: 5").count(), heads.matches("hello").count()),
            (2, 0),
            "{protocol}: {heads}"
        );
        assert_eq!(heads.to_lowercase().matches("<0>").count(), 2, "{protocol}: one connection\n{heads}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_comes_before_the_body_was_read_reaches_the_visitor() {
    let server = Server::start().await;
    let world = world(json!({"url": format!("http://{}", server.address)})).await;
    let file = world.fleet.folder.write("upload", vec![b'x'; 20 << 20]).unwrap();
    for protocol in ["--http1.1", "--http2"] {
        let shown = curl(&world, &[protocol, "-T", &file.display().to_string()], &["/too-large"]).await;
        assert!(shown.contains(" 413") && shown.contains("refused"), "{protocol}: {shown}");
    }
    world.still_serves(HOST).await;
}
