//! The same tests on every database: SQLite always, MySQL/MariaDB where `LATCHKEY_TEST_MYSQL_URL` names a server.

mod apart;
mod backup;
mod budgets;
mod changes;
mod fresh;
mod journal;
mod keys;
mod lists;
mod migrations;
mod own;
mod renewals;
mod ticket_keys;
mod visits;
mod whole;

use std::os::unix::fs::PermissionsExt;

use contract::api::{CertificateInfo, State};
use contract::sealed::Sealed;
use contract::{Bundle, Challenge, Hostname};

use self::fresh::{Fresh, fresh, together};
use super::*;
use crate::config::{Places, Secret, StoreUrl};
use crate::order::{Job, Lane, Stage, Status, Step};

const NOW: u64 = 1_800_000_000;

/// `on!` where a fault ends the test.
macro_rules! asked {
    ($store:expr, $on:ident => $body:expr) => {
        async { Ok::<_, StoreError>(on!($store, $on => $body)) }.await.unwrap()
    };
}
use asked;

fn name(text: &str) -> Hostname {
    Hostname::parse_domain(text).unwrap()
}

fn job(domain: &str) -> Job {
    Job::new(name(domain), "ca".into(), 0, NOW)
}

fn answer(domain: &str, token: &str) -> Challenge {
    let key_authorization = format!("{token}.thumb");
    Challenge {
        domain: name(domain),
        token: token.into(),
        kind: contract::ChallengeKind::Http01,
        key_authorization,
        expires_at: NOW + 60,
    }
}

fn bundle(domain: &str, revision: u64) -> Bundle {
    let sealed = Sealed {
        protected: "p".into(),
        recipients: vec![],
        aad: "a".into(),
        iv: "i".into(),
        ciphertext: "c".into(),
        tag: "t".into(),
    };
    let (not_before, not_after) = (NOW, NOW + 1000);
    Bundle {
        domain: name(domain),
        revision,
        issuer: "ca".into(),
        not_before,
        not_after,
        x5c: vec![],
        key: sealed,
        rsa: None,
    }
}

fn shown(revision: u64) -> CertificateInfo {
    CertificateInfo {
        issued_by: "CN=Zürich".into(),
        serial: "01".into(),
        sha256: "02".into(),
        not_before: NOW,
        not_after: NOW + 1000,
        revision,
    }
}

/// Renewed then, and known to the CA.
fn soon(renew_at: u64) -> Next {
    Next { renew_at, urgent_at: renew_at + 100, ari_id: Some("key.serial".into()), ask_at: Some(renew_at - 50) }
}

/// Later than any order here.
const FAR: u64 = NOW * 2;

/// All that `test` may work on, whatever their stage.
async fn due(store: &Store, now: u64, limit: usize) -> Vec<Stored> {
    let mut all = Vec::new();
    for stage in [Stage::UnderWay, Stage::Uncounted, Stage::InLine, Stage::ToCheck] {
        all.extend(taken(store, ("ca", stage, false), ("test", FAR), now, limit).await);
    }
    all
}

/// Takes up to `limit` of a line for a holder until then, each lane after the one before.
async fn taken(
    store: &Store,
    (issuer, stage, leaving): (&str, Stage, bool),
    (holder, until): (&str, u64),
    now: u64,
    limit: usize,
) -> Vec<Stored> {
    let mut waiting =
        store.waiting(Line { issuer, stage, leaving, end: End::First }, holder, now, limit).await.unwrap();
    waiting.truncate(limit);
    store.claim(waiting, holder, until, now).await.unwrap()
}

async fn only_job(store: &Store) -> Stored {
    let mut due = due(store, FAR, 10).await;
    assert_eq!(due.len(), 1);
    due.remove(0)
}

/// An order that replaces what a domain shows; `false` if it has one.
async fn renewed(store: &Store, domain: &str) -> bool {
    let Some(renewal) = store.renewal(&name(domain)).await.unwrap() else { return false };
    let served = renewal.revision;
    store.enqueue(&crate::renew::order(renewal, NOW), served).await.unwrap()
}

fn issued(job: &Job) -> Job {
    let status = Status { state: State::Live, code: "issued".into(), ..job.status.clone() };
    Job { status, ..job.clone() }
}

#[tokio::test]
async fn a_domain_and_its_first_order_come_together_and_once() {
    for fresh in fresh().await {
        let store = Store::open(&fresh.url).await.unwrap();
        store.ready().await.unwrap();
        let registered = store.register("shop", &job("a.example"), 0, "test").await.unwrap();
        let Registered::New(domain) = registered else { panic!() };
        assert_eq!((domain.tenant.as_str(), domain.state, domain.created_at), ("shop", State::Working, NOW));
        assert_eq!(domain.next_check_at, Some(NOW));
        let again = store.register("other", &job("a.example"), 0, "test").await.unwrap();
        assert_eq!(again, Registered::Known(domain.clone()));
        assert_eq!(store.domain(&name("a.example")).await.unwrap(), Some(domain));
        assert_eq!(store.domain(&name("b.example")).await.unwrap(), None);
        assert_eq!(only_job(&store).await.job, job("a.example"));
        assert!(!store.enqueue(&job("a.example"), 0).await.unwrap());
    }
}

#[tokio::test]
async fn what_a_wrong_clock_put_off_is_due() {
    for fresh in fresh().await {
        let store = Store::open(&fresh.url).await.unwrap();
        let years = NOW + 10 * 365 * 86_400;
        store.register("shop", &job("a.example"), 0, "test").await.unwrap();
        let held = only_job(&store).await;
        let later = Job { due_at: years, ..held.job.clone() };
        store.save(held, later, Some(years)).await.unwrap();
        assert!(due(&store, NOW, 10).await.is_empty());
        assert_eq!(store.believe_no_wrong_clock(NOW).await.unwrap(), 1);
        let held = due(&store, NOW, 10).await.remove(0);
        // What really waits goes on waiting.
        let next_week = Job { due_at: NOW + 7 * 86_400, ..held.job.clone() };
        store.save(held, next_week, None).await.unwrap();
        assert_eq!(store.believe_no_wrong_clock(NOW).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn an_order_that_cant_be_read_does_not_keep_the_others() {
    for fresh in fresh().await {
        let store = Store::open(&fresh.url).await.unwrap();
        for domain in ["a.example", "b.example"] {
            store.register("shop", &job(domain), 0, "test").await.unwrap();
        }
        let damage = "UPDATE jobs SET body = '{' WHERE domain = 'a.example'";
        asked!(store, pool => sqlx::query(damage).execute(pool).await.map(drop)?);
        let names = |all: Vec<Stored>| all.iter().map(|one| one.job.domain.to_string()).collect::<Vec<_>>();
        assert_eq!(names(due(&store, NOW, 10).await), ["b.example"]);
        assert_eq!(names(due(&store, NOW, 1).await), ["b.example"], "it has left the first place");
    }
}

#[tokio::test]
async fn registering_at_once_makes_one_order() {
    for fresh in fresh().await {
        let store = Store::open(&fresh.url).await.unwrap();
        let tasks = (0..16).map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.register("shop", &job("a.example"), 0, "test").await.unwrap() })
        });
        let mut new = 0;
        for task in tasks.collect::<Vec<_>>() {
            new += u32::from(matches!(task.await.unwrap(), Registered::New(_)));
        }
        assert_eq!(new, 1);
        only_job(&store).await;
    }
}

#[tokio::test]
async fn an_order_is_due_in_its_turn() {
    for fresh in fresh().await {
        let store = Store::open(&fresh.url).await.unwrap();
        for (domain, due_at) in [("c.example", 30), ("a.example", 10), ("b.example", 20)] {
            store.register("shop", &Job { due_at, ..job(domain) }, 0, "test").await.unwrap();
        }
        let due = async |now, limit| -> Vec<String> {
            due(&store, now, limit).await.iter().map(|stored| stored.job.domain.to_string()).collect()
        };
        assert_eq!(due(9, 10).await, [""; 0]);
        assert_eq!(due(20, 10).await, ["a.example", "b.example"]);
        assert_eq!(due(99, 2).await, ["a.example", "b.example"]);
        assert_eq!(store.jobs_by_step().await.unwrap(), [("queued".to_owned(), 3)]);
    }
}

#[tokio::test]
async fn saving_shows_the_state_and_replaces_the_answers() {
    for fresh in fresh().await {
        let store = Store::open(&fresh.url).await.unwrap();
        store.register("shop", &job("a.example"), 0, "test").await.unwrap();
        let stored = only_job(&store).await;
        let says = "CA says: “no” \u{1F512}".to_owned();
        let status = Status { state: State::ActionNeeded, code: "x".into(), says, ..stored.job.status.clone() };
        let step = Step::Answering { order: "url".into() };
        let answers = vec![answer("a.example", "t1"), answer("a.example", "t2")];
        let next = Job { step, status: status.clone(), answers, due_at: NOW + 5, ..stored.job.clone() };
        let stored = store.save(stored, next.clone(), Some(FAR)).await.unwrap();
        assert_eq!(only_job(&store).await, stored);
        assert_eq!(stored.job, next);
        let domain = store.domain(&name("a.example")).await.unwrap().unwrap();
        assert_eq!((domain.state, domain.says, domain.next_check_at), (status.state, status.says, Some(NOW + 5)));
        let find = async |token| store.challenge(&name("a.example"), token).await.unwrap();
        assert_eq!(find("t1").await, Some(answer("a.example", "t1")));
        assert_eq!(find("T1").await, None);
        let stored = store
            .save(stored, Job { answers: vec![answer("a.example", "t2")], ..next.clone() }, Some(FAR))
            .await
            .unwrap();
        assert_eq!((find("t1").await, find("t2").await.is_some()), (None, true));
        store.save(stored, Job { answers: vec![], ..next }, Some(FAR)).await.unwrap();
        assert_eq!(find("t2").await, None);
    }
}

#[tokio::test]
async fn an_order_that_somebody_else_changed_is_not_overwritten() {
    for fresh in fresh().await {
        let store = Store::open(&fresh.url).await.unwrap();
        store.register("shop", &job("a.example"), 0, "test").await.unwrap();
        let (mine, theirs) = (only_job(&store).await, only_job(&store).await);
        let changed = Job { due_at: NOW + 7, answers: vec![answer("a.example", "t")], ..mine.job.clone() };
        let theirs = store.save(theirs, changed.clone(), Some(FAR)).await.unwrap();
        let late = Job { due_at: NOW + 9, ..mine.job.clone() };
        assert!(matches!(store.save(mine.clone(), late.clone(), Some(FAR)).await, Err(StoreError::Conflict(_))));
        assert!(matches!(store.stop(&mine, &late).await, Err(StoreError::Conflict(_))));
        let finish = store.finish(&mine, &late, &bundle("a.example", 1), &shown(1), &soon(NOW)).await;
        assert!(matches!(finish, Err(StoreError::Conflict(_))));
        assert_eq!(only_job(&store).await, theirs);
        assert_eq!(store.bundle(&name("a.example")).await.unwrap(), None);
        assert!(store.challenge(&name("a.example"), "t").await.unwrap().is_some());
    }
}

#[tokio::test]
async fn finishing_serves_the_bundle_and_ends_the_order() {
    for fresh in fresh().await {
        let store = Store::open(&fresh.url).await.unwrap();
        store.register("shop", &job("a.example"), 0, "test").await.unwrap();
        let stored = only_job(&store).await;
        let answered = Job { answers: vec![answer("a.example", "t")], ..stored.job.clone() };
        let stored = store.save(stored, answered, Some(FAR)).await.unwrap();
        let done = issued(&stored.job);
        store.finish(&stored, &done, &bundle("a.example", 1), &shown(1), &soon(NOW + 600)).await.unwrap();
        assert!(due(&store, FAR, 10).await.is_empty());
        assert_eq!(store.challenge(&name("a.example"), "t").await.unwrap(), None);
        assert_eq!(store.bundle(&name("a.example")).await.unwrap(), Some(bundle("a.example", 1)));
        let domain = store.domain(&name("a.example")).await.unwrap().unwrap();
        assert_eq!((domain.state, domain.certificate, domain.next_check_at), (State::Live, Some(shown(1)), None));

        assert!(store.renewals("ca", NOW + 599, 10).await.unwrap().is_empty());
        assert_eq!(store.renewals("ca", NOW + 600, 10).await.unwrap().len(), 1);
        assert!(renewed(&store, "a.example").await);
        assert!(store.renewals("ca", NOW + 600, 10).await.unwrap().is_empty());
        let stored = only_job(&store).await;
        let done = issued(&stored.job);
        store.finish(&stored, &done, &bundle("a.example", 2), &shown(2), &soon(NOW + 900)).await.unwrap();
        assert_eq!(store.bundle(&name("a.example")).await.unwrap(), Some(bundle("a.example", 2)));
    }
}

#[tokio::test]
async fn orders_of_neighbouring_names_go_on_side_by_side() {
    for fresh in fresh().await {
        let store = Store::open(&fresh.url).await.unwrap();
        for n in 0..32 {
            store.register("shop", &job(&format!("n{n}.example")), 0, "test").await.unwrap();
        }
        let due = due(&store, FAR, 100).await;
        let tasks = due.into_iter().map(|mut stored| {
            let store = store.clone();
            tokio::spawn(async move {
                let domain = stored.job.domain.to_string();
                for round in 0..4 {
                    let answers = vec![answer(&domain, &format!("t{round}"))];
                    let next = Job { answers, ..stored.job.clone() };
                    stored = store.save(stored, next, Some(FAR)).await.unwrap();
                }
                let done = issued(&stored.job);
                store.finish(&stored, &done, &bundle(&domain, 1), &shown(1), &soon(NOW)).await.unwrap();
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        assert_eq!(store.renewals("ca", NOW, 100).await.unwrap().len(), 32);
    }
}

#[tokio::test]
async fn stopping_ends_the_order_and_says_why() {
    for fresh in fresh().await {
        let store = Store::open(&fresh.url).await.unwrap();
        store.register("shop", &job("a.example"), 0, "test").await.unwrap();
        let stored = only_job(&store).await;
        let status = Status { state: State::Blocked, code: "name_refused".into(), ..stored.job.status.clone() };
        store.stop(&stored, &Job { status, ..stored.job.clone() }).await.unwrap();
        assert!(due(&store, FAR, 10).await.is_empty());
        let domain = store.domain(&name("a.example")).await.unwrap().unwrap();
        assert_eq!((domain.state, domain.code.as_str(), domain.certificate), (State::Blocked, "name_refused", None));
        assert!(store.enqueue(&job("a.example"), 0).await.unwrap());
    }
}

#[tokio::test]
async fn pages_come_in_order_of_name_and_keep_tenants_apart() {
    for fresh in fresh().await {
        let store = Store::open(&fresh.url).await.unwrap();
        for (domain, tenant) in [("c.example", "one"), ("a.example", "one"), ("b.example", "two"), ("d.example", "one")]
        {
            store.register(tenant, &job(domain), 0, "test").await.unwrap();
        }
        let page = async |tenant, after, limit| -> Vec<String> {
            store
                .domains(&Filter { tenant, ..Filter::default() }, (0, after), limit)
                .await
                .unwrap()
                .iter()
                .map(|d| d.name.to_string())
                .collect()
        };
        assert_eq!(page(None, "", 3).await, ["a.example", "b.example", "c.example"]);
        assert_eq!(page(None, "c.example", 3).await, ["d.example"]);
        assert_eq!(page(Some("one"), "", 2).await, ["a.example", "c.example"]);
        assert_eq!(page(Some("one"), "c.example", 2).await, ["d.example"]);
        assert_eq!(page(Some("ONE"), "", 2).await, [""; 0]);
    }
}

#[tokio::test]
async fn opening_again_finds_what_was_stored_and_a_newer_schema_is_refused() {
    for fresh in fresh().await {
        let store = Store::open(&fresh.url).await.unwrap();
        store.register("shop", &job("a.example"), 0, "test").await.unwrap();
        store.close().await;
        let store = Store::open(&fresh.url).await.unwrap();
        only_job(&store).await;
        asked!(store, pool => sqlx::query("INSERT INTO schema_versions VALUES (99)").execute(pool).await.map(drop)?);
        store.close().await;
        let error = Store::open(&fresh.url).await.err().unwrap();
        assert!(matches!(error, StoreError::TooNew(99, _)), "{error}");
    }
}

#[tokio::test]
async fn the_sqlite_files_are_ours_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&StoreUrl::Sqlite(folder.path().join("test.db")).into()).await.unwrap();
    store.register("shop", &job("a.example"), 0, "test").await.unwrap();
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
    }
}

#[tokio::test]
async fn a_malformed_url_is_refused_without_its_password() {
    let error =
        Store::open(&StoreUrl::Mysql(Secret::new("mysql://user:hunter2@host:port/db")).into()).await.err().unwrap();
    assert!(!error.to_string().contains("hunter2"), "{error}");
}
