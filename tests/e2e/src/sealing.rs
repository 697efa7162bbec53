//! The sealed key: opened and made by an implementation that others wrote, and found nowhere in clear.

use std::path::Path;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use contract::sealed::{self, EdgeKey, Expected, Sealed};
use openssl::pkey::PKey;
use openssl::x509::X509;
use serde_json::json;
use support::authority::Authority;
use support::fleet::Plan;
use support::folder::read;

use crate::world::{World, hostname, output, repository, stderr, stdout};

async fn jose(action: &str, input: &Path) -> String {
    let home = std::env::home_dir().unwrap();
    let mut command = Command::new(home.join(".cache/latchkey/venv/bin/python"));
    command.arg(repository().join("tests/e2e/jose.py")).arg(action).arg(input);
    let output = output(command).await;
    assert!(output.status.success(), "{}", stderr(&output));
    stdout(&output)
}

#[tokio::test]
async fn another_jose_implementation_opens_what_certservice_sealed() {
    let world = World::start(Plan::default()).await;
    world.issue("shop.example").await;
    let bundle = world.bundle("shop.example").await;
    let edge = read(&world.fleet.edge_setup.key).unwrap();
    let input = json!({"jwe": bundle.key, "private_key": edge}).to_string();
    let opened = jose("open", &world.fleet.folder.write("open.json", input).unwrap()).await;
    let opened: serde_json::Value = serde_json::from_str(&opened).unwrap();

    let leaf = X509::from_der(&bundle.chain().unwrap()[0]).unwrap();
    let key = PKey::private_key_from_pem(opened["key"].as_str().unwrap().as_bytes()).unwrap();
    assert!(key.public_eq(&leaf.public_key().unwrap()));
    assert_eq!(opened["aad"]["domain"], "shop.example");
    assert_eq!(opened["header"]["alg"], "RSA-OAEP-256");
    assert_eq!(opened["header"]["enc"], "A256GCM");
}

#[tokio::test]
async fn the_edge_opens_what_another_jose_implementation_sealed() {
    let folder = support::folder::Folder::new().unwrap();
    let (ours, other) = (EdgeKey::generate(2048).unwrap(), EdgeKey::generate(3072).unwrap());
    let issued = Authority::new("test").unwrap().issue("shop.example").unwrap();
    let certificate = contract::bundle::sha256(&issued.certificate.to_der().unwrap());
    let public_key = || Some(contract::bundle::sha256(&issued.key.public_key_to_der().unwrap()));
    let public = |key: &EdgeKey| json!({"kid": key.kid(), "public_key": key.public_pem().unwrap()});
    let input = json!({
        "domain": "shop.example",
        "certificate_sha256": support::certservice::hex(&certificate),
        "recipients": [public(&other), public(&ours)],
        "key": String::from_utf8(issued.key.private_key_to_pem_pkcs8().unwrap()).unwrap(),
    });
    let jwe = jose("seal", &folder.write("seal.json", input.to_string()).unwrap()).await;
    let jwe: Sealed = serde_json::from_str(&jwe).unwrap();
    let (shop, blog) = (hostname("shop.example"), hostname("blog.example"));
    for key in [&ours, &other] {
        let opened =
            sealed::open(&jwe, key, &Expected { domain: &shop, certificate, public_key: &public_key }).unwrap();
        assert_eq!(*opened, issued.key.private_key_to_pkcs8().unwrap());
        assert!(sealed::open(&jwe, key, &Expected { domain: &blog, certificate, public_key: &public_key }).is_err());
    }
}

#[tokio::test]
async fn the_private_key_lies_nowhere_in_clear() {
    search(Plan { redis: true, ..Plan::default() }).await;
}

#[tokio::test]
async fn nor_with_mariadb_and_with_a_second_key() {
    search(Plan { redis: true, mariadb: true, rsa: true, ..Plan::default() }).await;
}

/// Through all that the fleet has written, and through CertService's memory.
async fn search(plan: Plan) {
    let world = World::start(plan).await;
    world.issue("shop.example").await;
    world.still_serves("shop.example").await;
    let bundle = world.bundle("shop.example").await;
    let needles: Vec<_> =
        bundle.certificates().flat_map(|(chain, key)| needles(&world, &chain.unwrap()[0], key)).collect();
    assert_eq!(needles.len(), if plan.rsa { 12 } else { 6 });

    let mut haystacks = vec![("Redis".to_owned(), world.fleet.redis.as_ref().unwrap().dump().await.unwrap())];
    let token = world.cached_token("shop.example").await;
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    haystacks.push(("the token's payload".into(), payload));
    files(world.fleet.folder.path(), &mut haystacks);
    match memory(world.fleet.certservice.process.id()) {
        Ok(memory) => {
            assert!(holds(&memory, &[b"latchkey_certservice".to_vec()]), "the search does find what is there");
            haystacks.push(("CertService's memory".into(), memory));
        }
        // The kernel keeps what is not dumpable from everybody but root.
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied, "{error}"),
    }
    // The search does find what is there: the certificate, in the database and in Redis.
    let certificate = [bundle.x5c[0].as_bytes()[100..200].to_vec(), bundle.chain().unwrap().remove(0)];
    let found = haystacks.iter().filter(|(_, content)| holds(content, &certificate));
    assert!(found.count() >= 2, "{:?}", haystacks.iter().map(|(name, _)| name).collect::<Vec<_>>());
    for (name, content) in &haystacks {
        for (at, needle) in needles.iter().enumerate() {
            assert!(!holds(content, std::slice::from_ref(needle)), "{name} holds the private key (form {at})");
        }
    }
}

/// The secret part of a key as it could lie somewhere: as it is, with its words in the processor's order, its digits, and
/// base64 of the whole wherever that begins.
fn needles(world: &World, leaf: &[u8], key: &Sealed) -> Vec<Vec<u8>> {
    let public = X509::from_der(leaf).unwrap().public_key().unwrap();
    let edge = EdgeKey::from_pem(read(&world.fleet.edge_setup.key).unwrap().as_bytes()).unwrap();
    let expected = Expected {
        domain: &hostname("shop.example"),
        certificate: contract::bundle::sha256(leaf),
        public_key: &|| Some(contract::bundle::sha256(&public.public_key_to_der().unwrap())),
    };
    let pkcs8 = sealed::open(key, &edge, &expected).unwrap();
    let opened = PKey::private_key_from_der(&pkcs8).unwrap();
    let secret = match opened.ec_key() {
        Ok(key) => key.private_key().to_vec_padded(32).unwrap(),
        Err(_) => opened.rsa().unwrap().p().unwrap().to_vec(),
    };
    let reversed = secret.iter().rev().copied().collect();
    let digits = support::certservice::hex(&secret).into_bytes();
    // Wherever the whole begins, its groups of three bytes begin at one of these.
    let shifted = |by: usize| STANDARD.encode(&secret[by..by + 24]).into_bytes();
    let encoded = [shifted(0), shifted(1), shifted(2)];
    let whole = STANDARD.encode(&*pkcs8).into_bytes();
    assert!(encoded.iter().any(|part| whole.windows(part.len()).any(|window| window == part)));
    [vec![secret, reversed, digits], encoded.to_vec()].concat()
}

fn holds(what: &[u8], needles: &[Vec<u8>]) -> bool {
    let mut first = [false; 256];
    needles.iter().for_each(|needle| first[usize::from(needle[0])] = true);
    let begins = |at: usize| needles.iter().any(|needle| what[at..].starts_with(needle));
    what.iter().enumerate().any(|(at, byte)| first[usize::from(*byte)] && begins(at))
}

/// All that a process may write, as a core dump would have it.
fn memory(process: u32) -> std::io::Result<Vec<u8>> {
    use std::os::unix::fs::FileExt;
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps"))?;
    let memory = std::fs::File::open(format!("/proc/{process}/mem"))?;
    let mut all = Vec::new();
    for line in maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|mode| mode.starts_with("rw"))) {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let (from, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
        let mut region = vec![0; usize::try_from(to - from).unwrap()];
        // A thread may end meanwhile, and its stack go.
        if memory.read_exact_at(&mut region, from).is_ok() {
            all.extend(region);
        }
    }
    Ok(all)
}

/// Database, logs, data folders: all that the fleet has written, but for the keys' own files.
pub(crate) fn files(folder: &Path, into: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, into);
        } else if let Ok(content) = std::fs::read(&path) {
            into.push((path.display().to_string(), content));
        }
    }
}
