//! What a client is told that names no host, none of ours, or something else than a host.

use support::fleet::Plan;

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
            (to("").nameless(), without_name, "no_sni"),
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
            assert_eq!(world.metric(HANDSHAKES, outcome).await, before + 1.0, "{outcome}");
        }
    }
}
