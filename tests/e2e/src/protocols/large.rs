//! Bodies of any length pass in memory that does not depend on it.

use std::net::SocketAddr;

use serde_json::json;
use support::port;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use super::{HOST, resident_mib, world};
use crate::world::{run, stderr, stdout};

/// Far more than any buffer on the way; `LATCHKEY_LARGE_MIB` for a longer look.
const BODY_MIB: usize = 256;
/// Of windows, buffers and the allocator.
const GROWTH_MIB_MAX: u64 = 24;

/// Reads a body and says how long it was, or sends one of the length that the target names.
struct Store {
    address: SocketAddr,
    task: AbortHandle,
}

impl Store {
    async fn start() -> Self {
        let listener = TcpListener::bind(port::free().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A peer that breaks off concerns only its own connection.
                tokio::spawn(async move { drop(serve(BufStream::new(stream)).await) });
            }
        });
        Self { address, task: task.abort_handle() }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: BufStream<TcpStream>) -> std::io::Result<()> {
    loop {
        let (mut line, mut length, mut wanted) = (String::new(), 0, 0);
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        if let Some(bytes) = line.strip_prefix("GET /").and_then(|rest| rest.split(' ').next()) {
            wanted = bytes.parse().unwrap_or(0);
        }
        while line != "\r\n" {
            line.clear();
            stream.read_line(&mut line).await?;
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        let mut buffer = vec![b'x'; 256 * 1024];
        let mut left: usize = length;
        while left > 0 {
            let at_most = buffer.len().min(left);
            match stream.read(&mut buffer[..at_most]).await? {
                0 => return Ok(()),
                read => left -= read,
            }
        }
        if wanted == 0 {
            let text = format!("{length} bytes");
            stream
                .write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len()).as_bytes())
                .await?;
        } else {
            stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {wanted}\r\n\r\n").as_bytes()).await?;
            while wanted > 0 {
                let bytes = buffer.len().min(wanted);
                stream.write_all(&buffer[..bytes]).await?;
                wanted -= bytes;
            }
        }
        stream.flush().await?;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_pass_both_ways_in_flat_memory() {
    let mib = std::env::var("LATCHKEY_LARGE_MIB").map_or(BODY_MIB, |text| text.parse().unwrap());
    let bytes = mib << 20;
    let store = Store::start().await;
    let world = world(json!({"url": format!("http://{}", store.address)})).await;
    let file = world.fleet.folder.path().join("large");
    std::fs::File::create(&file).unwrap().set_len(bytes as u64).unwrap();
    let address = world.fleet.edge_setup.https;
    let at = |target: &str| format!("https://{HOST}:{}{target}", address.port());
    let resolve = format!("{HOST}:{}:{}", address.port(), address.ip());
    for protocol in ["--http1.1", "--http2"] {
        let (down, up) = (at(&format!("/{bytes}")), at("/up"));
        let ways: [(&str, Vec<&str>); 2] = [
            ("down", vec!["-o", "/dev/null", "-w", "%{size_download} bytes", &down]),
            ("up", vec!["-T", file.to_str().unwrap(), &up]),
        ];
        for (way, arguments) in ways {
            let before = resident_mib(&world);
            let moved = run("curl", |command| {
                command.args(["-sSk", protocol, "--resolve", &resolve, "-H", "expect:"]).args(&arguments);
            });
            tokio::pin!(moved);
            let mut peak = before;
            let output = loop {
                tokio::select! {
                    output = &mut moved => break output,
                    () = tokio::time::sleep(std::time::Duration::from_millis(20)) => peak = peak.max(resident_mib(&world)),
                }
            };
            assert_eq!(stdout(&output), format!("{bytes} bytes"), "{protocol} {way}: {}", stderr(&output));
            println!("{protocol} {way}: {mib} MiB; the proxy held {before} MiB before and {peak} MiB at most");
            assert!(peak - before < GROWTH_MIB_MAX, "{protocol} {way}: from {before} to {peak} MiB");
        }
    }
}
