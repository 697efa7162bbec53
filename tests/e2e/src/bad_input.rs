//! Bad input: a clear answer each, the process lives, and a counter says so.

use support::fleet::Plan;
use support::proxy_header;
use support::visitor::Visitor;

use crate::world::{BALANCER, World, client, guest};

const HANDSHAKES: &str = "latchkey_tls_handshakes_total";
const REFUSALS: &str = "latchkey_connection_refusals_total";

#[tokio::test]
async fn unknown_and_missing_names_are_refused_by_alert() {
    let world = World::start(Plan::default()).await;
    world.issue("shop.example").await;
    let visitor = Visitor::to(world.fleet.edge_setup.https);

    let before = world.metric(HANDSHAKES, "outcome=\"unknown_sni\"").await;
    let error = visitor.https("stranger.example").await.err().unwrap().to_string();
    assert!(error.contains("unrecognized name"), "{error}");
    world.grows(HANDSHAKES, "outcome=\"unknown_sni\"", before, 1.0).await;

    let before = world.metric(HANDSHAKES, "outcome=\"no_sni\"").await;
    let error = visitor.https_without_name().await.err().unwrap().to_string();
    assert!(error.contains("alert"), "{error}");
    world.grows(HANDSHAKES, "outcome=\"no_sni\"", before, 1.0).await;
    world.still_serves("shop.example").await;
}

#[tokio::test]
async fn garbage_before_tls_is_told_from_tls() {
    let world = World::start(Plan::default()).await;
    world.issue("shop.example").await;
    for garbage in [&b"GET / HTTP/1.1\r\nhost: shop.example\r\n\r\n"[..], &[0xff; 64], b"SSH-2.0-OpenSSH_9.2\r\n"] {
        let before = world.metric(HANDSHAKES, "outcome=\"not_tls\"").await;
        let visitor = Visitor::to(world.fleet.edge_setup.https).beginning_with(garbage);
        let answer = visitor.raw_answer().await.unwrap();
        assert!(answer.len() < 100, "{answer:?}");
        world.grows(HANDSHAKES, "outcome=\"not_tls\"", before, 1.0).await;
    }
    world.still_serves("shop.example").await;
}

#[tokio::test]
async fn an_oversized_or_malformed_proxy_header_is_refused() {
    let world = World::start(Plan::default()).await;
    world.issue("shop.example").await;
    let https = world.fleet.edge_setup.https;
    let v2_of = |total: usize| {
        let tlv_value = total - 16 - 12 - 3;
        let length = u16::try_from(tlv_value).unwrap().to_be_bytes();
        let tlv = [&[0xe0][..], &length, &vec![0; tlv_value]].concat();
        proxy_header::v2_with(client(), https, &tlv)
    };
    let largest = world.visitor().await.from(BALANCER).beginning_with(v2_of(536));
    let mut connection = largest.https("shop.example").await.unwrap();
    assert_eq!(connection.get("shop.example", "/").await.unwrap().status, 200);

    let long_v1 = format!("PROXY TCP4 {}\r\n", "1".repeat(200)).into_bytes();
    for (header, reason) in [
        (v2_of(537), "proxy_header_too_long"),
        (long_v1, "proxy_header_too_long"),
        (b"PROXY TCP4 203.0.113.7 nowhere 1 2\r\n".to_vec(), "proxy_header_malformed"),
    ] {
        for listener in [https, world.fleet.edge_setup.http] {
            let label = format!("reason=\"{reason}\"");
            let before = world.metric(REFUSALS, &label).await;
            let visitor = Visitor::to(listener).from(BALANCER).beginning_with(header.clone());
            assert_eq!(visitor.raw_answer().await.unwrap(), b"");
            world.grows(REFUSALS, &label, before, 1.0).await;
        }
    }
    world.still_serves("shop.example").await;
}

#[tokio::test]
async fn a_peer_that_stays_silent_is_let_go() {
    let world = World::start(Plan::default()).await;
    let begun = world.v2();
    let before = world.metric(REFUSALS, "reason=\"timed_out\"").await;
    let mut silent = tokio::task::JoinSet::new();
    for first_bytes in [&b""[..], &begun[..begun.len() - 1]] {
        for listener in [world.fleet.edge_setup.https, world.fleet.edge_setup.http] {
            let visitor = Visitor::to(listener).from(BALANCER).beginning_with(first_bytes);
            silent.spawn(async move { visitor.raw_answer().await.unwrap() });
        }
    }
    let answers = silent.join_all().await;
    assert!(answers.iter().all(Vec::is_empty), "{answers:?}");
    world.grows(REFUSALS, "reason=\"timed_out\"", before, answers.len() as f64).await;
}

#[tokio::test]
async fn malformed_json_is_refused_with_its_place() {
    let world = World::start(Plan::default()).await;
    let before = world.metric("latchkey_config_applies_total", "result=\"invalid\"").await;
    let revision = world.metric("latchkey_config_revision", "").await;
    let reply = world.fleet.edge.admin.put("/v1/config", "{\n  \"sites\": [\n    {,}\n]}").await.unwrap();
    assert_eq!((reply.status, reply.content_type.as_deref()), (422, Some("application/problem+json")));
    let problem = reply.json().unwrap();
    assert_eq!(problem["errors"][0]["line"], 3, "{problem}");
    assert_eq!(world.metric("latchkey_config_applies_total", "result=\"invalid\"").await, before + 1.0);
    assert_eq!(world.metric("latchkey_config_revision", "").await, revision);
}

#[tokio::test]
async fn a_guest_that_is_not_a_component_is_refused() {
    let world = World::start(Plan::default()).await;
    let admin = &world.fleet.edge.admin;
    let component = std::fs::read(guest("hsts")).unwrap();
    let core_module = b"\0asm\x01\0\0\0".to_vec();
    for (bytes, says) in [(b"#!/bin/sh\n".to_vec(), ""), (core_module, "component"), (component[..999].to_vec(), "")] {
        let before = world.metric("latchkey_plugin_uploads_total", "result=\"refused\"").await;
        let (_, reply) = world.fleet.edge.upload(bytes).await.unwrap();
        assert_eq!(reply.status, 422, "{}", reply.text());
        let detail = reply.json().unwrap()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(says), "{detail}");
        assert_eq!(world.metric("latchkey_plugin_uploads_total", "result=\"refused\"").await, before + 1.0);
    }
    let mistaken = admin.put(&digest_path(b"something else"), component).await.unwrap();
    assert_eq!(mistaken.status, 400, "{}", mistaken.text());
    let plugins = admin.get("/v1/plugins").await.unwrap().json().unwrap();
    assert_eq!(plugins["plugins"].as_array().unwrap().len(), 3, "{plugins}");
}

fn digest_path(bytes: &[u8]) -> String {
    format!("/v1/plugins/sha256:{}", support::certservice::hex(&contract::bundle::sha256(bytes)))
}

#[tokio::test]
async fn ambiguous_hosts_are_refused_before_anything_is_chosen_by_them() {
    let world = World::start(Plan::default()).await;
    world.issue("shop.example").await;
    let before = world.metric("latchkey_http_local_answers_total", "reason=\"bad_host\"").await;
    let refused_by_us =
        ["host: a.example, shop.example\r\n", "host: shop.example/x\r\n", "host: shop.example:x\r\n", ""];
    let refused_by_the_parser = ["host: shop.example\r\nhost: b.example\r\n"];
    for hosts in refused_by_us.iter().chain(&refused_by_the_parser) {
        let request = format!("GET / HTTP/1.1\r\n{hosts}\r\n");
        let visitor = Visitor::to(world.fleet.edge_setup.http).beginning_with(request);
        let answer = String::from_utf8(visitor.raw_answer().await.unwrap()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400"), "{hosts}: {answer}");
    }
    let count = refused_by_us.len() as f64;
    world.grows("latchkey_http_local_answers_total", "reason=\"bad_host\"", before, count).await;
    // A connection that was opened for one host is not for another.
    world.issue("blog.example").await;
    let mut connection = world.https("shop.example").await;
    assert_eq!(connection.get("blog.example", "/").await.unwrap().status, 421);
}

#[tokio::test]
async fn certservice_refuses_what_it_can_not_serve() {
    let world = World::start(Plan::default()).await;
    world.issue("shop.example").await;
    let (operator, edge) = (world.fleet.certservice.as_operator(), world.fleet.certservice.as_edge());
    let stranger = support::api::Api::http(&world.fleet.certservice_setup.url(), Some("not-a-token")).unwrap();
    let status = async |reply: support::Result<support::api::Reply>| {
        let reply = reply.unwrap();
        assert_eq!(reply.content_type.as_deref(), Some("application/problem+json"), "{}", reply.text());
        (reply.status, reply.json().unwrap()["code"].as_str().unwrap().to_owned())
    };
    let (bad_request, code) = status(operator.put("/v1/domains/localhost", "{}").await).await;
    assert_eq!(code, "invalid_name");
    assert!((400..500).contains(&bad_request), "{bad_request}");
    assert_eq!(status(edge.get("/v1/bundles/stranger.example").await).await, (404, "unknown_domain".into()));
    assert_eq!(status(stranger.get("/v1/domains").await).await.0, 401);
    // Each role has its own paths: keys, even sealed ones, are for edges; domains are not.
    assert_eq!(status(operator.get("/v1/bundles/shop.example").await).await, (403, "forbidden".into()));
    assert_eq!(status(edge.put("/v1/domains/own.example", "{}").await).await, (403, "forbidden".into()));
}
