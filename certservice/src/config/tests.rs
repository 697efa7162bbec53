use std::path::PathBuf;

use contract::document::render;

use super::*;

const GOOD: &str = r#"
data_dir = "data"
[listen]
address = "unix:cs.sock"
[edges]
public_keys = ["edge.pub"]
[[issuers]]
name = "internal"
kind = "internal"
"#;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        let key = contract::sealed::EdgeKey::generate(2048).unwrap();
        folder.put("edge.pub", &key.public_pem().unwrap());
        std::fs::create_dir(folder.path("edge")).unwrap();
        folder.put("edge/edge.pem", &key.private_pem().unwrap());
        folder
    }

    fn put(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
        let mode = if name.starts_with("open") { 0o644 } else { 0o600 };
        std::fs::set_permissions(self.path(name), std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn faults(&self, text: &str) -> Vec<String> {
        let faults = Config::parse(text, self.0.path()).unwrap_err();
        render(&faults, "f").lines().map(str::to_owned).collect()
    }
}

#[test]
fn the_smallest_file_has_defaults() {
    let folder = Folder::new();
    let config = Config::parse(GOOD, folder.0.path()).unwrap();
    assert_eq!(config.data_dir, folder.path("data"));
    assert!(matches!(config.listen, Listen::Unix(path) if path == folder.path("cs.sock")));
    assert!(config.store.bundles.is_none());
    assert!(matches!(config.store.store, StoreUrl::Sqlite(path) if path == folder.path("data/certservice.db")));
    assert_eq!((config.edges.len(), config.issuers[0].name.as_str()), (1, "internal"));
    assert!(matches!(config.issuers[0].kind, IssuerKind::Internal { validity_days: 30 }));
    let Issuance { concurrency, retry_seconds_min, retry_seconds_max, rsa, renewals_wait_seconds } = config.issuance;
    assert_eq!((concurrency, retry_seconds_min, retry_seconds_max, rsa), (8, 20, 3600, false));
    assert_eq!((renewals_wait_seconds, config.domains.issuers), (21_600, vec!["internal".to_owned()]));
    assert!(config.redis.is_none() && config.tokens.is_empty());
    assert!(!config.issuers[0].precheck && config.precheck.ports == (80, 443));
}

#[test]
fn who_is_preferred_must_be_known() {
    let folder = Folder::new();
    let faults = |issuers: &str| {
        let faults = Config::parse(&format!("{GOOD}[domains]\nissuers = {issuers}\n"), folder.0.path()).err();
        faults.unwrap_or_default().into_iter().map(|fault| (fault.at, fault.says)).collect::<Vec<_>>()
    };
    assert_eq!(faults(r#"["internal"]"#), []);
    let unknown = faults(r#"["internal", "other", "internal"]"#);
    assert_eq!((unknown[0].0.as_str(), unknown[1].0.as_str()), ("/domains/issuers/1", "/domains/issuers/2"));
    assert!(unknown[0].1.contains("`other`") && unknown[0].1.contains("there are: internal"), "{unknown:?}");
    assert!(unknown[1].1.contains("twice") && faults("[]").len() == 1);
}

#[test]
fn bundles_have_a_database_of_their_own_where_one_is_named() {
    let folder = Folder::new();
    folder.put("bundles.url", "mysql://keys:pass@host/bundles\n");
    let read = |store: &str| Config::parse(&format!("{GOOD}[store]\n{store}\n"), folder.0.path());
    let store = read("bundles = \"sqlite:keys.db\"").unwrap().store;
    assert!(matches!(store.store, StoreUrl::Sqlite(path) if path == folder.path("data/certservice.db")));
    assert!(matches!(store.bundles, Some(StoreUrl::Sqlite(path)) if path == folder.path("keys.db")));
    let store = read("url = \"sqlite:rest.db\"\nbundles_file = \"bundles.url\"").unwrap().store;
    assert!(!format!("{store:?}").contains("pass"), "{store:?}");
    assert!(matches!(store.bundles, Some(StoreUrl::Mysql(url)) if url.reveal() == "mysql://keys:pass@host/bundles"));
    let fault = |store: &str| {
        let faults = read(store).unwrap_err();
        (faults.len(), faults[0].at.clone(), faults[0].says.clone())
    };
    let (count, at, says) = fault("url = \"sqlite:a.db\"\nbundles = \"sqlite://a.db\"");
    assert!((count, at.as_str()) == (1, "/store") && says.contains("another one"), "{says}");
    let (_, _, says) = fault("bundles = \"sqlite:a.db\"\nbundles_file = \"bundles.url\"");
    assert_eq!(says, "give either `bundles` or `bundles_file`");
    let (_, at, says) = fault("bundles = \"postgres://x\"");
    assert_eq!((at.as_str(), says.as_str()), ("/store/bundles", "the URL must start with sqlite: or mysql://"));
}

#[test]
fn a_full_file_is_read() {
    let folder = Folder::new();
    folder.put("db.url", "mysql://user:pass@host/db\n");
    folder.put("hmac", "c2VjcmV0\n");
    folder.put("root.pem", "-----BEGIN CERTIFICATE-----\n");
    let hash = "ab".repeat(32);
    let text = format!(
        r#"
data_dir = "/data"
listen = {{ address = "127.0.0.1:0" }}
tokens = [
    {{ role = "edge", sha256 = "{hash}" }},
    {{ role = "app", tenant = "shop", sha256 = "{hash}" }},
    {{ role = "operator", sha256 = "{hash}" }},
]
store = {{ url_file = "db.url" }}
redis = {{ url = "redis://127.0.0.1/" }}
edges = {{ public_keys = ["edge.pub"] }}
issuance = {{ concurrency = 3, retry_seconds_min = 1, retry_seconds_max = 2, rsa = true }}
[[issuers]]
name = "le"
kind = "acme"
directory = "https://ca.example/dir"
contact = ["mailto:ops@example.com"]
root_file = "root.pem"
eab = {{ kid = "k", hmac_key_file = "hmac" }}
"#
    );
    let config = Config::parse(&text, folder.0.path()).unwrap();
    assert!(matches!(&config.store.store, StoreUrl::Mysql(url) if url.reveal() == "mysql://user:pass@host/db"));
    assert_eq!(config.tokens[1].grant, Grant::App { tenant: "shop".into() });
    assert_eq!(config.tokens[0].sha256, [0xab; 32]);
    let IssuerKind::Acme(acme) = &config.issuers[0].kind else { panic!() };
    assert_eq!(acme.eab.as_ref().unwrap().hmac_key.reveal(), "c2VjcmV0");
    assert!(acme.root.is_some() && config.issuance.rsa);
    let shown = format!("{config:?}");
    assert!(!shown.contains("pass") && !shown.contains("c2VjcmV0"), "{shown}");
}

#[test]
fn all_mistakes_are_shown_at_once_with_their_places() {
    let folder = Folder::new();
    let text =
        GOOD.replace("address =", "adress =").replace("\"internal\"\nkind = \"internal\"", "1\nkind = \"inernal\"");
    assert_eq!(
        folder.faults(&text),
        [
            "f:3:1: setting `address` is missing",
            "f:4:1: unknown setting `adress` (did you mean `address`?)",
            "f:8:8: expected a string, found 1",
            "f:9:8: unknown value `inernal` (did you mean `internal`?)",
        ]
    );
    let text =
        GOOD.replace("\"unix:cs.sock\"", "\"0.0.0.0:1\"").replace("edge.pub", "none.pub") + "directory = \"x\"\n";
    let faults = folder.faults(&text);
    assert_eq!(faults.len(), 4, "{faults:?}");
    assert!(faults[0].starts_with("f:4:11: a TCP address needs [[tokens]]"), "{faults:?}");
    assert!(faults[1].starts_with("f:4:11: 0.0.0.0:1 is not loopback and needs `tls`"), "{faults:?}");
    assert!(faults[2].starts_with("f:6:16: ") && faults[2].contains("none.pub can't be read"), "{faults:?}");
    assert_eq!(faults[3], "f:10:13: only kind `acme` has this setting");
}

#[test]
fn a_private_key_is_refused_by_the_name_of_its_file() {
    let folder = Folder::new();
    let faults = folder.faults(&GOOD.replace("edge.pub", "edge/edge.pem"));
    assert!(faults.len() == 1 && faults[0].contains("edge/edge.pem: this is a private key"), "{faults:?}");
}

#[test]
fn single_mistakes_have_single_faults() {
    let folder = Folder::new();
    folder.put("big", &"x".repeat(FILE_BYTES_MAX as usize + 1));
    let token = |rest: &str| format!("{GOOD}\n[[tokens]]\n{rest}\n");
    let hash = "00".repeat(32);
    for (text, says) in [
        (GOOD.replace("unix:cs.sock", "localhost:1"), "neither unix:/path nor an IP address"),
        (GOOD.replace("\"edge.pub\"", ""), "0 edge keys, 1 to 16"),
        (GOOD.replace("\"edge.pub\"", "\"edge.pub\", \"edge.pub\""), "same key as another"),
        (GOOD.replace("\"edge.pub\"", "\"big\""), "which is the most that is read"),
        (GOOD.replace("\"internal\"\nkind", "\"../x\"\nkind"), "a name is 1 to 64 characters"),
        (format!("{GOOD}validity_days = 0\n"), "1 to 398"),
        (format!("{GOOD}validity_days = 399\n"), "1 to 398"),
        (format!("{GOOD}[[issuers]]\nname = \"internal\"\nkind = \"internal\"\n"), "stands twice"),
        (format!("{GOOD}[[issuers]]\nname = \"a\"\nkind = \"acme\"\n"), "needs `directory`"),
        (
            format!("{GOOD}[[issuers]]\nname = \"a\"\nkind = \"acme\"\ndirectory = \"http://x\"\n"),
            "must start with https://",
        ),
        (format!("{GOOD}[store]\nurl = \"postgres://x\"\n"), "must start with sqlite: or mysql://"),
        (format!("{GOOD}[store]\n"), "either `url` or `url_file`"),
        (format!("{GOOD}[redis]\nurl = \"http://x\"\n"), "must start with redis://"),
        (format!("{GOOD}[issuance]\nconcurrency = 0\n"), "1 to 256"),
        (format!("{GOOD}[issuance]\nconcurrency = 257\n"), "1 to 256"),
        (format!("{GOOD}[issuance]\nretry_seconds_min = 9\nretry_seconds_max = 8\n"), "at most retry_seconds_max"),
        (token(&format!("role = \"app\"\nsha256 = \"{hash}\"")), "needs a `tenant`"),
        (token(&format!("role = \"edge\"\ntenant = \"x\"\nsha256 = \"{hash}\"")), "only role `app`"),
        (token("role = \"edge\"\nsha256 = \"00\""), "64 hexadecimal digits"),
    ] {
        let faults = folder.faults(&text);
        assert!(faults.len() == 1 && faults[0].contains(says), "{text}\n{faults:?}");
    }
}

#[test]
fn session_tickets_have_limits() {
    let folder = Folder::new();
    let with = |rotation: u64, lifetime: u64| {
        GOOD.to_owned() + &format!("[tickets]\nrotation_seconds = {rotation}\nlifetime_seconds = {lifetime}\n")
    };
    let config = Config::parse(GOOD, folder.0.path()).unwrap();
    assert_eq!((config.tickets.rotation_seconds, config.tickets.lifetime_seconds), (43_200, 86_400));
    for (rotation, lifetime) in [(2, 1), (2, 12), (604_800, 604_800)] {
        assert!(Config::parse(&with(rotation, lifetime), folder.0.path()).is_ok(), "{rotation} {lifetime}");
    }
    for (rotation, lifetime, at) in [
        (1, 1, "f:11:20: a new key every 1 s, 2 to 604800 are accepted"),
        (604_801, 1, "f:11:20: a new key every 604801 s"),
        (2, 0, "f:12:20: sessions of 0 s, 1 to 12 are accepted"),
        (2, 13, "f:12:20: sessions of 13 s, 1 to 12 are accepted"),
        (604_800, 604_801, "f:12:20: sessions of 604801 s, 1 to 604800 are accepted"),
    ] {
        let faults = folder.faults(&with(rotation, lifetime));
        assert!(faults.len() == 1 && faults[0].starts_with(at), "{faults:?}");
    }
}

#[test]
fn client_certificates_networks_and_modes_are_checked() {
    let folder = Folder::new();
    folder.put("ca.pem", "");
    folder.put("open.key", "");
    let text = GOOD.replace("address = \"unix:cs.sock\"", "address = \"127.0.0.1:1\"\nnetworks = [\"10.0.0.0/33\"]")
        + "[listen.tls]\ncertificate_file = \"ca.pem\"\nkey_file = \"open.key\"\nclient_required = true\n\
           [[certificates]]\nrole = \"edge\"\nuri = \"a*\"\n[[certificates]]\nrole = \"operator\"\n\
           [[certificates]]\nrole = \"viewer\"\nsha256 = \"ab\"\nnetworks = [\"::1\", \"here\"]\n";
    let says = folder.faults(&text).join("\n");
    for part in [
        "`10.0.0.0/33` is neither a network nor an address",
        "open.key has mode 0644: others may read this secret",
        "need client_ca_file",
        "[[certificates]] need the CA",
        "`a*` would be nearly any certificate",
        "give either `uri` or `sha256`",
        "not a SHA-256 in 64 hexadecimal digits",
        "`here` is neither a network nor an address",
    ] {
        assert!(says.contains(part), "{part}: {says}");
    }
    let local = GOOD.replace("[edges]", "networks = [\"10.0.0.1\"]\n[edges]");
    assert!(folder.faults(&local).join("\n").contains("a Unix socket has no address"));
    let networks = Networks(vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::7/128".parse().unwrap()]);
    for (address, allowed) in
        [("10.9.8.7", true), ("11.0.0.1", false), ("2001:db8::7", true), ("::ffff:10.0.0.1", true)]
    {
        assert_eq!(networks.allow(Some(address.parse().unwrap())), allowed, "{address}");
    }
    assert!(!networks.allow(None) && Networks::default().allow(None));
}

#[test]
fn a_private_edge_key_in_reach_is_refused() {
    let folder = Folder::new();
    let good = |text: &str| Config::parse(text, folder.0.path()).map(drop);
    assert!(good(GOOD).is_ok());
    let private = std::fs::read_to_string(folder.path("edge/edge.pem")).unwrap();
    std::fs::create_dir(folder.path("data")).unwrap();
    for place in ["other name.txt", "data/backup"] {
        // Also behind something else in the same file.
        folder.put(place, &format!("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n{private}"));
        let says = folder.faults(GOOD).join("\n");
        assert!(says.contains(place) && says.contains("could open what it seals") && !says.contains("BEGIN"), "{says}");
        assert!(good(&GOOD.replace("[edges]\n", "[edges]\nprivate_keys_in_reach = true\n")).is_ok());
        std::fs::remove_file(folder.path(place)).unwrap();
    }
    // A key that nothing is sealed to is none of our business.
    folder.put("stranger.pem", &contract::sealed::EdgeKey::generate(2048).unwrap().private_pem().unwrap());
    assert!(good(GOOD).is_ok());
}
