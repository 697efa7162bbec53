//! Names of all metrics in one place, the access log, and the hosts that are asked for most.
//!
//! Must never take a host name, a path or a header as a metric label: labels have few, known values. Must never make a
//! request wait.

pub mod access;
mod access_log;
mod crashes;
mod disk;
mod top;

use std::sync::LazyLock;
use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

pub use self::access_log::{AccessLog, AccessLogSettings, Target, Writer};
pub use self::crashes::{CRASHES, Cause, Crashes, plugin_fault};
pub use self::disk::disk_failed;
pub use self::top::{By, NAMES_MAX, Ranked, TOP};
use crate::wasm::Answers;

pub static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

pub struct Metrics {
    registry: Registry,
    pub open_connections: IntGauge,
    pub accept_errors: IntCounter,
    /// listener, outcome: `served`, `refused`, `tls_failed`
    pub connections: IntCounterVec,
    /// reason
    pub connection_refusals: IntCounterVec,
    /// outcome: `ok`, or the reason that there was none
    pub handshakes: IntCounterVec,
    /// version: `1.2`, `1.3`; result: `full`, `resumed`
    pub tls_sessions: IntCounterVec,
    /// reason: `unknown_key`, `expired_key`, `not_valid`
    pub tickets_refused: IntCounterVec,
    pub ticket_keys_revision: IntGauge,
    pub ticket_keys_shared: IntGauge,
    /// tier: what answered for the certificate
    pub handshake_seconds: HistogramVec,
    /// tier: `parsed`, `warm`, `disk`, `redis`, `certservice`; result
    pub certificate_lookups: IntCounterVec,
    /// tier, the same
    certificate_seconds: HistogramVec,
    pub key_opens_queued: IntGauge,
    pub key_open_wait_seconds: Histogram,
    pub key_open_seconds: Histogram,
    /// reason
    pub bundles_rejected: IntCounterVec,
    pub disk_errors: IntCounter,
    pub redis_resting: IntGauge,
    pub certservice_resting: IntGauge,
    pub changes_cursor: IntGauge,
    pub changes_applied: IntCounter,
    pub known_names: IntGauge,
    pub known_names_bytes: IntGauge,
    /// 1 while `admin.tcp` files have changed and can't be used.
    pub admin_tls_files_unusable: IntGauge,
    /// tier: `parsed`, `warm`
    certificates_held: IntGaugeVec,
    certificates_held_bytes: IntGaugeVec,
    /// reason: why a connection was ended while HTTP was spoken
    pub guard_closed: IntCounterVec,
    /// class: `2xx` …
    pub responses: IntCounterVec,
    /// reason: why a request was answered by the edge itself
    pub local_answers: IntCounterVec,
    pub request_seconds: Histogram,
    /// upstream; result: `healthy`, `last_resort`, `none`, `saturated`
    pub upstream_picks: IntCounterVec,
    /// upstream; reason: `connect`, `broken`
    pub upstream_retries: IntCounterVec,
    /// upstream
    pub upstream_healthy_peers: IntGaugeVec,
    /// plugin, hook, reason
    pub plugin_faults: IntCounterVec,
    /// plugin, as it calls itself
    pub plugin_log_left_out: IntCounterVec,
    /// plugin, message, result: `passed`, `watched`, `changed`, `refused`
    pub plugin_bodies: IntCounterVec,
    /// from: `call`, `memo`, `datasets`
    plugin_answers: IntCounterVec,
    plugin_dataset_bytes: IntGauge,
    /// plugin; result: `answered`, `abandoned`, or why not
    pub plugin_callouts: IntCounterVec,
    pub plugin_callout_seconds: Histogram,
    pub plugin_waiting: IntGauge,
    /// result: `ok`, `unchanged`, `invalid`, `conflict`, `error`
    pub config_applies: IntCounterVec,
    pub config_revision: IntGauge,
    pub config_snapshots: IntGauge,
    /// result
    pub plugin_uploads: IntCounterVec,
    /// result: `cached`, `compiled`, `refused`; `rejected`: a kept file that did not verify
    pub plugin_compiles: IntCounterVec,
    pub access_log_written: IntCounter,
    pub access_log_dropped: IntCounter,
    pub top_missed: IntCounter,
}

impl Metrics {
    // Names and labels are constants: a test builds them all.
    #[allow(clippy::expect_used)]
    fn new() -> Self {
        let registry = Registry::new();
        let gauge = |name: &str, help: &str| {
            let metric = IntGauge::new(name, help).expect("constant");
            registry.register(Box::new(metric.clone())).expect("unique");
            metric
        };
        let counter = |name: &str, help: &str| {
            let metric = IntCounter::new(name, help).expect("constant");
            registry.register(Box::new(metric.clone())).expect("unique");
            metric
        };
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let metric = IntCounterVec::new(Opts::new(name, help), labels).expect("constant");
            registry.register(Box::new(metric.clone())).expect("unique");
            metric
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            let metric = IntGaugeVec::new(Opts::new(name, help), labels).expect("constant");
            registry.register(Box::new(metric.clone())).expect("unique");
            metric
        };
        let seconds = |name: &str, help: &str| {
            let buckets = vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
            let metric = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets)).expect("constant");
            registry.register(Box::new(metric.clone())).expect("unique");
            metric
        };
        // A parsed certificate costs microseconds, one from CertService may cost seconds.
        let tiers = |name: &str, help: &str| {
            let buckets = vec![
                0.000_005, 0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01,
                0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
            ];
            let metric =
                HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), &["tier"]).expect("constant");
            registry.register(Box::new(metric.clone())).expect("unique");
            metric
        };
        Self {
            open_connections: gauge(
                "latchkey_open_connections",
                "Connections from visitors and load balancers, open now",
            ),
            accept_errors: counter("latchkey_accept_errors_total", "Failed accept() calls"),
            connections: counters(
                "latchkey_connections_total",
                "Connections by listener and outcome",
                &["listener", "outcome"],
            ),
            connection_refusals: counters(
                "latchkey_connection_refusals_total",
                "Connections closed before TLS or HTTP, by reason",
                &["reason"],
            ),
            handshakes: counters("latchkey_tls_handshakes_total", "TLS handshakes by outcome", &["outcome"]),
            tls_sessions: counters(
                "latchkey_tls_sessions_total",
                "Finished TLS handshakes by version, and whether a session was resumed",
                &["version", "result"],
            ),
            tickets_refused: counters(
                "latchkey_tls_tickets_refused_total",
                "Session tickets that led to a full handshake, by reason",
                &["reason"],
            ),
            ticket_keys_revision: gauge(
                "latchkey_ticket_keys_revision",
                "Revision of the fleet's session ticket keys in force; 0 while this edge has none of them",
            ),
            ticket_keys_shared: gauge(
                "latchkey_ticket_keys_shared",
                "The fleet's session ticket keys that open tickets now",
            ),
            certificate_lookups: counters(
                "latchkey_certificate_lookups_total",
                "Look-ups of certificates and challenges by tier and result",
                &["tier", "result"],
            ),
            handshake_seconds: tiers(
                "latchkey_tls_handshake_seconds",
                "From the first byte to a finished handshake, by what answered for the certificate",
            ),
            certificate_seconds: tiers(
                "latchkey_certificate_seconds",
                "From asking a tier to a certificate in use: reading, checking, opening and parsing included",
            ),
            key_opens_queued: gauge("latchkey_key_opens_queued", "Sealed keys that wait to be opened"),
            key_open_wait_seconds: seconds(
                "latchkey_key_open_wait_seconds",
                "How long a sealed key waited for its turn",
            ),
            key_open_seconds: seconds(
                "latchkey_key_open_seconds",
                "Opening a sealed key and checking it against its certificate",
            ),
            bundles_rejected: counters(
                "latchkey_bundles_rejected_total",
                "Bundles and tokens that failed a check, by reason",
                &["reason"],
            ),
            changes_cursor: gauge(
                "latchkey_changes_cursor",
                "Cursor of the last change of CertService that this edge has applied",
            ),
            changes_applied: counter("latchkey_changes_applied_total", "Changes of certificates applied"),
            known_names: gauge("latchkey_known_names", "Names that have a certificate, as far as this edge has heard"),
            known_names_bytes: gauge("latchkey_known_names_bytes", "Memory that the list of them takes"),
            admin_tls_files_unusable: gauge(
                "latchkey_admin_tls_files_unusable",
                "1 while the admin API's TLS files have changed and can't be used: what was read before is in force",
            ),
            disk_errors: counter("latchkey_disk_errors_total", "Failed reads and writes of bundles on disk"),
            redis_resting: gauge(
                "latchkey_redis_resting",
                "1 while Redis is left alone, because it did not answer in time again and again",
            ),
            certservice_resting: gauge(
                "latchkey_certservice_resting",
                "1 while CertService is left alone, because it did not answer in time again and again",
            ),
            certificates_held: gauges(
                "latchkey_certificates_held",
                "Certificates in memory; what is parsed is warm too",
                &["tier"],
            ),
            certificates_held_bytes: gauges(
                "latchkey_certificates_held_bytes",
                "Memory they take, estimated",
                &["tier"],
            ),
            guard_closed: counters(
                "latchkey_guard_closed_total",
                "Connections ended for what the visitor did or did not do, by reason",
                &["reason"],
            ),
            responses: counters("latchkey_http_responses_total", "Responses by status class", &["class"]),
            local_answers: counters(
                "latchkey_http_local_answers_total",
                "Requests answered by the edge itself, by reason",
                &["reason"],
            ),
            request_seconds: seconds(
                "latchkey_http_request_seconds",
                "From request headers to the end of the response",
            ),
            upstream_picks: counters(
                "latchkey_upstream_picks_total",
                "Choices of a peer for a request or a further try of it, by result",
                &["upstream", "result"],
            ),
            upstream_retries: counters(
                "latchkey_upstream_retries_total",
                "Further tries of requests, by what went wrong: no connection, or it broke before an answer",
                &["upstream", "reason"],
            ),
            upstream_healthy_peers: gauges(
                "latchkey_upstream_healthy_peers",
                "Peers that pass their health check and don't rest after failed requests",
                &["upstream"],
            ),
            plugin_faults: counters(
                "latchkey_plugin_faults_total",
                "Plugin calls that failed",
                &["plugin", "hook", "reason"],
            ),
            plugin_log_left_out: counters(
                "latchkey_plugin_log_messages_left_out_total",
                "Messages of plugins that the log does not have, since there were too many",
                &["plugin"],
            ),
            plugin_bodies: counters(
                "latchkey_plugin_bodies_total",
                "Bodies by what plugins do with them",
                &["plugin", "message", "result"],
            ),
            plugin_answers: counters(
                "latchkey_plugin_answers_total",
                "Answers of plugins: by a call, given again without one (memo), or settled by datasets that had nothing",
                &["from"],
            ),
            plugin_dataset_bytes: gauge(
                "latchkey_plugin_dataset_bytes",
                "Memory that the datasets of the running configuration's plugins take",
            ),
            plugin_callouts: counters(
                "latchkey_plugin_callouts_total",
                "Questions of plugins to other servers, by result",
                &["plugin", "result"],
            ),
            plugin_callout_seconds: seconds(
                "latchkey_plugin_callout_seconds",
                "How long plugins waited for an answer of another server, or for none",
            ),
            plugin_waiting: gauge(
                "latchkey_plugin_waiting",
                "Calls under way of plugins that may wait for other servers",
            ),
            config_applies: counters(
                "latchkey_config_applies_total",
                "Configurations given to the admin API, by result",
                &["result"],
            ),
            config_revision: gauge("latchkey_config_revision", "Revision of the running configuration"),
            config_snapshots: gauge(
                "latchkey_config_snapshots",
                "Configurations in memory: the running one and those that requests under way began with",
            ),
            plugin_uploads: counters(
                "latchkey_plugin_uploads_total",
                "Plugins given to the admin API, by result",
                &["result"],
            ),
            plugin_compiles: counters(
                "latchkey_plugin_compiles_total",
                "Plugins compiled, or found compiled on disk, by result",
                &["result"],
            ),
            access_log_written: counter("latchkey_access_log_lines_total", "Lines of the access log that were written"),
            access_log_dropped: counter(
                "latchkey_access_log_dropped_lines_total",
                "Lines of the access log that were lost: its buffer was full, or it could not be written",
            ),
            top_missed: counter(
                "latchkey_top_missed_total",
                "Requests and handshakes left out of the hosts that are asked for most, because these were being read",
            ),
            registry,
        }
    }

    /// What a certificate from this tier has cost.
    pub fn certificate_cost(&self, tier: &str, took: Duration) {
        self.certificate_seconds.with_label_values(&[tier]).observe(took.as_secs_f64());
    }

    pub fn certificates_held(&self, tier: &str, certificates: usize, bytes: u64) {
        let held = i64::try_from(certificates).unwrap_or(i64::MAX);
        self.certificates_held.with_label_values(&[tier]).set(held);
        self.certificates_held_bytes.with_label_values(&[tier]).set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Totals, which only ever grow.
    pub fn plugin_answers(&self, answers: Answers) {
        for (from, total) in [("call", answers.called), ("memo", answers.remembered), ("datasets", answers.passed)] {
            let counter = self.plugin_answers.with_label_values(&[from]);
            counter.inc_by(total.saturating_sub(counter.get()));
        }
    }

    pub fn plugin_datasets(&self, bytes: usize) {
        self.plugin_dataset_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// An upstream that is configured no more takes its labels along.
    pub fn forget_upstream(&self, name: &str) {
        // What was never counted is not there to be removed.
        for result in ["healthy", "last_resort", "none", "saturated"] {
            let _ = self.upstream_picks.remove_label_values(&[name, result]);
        }
        for reason in ["connect", "broken", "refused"] {
            let _ = self.upstream_retries.remove_label_values(&[name, reason]);
        }
        let _ = self.upstream_healthy_peers.remove_label_values(&[name]);
    }

    /// In Prometheus' text format.
    pub fn render(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_a_valid_unique_name_and_no_host_label() {
        METRICS.connections.with_label_values(&["https", "served"]).inc();
        let text = METRICS.render();
        assert!(text.contains("latchkey_connections_total{listener=\"https\",outcome=\"served\"} 1"), "{text}");
        for forbidden in ["host=", "sni=", "path=", "domain="] {
            assert!(!text.contains(forbidden), "{forbidden}");
        }
    }
}
