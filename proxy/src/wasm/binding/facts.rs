//! The facts of a request, as guests are told.

use crate::tls::{Standing, Unwell};
use crate::wasm::guest::http;
use crate::wasm::types::RequestFacts;

pub(super) fn guest_facts(facts: &RequestFacts) -> http::Facts {
    http::Facts {
        now_ms: facts.now_ms,
        visit: visit(facts),
        certificate: certificate(facts.standing),
        rollout_bucket: facts.rollout_bucket,
    }
}

fn visit(facts: &RequestFacts) -> http::Visit {
    let mut visit = http::Visit::empty();
    if facts.https {
        visit |= http::Visit::HTTPS;
    }
    if facts.ip_host {
        visit |= http::Visit::IP_LITERAL_HOST;
    }
    visit
}

fn certificate(standing: Standing) -> http::Certificate {
    let unwell = |unwell: Unwell| http::Unwell {
        since_ms: unwell.since.saturating_mul(1000),
        ends_ms: unwell.ends.saturating_mul(1000),
    };
    match standing {
        Standing::None => http::Certificate::None,
        Standing::Healthy => http::Certificate::Healthy,
        Standing::RenewalFailing(since) => http::Certificate::RenewalFailing(unwell(since)),
        Standing::Ending(since) => http::Certificate::Ending(unwell(since)),
        Standing::HandshakeErrors(since) => http::Certificate::HandshakeErrors(unwell(since)),
    }
}
