//! HTTP/1.1 as the sample upstream and the test visitor speak it (RFC 9112): no more than those two need, but correct
//! about where a message ends, so that connections can be kept.

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::{Context, Result, fail};

const HEAD_BYTES_MAX: usize = 128 * 1024;
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A request or a response.
#[derive(Debug, Clone)]
pub struct Message {
    pub start_line: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Request,
    Response,
    /// The answer to HEAD, and 204 and 304: never a body.
    ResponseWithoutBody,
}

impl Message {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Of a response.
    fn status(&self) -> Option<u16> {
        self.start_line.strip_prefix("HTTP/")?.split(' ').nth(1)?.parse().ok()
    }

    fn kind(&self, kind: Kind) -> Kind {
        let empty = matches!(self.status(), Some(101 | 204 | 304));
        if empty && kind == Kind::Response { Kind::ResponseWithoutBody } else { kind }
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Whether the sender closes the connection after this message.
    pub fn closes(&self) -> bool {
        self.says("connection", "close") || self.start_line.contains("HTTP/1.0")
    }

    fn says(&self, name: &str, word: &str) -> bool {
        let mut values = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value);
        values.any(|value| value.to_ascii_lowercase().contains(word))
    }
}

/// The next message; none where the peer closed the connection between two.
pub async fn read<R: AsyncBufRead + AsyncWrite + Unpin>(stream: &mut R, kind: Kind) -> Result<Option<Message>> {
    let Some(mut message) = read_head(stream).await? else { return Ok(None) };
    // Interim answers come before the one that counts.
    while kind != Kind::Request && message.status().is_some_and(|status| status / 100 == 1 && status != 101) {
        let Some(next) = read_head(stream).await? else { return fail("the connection ended after an interim answer") };
        message = next;
    }
    if kind == Kind::Request && message.header("expect").is_some_and(|e| e.eq_ignore_ascii_case("100-continue")) {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        stream.flush().await?;
    }
    message.body = read_body(stream, &message, message.kind(kind)).await?;
    Ok(Some(message))
}

async fn read_head<R: AsyncBufRead + Unpin>(stream: &mut R) -> Result<Option<Message>> {
    let mut lines = Vec::new();
    let mut size = 0;
    loop {
        let mut line = Vec::new();
        let limit = (HEAD_BYTES_MAX - size) as u64;
        let read = (&mut *stream).take(limit).read_until(b'\n', &mut line).await?;
        size += read;
        if read == 0 && lines.is_empty() && size < HEAD_BYTES_MAX {
            return Ok(None);
        }
        if !line.ends_with(b"\n") {
            return fail(format!(
                "the connection ended within the head of a message, or it is over {HEAD_BYTES_MAX} bytes"
            ));
        }
        let line = String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned();
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let mut lines = lines.into_iter();
    let start_line = lines.next().context("a message starts with an empty line")?;
    let split = |line: String| {
        let (name, value) = line.split_once(':').context(format!("not a header: {line}"))?;
        Ok((name.to_owned(), value.trim().to_owned()))
    };
    let headers = lines.map(split).collect::<Result<_>>()?;
    Ok(Some(Message { start_line, headers, body: Vec::new() }))
}

async fn read_body<R: AsyncBufRead + Unpin>(stream: &mut R, head: &Message, kind: Kind) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    if kind == Kind::ResponseWithoutBody {
        return Ok(body);
    }
    if head.says("transfer-encoding", "chunked") {
        return read_chunks(stream).await;
    }
    match head.header("content-length") {
        Some(length) => {
            let length: usize = length.parse().context(format!("content-length {length}"))?;
            if length > BODY_BYTES_MAX {
                return fail(format!("a body of {length} bytes, at most {BODY_BYTES_MAX} are read"));
            }
            body.resize(length, 0);
            stream.read_exact(&mut body).await?;
        }
        None if kind == Kind::Response => {
            stream.take(BODY_BYTES_MAX as u64).read_to_end(&mut body).await?;
        }
        None => {}
    }
    Ok(body)
}

async fn read_chunks<R: AsyncBufRead + Unpin>(stream: &mut R) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        stream.take(64).read_line(&mut line).await?;
        let digits = line.trim_end().split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(digits, 16).context(format!("chunk size {line:?}"))?;
        let start = body.len();
        if start + size > BODY_BYTES_MAX {
            return fail(format!("a body over {BODY_BYTES_MAX} bytes"));
        }
        body.resize(start + size, 0);
        stream.read_exact(&mut body[start..]).await?;
        if size == 0 {
            // Trailers, none of which matter here, end with an empty line.
            while read_trailer(stream).await? {}
            return Ok(body);
        }
        let mut end = [0; 2];
        stream.read_exact(&mut end).await?;
    }
}

async fn read_trailer<R: AsyncBufRead + Unpin>(stream: &mut R) -> Result<bool> {
    let mut line = String::new();
    stream.take(HEAD_BYTES_MAX as u64).read_line(&mut line).await?;
    Ok(!line.trim_end().is_empty())
}
