//! What a client is told that names no host, none of ours, or something else than a host.

use std::os::unix::fs::PermissionsExt;

use support::edge::Edge;
use support::fleet::Plan;
use support::wait::{PATIENCE, until};

use crate::s_client::{VERSIONS, Version, Visit};
use crate::world::World;

const HANDSHAKES: &str = "latchkey_tls_handshakes_total";
const HANDSHAKE_FAILURE: u8 = 40;
const MISSING_EXTENSION: u8 = 109;
const UNRECOGNIZED_NAME: u8 = 112;
const NO_APPLICATION_PROTOCOL: u8 = 120;

#[tokio::test]
async fn each_refusal_has_its_alert_in_both_versions() {
    let world = World::start(Plan::default()).await;
    world.issue("shop.example").await;
    for version in VERSIONS {
        let to = |name: &str| Visit::to(world.fleet.edge_setup.https, version, name);
        let long = format!("{}.example", "a".repeat(300));
        // TLS 1.2 has no alert for a missing extension.
        let without_name = if version == Version::Tls12 { HANDSHAKE_FAILURE } else { MISSING_EXTENSION };
        for (visit, alert, outcome) in [
            (to("shop.example").nameless(), without_name, "no_sni"),
            (to("nobody.example"), UNRECOGNIZED_NAME, "unknown_sni"),
            (to("127.0.0.1"), UNRECOGNIZED_NAME, "malformed_sni"),
            (to("localhost"), UNRECOGNIZED_NAME, "malformed_sni"),
            (to("a_b.example"), UNRECOGNIZED_NAME, "malformed_sni"),
            (to(&long[60..]), UNRECOGNIZED_NAME, "malformed_sni"),
            (to("shop.example").offering("acme-tls/1"), NO_APPLICATION_PROTOCOL, "no_challenge"),
            (to("shop.example").offering("acme-tls/1,h2"), NO_APPLICATION_PROTOCOL, "acme_among_others"),
        ] {
            let before = world.metric(HANDSHAKES, outcome).await;
            let seen = visit.go().await;
            assert_eq!(seen.alert(), Some(alert), "{version:?} {outcome}: {}", seen.text);
            counted(&world, outcome, before + 1.0).await;
        }
    }
}

/// The alert leaves before the edge counts it.
async fn counted(world: &World, outcome: &str, times: f64) {
    let counted = until(format!("{times} × {outcome}"), PATIENCE, async || {
        let seen = world.fleet.edge.admin.metric(HANDSHAKES, outcome).await?;
        if seen < times { support::fail(format!("{seen}")) } else { Ok(seen) }
    });
    assert_eq!(counted.await.unwrap(), times, "{outcome}");
}

/// The default certificate of an operator's own, in files beside the edge's.
fn own_default(world: &World) -> String {
    let issued = support::authority::Authority::new("an operator's own").unwrap().issue("default.example").unwrap();
    let certificate = world.fleet.folder.write("default.pem", issued.certificate.to_pem().unwrap()).unwrap();
    let key = world.fleet.folder.write("default.key", issued.key.private_key_to_pem_pkcs8().unwrap()).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    format!("default_certificate_file = {certificate:?}\ndefault_key_file = {key:?}\n")
}

#[tokio::test]
async fn who_names_no_host_of_ours_gets_the_default_certificate_and_421_where_the_policy_says_so() {
    let mut world = World::start(Plan::default()).await;
    for name in ["shop.example", "default.example"] {
        world.issue(name).await;
    }
    let of_a_domain = "default_hostname = \"default.example\"\n".to_owned();
    for default in [of_a_domain, own_default(&world)] {
        let settings = format!("[tls]\nwithout_sni = \"default\"\nunknown_sni = \"default\"\n{default}");
        world.fleet.edge_setup.settings = settings;
        world.fleet.edge.process.stop().await.unwrap();
        world.fleet.edge = Edge::start(&world.fleet.edge_setup).await.unwrap();
        for version in VERSIONS {
            let to = |name: &str| Visit::to(world.fleet.edge_setup.https, version, name);
            for (visit, status) in [
                (to("nobody.example").nameless(), 421),
                // Not even what the certificate covers: a site is answered where it was named.
                (to("default.example").nameless(), 421),
                (to("shop.example").nameless(), 421),
                (to("nobody.example"), 421),
                // The request names the same, which is no host either.
                (to("127.0.0.1"), 400),
                (to("a_b.example"), 400),
            ] {
                let seen = visit.go().await;
                assert!(seen.finished(), "{version:?}: {}", seen.text);
                assert_eq!((seen.names(), seen.status()), (vec!["default.example".to_owned()], Some(status)));
            }
            let ours = to("shop.example").go().await;
            assert_eq!((ours.names(), ours.status()), (vec!["shop.example".to_owned()], Some(200)));
            // A CA is not answered with it.
            assert!(!to("nobody.example").offering("acme-tls/1").go().await.finished());
        }
    }
}

#[tokio::test]
async fn a_policy_without_its_certificate_is_a_faulty_boot_file() {
    let mut world = World::start(Plan::default()).await;
    world.fleet.edge.process.stop().await.unwrap();
    for (settings, says) in [
        ("without_sni = \"default\"", "needs `default_hostname`"),
        ("default_hostname = \"a.example\"", "which nobody gets"),
        ("unknown_sni = \"default\"\ndefault_hostname = \"1.2.3.4\"", "is an IP address"),
        ("unknown_sni = \"default\"\ndefault_key_file = \"x\"", "give either"),
        ("unknown_sni = \"serve\"", "unknown value `serve`"),
    ] {
        world.fleet.edge_setup.settings = format!("[tls]\n{settings}\n");
        let error = Edge::start(&world.fleet.edge_setup).await.err().unwrap().to_string();
        assert!(error.contains(says), "{settings}: {error}");
    }
}
