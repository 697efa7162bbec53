//! HTTP/2 from end to end, as gRPC needs it: `TE: trailers` there, trailers back, messages both ways at the same time.

use std::pin::Pin;

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use openssl::ssl::{AlpnError, Ssl, SslAcceptor, SslMethod, select_next_proto};
use serde_json::json;
use support::authority::Authority;
use support::port;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_openssl::SslStream;

use super::{HOST, HTTP2, PATIENCE, tls, world};
use crate::world::World;

struct Service {
    address: std::net::SocketAddr,
    task: AbortHandle,
}

impl Service {
    async fn start(acceptor: Option<SslAcceptor>) -> Self {
        let listener = TcpListener::bind(port::free().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    match acceptor {
                        None => answer_all(stream).await,
                        Some(acceptor) => {
                            let mut stream = SslStream::new(Ssl::new(acceptor.context()).unwrap(), stream).unwrap();
                            if Pin::new(&mut stream).accept().await.is_ok() {
                                answer_all(stream).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, task: task.abort_handle() }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer_all(stream: impl AsyncRead + AsyncWrite + Unpin) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        // A peer that breaks off concerns only its own call.
        tokio::spawn(async move { drop(answer(request, respond).await) });
    }
}

async fn answer(request: Request<RecvStream>, mut respond: h2::server::SendResponse<Bytes>) -> Result<(), h2::Error> {
    let (head, mut body) = request.into_parts();
    let grpc = || Response::builder().header("content-type", "application/grpc");
    if head.headers.get("te").is_none_or(|te| te != "trailers") || head.version != http::Version::HTTP_2 {
        respond.send_response(grpc().status(400).body(()).unwrap(), true)?;
        return Ok(());
    }
    if head.uri.path() == "/Refused" {
        // Trailers only: the answer is one block of fields.
        respond.send_response(grpc().header("grpc-status", "5").body(()).unwrap(), true)?;
        return Ok(());
    }
    let mut stream = respond.send_response(grpc().body(()).unwrap(), false)?;
    let mut messages = 0;
    while let Some(message) = body.data().await {
        let message = message?;
        body.flow_control().release_capacity(message.len())?;
        if !message.is_empty() {
            stream.send_data(message, false)?;
            messages += 1;
        }
    }
    let asked = body.trailers().await?.is_some_and(|trailers| trailers.contains_key("x-checksum"));
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    trailers.insert("grpc-message", format!("{messages} messages").parse().unwrap());
    trailers.insert("x-request-trailers", if asked { "seen" } else { "none" }.parse().unwrap());
    stream.send_trailers(trailers)
}

async fn client(world: &World) -> h2::client::SendRequest<Bytes> {
    let (client, connection) = h2::client::handshake(tls(world, HTTP2).await).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    client.ready().await.unwrap()
}

fn call(method: &str) -> Request<()> {
    let uri = format!("https://{HOST}/{method}");
    let request = Request::builder().method("POST").uri(uri).version(http::Version::HTTP_2);
    request.header("content-type", "application/grpc").header("te", "trailers").body(()).unwrap()
}

/// A length-prefixed message.
fn message(text: &str) -> Bytes {
    let length = u32::try_from(text.len()).unwrap().to_be_bytes();
    [&[0], &length[..], text.as_bytes()].concat().into()
}

async fn receive(body: &mut RecvStream) -> Option<Bytes> {
    let data = timeout(PATIENCE, body.data()).await.unwrap()?.unwrap();
    body.flow_control().release_capacity(data.len()).unwrap();
    Some(data)
}

async fn calls_work(world: &World) {
    let mut client = client(world).await;
    let (answer, mut request): (_, SendStream<Bytes>) = client.send_request(call("Echo"), false).unwrap();
    let answer = timeout(PATIENCE, answer).await.unwrap().unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["content-type"]),
        (200, &"application/grpc".parse().unwrap())
    );
    let mut body = answer.into_body();
    // Each message is answered before the next is sent: neither direction waits for the end of the other.
    for text in ["one", "two", "three"] {
        request.send_data(message(text), false).unwrap();
        assert_eq!(receive(&mut body).await, Some(message(text)));
    }
    request.send_data(Bytes::new(), true).unwrap();
    assert_eq!(receive(&mut body).await, None);
    let trailers = timeout(PATIENCE, body.trailers()).await.unwrap().unwrap().expect("trailers");
    assert_eq!(
        (&trailers["grpc-status"], &trailers["grpc-message"]),
        (&"0".parse().unwrap(), &"3 messages".parse().unwrap())
    );

    let (answer, _) = client.send_request(call("Refused"), true).unwrap();
    let answer = timeout(PATIENCE, answer).await.unwrap().unwrap();
    assert_eq!(answer.headers()["grpc-status"], "5");
    assert_eq!(receive(&mut answer.into_body()).await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_works_over_http2_in_the_clear() {
    let service = Service::start(None).await;
    let world = world(json!({"url": format!("http://{}", service.address), "http": "2"})).await;
    calls_work(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_works_over_http2_with_tls() {
    let authority = Authority::new("the customer's CA").unwrap();
    let issued = authority.issue("grpc.internal").unwrap();
    let mut acceptor = SslAcceptor::mozilla_modern_v5(SslMethod::tls_server()).unwrap();
    acceptor.set_certificate(&issued.certificate).unwrap();
    acceptor.set_private_key(&issued.key).unwrap();
    acceptor.set_alpn_select_callback(|_, offered| select_next_proto(HTTP2, offered).ok_or(AlpnError::ALERT_FATAL));
    let service = Service::start(Some(acceptor.build())).await;
    let folder = support::folder::Folder::new().unwrap();
    let root = folder.write("customer.pem", authority.root_pem().unwrap()).unwrap();
    let upstream = json!({
        "url": format!("https://{}", service.address), "http": "2", "ca_file": root, "server_name": "grpc.internal",
    });
    calls_work(&world(upstream).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_goes_on_for_as_long_as_it_is_answered() {
    let service = Service::start(None).await;
    let mut world = world(json!({"url": format!("http://{}", service.address), "http": "2"})).await;
    world.fleet.edge.process.stop().await.unwrap();
    // A visitor who sends a body is waited for three times as long in all.
    world.fleet.edge_setup.settings = "[limits]\nstall_timeout_ms = 1000\n".into();
    world.fleet.edge = support::edge::Edge::start(&world.fleet.edge_setup).await.unwrap();
    let mut client = client(&world).await;
    let (answer, mut request) = client.send_request(call("Echo"), false).unwrap();
    let mut body = timeout(PATIENCE, answer).await.unwrap().unwrap().into_body();
    for pause in 0..8 {
        request.send_data(message("still there"), false).unwrap();
        assert_eq!(receive(&mut body).await, Some(message("still there")), "after {pause} pauses");
        tokio::time::sleep(std::time::Duration::from_millis(800)).await;
    }
    // Who neither sends nor is answered is not waited for.
    assert!(timeout(PATIENCE, body.data()).await.unwrap().is_none_or(|data| data.is_err()));
    let cut = world.metric("latchkey_guard_closed_total", "\"body_").await;
    assert_eq!(cut, 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_speak_http2_is_told_as_the_upstreams_fault() {
    let sample = support::upstream::Upstream::start("one", port::free().unwrap()).await.unwrap();
    let world = world(json!({"url": sample.url(), "http": "2"})).await;
    let answer = world.https(HOST).await.get(HOST, "/").await.unwrap();
    assert_eq!(answer.status, 502, "{}", answer.text());
    assert!(answer.text().contains("The site's server"), "{}", answer.text());
}
