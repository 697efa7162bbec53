use super::*;
use crate::config::Trust;
use crate::wasm::Settings;

struct World {
    folder: tempfile::TempDir,
    host: Host,
    plugins: Plugins,
    tables: Tables,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let host = Host::new(Settings::default()).unwrap();
        let plugins = Plugins::open(folder.path().join("plugins"), &host, Trust::Nothing).unwrap();
        let tables = Tables::open(folder.path().join("tables")).unwrap();
        Self { folder, host, plugins, tables }
    }

    async fn build(&self, text: &str, previous: &Snapshot, must_resolve: bool) -> Result<Snapshot, Vec<Fault>> {
        let listeners = ["https".to_owned(), "http".to_owned()];
        let inputs = Inputs {
            host: &self.host,
            plugins: &self.plugins,
            tables: &self.tables,
            listeners: &listeners,
            previous,
            must_resolve,
        };
        build(text, 1, &inputs).await
    }

    async fn faults(&self, text: &str) -> Vec<(String, Option<u32>, String, Option<String>)> {
        let faults = self.build(text, &Snapshot::empty(), true).await.err().expect("must be refused");
        faults.into_iter().map(|fault| (fault.at, fault.line, fault.says, fault.hint)).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_is_reported_with_its_place() {
    let text = r#"{
  "upstreams": {
    "shop": {"url": "http://127.0.0.1:9"},
    "api": {"url": "ftp://127.0.0.1"}
  },
  "sites": [
    {"hosts": ["a.example", "A.example."], "upstream": "shp"},
    {"hosts": ["a.example"], "upstream": "shop"},
    {"hosts": ["a.example"], "upstream": "shop"},
    {"hosts": ["a b"], "upstream": "shop", "plugins": [{"plugin": "hsts"}]},
    {"hosts": [], "upstream": "shop"}
  ],
  "listeners": {"htps": {}}
}"#;
    let faults = World::new().faults(text).await;
    let places: Vec<_> = faults.iter().map(|(at, line, ..)| (at.as_str(), *line)).collect();
    assert_eq!(
        places,
        [
            ("/upstreams/api/url", Some(4)),
            ("/sites/0/upstream", Some(7)),
            ("/sites/2/hosts/0", Some(9)),
            ("/sites/3/hosts/0", Some(10)),
            ("/sites/3/plugins/0/plugin", Some(10)),
            ("/sites/4/hosts", Some(11)),
            ("/listeners/htps", Some(13)),
        ],
        "{faults:#?}"
    );
    assert_eq!(faults[1].3.as_deref(), Some("did you mean `shop`?"));
    assert_eq!(faults[6].3.as_deref(), Some("did you mean `https`?"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_was_never_uploaded_is_named() {
    let faults = World::new().faults(r#"{"plugins": {"hsts": {"digest": "sha256:00"}}}"#).await;
    assert_eq!(faults.len(), 1);
    assert_eq!(faults[0].0, "/plugins/hsts/digest");
    assert!(faults[0].2.contains("sha256:00"), "{faults:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_did_not_change_is_kept() {
    let world = World::new();
    let text = |port: u16| {
        format!(
            r#"{{"upstreams": {{"a": {{"url": "http://127.0.0.1:{port}"}}, "b": {{"url": "http://127.0.0.1:9"}}}}}}"#
        )
    };
    let first = world.build(&text(1), &Snapshot::empty(), true).await.unwrap();
    let second = world.build(&text(2), &first, true).await.unwrap();
    assert!(!Arc::ptr_eq(&first.upstreams["a"], &second.upstreams["a"]));
    assert!(Arc::ptr_eq(&first.upstreams["b"], &second.upstreams["b"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_does_not_resolve_is_a_fault_for_a_person_and_not_for_a_restart() {
    let world = World::new();
    let text = r#"{"upstreams": {"a": {"url": "http://nowhere.invalid"}}}"#;
    assert_eq!(world.faults(text).await[0].0, "/upstreams/a/url");
    let restored = world.build(text, &Snapshot::empty(), false).await.unwrap();
    assert_eq!(restored.upstreams["a"].healthy(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_upstreams_are_reported_with_their_places() {
    let text = r#"{
  "upstreams": {
    "a": {"url": "http://127.0.0.1:1", "peers": [{"url": "http://127.0.0.1:2"}]},
    "b": {"peers": [{"url": "http://127.0.0.1:1"},
                    {"url": "http://127.0.0.1:2", "weight": 0}, {"url": "http://127.0.0.1:1"}]},
    "c": {"url": "http://127.0.0.1:1", "retries": 6, "health": {"path": "healthz", "fails": 0}}
  }
}"#;
    let faults = World::new().faults(text).await;
    let places: Vec<_> = faults.iter().map(|(at, line, ..)| (at.as_str(), *line)).collect();
    assert_eq!(
        places,
        [
            ("/upstreams/a/peers", Some(3)),
            ("/upstreams/b/peers/1/weight", Some(5)),
            ("/upstreams/b/peers/2/url", Some(5)),
            ("/upstreams/c/retries", Some(6)),
            ("/upstreams/c/health/path", Some(6)),
            ("/upstreams/c/health/fails", Some(6)),
        ],
        "{faults:#?}"
    );
    assert!(faults[0].3.as_deref().is_some_and(|hint| hint.contains("list it under `peers`")));
    let text =
        r#"{"upstreams": {"a": {"url": "http://127.0.0.1:1", "balance": "round-robin", "proxy_protocol": true}}}"#;
    let faults = World::new().faults(text).await;
    let places: Vec<_> = faults.iter().map(|(at, ..)| at.as_str()).collect();
    assert_eq!(places, ["/upstreams/a/balance", "/upstreams/a/proxy_protocol"], "{faults:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_name_that_does_not_resolve_is_told() {
    let text = r#"{"upstreams": {"a": {"peers": [
        {"url": "http://one.invalid"}, {"url": "http://127.0.0.1:1"}, {"url": "http://two.invalid"}]}}}"#;
    let world = World::new();
    let faults = world.faults(text).await;
    let places: Vec<_> = faults.iter().map(|(at, ..)| at.as_str()).collect();
    assert_eq!(places, ["/upstreams/a/peers/0/url", "/upstreams/a/peers/2/url"]);
    let restored = world.build(text, &Snapshot::empty(), false).await.unwrap();
    assert_eq!(restored.upstreams["a"].healthy(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_is_built_anew_when_its_root_file_has_changed() {
    let world = World::new();
    let file = world.folder.path().join("root.pem");
    let text = format!(r#"{{"upstreams": {{"a": {{"url": "https://127.0.0.1:1", "ca_file": {file:?}}}}}}}"#);
    assert_eq!(world.faults(&text).await[0].0, "/upstreams/a/ca_file");
    std::fs::write(&file, root()).unwrap();
    let first = world.build(&text, &Snapshot::empty(), true).await.unwrap();
    let second = world.build(&text, &first, true).await.unwrap();
    assert!(Arc::ptr_eq(&first.upstreams["a"], &second.upstreams["a"]));
    std::fs::write(&file, root()).unwrap();
    let third = world.build(&text, &second, true).await.unwrap();
    assert!(!Arc::ptr_eq(&second.upstreams["a"], &third.upstreams["a"]));
}

/// A certificate of a new key.
fn root() -> Vec<u8> {
    use openssl::{asn1::Asn1Time, ec::EcGroup, ec::EcKey, hash::MessageDigest, nid::Nid, pkey::PKey, x509::X509};
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let key = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
    let mut certificate = X509::builder().unwrap();
    certificate.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    certificate.set_not_after(&Asn1Time::days_from_now(1).unwrap()).unwrap();
    certificate.set_pubkey(&key).unwrap();
    certificate.sign(&key, MessageDigest::sha256()).unwrap();
    certificate.build().to_pem().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn refuses_what_is_no_json() {
    for text in ["", "{", "[]", "{\"a\":1}", "{} x", "\u{0}"] {
        assert!(World::new().build(text, &Snapshot::empty(), true).await.is_err(), "{text:?}");
    }
}
