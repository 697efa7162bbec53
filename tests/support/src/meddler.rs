//! Stands between a client and a server that speak in the clear, and meddles with what the server is asked or answers.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::{Context, Result, port};

/// What happens from now on, on open connections and new ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meddling {
    None,
    /// Each piece of an answer comes so much later.
    Late(Duration),
    /// Half of a piece comes, and then nothing.
    HalfAnAnswer,
    /// Something else comes.
    Garbage(Vec<u8>),
    /// The server is asked for `.1` where the client asked for `.0`; both are of one length.
    AskForAnother(String, String),
}

/// Ends with the value.
pub struct Meddler {
    pub address: SocketAddr,
    mode: watch::Sender<Meddling>,
    task: AbortHandle,
}

impl Meddler {
    pub async fn start(server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(port::free()?).await.context("a meddler")?;
        let address = listener.local_addr()?;
        let (mode, seen) = watch::channel(Meddling::None);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // Either side that breaks off ends both.
                tokio::spawn(pass(client, server, seen.clone()));
            }
        });
        Ok(Self { address, mode, task: task.abort_handle() })
    }

    pub fn set(&self, mode: Meddling) {
        self.mode.send_replace(mode);
    }
}

impl Drop for Meddler {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(client: TcpStream, server: SocketAddr, mode: watch::Receiver<Meddling>) -> Result<()> {
    let server = TcpStream::connect(server).await?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let asks = async {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = from_client.read(&mut buffer).await?;
            if read == 0 {
                return Ok::<_, crate::Error>(());
            }
            let mut bytes = buffer[..read].to_vec();
            if let Meddling::AskForAnother(one, other) = &*mode.borrow() {
                replace(&mut bytes, one.as_bytes(), other.as_bytes());
            }
            to_server.write_all(&bytes).await?;
        }
    };
    let answers = async {
        let (mut buffer, mut stuck) = (vec![0; 64 * 1024], false);
        loop {
            let read = from_server.read(&mut buffer).await?;
            if read == 0 {
                return Ok::<_, crate::Error>(());
            }
            if stuck {
                continue;
            }
            let now = mode.borrow().clone();
            let bytes = match now {
                Meddling::None | Meddling::AskForAnother(..) => buffer[..read].to_vec(),
                Meddling::Late(by) => {
                    tokio::time::sleep(by).await;
                    buffer[..read].to_vec()
                }
                Meddling::HalfAnAnswer => {
                    stuck = true;
                    buffer[..read / 2].to_vec()
                }
                Meddling::Garbage(garbage) => garbage,
            };
            to_client.write_all(&bytes).await?;
        }
    };
    tokio::select! {
        ended = asks => ended,
        ended = answers => ended,
    }
}

fn replace(bytes: &mut [u8], one: &[u8], other: &[u8]) {
    debug_assert_eq!(one.len(), other.len());
    for at in 0..(bytes.len() + 1).saturating_sub(one.len()) {
        if bytes[at..].starts_with(one) {
            bytes[at..at + one.len()].copy_from_slice(other);
        }
    }
}
