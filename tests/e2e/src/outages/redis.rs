//! Redis that is worse than gone: slow, hanging within an answer, answering nonsense or with another domain's bundle.

use std::time::{Duration, Instant};

use support::edge::Edge;
use support::fleet::Plan;
use support::meddler::{Meddler, Meddling};
use support::visitor::Visitor;

use crate::world::World;

const WARM: &str = "warm0.example";
/// Redis' time-outs are 500 ms for an answer and 1 s for a connection; then CertService is asked.
const COLD_MAX: Duration = Duration::from_secs(4);
/// What a busy machine may add.
const SLACK: Duration = Duration::from_secs(6);

/// A world whose proxy reaches Redis only through somebody who meddles.
async fn world() -> (World, Meddler) {
    let mut world = World::start(Plan { redis: true, ..Plan::default() }).await;
    let url = world.fleet.edge_setup.redis_url.clone().unwrap();
    let address = url.trim_start_matches("redis://").trim_end_matches("/0").parse().unwrap();
    let meddler = Meddler::start(address).await.unwrap();
    world.fleet.edge.process.stop().await.unwrap();
    world.fleet.edge_setup.redis_url = Some(format!("redis://{}/0", meddler.address));
    world.fleet.edge_setup.settings = "[tls]\nload_timeout_ms = 8000\nhandshake_timeout_ms = 9000\n".into();
    world.fleet.edge = Edge::start(&world.fleet.edge_setup).await.unwrap();
    world.issue(WARM).await;
    world.still_serves(WARM).await;
    (world, meddler)
}

/// The certificate shown for a name, and how long the handshake took.
async fn handshake(visitor: &Visitor, name: &str) -> (Vec<String>, Duration) {
    let began = Instant::now();
    let names = visitor.https(name).await.unwrap().names();
    (names, began.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_redis_answers_cold_names_are_served_in_bounded_time() {
    let (world, meddler) = world().await;
    let visitor = world.visitor().await;
    let modes = [
        ("late0.example", Meddling::Late(Duration::from_millis(200))),
        ("later.example", Meddling::Late(Duration::from_secs(20))),
        ("half0.example", Meddling::HalfAnAnswer),
        ("noise.example", Meddling::Garbage(b"\r\n\0HTTP/1.1 400 Bad Request\r\n\r\n".to_vec())),
        ("large.example", Meddling::Garbage(b"$99999999999\r\n".to_vec())),
        ("other.example", Meddling::AskForAnother("other.example".into(), WARM.into())),
    ];
    for (name, _) in &modes {
        world.issue(name).await;
    }
    for (name, mode) in modes {
        meddler.set(mode.clone());
        let (names, took) = handshake(&visitor, name).await;
        assert_eq!(names, [name], "{mode:?}");
        assert!(took < COLD_MAX + SLACK, "{mode:?}: {took:?}");
        let (names, took) = handshake(&visitor, WARM).await;
        assert_eq!(names, [WARM], "{mode:?}");
        assert!(took < SLACK, "a warm name does not ask Redis: {took:?}");
        meddler.set(Meddling::None);
    }
    // Redis is asked again once it is well.
    world.issue("again.example").await;
    let well = support::wait::until("an answer of Redis to count", support::wait::PATIENCE, async || {
        let hits = |metric: f64| if metric >= 1.0 { Ok(()) } else { support::fail("none yet") };
        let _ = visitor.https("again.example").await?;
        hits(
            world
                .fleet
                .edge
                .admin
                .metric("latchkey_certificate_lookups_total", "result=\"hit\",tier=\"redis\"")
                .await?,
        )
    });
    well.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_of_another_domain_is_not_served_when_there_is_nothing_else() {
    let (mut world, meddler) = world().await;
    world.issue("other.example").await;
    meddler.set(Meddling::AskForAnother("other.example".into(), WARM.into()));
    world.fleet.certservice.process.kill();
    let visitor = world.visitor().await;
    let began = Instant::now();
    assert!(visitor.https("other.example").await.is_err());
    assert!(began.elapsed() < COLD_MAX + SLACK, "{:?}", began.elapsed());
    world.still_serves(WARM).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hanging_redis_is_left_alone_so_that_cold_names_go_to_certservice_at_once() {
    let (world, meddler) = world().await;
    let visitor = world.visitor().await;
    let names: Vec<_> = (0..16).map(|number| format!("cold{number}.example")).collect();
    for name in &names {
        world.issue(name).await;
    }
    let looked_up = async |result: &str| {
        world.metric("latchkey_certificate_lookups_total", &format!("result=\"{result}\",tier=\"redis\"")).await
    };
    meddler.set(Meddling::Late(Duration::from_secs(60)));
    let mut cold = names.iter();
    let resting = support::wait::until("Redis to be left alone", support::wait::PATIENCE, async || {
        let name = cold.next().expect("three of them hang, or a few more if one of them was a probe");
        assert_eq!(handshake(&visitor, name).await.0, [name.as_str()]);
        let resting = world.metric("latchkey_redis_resting", "").await;
        if resting == 1.0 { Ok(()) } else { support::fail("it is still asked") }
    });
    resting.await.unwrap();
    world.says(&["it is left alone for a while"]).await;

    // Now and then one of them probes; the others do not wait for it.
    let (skipped, rest): (f64, Vec<_>) = (looked_up("skipped").await, cold.collect());
    let mut quickest = Duration::MAX;
    for name in &rest {
        let (served, took) = handshake(&visitor, name).await;
        assert_eq!(served, [name.as_str()]);
        quickest = quickest.min(took);
    }
    assert!(looked_up("skipped").await > skipped, "{} names later", rest.len());
    assert!(quickest < Duration::from_millis(450), "less than a time-out of Redis: {quickest:?}");

    // It is well again: a probe finds out, and it is asked as before.
    meddler.set(Meddling::None);
    let well = support::wait::until("Redis to be asked again", support::wait::PATIENCE, async || {
        // A challenge is looked for in Redis each time.
        world.plain().http().await?.get(WARM, "/.well-known/acme-challenge/unknown-token").await?;
        let resting = world.metric("latchkey_redis_resting", "").await;
        if resting == 0.0 { Ok(()) } else { support::fail("it is still left alone") }
    });
    well.await.unwrap();
    world.says(&["Redis answers again"]).await;
}
