//! WebSocket (RFC 6455), with a server that echoes.

use openssl::hash::{MessageDigest, hash};
use serde_json::json;
use support::http1::{Kind, read};
use support::port;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};
use tokio_openssl::SslStream;

use super::{HOST, HTTP1, HTTP2, PATIENCE, tls, world};
use crate::world::World;

const READ_TIMEOUT_MS: u64 = 2000;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
/// Of RFC 6455 section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

struct Echo {
    address: std::net::SocketAddr,
    task: AbortHandle,
}

impl Echo {
    async fn start() -> Self {
        let listener = TcpListener::bind(port::free().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A peer that breaks off concerns only its own connection.
                tokio::spawn(async move { drop(echo(BufStream::new(stream)).await) });
            }
        });
        Self { address, task: task.abort_handle() }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Sends one message by itself, then echoes; closes when it is told to.
async fn echo(mut stream: BufStream<TcpStream>) -> support::Result<()> {
    let Some(request) = read(&mut stream, Kind::Request).await? else { return Ok(()) };
    let Some(key) = request.header("sec-websocket-key").filter(|_| request.header("upgrade") == Some("websocket"))
    else {
        stream.write_all(b"HTTP/1.1 426 Upgrade Required\r\nupgrade: websocket\r\ncontent-length: 0\r\n\r\n").await?;
        return Ok(stream.flush().await?);
    };
    let digest = hash(MessageDigest::sha1(), format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes())?;
    let accept = openssl::base64::encode_block(&digest);
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: {accept}\r\n\r\n"
    );
    // The first message comes with the head, in one packet.
    stream.write_all(&[head.as_bytes(), &frame(TEXT, b"hello", None)].concat()).await?;
    stream.flush().await?;
    loop {
        let (kind, payload) = message(&mut stream).await?;
        stream.write_all(&frame(kind, &payload, None)).await?;
        stream.flush().await?;
        if kind == CLOSE || payload == b"close" {
            return Ok(());
        }
    }
}

fn frame(kind: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let masked = if mask.is_some() { 0x80 } else { 0 };
    let mut bytes = vec![0x80 | kind];
    match payload.len() {
        short @ 0..126 => bytes.push(masked | short as u8),
        long => {
            bytes.push(masked | 127);
            bytes.extend((long as u64).to_be_bytes());
        }
    }
    bytes.extend(mask.unwrap_or_default().iter().take(if mask.is_some() { 4 } else { 0 }));
    let mask = mask.unwrap_or_default();
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

async fn message(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).await?;
    let length = match head[1] & 0x7f {
        127 => stream.read_u64().await?,
        126 => stream.read_u16().await?.into(),
        short => short.into(),
    };
    let mut mask = [0; 4];
    if head[1] & 0x80 != 0 {
        stream.read_exact(&mut mask).await?;
    }
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut payload).await?;
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    Ok((head[0] & 0xf, payload))
}

type Socket = BufStream<SslStream<TcpStream>>;

async fn open(world: &World) -> Socket {
    let mut socket = BufStream::new(tls(world, HTTP1).await);
    let request = format!(
        "GET /chat HTTP/1.1\r\nhost: {HOST}\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: {KEY}\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    socket.flush().await.unwrap();
    let answer = timeout(PATIENCE, read(&mut socket, Kind::Response)).await.unwrap().unwrap().unwrap();
    assert!(answer.start_line.contains(" 101"), "{answer:?}");
    assert_eq!(answer.header("sec-websocket-accept"), Some(ACCEPT));
    assert!(answer.header("upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket")), "{answer:?}");
    assert!(answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade")), "{answer:?}");
    assert_eq!(next(&mut socket).await, (TEXT, b"hello".to_vec()));
    socket
}

async fn say(socket: &mut (impl AsyncWrite + Unpin), kind: u8, payload: &[u8]) {
    socket.write_all(&frame(kind, payload, Some([1, 2, 3, 4]))).await.unwrap();
    socket.flush().await.unwrap();
}

async fn next(socket: &mut Socket) -> (u8, Vec<u8>) {
    timeout(PATIENCE, message(socket)).await.unwrap().unwrap()
}

/// Nothing more comes, and the connection ends.
async fn ended(socket: &mut Socket) -> bool {
    let mut rest = Vec::new();
    // Without a TLS closing message an end is an error; both are ends.
    let _ = timeout(PATIENCE, socket.read_to_end(&mut rest)).await.expect("the connection to end");
    rest.is_empty()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_carries_messages_both_ways_and_its_close() {
    let echo = Echo::start().await;
    let world = world(json!({"url": format!("http://{}", echo.address), "read_timeout_ms": 60_000})).await;
    let mut socket = open(&world).await;
    let large: Vec<u8> = (0..1_000_000u32).map(|n| n as u8).collect();
    for (kind, payload) in [(TEXT, &b"one"[..]), (BINARY, &large), (TEXT, b"")] {
        say(&mut socket, kind, payload).await;
        assert!(next(&mut socket).await == (kind, payload.to_vec()), "{} bytes", payload.len());
    }
    say(&mut socket, CLOSE, &[0x03, 0xe8]).await;
    assert_eq!(next(&mut socket).await, (CLOSE, vec![0x03, 0xe8]));
    assert!(ended(&mut socket).await);

    // The server ends it; and the visitor who just goes away leaves nothing behind.
    let mut socket = open(&world).await;
    say(&mut socket, TEXT, b"close").await;
    assert_eq!(next(&mut socket).await, (TEXT, b"close".to_vec()));
    assert!(ended(&mut socket).await);
    drop(open(&world).await);
    let closed = support::wait::until("connections to be closed", PATIENCE, async || {
        match world.fleet.edge.admin.metric("latchkey_open_connections", "").await? {
            0.0 => Ok(()),
            open => support::fail(format!("{open} are open")),
        }
    });
    closed.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_on_which_nothing_moves_ends_and_one_that_is_used_does_not() {
    let echo = Echo::start().await;
    let world = world(json!({"url": format!("http://{}", echo.address), "read_timeout_ms": READ_TIMEOUT_MS})).await;
    let (mut used, began) = (open(&world).await, Instant::now());
    while began.elapsed().as_millis() < u128::from(READ_TIMEOUT_MS) * 2 {
        say(&mut used, TEXT, b"still there").await;
        assert_eq!(next(&mut used).await.0, TEXT);
        tokio::time::sleep(std::time::Duration::from_millis(READ_TIMEOUT_MS / 8)).await;
    }
    let mut idle = open(&world).await;
    let since = Instant::now();
    assert!(ended(&mut idle).await);
    assert!(since.elapsed().as_millis() >= u128::from(READ_TIMEOUT_MS) * 9 / 10, "{:?}", since.elapsed());
    // That nobody spoke is nobody's fault: the peer does not rest for it.
    for _ in 0..6 {
        assert!(ended(&mut open(&world).await).await);
    }
    assert_eq!(world.metric("latchkey_upstream_healthy_peers", "").await, 1.0);
    assert!(!world.fleet.edge.process.log().contains("culprit"), "{}", world.fleet.edge.process.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_upgrade_is_an_answer_like_any_other() {
    let echo = Echo::start().await;
    let world = world(json!({"url": format!("http://{}", echo.address)})).await;
    let answer = world.https(HOST).await.get(HOST, "/chat").await.unwrap();
    assert_eq!((answer.status, answer.header("upgrade")), (426, Some("websocket")));
}

/// RFC 8441: a server that takes WebSockets over HTTP/2 says so in its SETTINGS; of one that does not, clients ask over
/// HTTP/1.1.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http2_no_websocket_is_offered_and_connect_is_refused() {
    let echo = Echo::start().await;
    let world = world(json!({"url": format!("http://{}", echo.address)})).await;
    let (client, connection) = h2::client::handshake(tls(&world, HTTP2).await).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    let mut client = client.ready().await.unwrap();
    let request = |method: &str, uri: String| {
        let request = http::Request::builder().method(method).uri(uri).version(http::Version::HTTP_2);
        request.body(()).unwrap()
    };
    let (plain, _) = client.send_request(request("GET", format!("https://{HOST}/")), true).unwrap();
    assert_eq!(timeout(PATIENCE, plain).await.unwrap().unwrap().status(), 426, "the settings have come with it");
    assert!(!client.is_extended_connect_protocol_enabled());

    let mut client = client.ready().await.unwrap();
    let (connect, _) = client.send_request(request("CONNECT", format!("{HOST}:443")), false).unwrap();
    match timeout(PATIENCE, connect).await.unwrap() {
        Ok(answer) => assert_eq!(answer.status(), 405),
        Err(error) => assert!(error.is_reset(), "{error}"),
    }
    let mut client = client.ready().await.unwrap();
    let (plain, _) = client.send_request(request("GET", format!("https://{HOST}/")), true).unwrap();
    assert_eq!(timeout(PATIENCE, plain).await.unwrap().unwrap().status(), 426, "the connection goes on");
}
