//! First visits, with several instances on one database.

use contract::api::{Domain, OrderWhen};

use super::*;
use crate::budget::{How, Limit, Name, Spend};
use crate::order::LOOK_AGAIN_SECONDS;

const LIMIT: Option<Limit> = Some(Limit { count: 2, seconds: 3600 });

fn awaited(domain: &str) -> Job {
    job(domain).when(OrderWhen::FirstVisit)
}

async fn known(store: &Store, domain: &str) -> Domain {
    store.domain(&name(domain)).await.unwrap().unwrap()
}

async fn visit(store: &Store, domain: &str, now: u64) -> Visited {
    let known = known(store, domain).await;
    let first = Job { due_at: now, created_at: now, ..job(domain) }.visited(now);
    store.visit(&known, &first, LIMIT, now).await.unwrap()
}

/// Looked at, and all is well.
async fn park(store: &Store, domain: &str) {
    let stored = due(store, FAR, 100).await.into_iter().find(|stored| stored.job.domain == name(domain)).unwrap();
    let parked = Job { step: Step::Parked, ..stored.job.clone() };
    store.stop(&stored, &parked).await.unwrap();
    store.leave("test").await.unwrap();
}

fn ask(detail: &contract::journal::Detail, takes: Option<Spend>) -> Ask<'_> {
    Ask { actor: "test", action: "domain.renewal_asked", detail, takes }
}

const BEGUN: Visited = Visited::Coming { begun: true };

#[tokio::test]
async fn a_name_is_told_to_the_edges_before_it_has_a_certificate() {
    for fresh in fresh().await {
        let store = Store::open(&fresh.url).await.unwrap();
        store.register("shop", &awaited("a.example"), 0, "test").await.unwrap();
        store.register("shop", &job("now.example"), 0, "test").await.unwrap();
        let feed = store.changes(0, 10).await.unwrap();
        let told: Vec<_> = feed.changes.iter().map(|change| (change.domain.as_str(), change.revision)).collect();
        assert_eq!(told, [("a.example", Some(1))]);
        let domain = known(&store, "a.example").await;
        assert_eq!((domain.order, domain.code.as_str()), (OrderWhen::FirstVisit, "awaits_visit"));
        park(&store, "a.example").await;
        assert_eq!(known(&store, "a.example").await.next_check_at, None);
        // What is issued is newer than what was told.
        assert_eq!(visit(&store, "a.example", NOW).await, BEGUN);
        let stored = due(&store, FAR, 10).await.into_iter().find(|s| s.job.domain == name("a.example")).unwrap();
        assert_eq!((stored.job.revision, stored.job.lane, stored.job.visited_at), (2, Lane::Visitor, Some(NOW)));
        store.finish(&stored, &issued(&stored.job), &bundle("a.example", 2), &shown(2), &soon(NOW)).await.unwrap();
        // Gone and back, it is above all that edges have had.
        store.off_board(&name("a.example"), "shop", "test").await.unwrap().unwrap();
        assert_eq!(store.changes(1, 10).await.unwrap().changes[0].revision, None);
        store.register("other", &awaited("a.example"), 0, "test").await.unwrap();
        assert_eq!(store.changes(1, 10).await.unwrap().changes[0].revision, Some(3));
    }
}

#[tokio::test]
async fn of_many_visitors_at_once_one_brings_the_order() {
    for fresh in fresh().await {
        let store = Store::open(&fresh.url).await.unwrap();
        store.register("shop", &awaited("a.example"), 0, "test").await.unwrap();
        park(&store, "a.example").await;
        let visits = (0..20).map(|_| {
            let store = store.clone();
            tokio::spawn(async move { visit(&store, "a.example", NOW).await })
        });
        let came = futures_util::future::join_all(visits).await;
        let begun = came.iter().filter(|came| *came.as_ref().unwrap() == BEGUN).count();
        let coming = came.iter().filter(|came| matches!(came.as_ref().unwrap(), Visited::Coming { .. })).count();
        assert_eq!((begun, coming), (1, 20));
        let left = LIMIT.unwrap().left(store.first_visits_full_at("shop").await.unwrap(), NOW * 1000);
        assert_eq!(left, 1, "the others cost nothing");
    }
}

#[tokio::test]
async fn a_tenant_has_so_many_orders_for_first_visits_and_others_have_theirs() {
    for fresh in fresh().await {
        let (store, other) = (Store::open(&fresh.url).await.unwrap(), Store::open(&fresh.url).await.unwrap());
        for n in 0..20 {
            store.register("shop", &awaited(&format!("n{n}.example")), 0, "test").await.unwrap();
        }
        store.register("other", &awaited("theirs.example"), 0, "test").await.unwrap();
        due(&store, FAR, 100).await;
        store.leave("test").await.unwrap();
        // Two instances, each with visitors of its own.
        let visits = (0..20).map(|n| {
            let store = if n % 2 == 0 { store.clone() } else { other.clone() };
            tokio::spawn(async move { visit(&store, &format!("n{n}.example"), NOW).await })
        });
        let came = futures_util::future::join_all(visits).await;
        let begun = came.iter().filter(|came| *came.as_ref().unwrap() == BEGUN).count();
        assert_eq!(begun, 2);
        let short = came.iter().find_map(|came| match came.as_ref().unwrap() {
            Visited::Short(short) => Some(short.clone()),
            _ => None,
        });
        let short = short.unwrap();
        assert_eq!((short.name, short.scope.as_str(), short.until), (Name::FirstVisits, "shop", NOW + 1800));
        assert!(
            short.says().contains("tenant `shop`") && short.says().contains("2 orders an hour"),
            "{}",
            short.says()
        );
        assert_eq!(visit(&store, "theirs.example", NOW).await, BEGUN);
        let waits = (0..20).find(|n| matches!(came[*n].as_ref().unwrap(), Visited::Short(_))).unwrap();
        assert!(matches!(visit(&store, &format!("n{waits}.example"), NOW + 1799).await, Visited::Short(_)));
        assert_eq!(visit(&store, &format!("n{waits}.example"), NOW + 1800).await, BEGUN);
    }
}

#[tokio::test]
async fn a_visit_to_a_domain_that_was_not_ready_costs_nothing_and_looks_again_now_and_then() {
    for fresh in fresh().await {
        let store = Store::open(&fresh.url).await.unwrap();
        store.register("shop", &awaited("a.example"), 0, "test").await.unwrap();
        let left = async |now| LIMIT.unwrap().left(store.first_visits_full_at("shop").await.unwrap(), now * 1000);
        let mut now = NOW;
        for _ in 0..3 {
            assert_eq!(visit(&store, "a.example", now).await, BEGUN);
            assert_eq!((left(now).await, visit(&store, "a.example", now).await), (1, Visited::Coming { begun: false }));
            // The look finds a fault: it waits again.
            let stored = only_job(&store).await;
            let waits = Job { step: Step::Awaited, due_at: now + 20, ..stored.job.clone() };
            store.save(stored, waits, None).await.unwrap();
            store.give_back_visit(&name("a.example"), LIMIT.unwrap(), now * 1000).await.unwrap();
            assert_eq!((left(now).await, visit(&store, "a.example", now + 19).await), (2, Visited::Waits));
            now += 20;
        }
    }
}

#[tokio::test]
async fn while_a_domain_is_looked_at_its_visitor_waits_for_what_comes_of_that() {
    for fresh in fresh().await {
        let store = Store::open(&fresh.url).await.unwrap();
        store.register("shop", &awaited("a.example"), 0, "test").await.unwrap();
        let looking = only_job(&store).await;
        assert_eq!(visit(&store, "a.example", NOW).await, Visited::Coming { begun: false });
        store.stop(&looking, &Job { step: Step::Parked, ..looking.job.clone() }).await.unwrap();
        assert_eq!(visit(&store, "a.example", NOW).await, BEGUN);
    }
}

#[tokio::test]
async fn a_visitor_waits_for_an_order_that_waits_for_a_place_and_for_none_that_is_held_up() {
    for fresh in fresh().await {
        let store = Store::open(&fresh.url).await.unwrap();
        let (looked, held) = (Step::Looked { checked_at: NOW }, Step::InLine { checked_at: NOW });
        for (domain, step, came) in
            [("looked.example", looked, Visited::Coming { begun: false }), ("held.example", held, Visited::Waits)]
        {
            store.register("shop", &Job { step, ..awaited(domain) }, 0, "test").await.unwrap();
            assert_eq!(visit(&store, domain, NOW).await, came);
        }
    }
}

#[tokio::test]
async fn no_visit_brings_an_order_to_what_is_gone_refused_covered_or_not_to_be_ordered_so() {
    for fresh in fresh().await {
        let store = Store::open(&fresh.url).await.unwrap();
        store.register("shop", &awaited("gone.example"), 0, "test").await.unwrap();
        let gone = known(&store, "gone.example").await;
        store.off_board(&name("gone.example"), "shop", "test").await.unwrap().unwrap();
        let first = job("gone.example").visited(NOW);
        assert_eq!(store.visit(&gone, &first, LIMIT, NOW).await.unwrap(), Visited::Waits);

        store.register("shop", &awaited("refused.example"), 0, "test").await.unwrap();
        let stored = only_job(&store).await;
        let status = Status { state: State::Blocked, ..stored.job.status.clone() };
        store.stop(&stored, &Job { step: Step::Stopped, status, ..stored.job.clone() }).await.unwrap();
        assert_eq!(visit(&store, "refused.example", NOW).await, Visited::Waits);

        store.register("shop", &job("*.shop.example"), 0, "test").await.unwrap();
        let stored = only_job(&store).await;
        store.register("shop", &awaited("a.shop.example"), 0, "test").await.unwrap();
        store.finish(&stored, &issued(&stored.job), &bundle("*.shop.example", 1), &shown(1), &soon(FAR)).await.unwrap();
        park(&store, "a.shop.example").await;
        assert_eq!(visit(&store, "a.shop.example", NOW).await, Visited::Covered("*.shop.example".into()));
        // What has ended covers nothing.
        assert_eq!(visit(&store, "a.shop.example", NOW + 1000).await, BEGUN);
        assert!(due(&store, FAR, 10).await.iter().all(|stored| stored.job.domain == name("a.shop.example")));
    }
}

#[tokio::test]
async fn when_a_domain_is_ordered_can_be_changed_both_ways() {
    for fresh in fresh().await {
        let store = Store::open(&fresh.url).await.unwrap();
        let when = async |when: OrderWhen| {
            let first = job("a.example").when(when);
            assert!(store.order_when(&name("a.example"), when, &first, "test").await.unwrap());
            known(&store, "a.example").await
        };
        store.register("shop", &job("a.example"), 0, "test").await.unwrap();
        assert_eq!(when(OrderWhen::FirstVisit).await.code, "awaits_visit");
        assert_eq!(store.changes(0, 10).await.unwrap().changes.len(), 1, "the edges know of it");
        assert_eq!(only_job(&store).await.job.step, Step::Awaited);
        store.leave("test").await.unwrap();
        assert_eq!(when(OrderWhen::Now).await.code, "queued");
        assert_eq!(only_job(&store).await.job.step, Step::Queued);
        store.leave("test").await.unwrap();
        when(OrderWhen::FirstVisit).await;
        park(&store, "a.example").await;
        assert_eq!(when(OrderWhen::Now).await.code, "queued");
        // What the CA knows of goes on.
        let stored = only_job(&store).await;
        let under_way = Job { step: Step::Ordering, ..stored.job.clone() };
        let stored = store.save(stored, under_way, Some(FAR)).await.unwrap();
        assert_eq!(when(OrderWhen::FirstVisit).await.order, OrderWhen::FirstVisit);
        store.finish(&stored, &issued(&stored.job), &bundle("a.example", 9), &shown(9), &soon(FAR)).await.unwrap();
        assert_eq!(when(OrderWhen::Now).await.state, State::Live);
        assert_eq!(due(&store, FAR, 10).await.len(), 0);
        assert!(!store.order_when(&name("b.example"), OrderWhen::Now, &job("b.example"), "test").await.unwrap());
    }
}

/// Edges take no bundle that is older than what they are told.
#[tokio::test]
async fn however_often_it_is_changed_when_a_domain_is_ordered_the_feed_tells_what_the_order_brings() {
    for fresh in fresh().await {
        let store = Store::open(&fresh.url).await.unwrap();
        let a = name("a.example");
        let told = async || store.served_revision(&a).await.unwrap();
        let when = async |when: OrderWhen| {
            assert!(store.order_when(&a, when, &job("a.example").when(when), "test").await.unwrap());
        };
        store.register("shop", &awaited("a.example"), 0, "test").await.unwrap();
        for _ in 0..2 {
            when(OrderWhen::Now).await;
            when(OrderWhen::FirstVisit).await;
            assert_eq!(told().await, Some(1));
        }
        // As an earlier version has told it.
        let higher = "UPDATE changes SET revision = 4 WHERE domain = 'a.example'";
        asked!(store, pool => sqlx::query(higher).execute(pool).await.map(drop)?);
        when(OrderWhen::FirstVisit).await;
        assert_eq!(told().await, Some(4));
        // Looked at, and gone; another comes, and has left when it is changed again.
        park(&store, "a.example").await;
        when(OrderWhen::Now).await;
        let stored = only_job(&store).await;
        let under_way = Job { step: Step::Ordering, ..stored.job.clone() };
        let stored = store.save(stored, under_way, Some(FAR)).await.unwrap();
        when(OrderWhen::FirstVisit).await;
        let revision = stored.job.revision;
        assert_eq!((revision, told().await), (5, Some(5)));
        let bundle = bundle("a.example", revision);
        store.finish(&stored, &issued(&stored.job), &bundle, &shown(revision), &soon(FAR)).await.unwrap();
        assert_eq!(told().await, Some(5));
    }
}

#[tokio::test]
async fn whoever_wants_it_a_domain_is_not_looked_at_again_at_once() {
    for fresh in fresh().await {
        let store = Store::open(&fresh.url).await.unwrap();
        store.register("shop", &job("a.example"), 0, "test").await.unwrap();
        // It was looked at, with a fault.
        let stored = only_job(&store).await;
        let later = Job { looked_at: NOW, due_at: NOW + 3600, failures: 9, ..stored.job.clone() };
        store.save(stored, later, None).await.unwrap();
        let due_at = async || {
            let from = async |at| !due(&store, at, 10).await.is_empty();
            let mut at = NOW;
            while !from(at).await {
                at += 1;
            }
            store.leave("test").await.unwrap();
            at - NOW
        };
        let asked = Job { due_at: NOW + 5, created_at: NOW + 5, ..job("a.example") };
        let ask = async || {
            assert_eq!(store.order_now(&asked, &ask(&Default::default(), None)).await.unwrap(), Asked::Ordered)
        };
        ask().await;
        assert_eq!(due_at().await, LOOK_AGAIN_SECONDS);
        let when = async |when| {
            assert!(store.order_when(&name("a.example"), when, &asked.clone().when(when), "test").await.unwrap());
        };
        when(OrderWhen::FirstVisit).await;
        assert_eq!(due_at().await, LOOK_AGAIN_SECONDS);
        ask().await;
        assert_eq!(due_at().await, LOOK_AGAIN_SECONDS);
        let wish = Wish::Profile(Some("short"));
        assert!(store.wish(&name("a.example"), wish, "test").await.unwrap());
        assert_eq!(due_at().await, LOOK_AGAIN_SECONDS);
    }
}

#[tokio::test]
async fn an_order_that_is_asked_for_waits_for_no_visitor() {
    for fresh in fresh().await {
        let store = Store::open(&fresh.url).await.unwrap();
        store.register("shop", &awaited("a.example"), 0, "test").await.unwrap();
        let asked = store.order_now(&job("a.example"), &ask(&Default::default(), None)).await.unwrap();
        assert_eq!(asked, Asked::Ordered);
        assert_eq!(only_job(&store).await.job.step, Step::Queued);
        store.leave("test").await.unwrap();
    }
}

#[tokio::test]
async fn a_tenant_may_ask_for_so_many_orders_and_what_asks_for_none_takes_none() {
    for fresh in fresh().await {
        let (store, other) = (Store::open(&fresh.url).await.unwrap(), Store::open(&fresh.url).await.unwrap());
        let detail = Default::default();
        for n in 0..8 {
            store.register("shop", &awaited(&format!("n{n}.example")), 0, "test").await.unwrap();
            park(&store, &format!("n{n}.example")).await;
        }
        let takes = |how| Some(Spend::renew("shop", LIMIT.unwrap(), how));
        // Two instances, and each name twice: the second time its order is there.
        let asks = (0..8).map(|n| {
            let store = if n % 2 == 0 { store.clone() } else { other.clone() };
            let first = job(&format!("n{}.example", n / 2));
            tokio::spawn(async move {
                let detail = Default::default();
                let ask = ask(&detail, Some(Spend::renew("shop", LIMIT.unwrap(), How::Take)));
                store.order_now(&first, &ask).await.unwrap()
            })
        });
        let asked: Vec<_> = futures_util::future::join_all(asks).await.into_iter().map(Result::unwrap).collect();
        let short =
            asked.iter().find_map(|asked| if let Asked::Short(short) = asked { Some(short.clone()) } else { None });
        let short = short.unwrap();
        assert_eq!(asked.iter().filter(|asked| **asked == Asked::Ordered).count(), 4, "{asked:?}");
        assert_eq!((short.name, short.scope.as_str(), short.until), (Name::Renews, "shop", NOW + 1800));
        assert!(
            short.says().contains("tenant `shop`") && short.says().contains("renews_per_hour_max"),
            "{}",
            short.says()
        );
        assert_eq!(due(&store, NOW, 10).await.len(), 2, "who is refused leaves nothing behind");
        let free = job("n7.example");
        for (how, expected) in [(How::Take, Asked::Short(short)), (How::Charge, Asked::Ordered)] {
            assert_eq!(store.order_now(&free, &ask(&detail, takes(how))).await.unwrap(), expected);
        }
        let later = Job { created_at: NOW + 1800, due_at: NOW + 1800, ..job("n6.example") };
        assert_eq!(store.order_now(&later, &ask(&detail, takes(How::Take))).await.unwrap(), Asked::Ordered);
        assert_eq!(store.order_now(&job("n5.example"), &ask(&detail, None)).await.unwrap(), Asked::Ordered);
    }
}
