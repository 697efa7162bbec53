//! A customer's server that does, byte by byte, what a script for the request's target says.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use support::http1::{Kind, read};
use support::port;
use tokio::io::{AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

/// A script that says "for ever" ends here, as a broken test does.
const FOR_EVER: Duration = Duration::from_secs(40);

#[derive(Clone)]
pub(super) enum Act {
    Send(Vec<u8>),
    Wait(Duration),
    /// Again and again, so much apart, until the proxy breaks off.
    Repeat(Vec<u8>, Duration),
    /// Sends a reset, if not all was read or `SO_LINGER` says so.
    Reset,
    Close,
    Hang,
}

pub(super) fn send(text: impl AsRef<[u8]>) -> Act {
    Act::Send(text.as_ref().to_vec())
}

/// Ends with the value.
pub(super) struct Wild {
    address: SocketAddr,
    task: AbortHandle,
}

impl Wild {
    /// A target without a script is answered 200, with the number of the connection.
    pub(super) async fn start(scripts: HashMap<String, Vec<Act>>) -> Self {
        let listener = TcpListener::bind(port::free().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { address, task: tokio::spawn(serve(listener, Arc::new(scripts))).abort_handle() }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Wild {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, scripts: Arc<HashMap<String, Vec<Act>>>) {
    let (mut connections, count) = (JoinSet::new(), AtomicUsize::new(0));
    loop {
        tokio::select! {
            Ok((stream, _)) = listener.accept() => {
                let (scripts, number) = (scripts.clone(), count.fetch_add(1, Ordering::Relaxed));
                connections.spawn(async move { drop(answer_all(stream, number, &scripts).await) });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn answer_all(stream: TcpStream, number: usize, scripts: &HashMap<String, Vec<Act>>) -> support::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufStream::new(stream);
    while let Some(request) = read(&mut stream, Kind::Request).await? {
        let target = request.start_line.split(' ').nth(1).unwrap_or_default();
        let Some(script) = scripts.get(target) else {
            let body = format!("connection {number}");
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await?;
            stream.flush().await?;
            continue;
        };
        for act in script {
            match act {
                Act::Send(bytes) => {
                    let bytes =
                        String::from_utf8(bytes.clone()).map(|t| t.replace("{n}", &number.to_string()).into_bytes());
                    stream.write_all(&bytes.unwrap_or_else(|error| error.into_bytes())).await?;
                    stream.flush().await?;
                }
                Act::Wait(time) => tokio::time::sleep(*time).await,
                Act::Repeat(bytes, every) => {
                    let began = Instant::now();
                    while began.elapsed() < FOR_EVER {
                        stream.write_all(bytes).await?;
                        stream.flush().await?;
                        if !every.is_zero() {
                            tokio::time::sleep(*every).await;
                        }
                    }
                }
                Act::Reset => {
                    stream.get_ref().set_zero_linger()?;
                    return Ok(());
                }
                Act::Close => return Ok(()),
                Act::Hang => std::future::pending().await,
            }
        }
    }
    Ok(())
}
