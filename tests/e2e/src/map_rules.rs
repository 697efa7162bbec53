//! The map's rules (README.md, "The map"): which words may stand in which room. So the map can't drift from the code.

use std::path::{Path, PathBuf};

use crate::world::repository;

const LINES_MAX: usize = 400;
const MEMBERS: [&str; 5] =
    ["proxy/src", "certservice/src", "certservice/contract/src", "certservice/door/src", "cli/src"];

/// A third-party name, and the only places that may use it.
const ONLY_IN: [(&str, &[&str]); 13] = [
    (
        "pingora",
        &[
            "proxy/src/accept/",
            "proxy/src/tls/",
            "proxy/src/guard/",
            "proxy/src/http/",
            "proxy/src/upstream/",
            "proxy/src/control/",
            "proxy/src/connection.rs",
            "proxy/src/serve.rs",
            "proxy/src/life.rs",
            "proxy/src/main.rs",
        ],
    ),
    ("wasmtime", &["proxy/src/wasm/"]),
    (
        "openssl::",
        &[
            "proxy/src/tls/",
            "certservice/contract/src/sealed/",
            "certservice/contract/src/signed.rs",
            "certservice/contract/src/rsa_key.rs",
        ],
    ),
    ("instant_acme", &["certservice/src/issue/"]),
    ("rcgen", &["certservice/src/issue/", "cli/src/pki/"]),
    ("hickory_resolver", &["certservice/src/precheck/", "certservice/src/dns/"]),
    ("sqlx", &["certservice/src/store/"]),
    ("redis::", &["proxy/src/supply/redis.rs", "certservice/src/notify/"]),
    ("rsa::", &["certservice/contract/src/sealed/"]),
    ("nix::", &["proxy/src/upstream/awaited.rs", "proxy/src/upstream/introduction.rs"]),
    ("Component::deserialize", &["proxy/src/wasm/precompiled.rs"]),
    ("aes_gcm", &["certservice/contract/src/sealed/"]),
    ("cryptoki", &["proxy/src/token/"]),
];

/// A room, what it must never name, and why.
const NEVER: &[(&str, &[&str], &str)] = &[
    ("proxy/src/accept/", &["Hostname", "http::", "HeaderMap"], "it knows no host names and no HTTP"),
    ("proxy/src/tls/", &["reqwest", "std::fs", "tokio::fs", "TcpStream", "block_on"], "it does not block"),
    ("proxy/src/guard/", &["Hostname", "Supply", "block_on"], "it knows no host names and asks nobody"),
    ("proxy/src/tls/table.rs", &["Supply", "await"], "the hot path waits for nobody"),
    ("proxy/src/tls/handshake.rs", &["Supply"], "only `miss` reaches the network"),
    (
        "proxy/src/http/",
        &["wasmtime", "reqwest", "std::fs", "tokio::fs", "TcpStream", "block_on"],
        "it does no I/O of its own",
    ),
    ("proxy/src/wasm/", &["pingora", "Session", "reqwest"], "it knows nothing of Pingora"),
    ("proxy/src/handover/", &["kill_process", "Hostname", "http::"], "it ends only what it started, and knows no HTTP"),
    (
        "proxy/src/workshop/",
        &["TcpListener", "UnixListener", "wasmtime", "reqwest"],
        "it serves nobody, and runs guests by `wasm` only",
    ),
    ("proxy/src/", &["certservice::issue", "sqlx", "rcgen"], "proxy and CertService do not depend on each other"),
    (
        "certservice/src/",
        &["latchkey_proxy", "pingora", "wasmtime", "openssl"],
        "the same, and it can't open what it seals",
    ),
    (
        "certservice/contract/src/",
        &[
            "tokio",
            "pingora",
            "instant_acme",
            "sqlx",
            "reqwest",
            "tracing",
            "println",
            "std::fs",
            "std::net::Tcp",
            "thread",
        ],
        "it does no I/O, spawns nothing and logs nothing",
    ),
    (
        "certservice/door/src/",
        &["/v1/", "Operator", "Viewer", "sqlx", "wasmtime", "pingora", "reqwest"],
        "it knows no route and no role",
    ),
    ("certservice/src/issue/", &["crate::store", "sqlx", "Store"], "it does not write to the store"),
    (
        "certservice/src/precheck/",
        &["crate::issue", "instant_acme", "crate::store", "sqlx", "Notify"],
        "it asks no CA and writes nothing",
    ),
    (
        "certservice/src/dns/",
        &["crate::store", "instant_acme", "sqlx", "Notify"],
        "it changes TXT records and nothing else",
    ),
    ("certservice/src/intake/", &["crate::issue", "instant_acme", "sqlx", "reqwest"], "it asks no CA"),
    ("certservice/src/budget/", &["crate::issue", "crate::store", "sqlx", "await"], "it only reckons"),
    ("certservice/src/keys/", &["crate::issue", "sqlx", "std::fs", "EdgeKey"], "it opens nothing"),
    ("proxy/src/rewrap/", &["TcpListener", "UnixListener", "pingora", "openssl::"], "it serves nobody"),
    ("certservice/src/seal/", &["std::fs", "tracing", "crate::store", "static"], "it keeps no plaintext"),
    (
        "certservice/src/store/",
        &["crate::issue", "crate::seal", "instant_acme", "rcgen", "PrivateKey"],
        "it sees no plaintext keys",
    ),
    ("certservice/src/doctor/", &["crate::issue", "crate::seal", "crate::order", "sqlx"], "it only looks"),
    ("certservice/src/webhooks/", &["crate::issue", "crate::seal", "crate::order", "sqlx"], "it only tells"),
    ("certservice/src/renew/", &["crate::issue", "crate::seal", "instant_acme"], "it only creates orders"),
    ("certservice/src/tickets/", &["Zeroizing", "ring::", "seal_ticket_key", "sqlx"], "it sees no secret"),
    ("certservice/src/notify/", &["crate::issue", "sqlx"], "it is a hint, not a step"),
];

#[test]
fn third_party_names_stand_only_in_their_rooms() {
    let mut broken = Vec::new();
    for (file, code) in production_code() {
        for (word, places) in ONLY_IN {
            let allowed = places.iter().any(|place| file.starts_with(place));
            broken.extend(lines_with(&code, word).filter(|_| !allowed).map(|line| format!("{file}:{line}: {word}")));
        }
    }
    assert!(broken.is_empty(), "names outside their rooms:\n{}", broken.join("\n"));
}

#[test]
fn no_room_does_what_it_must_never_do() {
    let mut broken = Vec::new();
    for (file, code) in production_code() {
        for (room, words, why) in NEVER.iter().filter(|(room, ..)| file.starts_with(room)) {
            for word in *words {
                broken.extend(lines_with(&code, word).map(|line| format!("{file}:{line}: `{word}` in {room}: {why}")));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_room_of_the_tables_exists() {
    let rooms = ONLY_IN.iter().flat_map(|(_, places)| places.iter()).chain(NEVER.iter().map(|(room, ..)| room));
    for room in rooms {
        assert!(repository().join(room).exists(), "{room} is gone: mend the table and the README's map");
    }
}

#[test]
fn proxy_and_certservice_do_not_depend_on_each_other() {
    for (member, other) in [("proxy", "certservice"), ("certservice", "proxy")] {
        let manifest = std::fs::read_to_string(repository().join(member).join("Cargo.toml")).unwrap();
        let depends = manifest.lines().any(|line| line.split(['.', ' ', '=']).next() == Some(other));
        assert!(!depends, "{member}/Cargo.toml names {other}");
        assert!(manifest.lines().any(|line| line.starts_with("contract")), "both use the contract");
    }
}

#[test]
fn unsafe_code_has_two_places() {
    let allows = |code: &str| code.contains("allow(unsafe_code)");
    let mut places: Vec<_> =
        production_code().into_iter().filter(|(_, code)| allows(code)).map(|(file, _)| file).collect();
    places.sort();
    assert_eq!(places, ["proxy/src/tls/ffi.rs", "proxy/src/wasm/precompiled.rs"]);
}

#[test]
fn files_can_be_read_at_one_sitting() {
    let mut files = Vec::new();
    for member in MEMBERS.iter().chain(&["tests", "plugins"]) {
        rust_files(&repository().join(member), &mut files);
    }
    let lines = |file: &PathBuf| std::fs::read_to_string(file).unwrap().lines().count();
    let long: Vec<_> = files.iter().map(|file| (lines(file), file)).filter(|(lines, _)| *lines > LINES_MAX).collect();
    assert!(long.is_empty(), "over {LINES_MAX} lines: {long:#?}");
    assert!(files.len() > 50, "the scan finds the sources");
}

#[test]
fn the_readme_names_every_room() {
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let map = readme.split("\n## ").find(|section| section.starts_with("The map")).expect("a section `The map`");
    for parent in ["", "proxy/src", "certservice/src"] {
        for folder in folders(&repository().join(parent)) {
            assert!(map.contains(&format!("{folder}/")), "the README's map does not name {parent}/{folder}/");
        }
    }
}

#[test]
fn the_docs_name_every_setting() {
    for (source, doc) in [
        ("proxy/src/config/file.rs", "docs/proxy.md"),
        ("proxy/src/config/edge.rs", "docs/proxy.md"),
        ("proxy/src/config/admin.rs", "docs/proxy.md"),
        ("certservice/src/config/file.rs", "docs/certservice.md"),
        ("certservice/src/config/file_orders.rs", "docs/certservice.md"),
        ("proxy/src/control/document.rs", "docs/admin-api.md"),
        ("proxy/src/workshop/cases.rs", "docs/plugins.md"),
    ] {
        let doc_text = std::fs::read_to_string(repository().join(doc)).unwrap();
        let code = code_of(&std::fs::read_to_string(repository().join(source)).unwrap());
        let fields =
            code.lines().filter_map(|line| line.strip_prefix("    pub ")?.split_once(": ")).map(|(name, _)| name);
        let missing: Vec<_> = fields.clone().filter(|name| lines_with(&doc_text, name).next().is_none()).collect();
        assert!(fields.count() > 5 && missing.is_empty(), "{doc} does not name {missing:?} of {source}");
    }
}

/// Every production source with its path, comments and test modules left out.
fn production_code() -> Vec<(String, String)> {
    let mut files = Vec::new();
    for member in MEMBERS {
        rust_files(&repository().join(member), &mut files);
    }
    let is_test = |path: &str| path.ends_with("tests.rs") || path.contains("/tests/");
    let name = |file: &PathBuf| file.strip_prefix(repository()).unwrap().display().to_string();
    let named = files.iter().map(|file| (name(file), file)).filter(|(name, _)| !is_test(name));
    named.map(|(name, file)| (name, code_of(&std::fs::read_to_string(file).unwrap()))).collect()
}

/// Lines keep their numbers.
fn code_of(text: &str) -> String {
    let production = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let without_comment = |line: &str| match line.find("//") {
        Some(0) => String::new(),
        Some(at) if line[..at].ends_with(char::is_whitespace) => line[..at].to_owned(),
        _ => line.to_owned(),
    };
    production.lines().map(without_comment).collect::<Vec<_>>().join("\n")
}

/// Numbers of the lines in which `word` stands as a word; as a path of its own where it ends with `::`.
fn lines_with<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let in_name = |c: char| c.is_alphanumeric() || c == '_';
    let stands = move |line: &str| {
        line.match_indices(word).any(|(at, _)| {
            let (before, after) = (&line[..at], &line[at + word.len()..]);
            let is_path_of_another = word.ends_with("::") && before.ends_with("::");
            let continues = !word.ends_with("::") && after.starts_with(in_name);
            !before.ends_with(in_name) && !is_path_of_another && !continues
        })
    };
    code.lines().enumerate().filter(move |(_, line)| stands(line)).map(|(index, _)| index + 1)
}

#[test]
fn the_scan_finds_words_and_only_words() {
    let code = code_of(
        "use redis::Client;\n// redis::\nuse self::redis::Redis;\nlet predis = 1;\n#[cfg(test)]\nmod tests {redis::}",
    );
    assert_eq!(lines_with(&code, "redis::").collect::<Vec<_>>(), [1]);
    assert_eq!(lines_with(&code, "redis").collect::<Vec<_>>(), [1, 3]);
    assert_eq!(lines_with("let url = \"http://a\"; // http::", "http").collect::<Vec<_>>(), [1]);
}

fn rust_files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if entry.is_dir() && name != "target" && name != "built" {
            rust_files(&entry, into);
        } else if name.ends_with(".rs") {
            into.push(entry);
        }
    }
}

/// Of what belongs to the project: not built, not hidden.
fn folders(parent: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(parent).unwrap().map(|entry| entry.unwrap());
    let names =
        entries.filter(|entry| entry.path().is_dir()).map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| !name.starts_with('.') && name != "target").collect()
}
