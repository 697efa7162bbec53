//! An RSA certificate beside the ECDSA one: each client gets the one that it can check.

use serde_json::json;
use support::authority::{Authority, Issued};
use support::fleet::Plan;
use support::wait::{PATIENCE, until};

use crate::world::{World, run, stderr, stdout};

/// What OpenSSL's client says of the handshake.
async fn s_client(world: &World, host: &str, options: &[&str]) -> String {
    let root = world.fleet.folder.write("root.pem", world.fleet.root().await.unwrap()).unwrap();
    s_client_of(world, &root, host, options).await
}

async fn s_client_of(world: &World, root: &std::path::Path, host: &str, options: &[&str]) -> String {
    let output = run("openssl", |command| {
        command.arg("s_client").arg("-connect").arg(world.fleet.edge_setup.https.to_string());
        command.arg("-CAfile").arg(root).args(["-servername", host, "-verify_hostname", host]);
        command.args(["-verify_return_error"]).args(options);
    });
    let output = output.await;
    stdout(&output) + &stderr(&output)
}

const RSA_ONLY: [&[&str]; 2] = [
    &["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256", "-sigalgs", "RSA-PSS+SHA256:RSA+SHA256"],
    &["-tls1_3", "-sigalgs", "RSA-PSS+SHA256:RSA+SHA256"],
];
const WITH_ECDSA: [&[&str]; 3] = [&["-tls1_2"], &["-tls1_3"], &["-tls1_3", "-sigalgs", "ECDSA+SHA256:RSA-PSS+SHA256"]];

/// Both kinds of clients, both versions, from memory too.
async fn each_gets_its_own(world: &World) {
    for options in RSA_ONLY.iter().chain(&RSA_ONLY) {
        let said = s_client(world, "shop.example", options).await;
        assert!(said.contains("Server public key is 2048 bit"), "{options:?}: {said}");
        assert!(said.contains("Verify return code: 0 (ok)") || said.contains("Verification: OK"), "{said}");
    }
    for options in WITH_ECDSA {
        let said = s_client(world, "shop.example", options).await;
        assert!(said.contains("Server public key is 256 bit"), "{options:?}: {said}");
    }
    let bundle = world.bundle("shop.example").await;
    assert_eq!((bundle.revision, bundle.rsa.is_some()), (1, true));
}

#[tokio::test]
async fn both_kinds_of_clients_are_served_with_the_internal_ca() {
    let world = World::start(Plan { rsa: true, ..Plan::default() }).await;
    world.issue("shop.example").await;
    each_gets_its_own(&world).await;
}

#[tokio::test]
async fn both_kinds_of_clients_are_served_with_certificates_from_acme_and_after_a_restart() {
    let mut world = World::start(Plan { rsa: true, pebble: true, redis: true, ..Plan::default() }).await;
    world.issue("shop.example").await;
    each_gets_its_own(&world).await;
    // From the sealed bundle on disk.
    let setup = world.fleet.edge_setup.clone();
    let kept = until("the bundle to be on disk", PATIENCE, async || {
        let folder = setup.data_folder().join("bundles");
        if std::fs::read_dir(folder)?.next().is_some() { Ok(()) } else { support::fail("nothing there") }
    });
    kept.await.unwrap();
    world.fleet.edge.process.kill();
    world.fleet.edge = support::edge::Edge::start(&setup).await.unwrap();
    each_gets_its_own(&world).await;
}

#[tokio::test]
async fn without_the_setting_a_client_without_ecdsa_is_refused() {
    let world = World::start(Plan::default()).await;
    world.issue("shop.example").await;
    for options in RSA_ONLY {
        let said = s_client(&world, "shop.example", options).await;
        assert!(said.contains("alert handshake failure"), "{said}");
    }
    world.still_serves("shop.example").await;
}

/// Chain and key as an upload has them.
fn uploaded(authority: &Authority, Issued { certificate, key }: &Issued) -> serde_json::Value {
    let pem = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let chain = pem(certificate.to_pem().unwrap()) + &pem(authority.root_pem().unwrap());
    json!({"chain": chain, "key": pem(key.private_key_to_pem_pkcs8().unwrap())})
}

#[tokio::test]
async fn both_kinds_of_clients_are_served_with_uploaded_certificates() {
    let world = World::start(Plan { certservice_on_socket: true, ..Plan::default() }).await;
    let authority = Authority::new("a CA that sells").unwrap();
    let key = openssl::pkey::PKey::from_rsa(openssl::rsa::Rsa::generate(2048).unwrap()).unwrap();
    let rsa = Issued { certificate: authority.certify("shop.example", &key).unwrap(), key };
    let ecdsa = authority.issue("shop.example").unwrap();
    let path = "/v1/domains/shop.example/certificate";
    let operator = world.fleet.certservice.as_operator();
    let mut body = uploaded(&authority, &rsa);
    body["rsa"] = uploaded(&authority, &ecdsa);
    let refused = operator.put(path, body.to_string()).await.unwrap();
    assert!(refused.status == 400 && refused.text().contains("/rsa/chain/0"), "{}", refused.text());
    let mut body = uploaded(&authority, &ecdsa);
    body["rsa"] = uploaded(&authority, &rsa);
    operator.put(path, body.to_string()).await.unwrap().expect(201).unwrap();
    let root = world.fleet.folder.write("sold.pem", authority.root_pem().unwrap()).unwrap();
    until("the uploaded ones to be served", PATIENCE, async || {
        let said = s_client_of(&world, &root, "shop.example", &[]).await;
        if said.contains("Server public key is 256 bit") { Ok(()) } else { support::fail(said) }
    })
    .await
    .unwrap();
    for options in RSA_ONLY {
        let said = s_client_of(&world, &root, "shop.example", options).await;
        assert!(said.contains("Server public key is 2048 bit"), "{options:?}: {said}");
        assert!(said.contains("Verify return code: 0 (ok)") || said.contains("Verification: OK"), "{said}");
    }
    // The next one alone: the second goes with the first.
    operator.put(path, uploaded(&authority, &ecdsa).to_string()).await.unwrap().expect(200).unwrap();
    until("the second one to be gone", PATIENCE, async || {
        let said = s_client_of(&world, &root, "shop.example", RSA_ONLY[0]).await;
        if said.contains("alert handshake failure") { Ok(()) } else { support::fail(said) }
    })
    .await
    .unwrap();
}
