//! A certificate that somebody brings along: what has to hold before it is served. All faults are told at once; none quotes
//! the key.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use contract::{Bundle, Hostname};
use x509_parser::extensions::ParsedExtension;
use x509_parser::oid_registry::{
    OID_PKCS1_RSASSAPSS, OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA,
    OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384, OID_SIG_ECDSA_WITH_SHA512,
};
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

use super::certificate::{SKEW_SECONDS, covers, facts, seconds};
use super::{Chain, Facts, PrivateKey};

/// With its signatures a chain of the usual CAs has 3.
const STRONG: [x509_parser::oid_registry::Oid<'static>; 7] = [
    OID_PKCS1_SHA256WITHRSA,
    OID_PKCS1_SHA384WITHRSA,
    OID_PKCS1_SHA512WITHRSA,
    OID_PKCS1_RSASSAPSS,
    OID_SIG_ECDSA_WITH_SHA256,
    OID_SIG_ECDSA_WITH_SHA384,
    OID_SIG_ECDSA_WITH_SHA512,
];
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;

/// What is brought along, checked.
#[derive(Debug)]
pub struct Own {
    pub chain: Chain,
    pub key: PrivateKey,
    pub facts: Facts,
    rsa: bool,
}

/// One fault: where, and what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnFault {
    /// JSON pointer into the upload.
    pub at: String,
    pub says: String,
}

struct Look {
    now: u64,
    faults: Vec<OwnFault>,
}

/// Chain (leaf first) and key in PEM.
pub fn read_own(chain: &str, key: &str, domain: &Hostname, now: u64) -> Result<Own, Vec<OwnFault>> {
    let mut look = Look { now, faults: Vec::new() };
    let key = PrivateKey::from_pem(key).map_err(|says| look.fault("/key", says)).ok();
    let Some(chain) = look.chain(chain) else { return Err(look.faults) };
    let parsed: Vec<_> = chain.iter().enumerate().filter_map(|(at, der)| look.certificate(at, der)).collect();
    let Some(leaf) = parsed.first().filter(|_| parsed.len() == chain.len()) else { return Err(look.faults) };
    look.leaf(leaf, domain);
    if let Some(key) = &key
        && contract::bundle::sha256(leaf.public_key().raw) != key.public_key_sha256()
    {
        look.fault("/key", "it is not the key of the first certificate of the chain".to_owned());
    }
    for (at, pair) in parsed.windows(2).enumerate() {
        look.signed_by(at, &pair[0], &pair[1]);
    }
    match (key, look.faults.is_empty()) {
        (Some(key), true) => {
            let facts = Facts { ari_id: None, ..facts(leaf, &chain[0]) };
            let rsa = matches!(leaf.public_key().parsed(), Ok(PublicKey::RSA(_)));
            Ok(Own { key, facts, chain, rsa })
        }
        _ => Err(look.faults),
    }
}

/// One certificate, or one with an ECDSA key and beside it one with an RSA key: by its kind a client gets what it can check.
pub fn beside(
    first: Result<Own, Vec<OwnFault>>,
    second: Option<Result<Own, Vec<OwnFault>>>,
) -> Result<(Own, Option<Own>), Vec<OwnFault>> {
    let mut faults = Vec::new();
    let second = second.map(|second| second.map_err(|found| faults.extend(found.into_iter().map(of_second))).ok());
    match (first, second) {
        (Ok(first), None) => return Ok((first, None)),
        (Ok(first), Some(Some(second))) if !first.rsa && second.rsa => return Ok((first, Some(second))),
        (Ok(first), second) => {
            let says =
                |what: &str| format!("its key is {what}; with `rsa` the first one's is ECDSA, the second one's RSA");
            if first.rsa {
                faults.push(OwnFault { at: "/chain/0".to_owned(), says: says("RSA") });
            }
            if second.flatten().is_some_and(|second| !second.rsa) {
                faults.push(OwnFault { at: "/rsa/chain/0".to_owned(), says: says("ECDSA") });
            }
        }
        (Err(found), _) => faults.splice(0..0, found).for_each(drop),
    }
    Err(faults)
}

fn of_second(fault: OwnFault) -> OwnFault {
    OwnFault { at: format!("/rsa{}", fault.at), ..fault }
}

impl Look {
    fn fault(&mut self, at: &str, says: String) {
        self.faults.push(OwnFault { at: at.to_owned(), says });
    }

    fn chain(&mut self, text: &str) -> Option<Chain> {
        let blocks: Result<Vec<Pem>, _> = Pem::iter_from_buffer(text.as_bytes()).collect();
        let says = match blocks {
            Err(_) => "not certificates in PEM (`-----BEGIN CERTIFICATE-----`)".to_owned(),
            Ok(blocks) if blocks.iter().any(|block| block.label.contains("PRIVATE KEY")) => {
                "a private key stands in it; it belongs into `key`".to_owned()
            }
            Ok(blocks) if blocks.iter().any(|block| block.label != "CERTIFICATE") => {
                "something else than certificates stands in it".to_owned()
            }
            Ok(blocks) => {
                let chain: Chain = blocks.into_iter().map(|block| block.contents).collect();
                match Bundle::check_chain(&chain) {
                    Ok(()) => return Some(chain),
                    Err(error) => error.to_string(),
                }
            }
        };
        self.fault("/chain", says);
        None
    }

    fn certificate<'a>(&mut self, at: usize, der: &'a [u8]) -> Option<X509Certificate<'a>> {
        let pointer = format!("/chain/{at}");
        let Some((_, certificate)) = X509Certificate::from_der(der).ok().filter(|(rest, _)| rest.is_empty()) else {
            self.fault(&pointer, "not a certificate".to_owned());
            return None;
        };
        let validity = certificate.validity();
        let (from, to) = (seconds(validity.not_before), seconds(validity.not_after));
        if to <= self.now || from > self.now + SKEW_SECONDS {
            let (from, to) = (validity.not_before, validity.not_after);
            self.fault(&pointer, format!("it is valid from {from} to {to} only"));
        }
        // What a root says of itself nobody checks.
        let of_itself = certificate.issuer() == certificate.subject();
        if !of_itself && !STRONG.contains(&certificate.signature_algorithm.algorithm) {
            let says = "its signature is weak or unusual; RSA and ECDSA with SHA-256, SHA-384 or SHA-512 are accepted";
            self.fault(&pointer, says.to_owned());
        }
        Some(certificate)
    }

    fn leaf(&mut self, leaf: &X509Certificate<'_>, domain: &Hostname) {
        let at = "/chain/0";
        if !covers(leaf, domain) {
            self.fault(at, format!("it is not for {domain}"));
        }
        if leaf.is_ca() {
            self.fault(at, "it is a CA's; the server's certificate comes first".to_owned());
        }
        let for_servers = leaf.iter_extensions().all(|extension| match extension.parsed_extension() {
            ParsedExtension::ExtendedKeyUsage(usage) => usage.server_auth || usage.any,
            _ => true,
        });
        if !for_servers {
            self.fault(at, "its extended key usage does not allow TLS servers (serverAuth)".to_owned());
        }
        let strong = match leaf.public_key().parsed() {
            Ok(PublicKey::RSA(key)) => RSA_BITS.contains(&key.key_size()),
            Ok(PublicKey::EC(point)) => [256, 384].contains(&point.key_size()),
            _ => false,
        };
        if !strong {
            let says = format!(
                "its key is none that we serve: RSA of {} to {} bits, P-256, P-384",
                RSA_BITS.start(),
                RSA_BITS.end()
            );
            self.fault(at, says);
        }
    }

    fn signed_by(&mut self, at: usize, certificate: &X509Certificate<'_>, by: &X509Certificate<'_>) {
        if certificate.issuer() != by.subject() || certificate.verify_signature(Some(by.public_key())).is_err() {
            let says = format!(
                "the next one, {}, has not signed it; each certificate is followed by that of its issuer ({})",
                by.subject(),
                certificate.issuer()
            );
            self.fault(&format!("/chain/{at}"), says);
        } else if !by.is_ca() {
            self.fault(
                &format!("/chain/{}", at + 1),
                "it is no CA's, and so can't have signed the one before".to_owned(),
            );
        }
    }
}

/// A certificate as people keep it.
pub fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

#[cfg(test)]
#[path = "own_tests.rs"]
mod tests;
