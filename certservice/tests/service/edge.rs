//! What an edge does with a bundle, by OpenSSL: other code than the one that made it.

use contract::sealed::{EdgeKey, Expected, open};
use contract::signed::{VerifyKeys, verify};
use contract::{Bundle, Hostname};
use openssl::pkey::PKey;
use openssl::x509::X509;

/// Verifies, opens and checks a signed bundle; gives back the private key in PKCS #8.
pub fn open_bundle(token: &str, domain: &str, keys: &VerifyKeys, edge: &EdgeKey) -> (Bundle, Vec<u8>) {
    let domain = Hostname::parse_domain(domain).unwrap();
    let bundle: Bundle = verify(token, keys).unwrap();
    assert_eq!(bundle.domain, domain);
    let chain = bundle.chain().unwrap();
    let leaf = X509::from_der(&chain[0]).unwrap();
    let names = leaf.subject_alt_names().unwrap();
    assert!(names.iter().any(|name| name.dnsname() == Some(domain.as_str())));
    let public_key = leaf.public_key().unwrap();
    let expected = Expected {
        domain: &domain,
        certificate: contract::bundle::sha256(&chain[0]),
        public_key: &|| Some(contract::bundle::sha256(&public_key.public_key_to_der().unwrap())),
    };
    let key = open(&bundle.key, edge, &expected).unwrap();
    assert!(PKey::private_key_from_der(&key).unwrap().public_eq(&public_key), "key and certificate don't match");
    (bundle, key.to_vec())
}

/// Whether the key in a bundle is bound to its certificate (the usual case) and not to the public key alone.
pub fn is_bound_to_certificate(bundle: &Bundle) -> bool {
    let aad = openssl::base64::decode_block(&pad(&bundle.key.aad)).unwrap();
    String::from_utf8(aad).unwrap().contains("x5t#S256")
}

fn pad(url_safe: &str) -> String {
    let padding = "=".repeat((4 - url_safe.len() % 4) % 4);
    url_safe.replace('-', "+").replace('_', "/") + &padding
}
