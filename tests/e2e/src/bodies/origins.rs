//! Customers' servers that send bodies in pieces, over HTTP/1 and HTTP/2, and remember what they were asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, Request, Response};
use serde_json::{Value, json};
use support::http1::{Kind, read};
use support::port;
use tokio::io::{AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// 70 bytes, with an end inside the name.
const PAGE: [&str; 3] = ["<a href='https://shop-7.sa", "as.example/'>https://shop-7.saas.exa", "mpl</a>\n"];

/// Method, target, and the head as text.
type Seen = Arc<Mutex<Vec<(String, String, String)>>>;

/// Ends with the value.
pub(crate) struct Origin {
    pub(crate) name: &'static str,
    address: SocketAddr,
    seen: Seen,
    task: AbortHandle,
}

impl Origin {
    pub(crate) async fn http1() -> Self {
        Self::start("an HTTP/1 server", |stream, seen| async move { drop(answer_http1(stream, seen).await) }).await
    }

    pub(crate) async fn http2() -> Self {
        Self::start("an HTTP/2 server", answer_http2).await
    }

    async fn start<F>(name: &'static str, serve: fn(TcpStream, Seen) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(port::free().unwrap()).await.unwrap();
        let (address, seen) = (listener.local_addr().unwrap(), Seen::default());
        let task = tokio::spawn({
            let seen = seen.clone();
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    stream.set_nodelay(true).unwrap();
                    tokio::spawn(serve(stream, seen.clone()));
                }
            }
        });
        Self { name, address, seen, task: task.abort_handle() }
    }

    pub(crate) fn upstream(&self) -> Value {
        let url = format!("http://{}", self.address);
        if self.name.contains("/2") { json!({"url": url, "http": "2"}) } else { json!({"url": url}) }
    }

    /// The heads of such requests.
    pub(crate) fn seen(&self, method: &str, target: &str) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|(m, t, _)| m == method && t == target).map(|(_, _, head)| head.clone()).collect()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What is particular to a target: status and fields.
fn fields(target: &str) -> (u16, Vec<(&'static str, &'static str)>) {
    let kind = if target == "/image" { "image/png" } else { "text/html" };
    let mut fields = vec![("content-type", kind), ("etag", "\"1\"")];
    match target {
        "/no-transform" => fields.push(("cache-control", "max-age=1, no-transform")),
        "/partial" => {
            fields.push(("content-range", "bytes 0-69/100"));
            return (206, fields);
        }
        "/304" => return (304, fields),
        _ => fields.extend([("accept-ranges", "bytes"), ("repr-digest", "sha-256=:AA==:")]),
    }
    (200, fields)
}

async fn answer_http1(stream: TcpStream, seen: Seen) -> support::Result<()> {
    let mut stream = BufStream::new(stream);
    while let Some(request) = read(&mut stream, Kind::Request).await? {
        let mut words = request.start_line.split(' ').map(str::to_owned);
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let head: String = request.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
        seen.lock().unwrap().push((method.clone(), target.clone(), head.to_lowercase()));
        let ((status, fields), length) = (fields(&target), PAGE.concat().len());
        let mut head = format!("HTTP/1.1 {status} \r\n");
        fields.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
        if let Some((_, mib)) = target.split_once("?mib=") {
            let mib: usize = mib.parse().unwrap_or_default();
            stream.write_all(format!("{head}content-length: {}\r\n\r\n", mib << 20).as_bytes()).await?;
            for _ in 0..mib {
                stream.write_all(&vec![b'x'; 1 << 20]).await?;
            }
        } else if method == "POST" {
            let body = format!("{} bytes: {}", request.body.len(), request.text());
            stream.write_all(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes()).await?;
        } else if target == "/nothing" {
            stream.write_all(format!("{head}content-length: 0\r\n\r\n").as_bytes()).await?;
        } else if status == 304 {
            stream.write_all(format!("{head}\r\n").as_bytes()).await?;
        } else if method == "HEAD" {
            stream.write_all(format!("{head}content-length: {length}\r\n\r\n").as_bytes()).await?;
        } else if target == "/html/last" || !target.starts_with("/html") {
            stream.write_all(format!("{head}content-length: {length}\r\n\r\n").as_bytes()).await?;
            for piece in PAGE {
                stream.write_all(piece.as_bytes()).await?;
                stream.flush().await?;
            }
        } else {
            stream.write_all(format!("{head}transfer-encoding: chunked\r\n\r\n").as_bytes()).await?;
            for piece in PAGE {
                stream.write_all(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes()).await?;
                stream.flush().await?;
            }
            let trailers = if target == "/html/trailers" { "x-sum: 1\r\n" } else { "" };
            stream.write_all(format!("0\r\n{trailers}\r\n").as_bytes()).await?;
        }
        stream.flush().await?;
    }
    Ok(())
}

async fn answer_http2(stream: TcpStream, seen: Seen) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let seen = seen.clone();
        // A peer that breaks off concerns only its own request.
        tokio::spawn(async move { drop(answer(request, respond, seen).await) });
    }
}

async fn answer(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, seen: Seen) -> Result<(), h2::Error> {
    let (head, mut body) = request.into_parts();
    let (method, target) = (head.method.to_string(), head.uri.path().to_owned());
    let text = head.headers.iter().map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap_or_default()));
    seen.lock().unwrap().push((method.clone(), target.clone(), text.collect()));
    let (status, fields) = fields(&target);
    let response = fields
        .iter()
        .fold(Response::builder().status(status), |response, (name, value)| response.header(*name, *value));
    let mut upload = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        upload.extend_from_slice(&data);
    }
    if method == "POST" {
        let said = format!("{} bytes: {}", upload.len(), String::from_utf8_lossy(&upload));
        let mut stream = respond.send_response(response.body(()).unwrap(), false)?;
        return stream.send_data(said.into(), true);
    }
    let announced = target != "/html/empty" && target != "/html/trailers";
    let response = if announced { response.header("content-length", PAGE.concat().len()) } else { response };
    let mut stream = respond.send_response(response.body(()).unwrap(), false)?;
    for (at, piece) in PAGE.iter().enumerate() {
        stream.send_data(Bytes::from_static(piece.as_bytes()), announced && at + 1 == PAGE.len())?;
        tokio::task::yield_now().await;
    }
    match target.as_str() {
        "/html/empty" => stream.send_data(Bytes::new(), true),
        "/html/trailers" => {
            stream.send_trailers(HeaderMap::from_iter([(http::HeaderName::from_static("x-sum"), "1".parse().unwrap())]))
        }
        _ => Ok(()),
    }
}
