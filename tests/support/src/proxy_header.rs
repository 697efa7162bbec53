//! PROXY protocol headers, written after the specification by hand: the parser under test must not check itself.

use std::net::SocketAddr;

const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_PROXY: u8 = 0x21;
const V2_LOCAL: u8 = 0x20;
const CRC32C: u8 = 0x03;
const V2_TCP4: u8 = 0x11;
const V2_TCP6: u8 = 0x21;

pub fn v1(client: SocketAddr, server: SocketAddr) -> Vec<u8> {
    let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (client.ip(), server.ip());
    format!("PROXY {family} {from} {to} {} {}\r\n", client.port(), server.port()).into_bytes()
}

pub fn v2(client: SocketAddr, server: SocketAddr) -> Vec<u8> {
    v2_with(client, server, &[])
}

/// The peer on its own behalf: a health check.
pub fn v2_local() -> Vec<u8> {
    [V2_SIGNATURE, &[V2_LOCAL, 0, 0, 0]].concat()
}

pub fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind][..], &u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes(), value].concat()
}

/// With a CRC32C as its last field, computed bit by bit (RFC 4960, appendix B).
pub fn v2_with_checksum(client: SocketAddr, server: SocketAddr, fields: &[u8]) -> Vec<u8> {
    let mut header = v2_with(client, server, &[fields, &tlv(CRC32C, &[0; 4])].concat());
    let mut crc = u32::MAX;
    for byte in &header {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    let place = header.len() - 4;
    header[place..].copy_from_slice(&(!crc).to_be_bytes());
    header
}

/// With `extra` bytes after the addresses, where TLVs stand.
pub fn v2_with(client: SocketAddr, server: SocketAddr, extra: &[u8]) -> Vec<u8> {
    let mut rest = Vec::new();
    let family = match (client, server) {
        (SocketAddr::V4(from), SocketAddr::V4(to)) => {
            rest.extend(from.ip().octets());
            rest.extend(to.ip().octets());
            V2_TCP4
        }
        (from, to) => {
            for ip in [from.ip(), to.ip()] {
                rest.extend(match ip {
                    std::net::IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
                    std::net::IpAddr::V6(ip) => ip.octets(),
                });
            }
            V2_TCP6
        }
    };
    rest.extend(client.port().to_be_bytes());
    rest.extend(server.port().to_be_bytes());
    rest.extend(extra);
    let length = u16::try_from(rest.len()).unwrap_or(u16::MAX).to_be_bytes();
    [V2_SIGNATURE, &[V2_PROXY, family], &length, &rest].concat()
}
