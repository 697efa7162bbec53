//! Strict-Transport-Security while a site's certificate is well, and while it is not; what the operator is told of it.

mod chromium;

use std::process::Command;

use openssl::asn1::Asn1Time;
use reqwest::Method;
use serde_json::{Value, json};
use support::authority::{Authority, Issued};
use support::fleet::Plan;
use support::visitor::Visitor;
use support::wait::{PATIENCE, until};
use support::{fail, program, proxy_header};

use crate::world::{BALANCER, World, output, run, stderr, stdout};

const HOST: &str = "shop.example";
const DAY: i64 = 86_400;

impl World {
    /// Gives the host a certificate of 90 days of which so many seconds are left.
    async fn bring(&self, authority: &Authority, left: i64) {
        let now = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
        let at = |seconds: i64| Asn1Time::from_unix(seconds).unwrap();
        let Issued { certificate, key } =
            authority.issue_between(HOST, &at(now + left - 90 * DAY), &at(now + left)).unwrap();
        let pem = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let chain = pem(certificate.to_pem().unwrap()) + &pem(authority.root_pem().unwrap());
        let key = pem(key.private_key_to_pem_pkcs8().unwrap());
        let path = format!("/v1/domains/{HOST}/certificate");
        let body = json!({"chain": chain, "key": key}).to_string();
        let reply = self.fleet.certservice.as_operator().put(&path, body).await.unwrap();
        assert!(matches!(reply.status, 200 | 201), "{}", reply.text());
    }

    /// What the edge promises to whoever comes, once it is this.
    async fn promises(&self, expected: &str) {
        let visitor = Visitor::to(self.fleet.edge_setup.https);
        let promised = until(format!("the promise {expected}"), PATIENCE, async || {
            let answer = visitor.https(HOST).await?.get(HOST, "/").await?;
            let promise = answer.header("strict-transport-security").unwrap_or("nothing");
            if promise == expected { Ok(()) } else { fail(promise) }
        });
        promised.await.unwrap();
    }

    /// `latchkey hsts …`
    async fn hsts(&self, arguments: &[&str]) -> Value {
        let mut command = Command::new(program::own("latchkey").unwrap());
        command.arg("hsts").args(arguments).arg("--json");
        command.env("LATCHKEY_ADMIN", format!("unix:{}", self.fleet.edge_setup.admin_socket().display()));
        let certservice = &self.fleet.certservice_setup;
        command.env("LATCHKEY_CERTSERVICE", certservice.url());
        command.env("LATCHKEY_TOKEN_FILE", certservice.operator_token_file());
        let output = output(command).await;
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    async fn ramp(&self, settings: Value) {
        let mut config = json!({"stages": [stage("2020-01-01", 259_200), stage(&day(-1).await, 604_800), last()]});
        config.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        self.promise_all(config).await;
    }

    /// The plugin with these settings, for every host.
    async fn promise_all(&self, config: Value) {
        let mut document = self.config();
        document["sites"][0]["plugins"] = json!([{"plugin": "hsts", "config": config, "on_failure": "closed"}]);
        self.fleet.edge.apply(&document).await.unwrap();
    }
}

fn stage(from: &str, max_age: u64) -> Value {
    json!({"from": from, "percent": 100, "max_age": max_age})
}

fn last() -> Value {
    json!({"from": "9999-01-01", "percent": 100, "max_age": 31_536_000, "include_subdomains": true})
}

/// `2026-12-01`, so many days from now.
async fn day(days: i64) -> String {
    let day = run("date", |command| {
        command.args(["-u", "-d", &format!("{days} days"), "+%F"]);
    });
    stdout(&day.await).trim().to_owned()
}

#[tokio::test]
async fn promises_do_not_grow_while_the_certificate_is_unwell_and_go_on_when_it_is_well() {
    let world = World::start(Plan { certservice_on_socket: true, ..Plan::default() }).await;
    let authority = Authority::new("A CA that sells").unwrap();
    world.ramp(json!({})).await;
    world.bring(&authority, 60 * DAY).await;
    world.promises("max-age=604800").await;

    // Late since two and a half days: the stage of yesterday has not begun for it.
    world.bring(&authority, 20 * DAY).await;
    world.promises("max-age=259200").await;
    let told = world.hsts(&["status"]).await;
    let held = &told["status"]["held"][0];
    assert_eq!((&held["host"], &held["why"]), (&json!(HOST), &json!("renewal_failing")), "{told:#}");
    assert_eq!((&held["promise"], &held["otherwise"]), (&json!("max-age=259200"), &json!("max-age=604800")));

    // Two days and a half hour are left: no promise is longer.
    world.bring(&authority, 2 * DAY + 1800).await;
    world.promises("max-age=172800").await;
    let told = world.hsts(&["status"]).await;
    assert_eq!(told["status"]["held"][0]["why"], "ending", "{told:#}");
    world.ramp(json!({"unhealthy": {"ending": "ignore"}})).await;
    world.promises("max-age=604800").await;
    world.ramp(json!({"withdraw": true})).await;
    world.promises("max-age=0").await;

    world.ramp(json!({})).await;
    world.promises("max-age=172800").await;
    world.bring(&authority, 60 * DAY).await;
    world.promises("max-age=604800").await;
    let told = world.hsts(&["status"]).await;
    assert_eq!((&told["status"]["held"], &told["status"]["sites"]), (&json!([]), &json!(1)), "{told:#}");
}

/// Its domain points elsewhere when it is to be renewed: no CA would issue for it.
#[tokio::test]
async fn a_rollout_stops_for_a_site_at_the_first_renewal_that_fails_and_goes_on_with_the_next_certificate() {
    let settings = "[issuance]\nretry_seconds_min = 1\nretry_seconds_max = 1\n";
    let world = World::start(Plan { pebble: true, certservice_settings: settings, ..Plan::default() }).await;
    for host in [HOST, "other.example"] {
        world.issue(host).await;
    }
    world.ramp(json!({})).await;
    let held = async |held: Value, why: Value| {
        let stopped = until(format!("{held} to be held for {why}"), PATIENCE, async || {
            let told = world.hsts(&["plan"]).await;
            let step = &told["steps"][0];
            if (&step["held"], &step["held_why"]) == (&held, &why) { Ok(()) } else { fail(told.to_string()) }
        });
        stopped.await.unwrap();
    };
    held(json!(0), json!({})).await;

    let pebble = world.fleet.pebble.as_ref().unwrap();
    pebble.point(HOST, Some("192.0.2.7")).await.unwrap();
    let renew = format!("/v1/domains/{HOST}:renew");
    world.fleet.certservice.as_operator().send(Method::POST, &renew, &[], "").await.unwrap().expect(202).unwrap();
    held(json!(1), json!({"renewal_failing": 1})).await;
    let told = world.hsts(&["status"]).await;
    assert_eq!(told["status"]["unwell"], json!({"renewal_failing": 1}), "{told:#}");

    pebble.point(HOST, None).await.unwrap();
    held(json!(0), json!({})).await;
    let told = world.hsts(&["status"]).await;
    assert_eq!(told["status"]["unwell"], json!({}), "{told:#}");
}

#[tokio::test]
async fn a_site_whose_handshakes_fail_in_many_networks_is_held_and_others_are_not() {
    let world = World::start(Plan::default()).await;
    for host in [HOST, "other.example"] {
        world.issue(host).await;
    }
    world.ramp(json!({})).await;
    let next = world.hsts(&["plan"]).await;
    assert_eq!(next["steps"][0]["changes"][0]["sites"], 2, "{next:#}");

    let distrusting = String::from_utf8(Authority::new("another CA").unwrap().root_pem().unwrap()).unwrap();
    let refused = world.metric("latchkey_tls_handshakes_total", "certificate_refused").await;
    for network in 0..40 {
        let header =
            proxy_header::v2(format!("198.18.{network}.9:5000").parse().unwrap(), world.fleet.edge_setup.https);
        let visitor = Visitor::to(world.fleet.edge_setup.https).from(BALANCER).beginning_with(header);
        assert!(visitor.trusting(&distrusting).unwrap().https(HOST).await.is_err());
    }
    world.grows("latchkey_tls_handshakes_total", "certificate_refused", refused, 40.0).await;
    let next = world.hsts(&["plan"]).await;
    let step = &next["steps"][0];
    assert_eq!((&step["changes"][0]["examples"], &step["held"]), (&json!(["other.example"]), &json!(1)), "{next:#}");
    assert_eq!(step["held_why"], json!({"handshake_errors": 1}));
    world.promises("max-age=604800").await;
}

#[tokio::test]
async fn an_operator_sees_what_the_next_stage_touches_and_breaks() {
    let world = World::start(Plan::default()).await;
    world.issue(HOST).await;
    let lacking = world.fleet.folder.write("hosts", format!("{HOST}\nother.example\n")).unwrap();
    world.ramp(json!({})).await;
    let told = world.hsts(&["status"]).await;
    assert_eq!(told["status"]["promises"][0]["promise"], "max-age=604800", "{told:#}");
    let next = world.hsts(&["plan"]).await;
    let step = &next["steps"][0];
    assert_eq!(step["changes"][0]["to"], "max-age=31536000; includeSubDomains", "{next:#}");
    world.promises("max-age=604800").await;
    let told = world.hsts(&["status", "--hosts", lacking.to_str().unwrap()]).await;
    let status = &told["status"];
    assert_eq!((&status["sites"], &status["without_certificate"]), (&json!(2), &json!(1)), "{told:#}");
    let other = world.hsts(&["status", "--plugin", "nobody"]).await;
    assert_eq!(other["status"]["sites"], 0, "{other:#}");
}
