//! Crashes: at each point of an order, and at any time of the process.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use certservice::config::Config;
use certservice::dns::Zones;
use certservice::issue::Issuer;
use certservice::keys::Keys;
use certservice::notify::Notify;
use certservice::observe::Metrics;
use certservice::order::{Event, Hands, Job, Pace, Plan, Recorded, Runner, Stage, Step};
use certservice::precheck::{Checks, Precheck};
use certservice::renew::Planner;
use certservice::store::{End, Line, Store, Stored};
use contract::signed::{SigningKey, sign};
use contract::{Bundle, Hostname};
use openssl::x509::X509;
use tokio::runtime::Runtime;

use crate::databases::on_each_layout;
use crate::edge::{is_bound_to_certificate, open_bundle};
use crate::process::{CertService, INTERNAL, LISTEN};

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

/// Where a crash falls: what was decided is stored, or done besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    pub step: &'static str,
    /// Of the RSA certificate's order.
    pub second: bool,
    pub done: bool,
}

/// What is in the database between two lives.
#[derive(Debug, Clone, PartialEq)]
struct Known {
    order: Option<String>,
    csr: Option<Vec<u8>>,
}

/// What a CA has counted so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Counted {
    pub orders: usize,
    pub certificates: usize,
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
        let zones = config.dns.iter().flat_map(|provider| provider.zones.clone()).collect();
        let precheck = config.precheck;
        let precheck = Precheck::open(precheck.resolver, precheck.targets, precheck.ports, zones, KID).unwrap();
        let checks = Checks::new(precheck, looked);
        let zones = Zones::open(&config.dns, checks.clone()).unwrap();
        let keys = Keys::new(store.clone(), b"secret", config.edges);
        keys.begin().await.unwrap();
        let hands = Hands::new(issuers, keys, notify, checks, zones);
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
        // Without a place each order waits in line first; who takes it from there has one.
        let plan = Plan { pace, concurrency: 0, limits, first_visits: None, holder: "life".to_owned() };
        Self {
            store: store.clone(),
            runner: Runner::new(store, hands, metrics, plan, Planner::default()),
            issuer: names[0].clone(),
            rsa,
        }
    }

    /// The only order, whatever its stage.
    async fn order(&self) -> Option<Stored> {
        for stage in [Stage::UnderWay, Stage::Uncounted, Stage::InLine, Stage::ToCheck] {
            let line = Line { issuer: &self.issuer, stage, leaving: false, end: End::First };
            let waiting = self.store.waiting(line, "life", u64::MAX, 1).await.unwrap();
            if let Some(stored) = self.store.claim(waiting, "life", u64::MAX, u64::MAX).await.unwrap().pop() {
                return Some(stored);
            }
        }
        None
    }

    /// Works on the only order until it has come to `crash_at`, or to its end: the points that it has passed.
    async fn live(&self, crash_at: Option<Point>) -> Vec<Point> {
        let mut passed = Vec::new();
        let mut event = Event::Due;
        let Some(mut stored) = self.order().await else { return passed };
        while let Recorded::Go(next, tasks) = self.runner.record(stored, event).await.unwrap() {
            stored = *next;
            let at = |done| Point { step: stored.job.step.name(), second: stored.job.first.is_some(), done };
            let before = at(false);
            passed.push(before);
            if crash_at == Some(before) {
                break;
            }
            let happened = self.runner.act(&stored.job, tasks).await;
            passed.push(at(true));
            if crash_at == passed.last().copied() {
                break;
            }
            event = match happened {
                Some(event) => event,
                // It waits for the CA: the pause is the CA's business, so it ends here.
                None => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    stored = self.order().await.unwrap();
                    Event::Due
                }
            };
        }
        passed
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
            _ => (None, None),
        };
        Some(Known { order, csr })
    }
}

/// Crashes once at each point that an order without a crash passes, and goes on in a new life. What was stored before the
/// crash must be what it goes on with, and the CA must not be asked twice for what it has counted. Gives back the points.
pub fn crash_everywhere(service: &CertService, issuer: &str, counted: Option<&dyn Fn() -> Counted>) -> Vec<Point> {
    let runtime = Runtime::new().unwrap();
    let mut points: Vec<Point> = Vec::new();
    // Both bindings of a key are to be seen: the usual one, and the one that a crash leaves.
    let mut resealed = [false, false];
    let mut crashes = 0usize;
    loop {
        let crash_at = crashes.checked_sub(1).map(|at| points[at]);
        let domain = Hostname::parse(&format!("crash{crashes}.own.example")).unwrap();
        let before = counted.map(|count| count());
        let (passed, bundle) = runtime.block_on(survive(service, issuer, &domain, crash_at));
        if let (Some(before), Some(count)) = (before, counted) {
            let wanted = bundle.certificates().count();
            // The CA had it, and nobody was told.
            let untold = usize::from(crash_at.is_some_and(|at| at.step == "ordering" && at.done));
            let now = count();
            let made = (now.orders - before.orders, now.certificates - before.certificates);
            assert_eq!(made, (wanted + untold, wanted), "{crash_at:?}");
        }
        resealed[usize::from(check(&bundle, service))] = true;
        if crash_at.is_none() {
            passed.into_iter().for_each(|at| {
                if !points.contains(&at) {
                    points.push(at)
                }
            });
        }
        crashes += 1;
        if crashes > points.len() {
            assert_eq!(resealed, [true, true]);
            return points;
        }
    }
}

/// One order with one crash: the points before it, and what came of it.
async fn survive(
    service: &CertService,
    issuer: &str,
    domain: &Hostname,
    crash_at: Option<Point>,
) -> (Vec<Point>, Bundle) {
    let folder = service.folder.path();
    let life = Life::begin(folder).await;
    life.store.register("shop", &Job::new(domain.clone(), issuer.into(), 0, 0), 0, "test").await.unwrap();
    let passed = life.live(crash_at).await;
    assert!(crash_at.is_none() || passed.last().copied() == crash_at, "{crash_at:?} was not reached: {passed:?}");
    let before = life.known().await;
    drop(life);
    let life = Life::begin(folder).await;
    assert_eq!(life.known().await, before);
    // One stored step more must not lose the order or the CSR.
    if let Some(stored) = life.order().await {
        drop(life.runner.record(stored, Event::Due).await.unwrap());
    }
    if let (Some(before), Some(after)) = (&before, life.known().await) {
        assert!(before.order.is_none() || after.order == before.order, "{before:?} {after:?}");
        assert!(before.csr.is_none() || after.csr == before.csr, "{before:?} {after:?}");
    }
    life.live(None).await;
    assert_eq!(life.known().await, None, "the order came to no end");
    let bundle = life.store.bundle(domain).await.unwrap().unwrap();
    if let Some(csr) = before.and_then(|known| known.csr) {
        let request = openssl::x509::X509Req::from_der(&csr).unwrap();
        let asked = request.public_key().unwrap();
        let mut leaves = bundle.certificates().map(|(chain, _)| chain.unwrap().remove(0));
        let is_it = |der: Vec<u8>| X509::from_der(&der).unwrap().public_key().unwrap().public_eq(&asked);
        assert!(leaves.any(is_it), "another key came out");
    }
    assert_eq!(bundle.rsa.is_some(), life.rsa);
    (passed, bundle)
}

/// Every step was crashed in, stored and done.
pub fn assert_crashed_in(points: &[Point], steps: &[&str]) {
    for step in steps {
        for done in [false, true] {
            assert!(points.iter().any(|at| at.step == *step && at.done == done), "{step}, done: {done}: {points:?}");
        }
    }
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
    on_each_layout(|database| {
        let service = CertService::new("");
        service.configure(LISTEN, &format!("{INTERNAL}{}", database.settings(&service)));
        let points = crash_everywhere(&service, "internal", None);
        assert_crashed_in(&points, &["queued", "looked", "ordering", "ready", "keyed"]);
        assert_eq!(points.len(), 10);
    });
}

#[test]
fn a_crash_at_each_point_of_two_orders_loses_neither_certificate() {
    on_each_layout(|database| {
        let service = CertService::new("");
        let settings = format!("{INTERNAL}[issuance]\nrsa = true\n{}", database.settings(&service));
        service.configure(LISTEN, &settings);
        // Then in line, since the second order takes from the CA's limits by itself, and the same once more without the look.
        assert_eq!(crash_everywhere(&service, "internal", None).len(), 18);
    });
}
