//! Edge keys, and the sets that bundles are sealed to.

use contract::sealed::{RecipientHeader, SealedRecipient};

use super::*;
use crate::keys::KeySet;

fn sealed_to(domain: &str, kids: &[&str]) -> Bundle {
    let entry = |kid: &&str| SealedRecipient {
        header: RecipientHeader { kid: (*kid).to_owned() },
        encrypted_key: "k".to_owned(),
    };
    let mut bundle = bundle(domain, 1);
    bundle.key.recipients = kids.iter().map(entry).collect();
    bundle
}

async fn issue(store: &Store, bundle: &Bundle) {
    store.register("shop", &job(bundle.domain.as_str()), 0, "test").await.unwrap();
    let stored = only_job(store).await;
    store.finish(&stored, &issued(&stored.job), bundle, &shown(1), &soon(NOW)).await.unwrap();
}

async fn counts(store: &Store) -> (Vec<(String, u64)>, u64) {
    store.follow_bundles().await.unwrap();
    let (sets, uncounted) = store.bundles_by_key_set().await.unwrap();
    let mut sets: Vec<_> = sets.into_iter().map(|(set, count)| (set.text(), count)).collect();
    sets.sort();
    (sets, uncounted)
}

#[tokio::test]
async fn bundles_are_counted_by_the_keys_that_they_are_sealed_to() {
    for fresh in fresh().await {
        let store = Store::open(&fresh.url).await.unwrap();
        for (domain, kids) in [("a.example", &["k1", "k2"][..]), ("b.example", &["k2", "k1"]), ("c.example", &["k1"])] {
            issue(&store, &sealed_to(domain, kids)).await;
        }
        assert_eq!(counts(&store).await, (vec![("k1".into(), 1), ("k1 k2".into(), 2)], 0));
        store.off_board(&name("a.example"), "shop", "test").await.unwrap();
        assert_eq!(counts(&store).await, (vec![("k1".into(), 1), ("k1 k2".into(), 1)], 0));
    }
}

#[tokio::test]
async fn entries_are_replaced_only_where_nothing_else_was_meanwhile() {
    for fresh in fresh().await {
        let store = Store::open(&fresh.url).await.unwrap();
        for domain in ["a.example", "b.example"] {
            issue(&store, &sealed_to(domain, &["k1"])).await;
        }
        store.follow_bundles().await.unwrap();
        let read = |domain: &'static str| async { store.sealed_bundle(&name(domain)).await.unwrap().unwrap() };
        let set = KeySet::parse("k1 k2?");
        let rekeyed = |before: SealedBundle| {
            let bundle = sealed_to(before.bundle.domain.as_str(), &["k1", "k2"]);
            Rekeyed { before, bundle, set: set.clone() }
        };
        let changes = [rekeyed(read("a.example").await), rekeyed(read("b.example").await)];
        assert_eq!(store.rekey(&changes[..1], "edge:1", "bundles.rewrapped", "k1").await.unwrap(), [true]);
        // The first is not what it was.
        assert_eq!(store.rekey(&changes, "edge:1", "bundles.rewrapped", "k1").await.unwrap(), [false, true]);
        assert_eq!(counts(&store).await, (vec![("k1 k2?".into(), 2)], 0));
        assert_eq!(read("a.example").await.set, set);
        // Nobody's word is needed for what stays as it is but for the set.
        let before = read("a.example").await;
        let confirmed = Rekeyed { bundle: before.bundle.clone(), before, set: KeySet::parse("k1 k2") };
        assert_eq!(store.rekey(&[confirmed], "edge:2", "bundles.rewrapped", "k2").await.unwrap(), [true]);
        assert_eq!(counts(&store).await.0, [("k1 k2".into(), 1), ("k1 k2?".into(), 1)]);
        // A new certificate begins anew.
        let page = store.bundles_of_set(&set, "a.example", 10).await.unwrap();
        assert_eq!(page.iter().map(|one| one.bundle.domain.as_str()).collect::<Vec<_>>(), ["b.example"]);
        let told = store.journal(None, 0, 20).await.unwrap();
        let told: Vec<_> = told.iter().filter(|entry| entry.action == "bundles.rewrapped").collect();
        assert_eq!((told.len(), told[1].name.as_str(), &told[1].detail["bundles"]), (3, "k1", &1.into()));
    }
}

#[tokio::test]
async fn keys_change_only_where_nobody_else_has_changed_them() {
    for fresh in fresh().await {
        let store = Store::open(&fresh.url).await.unwrap();
        let row = |kid: &str| KeyRow {
            kid: kid.into(),
            pool: "a".into(),
            public_key: "pem".into(),
            added_at: NOW,
            retired_at: None,
            mac: "00".into(),
        };
        let put = async |seen: &[KeyRow], row: &KeyRow| {
            store.change_edge_key(seen, row, "test", "key.added", Default::default()).await.unwrap()
        };
        assert!(put(&[], &row("k1")).await);
        assert!(!put(&[], &row("k2")).await);
        let retired = KeyRow { retired_at: Some(NOW + 1), ..row("k1") };
        assert!(put(&[row("k1")], &retired).await);
        assert!(put(std::slice::from_ref(&retired), &row("k2")).await);
        assert_eq!(store.edge_keys().await.unwrap(), [retired, row("k2")]);
    }
}
