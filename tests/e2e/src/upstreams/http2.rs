//! Customers' servers that speak HTTP/2: checked as they want to be, and restarted while requests are under way.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http::{Request, Response};
use serde_json::json;
use support::fleet::Plan;
use support::port;
use support::wait::{PATIENCE, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use crate::world::World;

const HOST: &str = "shop.example";
const RETRIES: &str = "latchkey_upstream_retries_total";

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    open: AtomicUsize,
    checks: AtomicUsize,
    /// Requests that were carried out.
    served: AtomicUsize,
    /// Requests to be refused, one after the other.
    to_refuse: AtomicUsize,
    /// Connections to be ended with GOAWAY once a request has come.
    to_end: AtomicUsize,
}

struct Server {
    address: SocketAddr,
    seen: Arc<Seen>,
    task: AbortHandle,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind(port::free().unwrap()).await.unwrap();
        let (address, seen) = (listener.local_addr().unwrap(), Arc::<Seen>::default());
        let shared = seen.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let seen = shared.clone();
                seen.connections.fetch_add(1, Ordering::SeqCst);
                seen.open.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    if take(&seen.to_end) {
                        end(stream).await
                    } else {
                        answer_all(stream, &seen).await
                    }
                    seen.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, seen, task: task.abort_handle() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn take(count: &AtomicUsize) -> bool {
    count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

/// As a server that was told to stop does: it has taken no request of this connection (RFC 9113 section 6.8).
async fn end(mut stream: TcpStream) {
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    const GOAWAY: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    const HEADERS: u8 = 1;
    let ended = async {
        stream.read_exact(&mut [0; 24]).await?;
        stream.write_all(SETTINGS).await?;
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            stream.read_exact(&mut vec![0; length as usize]).await?;
            if head[3] == HEADERS {
                return stream.write_all(GOAWAY).await;
            }
        }
    };
    let ended: std::io::Result<()> = ended.await;
    ended.unwrap();
    // Until the proxy has closed: no reset overtakes the frame.
    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
}

async fn answer_all(stream: TcpStream, seen: &Arc<Seen>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let seen = seen.clone();
        // A peer that breaks off concerns only its own call.
        tokio::spawn(async move { drop(answer(request, respond, &seen).await) });
    }
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    seen: &Seen,
) -> Result<(), h2::Error> {
    let (head, mut body) = request.into_parts();
    if head.uri.path() == "/healthz" {
        seen.checks.fetch_add(1, Ordering::SeqCst);
    } else if take(&seen.to_refuse) {
        respond.send_reset(Reason::REFUSED_STREAM);
        return Ok(());
    } else {
        seen.served.fetch_add(1, Ordering::SeqCst);
    }
    let mut length = 0;
    while let Some(data) = body.data().await {
        let data = data?;
        length += data.len();
        body.flow_control().release_capacity(data.len())?;
    }
    let mut stream = respond.send_response(Response::new(()), false)?;
    stream.send_data(format!("{} {length}", head.method).into(), true)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_checked_and_restarted_fails_no_request() {
    let (world, server) = (World::start(Plan::default()).await, Server::start().await);
    world.issue(HOST).await;
    let mut config = world.config();
    config["upstreams"]["sample"] = json!({
        "url": format!("http://{}", server.address),
        "http": "2",
        "health": {"path": "/healthz", "interval_seconds": 1, "timeout_seconds": 20, "fails": 1},
    });
    world.fleet.edge.apply(&config).await.unwrap();
    let checked = until("some checks", PATIENCE, async || {
        let checks = server.seen.checks.load(Ordering::SeqCst);
        if checks >= 4 { Ok(()) } else { support::fail(format!("{checks} so far")) }
    });
    checked.await.unwrap();
    assert_eq!(world.metric("latchkey_upstream_healthy_peers", "").await, 1.0);
    assert!(server.seen.open.load(Ordering::SeqCst) <= 1, "a check's connection ends with it");

    // Any method: the server says that it has done nothing. No check comes between.
    config["upstreams"]["sample"].as_object_mut().unwrap().remove("health");
    world.fleet.edge.apply(&config).await.unwrap();
    let mut visitor = world.https(HOST).await;
    for (ends, refuses) in [(1, 0), (0, 1)] {
        let (served, retried) = (server.seen.served.load(Ordering::SeqCst), world.metric(RETRIES, "refused").await);
        server.seen.to_end.store(ends, Ordering::SeqCst);
        server.seen.to_refuse.store(refuses, Ordering::SeqCst);
        let answer = visitor.send("POST", HOST, "/order", &[], b"one shirt").await.unwrap();
        assert_eq!((answer.status, &*answer.text()), (200, "POST 9"), "{ends} {refuses}");
        assert_eq!(server.seen.served.load(Ordering::SeqCst), served + 1);
        world.grows(RETRIES, "refused", retried, 1.0).await;
    }
    // Once: who refuses again and again is not asked for ever.
    server.seen.to_refuse.store(2, Ordering::SeqCst);
    assert_eq!(visitor.send("POST", HOST, "/order", &[], b"one shirt").await.unwrap().status, 502);
}
