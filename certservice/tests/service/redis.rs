//! With a real Redis: a cache that may come and go.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::edge::open_bundle;
use crate::process::{CertService, INTERNAL, Running, free_port, wait_for};

fn start(port: u16) -> Running {
    let mut command = Command::new("redis-server");
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    let started = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
    let process = Running(started.expect("redis-server is missing; `make test` installs it"));
    wait_for("Redis", || TcpStream::connect(("127.0.0.1", port)).ok());
    process
}

/// One command; what it answers, `None` for nil.
fn redis(port: u16, command: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(format!("{command}\r\n").as_bytes()).unwrap();
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    match line.trim().strip_prefix('$') {
        Some("-1") => None,
        Some(length) => {
            let mut body = vec![0; length.parse().unwrap()];
            reader.read_exact(&mut body).unwrap();
            Some(String::from_utf8(body).unwrap())
        }
        None => Some(line.trim().trim_start_matches(':').to_owned()),
    }
}

#[test]
fn bundles_stand_in_redis_and_come_back_after_a_loss() {
    let port = free_port();
    let _redis = start(port);
    let service = CertService::started(&format!("{INTERNAL}[redis]\nurl = \"redis://127.0.0.1:{port}\"\n"));
    assert_eq!(service.put("shop.example", "").status, 201);
    let not_after = service.wait_live("shop.example").certificate.unwrap().not_after;
    let stored = || redis(port, "GET latchkey:bundle:shop.example");
    let token = wait_for("the bundle in Redis", stored);
    open_bundle(&token, "shop.example", &service.verify_keys(), &service.edge);
    let seconds: u64 = redis(port, "TTL latchkey:bundle:shop.example").unwrap().parse().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!(seconds.abs_diff(not_after - now) < 60, "{seconds}");

    redis(port, "FLUSHALL");
    assert_eq!(stored(), None);
    assert_eq!(service.get("/v1/bundles/shop.example").status, 200);
    assert_eq!(wait_for("the bundle in Redis again", stored), token);
}

#[test]
fn redis_down_fails_nothing_and_is_counted() {
    let port = free_port();
    let service = CertService::started(&format!("{INTERNAL}[redis]\nurl = \"redis://127.0.0.1:{port}\"\n"));
    assert_eq!(service.put("shop.example", "").status, 201);
    service.wait_live("shop.example");
    assert_eq!(service.get("/v1/bundles/shop.example").status, 200);
    assert_eq!(service.get("/readyz").status, 200);
    wait_for("the counter", || {
        service.get("/metrics").text().contains("redis_errors_total{operation=\"set_bundle\"}").then_some(())
    });

    // It comes, and is used without a restart.
    let _redis = start(port);
    wait_for("the bundle in Redis", || {
        assert_eq!(service.get("/v1/bundles/shop.example").status, 200);
        redis(port, "GET latchkey:bundle:shop.example")
    });
}

#[test]
fn edges_hear_at_once_of_a_change_and_find_no_bundle_of_a_domain_that_is_gone() {
    let port = free_port();
    let _redis = start(port);
    let service = CertService::started(&format!("{INTERNAL}[redis]\nurl = \"redis://127.0.0.1:{port}\"\n"));
    let mut channel = TcpStream::connect(("127.0.0.1", port)).unwrap();
    channel.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    channel.write_all(b"SUBSCRIBE latchkey:changes\r\n").unwrap();
    let mut channel = BufReader::new(channel);
    // An array of three, two of them words with their lengths: `subscribe`, the channel, 1; `message`, the channel, the
    // cursor.
    let mut lines = |count: usize| {
        let mut line = || {
            let mut line = String::new();
            channel.read_line(&mut line).unwrap();
            line.trim().to_owned()
        };
        (0..count).map(|_| line()).last().unwrap()
    };
    assert_eq!(lines(6), ":1");
    assert_eq!(service.put("shop.example", "").status, 201);
    assert_eq!(lines(7), "1");
    // The hint comes last: what it announces stands in Redis by then.
    let stored = || redis(port, "GET latchkey:bundle:shop.example");
    assert!(stored().is_some());
    assert_eq!(service.call("DELETE", "/v1/domains/shop.example", None, "").status, 204);
    assert_eq!((lines(7), stored()), ("2".to_owned(), None));
}

#[test]
fn an_outage_of_redis_does_not_keep_the_bundle_of_a_domain_that_is_gone() {
    let port = free_port();
    let service = CertService::started(&format!("{INTERNAL}[redis]\nurl = \"redis://127.0.0.1:{port}\"\n"));
    for name in ["gone.example", "stays.example"] {
        assert_eq!(service.put(name, "").status, 201);
        service.wait_live(name);
    }
    assert_eq!(service.call("DELETE", "/v1/domains/gone.example", None, "").status, 204);
    // It comes back with what it had: on a port of its own until then.
    let elsewhere = free_port();
    let _redis = start(elsewhere);
    for name in ["gone.example", "stays.example"] {
        redis(elsewhere, &format!("SET latchkey:bundle:{name} old"));
    }
    assert_eq!(redis(elsewhere, &format!("CONFIG SET port {port}")).as_deref(), Some("+OK"));
    wait_for("the bundle to go", || redis(port, "GET latchkey:bundle:gone.example").is_none().then_some(()));
    assert!(redis(port, "GET latchkey:bundle:stays.example").is_some());
}
