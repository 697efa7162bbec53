//! Customers' domains, each with a certificate of its own (ECDSA P-256, chain of two), as every server takes them: PEM
//! files for the peers, sealed and signed bundles for the edge.

use std::path::Path;

use contract::bundle::sha256;
use contract::sealed::{Bound, EdgeKey, Recipient, seal};
use contract::signed::{SigningKey, sign};
use contract::{Bundle, Hostname};
use openssl::pkey::{PKey, Private};
use openssl::x509::X509;
use support::authority::Authority;
use support::{Context, Result, folder};

/// What issues and seals, in place of CertService.
pub struct Issuer {
    authority: Authority,
    signing: SigningKey,
    edge: Recipient,
    not_before: u64,
}

/// One domain.
pub struct Name {
    pub host: String,
    pub leaf: X509,
    pub key: PKey<Private>,
}

/// The domain of that number; each is a registered domain of its own, as customers' domains are.
pub fn host(number: usize) -> String {
    format!("shop{number:07}.example")
}

impl Issuer {
    /// Makes `edge.pem` and `signing.pub` in `folder`, for the edge's boot file.
    pub fn new(folder: &Path) -> Result<Self> {
        let key = support::edge::generate_key(folder)?;
        let edge = EdgeKey::from_pem(folder::read(&key)?.as_bytes()).context("the edge's key")?;
        let public = folder::read(&support::edge::public_key(&key))?;
        let recipient = Recipient::from_pem(&public).context("the edge's public key")?;
        debug_assert_eq!(edge.kid(), recipient.kid());
        let (signing, _) = SigningKey::generate().context("signing key")?;
        folder::write(&folder.join("signing.pub"), signing.public_pem())?;
        let authority = Authority::new("Benchmark CA")?;
        Ok(Self { authority, signing, edge: recipient, not_before: now() })
    }

    pub fn issue(&self, host: &str) -> Result<Name> {
        let issued = self.authority.issue(host)?;
        Ok(Name { host: host.into(), leaf: issued.certificate, key: issued.key })
    }

    /// Chain, leaf first.
    pub fn chain_pem(&self, name: &Name) -> Result<Vec<u8>> {
        Ok([name.leaf.to_pem()?, self.authority.root_pem()?].concat())
    }

    /// The signed bundle, as CertService would give it to the edge.
    pub fn token(&self, name: &Name) -> Result<String> {
        let domain = Hostname::parse(&name.host).context(&name.host)?;
        let leaf = name.leaf.to_der()?;
        let root = self.authority.certificate.to_der()?;
        let bound = Bound::Certificate(sha256(&leaf));
        let pkcs8 = name.key.private_key_to_pkcs8()?;
        let key = seal(&pkcs8, &domain, bound, std::slice::from_ref(&self.edge)).context("seal")?;
        let bundle = Bundle {
            domain,
            revision: 1,
            issuer: "bench".into(),
            not_before: self.not_before,
            not_after: self.not_before + 86_400,
            x5c: Bundle::encode_chain([leaf.as_slice(), root.as_slice()]),
            key,
            rsa: None,
        };
        Ok(sign(&bundle, &self.signing)?)
    }
}

/// Writes `<folder>/<host>.pem`, chain and key, as HAProxy wants it, and as nginx takes both from one file too.
pub fn write_pem(folder: &Path, issuer: &Issuer, name: &Name) -> Result<()> {
    let key = name.key.private_key_to_pem_pkcs8()?;
    folder::write(&folder.join(format!("{}.pem", name.host)), [issuer.chain_pem(name)?, key].concat())
}

pub fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
