//! What a version 2 header says besides addresses (proxy-protocol.txt, section 2.2): type, length, value. Pure.
//!
//! The parser crate shows values but not where they stand, which the checksum needs; so they are walked here.

use std::ops::Range;

use super::header::HeaderError;

const ALPN: u8 = 0x01;
const AUTHORITY: u8 = 0x02;
const CRC32C: u8 = 0x03;
const NOOP: u8 = 0x04;
const UNIQUE_ID: u8 = 0x05;
const SSL: u8 = 0x20;
const SSL_VERSION: u8 = 0x21;
const SSL_COMMON_NAME: u8 = 0x22;
const SSL_CIPHER: u8 = 0x23;
/// Private Service Connect: the connection ID, 64 bits, most significant byte first (Google Cloud's documentation).
const GCP: u8 = 0xe0;
/// One byte of subtype, then the endpoint's ID as text (AWS, Network Load Balancers, "Proxy protocol").
const AWS: u8 = 0xea;
const AWS_VPCE_ID: u8 = 0x01;
/// One byte of subtype, then 32 bits, least significant byte first (Azure Private Link, "Getting connection information").
const AZURE: u8 = 0xee;
const AZURE_LINK_ID: u8 = 0x01;
/// "Up to 128 bytes" (section 2.2.5).
const UNIQUE_ID_BYTES_MAX: usize = 128;
/// A type, and two bytes of length.
const FIXED_BYTES: usize = 3;
/// Flags of the client, and the result of the verification.
const SSL_FIXED_BYTES: usize = 5;

const CLIENT_SSL: u8 = 0x01;
const CLIENT_CERTIFICATE: u8 = 0x02 | 0x04;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tlvs {
    /// A CRC32C was there, and it is right.
    pub checked: bool,
    /// What the client negotiated with the peer.
    pub alpn: Option<Vec<u8>>,
    /// The name that the client asked the peer for.
    pub authority: Option<String>,
    pub unique_id: Option<Vec<u8>>,
    pub tls: Option<PeerTls>,
    pub aws_vpce_id: Option<String>,
    pub azure_link_id: Option<u32>,
    pub gcp_psc_id: Option<u64>,
    /// All others, in their order.
    pub others: Vec<(u8, Vec<u8>)>,
}

/// TLS between the client and the peer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerTls {
    pub version: Option<String>,
    pub cipher: Option<String>,
    /// The client presented a certificate, and the peer found it good.
    pub client_verified: bool,
    pub client_common_name: Option<String>,
}

/// `whole` is the header from its signature on, `at` where its TLVs begin.
pub(super) fn read(whole: &[u8], at: usize) -> Result<Tlvs, HeaderError> {
    let mut tlvs = Tlvs::default();
    let mut seen = [false; 256];
    for tlv in walk(whole, at..whole.len()) {
        let (kind, place) = tlv?;
        let value = &whole[place.clone()];
        // What stands twice could be read in two ways. Of types that are none of ours, that is not ours to judge.
        let ours = matches!(kind, ALPN | AUTHORITY | CRC32C | UNIQUE_ID | SSL);
        if std::mem::replace(&mut seen[usize::from(kind)], true) && ours {
            return Err(HeaderError::Malformed("a field stands in it twice"));
        }
        match kind {
            ALPN => tlvs.alpn = Some(value.to_owned()),
            AUTHORITY => tlvs.authority = Some(text(value)?),
            CRC32C => {
                verify(whole, place)?;
                tlvs.checked = true;
            }
            NOOP => {}
            UNIQUE_ID if value.len() > UNIQUE_ID_BYTES_MAX => {
                return Err(HeaderError::Malformed("its unique ID is longer than 128 bytes"));
            }
            UNIQUE_ID => tlvs.unique_id = Some(value.to_owned()),
            SSL => tlvs.tls = ssl(value)?,
            _ => vendor(&mut tlvs, kind, value),
        }
    }
    Ok(tlvs)
}

/// These types are for anybody's use: one of another form is somebody else's, not a broken one.
fn vendor(tlvs: &mut Tlvs, kind: u8, value: &[u8]) {
    match (kind, value) {
        (GCP, value) if let Ok(id) = <[u8; 8]>::try_from(value) => tlvs.gcp_psc_id = Some(u64::from_be_bytes(id)),
        (AZURE, &[AZURE_LINK_ID, a, b, c, d]) => tlvs.azure_link_id = Some(u32::from_le_bytes([a, b, c, d])),
        (AWS, [AWS_VPCE_ID, id @ ..]) if id.is_ascii() => {
            tlvs.aws_vpce_id = Some(String::from_utf8_lossy(id).into_owned());
        }
        _ => tlvs.others.push((kind, value.to_owned())),
    }
}

fn ssl(value: &[u8]) -> Result<Option<PeerTls>, HeaderError> {
    let Some((&[client, v0, v1, v2, v3], _)) = value.split_first_chunk::<SSL_FIXED_BYTES>() else {
        return Err(HeaderError::Malformed("its TLS field ends early"));
    };
    let mut tls = PeerTls {
        client_verified: client & CLIENT_CERTIFICATE != 0 && [v0, v1, v2, v3] == [0; 4],
        ..PeerTls::default()
    };
    for tlv in walk(value, SSL_FIXED_BYTES..value.len()) {
        let (kind, place) = tlv?;
        match kind {
            SSL_VERSION => tls.version = Some(text(&value[place])?),
            SSL_COMMON_NAME => tls.client_common_name = Some(text(&value[place])?),
            SSL_CIPHER => tls.cipher = Some(text(&value[place])?),
            _ => {}
        }
    }
    Ok((client & CLIENT_SSL != 0).then_some(tls))
}

fn text(value: &[u8]) -> Result<String, HeaderError> {
    String::from_utf8(value.to_owned()).map_err(|_| HeaderError::Malformed("a text in it is not UTF-8"))
}

/// Over the whole header, with zeros in place of the checksum.
fn verify(whole: &[u8], place: Range<usize>) -> Result<(), HeaderError> {
    let (before, rest) = whole.split_at(place.start);
    let (given, after) = rest.split_at(place.len());
    let given = <[u8; 4]>::try_from(given).map_err(|_| HeaderError::Malformed("its checksum is not 4 bytes"))?;
    let computed = before
        .iter()
        .chain(&[0; 4])
        .chain(after)
        .fold(u32::MAX, |crc, byte| CASTAGNOLI[usize::from(crc as u8 ^ byte)] ^ crc >> 8);
    if !computed == u32::from_be_bytes(given) { Ok(()) } else { Err(HeaderError::WrongChecksum) }
}

/// CRC32C byte by byte (RFC 3720, section 12.1). A header is short: a crate with the processor's instruction for it would
/// not be noticed.
const CASTAGNOLI: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// Type and place of each value.
fn walk(bytes: &[u8], within: Range<usize>) -> impl Iterator<Item = Result<(u8, Range<usize>), HeaderError>> {
    let mut at = within.start;
    std::iter::from_fn(move || {
        if at >= within.end {
            return None;
        }
        let Some(&[kind, high, low]) = bytes.get(at..at + FIXED_BYTES) else {
            at = within.end;
            return Some(Err(HeaderError::Malformed("a field in it ends early")));
        };
        let start = at + FIXED_BYTES;
        let end = start + usize::from(u16::from_be_bytes([high, low]));
        at = end;
        if end > within.end {
            return Some(Err(HeaderError::Malformed("a field in it ends early")));
        }
        Some(Ok((kind, start..end)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIXED: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11";
    const ADDRESSES: [u8; 12] = [192, 0, 2, 7, 198, 51, 100, 1, 0x30, 0x39, 1, 0xbb];
    const AT: usize = 28;

    fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
        [&[kind][..], &u16::try_from(value.len()).unwrap().to_be_bytes(), value].concat()
    }

    fn header(tlvs: &[Vec<u8>]) -> Vec<u8> {
        let body = [&ADDRESSES[..], &tlvs.concat()].concat();
        [FIXED, &u16::try_from(body.len()).unwrap().to_be_bytes(), &body].concat()
    }

    fn read_all(tlvs: &[Vec<u8>]) -> Result<Tlvs, HeaderError> {
        read(&header(tlvs), AT)
    }

    /// With the right checksum, computed bit by bit after RFC 4960, appendix B.
    fn checked(tlvs: &[Vec<u8>]) -> Vec<u8> {
        let mut whole = header(tlvs);
        let place = walk(&whole, AT..whole.len()).map(Result::unwrap).find(|(kind, _)| *kind == CRC32C).unwrap().1;
        let mut crc = u32::MAX;
        for byte in &whole {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
            }
        }
        whole[place].copy_from_slice(&(!crc).to_be_bytes());
        whole
    }

    #[test]
    fn reads_what_the_specification_names() {
        let ssl = [
            &[1 | 2, 0, 0, 0, 0][..],
            &tlv(SSL_VERSION, b"TLSv1.3"),
            &tlv(SSL_COMMON_NAME, b"a client"),
            &tlv(SSL_CIPHER, b"X"),
            &tlv(0x24, b"?"),
        ];
        let tlvs = read_all(&[
            tlv(ALPN, b"h2"),
            tlv(AUTHORITY, b"shop.example"),
            tlv(NOOP, b"padding"),
            tlv(NOOP, b""),
            tlv(UNIQUE_ID, &[0xff; 128]),
            tlv(SSL, &ssl.concat()),
            tlv(0xf0, b"1"),
            tlv(0xf0, b"2"),
        ]);
        let tls = PeerTls {
            version: Some("TLSv1.3".into()),
            cipher: Some("X".into()),
            client_verified: true,
            client_common_name: Some("a client".into()),
        };
        let expected = Tlvs {
            alpn: Some(b"h2".into()),
            authority: Some("shop.example".into()),
            unique_id: Some(vec![0xff; 128]),
            tls: Some(tls),
            others: vec![(0xf0, b"1".into()), (0xf0, b"2".into())],
            ..Tlvs::default()
        };
        assert_eq!(tlvs.unwrap(), expected);
        // No TLS, TLS without a certificate, TLS with one that was not good.
        let tls = |bytes: &[u8]| read_all(&[tlv(SSL, bytes)]).unwrap().tls;
        assert_eq!(tls(&[0, 0, 0, 0, 0]), None);
        assert_eq!(tls(&[1, 0, 0, 0, 0]), Some(PeerTls::default()));
        assert_eq!(tls(&[1 | 4, 0, 0, 0, 1]), Some(PeerTls::default()));
    }

    #[test]
    fn reads_what_clouds_add() {
        let tlvs = read_all(&[
            tlv(AWS, b"\x01vpce-0123456789abcdef0"),
            tlv(AZURE, &[1, 0x78, 0x56, 0x34, 0x12]),
            tlv(GCP, &[0, 0, 0, 1, 2, 3, 4, 5]),
        ]);
        let tlvs = tlvs.unwrap();
        assert_eq!(tlvs.aws_vpce_id.as_deref(), Some("vpce-0123456789abcdef0"));
        assert_eq!((tlvs.azure_link_id, tlvs.gcp_psc_id), (Some(0x1234_5678), Some(0x1_0203_0405)));
        // Another form is another's.
        let others = [tlv(AWS, b"\x02x"), tlv(AZURE, &[1, 0]), tlv(GCP, &[0; 7])];
        let tlvs = read_all(&others).unwrap();
        assert_eq!(tlvs.others.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [AWS, AZURE, GCP]);
        assert_eq!((tlvs.aws_vpce_id, tlvs.azure_link_id, tlvs.gcp_psc_id), (None, None, None));
    }

    #[test]
    fn a_checksum_covers_every_byte() {
        let tlvs = [tlv(UNIQUE_ID, b"id"), tlv(CRC32C, &[0; 4]), tlv(AUTHORITY, b"shop.example")];
        let good = checked(&tlvs);
        assert!(read(&good, AT).unwrap().checked);
        assert!(!read_all(&tlvs[..1]).unwrap().checked);
        // Of what is not structure, each bit matters.
        for at in (16..AT).chain([31, 32]).chain(36..40).chain(good.len() - 12..good.len()) {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(matches!(read(&bad, AT), Err(HeaderError::WrongChecksum)), "{at}");
        }
    }

    #[test]
    fn refuses_what_is_broken_or_twofold() {
        for (tlvs, says) in [
            (vec![vec![ALPN]], "ends early"),
            (vec![vec![ALPN, 0]], "ends early"),
            (vec![vec![ALPN, 0, 2, b'h']], "ends early"),
            (vec![tlv(CRC32C, &[0; 3])], "not 4 bytes"),
            (vec![tlv(AUTHORITY, &[0xff])], "not UTF-8"),
            (vec![tlv(UNIQUE_ID, &[0; 129])], "longer than 128 bytes"),
            (vec![tlv(SSL, &[1, 0, 0, 0])], "TLS field ends early"),
            (vec![tlv(SSL, &[1, 0, 0, 0, 0, SSL_VERSION, 0, 9])], "ends early"),
            (vec![tlv(AUTHORITY, b"a"), tlv(AUTHORITY, b"b")], "twice"),
        ] {
            let error = read_all(&tlvs).unwrap_err().to_string();
            assert!(error.contains(says), "{error}: {says}");
        }
    }
}
