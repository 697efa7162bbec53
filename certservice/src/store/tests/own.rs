//! Certificates that were brought along, and what domains wish for.

use super::*;
use crate::renew::own::standing;

async fn upload(store: &Store, tenant: &str, domain: &str, names_max: u64) -> Uploaded {
    let (bundle, shown) = (Bundle { issuer: OWN.into(), ..bundle(domain, 0) }, shown(0));
    let (status, warn_at) = standing(NOW, NOW + 1000, NOW);
    let (bundle, shown, status, actor) = (&bundle, &shown, &status, "test");
    store.upload(&Upload { tenant, bundle, shown, status, warn_at, names_max, actor, now: NOW }).await.unwrap()
}

#[tokio::test]
async fn an_upload_takes_the_place_of_an_order_and_gives_it_back() {
    for fresh in fresh().await {
        let store = Store::open(&fresh.url).await.unwrap();
        let name = name("a.example");
        store.register("shop", &job("a.example"), 0, "test").await.unwrap();
        assert!(matches!(upload(&store, "other", "a.example", 0).await, Uploaded::Taken));
        let Uploaded::Served { bundle, new: false, .. } = upload(&store, "shop", "a.example", 0).await else {
            panic!()
        };
        assert_eq!((bundle.revision, store.bundle(&name).await.unwrap()), (1, Some(*bundle)));
        assert!(store.jobs_by_step().await.unwrap().is_empty(), "the order is given up");
        let domain = store.domain(&name).await.unwrap().unwrap();
        assert_eq!((domain.issuer.as_str(), domain.code.as_str()), (OWN, "own_certificate"));
        // Nobody renews it, however late it is.
        assert!(store.renewals(OWN, FAR, 10).await.unwrap().is_empty());
        assert!(store.urgent_renewals(FAR, 10).await.unwrap().is_empty());
        assert_eq!(store.changes(0, 10).await.unwrap().changes.len(), 1);
        let Uploaded::Served { bundle, .. } = upload(&store, "shop", "a.example", 0).await else { panic!() };
        assert_eq!(bundle.revision, 2);

        let order = Job::instead_of_own(&domain, "ca".into(), 2, NOW);
        assert!(store.give_up_own(&order, "test").await.unwrap());
        let stored = only_job(&store).await;
        assert_eq!((stored.job.revision, stored.job.kind()), (3, crate::budget::Kind::New));
        assert_eq!(store.own_ending(FAR, 10).await.unwrap(), []);
        store
            .finish(&stored, &issued(&stored.job), &super::bundle("a.example", 3), &shown(3), &soon(NOW))
            .await
            .unwrap();
        assert_eq!(store.domain(&name).await.unwrap().unwrap().issuer, "ca");
        assert!(!store.give_up_own(&order, "test").await.unwrap());
    }
}

#[tokio::test]
async fn a_new_name_is_registered_within_its_bound_and_its_owner_warned_once() {
    for fresh in fresh().await {
        let store = Store::open(&fresh.url).await.unwrap();
        let first = upload(&store, "shop", "a.example", 1).await;
        assert!(matches!(first, Uploaded::Served { new: true, .. }), "{first:?}");
        assert!(matches!(upload(&store, "shop", "b.a.example", 1).await, Uploaded::TooMany));
        assert!(matches!(upload(&store, "shop", "a.example", 1).await, Uploaded::Served { new: false, .. }));
        let warn_at = standing(NOW, NOW + 1000, NOW).1.unwrap();
        assert_eq!(store.own_ending(warn_at - 1, 10).await.unwrap(), []);
        let ending = store.own_ending(warn_at, 10).await.unwrap();
        assert_eq!(ending, [(name("a.example"), NOW + 1000, warn_at)]);
        let (status, next) = standing(NOW, NOW + 1000, warn_at);
        for _ in 0..2 {
            store.warn_own(&name("a.example"), warn_at, &status, next).await.unwrap();
        }
        assert_eq!(store.own_by_code().await.unwrap(), [("own_certificate_ends".to_owned(), 1)]);
        assert_eq!(store.own_ending(warn_at, 10).await.unwrap(), []);
        let told = store.journal(None, 0, 100).await.unwrap();
        assert_eq!(told.iter().filter(|entry| entry.action == "domain.state").count(), 1);
    }
}

#[tokio::test]
async fn a_wish_reaches_an_order_that_waits_and_whoever_had_it_writes_no_more() {
    for fresh in fresh().await {
        let store = Store::open(&fresh.url).await.unwrap();
        store.register("shop", &job("a.example"), 0, "test").await.unwrap();
        let mine = only_job(&store).await;
        let issuers = ["b".to_owned(), "ca".to_owned()];
        let name = name("a.example");
        assert!(store.wish(&name, Wish::Issuers(&issuers), "test").await.unwrap());
        assert!(store.wish(&name, Wish::Profile(Some("classic")), "test").await.unwrap());
        assert!(!store.wish(&super::name("b.example"), Wish::Profile(None), "test").await.unwrap());
        let domain = store.domain(&name).await.unwrap().unwrap();
        assert_eq!((&domain.issuers[..], domain.profile.as_deref()), (&issuers[..], Some("classic")));
        let saved = store.save(mine.clone(), mine.job.clone(), None).await;
        assert!(matches!(saved, Err(StoreError::Conflict(_))), "{saved:?}");
        let now = only_job(&store).await;
        assert_eq!((&now.job.issuers[..], now.job.profile.as_deref()), (&issuers[..], Some("classic")));
        store.wish(&name, Wish::Profile(None), "test").await.unwrap();
        assert_eq!(store.domain(&name).await.unwrap().unwrap().profile, None);
    }
}

#[tokio::test]
async fn from_the_line_of_a_closed_issuer_goes_only_what_may_go_elsewhere() {
    for fresh in fresh().await {
        let store = Store::open(&fresh.url).await.unwrap();
        for (domain, others_at) in
            [("stays.example", None), ("later.example", Some(NOW + 60)), ("goes.example", Some(NOW))]
        {
            let step = Step::InLine { checked_at: NOW };
            store.register("shop", &Job { step, ..job(domain) }, 0, "test").await.unwrap();
            let stored = taken(&store, ("ca", Stage::InLine, false), ("x", FAR), NOW, 10).await;
            let stored = stored.into_iter().find(|stored| stored.job.domain.as_str() == domain).unwrap();
            let job = Job { others_at, ..stored.job.clone() };
            store.save(stored, job, None).await.unwrap();
            store.leave("x").await.unwrap();
        }
        let leaving = taken(&store, ("ca", Stage::InLine, true), ("y", FAR), NOW, 10).await;
        let names: Vec<_> = leaving.into_iter().map(|stored| stored.job.domain.to_string()).collect();
        assert_eq!(names, ["goes.example"]);
    }
}

#[tokio::test]
async fn an_issuer_is_told_to_be_closed_once_and_opened_once() {
    for fresh in fresh().await {
        let store = Store::open(&fresh.url).await.unwrap();
        store.know_issuers(&["ca".to_owned()]).await.unwrap();
        for turn in 0..3 {
            store.close_issuer("ca", NOW + 10 * (turn + 1), "ca_unavailable", "gone", NOW + 10 * turn).await.unwrap();
        }
        store.open_issuer("ca").await.unwrap();
        store.open_issuer("ca").await.unwrap();
        let told: Vec<_> = store.journal(None, 0, 100).await.unwrap().into_iter().map(|entry| entry.action).collect();
        assert_eq!(told, ["issuer.closed", "issuer.opened"]);
        assert_eq!(store.issuers().await.unwrap()[0].failures, 0);
    }
}

/// Looked for, and made, in two steps: between them its owner may bring another.
#[tokio::test]
async fn no_order_that_was_looked_for_before_replaces_what_was_brought_or_renewed_since() {
    for fresh in fresh().await {
        let store = Store::open(&fresh.url).await.unwrap();
        for domain in ["a.example", "b.example"] {
            store.register("shop", &job(domain), 0, "test").await.unwrap();
        }
        let issue = async |stored: Stored, revision: u64| {
            let bundle = bundle(stored.job.domain.as_str(), revision);
            store.finish(&stored, &issued(&stored.job), &bundle, &shown(revision), &soon(NOW)).await.unwrap();
        };
        for stored in due(&store, FAR, 10).await {
            issue(stored, 1).await;
        }
        let enqueue = async |renewal: &Renewal| {
            store.enqueue(&crate::renew::order(renewal.clone(), NOW), renewal.revision).await.unwrap()
        };
        let renewals = store.urgent_renewals(FAR, 10).await.unwrap();
        let [a, b] = renewals.as_slice() else { panic!("{renewals:?}") };
        upload(&store, "shop", "a.example", 0).await;
        assert!(!enqueue(a).await, "it was uploaded");
        let (order, detail) = (crate::renew::order(a.clone(), NOW), Default::default());
        let asked = store
            .order_now(&order, &Ask { actor: "test", action: "domain.renewal_asked", detail: &detail, takes: None })
            .await
            .unwrap();
        assert_eq!(asked, Asked::Own);
        assert!(store.jobs_by_step().await.unwrap().is_empty());
        assert_eq!(store.domain(&a.name).await.unwrap().unwrap().issuer, OWN);
        // Two instances that have found the same one make one order of it, however late one of them is.
        assert!(enqueue(b).await);
        assert!(!enqueue(b).await, "there is one");
        issue(only_job(&store).await, 2).await;
        assert!(!enqueue(b).await, "it was renewed");
        assert!(renewed(&store, "b.example").await);
    }
}
