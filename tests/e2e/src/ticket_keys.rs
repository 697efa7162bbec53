//! Session ticket keys: shared by all edges, turned in time, sealed wherever they lie.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use contract::sealed::{self, EdgeKey};
use contract::signed::{SigningKey, VerifyKeys, sign, verify};
use contract::{TicketKeys, redis_keys};
use support::edge::{Edge, Setup};
use support::fleet::Plan;
use support::folder::read;
use support::wait::{PATIENCE, until};

use crate::s_client::{VERSIONS, Version, Visit};
use crate::world::World;

const REVISION: &str = "latchkey_ticket_keys_revision";
const REJECTED: &str = "latchkey_bundles_rejected_total";
const REFUSED: &str = "latchkey_tls_tickets_refused_total";

/// Waits until an edge has the fleet's keys.
async fn shares(edge: &Edge) -> f64 {
    let shared = until("the fleet's ticket keys", PATIENCE, async || match edge.admin.metric(REVISION, "").await? {
        0.0 => support::fail("none yet"),
        revision => Ok(revision),
    });
    shared.await.unwrap()
}

async fn counted(edge: &Edge, name: &str, label: &str) {
    let counted = until(format!("{name} {label}"), PATIENCE, async || match edge.admin.metric(name, label).await? {
        0.0 => support::fail("not yet"),
        _ => Ok(()),
    });
    counted.await.unwrap();
}

/// Until the certificate of a name lies on an edge's disk.
async fn keeps(setup: &Setup) {
    let bundles = setup.data_folder().join("bundles");
    let kept = until("the bundle on disk", PATIENCE, async || {
        let mut files = Vec::new();
        crate::sealing::files(&bundles, &mut files);
        if files.iter().any(|(name, _)| name.ends_with(".jws")) { Ok(()) } else { support::fail("none yet") }
    });
    kept.await.unwrap();
}

#[tokio::test]
async fn a_session_is_resumed_on_another_edge_and_after_restarts_with_all_else_down() {
    let mut world = World::start(Plan { redis: true, second_edge: true, ..Plan::default() }).await;
    world.issue("shop.example").await;
    let fleet = &mut world.fleet;
    let second = fleet.second_edge.as_mut().unwrap();
    assert_eq!(shares(&fleet.edge).await, shares(&second.edge).await);

    let session = |version| fleet.folder.path().join(format!("{version:?}.session"));
    for version in VERSIONS {
        let first = Visit::to(fleet.edge_setup.https, version, "shop.example").keeping(&session(version)).go().await;
        assert!(first.finished() && !first.resumed, "{}", first.text);
        let other = Visit::to(second.setup.https, version, "shop.example").resuming(&session(version)).go().await;
        assert!(other.resumed && other.finished(), "{}", other.text);
    }
    for setup in [&fleet.edge_setup, &second.setup] {
        keeps(setup).await;
    }

    fleet.certservice.process.kill();
    fleet.redis.as_mut().unwrap().process.kill();
    fleet.edge.process.stop().await.unwrap();
    second.edge.process.stop().await.unwrap();
    fleet.edge = Edge::start(&fleet.edge_setup).await.unwrap();
    second.edge = Edge::start(&second.setup).await.unwrap();
    for version in VERSIONS {
        for to in [fleet.edge_setup.https, second.setup.https] {
            let again = Visit::to(to, version, "shop.example").resuming(&session(version)).go().await;
            assert!(again.resumed && again.finished(), "{}", again.text);
        }
    }
}

#[tokio::test]
async fn keys_turn_and_old_tickets_are_renewed_and_then_refused() {
    let settings = "[tickets]\nrotation_seconds = 5\nlifetime_seconds = 20\n";
    let world = World::start(Plan { certservice_settings: settings, ..Plan::default() }).await;
    world.issue("shop.example").await;
    shares(&world.fleet.edge).await;
    let session = world.fleet.folder.path().join("session");
    // TLS 1.3 gives a new ticket each time: 1.2 shows which key made it do so.
    let visit = Visit::to(world.fleet.edge_setup.https, Version::Tls12, "shop.example");
    let first = visit.clone().keeping(&session).go().await;
    let first_key = first.ticket_key().unwrap();
    let mut renewed = false;
    let full = until("a full handshake", PATIENCE, async || {
        let seen = visit.clone().resuming(&session).go().await;
        assert!(seen.finished(), "never an error: {:?}", seen.text);
        renewed |= seen.resumed && seen.ticket_key() != Some(first_key.clone());
        if seen.resumed { support::fail("it is resumed still") } else { Ok(seen) }
    });
    let full = full.await.unwrap();
    assert!(renewed, "while it was good, a newer key came");
    assert_ne!(full.ticket_key(), Some(first_key));
    assert!(world.metric(REFUSED, "").await >= 1.0);
}

fn genuine(world: &World, token: &str) -> TicketKeys {
    let pem = read(&world.fleet.certservice_setup.verify_key()).unwrap();
    verify(token, &VerifyKeys::from_pems([pem.as_str()]).unwrap()).unwrap()
}

#[tokio::test]
async fn altered_foreign_and_rolled_back_keys_are_refused() {
    let mut world = World::start(Plan { redis: true, ..Plan::default() }).await;
    world.issue("shop.example").await;
    let revision = shares(&world.fleet.edge).await;
    let session = world.fleet.folder.path().join("session");
    let visit = Visit::to(world.fleet.edge_setup.https, Version::Tls13, "shop.example");
    assert!(visit.clone().keeping(&session).go().await.finished());
    keeps(&world.fleet.edge_setup).await;
    let redis = world.fleet.redis.as_ref().unwrap();
    let token = redis.get(redis_keys::TICKET_KEYS).await.unwrap().unwrap();
    let keys = genuine(&world, &token);
    // Nobody mends what is in Redis now.
    world.fleet.certservice.process.kill();

    let newer = TicketKeys { revision: keys.revision + 1000, ..keys.clone() };
    let older = TicketKeys { revision: keys.revision - 1, ..keys.clone() };
    let parts: Vec<&str> = token.split('.').collect();
    let payload = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&newer).unwrap());
    let altered = format!("{}.{payload}.{}", parts[0], parts[2]);
    let (stranger, _) = SigningKey::generate().unwrap();
    let signing = read(&world.fleet.certservice_setup.data_folder().join("signing.pem")).unwrap();
    let signing = SigningKey::from_pem(&signing).unwrap();
    for (forged, reason) in [
        (altered, "signature"),
        (sign(&newer, &stranger).unwrap(), "signature"),
        ("nonsense".to_owned(), "signature"),
        (sign(&older, &signing).unwrap(), "rolled_back"),
    ] {
        redis.set(redis_keys::TICKET_KEYS, &forged).await.unwrap();
        world.fleet.edge.process.stop().await.unwrap();
        world.fleet.edge = Edge::start(&world.fleet.edge_setup).await.unwrap();
        counted(&world.fleet.edge, REJECTED, reason).await;
        assert_eq!(world.metric(REVISION, "").await, revision);
        let seen = visit.clone().resuming(&session).go().await;
        assert!(seen.resumed && seen.finished(), "{}", seen.text);
    }

    // A damaged disk too: own keys take their place.
    let file = world.fleet.edge_setup.data_folder().join("ticket-keys.jws");
    redis.set(redis_keys::TICKET_KEYS, "nonsense").await.unwrap();
    world.fleet.edge.process.stop().await.unwrap();
    std::fs::write(&file, "\u{0}nonsense").unwrap();
    world.fleet.edge = Edge::start(&world.fleet.edge_setup).await.unwrap();
    let seen = visit.clone().resuming(&session).keeping(&session).go().await;
    assert!(seen.finished() && !seen.resumed, "{}", seen.text);
    assert_eq!(world.metric(REFUSED, "unknown_key").await, 1.0);
    assert!(visit.resuming(&session).go().await.resumed);
}

#[tokio::test]
async fn ticket_keys_lie_nowhere_in_clear() {
    let world = World::start(Plan { redis: true, ..Plan::default() }).await;
    shares(&world.fleet.edge).await;
    let redis = world.fleet.redis.as_ref().unwrap();
    let token = redis.get(redis_keys::TICKET_KEYS).await.unwrap().unwrap();
    let keys = genuine(&world, &token);
    let edge = EdgeKey::from_pem(read(&world.fleet.edge_setup.key).unwrap().as_bytes()).unwrap();
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let mut haystacks = vec![("Redis".to_owned(), redis.dump().await.unwrap()), ("the payload".to_owned(), payload)];
    crate::sealing::files(world.fleet.folder.path(), &mut haystacks);
    let holds = |what: &[u8], needle: &[u8]| what.windows(needle.len()).any(|window| window == needle);
    assert!(keys.keys.len() >= 2);
    for key in &keys.keys {
        let secret = sealed::open_ticket_key(&key.secret, &edge, &key.name).unwrap();
        let hex = support::certservice::hex(&*secret).into_bytes();
        for needle in
            [secret.to_vec(), hex, STANDARD.encode(&secret[..30]).into(), URL_SAFE_NO_PAD.encode(&secret[..30]).into()]
        {
            for (name, content) in &haystacks {
                assert!(!holds(content, &needle), "{name} holds a ticket key");
            }
        }
        // The search does find what is there.
        let name = URL_SAFE_NO_PAD.encode(key.name.0);
        assert!(haystacks.iter().any(|(_, content)| holds(content, name.as_bytes())));
    }
}
