//! A connection on which anything may be sent.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::time::{Duration, Instant};

use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_openssl::SslStream;

use super::Siege;

pub(super) const HTTP1: &[u8] = b"\x08http/1.1";
pub(super) const HTTP2: &[u8] = b"\x02h2";
const DEADLINE: Duration = Duration::from_secs(60);
/// Small: a visitor who does not read is noticed after few bytes.
const RECEIVE_BYTES: u32 = 16 * 1024;

trait Stream: AsyncRead + AsyncWrite + Send {}
impl<S: AsyncRead + AsyncWrite + Send> Stream for S {}

pub(super) struct Wire {
    stream: Pin<Box<dyn Stream>>,
    /// Since when it was being opened.
    pub(super) opened: Instant,
}

pub(super) async fn dial(to: SocketAddr, from: impl Into<IpAddr>) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(RECEIVE_BYTES).unwrap();
    socket.bind(SocketAddr::new(from.into(), 0)).unwrap();
    let stream = socket.connect(to).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

impl Wire {
    pub(super) async fn plain(to: SocketAddr, from: impl Into<IpAddr>) -> Self {
        let opened = Instant::now();
        Self { stream: Box::pin(dial(to, from).await), opened }
    }

    /// TLS to the proxy, for `HOST`.
    pub(super) async fn tls(siege: &Siege, from: impl Into<IpAddr>, protocol: &[u8]) -> Self {
        Self::try_tls(siege, from, protocol).await.unwrap()
    }

    pub(super) async fn try_tls(
        siege: &Siege,
        from: impl Into<IpAddr>,
        protocol: &[u8],
    ) -> Result<Self, openssl::ssl::Error> {
        let opened = Instant::now();
        let mut connector = SslConnector::builder(SslMethod::tls_client()).unwrap();
        connector.set_verify(SslVerifyMode::NONE);
        connector.set_alpn_protos(protocol).unwrap();
        let ssl = connector.build().configure().unwrap().into_ssl(super::HOST).unwrap();
        let mut stream = SslStream::new(ssl, dial(siege.world.fleet.edge_setup.https, from).await).unwrap();
        timeout(DEADLINE, Pin::new(&mut stream).connect()).await.unwrap()?;
        assert_eq!(stream.ssl().selected_alpn_protocol(), Some(&protocol[1..]));
        Ok(Self { stream: Box::pin(stream), opened })
    }

    /// False where the proxy has ended the connection.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> bool {
        let sent = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        timeout(DEADLINE, sent).await.unwrap().is_ok()
    }

    /// What there is to read; nothing once the connection has ended.
    pub(super) async fn read(&mut self) -> Vec<u8> {
        let mut buffer = vec![0; 16 * 1024];
        // A reset is as good an ending as any.
        let read = timeout(DEADLINE, self.stream.read(&mut buffer)).await.expect("neither bytes nor an end");
        buffer.truncate(read.unwrap_or(0));
        buffer
    }

    pub(super) async fn read_to_end(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let read = self.read().await;
            if read.is_empty() {
                return all;
            }
            all.extend(read);
        }
    }

    /// Sends and reads to the end of the connection.
    pub(super) async fn exchange(&mut self, bytes: &[u8]) -> String {
        self.send(bytes).await;
        String::from_utf8_lossy(&self.read_to_end().await).into_owned()
    }

    /// Sends piece after piece, one every so often, until the proxy ends the connection: what it said.
    pub(super) async fn drip(&mut self, every: Duration, mut piece: impl FnMut() -> Vec<u8>) -> Vec<u8> {
        let (mut said, mut buffer, started) = (Vec::new(), vec![0; 16 * 1024], Instant::now());
        loop {
            assert!(started.elapsed() < DEADLINE, "the connection never ended");
            tokio::select! {
                read = self.stream.read(&mut buffer) => match read {
                    Ok(0) | Err(_) => return said,
                    Ok(read) => said.extend(&buffer[..read]),
                },
                () = sleep(every) => {
                    // If this fails the end is there to be read.
                    let _ = self.stream.write_all(&piece()).await;
                    let _ = self.stream.flush().await;
                }
            }
        }
    }
}
