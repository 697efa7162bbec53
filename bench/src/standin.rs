//! What stands behind the servers while they are measured: one upstream for all, and a stand-in for CertService that
//! only lists names and hands out prepared bundles.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use contract::Hostname;
use contract::api::{CHANGES_MAX, Change, ChangePage};
use support::http1::{Kind, Message, read};
use support::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use crate::names;

/// Of each answer of the upstream.
pub const BODY_BYTES: usize = 1024;

/// A server in this process; ends with the value.
pub struct Server {
    pub address: SocketAddr,
    task: AbortHandle,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Answers every request with the same kilobyte and keeps connections open.
pub async fn upstream() -> Result<Server> {
    let head = format!(
        "HTTP/1.1 200 OK\r\ndate: Mon, 23 Nov 2026 12:00:00 GMT\r\ncontent-type: text/html; charset=utf-8\r\n\
         content-length: {BODY_BYTES}\r\ncache-control: no-store\r\netag: \"5f3759df\"\r\n\r\n"
    );
    let answer: Arc<[u8]> = [head.into_bytes(), vec![b'x'; BODY_BYTES]].concat().into();
    serve(move |stream| answer_all(stream, answer.clone())).await
}

async fn answer_all(mut stream: TcpStream, answer: Arc<[u8]>) -> Result<()> {
    let mut buffer = [0; 8192];
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        filled += read;
        if read == 0 {
            return Ok(());
        }
        // One request at a time on a connection, and none has a body.
        if buffer[..filled].ends_with(b"\r\n\r\n") {
            filled = 0;
            stream.write_all(&answer).await?;
        }
    }
}

/// CertService as the edge sees it: `known` names in the feed, and the bundles of some.
pub async fn certservice(known: usize, bundles: HashMap<String, String>) -> Result<Server> {
    let bundles = Arc::new(bundles);
    serve(move |stream| {
        let bundles = bundles.clone();
        async move {
            let mut stream = BufStream::new(stream);
            while let Some(request) = read(&mut stream, Kind::Request).await? {
                let (status, body) = certservice_answer(&request, known, &bundles)?;
                stream.write_all(&response(status, &body)).await?;
                stream.flush().await?;
            }
            Ok(())
        }
    })
    .await
}

fn certservice_answer(request: &Message, known: usize, bundles: &HashMap<String, String>) -> Result<(u16, String)> {
    let target = request.start_line.split(' ').nth(1).unwrap_or_default();
    if let Some(name) = target.strip_prefix("/v1/bundles/") {
        return Ok(bundles.get(name).map_or((404, String::new()), |token| (200, token.clone())));
    }
    if !target.starts_with("/v1/changes") {
        return Ok((200, "{}".into()));
    }
    let since = target.split(['?', '&']).find_map(|part| part.strip_prefix("since=")?.parse::<usize>().ok());
    let since = since.unwrap_or(0);
    let until = known.min(since + CHANGES_MAX as usize);
    let change = |number: usize| {
        let domain = Hostname::parse(&names::host(number)).context("a name of our own")?;
        Ok(Change { cursor: number as u64 + 1, domain, revision: Some(1), renewal_failing_since: None })
    };
    let changes = (since..until).map(change).collect::<Result<Vec<_>>>()?;
    let page = ChangePage { changes, cursor: until.max(since) as u64, more: until < known };
    Ok((200, serde_json::to_string(&page)?))
}

/// What Caddy asks before it looks a name up: yes to those that exist.
pub async fn permission(known: usize) -> Result<Server> {
    serve(move |stream| async move {
        let mut stream = BufStream::new(stream);
        while let Some(request) = read(&mut stream, Kind::Request).await? {
            let name = request.start_line.split(['=', ' ', '&']).find(|part| part.ends_with(".example"));
            let number = name.and_then(|name| name.strip_prefix("shop")?.strip_suffix(".example")?.parse().ok());
            let status = if number.is_some_and(|number: usize| number < known) { 200 } else { 404 };
            stream.write_all(&response(status, "")).await?;
            stream.flush().await?;
        }
        Ok(())
    })
    .await
}

fn response(status: u16, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} -\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

async fn serve<F>(answer: impl Fn(TcpStream) -> F + Send + 'static) -> Result<Server>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let accept = async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            tokio::spawn(answer(stream));
        }
    };
    Ok(Server { address, task: tokio::spawn(accept).abort_handle() })
}
