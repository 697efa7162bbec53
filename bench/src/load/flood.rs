//! Visitors who name hosts that do not exist, so many a second, each from another address and for another name.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use openssl::ssl::{Ssl, SslContext, SslMethod, SslStream};
use support::{Context, Result, fail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::time::timeout;

/// What is replaced in the recorded greeting; as long as each random name.
const NAME: &str = "unknown-000000000000.example";
const TICK: Duration = Duration::from_millis(2);
/// More than these are not sent: the server is too slow for the rate.
const OPEN_MAX: u64 = 4000;
const ANSWER: Duration = Duration::from_secs(5);

/// Runs on a thread of its own until it is stopped.
pub struct Flood {
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
    thread: Option<JoinHandle<Result<()>>>,
}

#[derive(Default)]
struct Counts {
    answered: AtomicU64,
    failed: AtomicU64,
    open: AtomicU64,
}

impl Flood {
    pub fn start(to: SocketAddr, a_second: u32) -> Result<Self> {
        let (stop, counts, greeting) = (Arc::new(AtomicBool::new(false)), Arc::new(Counts::default()), greeting()?);
        let (told, counted) = (stop.clone(), counts.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(flood(to, a_second, greeting, &told, &counted))
        });
        Ok(Self { stop, counts, thread: Some(thread) })
    }

    /// Names that were refused, and connections that got no answer.
    pub fn counts(&self) -> (u64, u64) {
        (self.counts.answered.load(Ordering::Relaxed), self.counts.failed.load(Ordering::Relaxed))
    }

    pub fn stop(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("a flood is stopped once")?;
        thread.join().ok().context("the flood panicked")?
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

async fn flood(
    to: SocketAddr,
    a_second: u32,
    greeting: Greeting,
    stop: &AtomicBool,
    counts: &Arc<Counts>,
) -> Result<()> {
    let (start, mut sent) = (Instant::now(), 0u64);
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(TICK).await;
        let due = (start.elapsed().as_secs_f64() * f64::from(a_second)) as u64;
        while sent < due {
            sent += 1;
            if counts.open.load(Ordering::Relaxed) >= OPEN_MAX {
                counts.failed.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            counts.open.fetch_add(1, Ordering::Relaxed);
            let (bytes, counts) = (greeting.naming(sent), counts.clone());
            tokio::spawn(async move {
                let answered = timeout(ANSWER, visit(to, sent, &bytes)).await;
                let ended = if matches!(answered, Ok(Ok(()))) { &counts.answered } else { &counts.failed };
                ended.fetch_add(1, Ordering::Relaxed);
                counts.open.fetch_sub(1, Ordering::Relaxed);
            });
        }
    }
    Ok(())
}

/// One greeting, and whatever is the answer.
async fn visit(to: SocketAddr, number: u64, greeting: &[u8]) -> Result<()> {
    let socket = TcpSocket::new_v4()?;
    let [.., high, low] = (number % 16_000).to_be_bytes();
    socket.bind(SocketAddr::from(([127, 7, high, low.max(1)], 0)))?;
    let mut stream = socket.connect(to).await?;
    stream.write_all(greeting).await?;
    let mut answer = [0; 512];
    let read = stream.read(&mut answer).await?;
    // An alert (RFC 8446 section 6): nothing else is right for such a name.
    if read == 0 || answer[0] == 21 { Ok(()) } else { fail("a server hello for a name that does not exist") }
}

/// A ClientHello, recorded once: making one each time would only cost the sender.
struct Greeting {
    bytes: Vec<u8>,
    name_at: usize,
}

impl Greeting {
    fn naming(&self, number: u64) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        // Spread over all names: one after the other would be too easy to tell.
        let random = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) & 0xFFFF_FFFF_FFFF;
        let name = format!("unknown-{random:012x}.example");
        bytes[self.name_at..self.name_at + NAME.len()].copy_from_slice(name.as_bytes());
        bytes
    }
}

fn greeting() -> Result<Greeting> {
    let mut builder = SslContext::builder(SslMethod::tls_client())?;
    builder.set_groups_list("X25519")?;
    let mut ssl = Ssl::new(&builder.build())?;
    ssl.set_hostname(NAME)?;
    let mut stream = SslStream::new(ssl, Recorder(Vec::new()))?;
    // Ends where the answer would have to come.
    let _ = stream.connect();
    let bytes = stream.get_ref().0.clone();
    let name_at = bytes.windows(NAME.len()).position(|part| part == NAME.as_bytes());
    Ok(Greeting { bytes, name_at: name_at.context("the name in the greeting")? })
}

struct Recorder(Vec<u8>);

impl Read for Recorder {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::WouldBlock.into())
    }
}

impl Write for Recorder {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_greeting_names_another_host_and_is_else_the_same() {
        let greeting = greeting().unwrap();
        let (first, second) = (greeting.naming(1), greeting.naming(2));
        assert_eq!(first.len(), second.len());
        let differing: Vec<usize> = (0..first.len()).filter(|at| first[*at] != second[*at]).collect();
        let name = greeting.name_at..greeting.name_at + NAME.len();
        assert!(!differing.is_empty() && differing.iter().all(|at| name.contains(at)), "{differing:?}");
        assert_eq!(first[0], 22, "a handshake record");
    }
}
