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
    let world = World::start(Plan { redis: true, ..Plan::default() }).await;
    world.issue("shop.example").await;
    world.still_serves("shop.example").await;
    let bundle = world.bundle("shop.example").await;
    let leaf = bundle.chain().unwrap().remove(0);
    let public = X509::from_der(&leaf).unwrap().public_key().unwrap();
    let edge = EdgeKey::from_pem(read(&world.fleet.edge_setup.key).unwrap().as_bytes()).unwrap();
    let expected = Expected {
        domain: &hostname("shop.example"),
        certificate: contract::bundle::sha256(&leaf),
        public_key: &|| Some(contract::bundle::sha256(&public.public_key_to_der().unwrap())),
    };
    let pkcs8 = sealed::open(&bundle.key, &edge, &expected).unwrap();
    let scalar = PKey::private_key_from_der(&pkcs8).unwrap().ec_key().unwrap().private_key().to_vec_padded(32).unwrap();
    let needles = [scalar.clone(), support::certservice::hex(&scalar).into_bytes(), inner_base64(&pkcs8)];

    let mut haystacks = vec![("Redis".to_owned(), world.fleet.redis.as_ref().unwrap().dump().await.unwrap())];
    let token = world.cached_token("shop.example").await;
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    haystacks.push(("the token's payload".into(), payload));
    files(world.fleet.folder.path(), &mut haystacks);
    let holds = |what: &[u8], needle: &[u8]| what.windows(needle.len()).any(|window| window == needle);
    // The search does find what is there: the certificate, in the database and in Redis.
    let certificate = bundle.x5c[0].as_bytes()[100..200].to_vec();
    let found = haystacks.iter().filter(|(_, content)| holds(content, &leaf) || holds(content, &certificate));
    assert!(found.count() >= 1, "{:?}", haystacks.iter().map(|(name, _)| name).collect::<Vec<_>>());
    for (name, content) in &haystacks {
        for needle in &needles {
            assert!(!holds(content, needle), "{name} holds the private key");
        }
    }
}

/// What any base64 of the key has in common with ours, wherever the key begins: whole groups from its middle.
fn inner_base64(der: &[u8]) -> Vec<u8> {
    let text = STANDARD.encode(der);
    text.as_bytes()[text.len() / 2..text.len() / 2 + 24].to_vec()
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
