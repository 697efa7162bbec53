//! Visitors of a name whose certificate is being issued, against a CertService of the test's own.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use contract::signed::{SigningKey, VerifyKeys, sign};

use super::super::certificate::tests::{bundle_until, opener};
use super::super::table::Capacity;
use super::*;
use crate::supply::{Address, CertService, CertServiceConfig, Disk};

struct Source {
    signing: SigningKey,
    asked: AtomicUsize,
    /// How often it says that the certificate is on its way.
    coming: usize,
    /// What it says then of one that does not come.
    then: &'static str,
}

async fn answer(State(source): State<Arc<Source>>, Path(name): Path<String>) -> Response {
    let asked = source.asked.fetch_add(1, Ordering::SeqCst);
    let not_yet = |retry: &'static str| {
        let body = r#"{"status":503,"code":"not_issued","title":"","detail":""}"#;
        (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", retry)], body).into_response()
    };
    match (asked < source.coming, source.then) {
        (true, _) => not_yet("1"),
        (false, "issued") => sign(&bundle_until(&name, 3600), &source.signing).unwrap().into_response(),
        (false, retry) => not_yet(retry),
    }
}

async fn world(coming: usize, then: &'static str) -> (Arc<Misses>, Arc<Source>, tempfile::TempDir) {
    let (signing, _) = SigningKey::generate().unwrap();
    let keys = VerifyKeys::from_pems([&*signing.public_pem()]).unwrap();
    let source = Arc::new(Source { signing, asked: AtomicUsize::new(0), coming, then });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let routes = Router::new().route("/v1/bundles/{name}", get(answer)).with_state(source.clone());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let config = CertServiceConfig { address: Address::Url(url), token: None, root: None, identity: None };
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::open(folder.path().to_owned()).unwrap();
    let supply = Arc::new(Supply::new(disk, None, CertService::new(&config).unwrap(), keys));
    let capacity = Capacity { warm_bytes_max: 1 << 20, parsed_bytes_max: 1 << 20 };
    let table = Arc::new(Table::new(capacity, Duration::from_secs(300)));
    let pool = Pool::start(1, 8).unwrap();
    (Misses::new(table, supply, opener(), pool, Handle::current()), source, folder)
}

const LONG: Duration = Duration::from_secs(60);

fn name() -> Hostname {
    Hostname::parse("a.example").unwrap()
}

#[tokio::test]
async fn as_many_wait_for_a_name_as_may_and_ask_like_one_until_the_certificate_is_there() {
    let (misses, source, _folder) = world(3, "issued").await;
    assert_eq!(misses.wait(&name(), LONG).await.err(), Some(Miss::Coming));
    let wait = || {
        let misses = misses.clone();
        tokio::spawn(async move { misses.wait_for_order(&name(), LONG).await })
    };
    let all: Vec<_> = (0..ORDER_WAITS_OF_NAME_MAX).map(|_| wait()).collect();
    while misses.order_waits.taken() < ORDER_WAITS_OF_NAME_MAX {
        tokio::task::yield_now().await;
    }
    // One over the limit is told so at once.
    assert_eq!(misses.wait_for_order(&name(), LONG).await.err(), Some(Miss::OrderWaitsBusy));
    for answered in futures_util::future::join_all(all).await {
        assert!(answered.unwrap().is_ok());
    }
    assert_eq!(source.asked.load(Ordering::SeqCst), 4);
    assert_eq!(misses.order_waits.taken(), 0);
}

#[test]
fn a_name_takes_its_share_of_the_places_and_all_names_take_no_more_than_there_are() {
    let places = Places::default();
    let names: Vec<_> = (0..20).map(|n| Hostname::parse(&format!("n{n}.example")).unwrap()).collect();
    let taken: Vec<Vec<_>> = names.iter().map(|name| (0..1000).map_while(|_| places.take(name)).collect()).collect();
    assert!(taken[..4].iter().all(|of_name| of_name.len() == 64) && taken[4..].iter().all(Vec::is_empty));
    drop(taken);
    assert!(places.0.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_order_that_fails_ends_the_wait_and_one_that_hangs_ends_with_the_deadline() {
    let (misses, _source, _folder) = world(2, "60").await;
    assert_eq!(misses.wait(&name(), LONG).await.err(), Some(Miss::Coming));
    assert_eq!(misses.wait_for_order(&name(), LONG).await.err(), Some(Miss::NotIssued));
    let (misses, _source, _folder) = world(usize::MAX, "issued").await;
    assert_eq!(misses.wait(&name(), LONG).await.err(), Some(Miss::Coming));
    assert_eq!(misses.wait_for_order(&name(), Duration::from_millis(300)).await.err(), Some(Miss::Coming));
    assert_eq!(misses.order_waits.taken(), 0);
}

#[tokio::test]
async fn loads_of_other_names_do_not_end_the_wait() {
    let (misses, _source, _folder) = world(1, "issued").await;
    assert_eq!(misses.wait(&name(), LONG).await.err(), Some(Miss::Coming));
    let others = misses.permits.clone().acquire_many_owned(LOADS_MAX as u32).await.unwrap();
    let (host, waiting) = (name(), misses.clone());
    let waiting = tokio::spawn(async move { waiting.wait_for_order(&host, LONG).await });
    // As long as two looks take.
    tokio::time::sleep(3 * LOOK_AGAIN).await;
    assert!(!waiting.is_finished());
    drop(others);
    assert!(waiting.await.unwrap().is_ok());
}

#[tokio::test]
async fn what_another_load_has_brought_meanwhile_is_not_loaded_again() {
    let (misses, source, _folder) = world(0, "issued").await;
    for from_memory in [false, true] {
        let (_, tier) = misses.wait(&name(), LONG).await.unwrap();
        assert_eq!(!matches!(tier, Tier::Supplied(_)), from_memory);
    }
    assert_eq!(source.asked.load(Ordering::SeqCst), 1);
}
