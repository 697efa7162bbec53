//! A backup of one database goes into any other, whole or not at all.

use contract::bundle::sha256;
use contract::journal::Head;

use super::*;
use crate::store::backup::{Cell, Piece, TABLES};

fn certified(domain: &str, revision: u64) -> (Bundle, CertificateInfo) {
    let der = format!("the certificate {revision} of {domain}");
    let hex = sha256(der.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    let bundle = Bundle { x5c: Bundle::encode_chain([der.as_bytes()]), ..bundle(domain, revision) };
    (bundle, CertificateInfo { sha256: hex, ..shown(revision) })
}

async fn finish(store: &Store, stored: &Stored) {
    let (bundle, shown) = certified(stored.job.domain.as_str(), stored.job.revision);
    store.finish(stored, &issued(&stored.job), &bundle, &shown, &soon(NOW)).await.unwrap();
}

/// Two domains with certificates, one that has gone, an order that somebody holds with its answers, a budget, ticket keys.
async fn lived(store: &Store) {
    for domain in ["a.example", "b.example", "gone.example", "waits.example"] {
        store.register("shop", &job(domain), 0, "test").await.unwrap();
    }
    for stored in due(store, FAR, 10).await {
        if stored.job.domain.as_str() == "waits.example" {
            let answers = vec![answer("waits.example", "t1")];
            let job = Job { answers, step: Step::Answering { order: "url".into() }, ..stored.job.clone() };
            store.save(stored, job, Some(FAR)).await.unwrap();
        } else {
            finish(store, &stored).await;
        }
    }
    store.off_board(&name("gone.example"), "shop", "test").await.unwrap().unwrap();
    let keys = contract::TicketKeys { revision: 1, lifetime_seconds: 60, keys: vec![] };
    assert!(store.replace_ticket_keys(0, &keys).await.unwrap());
}

async fn copied(store: &Store) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut keep = |piece| {
        pieces.push(piece);
        Ok(())
    };
    store.copy_out(&mut keep).await.unwrap();
    pieces
}

async fn put(store: &Store, pieces: &[Piece]) -> Result<Restored, StoreError> {
    let mut left = pieces.iter().cloned();
    store.copy_in(&mut || Ok(left.next()), NOW).await
}

/// A new store of another kind than the one of this number.
async fn another(number: usize) -> (Store, Fresh) {
    let mut all = fresh().await;
    let fresh = all.remove((number + 1) % all.len());
    (Store::open(&fresh.url).await.unwrap(), fresh)
}

/// A new store of each kind.
async fn targets() -> Vec<(Store, Fresh)> {
    let mut stores = Vec::new();
    for fresh in fresh().await {
        stores.push((Store::open(&fresh.url).await.unwrap(), fresh));
    }
    stores
}

#[tokio::test]
async fn what_is_restored_is_what_was_there_and_goes_on_above_it() {
    for (number, (from, _from)) in targets().await.into_iter().enumerate() {
        lived(&from).await;
        let pieces = copied(&from).await;
        let before = from.changes(0, 10).await.unwrap();
        for same in [0, 1] {
            let (store, _fresh) = another(number + same).await;
            let restored = put(&store, &pieces).await.unwrap();
            assert_eq!((restored.domains, restored.bundles), (3, 2));
            for domain in ["a.example", "b.example", "waits.example"] {
                let (old, new) =
                    (from.domain(&name(domain)).await.unwrap(), store.domain(&name(domain)).await.unwrap());
                assert_eq!(old, new);
                assert_eq!(store.bundle(&name(domain)).await.unwrap(), from.bundle(&name(domain)).await.unwrap());
            }
            assert_eq!(store.domain(&name("gone.example")).await.unwrap(), None);
            assert!(store.challenge(&name("waits.example"), "t1").await.unwrap().is_some());
            // An edge that has read all reads all again, in the same order; and so does one that has read more since.
            let since = before.cursor + 1000;
            let after = store.changes(since, 10).await.unwrap();
            let names = |page: &contract::api::ChangePage| -> Vec<_> {
                page.changes.iter().map(|change| (change.domain.clone(), change.revision)).collect()
            };
            assert_eq!(names(&after), names(&before));
            assert!(after.cursor > since && after.changes.iter().all(|change| change.cursor > since));
            // The order is anybody's at once, and brings what no edge can have seen.
            let mut orders = due(&store, NOW, 10).await;
            let waits = orders.remove(0);
            assert!(orders.is_empty() && waits.job.revision > 1000, "{waits:?}");
            assert!(matches!(waits.job.step, Step::Answering { .. }));
            finish(&store, &waits).await;
            assert!(renewed(&store, "a.example").await);
            assert!(only_job(&store).await.job.revision > 1000);
            assert_eq!(store.ticket_keys().await.unwrap(), from.ticket_keys().await.unwrap());
            // The journal goes on from there.
            let mut head = Head::default();
            let entries = store.journal(None, 0, 100).await.unwrap();
            entries.iter().for_each(|entry| head.follow(entry).unwrap());
            let told = entries.iter().find(|entry| entry.action == "store.restored").unwrap();
            assert_eq!(told.seq, restored.journal_seq + 1);
            // A copy of the copy is as good.
            let again = copied(&store).await;
            let (third, _fresh) = another(number + 2).await;
            put(&third, &again).await.unwrap();
            let shown = async |store: &Store| store.domain(&name("a.example")).await.unwrap();
            assert_eq!(shown(&third).await, shown(&store).await);
        }
    }
}

/// As an earlier version has written it: a domain with a certificate.
async fn write_old(store: &Store, domain: &str) {
    let (bundle, shown) = certified(domain, 1);
    let (bundle, shown) = (serde_json::to_string(&bundle).unwrap(), serde_json::to_string(&shown).unwrap());
    let insert = "INSERT INTO domains (name, tenant, issuer, state, code, says, who, created_at, certificate) \
        VALUES (?, 'shop', 'ca', 'live', 'issued', 'it is served', 'nobody', 1, ?)";
    asked!(store, pool => sqlx::query(insert).bind(domain).bind(shown).execute(pool).await.map(drop)?);
    let insert = "INSERT INTO bundles (domain, body) VALUES (?, ?)";
    asked!(store, pool => sqlx::query(insert).bind(domain).bind(bundle).execute(pool).await.map(drop)?);
    let insert = "INSERT INTO changes (`cursor`, domain, revision, gone) VALUES (1, ?, 1, FALSE)";
    asked!(store, pool => sqlx::query(insert).bind(domain).execute(pool).await.map(drop)?);
}

/// Of before bundles could be apart, into either layout.
#[tokio::test]
async fn a_backup_of_an_earlier_version_goes_into_either_layout() {
    for fresh in fresh().await {
        let earlier = super::fresh::sqlite(false);
        let old = Store::open_at(&earlier.url, 14).await.unwrap();
        write_old(&old, "a.example").await;
        let pieces = copied(&old).await;
        let store = Store::open_at(&fresh.url, 14).await.unwrap();
        assert_eq!(put(&store, &pieces).await.unwrap().bundles, 1);
        store.close().await;
        let store = Store::open(&fresh.url).await.unwrap();
        let (bundle, _) = certified("a.example", 1);
        assert_eq!(store.bundle(&name("a.example")).await.unwrap(), Some(bundle));
        // A restore that was broken off after its bundles is begun again, and one over another's bundles is not.
        let Some(bundles) = fresh.url.bundles.clone() else { continue };
        let another = super::fresh::sqlite(false);
        let places = Places { store: another.url.store.clone(), bundles: Some(bundles) };
        let target = Store::open_at(&places, 14).await.unwrap();
        let error = put(&target, &pieces).await.unwrap_err().to_string();
        assert!(error.contains("belongs to another CertService"), "{error}");
        assert!(store.bundle(&name("a.example")).await.unwrap().is_some());
        asked!(store.vault(), pool => sqlx::query("UPDATE pair SET pair = ''").execute(pool).await.map(drop)?);
        assert_eq!(put(&target, &pieces).await.unwrap().bundles, 1);
        target.close().await;
        let target = Store::open(&places).await.unwrap();
        assert!(target.bundle(&name("a.example")).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn every_table_is_in_a_backup() {
    for (store, fresh) in targets().await {
        let query = match fresh.url.store {
            StoreUrl::Sqlite(_) => "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'",
            StoreUrl::Mysql(_) => {
                "SELECT CAST(table_name AS CHAR) FROM information_schema.tables WHERE table_schema = DATABASE()"
            }
        };
        let mut tables: Vec<String> = asked!(store, pool => sqlx::query_scalar(query).fetch_all(pool).await?);
        // Which steps were made, and which pair it is half of, is each database's own.
        tables.retain(|table| !["schema_versions", "bundle_store"].contains(&table.as_str()));
        tables.sort();
        let mut known = TABLES.to_vec();
        known.sort_unstable();
        assert_eq!(tables, known);
    }
}

#[tokio::test]
async fn what_is_not_whole_changes_nothing() {
    for (number, (from, _from)) in targets().await.into_iter().enumerate() {
        lived(&from).await;
        let good = copied(&from).await;
        let row_of = |table: &str| {
            let at = good.iter().position(|piece| matches!(piece, Piece::Table { table: t, .. } if t == table));
            at.unwrap() + 1
        };
        let changed = |at: usize, change: fn(&mut Vec<Cell>)| {
            let mut pieces = good.clone();
            let Piece::Row(cells) = &mut pieces[at] else { panic!("{:?}", pieces[at]) };
            change(cells);
            pieces
        };
        let other_certificate = |cells: &mut Vec<Cell>| {
            let Cell::Text(body) = &mut cells[1] else { panic!() };
            *body = serde_json::to_string(&certified("a.example", 7).0).unwrap();
        };
        let without = |at: usize| [&good[..at], &good[at + 1..]].concat();
        let faulty = [
            (changed(row_of("bundles"), other_certificate), "the bundle of a.example"),
            (without(row_of("bundles")), "a certificate is shown"),
            (without(row_of("journal")), "entry 1 is missing"),
            (changed(row_of("journal") + 1, |cells| cells[2] = Cell::Text("somebody".into())), "entry 2 is not what"),
            (good[..row_of("journal") - 1].to_vec(), "ends before table `journal`"),
            (good[..good.len() - 1].to_vec(), "the journal ends with entry"),
            (without(row_of("journal_head")), "but its head is None"),
        ];
        let (store, _fresh) = another(number).await;
        let read = |pieces: &[Piece]| {
            let mut left = pieces.iter().cloned();
            Store::read_through(&mut || Ok(left.next()))
        };
        assert_eq!(read(&good).unwrap().domains, 3);
        // All but what only a database can tell is found before there is one.
        let found = faulty.iter().filter(|(pieces, says)| read(pieces).is_err_and(|error| error.contains(says)));
        assert_eq!(found.count(), faulty.len() - 2);
        for (pieces, says) in faulty {
            let error = put(&store, &pieces).await.unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
            // Nothing of it is there.
            assert!(store.domains(&Filter::default(), (0, ""), 10).await.unwrap().is_empty());
        }
        // The right one still goes in; another on top does not.
        put(&store, &good).await.unwrap();
        let error = put(&store, &good).await.unwrap_err().to_string();
        assert!(error.contains("holds 3 domains"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_of_one_moment_while_others_write() {
    for (store, _fresh) in targets().await {
        lived(&store).await;
        let mut pieces = Vec::new();
        let mut keep = |piece: Piece| {
            if matches!(&piece, Piece::Table { table, .. } if table == "jobs") {
                // Domains are copied; their orders and the journal are not yet.
                let late = async { store.register("shop", &job("late.example"), 0, "test").await.map(drop).unwrap() };
                tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(late));
            }
            pieces.push(piece);
            Ok(())
        };
        store.copy_out(&mut keep).await.unwrap();
        let (target, _fresh) = targets().await.remove(0);
        assert_eq!(put(&target, &pieces).await.unwrap().domains, 3);
        assert!(store.domain(&name("late.example")).await.unwrap().is_some());
    }
}

/// Bundles are put, followed and taken out all the while.
async fn replace_and_remove(store: Store) {
    let issue = async |domain: &str| {
        let stored = due(&store, FAR, 10).await.into_iter().find(|stored| stored.job.domain.as_str() == domain);
        finish(&store, &stored.unwrap()).await;
    };
    for number in 0..15 {
        assert!(renewed(&store, "a.example").await);
        issue("a.example").await;
        store.follow_bundles().await.unwrap();
        let short = format!("short{number}.example");
        store.register("shop", &job(&short), 0, "test").await.unwrap();
        issue(&short).await;
        store.off_board(&name(&short), "shop", "test").await.unwrap().unwrap();
        store.follow_bundles().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_backup_of_two_databases_is_of_one_moment_while_bundles_come_and_go() {
    for fresh in super::fresh::split().await {
        let store = Store::open(&fresh.url).await.unwrap();
        lived(&store).await;
        store.follow_bundles().await.unwrap();
        // What has gone on beyond the moment is told apart.
        let head = store.changes_head().await.unwrap();
        let mut beside = store.snapshot_beside(head).await.unwrap().unwrap();
        // It says nothing until all that comes before bundles is copied.
        assert_eq!(beside.silent_seconds_max().await, fresh.is_mysql().then_some(28_800));
        drop(beside);
        assert!(store.snapshot_beside(head - 1).await.unwrap().is_none());
        let writer = tokio::spawn(replace_and_remove(store.clone()));
        let mut taken = 0;
        while !writer.is_finished() || taken == 0 {
            let pieces = copied(&store).await;
            let target = super::fresh::sqlite(true);
            let target = Store::open(&target.url).await.unwrap();
            assert!(put(&target, &pieces).await.unwrap().bundles >= 2);
            taken += 1;
        }
        writer.await.unwrap();
    }
}
