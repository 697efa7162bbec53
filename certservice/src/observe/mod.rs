//! The names of all metrics. Must never take a host name, a path or a header as a label.

use contract::api::IssuerBudgets;
use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

pub struct Metrics {
    registry: Registry,
    /// By result code: `issued`, or what it failed with.
    pub orders: IntCounterVec,
    /// From registration or renewal to the stored certificate.
    pub issuance_seconds: Histogram,
    /// By route pattern and status.
    pub requests: IntCounterVec,
    /// By operation.
    pub redis_errors: IntCounterVec,
    pub ticket_keys_turned: IntCounter,
    pub ticket_keys_revision: IntGauge,
    jobs: IntGaugeVec,
    budget_left: IntGaugeVec,
    in_line: IntGaugeVec,
    changes_head: IntGauge,
    edges_behind_max: IntGauge,
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
        let in_line = Opts::new("latchkey_certservice_in_line", "Orders that wait for a CA's limits, by issuer");
        let metrics = Self {
            registry: Registry::new(),
            orders: counter("latchkey_certservice_orders_total", "Orders that ended, by result code", &["result"])?,
            issuance_seconds: Histogram::with_opts(seconds.buckets(buckets))?,
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
            changes_head: IntGauge::new("latchkey_changes_head", "Cursor of the newest change")?,
            edges_behind_max: IntGauge::new(
                "latchkey_edges_behind_max",
                "Changes that the edge which is furthest behind has not applied",
            )?,
        };
        metrics.registry.register(Box::new(metrics.orders.clone()))?;
        metrics.registry.register(Box::new(metrics.issuance_seconds.clone()))?;
        metrics.registry.register(Box::new(metrics.requests.clone()))?;
        metrics.registry.register(Box::new(metrics.redis_errors.clone()))?;
        metrics.registry.register(Box::new(metrics.ticket_keys_turned.clone()))?;
        metrics.registry.register(Box::new(metrics.ticket_keys_revision.clone()))?;
        metrics.registry.register(Box::new(metrics.jobs.clone()))?;
        metrics.registry.register(Box::new(metrics.budget_left.clone()))?;
        metrics.registry.register(Box::new(metrics.in_line.clone()))?;
        metrics.registry.register(Box::new(metrics.changes_head.clone()))?;
        metrics.registry.register(Box::new(metrics.edges_behind_max.clone()))?;
        Ok(metrics)
    }

    /// Where the feed of changes is, and how far the slowest edge is from there.
    pub fn follow(&self, changes_head: u64, edges_behind_max: u64) {
        self.changes_head.set(i64::try_from(changes_head).unwrap_or(i64::MAX));
        self.edges_behind_max.set(i64::try_from(edges_behind_max).unwrap_or(i64::MAX));
    }

    /// What the CAs' limits leave.
    pub fn budgets(&self, issuers: &[IssuerBudgets]) {
        let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        for issuer in issuers {
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
