//! HTTP/2 by hand (RFC 9113, RFC 7541): just enough to misbehave.

use std::net::IpAddr;

use super::Siege;
use super::wire::{HTTP2, Wire};

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(super) const DATA: u8 = 0x0;
pub(super) const HEADERS: u8 = 0x1;
pub(super) const PRIORITY: u8 = 0x2;
pub(super) const RST_STREAM: u8 = 0x3;
pub(super) const SETTINGS: u8 = 0x4;
pub(super) const PING: u8 = 0x6;
pub(super) const GOAWAY: u8 = 0x7;
pub(super) const WINDOW_UPDATE: u8 = 0x8;
pub(super) const CONTINUATION: u8 = 0x9;
pub(super) const END_STREAM: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;
const ACK: u8 = 0x1;
const HEADER_TABLE_SIZE: u16 = 1;
pub(super) const INITIAL_WINDOW_SIZE: u16 = 4;

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

pub(super) fn settings(pairs: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> =
        pairs.iter().flat_map(|(id, v)| [&id.to_be_bytes()[..], &v.to_be_bytes()].concat()).collect();
    frame(SETTINGS, 0, 0, &payload)
}

/// A header field, literal and not indexed.
pub(super) fn field(name: &str, value: &str) -> Vec<u8> {
    [&[0][..], &string(name), &string(value)].concat()
}

/// The same, and it goes into the dynamic table as its newest entry.
pub(super) fn indexed_field(name: &str, value: &str) -> Vec<u8> {
    [&[0x40][..], &string(name), &string(value)].concat()
}

fn string(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    match text.len() {
        short @ 0..127 => bytes.push(short as u8),
        long => {
            bytes.push(127);
            let mut left = long - 127;
            while left >= 128 {
                bytes.push((left % 128) as u8 | 128);
                left /= 128;
            }
            bytes.push(left as u8);
        }
    }
    bytes.extend(text.as_bytes());
    bytes
}

pub(super) fn request(method: &str, authority: &str, path: &str) -> Vec<u8> {
    let fields = [(":method", method), (":scheme", "https"), (":authority", authority), (":path", path)];
    fields.iter().flat_map(|(name, value)| field(name, value)).collect()
}

pub(super) fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &request("GET", super::HOST, path))
}

/// A request whose body is still to come.
pub(super) fn post(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &request("POST", super::HOST, path))
}

#[derive(Debug)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

pub(super) struct H2 {
    pub(super) wire: Wire,
    read: Vec<u8>,
}

/// How a stream ended, from the visitor's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Answered(u16),
    /// With this error code.
    Reset(u32),
    /// The whole connection, with the error code of its GOAWAY if it had one.
    Closed(Option<u32>),
}

impl H2 {
    /// Preface and settings are exchanged.
    pub(super) async fn open(siege: &Siege, from: impl Into<IpAddr>, more: &[(u16, u32)]) -> Self {
        let mut h2 = Self { wire: Wire::tls(siege, from, HTTP2).await, read: Vec::new() };
        // Without a table, answers are readable without a state.
        let ours = settings(&[&[(HEADER_TABLE_SIZE, 0)], more].concat());
        assert!(h2.send(&[PREFACE, &ours].concat()).await);
        while h2.next().await.expect("the proxy's settings").kind != SETTINGS {}
        assert!(h2.send(&frame(SETTINGS, ACK, 0, &[])).await);
        h2
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> bool {
        self.wire.send(bytes).await
    }

    /// The next frame; none at the end of the connection.
    pub(super) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some((header, rest)) = self.read.split_first_chunk::<9>() {
                let &[a, b, c, kind, flags, stream @ ..] = header;
                let length = u32::from_be_bytes([0, a, b, c]) as usize;
                if rest.len() >= length {
                    let payload = rest[..length].to_vec();
                    self.read.drain(..9 + length);
                    return Some(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload });
                }
            }
            let read = self.wire.read().await;
            if read.is_empty() {
                return None;
            }
            self.read.extend(read);
        }
    }

    /// Reads until a stream, or the connection, has ended.
    pub(super) async fn ended(&mut self, stream: u32) -> Ended {
        let (mut status, mut goaway) = (None, None);
        while let Some(frame) = self.next().await {
            let code = |at: usize| u32::from_be_bytes(frame.payload[at..at + 4].try_into().unwrap());
            match frame.kind {
                GOAWAY => goaway = Some(code(4)),
                RST_STREAM if frame.stream == stream => {
                    // NO_ERROR after a whole answer only says that the rest of the request is not wanted.
                    return status.filter(|_| code(0) == 0).map_or(Ended::Reset(code(0)), Ended::Answered);
                }
                HEADERS if frame.stream == stream && status.is_none() => status = Some(read_status(&frame.payload)),
                _ => {}
            }
            let last = matches!(frame.kind, HEADERS | DATA) && frame.flags & END_STREAM != 0;
            if let (Some(status), true) = (status, last && frame.stream == stream) {
                return Ended::Answered(status);
            }
        }
        Ended::Closed(goaway)
    }

    /// Reads to the end of the connection.
    pub(super) async fn closed(&mut self) -> Option<u32> {
        match self.ended(u32::MAX).await {
            Ended::Closed(goaway) => goaway,
            other => panic!("{other:?}"),
        }
    }
}

/// `:status`, always the first field of an answer.
fn read_status(block: &[u8]) -> u16 {
    // Updates of the table's size may come first.
    let start = block.iter().position(|byte| byte & 0xe0 != 0x20).unwrap();
    match block[start] {
        0x88 => 200,
        0x8c => 400,
        0x8d => 404,
        0x8e => 500,
        literal if [0x48, 0x08, 0x18].contains(&literal) => {
            let length = usize::from(block[start + 1] & 0x7f);
            let value = &block[start + 2..start + 2 + length];
            if block[start + 1] & 0x80 == 0 { str::from_utf8(value).unwrap().parse().unwrap() } else { digits(value) }
        }
        other => panic!("not a status: {other:#x}"),
    }
}

/// Three digits in Huffman's code (RFC 7541 appendix B): 0 to 2 in five bits, 3 to 9 in six.
fn digits(coded: &[u8]) -> u16 {
    let bits = coded.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (32 - 8 * coded.len());
    let (mut number, mut at) = (0, 0);
    for _ in 0..3 {
        let five = bits << at >> 27;
        let (digit, taken) = if five < 3 { (five, 5) } else { ((bits << at >> 26) - 0x16, 6) };
        (number, at) = (number * 10 + digit as u16, at + taken);
    }
    number
}

#[test]
fn reads_statuses_as_proxies_write_them() {
    assert_eq!(read_status(&[0x88]), 200);
    assert_eq!(read_status(&[0x20, 0x08, 3, b'4', b'2', b'1']), 421);
    // 4 = 011010, 2 = 00010, 1 = 00001
    assert_eq!(read_status(&[0x48, 0x82, 0b0110_1000, 0b0100_0001]), 421);
}
