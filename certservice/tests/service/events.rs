//! What other systems hear of: server-sent events and webhooks, with listeners that fail.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use certservice::webhooks::signature;
use contract::journal::Entry;
use openssl::ssl::{SslAcceptor, SslFiletype, SslMethod};

use crate::process::{CertService, INTERNAL, LISTEN, wait_for};

const SECRET: &str = "a-secret-of-sixteen";

/// Data of each event, as they come.
fn listen(service: &CertService, query: &str, header: &str) -> Receiver<Entry> {
    let mut stream = UnixStream::connect(service.path("cs.sock")).unwrap();
    write!(stream, "GET /v1/events{query} HTTP/1.1\r\nHost: x\r\n{header}\r\n").unwrap();
    let (send, receive) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines() {
            let Ok(line) = line else { return };
            if let Some(data) = line.strip_prefix("data: ")
                && send.send(serde_json::from_str(data).unwrap()).is_err()
            {
                return;
            }
        }
    });
    receive
}

/// Of a domain: which keys edges have, and when those of tickets are made, is another story.
fn next(events: &Receiver<Entry>) -> Entry {
    loop {
        let entry = events.recv_timeout(Duration::from_secs(60)).unwrap();
        if !matches!(entry.action.as_str(), "ticket_keys.turned" | "key.added") {
            return entry;
        }
    }
}

#[test]
fn a_listener_hears_of_each_change_and_goes_on_where_it_was() {
    let service = CertService::started(INTERNAL);
    let all = listen(&service, "?after=0", "");
    assert_eq!(service.put("a.example", r#"{"tenant": "one"}"#).status, 201);
    let (first, second) = (next(&all), next(&all));
    assert_eq!((first.action.as_str(), first.name.as_str()), ("domain.registered", "a.example"));
    assert_eq!((second.seq > first.seq, second.action.as_str()), (true, "certificate.issued"));
    let last = format!("Last-Event-ID: {}\r\n", first.seq);
    let (rest, other) = (listen(&service, "", &last), listen(&service, "?after=0&tenant=two", ""));
    assert_eq!(next(&rest), second);
    assert_eq!(service.put("b.example", r#"{"tenant": "two"}"#).status, 201);
    let (of_other, third) = (next(&other), next(&rest));
    assert_eq!((of_other.name.as_str(), third.name.as_str()), ("b.example", "b.example"));
    assert!(third.seq > second.seq);
    assert_eq!(service.get("/v1/events?tenant=a%20b").status, 400);
}

#[test]
fn listeners_do_not_hold_up_a_stop() {
    let mut service = CertService::started(INTERNAL);
    let events = listen(&service, "?after=0", "");
    assert_eq!(service.put("a.example", "").status, 201);
    next(&events);
    let process = service.process().id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &process]).status().unwrap().success());
    let status = wait_for("the end", || service.process().try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    assert!(!service.log().contains("requests were still under way"), "{}", service.log());
    // Who listened is told by the end of the stream.
    wait_for("the end of the stream", || {
        matches!(events.try_recv(), Err(std::sync::mpsc::TryRecvError::Disconnected)).then_some(())
    });
}

/// Entries of a stream that broke off: what is not whole is none.
fn heard(text: &str) -> Vec<Entry> {
    let whole = text.rsplit_once("\n\n").map_or("", |(whole, _)| whole);
    whole
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

#[test]
fn a_listener_with_a_long_backlog_is_cut_off_by_a_stop_and_goes_on_after_what_it_has() {
    // Its looks at domains get no answer: nothing else is written meanwhile.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let resolver = format!("[precheck]\nresolver = \"{}\"\n", silent.local_addr().unwrap());
    let mut service = CertService::started(&format!("{INTERNAL}precheck = true\n{resolver}"));
    // More than sockets take while nobody reads.
    let label = "a".repeat(60);
    let names: String = (0..1500).map(|n| format!("n{n}.{label}.{label}.{label}.a{n}.example\n")).collect();
    let headers = "Content-Type: text/csv\r\n";
    let stream = UnixStream::connect(service.path("cs.sock")).unwrap();
    let list = crate::http::exchange_with(stream, "POST", "/v1/imports", headers, names.as_bytes()).json();
    let path = format!("/v1/imports/{}", list["id"].as_str().unwrap());
    wait_for("the list", || (service.get(&path).json()["registered"] == 1500).then_some(()));
    let mut stream = UnixStream::connect(service.path("cs.sock")).unwrap();
    write!(stream, "GET /v1/events?after=0 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut text = vec![0; 4096];
    stream.read_exact(&mut text).unwrap();
    let process = service.process().id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &process]).status().unwrap().success());
    // It reads on when it is too late, and what it has by then counts.
    let status = wait_for("the end", || service.process().try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    let _ = stream.read_to_end(&mut text);
    let first = heard(&unchunked(&text));
    assert!(!first.is_empty() && first.len() < 1500, "{} entries", first.len());
    service.start();
    let last = first.last().unwrap().seq;
    let rest = listen(&service, "", &format!("Last-Event-ID: {last}\r\n"));
    let head = service.get("/v1/audit?limit=1").json()["head"]["seq"].as_u64().unwrap();
    for seq in last + 1..=head {
        assert_eq!(rest.recv_timeout(Duration::from_secs(60)).unwrap().seq, seq);
    }
    assert!(first.iter().map(|entry| entry.seq).eq(first[0].seq..=last), "none is missing");
}

/// Bodies come in chunks (RFC 9112 section 7.1), each of which is one event here, or several.
fn unchunked(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let body = text.split_once("\r\n\r\n").unwrap().1;
    let lines = body.split("\r\n").filter(|line| u64::from_str_radix(line, 16).is_err());
    lines.collect()
}

/// The event, its timestamp, its signature, its body.
type Delivery = (Entry, u64, String, Vec<u8>);

/// Takes requests and answers each with the next of `statuses`, then with 200; passes on what it took.
fn receiver(statuses: &'static [u16]) -> (String, Receiver<Delivery>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let (send, receive) = channel();
    std::thread::spawn(move || {
        let mut statuses = statuses.iter();
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            loop {
                let (mut length, mut timestamp, mut signed, mut lines) = (0, 0, String::new(), 0);
                loop {
                    let mut line = String::new();
                    if stream.read_line(&mut line).unwrap_or(0) == 0 {
                        break;
                    }
                    lines += 1;
                    let line = line.trim();
                    match line.to_ascii_lowercase().split_once(": ") {
                        Some(("content-length", value)) => length = value.parse().unwrap(),
                        Some(("latchkey-timestamp", value)) => timestamp = value.parse().unwrap(),
                        Some(("latchkey-signature", value)) => signed = value.to_owned(),
                        _ => {}
                    }
                    if line.is_empty() {
                        break;
                    }
                }
                if lines == 0 {
                    break;
                }
                let mut body = vec![0; length];
                stream.read_exact(&mut body).unwrap();
                let entry = serde_json::from_slice(&body).unwrap();
                let status = *statuses.next().unwrap_or(&200);
                if status == 200 {
                    send.send((entry, timestamp, signed, body)).unwrap();
                }
                write!(stream.get_mut(), "HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n").unwrap();
            }
        }
    });
    (url, receive)
}

#[test]
fn a_webhook_is_told_in_order_and_signed_and_again_where_it_failed() {
    let (url, told) = receiver(&[500, 302]);
    let mut service = CertService::new("");
    service.write_secret("secret", SECRET);
    let hook = format!("[[webhooks]]\nname = \"crm\"\nurl = \"{url}\"\nsecret_file = \"secret\"\ntenant = \"one\"\n");
    service.configure(LISTEN, &format!("{INTERNAL}{hook}"));
    service.start();
    assert_eq!(service.put("other.example", r#"{"tenant": "two"}"#).status, 201);
    assert_eq!(service.put("a.example", r#"{"tenant": "one"}"#).status, 201);
    let next = || told.recv_timeout(Duration::from_secs(120)).unwrap();
    let (entry, timestamp, signed, body) = next();
    assert_eq!((entry.action.as_str(), entry.name.as_str()), ("domain.registered", "a.example"));
    assert_eq!(signed, signature(SECRET, timestamp, &body));
    let last = next().0;
    assert_eq!(last.action, "certificate.issued");
    let done = wait_for("the cursor", || {
        let state = service.get("/v1/webhooks").json()["webhooks"][0].clone();
        // What is not its tenant's counts as told.
        (state["seq"].as_u64() >= Some(last.seq)).then_some(state)
    });
    assert_eq!(
        (done["name"].as_str(), done["says"].as_str(), done["failures"].as_u64()),
        (Some("crm"), Some(""), Some(0))
    );
    assert_eq!(service.put("another.example", r#"{"tenant": "two"}"#).status, 201);
    wait_for("it not to be behind for what others have done", || {
        let state = service.get("/v1/webhooks").json();
        (state["webhooks"][0]["seq"] == state["head"]).then_some(())
    });
    // After a restart it goes on at once, and says nothing twice that was taken.
    service.kill();
    service.start();
    assert_eq!(service.put("b.example", r#"{"tenant": "one"}"#).status, 201);
    let (registered, issued) = (next().0, next().0);
    assert_eq!((registered.name.as_str(), issued.action.as_str()), ("b.example", "certificate.issued"));
    assert!(!service.log().contains(SECRET));
}

/// Takes deliveries over TLS, with a certificate of a CA that only `root_file` names.
fn receiver_over_tls(folder: &std::path::Path) -> (String, Receiver<Delivery>) {
    crate::ca::write_certificates(folder);
    let mut tls = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).unwrap();
    tls.set_private_key_file(folder.join("ca-server.key"), SslFiletype::PEM).unwrap();
    tls.set_certificate_chain_file(folder.join("ca-server.pem")).unwrap();
    let tls = tls.build();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/hook", listener.local_addr().unwrap());
    let (send, receive) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = tls.accept(stream.unwrap()) else { continue };
            let mut stream = BufReader::new(stream);
            while let Some((_, headers, body)) = crate::http::read_request(&mut stream) {
                let of = |name: &str| headers.iter().find(|(known, _)| known == name).unwrap().1.clone();
                let (timestamp, signed) = (of("latchkey-timestamp").parse().unwrap(), of("latchkey-signature"));
                send.send((serde_json::from_slice(&body).unwrap(), timestamp, signed, body)).unwrap();
                stream.get_mut().write_all(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n").unwrap();
            }
        }
    });
    (url, receive)
}

#[test]
fn a_webhook_over_tls_is_told_nothing_before_its_ca_is_believed() {
    let mut service = CertService::new("");
    let (url, told) = receiver_over_tls(service.folder.path());
    service.write_secret("secret", SECRET);
    let hook = format!(
        "{INTERNAL}[[webhooks]]\nname = \"crm\"\nurl = \"{url}\"\nsecret_file = \"secret\"\ntenant = \"one\"\n"
    );
    service.configure(LISTEN, &hook);
    service.start();
    assert_eq!(service.put("a.example", r#"{"tenant": "one"}"#).status, 201);
    let says = wait_for("the failure", || {
        let state = service.get("/v1/webhooks").json()["webhooks"][0].clone();
        (state["failures"].as_u64() > Some(0)).then(|| state["says"].to_string())
    });
    assert!(says.contains("UnknownIssuer"), "{says}");
    assert!(told.try_recv().is_err());
    service.kill();
    service.configure(LISTEN, &format!("{hook}root_file = \"ca-root.pem\"\n"));
    service.start();
    let (entry, timestamp, signed, body) = told.recv_timeout(Duration::from_secs(120)).unwrap();
    assert_eq!((entry.action.as_str(), entry.name.as_str()), ("domain.registered", "a.example"));
    assert_eq!(signed, signature(SECRET, timestamp, &body));
}
