//! Every applied configuration is a revision: who, when, why, what; and a request sees one of them in all its phases.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use reqwest::Method;
use serde_json::{Value, json};
use support::fleet::Plan;
use support::wait::{PATIENCE, until};
use support::{Result, fail, folder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::world::World;

/// How many configurations are applied under load. `LATCHKEY_TEST_PUBLISHES` overrides it.
const PUBLISHES: usize = 150;
const VISITORS: usize = 3;
/// Beyond 5 %: the allocator's slack, and certificates that are fetched anew.
const SLACK_KIB: u64 = 8 << 10;

impl World {
    async fn with_age(&self, seconds: usize) -> Value {
        let mut config = self.config();
        config["sites"][0]["plugins"][0]["config"]["max_age"] = seconds.into();
        config
    }

    async fn admin_json(&self, path: &str) -> Value {
        let reply = self.fleet.edge.admin.get(path).await.unwrap();
        reply.expect(200).unwrap();
        reply.json().unwrap()
    }

    pub(crate) fn resident_kib(&self) -> u64 {
        let status = format!("/proc/{}/status", self.fleet.edge.process.id());
        let status = folder::read(status.as_ref()).unwrap();
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        kib.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

#[tokio::test]
async fn an_applied_configuration_tells_who_why_and_what() {
    let world = World::start(Plan::default()).await;
    let admin = &world.fleet.edge.admin;
    let config = world.with_age(7200).await.to_string();
    let path = "/v1/config?message=Longer%20HSTS&by=Ada";
    let applied = admin.put(path, config.clone()).await.unwrap().json().unwrap();
    assert_eq!((&applied["revision"], &applied["changed"]), (&json!(2), &json!(true)), "{applied}");

    let revision = world.admin_json("/v1/revisions/2").await;
    let uid = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(world.fleet.folder.path()).unwrap());
    assert_eq!((&revision["who"]["uid"], &revision["who"]["by"]), (&json!(uid), &json!("Ada")), "{revision}");
    assert_eq!((&revision["message"], &revision["bytes"]), (&json!("Longer HSTS"), &json!(config.len())));
    assert_eq!(revision["summary"], "touches 1 of 1 host (1 changed: *)");
    let kept = admin.get("/v1/revisions/2/config").await.unwrap();
    assert_eq!(kept.text(), config);

    let all = world.admin_json("/v1/revisions").await;
    let numbers: Vec<_> = all["revisions"].as_array().unwrap().iter().map(|r| r["number"].clone()).collect();
    assert_eq!(numbers, [2, 1]);
    let changed = world.admin_json("/v1/revisions/2/diff").await;
    let expected =
        json!([{"at": "/sites/0/plugins/0/config/max_age", "kind": "replaced", "old": "86400", "new": "7200"}]);
    assert_eq!(changed["diff"]["differences"], expected);
    assert_eq!(world.admin_json("/v1/revisions/2/diff?since=2").await["summary"], "changes nothing");

    admin.get("/v1/revisions/3").await.unwrap().expect(404).unwrap();
    let long = format!("/v1/config?message={}", "x".repeat(1001));
    let refused = admin.put(&long, config).await.unwrap();
    assert!(refused.status == 400 && refused.text().contains("1001 characters"), "{}", refused.text());
}

#[tokio::test]
async fn what_was_dumped_changes_nothing_when_it_is_applied() {
    let world = World::start(Plan::default()).await;
    let admin = &world.fleet.edge.admin;
    let running = admin.get("/v1/config").await.unwrap();
    for text in [running.text(), format!("{:#}", running.json().unwrap())] {
        let reply = admin.put("/v1/config", text).await.unwrap();
        let applied = reply.json().unwrap();
        assert_eq!((&reply.etag, &applied["changed"]), (&running.etag, &json!(false)), "{applied}");
        assert_eq!(applied["plan"]["summary"], "changes nothing");
    }
    let now = admin.get("/v1/config").await.unwrap();
    assert_eq!((now.etag, now.body), (running.etag, running.body));
    assert_eq!(world.admin_json("/v1/revisions").await["revisions"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_plan_names_what_it_touches_and_touches_nothing() {
    let world = World::start(Plan::default()).await;
    let admin = &world.fleet.edge.admin;
    let mut config = world.config();
    let mut site = config["sites"][0].clone();
    site["hosts"] = json!(["a.example", "*.b.example"]);
    config["sites"].as_array_mut().unwrap().insert(0, site);
    let reply = admin.put("/v1/config?dry_run=true", config.to_string()).await.unwrap();
    reply.expect(200).unwrap();
    let plan = &reply.json().unwrap()["plan"];
    assert_eq!(plan["summary"], "touches 2 of 3 hosts (2 added: *.b.example, a.example)");
    assert_eq!((&plan["plugins"]["hsts"]["added"], &plan["plugins"]["redirects"]["added"]), (&json!(2), &json!(2)));
    assert_eq!(plan["diff"]["differences"].as_array().unwrap().len(), 1, "{plan}");
    assert_eq!(world.metric("latchkey_config_revision", "").await, 1.0);
}

#[tokio::test]
async fn the_second_operator_sees_what_the_first_one_changed() {
    let world = World::start(Plan::default()).await;
    let admin = &world.fleet.edge.admin;
    let etag = admin.get("/v1/config").await.unwrap().etag.unwrap();
    world.fleet.edge.apply(&world.with_age(1).await).await.unwrap();
    let second = world.with_age(2).await.to_string();
    let stale = admin.send(Method::PUT, "/v1/config", &[("if-match", &etag)], second).await.unwrap();
    assert_eq!(stale.status, 412);
    let problem = stale.json().unwrap();
    let changed = &problem["diff"]["differences"][0];
    assert_eq!((&changed["old"], &changed["new"]), (&json!("86400"), &json!("1")), "{problem}");
}

#[tokio::test]
async fn going_back_is_a_new_revision_that_survives_a_restart() {
    let mut world = World::start(Plan::default()).await;
    let first = world.fleet.edge.admin.get("/v1/config").await.unwrap();
    world.fleet.edge.apply(&world.with_age(1).await).await.unwrap();
    let admin = world.fleet.edge.admin.clone();
    admin.send(Method::POST, "/v1/revisions/9/revert", &[], "").await.unwrap().expect(404).unwrap();
    let dry = admin.send(Method::POST, "/v1/revisions/1/revert?dry_run=true", &[], "").await.unwrap();
    assert_eq!(dry.json().unwrap()["revision"], 2);
    let back = admin.send(Method::POST, "/v1/revisions/1/revert?message=oops", &[], "").await.unwrap();
    assert_eq!(back.json().unwrap()["revision"], 3);
    world.fleet.edge.process.kill();
    world.fleet.edge = support::edge::Edge::start(&world.fleet.edge_setup).await.unwrap();
    let now = world.fleet.edge.admin.get("/v1/config").await.unwrap();
    assert_eq!((now.etag.as_deref(), now.body), (Some("\"3\""), first.body));
    let revision = world.admin_json("/v1/revisions/3").await;
    assert_eq!((&revision["reverts_to"], &revision["message"]), (&json!(1), &json!("oops")));
}

/// The request is under way at the upstream while its configuration is replaced: its answer still has the old header.
#[tokio::test]
async fn a_request_keeps_the_revision_that_it_began_with() {
    let world = World::start(Plan::default()).await;
    world.issue("shop.example").await;
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = world.with_age(111).await;
    config["upstreams"]["sample"]["url"] = format!("http://{}", upstream.local_addr().unwrap()).into();
    world.fleet.edge.apply(&config).await.unwrap();

    let visitor = world.visitor().await;
    let asking = tokio::spawn(async move {
        let mut connection = visitor.https("shop.example").await.unwrap();
        connection.get("shop.example", "/").await.unwrap()
    });
    let (mut asked, _) = upstream.accept().await.unwrap();
    let mut head = [0; 16];
    asked.read_exact(&mut head).await.unwrap();
    world.fleet.edge.apply(&world.with_age(222).await).await.unwrap();
    let held = until("the others to be freed", PATIENCE, async || {
        let alive = world.metric("latchkey_config_snapshots", "").await;
        if alive == 2.0 { Ok(()) } else { fail(format!("{alive} in memory")) }
    });
    held.await.unwrap();
    asked.write_all(b"HTTP/1.1 200 \r\ncontent-length: 0\r\n\r\n").await.unwrap();
    let answer = asking.await.unwrap();
    assert_eq!(answer.header("strict-transport-security"), Some("max-age=111"));
    let freed = until("the old configuration to be freed", PATIENCE, async || {
        let alive = world.metric("latchkey_config_snapshots", "").await;
        if alive == 1.0 { Ok(()) } else { fail(format!("{alive} in memory")) }
    });
    freed.await.unwrap();
}

#[tokio::test]
async fn publishes_under_load_lose_no_request_and_leave_no_memory() {
    let publishes = std::env::var("LATCHKEY_TEST_PUBLISHES").map_or(PUBLISHES, |count| count.parse().unwrap());
    let world = World::start(Plan::default()).await;
    world.issue("shop.example").await;
    let (answered, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let mut visits = JoinSet::new();
    for _ in 0..VISITORS {
        let (visitor, answered, stop) = (world.visitor().await, answered.clone(), stop.clone());
        visits.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let mut connection = visitor.https("shop.example").await?;
                for _ in 0..50 {
                    let answer = connection.get("shop.example", "/").await?;
                    if answer.status != 200 || answer.header("strict-transport-security").is_none() {
                        return fail(format!("{}: {}", answer.status, answer.text()));
                    }
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            }
            Result::<()>::Ok(())
        });
    }
    let warm = publishes / 5;
    let mut before = 0;
    for count in 0..publishes {
        if count == warm {
            before = world.resident_kib();
        }
        world.fleet.edge.apply(&world.with_age(1000 + count).await).await.unwrap();
    }
    let after = world.resident_kib();
    let load = answered.load(Ordering::Relaxed);
    stop.store(true, Ordering::Relaxed);
    while let Some(visit) = visits.join_next().await {
        visit.unwrap().unwrap();
    }
    println!("{publishes} publishes, {load} requests answered, 0 failed; {before} KiB, then {after} KiB");
    assert!(load > publishes / 10, "only {load} requests in that time");
    assert!(after <= before + before / 20 + SLACK_KIB, "{before} KiB, then {after} KiB");
    let freed = until("old configurations to be freed", PATIENCE, async || {
        let alive = world.metric("latchkey_config_snapshots", "").await;
        if alive == 1.0 { Ok(()) } else { fail(format!("{alive} in memory")) }
    });
    freed.await.unwrap();
}
