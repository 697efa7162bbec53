//! What must hold for any bytes: a panic is a finding. Each check returns a word for what became of the input, so that a
//! simple fuzzer can tell a new outcome from an old one.

use std::sync::LazyLock;

use contract::bundle::sha256;
use contract::sealed::{Bound, EdgeKey, Expected, Recipient, open, seal};
use contract::signed::{Payload, SigningKey, VerifyKeys, sign, verify};
use contract::{Bundle, Hostname};

// The parser's own sources: the whole proxy would take minutes to build with a sanitizer.
#[allow(dead_code, unreachable_pub, unused_imports)]
#[path = "../../../proxy/src/accept/header.rs"]
mod header;
#[allow(dead_code, unreachable_pub, unused_imports)]
#[path = "../../../proxy/src/accept/tlv.rs"]
mod tlv;

use header::{HeaderError, Parsed, Version};

const HEADER_LIMITS: [usize; 4] = [107, 536, 3000, 16_384];

/// The first byte chooses the limit, the others are what a peer sends.
pub fn proxy_header(data: &[u8]) -> String {
    let Some((choice, sent)) = data.split_first() else { return "empty".into() };
    let bytes_max = HEADER_LIMITS[usize::from(*choice) % HEADER_LIMITS.len()];
    match header::parse(sent, bytes_max) {
        Ok(Parsed::NeedMore) => {
            assert!(sent.len() < bytes_max.max(107), "{} bytes are not enough to know", sent.len());
            "need more".into()
        }
        Ok(Parsed::NotAHeader) => {
            assert!(!header::looks_like_header(sent));
            "no header".into()
        }
        Ok(Parsed::Header(found, length)) => {
            assert!(length <= sent.len() && length <= bytes_max, "{length} bytes of {}", sent.len());
            assert!(header::looks_like_header(sent));
            let again = header::parse(&sent[..length], bytes_max);
            assert_eq!(again.ok(), Some(Parsed::Header(found.clone(), length)), "what follows plays no part");
            for shorter in [length - 1, length / 2, 13.min(length - 1)] {
                let part = header::parse(&sent[..shorter], bytes_max);
                assert!(matches!(part, Ok(Parsed::NeedMore)), "{part:?} after {shorter} of {length} bytes");
            }
            if found.tlvs.checked {
                no_bit_can_change(&sent[..length], bytes_max);
            }
            let names = (found.source.is_some(), found.local, found.tlvs.checked, found.tlvs.tls.is_some());
            format!("{:?} {names:?} {}", found.version, found.version == Version::V2 && length > 28)
        }
        Err(HeaderError::TooLong(given, limit)) => {
            assert!(given > limit || given >= 107, "{given} of {limit}");
            "too long".into()
        }
        Err(error) => error.to_string(),
    }
}

/// One bit for each byte: nothing that is still taken for checked.
fn no_bit_can_change(whole: &[u8], bytes_max: usize) {
    let mut changed = whole.to_owned();
    for at in 0..whole.len() {
        changed[at] ^= 1 << (at % 8);
        if let Ok(Parsed::Header(found, _)) = header::parse(&changed, bytes_max) {
            assert!(!found.tlvs.checked, "byte {at} of a checked header was changed");
        }
        changed[at] = whole[at];
    }
}

/// What CertService signs, whatever it says.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
struct Anything(serde_json::Value);

impl Payload for Anything {
    const TYPE: &'static str = Bundle::TYPE;
}

struct Sides {
    signing: SigningKey,
    verify: VerifyKeys,
    edge: EdgeKey,
    /// A good bundle and its token.
    bundle: Bundle,
    token: String,
}

const PRIVATE_KEY: &[u8] = b"-- a private key in PKCS #8 --";
const CERTIFICATE: &[u8] = b"-- a certificate in DER --";
const PUBLIC_KEY: [u8; 32] = [2; 32];

static SIDES: LazyLock<Sides> = LazyLock::new(|| sides().unwrap_or_else(|error| panic!("keys for fuzzing: {error}")));

fn sides() -> Result<Sides, Box<dyn std::error::Error>> {
    let (signing, _) = SigningKey::generate()?;
    let verify = VerifyKeys::from_pems([signing.public_pem().as_str()])?;
    let edge = EdgeKey::generate(2048)?;
    let domain = Hostname::parse("a.example")?;
    let to = [Recipient::from_pem(&edge.public_pem()?)?];
    let bundle = Bundle {
        key: seal(PRIVATE_KEY, &domain, Bound::Certificate(sha256(CERTIFICATE)), &to)?,
        domain,
        revision: 1,
        issuer: "internal".into(),
        not_before: 1,
        not_after: 2,
        x5c: Bundle::encode_chain([CERTIFICATE]),
        rsa: None,
    };
    let token = sign(&bundle, &signing)?;
    Ok(Sides { signing, verify, edge, bundle, token })
}

/// Inputs to begin with.
pub fn bundle_seeds() -> Vec<Vec<u8>> {
    let json = serde_json::to_vec(&SIDES.bundle).unwrap_or_default();
    vec![[b"t", SIDES.token.as_bytes()].concat(), [b"j", &json[..]].concat()]
}

/// After `t`: a token as Redis, a disk or a network may give it. After `j`: what a CertService with another mind signs.
pub fn sealed_bundle(data: &[u8]) -> String {
    let Some((kind, rest)) = data.split_first() else { return "empty".into() };
    let text = String::from_utf8_lossy(rest);
    if *kind == b't' {
        return match verify::<Bundle>(&text, &SIDES.verify) {
            Ok(bundle) => {
                assert_eq!(bundle, SIDES.bundle, "a bundle that nobody signed");
                opened(&bundle)
            }
            Err(error) => format!("token: {}", error.to_string().split(['`', '(', ':']).next().unwrap_or_default()),
        };
    }
    let Ok(value) = serde_json::from_str(&text) else { return "no JSON".into() };
    let Ok(token) = sign(&Anything(value), &SIDES.signing) else { return "not signed".into() };
    match verify::<Bundle>(&token, &SIDES.verify) {
        Ok(bundle) => opened(&bundle),
        Err(error) => format!("payload: {error}"),
    }
}

/// Whatever stands around it: the key that comes out is the one that was sealed, for that domain and certificate.
fn opened(bundle: &Bundle) -> String {
    let chain = match bundle.chain() {
        Ok(chain) => chain,
        Err(error) => return error.to_string(),
    };
    let expected =
        Expected { domain: &bundle.domain, certificate: sha256(&chain[0]), public_key: &|| Some(PUBLIC_KEY) };
    match open(&bundle.key, &SIDES.edge, &expected) {
        Ok(key) => {
            assert_eq!(&*key, PRIVATE_KEY);
            assert_eq!((&bundle.domain, chain[0].as_slice()), (&SIDES.bundle.domain, CERTIFICATE));
            "opened".into()
        }
        Err(error) => format!("sealed: {}", error.to_string().split(['`', '(', ':']).next().unwrap_or_default()),
    }
}
