//! Against a CertService of the test's own, over real HTTP: what is asked how often, and what is believed.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use contract::signed::{SigningKey, VerifyKeys, sign};
use tokio::sync::Notify;

use super::super::certificate::tests::{bundle_until, opened, opener};
use super::super::pool::tests as pool;
use super::super::table::{Capacity, Found};
use super::*;
use crate::supply::{Address, CertService, CertServiceConfig, Disk};

struct Source {
    signing: SigningKey,
    asked: AtomicUsize,
    /// Answers wait for it, so that a test decides when.
    open: Notify,
    waits: bool,
}

const CAPACITY: Capacity = Capacity { warm_bytes_max: 1 << 20, parsed_bytes_max: 1 << 20 };
const SIGNS: &str = "a.example";

async fn answer(State(source): State<Arc<Source>>, Path(name): Path<String>) -> Response {
    source.asked.fetch_add(1, Ordering::SeqCst);
    if source.waits {
        source.open.notified().await;
    }
    let problem = |status: StatusCode, code: &str| {
        let body = format!(r#"{{"status":{},"code":"{code}","title":"","detail":""}}"#, status.as_u16());
        (status, [("content-type", "application/problem+json")], body).into_response()
    };
    match name.as_str() {
        SIGNS => sign(&bundle_until(SIGNS, 3600), &source.signing).unwrap().into_response(),
        // Signed properly, but another domain's.
        "swapped.example" => sign(&bundle_until(SIGNS, 3600), &source.signing).unwrap().into_response(),
        "forged.example" => {
            let (stranger, _) = SigningKey::generate().unwrap();
            sign(&bundle_until("forged.example", 3600), &stranger).unwrap().into_response()
        }
        "pending.example" => problem(StatusCode::SERVICE_UNAVAILABLE, "not_issued"),
        "broken.example" => problem(StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        // Of something that stands before CertService.
        "ingress.example" => (StatusCode::NOT_FOUND, "default backend - 404").into_response(),
        "other-code.example" => problem(StatusCode::NOT_FOUND, "unknown_path"),
        "endless.example" => {
            let body = axum::body::Body::from_stream(futures_util::stream::repeat_with(|| {
                Ok::<_, std::convert::Infallible>(bytes::Bytes::from_static(&[b' '; 1024]))
            }));
            (StatusCode::NOT_FOUND, body).into_response()
        }
        "ended.example" => sign(&bundle_until("ended.example", -60), &source.signing).unwrap().into_response(),
        _ => problem(StatusCode::NOT_FOUND, "unknown_domain"),
    }
}

struct World {
    folder: tempfile::TempDir,
    source: Arc<Source>,
    table: Arc<Table>,
    misses: Arc<Misses>,
}

/// Places in the queue of its pool.
const QUEUED_MAX: usize = 8;

async fn world(waits: bool) -> World {
    let (signing, _) = SigningKey::generate().unwrap();
    world_with(waits, signing, tempfile::tempdir().unwrap()).await
}

async fn world_with(waits: bool, signing: SigningKey, folder: tempfile::TempDir) -> World {
    let verify_keys = VerifyKeys::from_pems([&*signing.public_pem()]).unwrap();
    let source = Arc::new(Source { signing, asked: AtomicUsize::new(0), open: Notify::new(), waits });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let routes = Router::new().route("/v1/bundles/{name}", get(answer)).with_state(source.clone());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let config = CertServiceConfig { address: Address::Url(url), token: None, root: None, identity: None };
    let disk = Disk::open(folder.path().to_owned()).unwrap();
    let supply = Supply::new(disk, None, CertService::new(&config).unwrap(), verify_keys);
    let table = Arc::new(Table::new(CAPACITY, Duration::from_secs(300)));
    let misses = Misses::new(
        table.clone(),
        Arc::new(supply),
        opener(),
        Pool::start(1, QUEUED_MAX).unwrap(),
        tokio::runtime::Handle::current(),
    );
    World { folder, source, table, misses }
}

impl World {
    async fn wait(&self, name: &str) -> Loaded {
        self.misses.wait(&Hostname::parse(name).unwrap(), Duration::from_secs(20)).await
    }

    fn asked(&self) -> usize {
        self.source.asked.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn many_visitors_of_a_cold_name_are_one_load() {
    let world = world(true).await;
    let visitors = (0..100).map(|_| world.wait(SIGNS));
    let all = futures_util::future::join_all(visitors);
    let release = async {
        while world.asked() == 0 {
            tokio::task::yield_now().await;
        }
        world.source.open.notify_one();
    };
    let (answers, ()) = tokio::join!(all, release);
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(world.asked(), 1);
    assert!(matches!(world.table.find(&Hostname::parse(SIGNS).unwrap(), super::super::now()), Found::Fresh(..)));
}

#[tokio::test]
async fn a_visitor_who_leaves_does_not_stop_the_load() {
    let world = world(true).await;
    let name = Hostname::parse(SIGNS).unwrap();
    let gone = world.misses.wait(&name, Duration::from_millis(20)).await;
    assert!(matches!(gone, Err(Miss::TimedOut(_))));
    world.source.open.notify_one();
    assert!(world.wait(SIGNS).await.is_ok());
    assert_eq!(world.asked(), 1);
}

/// The files of bundles below a folder.
fn files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

impl World {
    /// Once the bundle is on disk, which no visitor waits for.
    async fn kept(&self) -> std::path::PathBuf {
        loop {
            if let [file] = &*files(self.folder.path())
                && file.extension().is_some_and(|extension| extension == "jws")
            {
                return file.clone();
            }
            tokio::task::yield_now().await;
        }
    }

    /// A new process on the same disk, whose CertService knows nobody.
    async fn restarted(self) -> World {
        let (_, pem) = SigningKey::generate().unwrap();
        let keys = VerifyKeys::from_pems([&*self.source.signing.public_pem()]).unwrap();
        let mut world = world_with(false, SigningKey::from_pem(&pem).unwrap(), self.folder).await;
        let nowhere = CertServiceConfig {
            address: Address::Url("http://127.0.0.1:9".into()),
            token: None,
            root: None,
            identity: None,
        };
        let disk = Disk::open(world.folder.path().to_owned()).unwrap();
        let supply = Supply::new(disk, None, CertService::new(&nowhere).unwrap(), keys);
        world.misses = Misses::new(
            world.table.clone(),
            Arc::new(supply),
            opener(),
            Pool::start(1, QUEUED_MAX).unwrap(),
            tokio::runtime::Handle::current(),
        );
        world
    }
}

#[tokio::test]
async fn a_restart_serves_from_disk_while_everything_is_down() {
    let world = world(false).await;
    world.wait(SIGNS).await.unwrap();
    world.kept().await;
    let world = world.restarted().await;
    assert!(world.wait(SIGNS).await.is_ok());
    assert_eq!(world.wait("unknown.example").await.unwrap_err().reason(), "sources_unavailable");
}

#[tokio::test]
async fn a_damaged_file_is_a_miss_and_goes() {
    let damages: [fn(Vec<u8>) -> Vec<u8>; 6] = [
        |_| Vec::new(),
        |_| b"garbage".to_vec(),
        |_| b"\xff\xfe".to_vec(),
        |token| token[..token.len() / 2].to_vec(),
        |token| token[..token.len() - 1].to_vec(),
        |token| [&token[..], b"x"].concat(),
    ];
    for damage in damages {
        let world = world(false).await;
        world.wait(SIGNS).await.unwrap();
        let file = world.kept().await;
        std::fs::write(&file, damage(std::fs::read(&file).unwrap())).unwrap();
        let world = world.restarted().await;
        assert_eq!(world.wait(SIGNS).await.unwrap_err().reason(), "sources_unavailable");
        while file.exists() {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_disk_that_takes_nothing_is_no_reason_to_turn_a_visitor_away() {
    let world = world(false).await;
    for first in 0..=255 {
        std::fs::write(world.folder.path().join(format!("{first:02x}")), "in the way").unwrap();
    }
    let errors = METRICS.disk_errors.get();
    assert!(world.wait(SIGNS).await.is_ok());
    // Reading failed, and then writing.
    while METRICS.disk_errors.get() < errors + 2 {
        tokio::task::yield_now().await;
    }
    assert!(matches!(world.table.find(&Hostname::parse(SIGNS).unwrap(), super::super::now()), Found::Fresh(..)));
}

#[tokio::test]
async fn another_domains_file_is_refused() {
    let world = world(false).await;
    world.wait(SIGNS).await.unwrap();
    let file = world.kept().await;
    let token = std::fs::read(&file).unwrap();
    let disk = Disk::open(world.folder.path().to_owned()).unwrap();
    disk.put(&Hostname::parse("swapped.example").unwrap(), std::str::from_utf8(&token).unwrap()).unwrap();
    let world = world.restarted().await;
    assert_eq!(world.wait("swapped.example").await.unwrap_err().reason(), "bundle_rejected");
}

#[tokio::test]
async fn each_refusal_has_its_reason_and_is_remembered() {
    let world = world(false).await;
    for (name, reason) in [
        ("unknown.example", "unknown_sni"),
        ("pending.example", "not_issued"),
        ("broken.example", "sources_unavailable"),
        ("ingress.example", "sources_unavailable"),
        ("other-code.example", "sources_unavailable"),
        ("endless.example", "sources_unavailable"),
        ("swapped.example", "bundle_rejected"),
        ("forged.example", "bundle_rejected"),
    ] {
        let miss = world.wait(name).await.unwrap_err();
        assert_eq!(miss.reason(), reason, "{name}: {miss}");
        assert!(
            matches!(world.table.find(&Hostname::parse(name).unwrap(), super::super::now()), Found::Absent(_)),
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_failed_refresh_leaves_what_is_served_and_an_unknown_domain_goes() {
    let world = world(false).await;
    for (domain, stays) in [
        ("broken.example", true),
        ("pending.example", true),
        ("ingress.example", true),
        ("other-code.example", true),
        ("unknown.example", false),
    ] {
        let name = Hostname::parse(domain).unwrap();
        world.table.keep(&name, opened(domain, 1)).unwrap();
        world.misses.renew(&name, 0).await;
        assert_eq!(world.table.revision(&name).is_some(), stays, "{domain}");
    }
}

#[tokio::test]
async fn a_load_under_way_does_not_bring_back_an_off_boarded_domain() {
    let world = world(true).await;
    let name = Hostname::parse(SIGNS).unwrap();
    let visit = world.wait(SIGNS);
    let off_board = async {
        while world.asked() == 0 {
            tokio::task::yield_now().await;
        }
        world.table.withdraw(&name);
        world.source.open.notify_one();
    };
    let (visited, ()) = tokio::join!(visit, off_board);
    assert_eq!(visited.unwrap_err(), Miss::Unknown);
    assert_eq!(world.table.revision(&name), None);
}

#[tokio::test]
async fn an_outdated_answer_removes_nothing() {
    let world = world(false).await;
    let name = Hostname::parse(SIGNS).unwrap();
    world.wait(SIGNS).await.unwrap();
    world.misses.renew(&name, 7).await;
    assert_eq!(world.table.revision(&name), Some(1));
}

#[tokio::test]
async fn what_is_older_than_what_is_served_is_not_kept_and_not_asked_for_without_end() {
    let world = world(false).await;
    let name = Hostname::parse(SIGNS).unwrap();
    world.table.keep(&name, opened(SIGNS, 2)).unwrap();
    world.misses.renew(&name, 0).await;
    // CertService answers with revision 1.
    assert_eq!((world.asked(), world.table.revision(&name)), (1, Some(2)));
    let later = super::super::now() + 301;
    assert!(matches!(world.table.find(&name, later), Found::Fresh(..)), "the refresh is not repeated at once");
    assert!(files(world.folder.path()).is_empty(), "nor is the older one written over what is on disk");
}

#[tokio::test]
async fn a_bundle_whose_time_is_not_now_stays_on_disk() {
    let world = world(false).await;
    let disk = Disk::open(world.folder.path().to_owned()).unwrap();
    let name = Hostname::parse("ended.example").unwrap();
    let token = sign(&bundle_until("ended.example", -60), &world.source.signing).unwrap();
    disk.put(&name, &token).unwrap();
    let file = world.kept().await;
    assert_eq!(world.wait("ended.example").await.unwrap_err().reason(), "bundle_rejected");
    // The file that is removed next tells that this one would have been.
    disk.put(&Hostname::parse("damaged.example").unwrap(), "garbage").unwrap();
    world.wait("damaged.example").await.unwrap_err();
    while files(world.folder.path()) != [file.clone()] {
        tokio::task::yield_now().await;
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), token);
}

fn mark_outdated(file: &std::path::Path) {
    std::fs::File::options().write(true).open(file).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
}

#[tokio::test]
async fn a_replaced_bundle_is_the_last_resort_while_everything_else_is_down() {
    let world = world(false).await;
    world.wait(SIGNS).await.unwrap();
    let file = world.kept().await;
    mark_outdated(&file);
    let world = world.restarted().await;
    let name = Hostname::parse(SIGNS).unwrap();
    // The feed has told of the next one, too.
    world.table.require(&name, 2);
    let (_, tier) = world.wait(SIGNS).await.unwrap();
    assert_eq!(tier, Tier::Supplied(supply::Tier::Disk));
    let found = world.table.find(&name, super::super::now());
    assert!(matches!(found, Found::Aging(..)), "it is asked for again in the background");
    // Off-boarded, it is served no more, whatever lies on disk.
    world.table.withdraw(&name);
    assert_eq!(world.wait(SIGNS).await.unwrap_err(), Miss::Unknown);
    while file.exists() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_marked_bundle_is_not_served_where_its_successor_is_to_be_had() {
    let world = world(false).await;
    world.wait(SIGNS).await.unwrap();
    let file = world.kept().await;
    mark_outdated(&file);
    world.table.remove(&Hostname::parse(SIGNS).unwrap());
    let (_, tier) = world.wait(SIGNS).await.unwrap();
    assert_eq!((tier, world.asked()), (Tier::Supplied(supply::Tier::CertService), 2));
}

#[tokio::test]
async fn refreshes_that_hang_take_no_visitors_place() {
    let world = world(true).await;
    for number in 0..LOADS_MAX + 100 {
        world.misses.refresh(&Hostname::parse(&format!("served{number}.example")).unwrap());
    }
    assert_eq!(world.misses.loading.lock().unwrap().len(), REFRESHES_MAX);
    let visit = world.misses.wait(&Hostname::parse(SIGNS).unwrap(), Duration::from_millis(20)).await;
    assert!(matches!(visit, Err(Miss::TimedOut(_))), "it waits for CertService, and is not turned away");
}

#[tokio::test]
async fn a_visitor_is_turned_away_when_too_many_keys_wait_and_the_edge_itself_is_not() {
    let world = world(false).await;
    let busy = pool::occupy(&world.misses.pool, QUEUED_MAX).await;
    let miss = world.wait(SIGNS).await.unwrap_err();
    assert_eq!((miss.reason(), miss), ("opens_busy", Miss::OpensBusy(QUEUED_MAX)));
    let name = Hostname::parse(SIGNS).unwrap();
    let renewed = world.misses.renew(&name, 1);
    let release = async {
        while world.asked() < 2 {
            tokio::task::yield_now().await;
        }
        drop(busy);
    };
    tokio::join!(renewed, release);
    assert_eq!(world.table.revision(&name), Some(1));
}
