//! Lists of domains: each line counts once, whoever works on it and however often.

use super::*;
use crate::intake::{Format, Refusal, Wanted};

const NEW: NewList<'static> =
    NewList { own_tenant: "shop", key: Some("k"), format: Format::Csv, others: &NOTHING, actor: "test" };
static NOTHING: Wanted =
    Wanted { name: String::new(), tenant: None, issuer: None, issuers: None, profile: None, www: None, order: None };

fn done(names: &[&str]) -> PartDone {
    let new = names.iter().zip(1..).map(|(name, line)| (line, "shop".to_owned(), job(name))).collect();
    PartDone { lines: names.len() as u64, new, names_max: 3, refused: vec![] }
}

fn too_many(name: &Hostname) -> Refusal {
    Refusal { code: "too_many_names", says: format!("no room for {name}") }
}

#[tokio::test]
async fn a_list_counts_what_is_new_what_is_known_and_what_is_refused() {
    for fresh in together().await {
        let store = Store::open(&fresh.url).await.unwrap();
        store.register("shop", &job("known.example"), 0, "test").await.unwrap();
        store.register("other", &job("taken.example"), 0, "test").await.unwrap();
        let (list, is_new) = store.begin_list(&NEW, NOW).await.unwrap();
        assert!(is_new);
        assert_eq!(store.begin_list(&NEW, NOW + 1).await.unwrap(), (list.clone(), false));
        let (other, is_new) = store.begin_list(&NewList { own_tenant: "other", ..NEW }, NOW).await.unwrap();
        assert!(is_new && other != list, "keys are each caller's own");
        store.add_part(&list, 1, "…", NOW).await.unwrap();
        assert!(store.next_part().await.unwrap().is_none(), "it has not arrived whole");
        store.list_arrived(&list, 7).await.unwrap();
        let part = store.next_part().await.unwrap().unwrap();
        assert_eq!((part.list.as_str(), part.first_line, part.body.as_str()), (list.as_str(), 1, "…"));
        let names =
            ["known.example", "taken.example", "a.shop.example", "b.shop.example", "c.shop.example", "d.shop.example"];
        let mut done = done(&names);
        done.refused.push((7, Refusal { code: "invalid_line", says: "what?".into() }));
        done.lines += 1;
        assert!(store.finish_part(&part, &done, too_many).await.unwrap());
        assert!(!store.finish_part(&part, &done, too_many).await.unwrap(), "it is done once");
        let shown = store.list(&list, "", 0, 10).await.unwrap().unwrap();
        assert_eq!((shown.over, shown.lines, shown.done), (true, 7, 7));
        assert_eq!((shown.registered, shown.known, shown.refused), (3, 1, 3));
        assert_eq!(shown.domains.iter().map(|group| group.count).sum::<u64>(), 4, "those it has found are in it");
        let errors: Vec<_> = shown.errors.iter().map(|error| (error.line, error.code.as_str())).collect();
        assert_eq!(errors, [(2, "domain_taken"), (6, "too_many_names"), (7, "invalid_line")]);
        assert_eq!(store.list(&list, "shop", 6, 10).await.unwrap().unwrap().errors.len(), 1);
        assert_eq!(store.list(&list, "other", 0, 10).await.unwrap(), None, "it is the other tenant's");
        assert_eq!(store.domain(&name("a.shop.example")).await.unwrap().unwrap().tenant, "shop");
        assert_eq!(store.forget_lists(NOW + 1, NOW).await.unwrap(), 2);
        assert_eq!(store.list(&list, "", 0, 10).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_part_that_several_take_counts_once() {
    for fresh in together().await {
        let store = Store::open(&fresh.url).await.unwrap();
        let (list, _) = store.begin_list(&NEW, NOW).await.unwrap();
        store.add_part(&list, 1, "…", NOW).await.unwrap();
        store.list_arrived(&list, 2).await.unwrap();
        let part = store.next_part().await.unwrap().unwrap();
        let takes = (0..6).map(|_| {
            let (store, part) = (store.clone(), part.clone());
            tokio::spawn(async move {
                store.finish_part(&part, &done(&["a.example", "b.example"]), too_many).await.unwrap()
            })
        });
        let mut taken = 0;
        for take in takes.collect::<Vec<_>>() {
            taken += usize::from(take.await.unwrap());
        }
        let shown = store.list(&list, "", 0, 10).await.unwrap().unwrap();
        assert_eq!((taken, shown.done, shown.registered, shown.known), (1, 2, 2, 0));
        assert_eq!(due(&store, FAR, 10).await.len(), 2);
    }
}

#[tokio::test]
async fn a_registered_domain_has_as_many_names_as_it_may() {
    for fresh in together().await {
        let store = Store::open(&fresh.url).await.unwrap();
        let register = async |name: &str, most| store.register("shop", &job(name), most, "test").await.unwrap();
        for name in ["shop.co.uk", "a.shop.co.uk"] {
            assert!(matches!(register(name, 2).await, Registered::New(_)));
        }
        assert_eq!(register("b.shop.co.uk", 2).await, Registered::TooMany);
        assert!(matches!(register("a.shop.co.uk", 2).await, Registered::Known(_)), "what is there stays");
        assert!(matches!(register("other.co.uk", 2).await, Registered::New(_)));
        assert!(matches!(register("b.shop.co.uk", 3).await, Registered::New(_)));
        assert!(matches!(register("c.shop.co.uk", 0).await, Registered::New(_)));
        store.off_board(&name("a.shop.co.uk"), "shop", "test").await.unwrap();
        assert!(matches!(register("d.shop.co.uk", 4).await, Registered::New(_)), "what goes makes room");
        let theirs = store.register("other", &job("theirs.shop.co.uk"), 1, "test").await.unwrap();
        assert!(matches!(theirs, Registered::New(_)), "each tenant has its own");
    }
}

#[tokio::test]
async fn a_wildcard_and_the_names_that_it_covers_are_one_tenants() {
    for fresh in together().await {
        let store = Store::open(&fresh.url).await.unwrap();
        let register = async |tenant: &str, name: &str| store.register(tenant, &job(name), 0, "test").await.unwrap();
        assert!(matches!(register("shop", "*.shop.example").await, Registered::New(_)));
        assert_eq!(register("other", "a.shop.example").await, Registered::Taken);
        assert_eq!(register("other", "shop.example").await, Registered::Taken);
        assert!(matches!(register("other", "a.a.shop.example").await, Registered::New(_)), "no wildcard covers that");
        assert!(matches!(register("shop", "a.shop.example").await, Registered::New(_)));
        assert!(matches!(register("shop", "blog.example").await, Registered::New(_)));
        assert_eq!(register("other", "*.blog.example").await, Registered::Taken);
        assert!(matches!(register("shop", "*.blog.example").await, Registered::New(_)));
    }
}

#[tokio::test]
async fn a_list_that_was_broken_off_begins_anew() {
    for fresh in together().await {
        let store = Store::open(&fresh.url).await.unwrap();
        let (list, _) = store.begin_list(&NEW, NOW).await.unwrap();
        store.add_part(&list, 1, "…", NOW + 50).await.unwrap();
        assert!(!store.remove_broken_off(&list, NOW + 50).await.unwrap(), "it still arrives");
        assert!(store.remove_broken_off(&list, NOW + 51).await.unwrap());
        let (other, is_new) = store.begin_list(&NEW, NOW + 60).await.unwrap();
        assert!(is_new && other != list);
        store.list_arrived(&other, 1).await.unwrap();
        assert!(!store.remove_broken_off(&other, FAR).await.unwrap(), "what has arrived is worked off");
    }
}

/// Whatever is asked for, a tenant waits for no other's names.
#[tokio::test]
async fn a_page_of_a_tenant_is_read_from_its_own_names() {
    for fresh in fresh().await {
        let store = Store::open(&fresh.url).await.unwrap();
        for (domain, tenant) in [("c.example", "one"), ("a.example", "one"), ("b.example", "two"), ("d.example", "one")]
        {
            store.register(tenant, &job(domain), 0, "test").await.unwrap();
        }
        for stored in due(&store, FAR, 10).await {
            let (domain, ends) = (stored.job.domain.as_str(), u64::from(stored.job.domain.as_str().as_bytes()[0]));
            if domain != "d.example" {
                let bundle = Bundle { not_after: NOW - ends, ..bundle(domain, 1) };
                store.finish(&stored, &issued(&stored.job), &bundle, &shown(1), &soon(NOW)).await.unwrap();
            }
        }
        let (live, working) = (Some(State::Live), Some(State::Working));
        let cases = [
            (None, None, None, "a b c d"),
            (Some("one"), None, None, "a c d"),
            (None, live, None, "a b c"),
            (Some("one"), live, None, "a c"),
            (Some("one"), working, None, "d"),
            (Some("ONE"), live, None, ""),
            (None, None, Some(FAR), "c b a"),
            (Some("one"), None, Some(FAR), "c a"),
            (Some("one"), live, Some(NOW - 98), "c"),
            (None, live, Some(FAR), "c b a"),
            (Some("one"), working, Some(FAR), ""),
        ];
        for (tenant, state, ends_before, names) in cases {
            let filter = Filter { state, tenant, ends_before };
            let found = store.domains(&filter, (0, ""), 10).await.unwrap();
            let found: Vec<_> = found.iter().map(|domain| &domain.name.as_str()[..1]).collect();
            assert_eq!(found.join(" "), names, "{filter:?}");
            let super::Pool::Sqlite(Sqlite { reads, .. }) = &store.pool else { continue };
            let query = format!("EXPLAIN QUERY PLAN {}", crate::store::shown::page(&filter));
            let plan: Vec<(i64, i64, i64, String)> =
                sqlx::query_as(sqlx::AssertSqlSafe(query)).fetch_all(reads).await.unwrap();
            let by = if tenant.is_some() { "(tenant=? AND" } else { "" };
            assert!(plan.len() == 1 && plan[0].3.contains("SEARCH") && plan[0].3.contains(by), "{filter:?}: {plan:?}");
        }
    }
}
