//! Against a CertService of the test's own, over real HTTP.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use contract::Hostname;
use contract::signed::{SigningKey, VerifyKeys, sign};

use super::*;
use crate::supply::{Address, CertService, CertServiceConfig, Disk};
use crate::tls::test_bundles::{bundle_until, opener};
use crate::tls::{Capacity, Pool};

struct Source {
    signing: SigningKey,
    /// Domain → (cursor, revision).
    domains: Mutex<BTreeMap<String, (u64, Option<u64>)>>,
    /// Since when their renewals fail.
    failing: Mutex<BTreeMap<String, u64>>,
    /// It has no bundle for anybody; the feed goes on.
    ailing: AtomicBool,
}

impl Source {
    fn set(&self, domain: &str, cursor: u64, revision: Option<u64>) {
        self.domains.lock().unwrap().insert(domain.into(), (cursor, revision));
    }
}

async fn bundle(State(source): State<Arc<Source>>, Path(name): Path<String>) -> Response {
    let found = source.domains.lock().unwrap().get(&name).copied();
    if source.ailing.load(Ordering::SeqCst) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    match found {
        Some((_, Some(revision))) => {
            let bundle = contract::Bundle { revision, ..bundle_until(&name, 3600) };
            sign(&bundle, &source.signing).unwrap().into_response()
        }
        _ => {
            let body = r#"{"status":404,"code":"unknown_domain","title":"","detail":""}"#;
            (StatusCode::NOT_FOUND, body).into_response()
        }
    }
}

#[derive(serde::Deserialize)]
struct Since {
    since: u64,
}

/// Two changes a page, so that paging is seen too.
async fn changes(State(source): State<Arc<Source>>, headers: HeaderMap, Query(query): Query<Since>) -> Response {
    assert_eq!(headers["latchkey-edge"], "edge-1");
    let domains = source.domains.lock().unwrap();
    let failing = source.failing.lock().unwrap();
    let change = |(domain, &(cursor, revision)): (&String, _)| Change {
        cursor,
        domain: Hostname::parse(domain).unwrap(),
        revision,
        renewal_failing_since: failing.get(domain).copied(),
    };
    let mut all: Vec<Change> = domains.iter().map(change).collect();
    all.sort_by_key(|change| change.cursor);
    let head = all.last().map_or(0, |change| change.cursor);
    let after: Vec<_> = all.into_iter().filter(|change| change.cursor > query.since).collect();
    let more = after.len() > 2;
    let page: Vec<_> = after.into_iter().take(2).collect();
    let cursor = page.last().map_or(head, |change| change.cursor);
    Json(ChangePage { changes: page, cursor, more }).into_response()
}

struct World {
    _folder: tempfile::TempDir,
    source: Arc<Source>,
    news: News,
}

async fn world() -> World {
    let (signing, _) = SigningKey::generate().unwrap();
    let keys = VerifyKeys::from_pems([&*signing.public_pem()]).unwrap();
    let source = Arc::new(Source {
        signing,
        domains: Mutex::default(),
        failing: Mutex::default(),
        ailing: AtomicBool::new(false),
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let routes = Router::new().route("/v1/bundles/{name}", get(bundle)).route("/v1/changes", get(changes));
    let routes = routes.with_state(source.clone());
    tokio::spawn(async move { axum::serve(listener, routes).await });

    let folder = tempfile::tempdir().unwrap();
    let certservice = CertServiceConfig { address: Address::Url(url), token: None, root: None, identity: None };
    let disk = Disk::open(folder.path().join("bundles")).unwrap();
    let supply = Arc::new(Supply::new(disk, None, CertService::new(&certservice).unwrap(), keys));
    let capacity = Capacity { warm_bytes_max: 1 << 20, parsed_bytes_max: 1 << 20 };
    let table = Arc::new(Table::new(capacity, Duration::from_secs(300)));
    let misses = Misses::new(
        table.clone(),
        supply.clone(),
        opener(),
        Pool::start(1, 8).unwrap(),
        tokio::runtime::Handle::current(),
    );
    let news = News {
        supply,
        table,
        misses,
        known: Arc::new(Known::new()),
        edge: "edge-1".into(),
        poll: Duration::from_secs(5),
        known_file: folder.path().join("known"),
        cursor_file: folder.path().join("cursor"),
        renewals: Box::leak(Box::default()),
        renewals_file: folder.path().join("renewals-failing"),
    };
    World { _folder: folder, source, news }
}

impl World {
    fn revision(&self, name: &str) -> Option<u64> {
        self.news.table.revision(&Hostname::parse(name).unwrap())
    }

    /// The file of the one bundle, once it is on disk.
    async fn kept(&self) -> PathBuf {
        loop {
            let below = |folder: PathBuf| std::fs::read_dir(folder).into_iter().flatten().flatten();
            let files = below(self._folder.path().join("bundles")).flat_map(|folder| below(folder.path()));
            let mut bundles = files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|e| e == "jws"));
            if let Some(file) = bundles.next() {
                return file;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn visit(&self, name: &str) {
        let waited = self.news.misses.wait(&Hostname::parse(name).unwrap(), Duration::from_secs(20)).await;
        assert!(waited.is_ok(), "{name}: {waited:?}");
    }
}

#[tokio::test]
async fn names_are_listed_over_all_pages_and_the_cursor_is_kept() {
    let world = world().await;
    for number in 1..=5 {
        world.source.set(&format!("n{number}.example"), number, Some(1));
    }
    world.source.set("gone.example", 6, None);
    let mut cursor = 0;
    world.news.list(&mut cursor).await.unwrap();
    assert_eq!((cursor, world.news.saved_cursor()), (6, 6));
    assert!((1..=5).all(|number| world.news.known.may_exist(&format!("n{number}.example"))));
    assert_eq!(world.news.known.size().0, 5);
}

#[tokio::test]
async fn a_replaced_certificate_is_fetched_and_an_off_boarded_one_is_gone() {
    let world = world().await;
    world.source.set("a.example", 1, Some(1));
    world.source.set("b.example", 2, Some(1));
    let mut cursor = 0;
    world.news.list(&mut cursor).await.unwrap();
    world.visit("a.example").await;
    world.visit("b.example").await;

    world.source.set("a.example", 3, Some(2));
    world.source.set("b.example", 4, None);
    world.source.set("new.example", 5, Some(1));
    assert!(!world.news.catch_up(&mut cursor, None).await.unwrap());
    assert_eq!(cursor, 5);
    assert_eq!((world.revision("a.example"), world.revision("b.example")), (Some(2), None));
    assert!(world.news.known.may_exist("new.example"));
    let gone = world.news.misses.wait(&Hostname::parse("b.example").unwrap(), Duration::from_secs(20)).await;
    assert_eq!(gone.unwrap_err().reason(), "unknown_sni");
}

#[tokio::test]
async fn a_renewal_that_fails_is_known_until_it_succeeds_and_over_a_restart() {
    let mut world = world().await;
    let name = Hostname::parse("a.example").unwrap();
    world.source.set("a.example", 1, Some(1));
    world.source.set("b.example", 2, Some(1));
    let mut cursor = 0;
    assert!(!world.news.recall_renewals(), "nothing was kept: they are to be listed");
    world.news.list(&mut cursor).await.unwrap();
    assert_eq!(world.news.renewals.failing_since(&name), None);

    world.source.failing.lock().unwrap().insert("a.example".into(), 77);
    world.source.set("a.example", 3, Some(1));
    world.news.catch_up(&mut cursor, None).await.unwrap();
    assert_eq!(world.news.renewals.failing_since(&name), Some(77));
    world.news.renewals = Box::leak(Box::default());
    assert!(world.news.recall_renewals());
    assert_eq!(world.news.renewals.failing_since(&name), Some(77), "after a restart");
    let mut new_edge = 0;
    world.news.renewals = Box::leak(Box::default());
    world.news.list(&mut new_edge).await.unwrap();
    assert_eq!(world.news.renewals.failing_since(&name), Some(77), "an edge that has just come");

    world.source.failing.lock().unwrap().clear();
    world.source.set("a.example", 4, Some(2));
    world.news.catch_up(&mut cursor, None).await.unwrap();
    assert_eq!(world.news.renewals.failing_since(&name), None);
    std::fs::write(&world.news.renewals_file, "damaged").unwrap();
    assert!(!world.news.recall_renewals());
}

#[tokio::test]
async fn a_restart_applies_what_it_slept_through() {
    let world = world().await;
    world.source.set("a.example", 1, Some(1));
    world.visit("a.example").await;
    let mut cursor = 1;
    world.source.set("a.example", 2, Some(2));
    world.news.list(&mut cursor).await.unwrap();
    assert_eq!((cursor, world.revision("a.example")), (2, Some(2)));
}

#[tokio::test]
async fn what_was_replaced_stays_on_disk_for_as_long_as_its_successor_is_not_to_be_had() {
    let world = world().await;
    world.source.set("a.example", 1, Some(1));
    let mut cursor = 0;
    world.news.list(&mut cursor).await.unwrap();
    world.visit("a.example").await;
    let file = world.kept().await;
    // It left memory; then its successor is told of, and can't be fetched.
    world.news.table.remove(&Hostname::parse("a.example").unwrap());
    world.source.ailing.store(true, Ordering::SeqCst);
    world.source.set("a.example", 2, Some(2));
    world.news.catch_up(&mut cursor, None).await.unwrap();
    while std::fs::metadata(&file).unwrap().modified().unwrap() != std::time::UNIX_EPOCH {
        tokio::task::yield_now().await;
    }
    world.visit("a.example").await;
    assert_eq!(world.revision("a.example"), Some(1));
    world.source.ailing.store(false, Ordering::SeqCst);
    world.news.misses.renew(&Hostname::parse("a.example").unwrap(), 2).await;
    assert_eq!(world.revision("a.example"), Some(2));
}

#[tokio::test]
async fn an_edge_that_lost_its_cursor_keeps_nothing_of_who_was_off_boarded() {
    let world = world().await;
    world.source.set("a.example", 1, Some(1));
    world.source.set("b.example", 2, Some(1));
    world.visit("a.example").await;
    let file = world.kept().await;
    world.source.set("a.example", 3, None);
    let mut cursor = 0;
    world.news.list(&mut cursor).await.unwrap();
    assert_eq!(world.revision("a.example"), None);
    while file.exists() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_feed_that_went_back_is_listed_anew() {
    let world = world().await;
    world.source.set("a.example", 3, Some(1));
    let mut cursor = 900;
    assert!(world.news.catch_up(&mut cursor, None).await.unwrap());
    assert!(!world.news.list(&mut cursor).await.unwrap());
    assert_eq!(cursor, 3);
}

#[tokio::test]
async fn while_certservice_is_down_everything_stays() {
    let mut world = world().await;
    world.source.set("a.example", 1, Some(1));
    let mut cursor = 0;
    world.news.list(&mut cursor).await.unwrap();
    world.visit("a.example").await;
    let (signing, _) = SigningKey::generate().unwrap();
    let keys = VerifyKeys::from_pems([&*signing.public_pem()]).unwrap();
    let nowhere = CertServiceConfig {
        address: Address::Url("http://127.0.0.1:9".into()),
        token: None,
        root: None,
        identity: None,
    };
    let disk = Disk::open(world._folder.path().join("bundles")).unwrap();
    world.news.supply = Arc::new(Supply::new(disk, None, CertService::new(&nowhere).unwrap(), keys));
    assert!(world.news.catch_up(&mut cursor, None).await.is_err());
    assert!(world.news.list(&mut cursor).await.is_err());
    assert_eq!((cursor, world.revision("a.example")), (1, Some(1)));
    assert!(world.news.known.may_exist("a.example") && !world.news.known.may_exist("b.example"));
}

#[tokio::test]
async fn a_restart_knows_the_names_of_before_and_asks_for_the_rest_only() {
    let mut world = world().await;
    for number in 1..=5 {
        world.source.set(&format!("n{number}.example"), number, Some(1));
    }
    let mut cursor = 0;
    world.news.list(&mut cursor).await.unwrap();
    let kept = std::fs::read(&world.news.known_file).unwrap();
    // One in 256 names is taken for a known one.
    let unlisted = |at: &str| {
        let names = (0..100).map(|number| format!("{at}-{number}.example"));
        names.into_iter().find(|name| !world.news.known.may_exist(name)).unwrap()
    };
    let (before, since) = (unlisted("before"), unlisted("since"));
    world.source.set(&before, 6, Some(1));
    world.news.catch_up(&mut cursor, None).await.unwrap();

    // The list is older than what was applied; names between the two come again.
    world.news.known = Arc::new(Known::from_bytes(&kept).unwrap());
    assert!(world.news.known.may_exist("n1.example") && !world.news.known.may_exist(&before));
    world.source.set(&since, 7, Some(1));
    let listed_at = world.news.known.listed_at();
    assert_eq!((listed_at, cursor), (Some(5), 6));
    assert!(!world.news.catch_up(&mut cursor, listed_at).await.unwrap());
    assert_eq!((cursor, world.news.known.size().0), (7, 7));
    assert!([before, since].iter().all(|name| world.news.known.may_exist(name)));
}
