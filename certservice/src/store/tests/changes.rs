//! The feed of changes, on every database.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use contract::api::{Change, ChangePage};

use super::*;

async fn job_of(store: &Store, domain: &str) -> Stored {
    let due = due(store, FAR, 1000).await;
    due.into_iter().find(|stored| stored.job.domain.as_str() == domain).unwrap()
}

/// The order in hand brings its certificate.
async fn finish(store: &Store, domain: &str) -> u64 {
    let stored = job_of(store, domain).await;
    let (job, revision) = (issued(&stored.job), stored.job.revision);
    store.finish(&stored, &job, &bundle(domain, revision), &shown(revision), &soon(NOW)).await.unwrap()
}

async fn issue(store: &Store, domain: &str) -> u64 {
    store.register("shop", &job(domain), 0, "test").await.unwrap();
    finish(store, domain).await
}

async fn renew(store: &Store, domain: &str) -> u64 {
    assert!(renewed(store, domain).await);
    finish(store, domain).await
}

fn change(cursor: u64, domain: &str, revision: impl Into<Option<u64>>) -> Change {
    Change { cursor, domain: name(domain), revision: revision.into(), renewal_failing_since: None }
}

#[tokio::test]
async fn a_domain_stands_in_the_feed_once_with_its_latest_change() {
    for fresh in fresh().await {
        let store = Store::open(&fresh.url).await.unwrap();
        store.register("shop", &job("waits.example"), 0, "test").await.unwrap();
        let nothing = ChangePage { changes: vec![], cursor: 0, more: false };
        assert_eq!((store.changes(0, 10).await.unwrap(), store.changes_head().await.unwrap()), (nothing, 0));
        assert_eq!(issue(&store, "a.example").await, 1);
        assert_eq!(issue(&store, "b.example").await, 2);
        assert_eq!(renew(&store, "a.example").await, 3);
        let whole =
            ChangePage { changes: vec![change(2, "b.example", 1), change(3, "a.example", 2)], cursor: 3, more: false };
        assert_eq!((store.changes(0, 10).await.unwrap(), store.changes_head().await.unwrap()), (whole, 3));
        let served = async |domain| store.served_revision(&name(domain)).await.unwrap();
        assert_eq!((served("a.example").await, served("waits.example").await), (Some(2), None));
    }
}

#[tokio::test]
async fn a_renewal_that_fails_is_told_once_and_taken_back_by_the_next_certificate() {
    for fresh in fresh().await {
        let store = Store::open(&fresh.url).await.unwrap();
        issue(&store, "a.example").await;
        issue(&store, "b.example").await;
        assert!(renewed(&store, "a.example").await);
        let stored = only_job(&store).await;
        let failed = |since| Job { failures: 1, failing_since: Some(since), ..stored.job.clone() };
        let stored = store.save(stored.clone(), failed(NOW), None).await.unwrap();
        let told = Change { renewal_failing_since: Some(NOW), ..change(3, "a.example", 1) };
        assert_eq!(store.changes(0, 10).await.unwrap().changes, [change(2, "b.example", 1), told.clone()]);
        assert_eq!(store.served_revision(&name("a.example")).await.unwrap(), Some(1));
        let again = only_job(&store).await;
        assert_eq!(again.job, stored.job);
        store.save(again, Job { failures: 2, ..stored.job.clone() }, None).await.unwrap();
        assert_eq!(store.changes(2, 10).await.unwrap().changes, [told], "it is said once");
        let cursor = finish(&store, "a.example").await;
        assert_eq!(store.changes(2, 10).await.unwrap().changes, [change(cursor, "a.example", 2)]);
    }
}

#[tokio::test]
async fn pages_follow_each_other_and_a_cursor_from_the_future_is_sent_back() {
    for fresh in fresh().await {
        let store = Store::open(&fresh.url).await.unwrap();
        for n in 1..=5 {
            issue(&store, &format!("n{n}.example")).await;
        }
        let page = async |since, limit| {
            let page = store.changes(since, limit).await.unwrap();
            (page.changes.iter().map(|change| change.cursor).collect::<Vec<_>>(), page.cursor, page.more)
        };
        assert_eq!(page(0, 2).await, (vec![1, 2], 2, true));
        assert_eq!(page(2, 2).await, (vec![3, 4], 4, true));
        assert_eq!(page(3, 2).await, (vec![4, 5], 5, false));
        assert_eq!(page(5, 2).await, (vec![], 5, false));
        assert_eq!(page(u64::MAX, 2).await, (vec![], 5, false));
    }
}

#[tokio::test]
async fn an_order_that_was_taken_over_announces_nothing() {
    for fresh in fresh().await {
        let store = Store::open(&fresh.url).await.unwrap();
        store.register("shop", &job("a.example"), 0, "test").await.unwrap();
        let stale = only_job(&store).await;
        store.save(stale.clone(), Job { due_at: NOW + 1, ..stale.job.clone() }, Some(FAR)).await.unwrap();
        let finished = store.finish(&stale, &stale.job, &bundle("a.example", 1), &shown(1), &soon(NOW)).await;
        assert!(matches!(finished, Err(StoreError::Conflict(_))));
        assert_eq!(store.changes(0, 10).await.unwrap().changes, []);
        assert_eq!(finish(&store, "a.example").await, 1);
    }
}

#[tokio::test]
async fn an_off_boarded_domain_leaves_its_last_revision_only() {
    for fresh in fresh().await {
        let store = Store::open(&fresh.url).await.unwrap();
        let a = name("a.example");
        issue(&store, "a.example").await;
        issue(&store, "b.example").await;
        renew(&store, "a.example").await;
        assert!(renewed(&store, "a.example").await);
        let stored = only_job(&store).await;
        let answered = Job { answers: vec![answer("a.example", "t")], ..stored.job.clone() };
        let working = store.save(stored, answered, Some(FAR)).await.unwrap();

        assert_eq!(store.off_board(&a, "other", "test").await.unwrap(), None);
        assert_eq!(store.off_board(&name("none.example"), "shop", "test").await.unwrap(), None);
        assert!(store.domain(&a).await.unwrap().is_some());
        let gone = OffBoarded { cursor: Some(4), answers: vec![answer("a.example", "t")] };
        assert_eq!(store.off_board(&a, "shop", "test").await.unwrap(), Some(gone));
        assert_eq!(store.off_board(&a, "shop", "test").await.unwrap(), None);

        assert_eq!((store.domain(&a).await.unwrap(), store.bundle(&a).await.unwrap()), (None, None));
        assert_eq!(store.challenge(&a, "t").await.unwrap(), None);
        assert_eq!(store.served_revision(&a).await.unwrap(), None);
        assert!(due(&store, FAR, 10).await.is_empty());
        assert!(!store.enqueue(&Job::new(a.clone(), "ca".into(), 2, NOW), 2).await.unwrap());
        let late = store.save(working.clone(), working.job.clone(), Some(FAR)).await;
        assert!(matches!(late, Err(StoreError::Conflict(_))));
        let page = store.changes(0, 10).await.unwrap();
        assert_eq!(page.changes, [change(2, "b.example", 1), change(4, "a.example", None)]);
    }
}

#[tokio::test]
async fn a_domain_that_comes_back_goes_on_above_its_last_revision() {
    for fresh in fresh().await {
        let store = Store::open(&fresh.url).await.unwrap();
        let a = name("a.example");
        issue(&store, "a.example").await;
        renew(&store, "a.example").await;
        store.off_board(&a, "shop", "test").await.unwrap().unwrap();

        store.register("another", &job("a.example"), 0, "test").await.unwrap();
        let stored = only_job(&store).await;
        assert_eq!((stored.job.revision, stored.job.renews, &*stored.job.status.code), (3, false, "queued"));
        // Refused, and lifted by an operator: it counts all the same.
        store.stop(&stored, &stored.job).await.unwrap();
        assert!(store.enqueue(&job("a.example"), 0).await.unwrap());
        let cursor = finish(&store, "a.example").await;
        assert_eq!(store.changes(0, 10).await.unwrap().changes, [change(cursor, "a.example", 3)]);
    }
}

#[tokio::test]
async fn who_works_on_an_order_that_is_gone_can_not_take_a_later_one_for_it() {
    for fresh in fresh().await {
        let store = Store::open(&fresh.url).await.unwrap();
        store.register("shop", &job("a.example"), 0, "test").await.unwrap();
        let old = only_job(&store).await;
        // No edge was told of it, so none has to be told that it is gone.
        let gone = store.off_board(&name("a.example"), "shop", "test").await.unwrap();
        assert_eq!(gone, Some(OffBoarded { cursor: None, answers: vec![] }));
        assert_eq!(store.changes(0, 10).await.unwrap().changes, []);
        store.register("another", &job("a.example"), 0, "test").await.unwrap();
        assert!(matches!(store.save(old.clone(), old.job.clone(), Some(FAR)).await, Err(StoreError::Conflict(_))));
        assert!(matches!(store.stop(&old, &old.job).await, Err(StoreError::Conflict(_))));
    }
}

/// Issues, renews and off-boards domains of its own, in an order that nobody else knows.
async fn write_at_random(store: Store, writer: u32) {
    let mut random = 0x9e37_79b9_u32.wrapping_mul(writer + 1);
    for _ in 0..40 {
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        let domain = format!("n{}.w{writer}.example", random % 4);
        let served = store.served_revision(&name(&domain)).await.unwrap();
        match (served, random % 5) {
            (None, _) => drop(issue(&store, &domain).await),
            (Some(_), 0) => drop(store.off_board(&name(&domain), "shop", "test").await.unwrap().unwrap()),
            (Some(_), _) => drop(renew(&store, &domain).await),
        }
    }
}

/// Follows the feed as an edge does, until the writers are done and there is no more.
async fn follow(store: &Store, done: &AtomicBool) -> BTreeMap<Hostname, Option<u64>> {
    let (mut seen, mut since) = (BTreeMap::new(), 0);
    loop {
        let was_done = done.load(Ordering::SeqCst);
        let page = store.changes(since, 3).await.unwrap();
        for change in &page.changes {
            assert!(change.cursor > since, "{change:?} after {since}");
            since = change.cursor;
            seen.insert(change.domain.clone(), change.revision);
        }
        assert_eq!(page.cursor, since);
        if was_done && page.changes.is_empty() {
            return seen;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_follows_the_feed_misses_nothing_however_many_write() {
    for fresh in fresh().await {
        let store = Store::open(&fresh.url).await.unwrap();
        let done = Arc::new(AtomicBool::new(false));
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..8 {
            // Each through connections of its own, as instances of CertService are.
            writers.spawn(write_at_random(Store::open(&fresh.url).await.unwrap(), writer));
        }
        let reader = tokio::spawn({
            let (store, done) = (store.clone(), done.clone());
            async move { follow(&store, &done).await }
        });
        writers.join_all().await;
        done.store(true, Ordering::SeqCst);
        let seen = reader.await.unwrap();

        let whole = store.changes(0, 1000).await.unwrap().changes;
        assert_eq!(
            whole.iter().map(|change| (change.domain.clone(), change.revision)).collect::<BTreeMap<_, _>>(),
            seen
        );
        assert_eq!(whole.len(), seen.len());
        assert!(seen.len() > 20 && seen.values().any(Option::is_none), "{seen:?}");
        for (domain, revision) in seen {
            assert_eq!(store.bundle(&domain).await.unwrap().map(|bundle| bundle.revision), revision, "{domain}");
        }
    }
}

/// Does whatever can be done to two domains, which others do at the same time.
async fn meddle(store: Store, mut random: u32) {
    for _ in 0..60 {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let domain = format!("n{}.example", random >> 31);
        let stored = due(&store, FAR, 10).await.into_iter().find(|s| s.job.domain.as_str() == domain);
        let done = match (random >> 20 & 15, stored) {
            (0, _) => store.off_board(&name(&domain), "shop", "test").await.map(drop),
            (1 | 2, _) => {
                renewed(&store, &domain).await;
                Ok(())
            }
            (3, Some(stored)) => store.stop(&stored, &stored.job).await,
            (4..7, Some(stored)) => {
                let answers = vec![answer(&domain, &random.to_string())];
                store.save(stored.clone(), Job { answers, ..stored.job }, Some(FAR)).await.map(drop)
            }
            (_, Some(stored)) => {
                let (job, revision) = (issued(&stored.job), stored.job.revision);
                store.finish(&stored, &job, &bundle(&domain, revision), &shown(revision), &soon(NOW)).await.map(drop)
            }
            (_, None) => store.register("shop", &job(&domain), 0, "test").await.map(drop),
        };
        // Somebody else was faster.
        let beaten = matches!(done, Err(StoreError::Conflict(_) | StoreError::Database(sqlx::Error::RowNotFound)));
        assert!(done.is_ok() || beaten, "{done:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn all_at_one_domain_queue_up_and_its_revision_only_grows() {
    for fresh in fresh().await {
        let store = Store::open(&fresh.url).await.unwrap();
        let mut meddlers = tokio::task::JoinSet::new();
        for random in 0..6 {
            meddlers.spawn(meddle(Store::open(&fresh.url).await.unwrap(), random));
        }
        let (mut since, mut highest) = (0, BTreeMap::new());
        while !meddlers.is_empty() {
            while let Some(ended) = meddlers.try_join_next() {
                ended.unwrap();
            }
            let page = store.changes(since, 10).await.unwrap();
            since = page.cursor;
            for change in page.changes {
                let Some(revision) = change.revision else { continue };
                let before = highest.insert(change.domain.clone(), revision).unwrap_or(0);
                assert!(revision > before, "{change:?} after {before}");
            }
        }
        assert!(highest.len() == 2 && highest.values().sum::<u64>() > 5, "{highest:?}");
    }
}

#[tokio::test]
async fn a_page_is_a_range_of_the_primary_key() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&StoreUrl::Sqlite(folder.path().join("test.db")).into()).await.unwrap();
    let Pool::Sqlite(Sqlite { reads: pool, .. }) = &store.pool else { panic!("not SQLite") };
    let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {}", super::super::changes::PAGE));
    let plan: Vec<(i64, i64, i64, String)> = sqlx::query_as(explain).bind(7).bind(10).fetch_all(pool).await.unwrap();
    let steps: Vec<_> = plan.iter().map(|step| step.3.as_str()).collect();
    assert_eq!(steps, ["SEARCH changes USING INTEGER PRIMARY KEY (rowid>?)"]);
}
