//! Visitors that never rest. Each failed request is kept; what a client may rightly try again is not a failure: a request
//! that was never sent, and an HTTP/2 one that the server says it has not begun (RFC 9113 section 8.7).

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};
use support::visitor::Visitor;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_openssl::SslStream;

use super::HOST;

/// A slow upload takes PIECES × PAUSE: longer than an upgrade takes, shorter than drain_seconds.
const PIECES: usize = 20;
const PAUSE: Duration = Duration::from_millis(100);

pub(super) struct Load {
    over: Arc<AtomicBool>,
    visitors: JoinSet<(&'static str, Vec<String>)>,
    counts: Vec<(&'static str, Arc<AtomicUsize>)>,
}

impl Load {
    pub(super) fn start(https: &Visitor, http: &Visitor, address: SocketAddr) -> Self {
        let mut load = Self { over: Arc::new(AtomicBool::new(false)), visitors: JoinSet::new(), counts: Vec::new() };
        for _ in 0..3 {
            load.add("kept-alive", |until| kept_alive(https.clone(), until));
            load.add("new connections", |until| new_connections(https.clone(), until));
        }
        for _ in 0..2 {
            load.add("HTTP/2", |until| http2(address, until));
            load.add("slow uploads", |until| slow_uploads(https.clone(), until));
        }
        load.add("plain", |until| plain(http.clone(), until));
        load
    }

    fn add<V: Future<Output = Vec<String>> + Send + 'static>(
        &mut self,
        kind: &'static str,
        visitor: impl FnOnce(Until) -> V,
    ) {
        let answered = Arc::new(AtomicUsize::new(0));
        self.counts.push((kind, answered.clone()));
        let visitor = visitor(Until { over: self.over.clone(), answered });
        self.visitors.spawn(async move { (kind, visitor.await) });
    }

    /// Waits until each visitor has had so many more answers.
    pub(super) async fn goes_on(&self, more: usize) {
        let before: Vec<_> = self.counts.iter().map(|(_, count)| count.load(Ordering::Relaxed)).collect();
        let moved = support::wait::until("every visitor to be answered", support::wait::PATIENCE, async || {
            let behind =
                self.counts.iter().zip(&before).find(|((_, now), then)| now.load(Ordering::Relaxed) < *then + more);
            behind.map_or(Ok(()), |((kind, _), _)| support::fail(format!("{kind} wait")))
        });
        moved.await.unwrap();
    }

    /// Ends it: no request has failed. How many were answered.
    pub(super) async fn ends_without_failure(mut self) -> usize {
        self.over.store(true, Ordering::Relaxed);
        let mut failed = Vec::new();
        while let Some(ended) = self.visitors.join_next().await {
            let (kind, failures) = ended.unwrap();
            failed.extend(failures.into_iter().map(|failure| format!("{kind}: {failure}")));
        }
        assert!(failed.is_empty(), "{} requests failed:\n{}", failed.len(), failed.join("\n"));
        self.counts.iter().map(|(_, count)| count.load(Ordering::Relaxed)).sum()
    }
}

struct Until {
    over: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
}

impl Until {
    fn over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn answered(&self, status: u16, expected: u16) -> Result<(), String> {
        self.answered.fetch_add(1, Ordering::Relaxed);
        if status == expected { Ok(()) } else { Err(format!("status {status}")) }
    }
}

async fn kept_alive(visitor: Visitor, until: Until) -> Vec<String> {
    let mut failures = Vec::new();
    while !until.over() {
        let asked = async {
            let mut connection = visitor.https(HOST).await.map_err(|error| error.to_string())?;
            while !until.over() {
                let answer = connection.get(HOST, "/kept").await.map_err(|error| error.to_string())?;
                until.answered(answer.status, 200)?;
                if answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
                    break;
                }
                // Now and then a connection rests between two requests.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok(())
        };
        failures.extend(asked.await.err());
    }
    failures
}

async fn new_connections(visitor: Visitor, until: Until) -> Vec<String> {
    let mut failures = Vec::new();
    while !until.over() {
        let asked = async {
            let mut connection = visitor.https(HOST).await.map_err(|error| error.to_string())?;
            let answer = connection.get(HOST, "/new").await.map_err(|error| error.to_string())?;
            until.answered(answer.status, 200)
        };
        failures.extend(asked.await.err());
    }
    failures
}

async fn slow_uploads(visitor: Visitor, until: Until) -> Vec<String> {
    let mut failures = Vec::new();
    while !until.over() {
        let asked = async {
            let mut connection = visitor.https(HOST).await.map_err(|error| error.to_string())?;
            let pieces = [b"piece".as_slice(); PIECES];
            let answer = connection.upload(HOST, "/slow", &pieces, PAUSE).await.map_err(|error| error.to_string())?;
            until.answered(answer.status, 200)?;
            let expected = Some((PIECES * 5).to_string());
            if answer.seen("body-bytes") == expected { Ok(()) } else { Err(answer.text()) }
        };
        failures.extend(asked.await.err());
    }
    failures
}

async fn plain(visitor: Visitor, until: Until) -> Vec<String> {
    let mut failures = Vec::new();
    while !until.over() {
        let asked = async {
            let mut connection = visitor.http().await.map_err(|error| error.to_string())?;
            let answer = connection.get(HOST, "/plain").await.map_err(|error| error.to_string())?;
            until.answered(answer.status, 301)
        };
        failures.extend(asked.await.err());
    }
    failures
}

async fn http2(address: SocketAddr, until: Until) -> Vec<String> {
    let mut failures = Vec::new();
    while !until.over() {
        let mut connection = match open_http2(address).await {
            Ok(connection) => connection,
            Err(error) => {
                failures.push(error);
                continue;
            }
        };
        while !until.over() {
            // Not ready: the server has said that it goes away, and nothing was sent.
            let Ok(ready) = connection.ready().await else { break };
            connection = ready;
            let request = http::Request::get(format!("https://{HOST}/h2")).body(()).unwrap();
            let Ok((answer, _)) = connection.send_request(request, true) else { break };
            match read_http2(answer).await {
                Ok(status) => failures.extend(until.answered(status, 200).err()),
                Err(error) if not_begun(&error) => break,
                Err(error) => {
                    failures.push(error.to_string());
                    break;
                }
            }
        }
    }
    failures
}

fn not_begun(error: &h2::Error) -> bool {
    let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    refused || error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR)
}

async fn read_http2(answer: h2::client::ResponseFuture) -> Result<u16, h2::Error> {
    let answer = answer.await?;
    let status = answer.status().as_u16();
    let mut body = answer.into_body();
    while let Some(data) = body.data().await {
        body.flow_control().release_capacity(data?.len())?;
    }
    Ok(status)
}

async fn open_http2(address: SocketAddr) -> Result<SendRequest<Bytes>, String> {
    let mut connector = SslConnector::builder(SslMethod::tls_client()).unwrap();
    connector.set_verify(SslVerifyMode::NONE);
    connector.set_alpn_protos(b"\x02h2").unwrap();
    let ssl = connector.build().configure().unwrap().into_ssl(HOST).unwrap();
    let tcp = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let mut tls = SslStream::new(ssl, tcp).unwrap();
    Pin::new(&mut tls).connect().await.map_err(|error| error.to_string())?;
    let (requests, connection) = h2::client::handshake(tls).await.map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    Ok(requests)
}
