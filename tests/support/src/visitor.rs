//! A visitor who can do what browsers can't: dial from a chosen loopback address, begin with a PROXY header (or with
//! garbage), name any host or none, and look at the certificate.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;

use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};
use openssl::x509::X509;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufStream};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_openssl::SslStream;

use crate::http1::{self, Kind, Message};
use crate::{Context, Result, fail};

const DEADLINE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
pub struct Visitor {
    to: SocketAddr,
    from: IpAddr,
    first_bytes: Vec<u8>,
    roots: Vec<X509>,
}

impl Visitor {
    pub fn to(address: SocketAddr) -> Self {
        Self { to: address, from: Ipv4Addr::LOCALHOST.into(), first_bytes: Vec::new(), roots: Vec::new() }
    }

    /// Which loopback address to dial from.
    pub fn from(self, address: impl Into<IpAddr>) -> Self {
        Self { from: address.into(), ..self }
    }

    /// Sent before anything else: a PROXY header, or garbage.
    pub fn beginning_with(self, first_bytes: impl Into<Vec<u8>>) -> Self {
        Self { first_bytes: first_bytes.into(), ..self }
    }

    /// Certificates must chain up to one of these roots. Without any, none is verified.
    pub fn trusting(self, roots_pem: &str) -> Result<Self> {
        let roots = X509::stack_from_pem(roots_pem.as_bytes()).context("root certificates")?;
        Ok(Self { roots, ..self })
    }

    /// A TCP connection on which the first bytes have been sent.
    pub async fn dial(&self) -> Result<TcpStream> {
        let socket = if self.to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.bind(SocketAddr::new(self.from, 0)).context(format!("dial from {}", self.from))?;
        let connected = timeout(DEADLINE, socket.connect(self.to)).await;
        let mut stream = connected.context("connect")?.context(format!("connect to {}", self.to))?;
        stream.set_nodelay(true)?;
        stream.write_all(&self.first_bytes).await.context("send the first bytes")?;
        Ok(stream)
    }

    pub async fn http(&self) -> Result<Connection> {
        Ok(Connection { stream: BufStream::new(Box::pin(self.dial().await?)), chain: Vec::new() })
    }

    /// A TLS connection to `host`, which the certificate must cover where roots are given.
    pub async fn https(&self, host: &str) -> Result<Connection> {
        self.tls(Some(host)).await
    }

    /// A TLS connection that names no host.
    pub async fn https_without_name(&self) -> Result<Connection> {
        self.tls(None).await
    }

    async fn tls(&self, host: Option<&str>) -> Result<Connection> {
        let mut connector = SslConnector::builder(SslMethod::tls_client())?;
        for root in &self.roots {
            connector.cert_store_mut().add_cert(root.clone())?;
        }
        if self.roots.is_empty() {
            connector.set_verify(SslVerifyMode::NONE);
        }
        let mut ssl = connector.build().configure()?;
        if host.is_none() {
            ssl.set_use_server_name_indication(false);
            ssl.set_verify_hostname(false);
        }
        let mut stream = SslStream::new(ssl.into_ssl(host.unwrap_or("none.invalid"))?, self.dial().await?)?;
        let handshake = timeout(DEADLINE, Pin::new(&mut stream).connect()).await.context("TLS handshake")?;
        if let Err(error) = handshake {
            let verdict = stream.ssl().verify_result();
            let verdict = if verdict == openssl::x509::X509VerifyResult::OK { "" } else { verdict.error_string() };
            return fail(format!("TLS handshake: {error} {verdict}"));
        }
        let chain = stream.ssl().peer_cert_chain().map(|c| c.iter().map(ToOwned::to_owned).collect());
        Ok(Connection { stream: BufStream::new(Box::pin(stream)), chain: chain.unwrap_or_default() })
    }

    /// What comes back before the server ends the connection, where nothing but the first bytes is sent.
    pub async fn raw_answer(&self) -> Result<Vec<u8>> {
        let mut stream = self.dial().await?;
        let mut answer = Vec::new();
        // A reset is as good an ending as any.
        let _ = timeout(DEADLINE, stream.read_to_end(&mut answer)).await.context("the server to close")?;
        Ok(answer)
    }
}

trait Stream: AsyncRead + AsyncWrite + Send {}
impl<S: AsyncRead + AsyncWrite + Send> Stream for S {}

pub struct Connection {
    stream: BufStream<Pin<Box<dyn Stream>>>,
    /// What the server presented, leaf first; empty without TLS.
    pub chain: Vec<X509>,
}

impl Connection {
    pub async fn get(&mut self, host: &str, target: &str) -> Result<Answer> {
        self.send("GET", host, target, &[], b"").await
    }

    pub async fn send(
        &mut self,
        method: &str,
        host: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer> {
        let mut head = format!("{method} {target} HTTP/1.1\r\nhost: {host}\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let kind = if method == "HEAD" { Kind::ResponseWithoutBody } else { Kind::Response };
        timeout(DEADLINE, self.exchange(&[head.as_bytes(), body].concat(), kind)).await.context("an answer")?
    }

    /// A POST whose body comes in pieces, each after a pause.
    pub async fn upload(&mut self, host: &str, target: &str, pieces: &[&[u8]], pause: Duration) -> Result<Answer> {
        let length: usize = pieces.iter().map(|piece| piece.len()).sum();
        let head = format!("POST {target} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\n\r\n");
        self.stream.write_all(head.as_bytes()).await.context("send the head")?;
        for piece in pieces {
            self.stream.flush().await.context("send the body")?;
            tokio::time::sleep(pause).await;
            self.stream.write_all(piece).await.context("send the body")?;
        }
        timeout(DEADLINE, self.exchange(b"", Kind::Response)).await.context("an answer")?
    }

    /// Whatever bytes, as they are: what comes after a request to upgrade the protocol.
    pub async fn raw(&mut self, bytes: &[u8], expected: usize) -> Result<Vec<u8>> {
        self.stream.write_all(bytes).await.context("send")?;
        self.stream.flush().await.context("send")?;
        let mut answer = vec![0; expected];
        timeout(DEADLINE, self.stream.read_exact(&mut answer)).await.context("an answer")?.context("read")?;
        Ok(answer)
    }

    async fn exchange(&mut self, request: &[u8], kind: Kind) -> Result<Answer> {
        self.stream.write_all(request).await.context("send the request")?;
        self.stream.flush().await.context("send the request")?;
        let message = http1::read(&mut self.stream, kind).await.context("read the answer")?;
        let message = message.context("the server closed the connection without an answer")?;
        let status = message.start_line.split(' ').nth(1).and_then(|s| s.parse().ok());
        Ok(Answer { status: status.context(format!("no status in {}", message.start_line))?, message })
    }

    /// The names that the server's certificate covers.
    pub fn names(&self) -> Vec<String> {
        let names = self.chain.first().and_then(|leaf| leaf.subject_alt_names());
        names.iter().flatten().filter_map(|name| name.dnsname().map(str::to_owned)).collect()
    }

    /// Who signed the server's certificate: the issuer's common name.
    pub fn issuer(&self) -> String {
        let issuer = self.chain.first().map(|leaf| leaf.issuer_name());
        let entry = issuer.and_then(|name| name.entries().last().and_then(|e| e.data().to_string().ok()));
        entry.unwrap_or_default()
    }

    pub fn fingerprint(&self) -> Result<Vec<u8>> {
        let leaf = self.chain.first().context("the server presented no certificate")?;
        Ok(leaf.digest(openssl::hash::MessageDigest::sha256())?.to_vec())
    }
}

#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    message: Message,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.message.header(name)
    }

    pub fn text(&self) -> String {
        self.message.text()
    }

    /// What the sample upstream said that it saw of a header, or of `path`, `method`, `upstream`.
    pub fn seen(&self, header: &str) -> Option<String> {
        crate::upstream::seen(&self.text(), header).map(str::to_owned)
    }
}
