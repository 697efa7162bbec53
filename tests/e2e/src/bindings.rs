//! Where bindings reach: tags, shares of the registered domains, listeners, and who shares an instance.

use reqwest::Method;
use serde_json::{Value, json};
use support::fleet::Plan;

use crate::world::{World, guest};

impl World {
    async fn age(&self, host: &str) -> Option<String> {
        let answer = self.https(host).await.get(host, "/").await.unwrap();
        answer.header("strict-transport-security").map(str::to_owned)
    }

    /// Two sites, the first one with a tag; no plugin of their own.
    fn tagged(&self, bindings: Value) -> Value {
        let mut document = self.config();
        document["sites"] = json!([
            {"hosts": ["shop.example"], "tags": ["beta"], "upstream": "sample"},
            {"hosts": ["*"], "upstream": "sample", "plugins": [{"plugin": "redirects", "config": {"rules": []}}]},
        ]);
        document["bindings"] = bindings;
        document
    }

    async fn errors(&self, document: &Value) -> Value {
        let reply = self.fleet.edge.admin.put("/v1/config", document.to_string()).await.unwrap();
        assert_eq!(reply.status, 422, "{}", reply.text());
        reply.json().unwrap()["errors"].clone()
    }
}

fn hsts(age: u32) -> Value {
    json!({"plugin": "hsts", "config": {"max_age": age}})
}

#[tokio::test]
async fn a_binding_reaches_the_sites_with_its_tag_and_one_without_reaches_all() {
    let world = World::start(Plan::default()).await;
    for host in ["shop.example", "blog.example"] {
        world.issue(host).await;
    }
    let by_tag = world.tagged(json!([{"tags": ["beta", "gamma"], "plugins": [hsts(60)]}]));
    let reply = world.fleet.edge.admin.put("/v1/config?dry_run=true", by_tag.to_string()).await.unwrap();
    let plan = reply.json().unwrap()["plan"].clone();
    assert_eq!(plan["warnings"][0]["at"], "/bindings/0/tags/1", "nobody has it: {plan}");
    assert_eq!(plan["plugins"]["hsts"]["examples"], json!(["shop.example", "*"]), "{plan}");
    world.fleet.edge.apply(&by_tag).await.unwrap();
    assert_eq!(world.age("shop.example").await.as_deref(), Some("max-age=60"));
    assert_eq!(world.age("blog.example").await, None);

    let all = world.tagged(json!([{"plugins": [hsts(70)]}]));
    world.fleet.edge.apply(&all).await.unwrap();
    for host in ["shop.example", "blog.example"] {
        assert_eq!(world.age(host).await.as_deref(), Some("max-age=70"), "{host}");
    }
    let shadow = json!({"config": {"max_age": 1}});
    let path = "/v1/plugins/hsts/shadow?at=/bindings/0/plugins/0";
    let put = world.fleet.edge.admin.send(Method::PUT, path, &[], shadow.to_string()).await.unwrap();
    assert!(put.text().contains("shadows beside hsts: 2 added"), "{}", put.text());
}

#[tokio::test]
async fn a_binding_for_a_share_reaches_whole_domains_and_always_the_same() {
    let world = World::start(Plan::default()).await;
    // Their buckets: 8924 and 8806 (see `rollout_buckets_are_stable_and_spread`).
    for host in ["shop.example", "www.shop.example", "example.com"] {
        world.issue(host).await;
    }
    for (percent, shop, com) in
        [(88.06, None, None), (88.07, None, Some("max-age=5")), (89.25, Some("max-age=5"), Some("max-age=5"))]
    {
        let mut binding = hsts(5);
        binding["percent"] = json!(percent);
        world.fleet.edge.apply(&world.tagged(json!([{"plugins": [binding]}]))).await.unwrap();
        for (host, age) in [("shop.example", shop), ("www.shop.example", shop), ("example.com", com)] {
            assert_eq!(world.age(host).await.as_deref(), age, "{host} at {percent} %");
        }
    }
}

#[tokio::test]
async fn one_binding_serves_several_listeners() {
    let world = World::start(Plan::default()).await;
    world.issue("shop.example").await;
    let mut document = world.config();
    let policy = json!({"plugin": "proxy-policy", "config": {"trusted": ["127.0.0.1/32"]}});
    document["listeners"] = json!({});
    document["bindings"] = json!([{"listeners": ["https", "http"], "plugins": [policy]}]);
    world.fleet.edge.apply(&document).await.unwrap();
    assert!(world.visitor().await.https("shop.example").await.is_err(), "a trusted peer must send a header");

    document["listeners"] = json!({"http": {"plugins": [policy]}});
    document["bindings"][0]["listeners"] = json!(["https", "htp"]);
    let errors = world.errors(&document).await;
    assert_eq!(
        (&errors[0]["at"], &errors[0]["hint"]),
        (&json!("/bindings/0/listeners/1"), &json!("did you mean `http`?"))
    );
    document["bindings"][0]["listeners"] = json!(["https", "http"]);
    let errors = world.errors(&document).await;
    assert_eq!(errors[0]["at"], "/listeners/http/plugins/0", "{errors}");
}

#[tokio::test]
async fn bindings_that_can_not_be_are_refused_with_their_place() {
    let world = World::start(Plan::default()).await;
    let policy = |more: Value| {
        let mut policy = json!({"plugin": "proxy-policy", "config": {"trusted": []}});
        policy.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        policy
    };
    for (bindings, at) in [
        (json!([{"tags": ["a"], "listeners": ["http"], "plugins": []}]), "/bindings/0"),
        (json!([{"tags": ["Ä"], "plugins": []}]), "/bindings/0/tags/0"),
        (json!([{"listeners": ["http"], "plugins": []}]), "/bindings/0/plugins"),
        (json!([{"plugins": [policy(json!({}))]}]), "/bindings/0/plugins/0/plugin"),
        (
            json!([{"plugins": [{"plugin": "hsts", "config": {"max_age": 1}, "percent": 101}]}]),
            "/bindings/0/plugins/0/percent",
        ),
        (
            json!([{"plugins": [{"plugin": "hsts", "config": {"max_age": 1}, "isolation": "none"}]}]),
            "/bindings/0/plugins/0/isolation",
        ),
    ] {
        let errors = world.errors(&world.tagged(bindings)).await;
        assert_eq!(errors[0]["at"], at, "{errors}");
    }
    for (more, at) in [(json!({"percent": 5}), "percent"), (json!({"isolation": "tenant"}), "isolation")] {
        let mut document = world.config();
        document["listeners"] = json!({"http": {"plugins": [policy(more)]}});
        let errors = world.errors(&document).await;
        assert_eq!(errors[0]["at"], format!("/listeners/http/plugins/0/{at}"), "{errors}");
    }
}

/// The guest counts its calls, as no plugin should: what it says tells who has asked the same instance.
#[tokio::test]
async fn an_instance_is_shared_by_all_by_a_tenant_or_by_nobody() {
    let world = World::start(Plan::default()).await;
    for host in ["shop.example", "blog.example"] {
        world.issue(host).await;
    }
    let digest = world.fleet.edge.push(&guest("hostile")).await.unwrap();
    for (isolation, expected) in
        [("shared", [401, 402, 403]), ("tenant", [401, 402, 403]), ("request", [401, 401, 401])]
    {
        let mut document = world.tagged(json!([]));
        document["plugins"]["hostile"] = json!({"digest": digest});
        let counts = json!({"plugin": "hostile", "config": {"behaviour": "by-path"}, "isolation": isolation});
        document["sites"] = json!([{"hosts": ["*"], "upstream": "sample", "plugins": [counts]}]);
        world.fleet.edge.apply(&document).await.unwrap();
        // One connection is served by one thread.
        let mut shop = world.https("shop.example").await;
        let mut said = Vec::new();
        for _ in 0..3 {
            said.push(shop.get("shop.example", "/").await.unwrap().status);
        }
        assert_eq!(said, expected, "{isolation}");
        if isolation != "shared" {
            let other = world.https("blog.example").await.get("blog.example", "/").await.unwrap();
            assert_eq!(other.status, 401, "{isolation}: nobody else's instance");
        }
    }
}
