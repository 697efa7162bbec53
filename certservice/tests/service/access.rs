//! Who may do what, on every route.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};

use crate::http::exchange;
use crate::process::{CertService, INTERNAL, free_port, wait_for};

pub const EDGE: &str = "edge-token";
pub const APP: &str = "app-token";
pub const OTHER_APP: &str = "other-app-token";
pub const OPERATOR: &str = "operator-token";
pub const VIEWER: &str = "viewer-token";

pub fn tokens() -> String {
    let table = |role: &str, token: &str| {
        let hash: String = contract::bundle::sha256(token.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
        format!("[[tokens]]\n{role}\nsha256 = \"{hash}\"\n")
    };
    [
        table("role = \"edge\"", EDGE),
        table("role = \"app\"\ntenant = \"one\"", APP),
        table("role = \"app\"\ntenant = \"two\"", OTHER_APP),
        table("role = \"operator\"", OPERATOR),
        table("role = \"viewer\"", VIEWER),
    ]
    .concat()
}

const CALLERS: [Option<&str>; 6] = [None, Some("wrong"), Some(EDGE), Some(APP), Some(OPERATOR), Some(VIEWER)];

/// What each route answers to each of `CALLERS` on the Unix socket.
pub const TABLE: [(&str, &str, [u16; 6]); 40] = [
    ("GET", "/v1/domains", [401, 401, 403, 200, 200, 200]),
    ("HEAD", "/v1/domains", [401, 401, 403, 200, 200, 200]),
    ("GET", "/v1/domains/live.example", [401, 401, 403, 200, 200, 200]),
    ("PUT", "/v1/domains/live.example", [401, 401, 403, 200, 200, 403]),
    ("POST", "/v1/domains/live.example:check", [401, 401, 403, 200, 200, 403]),
    ("DELETE", "/v1/domains/live.example:check", [401, 401, 403, 405, 405, 403]),
    ("GET", "/v1/domains/live.example/certificate", [401, 401, 403, 200, 200, 200]),
    ("PUT", "/v1/domains/live.example/certificate", [401, 401, 403, 400, 400, 403]),
    ("DELETE", "/v1/domains/live.example/certificate", [401, 401, 403, 409, 409, 403]),
    ("POST", "/v1/imports", [401, 401, 403, 415, 415, 403]),
    ("GET", "/v1/imports/none", [401, 401, 403, 404, 404, 404]),
    ("GET", "/v1/bundles/live.example", [401, 401, 200, 403, 403, 403]),
    ("GET", "/v1/challenges/live.example", [401, 401, 404, 403, 403, 403]),
    ("GET", "/v1/challenges/live.example/t", [401, 401, 404, 403, 403, 403]),
    ("GET", "/v1/ticket-keys", [401, 401, 200, 403, 403, 403]),
    ("GET", "/v1/changes", [401, 401, 200, 403, 403, 403]),
    ("GET", "/v1/budgets", [401, 401, 403, 403, 200, 200]),
    ("GET", "/p/live.example/AAAAAAAAAAAAAAAAAAAAAA", [404, 404, 404, 404, 404, 404]),
    ("GET", "/v1/doctor", [401, 401, 403, 403, 200, 403]),
    ("GET", "/v1/webhooks", [401, 401, 403, 403, 200, 200]),
    ("GET", "/v1/events?after=x", [401, 401, 403, 400, 400, 400]),
    ("GET", "/v1/forecast", [401, 401, 403, 403, 200, 200]),
    ("GET", "/v1/audit", [401, 401, 403, 403, 200, 200]),
    ("POST", "/v1/audit", [401, 401, 405, 405, 405, 405]),
    ("POST", "/v1/audit/archive", [401, 401, 403, 403, 400, 403]),
    ("DELETE", "/v1/audit", [401, 401, 405, 405, 405, 405]),
    ("POST", "/v1/domains/live.example:renew", [401, 401, 403, 202, 202, 403]),
    ("GET", "/v1/edges", [401, 401, 403, 403, 200, 200]),
    ("GET", "/v1/keys", [401, 401, 403, 403, 200, 200]),
    ("POST", "/v1/keys", [401, 401, 403, 403, 400, 403]),
    ("DELETE", "/v1/keys/none", [401, 401, 403, 403, 404, 403]),
    ("GET", "/v1/custody", [401, 401, 403, 403, 200, 200]),
    ("GET", "/v1/rewrap?kid=none", [401, 401, 404, 403, 403, 403]),
    ("POST", "/v1/rewrap", [401, 401, 400, 403, 403, 403]),
    ("GET", "/healthz", [200, 401, 403, 403, 200, 200]),
    ("GET", "/readyz", [200, 401, 403, 403, 200, 200]),
    ("GET", "/metrics", [200, 401, 403, 403, 200, 200]),
    ("GET", "/v2/anything", [401, 401, 404, 404, 404, 404]),
    ("DELETE", "/v1/bundles/live.example", [401, 401, 405, 405, 405, 405]),
    ("DELETE", "/v1/domains/live.example", [401, 401, 403, 204, 404, 403]),
];

#[test]
fn each_role_may_do_its_own_and_nothing_else() {
    let service = CertService::started(&format!("{INTERNAL}{}", tokens()));
    assert_eq!(service.call("PUT", "/v1/domains/live.example", Some(APP), "").status, 201);
    wait_for("the certificate", || {
        let answer = service.call("GET", "/v1/bundles/live.example", Some(EDGE), "");
        (answer.status == 200).then_some(())
    });
    wait_for("the first session ticket keys", || {
        (service.call("GET", "/v1/ticket-keys", Some(EDGE), "").status == 200).then_some(())
    });
    for (method, path, expected) in TABLE {
        for (caller, expected) in CALLERS.iter().zip(expected) {
            let answer = service.call(method, path, *caller, "");
            assert_eq!(answer.status, expected, "{method} {path} by {caller:?}: {answer:?}");
            if answer.status >= 400 && method != "HEAD" {
                assert_eq!(answer.header("content-type"), Some("application/problem+json"));
                assert_eq!(answer.json()["status"], expected);
            }
        }
    }
}

#[test]
fn tenants_do_not_see_each_other() {
    let service = CertService::started(&format!("{INTERNAL}{}", tokens()));
    assert_eq!(service.call("PUT", "/v1/domains/one.example", Some(APP), "").status, 201);
    let theirs = service.call("GET", "/v1/domains/one.example", Some(OTHER_APP), "");
    let none = service.call("GET", "/v1/domains/none.example", Some(OTHER_APP), "");
    assert_eq!((theirs.status, none.status), (404, 404));
    assert_eq!(theirs.json()["code"], none.json()["code"]);
    assert_eq!(service.call("PUT", "/v1/domains/one.example", Some(OTHER_APP), "").json()["code"], "domain_taken");
    let removed = service.call("DELETE", "/v1/domains/one.example", Some(OTHER_APP), "");
    assert_eq!((removed.status, removed.json()["code"].as_str()), (404, Some("unknown_domain")));
    assert_eq!(service.call("GET", "/v1/domains/one.example", Some(APP), "").status, 200);
    let page = service.call("GET", "/v1/domains", Some(OTHER_APP), "").json();
    assert_eq!(page["domains"].as_array().unwrap().len(), 0);
    let stolen = service.call("PUT", "/v1/domains/one.example", Some(OPERATOR), r#"{"tenant": "two"}"#);
    assert_eq!((stolen.status, stolen.json()["code"].as_str()), (409, Some("domain_taken")));
    let body = r#"{"tenant": "one"}"#;
    assert_eq!(service.call("PUT", "/v1/domains/x.example", Some(OTHER_APP), body).status, 403);
    assert_eq!(service.call("PUT", "/v1/domains/x.example", Some(OPERATOR), body).status, 201);
    let seen = service.call("GET", "/v1/domains/x.example", Some(APP), "").json();
    assert_eq!(seen["tenant"], "one");
    assert_eq!(service.call("DELETE", "/v1/domains/x.example", Some(OPERATOR), "").status, 204);
}

#[test]
fn bad_input_is_refused_with_a_reason() {
    let service = CertService::started(INTERNAL);
    let limit = format!("{{\"tenant\": \"t\"{}}}", " ".repeat(4096 - 15));
    assert_eq!(limit.len(), 4096);
    for (method, path, body, status, code) in [
        ("PUT", "/v1/domains/not_a_name", "", 400, "invalid_name"),
        ("PUT", "/v1/domains/localhost", "", 400, "invalid_name"),
        ("PUT", "/v1/domains/127.0.0.1", "", 400, "invalid_name"),
        ("PUT", "/v1/domains/a.example%2Fb", "", 400, "invalid_name"),
        ("PUT", "/v1/domains/co.uk", "", 400, "public_suffix"),
        ("PUT", "/v1/domains/github.io", "", 400, "public_suffix"),
        ("PUT", "/v1/domains/a.example", "{", 400, "invalid_body"),
        ("PUT", "/v1/domains/a.example", r#"{"tenat": "x"}"#, 400, "invalid_body"),
        ("PUT", "/v1/domains/a.example", r#"["x", "internal"]"#, 400, "invalid_body"),
        ("PUT", "/v1/domains/a.example", r#"{"tenant": ""}"#, 400, "invalid_tenant"),
        ("PUT", "/v1/domains/a.example", r#"{"tenant": "a b"}"#, 400, "invalid_tenant"),
        ("PUT", "/v1/domains/a.example", r#"{"issuer": "none"}"#, 400, "unknown_issuer"),
        ("PUT", "/v1/domains/a.example", &format!("{limit} "), 413, "body_too_large"),
        ("GET", "/v1/domains?limit=0", "", 400, "invalid_limit"),
        ("GET", "/v1/domains?limit=1001", "", 400, "invalid_limit"),
        ("GET", "/v1/domains?after=-", "", 400, "invalid_name"),
        ("GET", "/v1/domains?state=dead", "", 400, "invalid_state"),
        ("GET", "/v1/domains?expires_before=soon", "", 400, "invalid_expires_before"),
        ("GET", "/v1/domains?expires_before=7&after=a.example", "", 400, "invalid_after"),
        ("GET", "/v1/domains?stat=live", "", 400, "invalid_query"),
        ("GET", "/v1/challenges/a.example/..", "", 404, "unknown_challenge"),
    ] {
        let answer = service.call(method, path, None, body);
        assert_eq!((answer.status, answer.json()["code"].as_str()), (status, Some(code)), "{method} {path} {body}");
        assert!(answer.json()["detail"].as_str().unwrap().len() > 10);
    }
    assert_eq!(service.put("a.example", &limit).status, 201);
    assert_eq!(service.put("xn--bcher-kva.example", "").status, 201);
    assert_eq!(service.put("b%C3%BCcher.example", "").status, 200);
    assert!(service.get("/metrics").text().contains(r#"route="/v1/domains/{name}",status="413"} 1"#));
}

#[test]
fn a_connection_that_does_not_ask_is_closed() {
    let service = CertService::started(INTERNAL);
    let shapes: [&[u8]; 5] = [
        b"",
        b"GET /healthz HTTP/1.1\r\nHo",
        b"GET /healthz HTTP/1.1\r\nHost: certservice\r\n\r\n",
        b"PUT /v1/domains/a.example HTTP/1.1\r\nHost: certservice\r\nContent-Length: 10\r\n\r\n{",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ];
    let open = shapes.map(|shape| {
        let mut stream = UnixStream::connect(service.path("cs.sock")).unwrap();
        stream.write_all(shape).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    });
    for (mut stream, shape) in open.into_iter().zip(shapes) {
        let end = stream.read_to_end(&mut Vec::new()).map_err(|error| error.kind());
        // A reset is an end, too; a time-out is not.
        let open = end == Err(ErrorKind::WouldBlock);
        assert!(!open, "still open: {:?}", String::from_utf8_lossy(shape));
    }
    assert_eq!(service.get("/healthz").status, 200);
}

#[test]
fn tcp_takes_tokens_and_tls_works() {
    let mut service = CertService::new("");
    let key = openssl::rsa::Rsa::generate(2048).unwrap();
    service.write_secret("tls.key", key.private_key_to_pem().unwrap());
    let key = openssl::pkey::PKey::from_rsa(key).unwrap();
    std::fs::write(service.path("tls.pem"), self_signed(&key).to_pem().unwrap()).unwrap();
    let port = free_port();
    let tls = "tls = { certificate_file = \"tls.pem\", key_file = \"tls.key\" }";
    service.configure(&format!("[listen]\naddress = \"0.0.0.0:{port}\"\n{tls}\n"), &format!("{INTERNAL}{}", tokens()));
    service.spawn();
    let mut connector = SslConnector::builder(SslMethod::tls()).unwrap();
    connector.set_verify(SslVerifyMode::NONE);
    let connector = connector.build();
    let call = |path: &str, token| {
        let tcp = wait_for("the port", || TcpStream::connect(("127.0.0.1", port)).ok());
        exchange(connector.connect("certservice", tcp).unwrap(), "GET", path, token, b"")
    };
    assert_eq!(call("/healthz", None).status, 401);
    assert_eq!(call("/healthz", Some(OPERATOR)).status, 200);
    assert_eq!(call("/v1/domains", Some(APP)).status, 200);
    // Somebody who says nothing holds up nobody.
    let _silent: Vec<_> = (0..20).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    assert_eq!(call("/readyz", Some(OPERATOR)).status, 200);
}

fn self_signed(key: &openssl::pkey::PKey<openssl::pkey::Private>) -> openssl::x509::X509 {
    let mut certificate = openssl::x509::X509Builder::new().unwrap();
    certificate.set_version(2).unwrap();
    certificate.set_pubkey(key).unwrap();
    certificate.set_not_before(&openssl::asn1::Asn1Time::days_from_now(0).unwrap()).unwrap();
    certificate.set_not_after(&openssl::asn1::Asn1Time::days_from_now(1).unwrap()).unwrap();
    certificate.sign(key, openssl::hash::MessageDigest::sha256()).unwrap();
    certificate.build()
}

#[test]
fn the_journal_names_who_changed_what_and_tells_when_it_was_touched() {
    let mut service = CertService::started(&format!("{INTERNAL}{}", tokens()));
    assert_eq!(service.call("PUT", "/v1/domains/a.example", Some(APP), "").status, 201);
    assert_eq!(service.call("PUT", "/v1/domains/b.example", Some(OPERATOR), "").status, 201);
    assert_eq!(service.call("PUT", "/v1/domains/c.example", Some(VIEWER), "").status, 403);
    assert_eq!(service.call("DELETE", "/v1/domains/b.example", Some(OPERATOR), "").status, 204);
    let page = |service: &CertService| -> contract::journal::Page {
        serde_json::from_slice(&service.call("GET", "/v1/audit", Some(VIEWER), "").body).unwrap()
    };
    let issued = |page: &contract::journal::Page| page.entries.iter().any(|e| e.action == "certificate.issued");
    let page_then = wait_for("the certificate", || Some(page(&service)).filter(issued));
    let hash = contract::bundle::sha256(APP.as_bytes());
    let app: String = hash[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    let of = |action: &str, name: &str| {
        let mut found = page_then.entries.iter().filter(|entry| entry.action == action && entry.name == name);
        found.next().unwrap_or_else(|| panic!("{action} of {name}")).actor.clone()
    };
    assert_eq!(of("domain.registered", "a.example"), format!("app/one:{app}"));
    assert!(of("domain.removed", "b.example").starts_with("operator:"));
    assert_eq!(of("certificate.issued", "a.example"), "certservice");
    let text = format!("{page_then:?}");
    assert!([APP, OPERATOR, VIEWER].iter().all(|token| !text.contains(token)), "a token stands in the journal");
    // Somebody who can write to the database, and does.
    service.kill();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(service.path("data/certservice.db"));
    runtime.block_on(async {
        let mut connection = <sqlx::SqliteConnection as sqlx::Connection>::connect_with(&options).await.unwrap();
        let lie = "UPDATE journal SET actor = 'nobody' WHERE action = 'domain.removed'";
        assert_eq!(sqlx::query(lie).execute(&mut connection).await.unwrap().rows_affected(), 1);
    });
    service.start();
    let mut head = contract::journal::Head::default();
    let broken = page(&service).entries.iter().find_map(|entry| head.follow(entry).err());
    assert!(matches!(broken, Some(contract::journal::Broken::Changed(_))), "{broken:?}");
}

#[test]
fn a_page_shows_a_domain_to_whoever_has_its_link() {
    let service = CertService::started(&format!("{INTERNAL}{}", tokens()));
    assert_eq!(service.call("PUT", "/v1/domains/shop.example", Some(APP), "").status, 201);
    let domain = || service.call("GET", "/v1/domains/shop.example", Some(APP), "").json();
    wait_for("the certificate", || (domain()["code"] == "issued").then_some(()));
    let link = domain()["page"].as_str().unwrap().to_owned();
    let page = service.call("GET", &link, None, "");
    assert_eq!(page.status, 200, "{}", page.text());
    assert!(page.text().contains("<h1>shop.example</h1>") && page.text().contains("served with a certificate"));
    assert!(!page.text().contains("script") && !page.text().contains("tenant"));
    assert_eq!(service.call("GET", &link.replace("shop.example", "other.example"), None, "").status, 404);
    assert_eq!(service.call("POST", &link, None, "").status, 401);
    assert_eq!(service.call("DELETE", "/v1/domains/shop.example", Some(APP), "").status, 204);
    assert_eq!(service.call("GET", &link, None, "").status, 404);
}

#[test]
fn names_of_one_registered_domain_are_bounded_and_www_comes_along_where_it_is_wanted() {
    let settings = format!("{INTERNAL}[domains]\nnames_per_registered_domain_max = 3\nwww = true\n");
    let service = CertService::started(&settings);
    assert_eq!(service.put("shop.example", "").status, 201);
    service.wait_live("www.shop.example");
    assert_eq!(service.put("a.shop.example", "").status, 201);
    let refused = service.put("b.shop.example", "");
    assert_eq!((refused.status, refused.json()["code"].as_str()), (409, Some("too_many_names")));
    let says = refused.json()["detail"].as_str().unwrap().to_owned();
    assert!(says.contains("shop.example has 3 names") && says.contains("names_per_registered_domain_max"), "{says}");
    assert_eq!(service.put("www.other.example", r#"{"www": false}"#).status, 201);
    assert_eq!(service.get("/v1/domains/other.example").status, 404);
    assert_eq!(service.put("b.shop.example", r#"{"tenant": "a b"}"#).json()["code"], "invalid_tenant");
}

#[test]
fn a_client_may_insist_on_a_new_domain() {
    let service = CertService::started(INTERNAL);
    let put = |value: &str| {
        let stream = UnixStream::connect(service.path("cs.sock")).unwrap();
        let header = format!("If-None-Match: {value}\r\n");
        crate::http::exchange_with(stream, "PUT", "/v1/domains/shop.example", &header, b"")
    };
    assert_eq!(put("*").status, 201);
    let again = put("*");
    assert_eq!((again.status, again.json()["code"].as_str()), (412, Some("domain_exists")));
    assert_eq!(put("\"etag\"").json()["code"], "invalid_header");
    assert_eq!(service.put("shop.example", "").status, 200);
}

#[test]
fn domains_are_listed_by_state_and_by_their_end() {
    let settings = format!("{INTERNAL}[[issuers]]\nname = \"short\"\nkind = \"internal\"\nvalidity_days = 2\n");
    let service = CertService::started(&settings);
    for name in ["b.example", "a.example", "c.example"] {
        assert_eq!(service.put(name, r#"{"issuer": "short"}"#).status, 201);
        service.wait_live(name);
    }
    assert_eq!(service.put("long.example", r#"{"tenant": "other"}"#).status, 201);
    service.wait_live("long.example");
    let list = |query: &str| {
        let page = service.get(&format!("/v1/domains?{query}")).json();
        let names = page["domains"].as_array().unwrap().iter().map(|d| d["name"].as_str().unwrap().to_owned());
        (names.collect::<Vec<_>>(), page["next"].as_str().map(str::to_owned))
    };
    assert_eq!(list("state=live").0.len(), 4);
    assert_eq!(list("state=blocked").0, [""; 0]);
    assert_eq!(list("state=live&tenant=other").0, ["long.example"]);
    let soon = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() + 3 * 86_400;
    let (first, next) = list(&format!("expires_before={soon}&limit=2"));
    let (rest, end) = list(&format!("expires_before={soon}&limit=2&after={}", next.unwrap()));
    let mut all = [first, rest].concat();
    all.sort();
    assert_eq!((all, end), (["a.example", "b.example", "c.example"].map(str::to_owned).to_vec(), None));
}
