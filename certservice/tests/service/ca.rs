//! CAs in trouble: what no test CA does by itself.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;

use contract::api::{State, Who};
use openssl::ssl::{SslAcceptor, SslFiletype, SslMethod};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

use crate::process::{CertService, INTERNAL};

/// A root, and the certificate of a CA's own HTTPS under it.
pub fn write_certificates(folder: &Path) {
    let root_key = KeyPair::generate().unwrap();
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    std::fs::write(folder.join("ca-root.pem"), root.self_signed(&root_key).unwrap().pem()).unwrap();
    let root = rcgen::Issuer::new(root, root_key);
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("ca-server.pem"), server.signed_by(&key, &root).unwrap().pem()).unwrap();
    std::fs::write(folder.join("ca-server.key"), key.serialize_pem()).unwrap();
}

/// A CA that opens accounts and answers each new order with `order`; without one it never answers at all.
/// Gives back its settings as an issuer of this name.
fn troubled(folder: &Path, name: &str, order: Option<&'static str>) -> String {
    let mut tls = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).unwrap();
    tls.set_private_key_file(folder.join("ca-server.key"), SslFiletype::PEM).unwrap();
    tls.set_certificate_chain_file(folder.join("ca-server.pem")).unwrap();
    let tls = Arc::new(tls.build());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("https://{}", listener.local_addr().unwrap());
    let issuer = format!(
        "[[issuers]]\nname = \"{name}\"\nkind = \"acme\"\ndirectory = \"{base}/dir\"\nroot_file = \"ca-root.pem\"\n\
         precheck = false\n"
    );
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (tls, base) = (tls.clone(), base.clone());
            std::thread::spawn(move || {
                let Ok(stream) = tls.accept(stream.unwrap()) else { return };
                let mut stream = BufReader::new(stream);
                while let Some(path) = read_request(&mut stream) {
                    let Some(answer) = answer(&path, &base, order) else {
                        // Silent until the caller gives up.
                        let _ = stream.read_to_end(&mut Vec::new());
                        break;
                    };
                    stream.get_mut().write_all(answer.as_bytes()).unwrap();
                }
            });
        }
    });
    issuer
}

fn read_request(stream: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    stream.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut length = 0;
    loop {
        let mut header = String::new();
        stream.read_line(&mut header).ok()?;
        if header.trim().is_empty() {
            break;
        }
        if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    stream.read_exact(&mut vec![0; length]).ok()?;
    Some(path)
}

fn answer(path: &str, base: &str, order: Option<&'static str>) -> Option<String> {
    let order = order?;
    let directory = format!(
        r#"{{"newNonce": "{base}/nonce", "newAccount": "{base}/account", "newOrder": "{base}/order", "meta": {{}}}}"#
    );
    Some(match path {
        "/dir" => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{directory}", directory.len()),
        "/account" => {
            let head = format!("HTTP/1.1 201 Created\r\nReplay-Nonce: n\r\nLocation: {base}/account/1\r\n");
            head + "Content-Length: 2\r\n\r\n{}"
        }
        "/order" => order.to_owned(),
        _ => "HTTP/1.1 200 OK\r\nReplay-Nonce: n\r\nContent-Length: 0\r\n\r\n".to_owned(),
    })
}

const LIMITED: &str = "HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/problem+json\r\nRetry-After: 7200\r\n\
    Content-Length: 89\r\n\r\n{\"type\": \"urn:ietf:params:acme:error:rateLimited\", \"detail\": \"too many orders this week\"}";
const DOWN: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/html\r\nRetry-After: 1800\r\n\
    Content-Length: 20\r\n\r\n<h1>maintenance</h1>";

#[test]
fn a_ca_that_asks_for_a_pause_gets_it_and_is_quoted() {
    let mut service = CertService::new("");
    let folder = service.folder.path();
    write_certificates(folder);
    let settings =
        [INTERNAL.to_owned(), troubled(folder, "limited", Some(LIMITED)), troubled(folder, "down", Some(DOWN))];
    service.configure("[listen]\naddress = \"unix:cs.sock\"\n", &settings.concat());
    service.start();
    assert_eq!(service.put("limited.example", r#"{"issuer": "limited"}"#).status, 201);
    let domain = service.wait("limited.example", |domain| !matches!(&*domain.code, "queued" | "ordering"));
    assert_eq!((domain.state, domain.code.as_str(), domain.who), (State::Working, "rate_limited", Who::Nobody));
    assert_eq!(domain.says, "too many orders this week");
    assert!((7200..7260).contains(&(domain.next_check_at.unwrap() - domain.created_at)), "{domain:?}");

    assert_eq!(service.put("down.example", r#"{"issuer": "down"}"#).status, 201);
    let domain = service.wait("down.example", |domain| !matches!(&*domain.code, "queued" | "ordering"));
    let expected = (State::Working, "ca_unavailable", Who::CertificateAuthority);
    assert_eq!((domain.state, domain.code.as_str(), domain.who), expected);
    assert!(domain.says.contains("HTTP 503"), "{domain:?}");
    assert!((1800..1860).contains(&(domain.next_check_at.unwrap() - domain.created_at)), "{domain:?}");
}

#[test]
fn a_ca_that_hangs_holds_up_nobody_and_is_given_up() {
    let mut service = CertService::new("");
    let folder = service.folder.path();
    write_certificates(folder);
    let settings = [INTERNAL.to_owned(), troubled(folder, "silent", None), "[issuance]\nconcurrency = 2\n".to_owned()];
    service.configure("[listen]\naddress = \"unix:cs.sock\"\n", &settings.concat());
    service.start();
    assert_eq!(service.put("silent.example", r#"{"issuer": "silent"}"#).status, 201);
    for n in 0..10 {
        assert_eq!(service.put(&format!("n{n}.example"), "").status, 201);
    }
    for n in 0..10 {
        service.wait_live(&format!("n{n}.example"));
    }
    assert_eq!(service.domain("silent.example").code, "ordering");
    let domain = service.wait("silent.example", |domain| !matches!(&*domain.code, "queued" | "ordering"));
    assert!(domain.code == "ca_unavailable" && domain.says.contains("no answer within 30 s"), "{domain:?}");
}
