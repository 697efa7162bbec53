use openssl::ec::EcKey;
use openssl::hash::MessageDigest;
use openssl::rsa::Rsa;
use openssl::sign::{Signer, Verifier};

use super::super::certificate::tests::certificate;
use super::super::chains::Chains;
use super::*;

fn ec(curve: Nid) -> PKey<Private> {
    PKey::from_ec_key(EcKey::generate(&EcGroup::from_curve_name(curve).unwrap()).unwrap()).unwrap()
}

fn pair(key: &PKey<Private>) -> Pair {
    let leaf = certificate(key, &["a.example"], -10, 10).to_der().unwrap();
    let pkcs8 = key.private_key_to_pkcs8().unwrap();
    Pair::new(&leaf, key, &pkcs8, Chains::default().share(&[]).unwrap()).unwrap()
}

#[test]
fn every_kind_of_key_comes_back_as_the_leafs() {
    let rsa = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
    for key in [ec(Nid::X9_62_PRIME256V1), ec(Nid::SECP384R1), rsa] {
        let (leaf, parsed) = pair(&key).parse().unwrap();
        let public = leaf.public_key().unwrap();
        assert!(parsed.public_eq(&key) && parsed.public_eq(&public));
        let mut signer = Signer::new(MessageDigest::sha256(), &parsed).unwrap();
        let signature = signer.sign_oneshot_to_vec(b"transcript").unwrap();
        let mut verifier = Verifier::new(MessageDigest::sha256(), &public).unwrap();
        assert!(verifier.verify_oneshot(&signature, b"transcript").unwrap());
    }
}

#[test]
fn scalars_that_begin_with_zeros_keep_their_length() {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    for scalar in [1u32, 0x1234] {
        let number = BigNum::from_u32(scalar).unwrap();
        let mut point = EcPoint::new(&group).unwrap();
        point.mul_generator2(&group, &number, &mut BigNumContext::new().unwrap()).unwrap();
        let key = PKey::from_ec_key(EcKey::from_private_components(&group, &number, &point).unwrap()).unwrap();
        let pair = pair(&key);
        assert!(matches!(pair.key, KeyForm::P256 { .. }));
        assert!(pair.parse().unwrap().1.public_eq(&key));
    }
}

#[test]
fn a_p256_key_takes_its_scalar_and_no_more() {
    let key = ec(Nid::X9_62_PRIME256V1);
    let pair = pair(&key);
    assert_eq!(pair.bytes.len(), pair.leaf().len() + P256_SCALAR_BYTES);
    assert_eq!(pair.bytes[..32], key.ec_key().unwrap().private_key().to_vec_padded(32).unwrap());
}

#[test]
fn debug_shows_no_key() {
    let key = ec(Nid::X9_62_PRIME256V1);
    let pair = pair(&key);
    let certificate = Arc::new(Warm::new(vec![pair], Validity { not_before: 0, not_after: 7 }, 1, 0)).parse().unwrap();
    assert_eq!(format!("{certificate:?}"), "Certificate(Warm { revision: 1, not_after: 7, .. })");
}
