//! TLS sessions are resumed by tickets, on any edge, and only for the name and certificate that they are from.

use reqwest::Method;
use support::fleet::Plan;

use crate::s_client::{VERSIONS, Version, Visit};
use crate::world::World;

const SESSIONS: &str = "latchkey_tls_sessions_total";
const REFUSED: &str = "latchkey_tls_tickets_refused_total";
const UNRECOGNIZED_NAME: u8 = 112;

fn visit(world: &World, version: Version, host: &str) -> Visit {
    Visit::to(world.fleet.edge_setup.https, version, host)
}

#[tokio::test]
async fn a_session_is_resumed_for_its_name_only() {
    let world = World::start(Plan::default()).await;
    for name in ["shop.example", "blog.example"] {
        world.issue(name).await;
    }
    for version in VERSIONS {
        let session = world.fleet.folder.path().join(format!("{version:?}.session"));
        let first = visit(&world, version, "shop.example").keeping(&session).go().await;
        assert_eq!((first.resumed, first.status()), (false, Some(200)), "{}", first.text);
        let second = visit(&world, version, "shop.example").resuming(&session).go().await;
        assert_eq!((second.resumed, second.status()), (true, Some(200)), "{}", second.text);

        let before = world.metric(REFUSED, "not_valid").await;
        let other = visit(&world, version, "blog.example").resuming(&session).go().await;
        assert_eq!((other.resumed, other.status()), (false, Some(200)), "{}", other.text);
        assert_eq!(other.names(), ["blog.example"]);
        assert_eq!(world.metric(REFUSED, "not_valid").await, before + 1.0);

        let text = world.fleet.edge.admin.get("/metrics").await.unwrap().text();
        let counted = |result: &str| format!("{SESSIONS}{{result=\"{result}\",{}}}", version.label());
        assert!(text.contains(&format!("{} 2", counted("full"))), "{text}");
        assert!(text.contains(&format!("{} 1", counted("resumed"))), "{text}");
    }
}

#[tokio::test]
async fn a_ticket_is_of_no_use_after_off_boarding() {
    let world = World::start(Plan::default()).await;
    world.issue("shop.example").await;
    let session = |version| world.fleet.folder.path().join(format!("{version:?}.session"));
    for version in VERSIONS {
        let visit = visit(&world, version, "shop.example").keeping(&session(version)).go().await;
        assert!(visit.finished(), "{}", visit.text);
    }
    let domain = "/v1/domains/shop.example";
    world.fleet.certservice.as_operator().send(Method::DELETE, domain, &[], "").await.unwrap().expect(204).unwrap();
    for version in VERSIONS {
        let refused = support::wait::until("a refusal", support::wait::PATIENCE, async || {
            let visit = visit(&world, version, "shop.example").resuming(&session(version)).go().await;
            if visit.finished() { support::fail("it is still served") } else { Ok(visit.alert()) }
        });
        assert_eq!(refused.await.unwrap(), Some(UNRECOGNIZED_NAME), "{version:?}");
    }
}

#[tokio::test]
async fn the_process_itself_keeps_no_sessions() {
    let world = World::start(Plan::default()).await;
    world.issue("shop.example").await;
    let session = world.fleet.folder.path().join("session");
    let visit = visit(&world, Version::Tls12, "shop.example").with("-no_ticket");
    assert_eq!(visit.clone().keeping(&session).go().await.status(), Some(200));
    assert!(!visit.resuming(&session).go().await.resumed);
}
