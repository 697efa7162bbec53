//! Lists of domains, from the request to certificates, through the real service.

use std::os::unix::net::UnixStream;

use contract::api::{DomainList, State};

use crate::http::{Answer, exchange_with};
use crate::process::{CertService, INTERNAL, wait_for};

fn send(service: &CertService, query: &str, headers: &str, body: &str) -> Answer {
    let stream = UnixStream::connect(service.path("cs.sock")).unwrap();
    exchange_with(stream, "POST", &format!("/v1/imports{query}"), headers, body.as_bytes())
}

fn list(service: &CertService, id: &str) -> DomainList {
    serde_json::from_slice(&service.get(&format!("/v1/imports/{id}")).body).unwrap()
}

fn live(list: &DomainList) -> u64 {
    list.domains.iter().filter(|group| group.state == State::Live).map(|group| group.count).sum()
}

const CSV: &str = "Content-Type: text/csv\r\n";

#[test]
fn a_list_with_faults_registers_the_rest_and_tells_each_line() {
    let service = CertService::started(INTERNAL);
    assert_eq!(service.put("taken.example", r#"{"tenant": "other"}"#).status, 201);
    let body =
        "name,tenant,issuer\na.example\nnot a name\n\nb.example,one\ntaken.example,one\nc.example,one,nobody\nco.uk\n";
    let answer = send(&service, "?tenant=given", CSV, body);
    assert_eq!(answer.status, 202, "{}", answer.text());
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    let over = wait_for("the list", || Some(list(&service, &id)).filter(|list| list.over && live(list) == 2));
    assert_eq!((over.lines, over.done, over.registered, over.known, over.refused), (8, 8, 2, 0, 4));
    let errors: Vec<_> = over.errors.iter().map(|error| (error.line, error.code.as_str())).collect();
    assert_eq!(errors, [(3, "invalid_name"), (6, "domain_taken"), (7, "unknown_issuer"), (8, "public_suffix")]);
    assert_eq!(service.domain("a.example").tenant, "given");
    assert_eq!(service.domain("b.example").tenant, "one");
    assert_eq!(list(&service, &id).errors.len(), 4);
    let rest = service.get(&format!("/v1/imports/{id}?errors_after=6")).json();
    assert_eq!(rest["errors"].as_array().unwrap().len(), 2);
}

#[test]
fn the_same_list_again_is_the_same_and_another_finds_what_is_there() {
    let service = CertService::started(INTERNAL);
    let headers = "Content-Type: application/x-ndjson\r\nIdempotency-Key: once\r\n";
    let body = "{\"name\": \"shop.example\", \"www\": true}\n{\"name\": \"b.example\"}";
    let first = send(&service, "", headers, body);
    let again = send(&service, "", headers, body);
    assert_eq!((first.status, again.status), (202, 200));
    assert_eq!(first.json()["id"], again.json()["id"]);
    let id = first.json()["id"].as_str().unwrap().to_owned();
    wait_for("the list", || (live(&list(&service, &id)) == 3).then_some(()));
    assert_eq!(service.domain("www.shop.example").state, State::Live);
    let other = send(&service, "", CSV, "shop.example\nb.example\n").json()["id"].as_str().unwrap().to_owned();
    let other = wait_for("the other list", || Some(list(&service, &other)).filter(|list| list.over));
    assert_eq!((other.registered, other.known, live(&other)), (0, 2, 2));
}

#[test]
fn a_list_that_is_not_one_is_refused_whole() {
    let service = CertService::started(INTERNAL);
    let refused = |query: &str, headers: &str, body: &str| {
        let answer = send(&service, query, headers, body);
        (answer.status, answer.json()["code"].as_str().unwrap().to_owned())
    };
    let code = |status, code: &str| (status, code.to_owned());
    assert_eq!(refused("", "Content-Type: application/pdf\r\n", "a.example"), code(415, "unknown_format"));
    assert_eq!(refused("?tenant=a%20b", CSV, "a.example"), code(400, "invalid_tenant"));
    assert_eq!(refused("?issuer=none", CSV, "a.example"), code(400, "unknown_issuer"));
    assert_eq!(refused("?tenat=x", CSV, "a.example"), code(400, "invalid_query"));
    let key = format!("{CSV}Idempotency-Key: {}\r\n", "k".repeat(65));
    assert_eq!(refused("", &key, "a.example"), code(400, "invalid_header"));
    let key = format!("{CSV}Idempotency-Key: {}\r\n", "k".repeat(64));
    assert_eq!(send(&service, "", &key, "a.example").status, 202);
    assert_eq!(service.get("/v1/imports/none").status, 404);
    // A line beyond the limit costs itself only.
    let long = format!("{}\nb.example\n", "a".repeat(100_000));
    let id = send(&service, "", CSV, &long).json()["id"].as_str().unwrap().to_owned();
    let over = wait_for("the list", || Some(list(&service, &id)).filter(|list| list.over));
    assert_eq!((over.registered, over.refused, over.errors[0].code.as_str()), (1, 1, "invalid_line"));
    // Of one that breaks off, nothing stays.
    let mut stream = UnixStream::connect(service.path("cs.sock")).unwrap();
    let head = format!("POST /v1/imports HTTP/1.1\r\nHost: x\r\n{CSV}Content-Length: 1000\r\n\r\nbroken.example\n");
    std::io::Write::write_all(&mut stream, head.as_bytes()).unwrap();
    drop(stream);
    assert_eq!(service.get("/v1/domains/broken.example").status, 404);
}

/// `LATCHKEY_IMPORTED_NAMES=10000` is the run that bench/README.md tells of.
#[test]
fn killed_half_way_a_list_goes_on_and_every_name_gets_its_certificate() {
    let count: u64 = std::env::var("LATCHKEY_IMPORTED_NAMES").ok().and_then(|n| n.parse().ok()).unwrap_or(600);
    let mut service = CertService::started(INTERNAL);
    let body: String = (0..count).map(|n| format!("n{n}.example\n")).collect();
    let begun = std::time::Instant::now();
    let id = send(&service, "", CSV, &body).json()["id"].as_str().unwrap().to_owned();
    for life in 0..4 {
        std::thread::sleep(std::time::Duration::from_millis(30 * life));
        service.kill();
        service.start();
    }
    let deadline = begun + std::time::Duration::from_secs(60 + count / 5);
    let list = loop {
        let list = list(&service, &id);
        if live(&list) == count {
            break list;
        }
        assert!(std::time::Instant::now() < deadline, "{list:?}");
        std::thread::sleep(std::time::Duration::from_millis(100));
    };
    println!("{count} names in {:.1} s", begun.elapsed().as_secs_f32());
    assert_eq!((list.over, list.done, list.registered, list.known, list.refused), (true, count, count, 0, 0));
}
