//! What is known of a connection, as its plugins are told.

use std::net::{IpAddr, SocketAddr};

use super::guest::connection;
use super::types::Seen;
use crate::accept::header::{PeerTls, Tlvs, Version};

pub(super) fn endpoint(address: SocketAddr) -> connection::Endpoint {
    let ip = match address.ip().to_canonical() {
        IpAddr::V4(ip) => connection::Ip::V4(ip.to_bits()),
        IpAddr::V6(ip) => connection::Ip::V6(((ip.to_bits() >> 64) as u64, ip.to_bits() as u64)),
    };
    connection::Endpoint { ip, port: address.port() }
}

pub(super) fn seen(seen: Seen<'_>) -> connection::Seen {
    let Some(header) = seen else { return connection::Seen::Nothing };
    connection::Seen::Header(connection::ProxyHeader {
        version: match header.version {
            Version::V1 => connection::HeaderVersion::V1,
            Version::V2 => connection::HeaderVersion::V2,
        },
        client: header.source.map(endpoint),
        destination: header.destination.map(endpoint),
        local: header.local,
        fields: fields(&header.tlvs),
    })
}

fn fields(tlvs: &Tlvs) -> connection::HeaderFields {
    let tls = |tls: &PeerTls| connection::PeerTls {
        version: tls.version.clone(),
        cipher: tls.cipher.clone(),
        client_verified: tls.client_verified,
        client_common_name: tls.client_common_name.clone(),
    };
    let other = |(kind, value): &(u8, Vec<u8>)| connection::OtherField { kind: *kind, value: value.clone() };
    connection::HeaderFields {
        checked: tlvs.checked,
        alpn: tlvs.alpn.clone(),
        authority: tlvs.authority.clone(),
        unique_id: tlvs.unique_id.clone(),
        tls: tlvs.tls.as_ref().map(tls),
        aws_vpce_id: tlvs.aws_vpce_id.clone(),
        azure_link_id: tlvs.azure_link_id,
        gcp_psc_id: tlvs.gcp_psc_id,
        others: tlvs.others.iter().map(other).collect(),
    }
}
