//! The PROXY protocol header (HAProxy's proxy-protocol.txt, versions 1 and 2), read with a byte limit.

use std::net::SocketAddr;

use proxy_header::{Error as ParseError, ParseConfig, Protocol, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::tlv;
pub use super::tlv::{PeerTls, Tlvs};

/// Longest version 1 header (section 2.1 of the specification).
const V1_BYTES_MAX: usize = 107;
const V1_SIGNATURE: &[u8] = b"PROXY ";
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, command, family and length of a version 2 header.
const V2_FIXED_BYTES: usize = 16;
/// Command `LOCAL` of version 2.
const V2_LOCAL: u8 = 0x20;
/// Addresses of IPv4, IPv6 and Unix sockets.
const V2_ADDRESS_BYTES: [(u8, usize); 3] = [(0x1, 12), (0x2, 36), (0x3, 216)];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub version: Version,
    /// Absent where the header names nobody: `LOCAL`, `UNKNOWN`, a family other than IP.
    pub source: Option<SocketAddr>,
    /// The address that the client dialled.
    pub destination: Option<SocketAddr>,
    /// The peer itself, not on behalf of anybody: a health check.
    pub local: bool,
    pub tlvs: Tlvs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
}

#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    #[error("PROXY header is {0} bytes, at most {1} are accepted")]
    TooLong(usize, usize),
    #[error("PROXY header is malformed: {0}")]
    Malformed(&'static str),
    #[error("PROXY header has a wrong checksum (CRC32C)")]
    WrongChecksum,
    #[error("connection ended inside the PROXY header")]
    Ended,
    #[error("reading the PROXY header failed: {0}")]
    Io(#[from] std::io::Error),
}

#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    NeedMore,
    NotAHeader,
    /// And how many bytes it takes.
    Header(Box<Header>, usize),
}

/// Whether bytes that a peer sent first look like a PROXY header. Used to name a refusal, never to trust one.
pub fn looks_like_header(first: &[u8]) -> bool {
    !first.is_empty() && (first.starts_with(V1_SIGNATURE) || first.starts_with(V2_SIGNATURE))
}

/// Reads a header of at most `bytes_max` bytes from a peer that may send one. Returns what was read past it (or in its
/// place), to be put back.
pub async fn read<S: AsyncRead + Unpin>(
    stream: &mut S,
    bytes_max: usize,
) -> Result<(Option<Header>, Vec<u8>), HeaderError> {
    let mut buffer = vec![0; bytes_max];
    let mut filled = 0;
    loop {
        match parse(&buffer[..filled], bytes_max)? {
            Parsed::Header(header, length) => return Ok((Some(*header), buffer[length..filled].to_owned())),
            Parsed::NotAHeader => return Ok((None, buffer[..filled].to_owned())),
            Parsed::NeedMore => {}
        }
        if filled == buffer.len() {
            return Err(HeaderError::TooLong(filled + 1, bytes_max));
        }
        match stream.read(&mut buffer[filled..]).await? {
            0 => return Err(HeaderError::Ended),
            read => filled += read,
        }
    }
}

/// What the first bytes of a connection are. Pure: for any bytes, an answer.
pub fn parse(buffer: &[u8], bytes_max: usize) -> Result<Parsed, HeaderError> {
    if starts_like(buffer, V2_SIGNATURE) {
        return parse_v2(buffer, bytes_max);
    }
    if starts_like(buffer, V1_SIGNATURE) {
        return parse_v1(buffer);
    }
    Ok(Parsed::NotAHeader)
}

/// As far as the buffer goes, it agrees with the signature.
fn starts_like(buffer: &[u8], signature: &[u8]) -> bool {
    let common = buffer.len().min(signature.len());
    buffer[..common] == signature[..common]
}

fn parse_v1(buffer: &[u8]) -> Result<Parsed, HeaderError> {
    let line = &buffer[..buffer.len().min(V1_BYTES_MAX)];
    match line.iter().position(|byte| *byte == b'\n') {
        // Not a byte past it: what a header is must not depend on how much has arrived.
        Some(end) => decode(&line[..=end], Version::V1),
        None if buffer.len() < V1_BYTES_MAX => Ok(Parsed::NeedMore),
        None => Err(HeaderError::TooLong(buffer.len(), V1_BYTES_MAX)),
    }
}

fn parse_v2(buffer: &[u8], bytes_max: usize) -> Result<Parsed, HeaderError> {
    let Some(fixed) = buffer.get(..V2_FIXED_BYTES) else {
        return Ok(Parsed::NeedMore);
    };
    let length = V2_FIXED_BYTES + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if length > bytes_max {
        return Err(HeaderError::TooLong(length, bytes_max));
    }
    match buffer.get(..length) {
        Some(whole) => decode(whole, Version::V2),
        None => Ok(Parsed::NeedMore),
    }
}

fn decode(whole: &[u8], version: Version) -> Result<Parsed, HeaderError> {
    let (header, length) = ProxyHeader::parse(whole, ParseConfig::default()).map_err(|error| {
        HeaderError::Malformed(match error {
            ParseError::BufferTooShort => "it ends early",
            ParseError::AddressFamilyMismatch => "source and destination are of different families",
            _ => "not as the specification has it",
        })
    })?;
    let (source, destination) = match header.proxied_address() {
        Some(address) if address.protocol == Protocol::Datagram => {
            return Err(HeaderError::Malformed("it announces a datagram"));
        }
        Some(address) => (Some(address.source), Some(address.destination)),
        None => (None, None),
    };
    let (local, tlvs) = match version {
        Version::V1 => (false, Tlvs::default()),
        Version::V2 => (whole[12] == V2_LOCAL, tlv::read(&whole[..length], V2_FIXED_BYTES + address_bytes(whole[13]))?),
    };
    Ok(Parsed::Header(Box::new(Header { version, source, destination, local, tlvs }), length))
}

/// The parser has checked that there are so many.
fn address_bytes(family_and_protocol: u8) -> usize {
    let family = family_and_protocol >> 4;
    V2_ADDRESS_BYTES.iter().find(|(of, _)| *of == family).map_or(0, |(_, bytes)| *bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES_MAX: usize = 536;

    async fn read_all(bytes: &[u8]) -> Result<(Option<Header>, Vec<u8>), HeaderError> {
        read(&mut &*bytes, BYTES_MAX).await
    }

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [V2_SIGNATURE, &[command, family], &length, body].concat()
    }

    const V4_BODY: [u8; 12] = [192, 0, 2, 7, 198, 51, 100, 1, 0x30, 0x39, 1, 0xbb];

    #[tokio::test]
    async fn reads_version_1_and_gives_back_the_rest() {
        let (header, rest) = read_all(b"PROXY TCP4 192.0.2.7 198.51.100.1 12345 443\r\n\x16rest").await.unwrap();
        let source = Some("192.0.2.7:12345".parse().unwrap());
        let header = header.unwrap();
        assert_eq!((header.version, header.source, &*rest), (Version::V1, source, &b"\x16rest"[..]));
        assert_eq!(header.destination, Some("198.51.100.1:443".parse().unwrap()));
        let (header, _) = read_all(b"PROXY TCP6 2001:db8::7 2001:db8::1 12345 443\r\n").await.unwrap();
        assert_eq!(header.unwrap().source, Some("[2001:db8::7]:12345".parse().unwrap()));
        let (header, _) = read_all(b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n").await.unwrap();
        assert_eq!(header.unwrap().source, None);
    }

    #[tokio::test]
    async fn reads_version_2_and_local() {
        let (header, rest) = read_all(&[&v2(0x21, 0x11, &V4_BODY)[..], b"\x16rest"].concat()).await.unwrap();
        let source = Some("192.0.2.7:12345".parse().unwrap());
        let header = header.unwrap();
        assert_eq!((header.version, header.source, &*rest), (Version::V2, source, &b"\x16rest"[..]));
        assert_eq!((header.destination, header.local), (Some("198.51.100.1:443".parse().unwrap()), false));
        // LOCAL names nobody, whatever addresses it carries, but may say more. So may a family that is none.
        let authority = [&[0x02, 0, 1][..], b"a"].concat();
        for (family, body) in [(0x00, authority.clone()), (0x11, [&V4_BODY[..], &authority].concat())] {
            let (header, _) = read_all(&v2(0x20, family, &body)).await.unwrap();
            let header = header.unwrap();
            assert_eq!((header.source, header.local), (None, true));
            assert_eq!(header.tlvs.authority.as_deref(), Some("a"));
        }
        let (header, _) = read_all(&v2(0x21, 0x31, &[&[0; 216][..], &authority].concat())).await.unwrap();
        let header = header.unwrap();
        assert_eq!((header.source, header.local, header.tlvs.authority.as_deref()), (None, false, Some("a")));
    }

    #[tokio::test]
    async fn gives_back_what_is_no_header() {
        for bytes in [&b"\x16\x03\x01"[..], b"GET / HTTP/1.1\r\n", b"PUT", b"\r\n\r\n\0\r\nQUIX"] {
            let (header, rest) = read_all(bytes).await.unwrap();
            assert_eq!((header, &*rest), (None, bytes));
        }
    }

    #[tokio::test]
    async fn a_header_in_pieces_is_waited_for() {
        let whole = v2(0x21, 0x11, &V4_BODY);
        for length in 1..whole.len() {
            assert_eq!(parse(&whole[..length], BYTES_MAX).unwrap(), Parsed::NeedMore, "{length}");
            assert!(matches!(read_all(&whole[..length]).await, Err(HeaderError::Ended)));
        }
    }

    #[tokio::test]
    async fn accepts_the_limit_and_refuses_one_more() {
        let tlvs = |total: usize| {
            let value = total - V2_FIXED_BYTES - V4_BODY.len() - 3;
            let length = u16::try_from(value).unwrap().to_be_bytes();
            v2(0x21, 0x11, &[&V4_BODY[..], &[0xf0], &length, &vec![0; value]].concat())
        };
        assert!(read_all(&tlvs(BYTES_MAX)).await.is_ok());
        let error = read_all(&tlvs(BYTES_MAX + 1)).await.unwrap_err().to_string();
        assert_eq!(error, "PROXY header is 537 bytes, at most 536 are accepted");

        let line = |length: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(length - 16));
        assert!(read_all(line(V1_BYTES_MAX).as_bytes()).await.is_ok());
        assert!(matches!(read_all(line(V1_BYTES_MAX + 1).as_bytes()).await, Err(HeaderError::TooLong(..))));
    }

    #[tokio::test]
    async fn refuses_malformed_headers() {
        for bytes in [
            &b"PROXY TCP4 192.0.2.7 198.51.100.1 12345\r\n"[..],
            b"PROXY TCP4 2001:db8::7 198.51.100.1 1 2\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 99999 443\r\n",
            b"PROXY UDP4 192.0.2.7 198.51.100.1 1 2\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2\n",
            b"PROXY UNKNOWN\n x\r\n",
            &v2(0x31, 0x11, &V4_BODY),
            &v2(0x22, 0x11, &V4_BODY),
            &v2(0x21, 0x11, &V4_BODY[..11]),
            &v2(0x21, 0x12, &V4_BODY),
            &v2(0x21, 0x55, &V4_BODY),
            &v2(0x21, 0x11, &[&V4_BODY[..], &[0x01, 0, 9]].concat()),
        ] {
            assert!(matches!(read_all(bytes).await, Err(HeaderError::Malformed(_))), "{bytes:?}");
        }
    }

    #[test]
    fn names_only_whole_signatures() {
        assert!(looks_like_header(b"PROXY TCP4"));
        assert!(looks_like_header(V2_SIGNATURE));
        assert!(!looks_like_header(b"PROX"));
        assert!(!looks_like_header(b""));
        assert!(!looks_like_header(b"\x16\x03\x01"));
    }
}
