//! The journal has every change once, in the order in which they became visible, and nothing of what was undone.

use contract::journal::Head;

use super::*;

async fn told(store: &Store) -> Vec<(String, String, String)> {
    let entries = store.journal(None, 0, 1000).await.unwrap();
    let mut head = Head::default();
    entries.iter().for_each(|entry| head.follow(entry).unwrap());
    assert_eq!(store.journal_page(0, 1).await.unwrap().head, head);
    entries.into_iter().map(|entry| (entry.actor, entry.action, entry.name)).collect()
}

#[tokio::test]
async fn every_change_is_told_with_who_made_it() {
    for fresh in together().await {
        let store = Store::open(&fresh.url).await.unwrap();
        store.register("shop", &job("a.example"), 0, "operator:1").await.unwrap();
        store.register("shop", &job("a.example"), 0, "operator:2").await.unwrap();
        let stored = only_job(&store).await;
        let blocked = Status { state: State::ActionNeeded, code: "no_record".into(), ..stored.job.status.clone() };
        let asks = Job { status: blocked, ..stored.job.clone() };
        let late = stored.clone();
        let stored = store.save(stored, asks.clone(), Some(FAR)).await.unwrap();
        // The same again is no change.
        let stored = store.save(stored, Job { due_at: NOW + 9, ..asks }, Some(FAR)).await.unwrap();
        // What is not stored is not told.
        assert!(store.finish(&late, &issued(&late.job), &bundle("a.example", 1), &shown(1), &soon(NOW)).await.is_err());
        let done = issued(&stored.job);
        store.finish(&stored, &done, &bundle("a.example", 1), &shown(1), &soon(NOW)).await.unwrap();
        let renewal = Job::new(name("a.example"), "ca".into(), 1, NOW);
        let detail = Default::default();
        let ask = Ask { actor: "app/shop:1", action: "domain.renewal_asked", detail: &detail, takes: None };
        assert_eq!(store.order_now(&renewal, &ask).await.unwrap(), Asked::Ordered);
        assert_eq!(store.order_now(&renewal, &ask).await.unwrap(), Asked::Ordered);
        let none = Job::new(name("none.example"), "ca".into(), 1, NOW);
        assert_eq!(store.order_now(&none, &ask).await.unwrap(), Asked::Unknown);
        assert!(store.off_board(&name("a.example"), "other", "local").await.unwrap().is_none());
        store.off_board(&name("a.example"), "shop", "local").await.unwrap().unwrap();
        let entry = |actor: &str, action: &str| (actor.to_owned(), action.to_owned(), "a.example".to_owned());
        let expected = [
            entry("operator:1", "domain.registered"),
            entry("certservice", "domain.state"),
            entry("certservice", "certificate.issued"),
            entry("app/shop:1", "domain.renewal_asked"),
            entry("app/shop:1", "domain.renewal_asked"),
            entry("local", "domain.removed"),
        ];
        assert_eq!(told(&store).await, expected);
        assert_eq!(store.journal(Some("shop"), 1, 2).await.unwrap().len(), 2);
        assert_eq!(store.journal(Some("other"), 0, 9).await.unwrap(), []);
    }
}

#[tokio::test]
async fn instances_that_write_at_once_make_one_chain() {
    for fresh in together().await {
        let stores = [Store::open(&fresh.url).await.unwrap(), Store::open(&fresh.url).await.unwrap()];
        let writes = (0..24).map(|n| {
            let store = stores[n % 2].clone();
            tokio::spawn(async move {
                let domain = format!("n{n}.example");
                store.register("shop", &job(&domain), 0, "local").await.unwrap();
                store.off_board(&name(&domain), "shop", "local").await.unwrap().unwrap();
            })
        });
        for write in writes.collect::<Vec<_>>() {
            write.await.unwrap();
        }
        assert_eq!(told(&stores[0]).await.len(), 48);
    }
}

#[tokio::test]
async fn what_an_archive_has_goes_and_the_chain_goes_on() {
    for fresh in together().await {
        let store = Store::open(&fresh.url).await.unwrap();
        for domain in ["a.example", "b.example", "c.example"] {
            store.register("shop", &job(domain), 0, "test").await.unwrap();
        }
        let entries = store.journal(None, 0, 10).await.unwrap();
        let until = Head { seq: 2, hash: entries[1].hash.clone() };
        for unknown in [Head { seq: 2, hash: "0".repeat(64) }, Head { seq: 9, hash: until.hash.clone() }] {
            assert_eq!(store.archive_journal(&unknown, "local").await.unwrap(), Removal::Unknown);
        }
        assert_eq!(store.archive_journal(&until, "local").await.unwrap(), Removal::Done(2));
        // The same again finds nothing of it.
        assert_eq!(store.archive_journal(&until, "local").await.unwrap(), Removal::Unknown);
        let page = store.journal_page(0, 10).await.unwrap();
        assert_eq!(page.base, until);
        let mut read = page.base.clone();
        page.entries.iter().for_each(|entry| read.follow(entry).unwrap());
        assert_eq!((read, page.entries[1].action.as_str()), (page.head, "journal.archived"));
        // The archive and the rest are one chain.
        let mut whole = Head::default();
        entries[..2].iter().chain(&page.entries).for_each(|entry| whole.follow(entry).unwrap());
    }
}

#[tokio::test]
async fn a_webhook_of_one_that_is_no_more_is_free_at_once() {
    for fresh in together().await {
        let store = Store::open(&fresh.url).await.unwrap();
        store.know_webhook("crm").await.unwrap();
        assert_eq!(store.hold_webhook("crm", "one", NOW + 60, NOW).await.unwrap(), Some((0, 0)));
        assert_eq!(store.hold_webhook("crm", "two", NOW + 60, NOW).await.unwrap(), None);
        store.leave("another").await.unwrap();
        assert_eq!(store.hold_webhook("crm", "two", NOW + 60, NOW).await.unwrap(), None);
        store.leave("one").await.unwrap();
        assert_eq!(store.hold_webhook("crm", "two", NOW + 60, NOW).await.unwrap(), Some((0, 0)));
    }
}

/// What is put off by a clock that is ahead, or held, is not put off until then.
#[tokio::test]
async fn a_webhook_that_a_wrong_clock_put_off_is_told_again() {
    for fresh in together().await {
        let store = Store::open(&fresh.url).await.unwrap();
        let ahead = NOW + 365 * 86_400;
        store.know_webhook("crm").await.unwrap();
        // Held by one that has died, with a clock that was a year ahead.
        assert_eq!(store.hold_webhook("crm", "one", ahead + 60, ahead).await.unwrap(), Some((0, 0)));
        assert_eq!(store.hold_webhook("crm", "two", NOW + 60, NOW).await.unwrap(), Some((0, 0)));
        store.webhook_failed("crm", "two", ahead + 2, "down").await.unwrap();
        store.leave("two").await.unwrap();
        assert_eq!(store.hold_webhook("crm", "two", NOW + 60, NOW).await.unwrap(), Some((0, 1)));
        // What really waits goes on waiting, also where the clocks of two differ.
        store.webhook_failed("crm", "two", NOW + 3610, "down").await.unwrap();
        assert_eq!(store.hold_webhook("crm", "two", NOW + 60, NOW).await.unwrap(), None);
        assert_eq!(store.hold_webhook("crm", "two", NOW + 3670, NOW + 3610).await.unwrap(), Some((0, 2)));
        assert_eq!(store.hold_webhook("crm", "one", NOW + 3660, NOW + 3600).await.unwrap(), None);
    }
}

/// It was removed, and whoever held it last had a clock that was a year ahead.
#[tokio::test]
async fn an_archive_waits_for_a_webhook_that_is_gone_for_a_day_whatever_a_wrong_clock_wrote() {
    for fresh in together().await {
        let store = Store::open(&fresh.url).await.unwrap();
        let (now, day) = (crate::clock::now(), 86_400);
        let ahead = now + 365 * day;
        store.know_webhook("gone").await.unwrap();
        assert_eq!(store.hold_webhook("gone", "one", ahead + 60, ahead).await.unwrap(), Some((0, 0)));
        store.register("shop", &job("a.example"), 0, "test").await.unwrap();
        let until = Head { seq: 1, hash: store.journal(None, 0, 1).await.unwrap()[0].hash.clone() };
        let waits = Removal::Awaited("gone".into());
        assert_eq!(store.archive_journal(&until, "local").await.unwrap(), waits);
        // It may be worked on still.
        store.believe_no_wrong_clock(now).await.unwrap();
        assert_eq!(store.archive_journal(&until, "local").await.unwrap(), waits);
        // The same, seen by who looked more than a day ago.
        store.hold_webhook("gone", "one", ahead + 60, ahead).await.unwrap().unwrap();
        store.believe_no_wrong_clock(now - 2 * day).await.unwrap();
        assert_eq!(store.archive_journal(&until, "local").await.unwrap(), Removal::Done(1));
    }
}

/// One that waits until another has removed more than it would must not put the journal's beginning back.
#[tokio::test]
async fn of_two_archives_at_once_the_shorter_changes_nothing() {
    for fresh in together().await {
        let crate::config::StoreUrl::Mysql(url) = &fresh.url.store else {
            // Its writers come one after the other.
            continue;
        };
        let store = Store::open(&fresh.url).await.unwrap();
        for domain in ["a.example", "b.example", "c.example", "d.example"] {
            store.register("shop", &job(domain), 0, "test").await.unwrap();
        }
        let entries = store.journal(None, 0, 10).await.unwrap();
        let head = |seq: usize| Head { seq: seq as u64, hash: entries[seq - 1].hash.clone() };
        // The longer one, which has removed and not yet committed.
        use sqlx::Connection;
        let mut longer = sqlx::MySqlConnection::connect(url.reveal()).await.unwrap();
        let mut transaction = longer.begin().await.unwrap();
        sqlx::query("DELETE FROM journal WHERE seq <= 3").execute(&mut *transaction).await.unwrap();
        let until = head(2);
        let shorter = tokio::spawn({
            let (store, until) = (store.clone(), until.clone());
            async move { store.archive_journal(&until, "local").await.unwrap() }
        });
        // It has found its entry, and waits for it.
        let waits = "SELECT COUNT(*) FROM information_schema.processlist \
            WHERE db = DATABASE() AND info LIKE 'DELETE FROM journal WHERE%'";
        while asked!(store, pool => sqlx::query_scalar::<_, i64>(waits).fetch_one(pool).await?) == 0 {
            assert!(!shorter.is_finished());
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let rebase = "UPDATE journal_head SET base_seq = 3, base_hash = ? WHERE id = 1";
        sqlx::query(rebase).bind(&head(3).hash).execute(&mut *transaction).await.unwrap();
        transaction.commit().await.unwrap();
        assert_eq!(shorter.await.unwrap(), Removal::Unknown);
        let page = store.journal_page(0, 10).await.unwrap();
        assert_eq!(page.base, head(3));
        let mut read = page.base.clone();
        page.entries.iter().for_each(|entry| read.follow(entry).unwrap());
        assert_eq!((read, page.entries.len()), (page.head, 1));
    }
}
