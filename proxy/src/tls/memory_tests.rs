//! What a name takes in memory, measured on the whole process: OpenSSL's share is in it, and the caches' own.
//!
//! `cargo test --release --workspace --lib -- --ignored --nocapture a_million_names_fit` prints it as a line of JSON;
//! NAMES sets how many names (default 1000000).

use std::sync::Arc;
use std::time::Duration;

use openssl::asn1::{Asn1Integer, Asn1Object, Asn1OctetString, Asn1Time};
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::extension::{BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName};
use openssl::x509::{X509, X509Builder, X509Extension, X509NameBuilder};

use super::certificate::tests::authority;
use super::chains::Chains;
use super::table::{Capacity, Found, Table, Tier};
use super::warm::{Certificate, Pair, Warm};
use contract::{Hostname, Validity};

const PARSED: usize = 5000;
const LEAVES: usize = 64;
const BYTES_PER_WARM_NAME_MAX: usize = 1536;

fn ec(curve: Nid) -> PKey<Private> {
    PKey::from_ec_key(EcKey::generate(&EcGroup::from_curve_name(curve).unwrap()).unwrap()).unwrap()
}

/// As Let's Encrypt issues them: P-256 key, signed with P-384, two SCTs, URLs of issuer and CRL; about 900 bytes.
fn leaf(key: &PKey<Private>, issuer: &PKey<Private>) -> X509 {
    let mut by = X509NameBuilder::new().unwrap();
    for (entry, value) in [("C", "US"), ("O", "Let's Encrypt"), ("CN", "E7")] {
        by.append_entry_by_text(entry, value).unwrap();
    }
    let mut builder = X509Builder::new().unwrap();
    builder.set_version(2).unwrap();
    let serial = BigNum::from_slice(&[5; 18]).unwrap();
    builder.set_serial_number(&Asn1Integer::from_bn(&serial).unwrap()).unwrap();
    builder.set_issuer_name(&by.build()).unwrap();
    builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::days_from_now(90).unwrap()).unwrap();
    builder.set_pubkey(key).unwrap();
    let mut extensions = vec![
        KeyUsage::new().critical().digital_signature().build().unwrap(),
        ExtendedKeyUsage::new().server_auth().build().unwrap(),
        BasicConstraints::new().critical().build().unwrap(),
        SubjectAlternativeName::new()
            .dns("shop-000000.customer.example")
            .build(&builder.x509v3_context(None, None))
            .unwrap(),
    ];
    // Key identifiers, authority information access, policy, CRL distribution point, SCTs: opaque, of their usual sizes.
    for (oid, bytes) in [
        ("2.5.29.14", 22),
        ("2.5.29.35", 24),
        ("1.3.6.1.5.5.7.1.1", 45),
        ("2.5.29.32", 12),
        ("2.5.29.31", 40),
        ("1.3.6.1.4.1.11129.2.4.2", 245),
    ] {
        let (oid, value) =
            (Asn1Object::from_str(oid).unwrap(), Asn1OctetString::new_from_bytes(&vec![7; bytes]).unwrap());
        extensions.push(X509Extension::new_from_der(&oid, false, &value).unwrap());
    }
    extensions.into_iter().for_each(|extension| builder.append_extension(extension).unwrap());
    builder.sign(issuer, MessageDigest::sha384()).unwrap();
    builder.build()
}

struct Made {
    der: Vec<u8>,
    key: PKey<Private>,
    pkcs8: Vec<u8>,
}

impl Made {
    fn opened(&self, chains: &Chains, intermediates: &[Vec<u8>]) -> Certificate {
        let pair = Pair::new(&self.der, &self.key, &self.pkcs8, chains.share(intermediates).unwrap()).unwrap();
        let now = super::now();
        Arc::new(Warm::new(vec![pair], Validity { not_before: now, not_after: now + 90 * 86_400 }, 1, now))
            .parse()
            .unwrap()
    }
}

fn name(number: usize) -> Hostname {
    Hostname::parse(&format!("shop-{number:06}.customer.example")).unwrap()
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

fn cpu_microseconds<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let clock = || rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let (from, done, to) = (clock(), work(), clock());
    (done, (to.tv_sec - from.tv_sec) as f64 * 1e6 + (to.tv_nsec - from.tv_nsec) as f64 / 1e3)
}

#[test]
#[ignore = "takes a minute and 1.5 GB, and wants the process for itself"]
fn a_million_names_fit() {
    let names: usize = std::env::var("NAMES").map_or(1_000_000, |text| text.parse().unwrap());
    let issuer = ec(Nid::SECP384R1);
    let made = |_| {
        let key = ec(Nid::X9_62_PRIME256V1);
        let (der, pkcs8) = (leaf(&key, &issuer).to_der().unwrap(), key.private_key_to_pkcs8().unwrap());
        Made { der, key, pkcs8 }
    };
    let leaves: Vec<Made> = (0..LEAVES).map(made).collect();
    let (chains, intermediates) = (Chains::default(), vec![authority("E7")]);
    let capacity = |warm_bytes_max, parsed_bytes_max| Capacity { warm_bytes_max, parsed_bytes_max };
    let fill = |table: &Table, names: usize| {
        for number in 0..names {
            let opened = leaves[number % LEAVES].opened(&chains, &intermediates);
            table.keep(&name(number), opened).unwrap();
        }
    };

    // The allocator and OpenSSL warm up on a small one.
    fill(&Table::new(capacity(1 << 30, 1 << 20), Duration::MAX), 1000);
    let before = resident_bytes();
    let parsed = Table::new(capacity(1 << 30, 1 << 30), Duration::MAX);
    fill(&parsed, PARSED);
    let both_bytes = (resident_bytes() - before) / PARSED;
    let parsed_estimated = usize::try_from(parsed.parsed_size().bytes).unwrap() / PARSED;

    let before = resident_bytes();
    let table = Table::new(capacity(4 << 30, 1 << 20), Duration::MAX);
    fill(&table, names);
    let warm = table.warm_size();
    assert_eq!(warm.entries, names, "nothing was evicted");
    let warm_bytes = (resident_bytes() - before) / names;
    let estimated_bytes = usize::try_from(warm.bytes).unwrap() / names;

    let find = |number: usize, expected: Tier| match table.find(&name(number), super::now()) {
        Found::Fresh(_, tier) => assert_eq!(tier, expected),
        _ => panic!("{number} is not in memory"),
    };
    let tries = names.min(10_000) / 2;
    table.forget_parsed();
    let ((), warm_cost) = cpu_microseconds(|| (0..tries).for_each(|number| find(number, Tier::Warm)));
    let ((), parsed_cost) = cpu_microseconds(|| (0..tries).for_each(|_| find(tries - 1, Tier::Parsed)));
    let parsed_bytes = both_bytes - warm_bytes;
    println!(
        "{{\"names\":{names},\"leaf_bytes\":{},\"bytes_per_warm_name\":{warm_bytes},\"estimated_bytes_per_warm_name\":{estimated_bytes},\
         \"bytes_per_parsed_name\":{parsed_bytes},\"estimated_bytes_per_parsed_name\":{parsed_estimated},\
         \"warm_hit_cpu_us\":{:.2},\"parsed_hit_cpu_us\":{:.2}}}",
        leaves[0].der.len(),
        warm_cost / tries as f64,
        parsed_cost / tries as f64,
    );
    assert!(warm_bytes <= BYTES_PER_WARM_NAME_MAX, "{warm_bytes} bytes a name");
    assert!(
        estimated_bytes * 10 >= warm_bytes * 9,
        "the bound is on an estimate of {estimated_bytes}, in fact {warm_bytes}"
    );
    assert!(parsed_estimated * 10 >= parsed_bytes * 8, "the same: {parsed_estimated}, in fact {parsed_bytes}");
}
