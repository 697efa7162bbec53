//! What the first-party plugins do to real requests.

use std::process::Command;

use serde_json::{Value, json};
use support::edge::Edge;
use support::fleet::Plan;
use support::program;

use crate::world::{World, guest, output, stderr, stdout};

impl World {
    /// Every host has one plugin with this configuration.
    async fn with_policy(&self, plugin: &str, config: Value) {
        let mut document = self.config();
        document["sites"][0]["plugins"] = json!([{"plugin": plugin, "config": config, "on_failure": "closed"}]);
        self.fleet.edge.apply(&document).await.unwrap();
    }

    /// Status and Location.
    async fn sent(&self, host: &str, target: &str) -> (u16, Option<String>) {
        let answer = self.https(host).await.get(host, target).await.unwrap();
        (answer.status, answer.header("location").map(str::to_owned))
    }

    async fn promise(&self, host: &str) -> Option<String> {
        let answer = self.https(host).await.get(host, "/").await.unwrap();
        assert_eq!(answer.status, 200);
        answer.header("strict-transport-security").map(str::to_owned)
    }
}

fn to(status: u16, location: &str) -> (u16, Option<String>) {
    (status, Some(location.to_owned()))
}

#[tokio::test]
async fn redirects_follow_expressions_wildcard_hosts_and_merged_queries() {
    let world = World::start(Plan::default()).await;
    for host in ["shop.example", "www.shop.example"] {
        world.issue(host).await;
    }
    let rules = json!([
        {"from": "^/blog/(\\d+)/(?:.*)$", "match": "regex", "to": "/posts/$1"},
        {"from": "/", "match": "prefix", "host": "*.shop.example", "to": "https://shop.example", "status": 308},
        {"from": "/q", "to": "/r?x=1", "query": "merge", "status": 302},
        {"from": "/gone", "status": 410},
    ]);
    world.with_policy("redirects", json!({"rules": rules})).await;
    assert_eq!(world.sent("shop.example", "/blog/12/old?p=2").await, to(301, "/posts/12?p=2"));
    assert_eq!(world.sent("shop.example", "/blog/x/old").await, (200, None));
    assert_eq!(world.sent("www.shop.example", "/any?p").await, to(308, "https://shop.example/any?p"));
    assert_eq!(world.sent("shop.example", "/any").await, (200, None));
    assert_eq!(world.sent("shop.example", "/q?x=2&y=3").await, to(302, "/r?x=1&y=3"));
    assert_eq!(world.sent("shop.example", "/gone").await, (410, None));
    let longest = format!("/blog/1/{}", "x".repeat(1024));
    assert_eq!(world.sent("shop.example", &longest).await, (200, None), "longer than what is compared");
    assert_eq!(world.metric("latchkey_plugin_faults_total", "").await, 0.0);
}

#[tokio::test]
async fn open_redirects_and_circles_are_refused_before_they_serve() {
    let world = World::start(Plan::default()).await;
    let mut document = world.config();
    let rules = json!([{"from": "^/go/(.*)$", "match": "regex", "to": "https://$1"}, {"from": "/a", "to": "/b"}]);
    document["sites"][0]["plugins"][1]["config"]["rules"] = rules;
    let reply = world.fleet.edge.admin.put("/v1/config", document.to_string()).await.unwrap();
    assert_eq!(reply.status, 422);
    let told = &reply.json().unwrap()["errors"][0];
    assert_eq!(told["at"], "/sites/0/plugins/1/config/rules/0/to");
    assert!(told["says"].as_str().unwrap().contains("open redirect"), "{told}");
    document["sites"][0]["plugins"][1]["config"]["rules"] =
        json!([{"from": "/a", "to": "/b"}, {"from": "/b", "to": "/a"}]);
    let reply = world.fleet.edge.admin.put("/v1/config", document.to_string()).await.unwrap();
    assert!(reply.status == 422 && reply.text().contains("circle"), "{}", reply.text());
}

#[tokio::test]
async fn hsts_rolls_out_by_day_and_is_withdrawn_at_once() {
    let world = World::start(Plan::default()).await;
    world.issue("shop.example").await;
    let stage = |from: &str, max_age: u64| json!({"from": from, "percent": 100, "max_age": max_age});
    let stages = json!([stage("2020-01-01", 300), stage("2021-01-01", 86400), stage("9999-01-01", 31_536_000)]);
    world.with_policy("hsts", json!({"stages": stages})).await;
    assert_eq!(world.promise("shop.example").await.as_deref(), Some("max-age=86400"), "the latest that has begun");
    world.with_policy("hsts", json!({"stages": stages, "withdraw": true})).await;
    assert_eq!(world.promise("shop.example").await.as_deref(), Some("max-age=0"));
    world.with_policy("hsts", json!({"stages": [stage("9998-01-01", 300)]})).await;
    assert_eq!(world.promise("shop.example").await, None, "nothing has begun yet");
}

#[tokio::test]
async fn an_operator_imports_redirects_and_they_work() {
    let world = World::start(Plan::default()).await;
    world.issue("shop.example").await;
    let import = async |format: &str, name: &str, text: &str| {
        let file = world.fleet.folder.write(name, text).unwrap();
        let mut command = Command::new(program::own("latchkey").unwrap());
        command.args(["redirects", "import", "--from", format]).arg(&file);
        (output(command).await, file.display().to_string())
    };
    let nginx = "map $uri $moved { /m /n; ~^/y/([0-9]{4})$ /posts/$1; }\nserver {\n  server_name shop.example;\n  \
                 location = /x { return 308 /z; }\n  if ($moved) { return 302 $moved; }\n}\n";
    let (imported, _) = import("nginx", "site.conf", nginx).await;
    assert!(imported.status.success(), "{}", stderr(&imported));
    world.with_policy("redirects", serde_json::from_slice(&imported.stdout).unwrap()).await;
    assert_eq!(world.sent("shop.example", "/m").await, to(302, "/n"));
    assert_eq!(world.sent("shop.example", "/y/2020").await, to(302, "/posts/2020"));
    assert_eq!(world.sent("shop.example", "/x").await, to(308, "/z"));

    let (imported, file) =
        import("netlify", "_redirects", "/api/* https://api.example/:splat 200\n/a/* /b/:splat\n").await;
    assert_eq!(imported.status.code(), Some(1), "a line was left out");
    assert!(stderr(&imported).contains(&format!("{file}:1: status 200 is a rewrite")), "{}", stderr(&imported));
    world.with_policy("redirects", serde_json::from_slice(&imported.stdout).unwrap()).await;
    assert_eq!(world.sent("shop.example", "/a/c/d").await, to(301, "/b/c/d"));

    let (imported, _) = import("csv", "old.csv", "from,to,status\nhttps://shop.example/k,/l,307\n").await;
    world.with_policy("redirects", serde_json::from_slice(&imported.stdout).unwrap()).await;
    assert_eq!(world.sent("shop.example", "/k").await, to(307, "/l"));
    assert_eq!(stdout(&imported).lines().count(), 3, "one rule a line");
}

#[tokio::test]
async fn failed_calls_are_grouped_by_their_cause() {
    let world = World::start(Plan::default()).await;
    world.issue("shop.example").await;
    let digest = world.fleet.edge.push(&guest("hostile")).await.unwrap();
    let mut document = world.config();
    document["plugins"]["hostile"] = json!({"digest": digest});
    let binding = json!({"plugin": "hostile", "config": {"behaviour": "by-path"}});
    document["sites"][0]["plugins"] = json!([binding]);
    world.fleet.edge.apply(&document).await.unwrap();
    for (path, times) in [("/trap", 3), ("/spin", 1)] {
        for _ in 0..times {
            assert_eq!(world.sent("shop.example", path).await, (503, None), "{path}");
        }
    }
    let told = world.fleet.edge.admin.get("/v1/plugins/hostile/crashes").await.unwrap().json().unwrap();
    let crashes = told["crashes"].as_array().unwrap();
    let groups: Vec<_> = crashes.iter().map(|crash| (crash["reason"].as_str(), crash["count"].as_u64())).collect();
    assert_eq!(groups, [(Some("trap"), Some(3)), (Some("deadline"), Some(1))], "{told:#}");
    let stack = crashes[0]["stack"].as_array().unwrap();
    let names: Vec<_> = stack.iter().map(|name| name.as_str().unwrap()).collect();
    assert!(names[0].ends_with("::rust_panic") && names.iter().any(|name| name.contains("on-request")), "{told:#}");
    assert!(names.contains(&"core::panicking::panic_fmt"), "no hashes of the compiler: {told:#}");
    assert_eq!((&crashes[0]["hook"], &crashes[0]["digest"]), (&json!("request"), &json!(digest)));

    let mut command = Command::new(program::own("latchkey").unwrap());
    command.args(["plugin", "crashes", "hostile"]);
    command.env("LATCHKEY_ADMIN", format!("unix:{}", world.fleet.edge_setup.admin_socket().display()));
    let shown = stdout(&output(command).await);
    assert!(shown.contains("3 × trap in request of hostile"), "{shown}");
    let none = world.fleet.edge.admin.get("/v1/plugins/hsts/crashes").await.unwrap().json().unwrap();
    assert_eq!(none, json!({"crashes": [], "beyond": 0}));
}

#[tokio::test]
async fn rules_that_answer_nobody_are_found_also_after_a_restart_and_a_new_table() {
    let mut world = World::start(Plan::default()).await;
    world.issue("shop.example").await;
    let push = async |world: &World, text: &str| {
        let digest = format!("sha256:{}", support::certservice::hex(&contract::bundle::sha256(text.as_bytes())));
        let reply = world.fleet.edge.admin.put(&format!("/v1/tables/{digest}"), text.as_bytes()).await.unwrap();
        assert!(matches!(reply.status, 200 | 201), "{}", reply.text());
        digest
    };
    let rules = json!([{"from": "/a", "to": "/b"}, {"from": "/c", "to": "/d"}]);
    let config = json!({"rules": rules, "table": "moved"});
    let apply = async |world: &World, digest: &str, config: &Value| {
        let mut document = world.config();
        document["tables"] = json!({"moved": {"digest": digest}});
        document["sites"][0]["plugins"] = json!([{"plugin": "redirects", "tables": ["moved"], "config": config}]);
        world.fleet.edge.apply(&document).await.unwrap();
    };
    let first = push(&world, "from,to\n/t1,/x\n/t2,/y\n").await;
    apply(&world, &first, &config).await;
    for path in ["/a", "/t2", "/a"] {
        assert_eq!(world.sent("shop.example", path).await.0, 301, "{path}");
    }
    // Places and times of what is not newer than now; what was never used has no time.
    let used = async |world: &World| -> Vec<(u64, bool)> {
        let told = world.fleet.edge.admin.get("/v1/plugins/redirects/rules?unused_days=0").await.unwrap();
        let told = told.json().unwrap();
        let rules = told["bindings"][0]["unused"].as_array().unwrap();
        rules.iter().map(|rule| (rule["rule"].as_u64().unwrap(), rule["last_at"].is_u64())).collect()
    };
    // Rules of the configuration, then the table by its lines.
    assert_eq!(used(&world).await, [(0, true), (1, false), (4, false), (5, true)]);
    let second = push(&world, "from,to\n/new,/z\n/t1,/x\n/t2,/elsewhere\n").await;
    apply(&world, &second, &config).await;
    let after = [(0, true), (1, false), (4, false), (5, false), (6, true)];
    assert_eq!(used(&world).await, after, "a rule is known by what it is for");
    world.fleet.edge.process.stop().await.unwrap();
    world.fleet.edge = Edge::start(&world.fleet.edge_setup).await.unwrap();
    assert_eq!(used(&world).await, after, "after a restart");

    let mut command = Command::new(program::own("latchkey").unwrap());
    command.args(["redirects", "unused", "--days", "0"]);
    command.env("LATCHKEY_ADMIN", format!("unix:{}", world.fleet.edge_setup.admin_socket().display()));
    let shown = stdout(&output(command).await);
    assert!(shown.contains("rule 1, /c: never since") && shown.contains("table moved, line 4: last at"), "{shown}");
    let none = world.fleet.edge.admin.get("/v1/plugins/redirects/rules?unused_days=1").await.unwrap().json().unwrap();
    assert_eq!((&none["bindings"][0]["unused"], &none["bindings"][0]["rules"]), (&json!([]), &json!(5)), "{none:#}");
    let bad = world.fleet.edge.admin.get("/v1/plugins/redirects/rules?unused_days=x").await.unwrap();
    assert!(bad.status == 400 && bad.text().contains("invalid_unused_days"), "{}", bad.text());
}
