//! Shadows: another version or configuration is asked about live traffic, compared, and changes nothing until promoted.

use std::process::{Command, Output};

use reqwest::Method;
use serde_json::{Value, json};
use support::fleet::Plan;
use support::program;

use crate::bodies::{self, HOST, REPLACE, origins::Origin};
use crate::callouts::{ASKING, Asked, GUARDED};
use crate::world::{World, guest, output, stderr, stdout};

impl World {
    async fn shadow_command(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(program::own("latchkey").unwrap());
        let socket = format!("unix:{}", self.fleet.edge_setup.admin_socket().display());
        command.arg("shadow").args(arguments).args(["--admin", &socket]);
        output(command).await
    }

    /// Of the only shadow beside this plugin's bindings.
    async fn shadow(&self, plugin: &str) -> Value {
        let reply = self.fleet.edge.admin.get(&format!("/v1/plugins/{plugin}/shadow")).await.unwrap();
        reply.expect(200).unwrap();
        let told = reply.json().unwrap();
        assert_eq!(told["shadows"].as_array().unwrap().len(), 1, "{told:#}");
        told["shadows"][0].clone()
    }

    /// Beside all of the plugin's bindings, in place of the one before; its counts begin anew.
    async fn put_shadow(&self, plugin: &str, settings: Value) {
        let path = format!("/v1/plugins/{plugin}/shadow");
        self.fleet.edge.admin.put(&path, settings.to_string()).await.unwrap().expect(200).unwrap();
    }

    async fn answer(&self, target: &str) -> (u16, Option<String>) {
        let answer = self.https("shop.example").await.get("shop.example", target).await.unwrap();
        (answer.status, answer.header("location").map(str::to_owned))
    }
}

fn to(status: u16, location: &str) -> (u16, Option<String>) {
    (status, Some(location.to_owned()))
}

#[tokio::test]
async fn a_configuration_is_compared_on_live_traffic_and_then_promoted() {
    let world = World::start(Plan::default()).await;
    world.issue("shop.example").await;
    let rules = json!({"rules": [{"from": "/old", "to": "/elsewhere", "status": 308}, {"from": "/extra", "to": "/x"}]});
    let file = world.fleet.folder.write("next.json", rules.to_string()).unwrap();
    let file = file.to_str().unwrap();
    let start = ["start", "redirects", "--config", file, "--percent", "100", "-m", "try the new rules"];
    let planned = stdout(&world.shadow_command(&[&start[..], &["--dry-run"]].concat()).await);
    assert!(planned.contains("touches 0 of 1 host; shadows beside redirects: 1 added"), "{planned}");
    let started = world.shadow_command(&start).await;
    assert!(started.status.success(), "{}", stderr(&started));

    assert_eq!(world.answer("/old").await, to(308, "/new"), "nothing of it is applied");
    for target in ["/extra", "/extra?q", "/other"] {
        assert_eq!(world.answer(target).await, (200, None), "{target}");
    }
    // What was counted stays while the shadow is the same.
    let mut document = world.fleet.edge.admin.get("/v1/config").await.unwrap().json().unwrap();
    document["sites"][0]["plugins"][0]["config"]["max_age"] = 7.into();
    world.fleet.edge.apply(&document).await.unwrap();
    world.answer("/extra").await;

    let told = world.shadow("redirects").await;
    assert_eq!([&told["calls"], &told["same"], &told["different"]], [5, 1, 4], "{told:#}");
    let kinds: Vec<_> = told["differences"].as_array().unwrap().iter().map(|d| (&d["kind"], &d["count"])).collect();
    assert_eq!(kinds, [(&json!("next → redirect"), &json!(3)), (&json!("redirect: location"), &json!(1))]);
    let example =
        json!({"about": "shop.example/old", "live": "redirect 308 /new", "shadow": "redirect 308 /elsewhere"});
    assert_eq!(told["differences"][1]["examples"], json!([example]));
    assert_eq!((&told["examples"], &told["places"]), (&json!(["/sites/0/plugins/1"]), &json!(1)));
    assert_eq!(told["shadow"]["calls"], 5, "its answers are never given again");
    assert!(told["micros_ratio"].as_f64().unwrap() > 0.0 && told["instructions_ratio"].as_f64().unwrap() > 0.0);
    let shown = stdout(&world.shadow_command(&["show", "redirects"]).await);
    assert!(shown.contains("5 calls: 1 the same, 4 different") && shown.contains("3 × next → redirect"), "{shown}");

    let promoted = world.shadow_command(&["promote", "redirects", "-m", "it does what it should"]).await;
    assert!(promoted.status.success(), "{}", stderr(&promoted));
    assert_eq!(world.answer("/old").await, to(308, "/elsewhere"));
    assert_eq!(world.answer("/extra").await, to(301, "/x"));
    let again = world.shadow_command(&["promote", "redirects"]).await;
    assert!(stderr(&again).contains("no binding of `redirects` in it has a shadow"), "{}", stderr(&again));
    let newest = world.fleet.edge.admin.get("/v1/revisions").await.unwrap().json().unwrap();
    assert_eq!(newest["revisions"][0]["message"], "it does what it should");
}

#[tokio::test]
async fn a_shadow_that_fails_harms_nobody_and_counts_for_itself() {
    let world = World::start(Plan::default()).await;
    world.issue("shop.example").await;
    let digest = world.fleet.edge.push(&guest("hostile")).await.unwrap();
    let mut document = world.config();
    document["plugins"]["hostile"] = json!({"digest": digest});
    world.fleet.edge.apply(&document).await.unwrap();
    let settings = json!({"plugin": "hostile", "config": {"behaviour": "by-path"}, "percent": 100});
    let path = "/v1/plugins/redirects/shadow?at=/sites/0/plugins/1";
    world.fleet.edge.admin.put(path, settings.to_string()).await.unwrap().expect(200).unwrap();
    for target in ["/trap", "/trap", "/spin"] {
        assert_eq!(world.answer(target).await, (200, None), "{target}");
    }
    let told = world.shadow("redirects").await;
    assert_eq!(told["shadow"]["faults"], json!({"deadline": 1, "trap": 2}), "{told:#}");
    assert_eq!(told["live"]["faults"], json!({}));
    assert_eq!(told["differences"][0]["kind"], "answered → failed (trap)");
    assert_eq!((&told["crashes"][0]["reason"], &told["crashes"][0]["count"]), (&json!("trap"), &json!(2)));
    assert_eq!(world.metric("latchkey_plugin_faults_total", "").await, 0.0);
    let crashes = world.fleet.edge.admin.get("/v1/plugins/hostile/crashes").await.unwrap().json().unwrap();
    assert_eq!(crashes, json!({"crashes": [], "beyond": 0}));
    let gone = world.fleet.edge.admin.send(Method::DELETE, "/v1/plugins/redirects/shadow", &[], "").await.unwrap();
    gone.expect(200).unwrap();
    let none = world.fleet.edge.admin.get("/v1/plugins/redirects/shadow").await.unwrap().json().unwrap();
    assert_eq!(none, json!({"shadows": []}));
}

#[tokio::test]
async fn connections_have_shadows_too() {
    let world = World::start(Plan::default()).await;
    world.issue("shop.example").await;
    let settings = json!({"config": {"trusted": ["10.0.0.0/8"], "untrusted": "reset"}, "percent": 100});
    let path = "/v1/plugins/proxy-policy/shadow?at=/listeners/https/plugins/0";
    world.fleet.edge.admin.put(path, settings.to_string()).await.unwrap().expect(200).unwrap();
    assert_eq!(world.answer("/").await, (200, None));
    let told = world.shadow("proxy-policy").await;
    assert_eq!([&told["calls"], &told["different"]], [2, 1], "{told:#}");
    let example = json!({"about": "127.0.0.1", "live": "admit 127.0.0.1", "shadow": "reset"});
    assert_eq!(
        (&told["differences"][0]["kind"], &told["differences"][0]["examples"][0]),
        (&json!("judge: admit → reset"), &example)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shadow_of_a_plugin_that_asks_is_told_what_was_heard_and_asks_nobody() {
    let asked = Asked::start().await;
    let (live, other) = (["x-user", "x-uri", "x-forwarded-user", "x-admin"], ["x-user"]);
    let settings = |path: &str, copy: &[&str]| {
        let config = json!({"upstream": "auth", "path": path, "copy": copy, "timeout_ms": 400});
        json!({"config": config, "percent": 100})
    };
    for (settings, counts, kind) in [
        (settings("/verify", &live), [3, 3, 0], Value::Null),
        (settings("/verify", &other), [3, 2, 1], json!("edit: x-uri")),
        (settings("/other", &live), [3, 0, 3], json!("asks something else")),
    ] {
        asked.world.put_shadow("forward-auth", settings).await;
        let before = asked.server.asked();
        for (cookie, status) in [("s=good", 200), ("s=bad", 403), ("s=none", 302)] {
            let mut visitor = asked.world.https(GUARDED).await;
            let answer = visitor.send("GET", GUARDED, "/cart?a=b", &[("cookie", cookie)], b"").await.unwrap();
            assert_eq!(answer.status, status, "{cookie}");
            let uri = (status == 200).then(|| "/cart?a=b".to_owned());
            assert_eq!(answer.seen("x-uri"), uri, "nothing of it is applied");
        }
        let told = asked.world.shadow("forward-auth").await;
        assert_eq!([&told["calls"], &told["same"], &told["different"]], counts, "{told:#}");
        assert_eq!(told["differences"][0]["kind"], kind, "{told:#}");
        assert_eq!(asked.server.asked(), before + 3, "only the live one asks");
    }
    let example = &asked.world.shadow("forward-auth").await["differences"][0]["examples"][0];
    assert_eq!(
        (&example["live"], &example["shadow"]),
        (&json!("asks auth: GET /verify"), &json!("asks auth: GET /other"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shadow_that_fails_after_it_was_told_harms_nobody() {
    let asked = Asked::start().await;
    for (behaviour, reason) in [("trap-after", "trap"), ("spin-after", "deadline")] {
        asked.world.put_shadow("hostile-waiting", json!({"config": {"behaviour": behaviour}, "percent": 100})).await;
        let before = asked.server.asked();
        for path in ["/echo", "/half"] {
            let status = if path == "/half" { 500 } else { 200 };
            assert_eq!(asked.status(path).await, status, "{behaviour} {path}");
        }
        let told = asked.world.shadow("hostile-waiting").await;
        assert_eq!(told["shadow"]["faults"], json!({reason: 2}), "{told:#}");
        assert_eq!((&told["live"]["faults"], asked.server.asked()), (&json!({}), before + 2));
    }
    assert_eq!(asked.world.metric("latchkey_plugin_faults_total", "").await, 0.0);
    asked.world.still_serves(ASKING).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shadow_is_shown_bodies_and_nothing_that_it_says_is_applied() {
    for origin in [Origin::http1().await, Origin::http2().await] {
        let world = bodies::world(&origin, "rewrite", REPLACE, "closed").await;
        let texts = |with: &str, refuse: &str| {
            let more = json!({"find": "what stands nowhere", "with": ""});
            let config = json!({"replace": [{"find": "shop-7.saas.example", "with": with}, more], "refuse": [refuse]});
            json!({"config": config, "percent": 100})
        };
        let differences =
            json!({"response-body: length": 4, "request-body: go on → refuse": 2, "request-body: refuse → go on": 2});
        for (settings, wanted) in
            [(texts("{host}", "attack"), json!({})), (texts("another.example", "well"), differences)]
        {
            world.put_shadow("rewrite", settings).await;
            for protocol in ["--http1.1", "--http2"] {
                let said = |shown: &str| format!("{protocol} of {}: {shown}", origin.name);
                let shown = world.curls(&[protocol], &["/html/last", "/html/trailers"]).await.unwrap();
                assert_eq!(shown.matches("<a href='https://shop.example/'>").count(), 2, "{}", said(&shown));
                let good = world.curls(&[protocol, "--data-binary", "all is well"], &["/up"]).await.unwrap();
                assert!(good.contains(" 200") && good.contains("11 bytes: all is well"), "{}", said(&good));
                let bad = [protocol, "--data-binary", "this is an attack", "-H", "expect:"];
                let bad = world.curls(&bad, &["/up"]).await.unwrap();
                assert!(bad.contains(" 403") && bad.contains("not allowed here"), "{}", said(&bad));
            }
            let told = world.shadow("rewrite").await;
            let found = told["differences"].as_array().unwrap().iter();
            let found: serde_json::Map<_, _> =
                found.map(|found| (found["kind"].as_str().unwrap().to_owned(), found["count"].clone())).collect();
            assert_eq!(Value::Object(found), wanted, "{told:#}");
            assert!(told["same"].as_u64() >= Some(8) && told["not_compared"] == 0, "{told:#}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shadow_that_fails_at_a_body_leaves_it_whole() {
    let origin = Origin::http1().await;
    let world = bodies::world(&origin, "rewrite", REPLACE, "closed").await;
    let digest = world.fleet.edge.push(&guest("hostile")).await.unwrap();
    let mut document = world.fleet.edge.admin.get("/v1/config").await.unwrap().json().unwrap();
    document["plugins"]["hostile"] = json!({"digest": digest});
    world.fleet.edge.apply(&document).await.unwrap();
    let settings = json!({"plugin": "hostile", "config": {"behaviour": "bodies"}, "percent": 100});
    world.put_shadow("rewrite", settings).await;
    for protocol in ["--http1.1", "--http2"] {
        for target in ["/watch/begin", "/watch/late", "/change/hold-trap", "/change/spin", "/change/huge"] {
            let shown = world.curls(&[protocol], &[target]).await.unwrap();
            let whole = "<a href='https://shop.example/'>https://shop-7.saas.exampl</a>";
            assert!(shown.contains(" 200") && shown.contains(whole), "{protocol} {target}: {shown}");
        }
    }
    let told = world.shadow("rewrite").await;
    assert_eq!(told["shadow"]["faults"], json!({"deadline": 2, "output": 2, "trap": 6}), "{told:#}");
    assert_eq!(told["live"]["faults"], json!({}), "{told:#}");
    assert_eq!(world.metric("latchkey_plugin_faults_total", "").await, 0.0);
    world.still_serves(HOST).await;
}

#[tokio::test]
async fn a_shadow_that_can_not_be_is_refused_with_its_place() {
    let world = World::start(Plan::default()).await;
    let put = async |plugin: &str, settings: Value| {
        let path = format!("/v1/plugins/{plugin}/shadow");
        let reply = world.fleet.edge.admin.put(&path, settings.to_string()).await.unwrap();
        (reply.status, reply.json().unwrap())
    };
    for (settings, at, says) in [
        (json!({"percent": 5}), "/sites/0/plugins/0/shadow", "the shadow is what the binding is already"),
        (json!({"config": {}, "percent": 0}), "/sites/0/plugins/0/shadow/percent", "accepted are 0.01 to 100"),
        (json!({"config": {}, "percent": 100.1}), "/sites/0/plugins/0/shadow/percent", "accepted are 0.01 to 100"),
        (json!({"plugin": "hst"}), "/sites/0/plugins/0/shadow/plugin", "no plugin is named `hst`"),
        (json!({"plugin": "proxy-policy"}), "/sites/0/plugins/0/shadow/plugin", "a http plugin is needed here"),
        (json!({"config": {"max_age": -1}}), "/sites/0/plugins/0/shadow/config/max_age", ""),
    ] {
        let (status, told) = put("hsts", settings).await;
        assert_eq!((status, &told["errors"][0]["at"]), (422, &json!(at)), "{told:#}");
        assert!(told["errors"][0]["says"].as_str().unwrap().contains(says), "{told:#}");
    }
    assert_eq!(put("unknown", json!({})).await.1["code"], "unknown_plugin");
    assert_eq!(put("hsts", json!([])).await.0, 400);
    let reply = world.fleet.edge.admin.put("/v1/config?at=/x", world.config().to_string()).await.unwrap();
    assert_eq!(reply.status, 400, "{}", reply.text());
}
