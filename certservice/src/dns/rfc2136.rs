//! Dynamic update of a zone (RFC 2136), signed with a shared key (TSIG, RFC 8945), over TCP: its answers can't be forged.

use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hickory_resolver::proto::op::{Message, ResponseCode, update_message};
use hickory_resolver::proto::rr::rdata::TXT;
use hickory_resolver::proto::rr::rdata::tsig::TsigAlgorithm;
use hickory_resolver::proto::rr::{DNSClass, Name, RData, Record as DnsRecord, RecordSet, TSigner};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Change, Record};
use crate::{clock, config};

/// Of records that live for minutes.
const TTL_SECONDS: u32 = 60;
/// How far the clocks may differ (RFC 8945 section 10).
const FUDGE_SECONDS: u16 = 300;

pub(super) struct Server {
    address: SocketAddr,
    signer: TSigner,
}

impl Server {
    pub(super) fn open(config: &config::Rfc2136) -> Result<Self, String> {
        let key = STANDARD.decode(config.key.reveal()).map_err(|_| "key_file is not base64".to_owned())?;
        let algorithm = match config.algorithm {
            config::TsigHash::Sha256 => TsigAlgorithm::HmacSha256,
            config::TsigHash::Sha384 => TsigAlgorithm::HmacSha384,
            config::TsigHash::Sha512 => TsigAlgorithm::HmacSha512,
        };
        let signer = TSigner::new(key, algorithm, fqdn(&config.key_name)?, FUDGE_SECONDS);
        let signer = signer.map_err(|error| format!("the TSIG key can't be used: {error}"))?;
        Ok(Self { address: config.server, signer })
    }

    pub(super) async fn change(&self, zone: &str, record: &Record, change: Change) -> Result<(), String> {
        let (zone, name) = (fqdn(zone)?, fqdn(&record.name)?);
        // The library asserts it.
        if !zone.zone_of(&name) {
            return Err(format!("{name} is not in the zone {zone}"));
        }
        let mut message = match change {
            Change::Add => {
                update_message::append(set(&name, &record.value, TTL_SECONDS, DNSClass::IN), zone, false, false)
            }
            Change::Remove => {
                update_message::delete_by_rdata(set(&name, &record.value, 0, DNSClass::NONE), zone, false)
            }
        };
        // The zone itself is of the class IN, whatever the class of what is removed from it.
        for zone in &mut message.queries {
            zone.set_query_class(DNSClass::IN);
        }
        let failed = |error: &dyn std::fmt::Display| format!("the update could not be written: {error}");
        let verifier = message.finalize(&self.signer, clock::now()).map_err(|error| failed(&error))?;
        let mut verifier = verifier.ok_or("the update was not signed")?;
        let answer = exchange(self.address, &message.to_vec().map_err(|error| failed(&error))?).await?;
        let code = match verifier.verify(&answer) {
            Ok(answer) => answer.metadata.response_code,
            // Who does not know our key can't sign; what it says is not believed, but worth telling.
            Err(_) => {
                let code = Message::from_vec(&answer).map(|answer| answer.metadata.response_code.to_string());
                let code = code.unwrap_or_else(|_| "no DNS message".to_owned());
                let hint = "key_name, key_file and algorithm must be those of the server, and the clocks agree";
                return Err(format!("{} answered without a good signature ({code}); {hint}", self.address));
            }
        };
        match code {
            ResponseCode::NoError => Ok(()),
            code => Err(format!("{} answered {code}; the key must be allowed to update the zone", self.address)),
        }
    }
}

fn set(name: &Name, value: &str, ttl: u32, class: DNSClass) -> RecordSet {
    let mut record = DnsRecord::from_rdata(name.clone(), ttl, RData::TXT(TXT::new(vec![value.to_owned()])));
    record.dns_class = class;
    RecordSet::from(record)
}

fn fqdn(text: &str) -> Result<Name, String> {
    let name = Name::from_ascii(format!("{}.", text.trim_end_matches('.')));
    name.map_err(|error| format!("`{text}` is no name: {error}"))
}

/// RFC 1035 section 4.2.2: two bytes of length, then the message.
async fn exchange(server: SocketAddr, message: &[u8]) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("{server}: {error}");
    let length = u16::try_from(message.len()).map_err(|_| "the update is too long".to_owned())?;
    let mut stream = TcpStream::connect(server).await.map_err(failed)?;
    let framed = [&length.to_be_bytes(), message].concat();
    stream.write_all(&framed).await.map_err(failed)?;
    let length = stream.read_u16().await.map_err(failed)?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await.map_err(failed)?;
    Ok(answer)
}
