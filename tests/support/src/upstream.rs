//! A sample customer's server: answers every request with what it saw, as text that people and tests read.

use std::net::SocketAddr;
use std::pin::Pin;

use openssl::ssl::{Ssl, SslAcceptor, SslMethod};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio_openssl::SslStream;

use crate::authority::Issued;
use crate::http1::{Kind, Message, read};
use crate::{Context, Result};

/// Asks the upstream to add a response header, as in `?respond-with=strict-transport-security:max-age=1`.
const RESPOND_WITH: &str = "respond-with=";

/// Ends with the value.
pub struct Upstream {
    pub address: SocketAddr,
    scheme: &'static str,
    task: AbortHandle,
}

impl Upstream {
    /// `name` is the first line of each answer, so that two upstreams can be told apart.
    pub async fn start(name: &str, address: SocketAddr) -> Result<Self> {
        Self::start_with(name, address, None).await
    }

    /// The same over TLS.
    pub async fn start_tls(name: &str, address: SocketAddr, issued: &Issued) -> Result<Self> {
        let mut acceptor = SslAcceptor::mozilla_modern_v5(SslMethod::tls_server())?;
        acceptor.set_certificate(&issued.certificate)?;
        acceptor.set_private_key(&issued.key)?;
        Self::start_with(name, address, Some(acceptor.build())).await
    }

    async fn start_with(name: &str, address: SocketAddr, tls: Option<SslAcceptor>) -> Result<Self> {
        let listener = TcpListener::bind(address).await.context(format!("sample upstream on {address}"))?;
        let address = listener.local_addr()?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let task = tokio::spawn(serve(listener, name.to_owned(), tls)).abort_handle();
        Ok(Self { address, scheme, task })
    }

    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, name: String, tls: Option<SslAcceptor>) {
    // Connections end with this set when the task is aborted.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((stream, _)) = listener.accept() => {
                let (name, tls) = (name.clone(), tls.clone());
                connections.spawn(async move {
                    // A peer that breaks off concerns only its own connection.
                    let _ = match tls {
                        Some(acceptor) => answer_over_tls(stream, &acceptor, &name).await,
                        None => answer_all(stream, &name).await,
                    };
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn answer_over_tls(stream: TcpStream, acceptor: &SslAcceptor, name: &str) -> Result<()> {
    let mut stream = SslStream::new(Ssl::new(acceptor.context())?, stream)?;
    Pin::new(&mut stream).accept().await?;
    answer_all(stream, name).await
}

async fn answer_all(stream: impl AsyncRead + AsyncWrite + Unpin, name: &str) -> Result<()> {
    let mut stream = BufStream::new(stream);
    while let Some(request) = read(&mut stream, Kind::Request).await? {
        stream.write_all(&answer(&request, name)).await?;
        stream.flush().await?;
        if request.closes() {
            break;
        }
    }
    Ok(())
}

fn answer(request: &Message, name: &str) -> Vec<u8> {
    let mut parts = request.start_line.split(' ');
    let (method, target) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let mut text = format!("upstream: {name}\nmethod: {method}\npath: {target}\nbody-bytes: {}\n", request.body.len());
    for (header, value) in &request.headers {
        text.push_str(&format!("{}: {value}\n", header.to_ascii_lowercase()));
    }
    let extra = target.split(['?', '&']).find_map(|part| part.strip_prefix(RESPOND_WITH));
    let extra = extra.and_then(|e| e.split_once(':')).map(|(n, v)| format!("{n}: {v}\r\n")).unwrap_or_default();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\n{extra}\r\n",
        text.len()
    );
    let body = if method == "HEAD" { "" } else { &text };
    format!("{head}{body}").into_bytes()
}

/// Reads back what the upstream said that it saw.
pub fn seen<'a>(answer: &'a str, header: &str) -> Option<&'a str> {
    answer.lines().find_map(|line| line.strip_prefix(header)?.strip_prefix(": "))
}
