//! Who may work on what, and what the CAs' limits leave, with several instances on one database.

use sqlx::Row;
use sqlx::mysql::MySqlRow;

use super::*;
use crate::budget::{Kind, Limits, Name};

async fn take(store: &Store, holder: &str, stage: Stage, now: u64, limit: usize) -> Vec<Stored> {
    taken(store, ("ca", stage, false), (holder, now + 30), now, limit).await
}

fn names(claimed: &[Stored]) -> Vec<&str> {
    claimed.iter().map(|stored| stored.job.domain.as_str()).collect()
}

#[tokio::test]
async fn an_order_has_one_holder_until_that_one_is_silent() {
    for fresh in together().await {
        let store = Store::open(&fresh.url).await.unwrap();
        store.register("shop", &job("a.example"), 0, "test").await.unwrap();
        let take = async |holder, now| take(&store, holder, Stage::ToCheck, now, 10).await;
        let mine = take("one", NOW).await;
        assert_eq!(names(&mine), ["a.example"]);
        assert_eq!(names(&take("two", NOW + 29).await), [""; 0]);
        store.keep_holding("one", NOW + 60).await.unwrap();
        assert_eq!(names(&take("two", NOW + 59).await), [""; 0]);
        let theirs = take("two", NOW + 60).await;
        assert_eq!(names(&theirs), ["a.example"]);
        // It was only slow: what it writes now would undo what the other does.
        let late = store.save(mine[0].clone(), mine[0].job.clone(), None).await;
        assert!(matches!(late, Err(StoreError::Conflict(_))), "{late:?}");
        store.release(&mine[0]).await.unwrap();
        assert_eq!(names(&take("one", NOW + 61).await), [""; 0]);
        store.release(&theirs[0]).await.unwrap();
        assert_eq!(names(&take("one", NOW + 61).await), ["a.example"]);
        assert_eq!(store.leave("one").await.unwrap(), 1);
        assert_eq!(names(&take("two", NOW + 61).await), ["a.example"]);
    }
}

#[tokio::test]
async fn instances_that_grab_at_once_share_the_orders() {
    for fresh in together().await {
        let store = Store::open(&fresh.url).await.unwrap();
        for n in 0..40 {
            store.register("shop", &job(&format!("n{n}.example")), 0, "test").await.unwrap();
        }
        let grab = |n: u32| {
            let store = store.clone();
            tokio::spawn(async move {
                let holder = format!("instance-{n}");
                let taken = take(&store, &holder, Stage::ToCheck, NOW, 25).await;
                taken.iter().map(|stored| stored.job.domain.to_string()).collect::<Vec<_>>()
            })
        };
        let mut all = Vec::new();
        for grabbing in (0..4).map(grab).collect::<Vec<_>>() {
            all.extend(grabbing.await.unwrap());
        }
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count, "an order has two holders");
        assert!(count >= 25, "{count}");
    }
}

#[tokio::test]
async fn lanes_go_in_their_order_and_a_visitor_goes_first() {
    for fresh in together().await {
        let store = Store::open(&fresh.url).await.unwrap();
        let lanes = [("bulk.example", Lane::Bulk, 1), ("new.example", Lane::New, 2), ("old.example", Lane::New, 3)];
        for (name, lane, due_at) in lanes {
            store.register("shop", &Job { lane, due_at, ..job(name) }, 0, "test").await.unwrap();
        }
        let renewals = [("late.example", NOW + 9), ("soon.example", NOW + 5)];
        for (name, deadline) in renewals {
            let step = Step::InLine { checked_at: NOW };
            let job = Job { deadline, step, ..Job::new(super::name(name), "ca".into(), 1, NOW) };
            store.register("shop", &job, 0, "test").await.unwrap();
        }
        let order = async |stage| {
            let claimed = take(&store, "test", stage, NOW, 10).await;
            claimed.iter().map(|stored| stored.job.domain.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(order(Stage::ToCheck).await, ["new.example", "old.example", "bulk.example"]);
        assert_eq!(order(Stage::Uncounted).await, ["soon.example", "late.example"]);
        let bulk = store.domain(&name("bulk.example")).await.unwrap().unwrap();
        let visited = store.visit(&bulk, &job("bulk.example"), None, NOW).await.unwrap();
        assert_eq!(visited, Visited::Coming { begun: false });
        assert_eq!(order(Stage::ToCheck).await, ["bulk.example", "new.example", "old.example"]);
        assert_eq!(store.in_line("ca").await.unwrap(), 2);
    }
}

#[tokio::test]
async fn who_waits_is_found_by_an_index_from_both_ends() {
    for fresh in together().await {
        let store = Store::open(&fresh.url).await.unwrap();
        for (n, tenant) in ["one", "two", "three"].into_iter().enumerate() {
            let due_at = NOW + n as u64;
            store.register(tenant, &Job { due_at, ..job(&format!("n{n}.example")) }, 0, "test").await.unwrap();
        }
        for (end, expected) in [(End::First, ["one", "two"]), (End::Last, ["three", "two"])] {
            let line = Line { issuer: "ca", stage: Stage::ToCheck, leaving: false, end };
            let waiting = store.waiting(line, "test", FAR, 2).await.unwrap();
            assert_eq!(waiting.iter().map(|one| one.tenant.as_str()).collect::<Vec<_>>(), expected);
        }
    }
}

/// A thousand names, one of four in line, and one of these in four may go to another issuer.
async fn fill(store: &Store) {
    let numbers = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)";
    let domains = format!(
        "INSERT INTO domains (name, tenant, issuer, state, code, says, who, created_at) \
        {numbers} SELECT i, 'shop', 'ca', 'working', 'in_line', '', 'nobody', i FROM n"
    );
    let jobs = format!(
        "INSERT INTO jobs (domain, version, due_at, step, body, issuer, stage, lane, place, others_at) \
        {numbers} SELECT i, 1, i, 'in_line', '{{}}', 'ca', i % 4, 2, i, CASE WHEN i % 16 = 1 THEN i END FROM n"
    );
    for insert in [domains, jobs] {
        let insert = sqlx::AssertSqlSafe(insert);
        asked!(store, pool => sqlx::query(insert).execute(pool).await.map(drop)?);
    }
}

/// How a database looks for who waits.
async fn plan(store: &Store, query: &str) -> String {
    match &store.pool {
        Pool::Sqlite(Sqlite { reads, .. }) => {
            let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {query}"));
            let steps: Vec<(i64, i64, i64, String)> = sqlx::query_as(explain).fetch_all(reads).await.unwrap();
            steps.into_iter().map(|step| step.3 + "; ").collect()
        }
        Pool::Mysql(pool) => {
            sqlx::query("ANALYZE TABLE jobs").fetch_all(pool).await.unwrap();
            let explain = sqlx::AssertSqlSafe(format!("EXPLAIN {query}"));
            let steps = sqlx::query(explain)
                .bind("ca")
                .bind(Stage::InLine as i64)
                .bind(Lane::New as i64)
                .bind(FAR.cast_signed())
                .bind(FAR.cast_signed())
                .bind("test")
                .bind(10)
                .fetch_all(pool)
                .await
                .unwrap();
            let of = |step: &MySqlRow, column| step.get_unchecked::<Option<String>, _>(column).unwrap_or_default();
            steps
                .iter()
                .map(|step| format!("{} by {} {}; ", of(step, "table"), of(step, "key"), of(step, "Extra")))
                .collect()
        }
    }
}

#[tokio::test]
async fn who_waits_and_who_may_leave_is_found_by_an_index_in_its_order() {
    use super::super::claims::{FIRST, FIRST_TO_LEAVE, LAST, LAST_TO_LEAVE};
    for fresh in together().await {
        let store = Store::open(&fresh.url).await.unwrap();
        fill(&store).await;
        for (queries, index, by) in
            [([FIRST, LAST], "jobs_in_line", "place"), ([FIRST_TO_LEAVE, LAST_TO_LEAVE], "jobs_to_leave", "others_at")]
        {
            let first = match fresh.is_mysql() {
                true => format!("jobs by {index} "),
                false => format!("SEARCH jobs USING INDEX {index} (issuer=? AND stage=? AND lane=? AND {by}<?); "),
            };
            for query in queries {
                let plan = plan(&store, query).await;
                let sorts = ["SCAN", "filesort", "temporary"].iter().any(|word| plan.contains(word));
                assert!(plan.starts_with(&first) && !sorts, "{plan}");
            }
        }
        let line = Line { issuer: "ca", stage: Stage::InLine, leaving: true, end: End::First };
        let leaving = store.waiting(line, "test", 40, 10).await.unwrap();
        assert_eq!(leaving.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["1", "17", "33"]);
    }
}

#[tokio::test]
async fn an_order_and_its_cost_are_stored_together_or_not_at_all() {
    for fresh in together().await {
        let store = Store::open(&fresh.url).await.unwrap();
        store.know_issuers(&["ca".to_owned()]).await.unwrap();
        store.know_issuers(&["ca".to_owned()]).await.unwrap();
        store.register("shop", &job("a.example"), 0, "test").await.unwrap();
        let stored = only_job(&store).await;
        let spends = Limits::lets_encrypt().order(&stored.job.domain, Kind::New);
        let leaving = Job { step: Step::Ordering, spent: true, ..stored.job.clone() };
        let left = async |name, scope: &str| {
            let limit = Limits::lets_encrypt().of(name).unwrap();
            limit.left(store.full_at("ca", name, scope).await.unwrap(), NOW * 1000)
        };
        let saved = store.save_spending(&stored, leaving.clone(), FAR, &spends, NOW * 1000).await.unwrap().unwrap();
        assert_eq!((left(Name::Orders, "").await, left(Name::CertificatesPerSet, "a.example").await), (299, 4));
        // Somebody else was faster: nothing is taken.
        let late = store.save_spending(&stored, leaving.clone(), FAR, &spends, NOW * 1000).await;
        assert!(matches!(late, Err(StoreError::Conflict(_))));
        assert_eq!(left(Name::Orders, "").await, 299);
        let mut stored = saved;
        for _ in 0..4 {
            stored = store.save_spending(&stored, leaving.clone(), FAR, &spends, NOW * 1000).await.unwrap().unwrap();
        }
        let short = store.save_spending(&stored, leaving, FAR, &spends, NOW * 1000).await.unwrap().unwrap_err();
        assert_eq!((short.name, short.scope.as_str()), (Name::CertificatesPerSet, "a.example"));
        assert_eq!(left(Name::Orders, "").await, 295);
        assert_eq!(only_job(&store).await, stored);
        store
            .settle("ca", &Limits::lets_encrypt().not_issued(&name("a.example"), Kind::New), NOW * 1000)
            .await
            .unwrap();
        assert_eq!(left(Name::CertificatesPerSet, "a.example").await, 1);
        assert_eq!(store.forget_full_budgets(NOW * 1000).await.unwrap(), 0);
        assert!(store.forget_full_budgets(FAR * 1000).await.unwrap() >= 3);
    }
}

#[tokio::test]
async fn instances_that_spend_at_once_never_spend_too_much() {
    for fresh in together().await {
        let store = Store::open(&fresh.url).await.unwrap();
        store.know_issuers(&["ca".to_owned()]).await.unwrap();
        let limits = Limits { orders: Some(crate::budget::Limit::new(5, 3600)), ..Limits::none() };
        for n in 0..12 {
            store.register("shop", &job(&format!("n{n}.example")), 0, "test").await.unwrap();
        }
        let spend = |stored: Stored| {
            let store = store.clone();
            tokio::spawn(async move {
                let spends = limits.order(&stored.job.domain, Kind::New);
                let leaving = Job { step: Step::Ordering, ..stored.job.clone() };
                store.save_spending(&stored, leaving, FAR, &spends, NOW * 1000).await.unwrap().is_ok()
            })
        };
        let mut left = 0;
        for spending in due(&store, FAR, 100).await.into_iter().map(spend).collect::<Vec<_>>() {
            left += u32::from(spending.await.unwrap());
        }
        assert_eq!(left, 5);
    }
}

#[tokio::test]
async fn an_issuer_is_closed_for_all_and_opens_again() {
    for fresh in together().await {
        let store = Store::open(&fresh.url).await.unwrap();
        store.know_issuers(&["ca".to_owned(), "other".to_owned()]).await.unwrap();
        store.close_issuer("ca", NOW + 60, "rate_limited", "too many", NOW).await.unwrap();
        // Others who saw the same don't count it again.
        store.close_issuer("ca", NOW + 90, "rate_limited", "too many", NOW + 1).await.unwrap();
        let issuers = store.issuers().await.unwrap();
        assert_eq!((issuers[0].closed_until, issuers[0].failures, issuers[0].says.as_str()), (NOW + 60, 1, "too many"));
        assert_eq!((issuers[1].name.as_str(), issuers[1].closed_until), ("other", 0));
        store.open_issuer("ca").await.unwrap();
        let issuers = store.issuers().await.unwrap();
        assert_eq!((issuers[0].closed_until, issuers[0].failures), (0, 0));
    }
}
