use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SignatureAlgorithm,
};

use super::*;

const NOW: u64 = 1_800_000_000;

/// A root, a CA below it, and what they sign.
struct Authority {
    root: String,
    middle: String,
    issuer: Issuer<'static, KeyPair>,
}

fn valid(params: &mut CertificateParams, from: u64, to: u64) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    (params.not_before, params.not_after) = (epoch + Duration::from_secs(from), epoch + Duration::from_secs(to));
}

fn ca(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    valid(&mut params, NOW - 1000, NOW + 1_000_000);
    params
}

impl Authority {
    fn new() -> Self {
        let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let root = ca("root").self_signed(&root_key).unwrap().pem();
        let root_issuer = Issuer::new(ca("root"), root_key);
        let middle = ca("middle").signed_by(&key, &root_issuer).unwrap().pem();
        Self { root, middle, issuer: Issuer::new(ca("middle"), key) }
    }

    /// Leaf and key.
    fn leaf(
        &self,
        algorithm: &'static SignatureAlgorithm,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (String, String) {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let mut params = CertificateParams::new(vec!["shop.example".to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        valid(&mut params, NOW - 1000, NOW + 100_000);
        change(&mut params);
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// With an RSA key.
    fn rsa_leaf(&self) -> (String, String) {
        let pkcs8 = contract::rsa_key::new_rsa_key().unwrap();
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8.as_slice().into(), &rcgen::PKCS_RSA_SHA256).unwrap();
        let mut params = CertificateParams::new(vec!["*.example".to_owned(), "shop.example".to_owned()]).unwrap();
        valid(&mut params, NOW - 1, NOW + 1);
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

fn domain() -> Hostname {
    Hostname::parse("shop.example").unwrap()
}

fn faults(chain: &str, key: &str) -> Vec<(String, String)> {
    let faults = read_own(chain, key, &domain(), NOW).err().unwrap_or_default();
    faults.into_iter().map(|fault| (fault.at, fault.says)).collect()
}

#[test]
fn what_cas_sell_is_taken() {
    let authority = Authority::new();
    for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384] {
        let (leaf, key) = authority.leaf(algorithm, |_| {});
        for chain in [format!("{leaf}{}", authority.middle), format!("{leaf}{}{}", authority.middle, authority.root)] {
            let own = read_own(&chain, &key, &domain(), NOW).unwrap();
            assert_eq!((own.facts.not_after, own.facts.ari_id), (NOW + 100_000, None));
        }
        // A leaf alone is taken: a private CA may need no chain.
        assert!(read_own(&leaf, &key, &domain(), NOW).is_ok());
    }
    let (leaf, key) = authority.rsa_leaf();
    assert!(read_own(&format!("{leaf}{}", authority.middle), &key, &domain(), NOW).is_ok());
}

#[test]
fn beside_an_ecdsa_key_stands_an_rsa_key_and_no_other_pair() {
    let authority = Authority::new();
    let ((ecdsa, ecdsa_key), (rsa, rsa_key)) = (authority.leaf(&PKCS_ECDSA_P256_SHA256, |_| {}), authority.rsa_leaf());
    let read = |chain: &str, key: &str| read_own(chain, key, &domain(), NOW);
    let (of_ecdsa, of_rsa) = (|| read(&ecdsa, &ecdsa_key), || read(&rsa, &rsa_key));
    assert!(matches!(beside(of_ecdsa(), None), Ok((_, None))) && matches!(beside(of_rsa(), None), Ok((_, None))));
    assert!(matches!(beside(of_ecdsa(), Some(of_rsa())), Ok((first, Some(second))) if !first.rsa && second.rsa));
    for (first, second, wrong) in [
        (of_rsa(), of_ecdsa(), &["/chain/0", "/rsa/chain/0"][..]),
        (of_rsa(), of_rsa(), &["/chain/0"]),
        (of_ecdsa(), of_ecdsa(), &["/rsa/chain/0"]),
        (of_ecdsa(), read(&rsa, &ecdsa_key), &["/rsa/key"]),
        (read(&ecdsa, &rsa_key), read("", &rsa_key), &["/key", "/rsa/chain"]),
        (of_rsa(), read(&rsa, &ecdsa_key), &["/rsa/key", "/chain/0"]),
    ] {
        let faults = beside(first, Some(second)).err().unwrap();
        assert_eq!(faults.iter().map(|fault| fault.at.as_str()).collect::<Vec<_>>(), wrong, "{faults:?}");
    }
}

#[test]
fn each_fault_is_told_with_its_place_and_all_at_once() {
    let authority = Authority::new();
    let (leaf, key) = authority.leaf(&PKCS_ECDSA_P256_SHA256, |_| {});
    let (other, other_key) = authority.leaf(&PKCS_ECDSA_P256_SHA256, |params| {
        params.subject_alt_names.clear();
        valid(params, NOW - 1000, NOW);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    let (odd, odd_key) = authority.leaf(&PKCS_ED25519, |_| {});
    let middle = &authority.middle;
    for (chain, key, at, part) in [
        (format!("{leaf}{middle}"), &other_key, "/key", "not the key of the first"),
        (format!("{middle}{leaf}"), &key, "/chain/0", "it is a CA's"),
        (format!("{leaf}{}", authority.root), &key, "/chain/0", "has not signed it"),
        (format!("{leaf}{leaf}"), &key, "/chain/0", "has not signed it"),
        (format!("{leaf}{key}"), &key, "/chain", "a private key stands in it"),
        (format!("{odd}{middle}"), &odd_key, "/chain/0", "none that we serve"),
        (String::new(), &key, "/chain", "certificate"),
        ("nonsense".to_owned(), &key, "/chain", "certificate"),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(),
            &key,
            "/chain/0",
            "not a certificate",
        ),
        (leaf.repeat(9), &key, "/chain", "9 certificates, at most 8"),
    ] {
        let found = faults(&chain, key);
        assert!(found.iter().any(|(where_, says)| where_ == at && says.contains(part)), "{part}: {found:?}");
    }
    let all = faults(&format!("{other}{middle}"), &key);
    for part in ["not the key", "valid from", "not for shop.example", "serverAuth"] {
        assert!(all.iter().any(|(_, says)| says.contains(part)), "{part}: {all:?}");
    }
}

#[test]
fn a_key_that_can_not_be_read_is_refused_with_what_to_do_and_never_quoted() {
    let authority = Authority::new();
    let (leaf, key) = authority.leaf(&PKCS_ECDSA_P256_SHA256, |_| {});
    let body: String = key.lines().filter(|line| !line.starts_with("-----")).collect();
    for (text, part) in [
        (key.replace("PRIVATE KEY", "EC PRIVATE KEY"), "pkcs8 -topk8"),
        (key.replace("PRIVATE KEY", "RSA PRIVATE KEY"), "pkcs8 -topk8"),
        (key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"), "pkcs8"),
        (key.replace("MI", "XX"), "not a private key"),
        (key.repeat(2), "one private key"),
        (String::new(), "one private key"),
        (leaf.clone(), "one private key"),
    ] {
        let found = faults(&leaf, &text);
        assert!(found.iter().any(|(at, says)| at == "/key" && says.contains(part)), "{part}: {found:?}");
        assert!(found.iter().all(|(_, says)| !says.contains(&body[..20])), "{found:?}");
    }
}
