//! Bundles in a database of their own: written first, followed, swept, and never of another pair.

use contract::sealed::{RecipientHeader, SealedRecipient};

use super::fresh::split;
use super::*;
use crate::order::SealedKey;
use crate::store::apart::Place;

async fn finish(store: &Store, stored: &Stored) -> u64 {
    let bundle = bundle(stored.job.domain.as_str(), stored.job.revision);
    store.finish(stored, &issued(&stored.job), &bundle, &shown(stored.job.revision), &soon(NOW)).await.unwrap()
}

async fn issue(store: &Store, domain: &str) {
    store.register("shop", &job(domain), 0, "test").await.unwrap();
    finish(store, &only_job(store).await).await;
}

async fn renew(store: &Store, domain: &str) {
    assert!(renewed(store, domain).await);
    finish(store, &only_job(store).await).await;
}

/// What is there: revisions, and whether each is known to be served.
async fn there(store: &Store) -> Vec<(String, i64, bool)> {
    let query = "SELECT domain, revision, key_set IS NOT NULL FROM bundles ORDER BY domain, revision";
    asked!(store.vault(), pool => sqlx::query_as(query).fetch_all(pool).await?)
}

async fn count(store: &Store, query: &'static str) -> i64 {
    asked!(store.vault(), pool => sqlx::query_scalar(query).fetch_one(pool).await?)
}

async fn all_text(store: &Store, query: &'static str) -> String {
    let rows: Vec<String> = asked!(store, pool => sqlx::query_scalar(query).fetch_all(pool).await?);
    rows.join("\n")
}

fn row(domain: &str, revision: i64, served: bool) -> (String, i64, bool) {
    (domain.to_owned(), revision, served)
}

/// With entries that can be looked for.
fn sealed(text: &str) -> Sealed {
    let recipients =
        vec![SealedRecipient { header: RecipientHeader { kid: "k1".into() }, encrypted_key: text.to_owned() }];
    Sealed { recipients, ciphertext: text.to_owned(), ..bundle("a.example", 1).key }
}

#[tokio::test]
async fn the_bundle_that_is_served_takes_the_place_of_those_before_it_and_goes_with_its_domain() {
    for fresh in split().await {
        let store = Store::open(&fresh.url).await.unwrap();
        issue(&store, "a.example").await;
        issue(&store, "b.example").await;
        assert_eq!(there(&store).await, [row("a.example", 1, false), row("b.example", 1, false)]);
        assert_eq!(store.bundle(&name("a.example")).await.unwrap(), Some(bundle("a.example", 1)));
        assert_eq!(store.follow_bundles().await.unwrap(), 2);
        renew(&store, "a.example").await;
        // Who has read the old place still finds it.
        assert_eq!(there(&store).await.len(), 3);
        store.follow_bundles().await.unwrap();
        assert_eq!(there(&store).await, [row("a.example", 2, true), row("b.example", 1, true)]);
        store.off_board(&name("b.example"), "shop", "test").await.unwrap().unwrap();
        assert_eq!(store.bundle(&name("b.example")).await.unwrap(), None);
        store.follow_bundles().await.unwrap();
        assert_eq!(there(&store).await, [row("a.example", 2, true)]);
        // A name that comes again is not taken for the one that went.
        issue(&store, "b.example").await;
        store.follow_bundles().await.unwrap();
        assert_eq!(there(&store).await, [row("a.example", 2, true), row("b.example", 2, true)]);
        assert_eq!(store.follow_bundles().await.unwrap(), 0);
    }
}

#[tokio::test]
async fn the_other_database_never_holds_a_sealed_key() {
    for fresh in split().await {
        let store = Store::open(&fresh.url).await.unwrap();
        store.register("shop", &job("a.example"), 0, "test").await.unwrap();
        let stored = only_job(&store).await;
        let key = SealedKey { csr: vec![1, 2], sealed: sealed("SEALED-ONE") };
        let keyed = Job { step: Step::Keyed { order: Some("url".into()), key }, ..stored.job.clone() };
        let saved = store.save(stored, keyed.clone(), Some(FAR)).await.unwrap();
        let orders = "SELECT body FROM jobs UNION ALL SELECT body FROM bundles";
        let text = all_text(&store, orders).await;
        assert!(text.contains("apart:") && !text.contains("SEALED"), "{text}");
        // What is read is whole, also where it was changed by who knows nothing of keys.
        assert_eq!(only_job(&store).await.job, keyed);
        // The first certificate of two, then both.
        let first = Bundle { key: sealed("SEALED-TWO"), ..bundle("a.example", 1) };
        let first = crate::order::First { bundle: first, facts: facts() };
        let key = SealedKey { csr: vec![3], sealed: sealed("SEALED-THREE") };
        let step = Step::Finalizing { order: "url".into(), key, polls: 0 };
        let second = Job { step, first: Some(Box::new(first)), ..keyed };
        let saved = store.save(saved, second.clone(), Some(FAR)).await.unwrap();
        assert_eq!(only_job(&store).await.job, second);
        assert_eq!(count(&store, "SELECT COUNT(*) FROM sealed_keys").await, 3);
        let bundle = Bundle { key: sealed("SEALED-TWO"), ..bundle("a.example", 1) };
        store.finish(&saved, &issued(&second), &bundle, &shown(1), &soon(NOW)).await.unwrap();
        let text = all_text(&store, orders).await;
        assert!(!text.contains("SEALED") && text.contains("\"revision\":1"), "{text}");
        assert_eq!(store.bundle(&name("a.example")).await.unwrap(), Some(bundle));
        // The keys of the order are nobody's any more.
        assert_eq!(store.sweep_bundles(crate::clock::now()).await.unwrap(), 0);
        assert_eq!(store.sweep_bundles(crate::clock::now() + 3700).await.unwrap(), 3);
    }
}

fn facts() -> crate::issue::Facts {
    crate::issue::Facts {
        issued_by: String::new(),
        serial: String::new(),
        sha256: [0; 32],
        not_before: NOW,
        not_after: NOW + 1000,
        ari_id: None,
    }
}

#[tokio::test]
async fn what_a_crash_leaves_is_never_served_and_goes_in_time() {
    for fresh in split().await {
        let store = Store::open(&fresh.url).await.unwrap();
        issue(&store, "a.example").await;
        store.follow_bundles().await.unwrap();
        // Written, and never told of: by one with another certificate, one that is gone, one that has an order.
        store.register("shop", &job("waits.example"), 0, "test").await.unwrap();
        for (domain, revision) in [("a.example", 2), ("gone.example", 1), ("waits.example", 1)] {
            store.put_bundle(&bundle(domain, revision)).await.unwrap();
        }
        assert_eq!(store.bundle(&name("a.example")).await.unwrap(), Some(bundle("a.example", 1)));
        assert_eq!(store.bundle(&name("waits.example")).await.unwrap(), None);
        assert_eq!(store.bundles_by_key_set().await.unwrap().0.iter().map(|(_, count)| count).sum::<u64>(), 1);
        // Somebody may still be about to tell.
        let now = crate::clock::now();
        assert_eq!((store.follow_bundles().await.unwrap(), store.sweep_bundles(now).await.unwrap()), (0, 0));
        assert_eq!(store.sweep_bundles(now + 3700).await.unwrap(), 2);
        assert_eq!(there(&store).await, [row("a.example", 1, true), row("waits.example", 1, false)]);
        // The order comes to its end with what it had written before.
        let stored = only_job(&store).await;
        finish(&store, &stored).await;
        store.follow_bundles().await.unwrap();
        assert_eq!(there(&store).await, [row("a.example", 1, true), row("waits.example", 1, true)]);
        // The same of keys: those of an order stay for as long as it has them.
        store.register("shop", &job("keyed.example"), 0, "test").await.unwrap();
        let stored = only_job(&store).await;
        let key = SealedKey { csr: vec![1], sealed: sealed("S") };
        let keyed = Job { step: Step::Keyed { order: None, key }, ..stored.job.clone() };
        let stored = store.save(stored, keyed, Some(FAR)).await.unwrap();
        assert_eq!(store.sweep_bundles(now + 8000).await.unwrap(), 0);
        store.stop(&stored, &stored.job).await.unwrap();
        assert_eq!(store.sweep_bundles(now + 16000).await.unwrap(), 1);
    }
}

#[tokio::test]
async fn what_is_lost_is_said_to_be_and_orders_begin_anew() {
    for fresh in split().await {
        let store = Store::open(&fresh.url).await.unwrap();
        issue(&store, "a.example").await;
        store.register("shop", &job("b.example"), 0, "test").await.unwrap();
        let stored = only_job(&store).await;
        let key = SealedKey { csr: vec![1], sealed: sealed("S") };
        let keyed = Job { step: Step::Keyed { order: None, key }, spent: true, ..stored.job.clone() };
        store.save(stored, keyed, Some(FAR)).await.unwrap();
        for query in ["DELETE FROM bundles", "DELETE FROM sealed_keys"] {
            asked!(store.vault(), pool => sqlx::query(query).execute(pool).await.map(drop)?);
        }
        let error = store.bundle(&name("a.example")).await.unwrap_err();
        assert!(matches!(error, StoreError::BundleLost(_, 1)), "{error}");
        let anew = only_job(&store).await.job;
        assert_eq!((anew.step, anew.spent), (Step::Queued, false));
        // And nobody begins with such a pair.
        store.close().await;
        let error = Store::open(&fresh.url).await.err().unwrap().to_string();
        assert!(error.contains("`store.bundles` is older") && error.contains("no revision 1 of a.example"), "{error}");
    }
}

#[tokio::test]
async fn an_upload_that_is_refused_leaves_nothing() {
    for fresh in split().await {
        let store = Store::open(&fresh.url).await.unwrap();
        issue(&store, "a.example").await;
        store.follow_bundles().await.unwrap();
        let (bundle, shown) = (Bundle { issuer: OWN.into(), ..bundle("a.example", 0) }, shown(0));
        let (status, warn_at) = crate::renew::own::standing(NOW, NOW + 1000, NOW);
        let (bundle, shown, status) = (&bundle, &shown, &status);
        let upload = Upload { tenant: "other", bundle, shown, status, warn_at, names_max: 0, actor: "test", now: NOW };
        assert!(matches!(store.upload(&upload).await.unwrap(), Uploaded::Taken));
        assert_eq!(there(&store).await, [row("a.example", 1, true)]);
        let upload = Upload { tenant: "shop", ..upload };
        assert!(matches!(store.upload(&upload).await.unwrap(), Uploaded::Served { .. }));
        store.follow_bundles().await.unwrap();
        assert_eq!(there(&store).await, [row("a.example", 2, true)]);
    }
}

/// Two that bring the same certificate at once have it in one place.
#[tokio::test]
async fn of_two_uploads_of_one_certificate_at_once_the_second_takes_nothing_from_the_first() {
    for fresh in split().await {
        let store = Store::open(&fresh.url).await.unwrap();
        let (bundle, shown) = (Bundle { issuer: OWN.into(), ..bundle("a.example", 0) }, shown(0));
        let (status, warn_at) = crate::renew::own::standing(NOW, NOW + 1000, NOW);
        let (bundle, shown, status) = (&bundle, &shown, &status);
        let upload = Upload { tenant: "shop", bundle, shown, status, warn_at, names_max: 0, actor: "test", now: NOW };
        assert!(matches!(store.upload_as(&upload, 1).await.unwrap(), Some(Uploaded::Served { .. })));
        // The other has read the same number, and is late; or it is another tenant's.
        assert!(store.upload_as(&upload, 1).await.unwrap().is_none());
        let other = Upload { tenant: "other", ..upload };
        assert!(matches!(store.upload_as(&other, 1).await.unwrap(), Some(Uploaded::Taken)));
        assert_eq!(store.bundle(&name("a.example")).await.unwrap().map(|bundle| bundle.revision), Some(1));
        let tasks = (0..8).map(|_| async { store.upload(&upload).await.unwrap() });
        let served = futures_util::future::join_all(tasks).await;
        assert!(served.iter().all(|served| matches!(served, Uploaded::Served { .. })), "{served:?}");
        assert_eq!(store.bundle(&name("a.example")).await.unwrap().map(|bundle| bundle.revision), Some(9));
        store.follow_bundles().await.unwrap();
        assert_eq!(there(&store).await, [row("a.example", 9, true)]);
    }
}

/// One that is lost is renewed, or brought again; many that are lost are another day's.
#[tokio::test]
async fn one_bundle_that_is_lost_keeps_nobody_from_starting() {
    for fresh in split().await {
        let store = Store::open(&fresh.url).await.unwrap();
        for domain in ["a.example", "b.example", "c.example", "d.example"] {
            issue(&store, domain).await;
        }
        let lose = async |store: &Store, query: &'static str| {
            asked!(store.vault(), pool => sqlx::query(query).execute(pool).await.map(drop)?);
            store.close().await;
        };
        lose(&store, "DELETE FROM bundles WHERE domain = 'd.example'").await;
        let store = Store::open(&fresh.url).await.unwrap();
        assert!(matches!(store.bundle(&name("d.example")).await, Err(StoreError::BundleLost(_, 1))));
        renew(&store, "d.example").await;
        assert!(store.bundle(&name("d.example")).await.unwrap().is_some());
        lose(&store, "DELETE FROM bundles WHERE domain IN ('c.example', 'd.example')").await;
        let says = refused(&fresh.url).await;
        assert!(says.contains("`store.bundles` is older") && says.contains("no revision 2 of d.example"), "{says}");
    }
}

async fn refused(places: &Places) -> String {
    Store::open(places).await.err().expect("it was opened").to_string()
}

#[tokio::test]
async fn databases_that_do_not_belong_together_are_refused() {
    let (mut one, mut other) = (split().await, split().await);
    for (one, other) in one.drain(..).zip(other.drain(..)) {
        let at = |store: &Fresh, bundles: &Fresh| Places {
            store: store.url.store.clone(),
            bundles: bundles.url.bundles.clone(),
        };
        let store = Store::open(&one.url).await.unwrap();
        issue(&store, "a.example").await;
        store.close().await;
        // One that nobody has used yet has no pair, and no bundle.
        let says = refused(&at(&one, &other)).await;
        assert!(says.contains("older than the rest, or another: it has no revision 1 of a.example"), "{says}");
        Store::open(&other.url).await.unwrap().close().await;
        let says = refused(&at(&one, &other)).await;
        assert!(says.contains("do not belong together") && says.contains("restore"), "{says}");
        let says = refused(&at(&other, &one)).await;
        assert!(says.contains("do not belong together"), "{says}");
        // Half of the pair, or each in the other's place.
        let says = refused(&one.url.store.clone().into()).await;
        assert!(says.contains("the boot file does not name it: set `store.bundles`"), "{says}");
        let says = refused(&one.url.bundles.clone().unwrap().into()).await;
        assert!(says.contains("`store.url` names a database of bundles"), "{says}");
        let turned = Places { store: other.url.store.clone(), bundles: Some(one.url.store.clone()) };
        let says = refused(&turned).await;
        assert!(says.contains("`store.bundles` names the database of a CertService"), "{says}");
        Store::open(&one.url).await.unwrap();
    }
    // One that holds bundles itself does not lose them to an empty place.
    for (together, apart) in together().await.into_iter().zip(split().await) {
        let store = Store::open(&together.url).await.unwrap();
        issue(&store, "a.example").await;
        store.close().await;
        let places = Places { bundles: apart.url.bundles.clone(), ..together.url.clone() };
        let says = refused(&places).await;
        assert!(says.contains("holds bundles itself, such as that of a.example"), "{says}");
        assert!(Store::open(&together.url).await.unwrap().bundle(&name("a.example")).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn a_store_that_was_put_back_to_an_earlier_day_is_refused() {
    for fresh in split().await {
        let store = Store::open(&fresh.url).await.unwrap();
        issue(&store, "a.example").await;
        issue(&store, "b.example").await;
        store.follow_bundles().await.unwrap();
        let back = "DELETE FROM changes WHERE domain = 'b.example'";
        asked!(store, pool => sqlx::query(back).execute(pool).await.map(drop)?);
        store.close().await;
        let says = refused(&fresh.url).await;
        assert!(says.contains("its changes end with 1, and 2 was there") && says.contains("one moment"), "{says}");
    }
}

/// A crash between the two halves of a name.
#[tokio::test]
async fn a_pair_that_was_half_named_is_named() {
    for fresh in split().await {
        let store = Store::open(&fresh.url).await.unwrap();
        issue(&store, "a.example").await;
        let half = "UPDATE pair SET pair = ''";
        asked!(store.vault(), pool => sqlx::query(half).execute(pool).await.map(drop)?);
        store.close().await;
        let store = Store::open(&fresh.url).await.unwrap();
        assert_eq!(count(&store, "SELECT COUNT(*) FROM pair WHERE pair <> ''").await, 1);
        assert!(store.bundle(&name("a.example")).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn a_newer_schema_of_bundles_is_refused_and_an_interrupted_one_made_again() {
    for fresh in split().await {
        let store = Store::open(&fresh.url).await.unwrap();
        issue(&store, "a.example").await;
        if fresh.is_mysql() {
            // No text goes by the server's default.
            let columns = "SELECT COUNT(*) FROM information_schema.columns \
                WHERE table_schema = DATABASE() AND character_set_name NOT IN ('utf8mb4', 'ascii')";
            assert_eq!(count(&store, columns).await, 0);
            let forget = "DELETE FROM bundle_schema_versions";
            asked!(store.vault(), pool => sqlx::query(forget).execute(pool).await.map(drop)?);
            store.close().await;
            let store = Store::open(&fresh.url).await.unwrap();
            assert!(store.bundle(&name("a.example")).await.unwrap().is_some());
        }
        let store = Store::open(&fresh.url).await.unwrap();
        let newer = "INSERT INTO bundle_schema_versions VALUES (99)";
        asked!(store.vault(), pool => sqlx::query(newer).execute(pool).await.map(drop)?);
        let says = refused(&fresh.url).await;
        assert!(says.contains("the database of bundles: the database has schema version 99"), "{says}");
    }
}

#[test]
fn a_place_says_which_certificates() {
    let bundle = Bundle { x5c: Bundle::encode_chain([b"leaf".as_slice(), b"issuer"]), ..bundle("a.example", 3) };
    let place = Place::of(&bundle);
    assert_eq!((place.revision, place.certificates.len(), place.shown().len()), (3, 64, 64));
    let rsa = contract::Second { x5c: Bundle::encode_chain([b"second".as_slice()]), key: bundle.key.clone() };
    let both = Place::of(&Bundle { rsa: Some(rsa), ..bundle });
    assert_eq!((both.certificates.len(), both.shown()), (129, place.shown()));
    let text = both.text("a.example").unwrap();
    assert!(text.starts_with("{\"revision\":"), "queries go by it: {text}");
    assert_eq!(Place::read("a.example", &text).unwrap(), both);
}
