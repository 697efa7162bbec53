//! Redis is a cache that may be stolen or altered: nothing in it is believed.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use contract::signed::{SigningKey, sign};
use contract::{Bundle, sealed};
use support::authority::{Authority, Issued};
use support::fleet::Plan;
use support::folder::read;

use crate::world::{World, hostname};

const REJECTED: &str = "latchkey_bundles_rejected_total";

#[tokio::test]
async fn a_bundle_swapped_between_two_domains_is_refused() {
    let mut world = World::start(Plan { redis: true, ..Plan::default() }).await;
    world.issue("shop.example").await;
    world.issue("blog.example").await;
    let (shop, blog) = (world.cached_token("shop.example").await, world.cached_token("blog.example").await);
    world.cache_token("shop.example", &blog).await;
    world.cache_token("blog.example", &shop).await;

    // CertService has the last word while it is there, and nobody else when it is not.
    assert_eq!(world.https("shop.example").await.names(), ["shop.example"]);
    assert!(world.metric(REJECTED, "").await >= 1.0);
    let visitor = world.visitor().await;
    world.fleet.certservice.process.kill();
    let before = world.metric(REJECTED, "").await;
    assert!(visitor.https("blog.example").await.is_err());
    assert!(world.metric(REJECTED, "").await > before);
    world.still_serves("shop.example").await;
}

#[tokio::test]
async fn an_altered_or_foreign_signature_is_refused() {
    let mut world = World::start(Plan { redis: true, ..Plan::default() }).await;
    world.issue("shop.example").await;
    let token = world.cached_token("shop.example").await;
    let bundle = world.bundle("shop.example").await;
    let visitor = world.visitor().await;
    world.fleet.certservice.process.kill();

    let parts: Vec<&str> = token.split('.').collect();
    let mut payload: serde_json::Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
    payload["revision"] = 99.into();
    let altered = format!("{}.{}.{}", parts[0], URL_SAFE_NO_PAD.encode(payload.to_string()), parts[2]);
    let (stranger, _) = SigningKey::generate().unwrap();
    let foreign = sign(&bundle, &stranger).unwrap();
    for forged in [altered, foreign, token[..token.len() - 8].to_owned(), "nonsense".into()] {
        world.cache_token("shop.example", &forged).await;
        let before = world.metric(REJECTED, "reason=\"signature\"").await;
        refused_until_forgotten(&visitor, &world, before).await;
    }
    world.cache_token("shop.example", &token).await;
    let served = support::wait::until("the genuine token", support::wait::PATIENCE, async || {
        visitor.https("shop.example").await.map(|connection| connection.names())
    });
    assert_eq!(served.await.unwrap(), ["shop.example"]);
}

#[tokio::test]
async fn an_older_bundle_in_redis_replaces_nothing() {
    let mut world = World::start(Plan { redis: true, ..Plan::default() }).await;
    world.fleet.edge.process.stop().await.unwrap();
    world.fleet.edge_setup.settings = "[tls]\nrefresh_seconds = 1\n".into();
    world.fleet.edge = support::edge::Edge::start(&world.fleet.edge_setup).await.unwrap();
    world.fleet.edge.apply(&world.config()).await.unwrap();
    world.issue("shop.example").await;
    world.still_serves("shop.example").await;
    let signing = read(&world.fleet.certservice_setup.data_folder().join("signing.pem")).unwrap();
    let bundle = world.bundle("shop.example").await;
    let older = Bundle { revision: bundle.revision - 1, ..bundle };
    world.cache_token("shop.example", &sign(&older, &SigningKey::from_pem(&signing).unwrap()).unwrap()).await;

    let asked = async |tier: &str| {
        let label = format!("result=\"hit\",tier=\"{tier}\"");
        world.metric("latchkey_certificate_lookups_total", &label).await
    };
    let before = (asked("redis").await, asked("certservice").await);
    let refreshed = support::wait::until("CertService to be asked", support::wait::PATIENCE, async || {
        world.still_serves("shop.example").await;
        let now = (asked("redis").await, asked("certservice").await);
        if now.0 > before.0 && now.1 > before.1 { Ok(()) } else { support::fail("not yet") }
    });
    refreshed.await.unwrap();
    world.fleet.edge.process.stop().await.unwrap();
    assert_eq!(revisions(&world.fleet.edge_setup.data_folder().join("bundles")), [older.revision + 1]);
}

/// Of the bundles on an edge's disk.
fn revisions(folder: &std::path::Path) -> Vec<u64> {
    let below = |folder: &std::path::Path| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = below(folder).flat_map(|folder| below(&folder).collect::<Vec<_>>());
    let revision = |file: std::path::PathBuf| {
        let token = read(&file).unwrap();
        let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
        serde_json::from_slice::<serde_json::Value>(&payload).unwrap()["revision"].as_u64().unwrap()
    };
    files.map(revision).collect()
}

/// A refusal is remembered for a moment; waits until this forgery has been looked at.
async fn refused_until_forgotten(visitor: &support::visitor::Visitor, world: &World, before: f64) {
    let looked_at = support::wait::until("the forgery to be looked at", support::wait::PATIENCE, async || {
        assert!(visitor.https("shop.example").await.is_err());
        let now = world.metric(REJECTED, "reason=\"signature\"").await;
        if now > before { Ok(()) } else { support::fail("not yet") }
    });
    looked_at.await.unwrap();
}

/// Even what CertService itself signs is looked at: the certificate must cover the name, and the key must be its own.
#[tokio::test]
async fn a_certificate_for_the_wrong_name_is_never_served() {
    let world = World::start(Plan { redis: true, ..Plan::default() }).await;
    for name in ["shop.example", "key.example"] {
        world.issue(name).await;
    }
    let authority = Authority::new("a CA that is not asked").unwrap();
    let genuine = world.bundle("shop.example").await;

    let other_name = authority.issue("evil.example").unwrap();
    let wrong = forged(&world, "shop.example", &genuine, &other_name, &other_name);
    world.cache_token("shop.example", &wrong).await;
    let (certificate, key) = (authority.issue("key.example").unwrap(), authority.issue("key.example").unwrap());
    world.cache_token("key.example", &forged(&world, "key.example", &genuine, &certificate, &key)).await;

    let anybody = support::visitor::Visitor::to(world.fleet.edge_setup.https);
    for name in ["shop.example", "key.example"] {
        let before = world.metric(REJECTED, "").await;
        let connection = anybody.https(name).await.unwrap();
        assert_eq!(
            (connection.names(), connection.issuer()),
            (vec![name.to_owned()], world.https(name).await.issuer())
        );
        assert!(!connection.issuer().contains("not asked"));
        assert!(world.metric(REJECTED, "").await > before);
    }
}

/// A bundle with CertService's own signature, sealed to the edge, for `name`.
fn forged(world: &World, name: &str, like: &Bundle, certificate: &Issued, key: &Issued) -> String {
    let edge = read(&support::edge::public_key(&world.fleet.edge_setup.key)).unwrap();
    let edge = sealed::Recipient::from_pem(&edge).unwrap();
    let der = certificate.certificate.to_der().unwrap();
    let bound = sealed::Bound::Certificate(contract::bundle::sha256(&der));
    let private = key.key.private_key_to_pkcs8().unwrap();
    let bundle = Bundle {
        domain: hostname(name),
        revision: like.revision + 1,
        x5c: Bundle::encode_chain([der.as_slice()]),
        key: sealed::seal(&private, &hostname(name), bound, &[edge]).unwrap(),
        ..like.clone()
    };
    let signing = read(&world.fleet.certservice_setup.data_folder().join("signing.pem")).unwrap();
    sign(&bundle, &SigningKey::from_pem(&signing).unwrap()).unwrap()
}

#[tokio::test]
async fn a_bundle_of_another_edge_does_not_open() {
    let mut world = World::start(Plan::default()).await;
    world.issue("shop.example").await;
    // The edge is started again with a key that nothing is sealed to.
    let folder = world.fleet.folder.subfolder("other-edge").unwrap();
    world.fleet.edge.process.stop().await.unwrap();
    world.fleet.edge_setup.key = support::edge::generate_key(&folder).unwrap();
    world.fleet.edge = support::edge::Edge::start(&world.fleet.edge_setup).await.unwrap();
    let before = world.metric(REJECTED, "key_does_not_open").await;
    assert!(world.visitor().await.https("shop.example").await.is_err());
    assert!(world.metric(REJECTED, "key_does_not_open").await > before);
}
