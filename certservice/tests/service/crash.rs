//! Crashes: at each point of an order, and at any time of the process.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use certservice::config::Config;
use certservice::dns::Zones;
use certservice::issue::Issuer;
use certservice::notify::Notify;
use certservice::observe::Metrics;
use certservice::order::{Event, Hands, Job, Pace, Plan, Recorded, Runner, Stage, Step};
use certservice::precheck::{Checks, Precheck};
use certservice::renew::Planner;
use certservice::service::Service;
use certservice::store::{Claim, Store, Stored};
use contract::signed::{SigningKey, sign};
use contract::{Bundle, Hostname};
use openssl::x509::X509;
use tokio::runtime::Runtime;

use crate::edge::{is_bound_to_certificate, open_bundle};
use crate::process::{CertService, INTERNAL};

/// What the edge answers our own looks with.
pub const KID: &str = "kid";

/// All that one life of the process has in memory.
struct Life {
    store: Store,
    runner: Runner,
    /// Two certificates are wanted.
    rsa: bool,
    issuer: String,
}

/// What is in the database between two lives.
#[derive(Debug, Clone, PartialEq)]
struct Known {
    order: Option<String>,
    csr: Option<Vec<u8>>,
}

impl Life {
    async fn begin(folder: &Path) -> Self {
        let config = Config::load(&folder.join("cs.toml")).unwrap();
        std::fs::create_dir_all(&config.data_dir).unwrap();
        let store = Store::open(&config.store).await.unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let key = Arc::new(SigningKey::generate().unwrap().0);
        let notify = Notify::new(None, store.clone(), key, metrics.clone()).unwrap();
        let open = |issuer: &certservice::config::Issuer| {
            (issuer.name.clone(), Issuer::open(issuer, &config.data_dir).unwrap())
        };
        let issuers: HashMap<_, _> = config.issuers.iter().map(open).collect();
        let looked = config.issuers.iter().map(|issuer| (issuer.name.clone(), issuer.needs())).collect();
        let precheck = config.precheck;
        let precheck = Precheck::open(precheck.resolver, precheck.targets, precheck.ports, vec![], KID).unwrap();
        let checks = Checks::new(precheck, looked);
        let zones = Zones::open(&config.dns, checks.clone()).unwrap();
        let hands = Hands::new(issuers, config.edges, notify, checks, zones);
        let pace = Pace {
            retry_seconds_min: 1,
            retry_seconds_max: 1,
            rsa: config.issuance.rsa,
            issuers: config.domains.issuers.clone(),
            renewals_wait_seconds: 0,
        };
        let limits = config.issuers.iter().map(|issuer| (issuer.name.clone(), issuer.limits)).collect();
        let names: Vec<_> = config.issuers.iter().map(|issuer| issuer.name.clone()).collect();
        store.know_issuers(&names).await.unwrap();
        let rsa = pace.rsa;
        let plan = Plan { pace, concurrency: 1, limits, holder: "life".to_owned() };
        Self {
            store: store.clone(),
            runner: Runner::new(store, hands, metrics, plan, Planner::default()),
            issuer: names[0].clone(),
            rsa,
        }
    }

    /// The only order, whatever its stage.
    async fn order(&self) -> Option<Stored> {
        for stage in [Stage::UnderWay, Stage::InLine, Stage::ToCheck] {
            let running = HashSet::new();
            let (issuer, holder) = (&*self.issuer, "life");
            let claim = Claim { issuer, stage, leaving: false, holder, until: u64::MAX, running: &running };
            if let Some(stored) = self.store.claim(claim, u64::MAX, 1).await.unwrap().pop() {
                return Some(stored);
            }
        }
        None
    }

    /// Works on the only order for at most so many half-steps: storing what was decided is one, doing it another.
    /// Whether it came to its end.
    async fn live(&self, half_steps: usize) -> bool {
        let mut left = half_steps;
        let mut event = Event::Due;
        let Some(mut stored) = self.order().await else { return true };
        loop {
            if left == 0 {
                return false;
            }
            left -= 1;
            let Recorded::Go(next, tasks) = self.runner.record(stored, event).await.unwrap() else {
                return true;
            };
            stored = *next;
            if left == 0 {
                return false;
            }
            left -= 1;
            event = match self.runner.act(&stored.job, tasks).await {
                Some(event) => event,
                // It waits for the CA: the pause is the CA's business, so it ends here.
                None => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    stored = self.order().await.unwrap();
                    Event::Due
                }
            };
        }
    }

    async fn known(&self) -> Option<Known> {
        let stored = self.order().await?;
        let (order, csr) = match stored.job.step {
            Step::Ordered { order }
            | Step::Presenting { order }
            | Step::Answering { order }
            | Step::Validating { order, .. } => (Some(order), None),
            Step::Ready { order } => (order, None),
            Step::Keyed { order, key } => (order, Some(key.csr)),
            Step::Finalizing { order, key, .. } => (Some(order), Some(key.csr)),
            Step::Queued | Step::InLine { .. } | Step::Ordering | Step::Issued { .. } | Step::Stopped => (None, None),
        };
        Some(Known { order, csr })
    }
}

/// Crashes once after each half-step in turn and goes on in a new life, until an order comes through without a crash.
/// What was stored before the crash must be what it goes on with. Gives back how many crash points there were.
pub fn crash_everywhere(service: &CertService, issuer: &str) -> usize {
    let runtime = Runtime::new().unwrap();
    let mut resealed = [false, false];
    for half_steps in 1..100 {
        let domain = Hostname::parse(&format!("crash{half_steps}.example")).unwrap();
        let folder = service.folder.path();
        let (over, bundle) = runtime.block_on(async {
            let life = Life::begin(folder).await;
            life.store.register("shop", &Job::new(domain.clone(), issuer.into(), 0, 0), 0, "test").await.unwrap();
            let over = life.live(half_steps).await;
            let before = life.known().await;
            drop(life);
            let life = Life::begin(folder).await;
            assert_eq!(life.known().await, before);
            // One stored step more must not lose the order or the CSR.
            life.live(1).await;
            if let (Some(before), Some(after)) = (&before, life.known().await) {
                assert!(before.order.is_none() || after.order == before.order, "{before:?} {after:?}");
                assert!(before.csr.is_none() || after.csr == before.csr, "{before:?} {after:?}");
            }
            assert!(life.live(1000).await);
            let bundle = life.store.bundle(&domain).await.unwrap().unwrap();
            if let Some(csr) = before.and_then(|known| known.csr) {
                let request = openssl::x509::X509Req::from_der(&csr).unwrap();
                let asked = request.public_key().unwrap();
                let mut leaves = bundle.certificates().map(|(chain, _)| chain.unwrap().remove(0));
                let is_it = |der: Vec<u8>| X509::from_der(&der).unwrap().public_key().unwrap().public_eq(&asked);
                assert!(leaves.any(is_it), "another key came out");
            }
            assert_eq!(bundle.rsa.is_some(), life.rsa);
            (over, bundle)
        });
        resealed[usize::from(check(&bundle, service))] = true;
        if over {
            // Both bindings were seen: the usual one, and the one that a crash leaves.
            assert_eq!(resealed, [true, true]);
            return half_steps - 1;
        }
    }
    panic!("an order takes 100 half-steps");
}

/// As an edge would; whether the key is bound to the certificate.
fn check(bundle: &Bundle, service: &CertService) -> bool {
    let (key, _) = SigningKey::generate().unwrap();
    let keys = contract::signed::VerifyKeys::from_pems([key.public_pem().as_str()]).unwrap();
    let token = sign(bundle, &key).unwrap();
    let (bundle, _) = open_bundle(&token, bundle.domain.as_str(), &keys, &service.edge);
    is_bound_to_certificate(&bundle)
}

#[test]
fn a_crash_at_each_point_of_an_internal_order_loses_nothing() {
    let service = CertService::new(INTERNAL);
    let points = crash_everywhere(&service, "internal");
    // Due, look; looked, order; ordered, key; key made, finalize; issued.
    assert_eq!(points, 8);
}

#[test]
fn a_crash_at_each_point_of_two_orders_loses_neither_certificate() {
    let service = CertService::new(&format!("{INTERNAL}[issuance]\nrsa = true\n"));
    // Then in line, since the second order takes from the CA's limits by itself, and the same once more without the look.
    assert_eq!(crash_everywhere(&service, "internal"), 16);
}

#[test]
fn killing_the_process_at_any_time_loses_nothing() {
    let settings = format!("{INTERNAL}[issuance]\nconcurrency = 2\n");
    let mut service = CertService::started(&settings);
    let names: Vec<_> = (0..40).map(|n| format!("n{n}.example")).collect();
    for name in &names {
        assert_eq!(service.put(name, "").status, 201);
    }
    for life in 0..10 {
        service.kill();
        service.start();
        std::thread::sleep(Duration::from_millis(life * 7));
    }
    let keys = service.verify_keys();
    for name in &names {
        assert_eq!(service.wait_live(name).certificate.unwrap().revision, 1);
        let answer = service.get(&format!("/v1/bundles/{name}"));
        open_bundle(answer.text(), name, &keys, &service.edge);
    }
    let lives = service.log().matches("\"serving\"").count();
    assert_eq!(lives, 11, "{}", service.log());
}

/// The service assembled in-process, as `main` does it, refuses what the kill tests rely on: two on one socket.
#[test]
fn a_second_service_on_the_same_socket_is_refused() {
    let service = CertService::started(INTERNAL);
    let config = Config::load(&service.path("cs.toml")).unwrap();
    let error = Runtime::new().unwrap().block_on(Service::build(config)).err().unwrap();
    assert!(error.contains("another process serves it"), "{error}");
}
