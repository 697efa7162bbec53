//! TLS-ALPN-01 (RFC 8737) on the HTTPS listener: what a CA is shown, and whose answers it is not shown.

use std::time::{SystemTime, UNIX_EPOCH};

use contract::bundle::sha256;
use contract::signed::{SigningKey, sign};
use contract::{Challenge, ChallengeKind, redis_keys};
use support::fleet::Plan;
use support::folder::read;

use crate::s_client::{VERSIONS, Version, Visit};
use crate::world::{World, hostname};

const HANDSHAKES: &str = "latchkey_tls_handshakes_total";
const NO_APPLICATION_PROTOCOL: Option<u8> = Some(120);

#[tokio::test]
async fn a_ca_checks_the_domain_on_the_https_listener() {
    for redis in [true, false] {
        let world = World::start(Plan { pebble: true, tls_alpn: true, redis, ..Plan::default() }).await;
        world.issue("shop.example").await;
        assert_eq!(world.https("shop.example").await.names(), ["shop.example"]);
        assert!(world.metric(HANDSHAKES, "challenge_answered").await >= 1.0);
        // It is over: nothing is answered any more.
        let visit = Visit::to(world.fleet.edge_setup.https, Version::Tls12, "shop.example");
        assert_eq!(visit.offering("acme-tls/1").go().await.alert(), NO_APPLICATION_PROTOCOL);
    }
}

fn answer() -> Challenge {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    Challenge {
        domain: hostname("shop.example"),
        token: "t".into(),
        kind: ChallengeKind::TlsAlpn01,
        key_authorization: "t.k".into(),
        expires_at: now + 600,
    }
}

#[tokio::test]
async fn a_ca_is_shown_what_certservice_signed_for_this_name_and_nothing_else() {
    let world = World::start(Plan { redis: true, ..Plan::default() }).await;
    for name in ["shop.example", "other.example"] {
        world.issue(name).await;
    }
    let redis = world.fleet.redis.as_ref().unwrap();
    let key = redis_keys::tls_challenge(&hostname("shop.example"));
    let signing = read(&world.fleet.certservice_setup.data_folder().join("signing.pem")).unwrap();
    let signing = SigningKey::from_pem(&signing).unwrap();
    let (stranger, _) = SigningKey::generate().unwrap();
    let to = |name: &str, version| Visit::to(world.fleet.edge_setup.https, version, name);

    for (says, forged) in [
        ("of a stranger", sign(&answer(), &stranger).unwrap()),
        ("nonsense", "nonsense".to_owned()),
        ("another name's", sign(&Challenge { domain: hostname("other.example"), ..answer() }, &signing).unwrap()),
        ("http-01", sign(&Challenge { kind: ChallengeKind::Http01, ..answer() }, &signing).unwrap()),
        ("over", sign(&Challenge { expires_at: 1, ..answer() }, &signing).unwrap()),
    ] {
        redis.set(&key, &forged).await.unwrap();
        for version in VERSIONS {
            let seen = to("shop.example", version).offering("acme-tls/1").go().await;
            assert_eq!(seen.alert(), NO_APPLICATION_PROTOCOL, "{says}: {}", seen.text);
        }
    }

    redis.set(&key, &sign(&answer(), &signing).unwrap()).await.unwrap();
    let digest = sha256(b"t.k");
    for version in VERSIONS {
        let before = world.metric(HANDSHAKES, "challenge_answered").await;
        let seen = to("shop.example", version).offering("acme-tls/1").go().await;
        assert!(seen.finished() && seen.text.contains("ALPN protocol: acme-tls/1"), "{}", seen.text);
        assert_eq!((seen.names(), seen.status()), (vec!["shop.example".to_owned()], None));
        let der = seen.certificate().to_der().unwrap();
        assert!(der.windows(digest.len()).any(|window| window == digest.as_slice()));
        world.grows(HANDSHAKES, "challenge_answered", before, 1.0).await;

        // A visitor is served as ever meanwhile; another name and other protocols beside it are refused.
        let visitor = to("shop.example", version).offering("http/1.1").go().await;
        assert_eq!(visitor.status(), Some(200), "{}", visitor.text);
        for refused in [
            to("shop.example", version).offering("acme-tls/1,http/1.1"),
            to("other.example", version).offering("acme-tls/1"),
        ] {
            assert_eq!(refused.go().await.alert(), NO_APPLICATION_PROTOCOL);
        }
    }
}
