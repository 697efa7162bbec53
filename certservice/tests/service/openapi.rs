//! The OpenAPI document: as it is checked in, as the roles are, and as the running server answers.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::access::{APP, EDGE, OPERATOR, TABLE, VIEWER, tokens};
use crate::http::exchange;
use crate::process::{CertService, INTERNAL, free_port, wait_for};

/// Both runs of Schemathesis together, in seconds.
const OPERATOR_SECONDS: &str = "20";
const EDGE_SECONDS: &str = "10";

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn printed() -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_latchkey-certservice")).arg("openapi").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().unwrap();
    let of_path = |(path, methods): (&String, &Value)| {
        let methods = methods.as_object().unwrap().clone().into_iter();
        let path = path.clone();
        methods.map(move |(method, operation)| (method.to_uppercase(), path.clone(), operation)).collect::<Vec<_>>()
    };
    paths.iter().flat_map(of_path).collect()
}

#[test]
fn the_document_that_is_checked_in_is_the_one_that_the_code_makes() {
    let checked_in = std::fs::read_to_string(repository().join("docs/openapi-certservice.json")).unwrap();
    let says = "write it anew: latchkey-certservice openapi > docs/openapi-certservice.json";
    assert!(printed() == checked_in, "{says}");
}

#[test]
fn the_document_and_the_table_of_roles_say_the_same() {
    let document: Value = serde_json::from_str(&printed()).unwrap();
    let operations = operations(&document);
    for (method, path, operation) in &operations {
        let fits = |tried: &str| {
            let tried = tried.split('?').next().unwrap();
            let (path, tried): (Vec<_>, Vec<_>) = (path.split('/').collect(), tried.split('/').collect());
            let part = |(path, tried): (&&str, &&str)| match path.split_once('}') {
                Some((_, verb)) => tried.ends_with(verb) && (!verb.is_empty() || !tried.contains(':')),
                None => path == tried,
            };
            path.len() == tried.len() && path.iter().zip(&tried).all(part)
        };
        let row = TABLE.iter().find(|(tried_method, tried, _)| tried_method == method && fits(tried));
        // Taking a certificate back is the last thing that a table could do.
        let Some((_, tried, expected)) = row else {
            assert!(path.ends_with(":revoke"), "the table of roles does not try {method} {path}");
            continue;
        };
        let roles = operation["x-roles"].as_array().cloned().unwrap_or_default();
        for (at, role) in ["edge", "app", "operator", "viewer"].into_iter().enumerate() {
            let allowed = operation["x-roles"].is_null() || roles.iter().any(|known| known == role);
            assert_eq!(expected[at + 2] != 403, allowed, "{method} {tried} by {role}; the document says {roles:?}");
        }
    }
    // And nothing is answered that is not in it.
    for (method, tried, expected) in TABLE.iter().filter(|(method, ..)| *method != "HEAD") {
        let answered = expected.iter().any(|status| (200..300).contains(status));
        let known = operations.iter().any(|(known, path, _)| {
            let head = path.split('{').next().unwrap();
            known == method && tried.starts_with(head) && (path.contains('{') || tried.split('?').next() == Some(path))
        });
        assert!(known || !answered, "{method} {tried} is answered and not documented");
    }
}

/// Schemathesis makes up requests from the document, good and bad ones, and checks each answer against it.
#[test]
fn the_running_server_answers_as_the_document_says() {
    let mut service = CertService::new("");
    let address = format!("127.0.0.1:{}", free_port());
    service.configure(&format!("[listen]\naddress = \"{address}\"\n"), &format!("{INTERNAL}{}", tokens()));
    service.spawn();
    wait_for("the API", || TcpStream::connect(&address).ok());
    let put = exchange(TcpStream::connect(&address).unwrap(), "PUT", "/v1/domains/shop.example", Some(APP), b"");
    assert_eq!(put.status, 201, "{put:?}");
    let edges = "^/v1/(bundles|challenges|ticket-keys|changes|rewrap)";
    let run = |token: &str, seconds: &str, choice: &[&str]| {
        let home = PathBuf::from(std::env::var_os("HOME").unwrap());
        let mut command = Command::new(home.join(".cache/latchkey/venv/bin/st"));
        command.arg("--config-file").arg(repository().join("tests/schemathesis.toml"));
        command.args(["--no-color", "run"]).arg(repository().join("docs/openapi-certservice.json"));
        command.args(["--url", &format!("http://{address}"), "--header", &format!("Authorization: Bearer {token}")]);
        command.args(["--seed", "1", "--max-time", seconds, "--request-timeout", "30", "--continue-on-failure"]);
        // The database of examples belongs to this run.
        let output = command.args(choice).current_dir(service.folder.path()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        let line = text.lines().find(|line| line.contains(" generated, ")).expect("a count of requests");
        let count: u32 = line.trim().split(' ').next().unwrap().parse().unwrap();
        assert!(count > 100, "only {line}");
    };
    // Events have no end: they are tried in events.rs.
    run(OPERATOR, OPERATOR_SECONDS, &["--exclude-path-regex", edges, "--exclude-path", "/v1/events"]);
    run(EDGE, EDGE_SECONDS, &["--include-path-regex", edges]);
    let seen = exchange(TcpStream::connect(&address).unwrap(), "GET", "/healthz", Some(VIEWER), b"");
    assert_eq!(seen.status, 200, "{}", service.log());
}
