use std::sync::LazyLock;

use contract::api::{Rewrapped, RewrappedBundle};
use contract::sealed::{Bound, EdgeKey, Expected, WrapKey, open, prove, rewrap, seal};
use contract::{Bundle, Hostname};

use super::*;
use crate::config::{Places, StoreUrl};
use crate::order::Status;
use crate::store::{Upload, Uploaded};

static EDGES: LazyLock<[EdgeKey; 3]> = LazyLock::new(|| std::array::from_fn(|_| EdgeKey::generate(2048).unwrap()));

const NOW: u64 = 1_800_000_000;
const CERTIFICATE: [u8; 32] = [1; 32];

fn recipient(edge: &EdgeKey) -> Recipient {
    Recipient::from_pem(&edge.public_pem().unwrap()).unwrap()
}

fn name(text: &str) -> Hostname {
    Hostname::parse(text).unwrap()
}

struct World {
    keys: Keys,
    store: Store,
    _folder: tempfile::TempDir,
}

/// The first edge is in the boot file. Bundles lie with the rest, and apart from it.
async fn worlds() -> Vec<World> {
    let mut worlds = Vec::new();
    for apart in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let bundles = apart.then(|| StoreUrl::Sqlite(folder.path().join("bundles.db")));
        let places = Places { store: StoreUrl::Sqlite(folder.path().join("test.db")), bundles };
        let store = Store::open(&places).await.unwrap();
        let keys = Keys::new(store.clone(), b"secret", vec![recipient(&EDGES[0])]);
        keys.begin().await.unwrap();
        worlds.push(World { keys, store, _folder: folder });
    }
    worlds
}

impl World {
    async fn add(&self, pool: &str, edge: &EdgeKey) {
        assert!(self.keys.add(pool, &edge.public_pem().unwrap(), "test", false).await.unwrap().1);
    }

    /// A bundle that is sealed to those that are active.
    async fn issue(&self, domain: &str) {
        let to = self.keys.active().await.unwrap();
        let key = seal(b"a private key", &name(domain), Bound::Certificate(CERTIFICATE), &to).unwrap();
        let bundle = Bundle {
            domain: name(domain),
            revision: 0,
            issuer: "own".into(),
            not_before: NOW,
            not_after: NOW + 1000,
            x5c: vec![],
            key,
            rsa: None,
        };
        let (shown, status) = (
            contract::api::CertificateInfo {
                issued_by: String::new(),
                serial: "01".into(),
                sha256: "02".into(),
                not_before: NOW,
                not_after: NOW + 1000,
                revision: 1,
            },
            Status::working("issued", ""),
        );
        let upload = Upload {
            tenant: "shop",
            bundle: &bundle,
            shown: &shown,
            status: &status,
            warn_at: None,
            names_max: 0,
            actor: "test",
            now: NOW,
        };
        assert!(matches!(self.store.upload(&upload).await.unwrap(), Uploaded::Served { .. }));
        self.store.follow_bundles().await.unwrap();
    }

    async fn opens(&self, domain: &str, edge: &EdgeKey) -> bool {
        let bundle = self.store.bundle(&name(domain)).await.unwrap().unwrap();
        let domain = name(domain);
        let expected = Expected { domain: &domain, certificate: CERTIFICATE, public_key: &|| None };
        open(&bundle.key, edge, &expected).is_ok()
    }

    /// As an edge works them off: what it brings back.
    async fn work(&self, edge: &EdgeKey, to: &[&EdgeKey]) -> contract::api::RewrapOutcome {
        let kids: Vec<_> = to.iter().map(|key| key.kid()).collect();
        let offered = self.keys.offer(edge.kid(), &kids, "", 32, NOW).await.unwrap();
        let to: Vec<_> =
            to.iter().map(|key| WrapKey::from_pem(key.public_pem().unwrap().as_bytes()).unwrap()).collect();
        let worked = |(bundle, version): (Bundle, String)| {
            let entries = rewrap(&bundle.key, edge, &to);
            let opens = entries.is_ok();
            let recipients = entries.map_or(vec![], |entries| vec![entries]);
            RewrappedBundle { name: bundle.domain, version, opens, recipients }
        };
        let brought =
            Rewrapped { kid: edge.kid().to_owned(), bundles: offered.bundles.into_iter().map(worked).collect() };
        let body = serde_json::to_vec(&brought).unwrap();
        let proof = prove(&offered.challenge, edge, &body).unwrap();
        self.keys.check_proof(edge.kid(), &body, &proof, NOW + 1800).unwrap();
        self.keys.take(&brought, "edge:test").await.unwrap().0
    }

    async fn of(&self, edge: &EdgeKey) -> (u64, u64, u64, u64) {
        let custody = self.keys.custody().await.unwrap();
        let key = custody.keys.iter().find(|key| key.kid == edge.kid()).unwrap();
        (key.sealed, key.unconfirmed, key.missing, key.alone)
    }
}

#[tokio::test]
async fn a_key_that_is_added_is_sealed_to_and_one_that_is_retired_never_again() {
    for world in worlds().await {
        let [boot, other, third] = &*EDGES;
        world.add("ams", other).await;
        let kids =
            async || world.keys.active().await.unwrap().iter().map(|key| key.kid().to_owned()).collect::<Vec<_>>();
        assert_eq!(kids().await.len(), 2);
        // Again is no other; in another pool it is refused.
        let again = |pool: &'static str| world.keys.add(pool, &OTHER_PEM, "test", false);
        static OTHER_PEM: LazyLock<String> = LazyLock::new(|| EDGES[1].public_pem().unwrap());
        assert!(!again("ams").await.unwrap().1);
        assert!(matches!(again("fra").await, Err(KeysError::OtherPool(..))));
        let retired = world.keys.retire(boot.kid(), false, false, "test").await.unwrap();
        assert_eq!((retired.retired, retired.unreadable), (true, 0));
        assert_eq!(kids().await, [other.kid()]);
        // The boot file does not bring it back, nor does the API.
        world.keys.begin().await.unwrap();
        assert_eq!(kids().await, [other.kid()]);
        let back = world.keys.add("boot", &boot.public_pem().unwrap(), "test", false).await;
        assert!(matches!(back, Err(KeysError::Retired(_))));
        assert!(matches!(world.keys.retire(other.kid(), true, false, "test").await, Err(KeysError::Last(_))));
        assert!(matches!(world.keys.retire(third.kid(), false, false, "test").await, Err(KeysError::Unknown(_))));
        let told = world.store.journal(None, 0, 10).await.unwrap();
        let told: Vec<_> = told.iter().map(|entry| (entry.action.as_str(), entry.actor.as_str())).collect();
        assert_eq!(told, [("key.added", "certservice"), ("key.added", "test"), ("key.retired", "test")]);
    }
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    for world in worlds().await {
        let pem = EDGES[1].public_pem().unwrap();
        assert!(world.keys.add("ams", &pem, "test", true).await.unwrap().1);
        assert_eq!(world.keys.active().await.unwrap().len(), 1);
        world.add("ams", &EDGES[1]).await;
        let retired = world.keys.retire(EDGES[0].kid(), false, true, "test").await.unwrap();
        assert!(!retired.retired);
        assert_eq!(world.keys.active().await.unwrap().len(), 2);
    }
}

#[tokio::test]
async fn pools_and_keys_are_checked_and_their_number_is_bounded() {
    for world in worlds().await {
        let pem = EDGES[1].public_pem().unwrap();
        for pool in ["", "a b", "ü", &"a".repeat(POOL_BYTES_MAX + 1)] {
            assert!(matches!(world.keys.add(pool, &pem, "test", false).await, Err(KeysError::Pool(_))), "{pool}");
        }
        let private = EDGES[1].private_pem().unwrap();
        assert!(matches!(
            world.keys.add("a", &private, "test", false).await,
            Err(KeysError::Key(RecipientError::Private))
        ));
        for _ in 1..RECIPIENTS_MAX {
            world.add(&"a".repeat(POOL_BYTES_MAX), &EdgeKey::generate(2048).unwrap()).await;
        }
        assert!(matches!(world.keys.add("a", &pem, "test", false).await, Err(KeysError::TooMany)));
    }
}

#[tokio::test]
async fn a_row_that_somebody_else_wrote_is_not_sealed_to() {
    for world in worlds().await {
        let row = world.store.edge_keys().await.unwrap().remove(0);
        let foreign =
            KeyRow { kid: EDGES[1].kid().to_owned(), public_key: EDGES[1].public_pem().unwrap(), ..row.clone() };
        let seen = [row];
        assert!(world.store.change_edge_key(&seen, &foreign, "thief", "key.added", Default::default()).await.unwrap());
        let active: Vec<_> = world.keys.active().await.unwrap().iter().map(|key| key.kid().to_owned()).collect();
        assert_eq!(active, [EDGES[0].kid()]);
        let listed = world.keys.list().await.unwrap();
        assert!(listed.iter().any(|key| key.kid == EDGES[1].kid() && key.state == KeyState::Altered));
        // Nor what another CertService wrote, with another secret.
        let other = Keys::new(world.store.clone(), b"another secret", vec![]);
        assert_eq!(other.active().await.unwrap().len(), 0);
        // Added by an operator it is his.
        world.add("ams", &EDGES[1]).await;
        assert_eq!(world.keys.active().await.unwrap().len(), 2);
    }
}

#[tokio::test]
async fn a_key_is_retired_only_when_another_one_has_opened_all() {
    for world in worlds().await {
        let [old, new, _] = &*EDGES;
        for domain in ["a.example", "b.example", "c.example"] {
            world.issue(domain).await;
        }
        world.add("new", new).await;
        assert_eq!((world.of(old).await, world.of(new).await), ((3, 0, 0, 3), (0, 0, 3, 0)));
        let refused = world.keys.retire(old.kid(), false, false, "test").await;
        assert!(matches!(refused, Err(KeysError::Unreadable { unreadable: 3 })));

        let outcome = world.work(old, &[new]).await;
        assert_eq!((outcome.rewrapped, outcome.confirmed), (3, 0));
        // An entry is no proof: the new edge has to open it.
        assert_eq!((world.of(old).await, world.of(new).await), ((3, 0, 0, 3), (0, 3, 0, 0)));
        assert!(matches!(world.keys.retire(old.kid(), false, false, "test").await, Err(KeysError::Unreadable { .. })));
        let outcome = world.work(new, &[]).await;
        assert_eq!((outcome.rewrapped, outcome.confirmed), (0, 3));
        assert_eq!((world.of(old).await, world.of(new).await), ((3, 0, 0, 0), (3, 0, 0, 0)));
        let custody = world.keys.custody().await.unwrap();
        let pools: Vec<_> = custody.pools.iter().map(|pool| (&*pool.pool, pool.complete, pool.alone)).collect();
        assert_eq!((pools.as_slice(), custody.unreadable), ([("boot", 3, 0), ("new", 3, 0)].as_slice(), 0));

        world.keys.retire(old.kid(), false, false, "test").await.unwrap();
        assert!(world.opens("a.example", old).await && world.opens("a.example", new).await);
        let metrics = std::sync::Arc::new(crate::observe::Metrics::new().unwrap());
        let key = std::sync::Arc::new(contract::signed::SigningKey::generate().unwrap().0);
        let notify = crate::notify::Notify::new(None, world.store.clone(), key, metrics).unwrap();
        assert_eq!(world.keys.tidy_some(&notify).await.unwrap(), 3);
        assert_eq!(world.keys.tidy_some(&notify).await.unwrap(), 0);
        assert!(!world.opens("a.example", old).await && world.opens("a.example", new).await);
        assert_eq!(world.of(old).await, (0, 0, 3, 0));
    }
}

#[tokio::test]
async fn a_wrong_entry_is_found_and_taken_out_by_the_edge_that_it_is_for() {
    for world in worlds().await {
        let [old, new, third] = &*EDGES;
        world.issue("a.example").await;
        world.add("new", new).await;
        let offered = world.keys.offer(old.kid(), &[new.kid()], "", 32, NOW).await.unwrap();
        let (bundle, version) = &offered.bundles[0];
        let wrong = recipient(new).wrap(&[9; 32]).unwrap();
        let entry = |kid: &str, encrypted_key: &str| contract::sealed::SealedRecipient {
            header: contract::sealed::RecipientHeader { kid: kid.to_owned() },
            encrypted_key: encrypted_key.to_owned(),
        };
        let bring = |kid: &str, opens, recipients| Rewrapped {
            kid: kid.to_owned(),
            bundles: vec![RewrappedBundle { name: bundle.domain.clone(), version: version.clone(), opens, recipients }],
        };
        // What can be told to be wrong is refused.
        let old_entry = entry(old.kid(), &wrong);
        for (recipients, says) in [
            (vec![vec![old_entry]], "which no other one replaces"),
            (vec![vec![entry(new.kid(), "AAAA")]], "is 3 bytes"),
            (vec![vec![entry(third.kid(), &wrong)]], "no active edge key"),
            (vec![vec![entry(new.kid(), &wrong)], vec![]], "each certificate"),
        ] {
            let (outcome, _) = world.keys.take(&bring(old.kid(), true, recipients), "edge:test").await.unwrap();
            assert!(outcome.refused[0].says.contains(says), "{says}: {outcome:?}");
        }
        // Nobody takes out what CertService itself has put in.
        let (outcome, _) = world.keys.take(&bring(old.kid(), false, vec![]), "edge:test").await.unwrap();
        assert!(outcome.refused[0].says.contains("its entry stays"));

        let one = vec![vec![entry(new.kid(), &wrong)]];
        let (outcome, renewed) = world.keys.take(&bring(old.kid(), true, one.clone()), "edge:test").await.unwrap();
        assert_eq!((outcome.rewrapped, renewed.len()), (1, 1));
        // Another one that had read the same version is too late.
        let (outcome, _) = world.keys.take(&bring(old.kid(), true, one), "edge:test").await.unwrap();
        assert_eq!(outcome.outdated, [name("a.example")]);
        assert_eq!(world.of(new).await, (0, 1, 0, 0));
        assert_eq!(world.work(new, &[]).await.removed, 1);
        assert_eq!((world.of(new).await, world.of(old).await), ((0, 0, 1, 0), (1, 0, 0, 1)));
        assert!(world.opens("a.example", old).await);
        // And again, well.
        assert_eq!(world.work(old, &[new]).await.rewrapped, 1);
        assert_eq!(world.work(new, &[]).await.confirmed, 1);
        assert!(world.opens("a.example", new).await);
    }
}

#[tokio::test]
async fn who_has_not_the_key_can_not_speak_for_it() {
    for world in worlds().await {
        let [old, new, _] = &*EDGES;
        world.add("new", new).await;
        let challenge = |kid: &'static str| async { world.keys.offer(kid, &[], "", 1, NOW).await.unwrap().challenge };
        let of_old = challenge(EDGES[0].kid()).await;
        let proof = prove(&of_old, old, b"{}").unwrap();
        assert!(world.keys.check_proof(old.kid(), b"{}", &proof, NOW).is_ok());
        for (kid, body, proof, now) in [
            (new.kid(), "{}", &proof, NOW),
            (old.kid(), "{ }", &proof, NOW),
            (old.kid(), "{}", &String::new(), NOW),
            (old.kid(), "{}", &proof, NOW + 2 * 3600),
        ] {
            let refused = world.keys.check_proof(kid, body.as_bytes(), proof, now);
            assert!(matches!(refused, Err(RewrapError::Proof(_))), "{kid} {body} {now}");
        }
        assert!(matches!(world.keys.offer("none", &[], "", 1, NOW).await, Err(RewrapError::Unknown(_))));
        assert!(matches!(world.keys.offer(old.kid(), &["none"], "", 1, NOW).await, Err(RewrapError::Unknown(_))));
    }
}

#[tokio::test]
async fn pages_follow_each_other_by_name() {
    for world in worlds().await {
        for domain in ["c.example", "a.example", "e.example", "b.example", "d.example"] {
            world.issue(domain).await;
        }
        world.add("new", &EDGES[1]).await;
        let mut after = String::new();
        let mut seen = Vec::new();
        loop {
            let page = world.keys.offer(EDGES[0].kid(), &[EDGES[1].kid()], &after, 2, NOW).await.unwrap();
            seen.extend(page.bundles.iter().map(|(bundle, _)| bundle.domain.as_str().to_owned()));
            match page.next {
                Some(next) => after = next,
                None => break,
            }
        }
        assert_eq!(seen, ["a.example", "b.example", "c.example", "d.example", "e.example"]);
        assert!(world.keys.offer(EDGES[0].kid(), &[], "", 2, NOW).await.unwrap().bundles.is_empty());
    }
}

#[test]
fn sets_are_written_and_read_and_never_0() {
    let set = KeySet::parse("b a? c");
    assert_eq!(set.text(), "a? b c");
    assert_eq!(KeySet::parse(&set.text()), set);
    assert!(set.has("a") && !set.opens("a") && set.opens("b") && !set.has("d"));
    assert_ne!(set.id(), KeySet::parse("a b c").id());
    assert_ne!(KeySet::default().id(), 0);
}
