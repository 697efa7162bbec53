//! Clients and load balancers that others wrote.

use std::path::PathBuf;
use std::process::Command;

use support::fleet::Plan;
use support::haproxy::HaProxy;
use support::visitor::Visitor;

use crate::world::{World, run, stderr, stdout};

async fn root_file(world: &World) -> PathBuf {
    let root = world.fleet.root().await.unwrap();
    world.fleet.folder.write("root.pem", root).unwrap()
}

fn curl(command: &mut Command, world: &World, root: &PathBuf, host: &str) {
    let https = world.fleet.edge_setup.https;
    command.args(["-sS", "--max-time", "30", "--noproxy", "*", "--cacert"]).arg(root);
    command.args(["--resolve", &format!("{host}:{}:{}", https.port(), https.ip())]);
}

#[tokio::test]
async fn curl_speaks_http2_and_http1() {
    let world = World::start(Plan::default()).await;
    world.issue("shop.example").await;
    let root = root_file(&world).await;
    let url = format!("https://shop.example:{}/hello", world.fleet.edge_setup.https.port());
    for (option, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let output = run("curl", |command| {
            curl(command, &world, &root, "shop.example");
            command.args([option, "--write-out", "\n%{http_version} %{http_code} %{num_connects}\n", &url, &url]);
        });
        let output = output.await;
        let text = stdout(&output);
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(text.matches("path: /hello\n").count(), 2, "{text}");
        assert!(text.contains(&format!("\n{version} 200 1\n")), "{text}");
        assert!(text.contains(&format!("\n{version} 200 0\n")), "the connection is kept: {text}");
        assert!(text.contains("x-forwarded-proto: https"), "{text}");
    }
    // A body of some size, over HTTP/2.
    let body = world.fleet.folder.write("body", vec![b'x'; 300_000]).unwrap();
    let output = run("curl", |command| {
        curl(command, &world, &root, "shop.example");
        command.args(["--http2", "--data-binary", &format!("@{}", body.display()), &url]);
    });
    assert!(stdout(&output.await).contains("body-bytes: 300000"));
}

#[tokio::test]
async fn curl_sends_a_proxy_header() {
    let world = World::start(Plan::default()).await;
    world.issue("shop.example").await;
    let root = root_file(&world).await;
    let url = format!("https://shop.example:{}/", world.fleet.edge_setup.https.port());
    // curl names its own address: the balancer's. From an address that is not trusted it is refused.
    let trusted = run("curl", |command| {
        curl(command, &world, &root, "shop.example");
        command.args(["--interface", "127.0.0.2", "--haproxy-protocol", &url]);
    });
    let trusted = trusted.await;
    assert!(stdout(&trusted).contains("x-forwarded-for: 127.0.0.2\n"), "{}{}", stdout(&trusted), stderr(&trusted));
    let untrusted = run("curl", |command| {
        curl(command, &world, &root, "shop.example");
        command.args(["--haproxy-protocol", &url]);
    });
    assert!(!untrusted.await.status.success());
}

#[tokio::test]
async fn openssl_verifies_the_chain_and_the_name() {
    let world = World::start(Plan { pebble: true, ..Plan::default() }).await;
    world.issue("shop.example").await;
    let root = root_file(&world).await;
    for version in ["-tls1_2", "-tls1_3"] {
        let output = run("openssl", |command| {
            command.args(["s_client", "-connect", &world.fleet.edge_setup.https.to_string(), version]);
            command.args(["-servername", "shop.example", "-verify_hostname", "shop.example"]);
            command.args(["-verify_return_error", "-showcerts", "-alpn", "h2", "-CAfile"]).arg(&root);
        });
        let output = output.await;
        let text = stdout(&output);
        assert!(text.contains("Verify return code: 0 (ok)"), "{text}{}", stderr(&output));
        assert!(text.contains("ALPN protocol: h2"), "{text}");
        // The intermediate is sent along.
        assert!(text.matches("BEGIN CERTIFICATE").count() >= 2, "{text}");
    }
    let old = run("openssl", |command| {
        command.args(["s_client", "-connect", &world.fleet.edge_setup.https.to_string(), "-tls1_1"]);
        command.args(["-servername", "shop.example", "-cipher", "DEFAULT@SECLEVEL=0"]);
    });
    assert!(!old.await.status.success(), "TLS 1.1 is refused");
}

#[tokio::test]
async fn haproxy_in_front_passes_the_client_on() {
    let world = World::start(Plan::default()).await;
    world.issue("shop.example").await;
    let setup = &world.fleet.edge_setup;
    let trusted = HaProxy::start(world.fleet.folder.path(), setup.https, "127.0.0.2").await.unwrap();
    let visitor =
        Visitor::to(trusted.address).from([127, 0, 0, 9]).trusting(&world.fleet.root().await.unwrap()).unwrap();
    let answer = visitor.https("shop.example").await.unwrap().get("shop.example", "/").await.unwrap();
    assert_eq!(answer.seen("x-forwarded-for").as_deref(), Some("127.0.0.9"));

    let folder = world.fleet.folder.subfolder("plain").unwrap();
    let plain = HaProxy::start(&folder, setup.http, "127.0.0.2").await.unwrap();
    let answer = Visitor::to(plain.address).http().await.unwrap().get("shop.example", "/").await.unwrap();
    assert_eq!(answer.status, 301);

    let folder = world.fleet.folder.subfolder("untrusted").unwrap();
    let untrusted = HaProxy::start(&folder, setup.https, "127.0.0.3").await.unwrap();
    assert!(Visitor::to(untrusted.address).https("shop.example").await.is_err());
}

#[tokio::test]
async fn sessions_are_resumed() {
    let world = World::start(Plan::default()).await;
    world.issue("shop.example").await;
    // Five more connections, each with the first one's session.
    let output = run("openssl", |command| {
        command.args(["s_client", "-connect", &world.fleet.edge_setup.https.to_string(), "-tls1_2", "-reconnect"]);
        command.args(["-servername", "shop.example"]);
    });
    let text = stdout(&output.await);
    assert_eq!((text.matches("New, TLSv1.2").count(), text.matches("Reused, TLSv1.2").count()), (1, 5), "{text}");
}

#[tokio::test]
async fn many_requests_share_one_http2_connection() {
    const REQUESTS: usize = 50;
    let world = World::start(Plan::default()).await;
    world.issue("shop.example").await;
    let root = root_file(&world).await;
    let url = format!("https://shop.example:{}/[1-{REQUESTS}]", world.fleet.edge_setup.https.port());
    let output = run("curl", |command| {
        curl(command, &world, &root, "shop.example");
        command.args([
            "--http2",
            "--parallel",
            "--parallel-max",
            "50",
            "--write-out",
            "%{http_code} over %{http_version}\n",
            &url,
        ]);
    });
    let text = stdout(&output.await);
    assert_eq!(text.matches("200 over 2\n").count(), REQUESTS, "{text}");
    for number in 1..=REQUESTS {
        assert!(text.contains(&format!("path: /{number}\n")), "{number}: {text}");
    }
}
