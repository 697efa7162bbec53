//! An RSA certificate beside the ECDSA one: each client gets the one that it can check.

use support::fleet::Plan;
use support::wait::{PATIENCE, until};

use crate::world::{World, run, stderr, stdout};

/// What OpenSSL's client says of the handshake.
async fn s_client(world: &World, host: &str, options: &[&str]) -> String {
    let root = world.fleet.folder.write("root.pem", world.fleet.root().await.unwrap()).unwrap();
    let output = run("openssl", |command| {
        command.arg("s_client").arg("-connect").arg(world.fleet.edge_setup.https.to_string());
        command.arg("-CAfile").arg(&root).args(["-servername", host, "-verify_hostname", host]);
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
