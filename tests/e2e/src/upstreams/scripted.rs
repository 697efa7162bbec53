//! A customer's server that fails as the target of a request says, and remembers what it was asked.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use support::http1::{Kind, read};
use support::port;
use tokio::io::{AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

/// Reads the request, then closes the connection.
pub(super) const BREAK: &str = "/break";
/// The same, after a part of an answer's head.
pub(super) const BREAK_WITHIN_HEAD: &str = "/break-within-head";
/// The same, after an interim answer.
pub(super) const BREAK_AFTER_INTERIM: &str = "/break-after-interim";
/// Reads the request, and never answers.
pub(super) const HANG: &str = "/hang";
/// Answered 200, or 500 while the server is told to be unwell.
pub(super) const HEALTH: &str = "/healthz";

#[derive(Default)]
struct State {
    unwell: AtomicBool,
    /// Method and target of each request.
    seen: Mutex<Vec<(String, String)>>,
}

/// Ends with the value.
pub(super) struct Scripted {
    pub(super) address: SocketAddr,
    state: Arc<State>,
    task: AbortHandle,
}

impl Scripted {
    pub(super) async fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind(port::free().unwrap()).await.unwrap();
        let (address, state) = (listener.local_addr().unwrap(), Arc::<State>::default());
        let task = tokio::spawn(serve(listener, name, state.clone())).abort_handle();
        Self { address, state, task }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn be_well(&self, well: bool) {
        self.state.unwell.store(!well, Ordering::Relaxed);
    }

    pub(super) fn count(&self, method: &str, target: &str) -> usize {
        let seen = self.state.seen.lock().unwrap();
        seen.iter().filter(|(m, t)| m == method && t == target).count()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, name: &'static str, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((stream, _)) = listener.accept() => {
                let state = state.clone();
                // A peer that breaks off concerns only its own connection.
                connections.spawn(async move { drop(answer_all(stream, name, &state).await) });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn answer_all(stream: TcpStream, name: &str, state: &State) -> support::Result<()> {
    let mut stream = BufStream::new(stream);
    while let Some(request) = read(&mut stream, Kind::Request).await? {
        let mut words = request.start_line.split(' ').map(str::to_owned);
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        state.seen.lock().unwrap().push((method, target.clone()));
        let (status, last_words) = match target.as_str() {
            BREAK => (0, ""),
            BREAK_WITHIN_HEAD => (0, "HTTP/1.1 200 O"),
            BREAK_AFTER_INTERIM => (0, "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"),
            HANG => return std::future::pending().await,
            HEALTH if state.unwell.load(Ordering::Relaxed) => (500, ""),
            _ => (200, ""),
        };
        if status == 0 {
            stream.write_all(last_words.as_bytes()).await?;
            stream.flush().await?;
            break;
        }
        let body = format!("upstream: {name}\n");
        let answer = format!("HTTP/1.1 {status} \r\ncontent-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await?;
        stream.flush().await?;
    }
    Ok(())
}
