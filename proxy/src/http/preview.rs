//! What a plugin would do to an answer, asked without a visitor: the very call that traffic makes, without a memory of
//! earlier answers.

use contract::admin::{PreviewHost, PreviewedHost};
use contract::{Hostname, Validity};

use super::plugins::{Attached, facts};
use super::route::{Routes, Site};
use crate::tls::{HEALTH, Standing, Table};
use crate::wasm::{Binding, Fault, RequestFacts, RequestView, ResponseView};

/// `GET /` without header fields, and an answer 200 without any.
struct Plain<'a>(&'a Hostname);

impl RequestView for Plain<'_> {
    fn host(&self) -> &str {
        self.0.as_str()
    }
    fn path(&self) -> &str {
        "/"
    }
    fn query(&self) -> Option<&str> {
        None
    }
    fn header(&self, _: &str) -> Option<&[u8]> {
        None
    }
}

impl ResponseView for Plain<'_> {
    fn status(&self) -> u16 {
        200
    }
    fn header(&self, _: &str) -> Option<&[u8]> {
        None
    }
}

/// At some moments (Unix seconds), with the certificate as it stands at the first of them.
pub fn preview(routes: &Routes, table: &Table, plugin: &str, asked: &PreviewHost, at: &[u64]) -> PreviewedHost {
    let host = &asked.host;
    // What is served from here counts; what was told stands for a certificate that nobody has asked for here.
    let told = asked.not_before.zip(asked.not_after);
    let told = told.map(|(not_before, not_after)| Validity { not_before, not_after });
    let validity = table.validity(host).or(told);
    let standing = HEALTH.of(host, validity, at.first().copied().unwrap_or_default());
    let unwell = standing.unwell();
    let mut told = PreviewedHost {
        host: host.clone(),
        bound: false,
        certificate: standing.word().to_owned(),
        since: unwell.map(|unwell| unwell.since),
        ends: unwell.map(|unwell| unwell.ends),
        changes: Vec::new(),
        if_healthy: Vec::new(),
        fault: None,
    };
    let bucket = facts(host, None).rollout_bucket;
    let Some(binding) = routes.find(host).and_then(|site| bound(site, plugin, bucket)) else { return told };
    told.bound = true;
    let said = changes(binding, host, standing, at).and_then(|changes| {
        told.changes = changes;
        match standing {
            Standing::Healthy => Ok(Vec::new()),
            _ => self::changes(binding, host, Standing::Healthy, at),
        }
    });
    match said {
        Ok(if_healthy) => told.if_healthy = if_healthy,
        Err(fault) => told.fault = Some(fault.to_string()),
    }
    told
}

fn bound<'a>(site: &'a Site, plugin: &str, bucket: u16) -> Option<&'a Binding> {
    let ours = |attached: &&Attached| &*attached.plugin == plugin && bucket < attached.buckets;
    let attached = site.plugins.iter().find(ours)?;
    attached.binding.hooks().response.then_some(&*attached.binding)
}

fn changes(binding: &Binding, host: &Hostname, standing: Standing, at: &[u64]) -> Result<Vec<Vec<String>>, Fault> {
    let facts = facts(host, None);
    let plain = Plain(host);
    let at = at.iter().map(|now| {
        let facts = RequestFacts { now_ms: now.saturating_mul(1000), https: true, standing, ..facts };
        let edits = binding.ask_on_response(&facts, &plain, &plain)?;
        Ok(edits.iter().map(ToString::to_string).collect())
    });
    at.collect()
}
