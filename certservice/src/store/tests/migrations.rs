//! A database that an earlier CertService left is brought up to date with all that it holds.

use contract::api::PassedOver;

use super::*;
use crate::store::migrations::{WHOLE, lock};

/// What every version so far has written for a domain; later ones write more.
async fn write_old(store: &Store, version: i64, domain: &str, revision: Option<u64>) {
    let insert = "INSERT INTO domains (name, tenant, issuer, state, code, says, who, created_at, next_check_at) \
        VALUES (?, 'shop', 'ca', 'working', 'queued', 'waiting for its turn', 'nobody', 1, 1)";
    asked!(store, pool => sqlx::query(insert).bind(domain).execute(pool).await.map(drop)?);
    match revision {
        Some(revision) => {
            let body = serde_json::to_string(&bundle(domain, revision)).unwrap();
            let insert = "INSERT INTO bundles (domain, body) VALUES (?, ?)";
            asked!(store, pool => sqlx::query(insert).bind(domain).bind(body).execute(pool).await.map(drop)?);
        }
        None => {
            // As version 1 wrote it: nothing that came later.
            let body = format!(
                r#"{{"domain": "{domain}", "issuer": "ca", "revision": 1, "created_at": 1, "due_at": 1, "failures": 0,
                "step": "queued", "answers": [],
                "status": {{"state": "working", "code": "queued", "says": "waiting for its turn", "who": "nobody"}}}}"#
            );
            let insert = "INSERT INTO jobs (domain, version, due_at, step, body) VALUES (?, 1, 1, 'queued', ?)";
            asked!(store, pool => sqlx::query(insert).bind(domain).bind(body).execute(pool).await.map(drop)?);
            if version >= 5 {
                let place = "UPDATE jobs SET issuer = 'ca', stage = 2, place = 1";
                asked!(store, pool => sqlx::query(place).execute(pool).await.map(drop)?);
            }
        }
    }
}

#[tokio::test]
async fn every_earlier_schema_is_brought_up_to_date() {
    for version in 1..WHOLE.newest() {
        // What earlier ones have written is all in one.
        for fresh in together().await {
            let store = Store::open_at(&fresh.url, version).await.unwrap();
            for (domain, revision) in [("b.example", 2), ("a.example", 1)] {
                write_old(&store, version, domain, Some(revision)).await;
            }
            write_old(&store, version, "waits.example", None).await;
            store.close().await;
            let store = Store::open(&fresh.url).await.unwrap();
            let waits = store.domain(&name("waits.example")).await.unwrap().unwrap();
            assert_eq!((waits.code.as_str(), waits.steps.len()), ("queued", 0), "from {version}");
            let stored = only_job(&store).await;
            assert_eq!((stored.job.domain.as_str(), &stored.job.step), ("waits.example", &Step::Queued));
            assert_eq!(store.bundle(&name("b.example")).await.unwrap(), Some(bundle("b.example", 2)));
            // The feed came with version 2; it lists what was there before.
            if version == 1 {
                let listed = store.changes(0, 10).await.unwrap().changes;
                let listed: Vec<_> = listed.iter().map(|c| (c.cursor, c.domain.as_str(), c.revision)).collect();
                assert_eq!(listed, [(1, "a.example", Some(1)), (2, "b.example", Some(2))]);
            }
            // Counting by edge keys came with version 12; what was there before is counted in the background.
            assert_eq!(store.bundles_by_key_set().await.unwrap(), (vec![], 2), "from {version}");
            assert_eq!((store.count_bundles(10).await.unwrap(), store.count_bundles(10).await.unwrap()), (2, 0));
            assert_eq!(store.bundles_by_key_set().await.unwrap(), (vec![(crate::keys::KeySet::default(), 2)], 0));
            let done = issued(&stored.job);
            store.finish(&stored, &done, &bundle("waits.example", 1), &shown(1), &soon(NOW)).await.unwrap();
            assert!(store.bundle(&name("waits.example")).await.unwrap().is_some());
        }
    }
}

/// MySQL commits each statement by itself: a migration that was interrupted begins anew.
#[tokio::test]
async fn a_migration_that_was_interrupted_runs_again() {
    for fresh in together().await {
        if !fresh.is_mysql() {
            continue;
        }
        let store = Store::open(&fresh.url).await.unwrap();
        store.register("shop", &job("a.example"), 0, "test").await.unwrap();
        for version in 3..=WHOLE.newest() {
            let forget = "DELETE FROM schema_versions WHERE version = ?";
            asked!(store, pool => sqlx::query(forget).bind(version).execute(pool).await.map(drop)?);
        }
        store.close().await;
        let store = Store::open(&fresh.url).await.unwrap();
        only_job(&store).await;
    }
}

/// Databases with another default are common: no text of ours may go by it.
#[tokio::test]
async fn texts_of_any_language_survive_in_a_database_of_latin1() {
    for fresh in together().await {
        let store = Store::open(&fresh.url).await.unwrap();
        if fresh.is_mysql() {
            let query = "SELECT CAST(CONCAT(table_name, '.', column_name) AS CHAR) FROM information_schema.columns \
                WHERE table_schema = DATABASE() AND character_set_name NOT IN ('utf8mb4', 'ascii')";
            let by_default: Vec<String> = asked!(store, pool => sqlx::query_scalar(query).fetch_all(pool).await?);
            assert!(by_default.is_empty(), "{by_default:?}");
        }
        let text = "Überfüllt: “später”, позже, 後で \u{1F512}";
        store
            .register("shop", &Job { profile: Some("Größe \u{1F512}".into()), ..job("a.example") }, 0, "test")
            .await
            .unwrap();
        let stored = only_job(&store).await;
        let passed =
            vec![PassedOver { issuer: "CA €".into(), code: "rate_limited".into(), says: text.into(), until: NOW }];
        let job = Job { passed, ..stored.job.clone() };
        store.save(stored, job, None).await.unwrap();
        let domain = store.domain(&name("a.example")).await.unwrap().unwrap();
        assert_eq!((domain.passed_over[0].says.as_str(), domain.passed_over[0].issuer.as_str()), (text, "CA €"));
        assert_eq!(domain.profile.as_deref(), Some("Größe \u{1F512}"));
    }
}

/// Two at once would make the same steps.
#[tokio::test]
async fn who_does_not_get_the_lock_on_the_schema_does_not_begin() {
    for fresh in together().await {
        let StoreUrl::Mysql(url) = &fresh.url.store else { continue };
        use sqlx::Connection;
        let mut one = sqlx::MySqlConnection::connect(url.reveal()).await.unwrap();
        let mut other = sqlx::MySqlConnection::connect(url.reveal()).await.unwrap();
        lock(&mut one, 60).await.unwrap();
        let says = lock(&mut other, 0).await.unwrap_err().to_string();
        assert!(says.contains("`latchkey_schema`") && says.contains("for 0 s"), "{says}");
        one.close().await.unwrap();
        lock(&mut other, 60).await.unwrap();
    }
}
