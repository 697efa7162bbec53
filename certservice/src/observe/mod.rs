//! The names of all metrics. Must never take a host name, a path or a header as a label.

use std::sync::atomic::{AtomicU64, Ordering};

use contract::api::{Custody, IssuerBudgets, KeyState};
use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

/// Between two counts of all domains.
const COUNT_SECONDS: u64 = 60;
/// Of a fleet without certificates: no alert.
const NEVER_SECONDS: i64 = 10 * 365 * 86_400;

pub struct Metrics {
    registry: Registry,
    /// By issuer and result code: `issued`, or what it failed with.
    pub orders: IntCounterVec,
    /// By the issuer that an order did not stay with, and why.
    pub passed_over: IntCounterVec,
    /// From registration or renewal to the stored certificate.
    pub issuance_seconds: Histogram,
    /// Visits to domains that wait for one, and what came of those that brought an order.
    pub first_visits: IntCounterVec,
    /// From the visit that brought an order to the stored certificate.
    pub first_visit_seconds: Histogram,
    /// By route pattern and status.
    pub requests: IntCounterVec,
    /// By operation.
    pub redis_errors: IntCounterVec,
    /// 1 while the API's TLS files have changed and can't be used.
    pub tls_files_unusable: IntGauge,
    /// 0 while the database of bundles does not answer, where they are apart.
    pub bundle_store_up: IntGauge,
    /// Private keys of orders whose certificate has not come yet.
    pub keys_in_memory: IntGauge,
    pub ticket_keys_turned: IntCounter,
    pub ticket_keys_revision: IntGauge,
    jobs: IntGaugeVec,
    budget_left: IntGaugeVec,
    in_line: IntGaugeVec,
    closed_seconds: IntGaugeVec,
    queue: IntGaugeVec,
    queue_oldest_seconds: IntGaugeVec,
    domains: IntGaugeVec,
    remaining: IntGaugeVec,
    own_certificates: IntGaugeVec,
    soonest_end_seconds: IntGauge,
    /// Unix seconds; when the domains were counted last.
    counted_at: AtomicU64,
    changes_head: IntGauge,
    edges_behind_max: IntGauge,
    custody: IntGaugeVec,
}

impl Metrics {
    pub fn new() -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        let buckets = vec![0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0, 21600.0];
        let seconds = HistogramOpts::new(
            "latchkey_certservice_issuance_seconds",
            "Time from registration or renewal to the stored certificate",
        );
        let jobs = Opts::new("latchkey_certservice_jobs", "Orders in hand, by step");
        let budget_left =
            Opts::new("latchkey_certservice_budget_left", "What is left of a CA's limit, by issuer and limit");
        let in_line = Opts::new(
            "latchkey_certservice_in_line",
            "Orders that were looked at and wait for a CA's limits, for the CA or for a place, by issuer",
        );
        let metrics = Self {
            registry: Registry::new(),
            orders: counter(
                "latchkey_certservice_orders_total",
                "Orders that ended, by issuer and result code",
                &["issuer", "result"],
            )?,
            passed_over: counter(
                "latchkey_certservice_orders_passed_over_total",
                "Orders that went on to another issuer, by the one that they left and why",
                &["issuer", "code"],
            )?,
            issuance_seconds: Histogram::with_opts(seconds.buckets(buckets))?,
            first_visits: counter(
                "latchkey_certservice_first_visits_total",
                "Visits to domains that wait for one: `ordered`, `limit_reached`, `covered`; of the orders `issued`, `failed`",
                &["result"],
            )?,
            first_visit_seconds: Histogram::with_opts(
                HistogramOpts::new(
                    "latchkey_certservice_first_visit_seconds",
                    "Time from the visit that brought an order to the stored certificate",
                )
                .buckets(vec![0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 15.0, 30.0, 60.0, 300.0]),
            )?,
            requests: counter(
                "latchkey_certservice_http_requests_total",
                "API requests, by route and status",
                &["route", "status"],
            )?,
            redis_errors: counter(
                "latchkey_certservice_redis_errors_total",
                "Failed writes to Redis, by operation",
                &["operation"],
            )?,
            tls_files_unusable: IntGauge::new(
                "latchkey_certservice_tls_files_unusable",
                "1 while the API's TLS files have changed and can't be used: what was read before is in force",
            )?,
            bundle_store_up: IntGauge::new(
                "latchkey_certservice_bundle_store_up",
                "0 while the database of bundles does not answer, and no order leaves",
            )?,
            ticket_keys_turned: IntCounter::new(
                "latchkey_certservice_ticket_keys_turned_total",
                "Times that this CertService turned the session ticket keys",
            )?,
            ticket_keys_revision: IntGauge::new(
                "latchkey_certservice_ticket_keys_revision",
                "Revision of the session ticket keys in force",
            )?,
            jobs: IntGaugeVec::new(jobs, &["step"])?,
            budget_left: IntGaugeVec::new(budget_left, &["issuer", "limit"])?,
            in_line: IntGaugeVec::new(in_line, &["issuer"])?,
            closed_seconds: IntGaugeVec::new(
                Opts::new(
                    "latchkey_certservice_issuer_closed_seconds",
                    "Until orders leave to an issuer again that is left alone; 0 where they leave now",
                ),
                &["issuer"],
            )?,
            queue: IntGaugeVec::new(Opts::new("latchkey_certservice_queue", "Orders in hand, by lane"), &["lane"])?,
            queue_oldest_seconds: IntGaugeVec::new(
                Opts::new("latchkey_certservice_queue_oldest_seconds", "Age of the oldest order in hand, by lane"),
                &["lane"],
            )?,
            domains: IntGaugeVec::new(Opts::new("latchkey_certservice_domains", "Domains, by state"), &["state"])?,
            remaining: IntGaugeVec::new(
                Opts::new(
                    "latchkey_certservice_remaining_lifetime_ratio_bucket",
                    "Certificates of whose lifetime at most this part is left",
                ),
                &["le"],
            )?,
            own_certificates: IntGaugeVec::new(
                Opts::new("latchkey_certservice_own_certificates", "Uploaded certificates, by code"),
                &["code"],
            )?,
            soonest_end_seconds: IntGauge::new(
                "latchkey_certservice_soonest_end_seconds",
                "Until the next certificate ends that is not replaced; negative where one has ended",
            )?,
            counted_at: AtomicU64::new(0),
            changes_head: IntGauge::new("latchkey_changes_head", "Cursor of the newest change")?,
            keys_in_memory: IntGauge::new(
                "latchkey_certservice_keys_in_memory",
                "Private keys in this process, of orders whose certificate has not come yet",
            )?,
            edges_behind_max: IntGauge::new(
                "latchkey_edges_behind_max",
                "Changes that the edge which is furthest behind has not applied",
            )?,
            custody: IntGaugeVec::new(
                Opts::new(
                    "latchkey_certservice_custody_bundles",
                    "Bundles by what their edge keys lack: `missing` and `unconfirmed` of the active key that lacks most, \
                     `unreadable` by any, `uncounted`",
                ),
                &["what"],
            )?,
        };
        metrics.registry.register(Box::new(metrics.orders.clone()))?;
        metrics.registry.register(Box::new(metrics.passed_over.clone()))?;
        metrics.registry.register(Box::new(metrics.closed_seconds.clone()))?;
        metrics.registry.register(Box::new(metrics.issuance_seconds.clone()))?;
        for result in ["ordered", "limit_reached", "covered", "issued", "failed"] {
            metrics.first_visits.with_label_values(&[result]);
        }
        metrics.registry.register(Box::new(metrics.first_visits.clone()))?;
        metrics.registry.register(Box::new(metrics.first_visit_seconds.clone()))?;
        metrics.registry.register(Box::new(metrics.requests.clone()))?;
        metrics.registry.register(Box::new(metrics.redis_errors.clone()))?;
        metrics.registry.register(Box::new(metrics.tls_files_unusable.clone()))?;
        metrics.registry.register(Box::new(metrics.bundle_store_up.clone()))?;
        metrics.registry.register(Box::new(metrics.keys_in_memory.clone()))?;
        metrics.registry.register(Box::new(metrics.ticket_keys_turned.clone()))?;
        metrics.registry.register(Box::new(metrics.ticket_keys_revision.clone()))?;
        metrics.registry.register(Box::new(metrics.jobs.clone()))?;
        metrics.registry.register(Box::new(metrics.budget_left.clone()))?;
        metrics.registry.register(Box::new(metrics.in_line.clone()))?;
        metrics.registry.register(Box::new(metrics.queue.clone()))?;
        metrics.registry.register(Box::new(metrics.queue_oldest_seconds.clone()))?;
        metrics.registry.register(Box::new(metrics.domains.clone()))?;
        metrics.registry.register(Box::new(metrics.remaining.clone()))?;
        metrics.registry.register(Box::new(metrics.own_certificates.clone()))?;
        metrics.registry.register(Box::new(metrics.soonest_end_seconds.clone()))?;
        metrics.registry.register(Box::new(metrics.changes_head.clone()))?;
        metrics.registry.register(Box::new(metrics.edges_behind_max.clone()))?;
        metrics.registry.register(Box::new(metrics.custody.clone()))?;
        Ok(metrics)
    }

    /// Where the feed of changes is, and how far the slowest edge is from there.
    pub fn follow(&self, changes_head: u64, edges_behind_max: u64) {
        self.changes_head.set(i64::try_from(changes_head).unwrap_or(i64::MAX));
        self.edges_behind_max.set(i64::try_from(edges_behind_max).unwrap_or(i64::MAX));
    }

    /// Orders in hand: lane, how many, age of the oldest in seconds. Lanes without any are 0.
    pub fn queues(&self, queues: impl IntoIterator<Item = (&'static str, u64, u64)>) {
        for (lane, count, seconds) in queues {
            self.queue.with_label_values(&[lane]).set(signed(count));
            self.queue_oldest_seconds.with_label_values(&[lane]).set(signed(seconds));
        }
    }

    /// Whether it is time to count the domains; they are many.
    pub fn counts_now(&self, now: u64) -> bool {
        let last = self.counted_at.load(Ordering::Relaxed);
        let due = !(last..last + COUNT_SECONDS).contains(&now);
        due && self.counted_at.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// What was counted.
    pub fn domains(&self, by_state: &[(String, u64)], remaining: &[(&str, u64)], soonest_end_seconds: Option<i64>) {
        self.domains.reset();
        for (state, count) in by_state {
            self.domains.with_label_values(&[state]).set(signed(*count));
        }
        for (le, count) in remaining {
            self.remaining.with_label_values(&[le]).set(signed(*count));
        }
        self.soonest_end_seconds.set(soonest_end_seconds.unwrap_or(NEVER_SECONDS));
    }

    /// Certificates that were brought along.
    pub fn own_certificates(&self, by_code: &[(String, u64)]) {
        self.own_certificates.reset();
        for (code, count) in by_code {
            self.own_certificates.with_label_values(&[code]).set(signed(*count));
        }
    }

    /// Which bundles the edges can open.
    pub fn custody(&self, custody: &Custody) {
        let active = || custody.keys.iter().filter(|key| key.state == KeyState::Active);
        for (what, count) in [
            ("missing", active().map(|key| key.missing).max().unwrap_or(0)),
            ("unconfirmed", active().map(|key| key.unconfirmed).max().unwrap_or(0)),
            ("unreadable", custody.unreadable),
            ("uncounted", custody.uncounted),
        ] {
            self.custody.with_label_values(&[what]).set(signed(count));
        }
    }

    /// What the CAs' limits leave.
    pub fn budgets(&self, issuers: &[IssuerBudgets], now: u64) {
        for issuer in issuers {
            let closed = issuer.closed_until.map_or(0, |until| until.saturating_sub(now));
            self.closed_seconds.with_label_values(&[&issuer.name]).set(signed(closed));
            self.in_line.with_label_values(&[&issuer.name]).set(signed(issuer.in_line));
            for budget in &issuer.limits {
                self.budget_left.with_label_values(&[&issuer.name, &budget.limit]).set(signed(budget.left));
            }
        }
    }

    /// The text format of Prometheus.
    pub fn render(&self, jobs_by_step: &[(String, u64)]) -> Result<String, prometheus::Error> {
        self.jobs.reset();
        for (step, count) in jobs_by_step {
            self.jobs.with_label_values(&[step]).set(i64::try_from(*count).unwrap_or(i64::MAX));
        }
        let mut out = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut out)?;
        Ok(String::from_utf8_lossy(&out).into_owned())
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
