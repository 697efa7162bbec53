//! Answers to dns-01 challenges: where in DNS they belong, and who puts them there. Must never change anything but the TXT
//! records that it made.

mod rfc2136;
mod webhook;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use contract::api::{State, Who};
use contract::{Challenge, ChallengeKind};

use crate::config;
use crate::issue::{Failure, Then};
use crate::precheck::{Checks, challenge_name, lies_in};

/// One change of a zone, from the first byte to the answer.
const CHANGE_SECONDS_MAX: u64 = 30;
/// Leftovers do no harm: they are removed if that goes at once.
const CLEANUPS_MAX: usize = 3;

/// Who puts records into which zones.
#[derive(Clone)]
pub struct Zones {
    providers: Arc<Vec<Provider>>,
    checks: Checks,
}

struct Provider {
    name: String,
    /// Lower case, without the last dot; empty stands for all.
    zones: Vec<String>,
    wait_seconds: u64,
    kind: Kind,
}

enum Kind {
    Rfc2136(rfc2136::Server),
    Webhook(Box<webhook::Hook>),
}

/// A TXT record: no trailing dot in the name.
struct Record {
    name: String,
    value: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Add,
    Remove,
}

impl Zones {
    pub fn open(providers: &[config::DnsProvider], checks: Checks) -> Result<Self, String> {
        let open = |provider: &config::DnsProvider| {
            let named = |says| format!("dns `{}`: {says}", provider.name);
            let kind = match &provider.kind {
                config::DnsKind::Rfc2136(server) => rfc2136::Server::open(server).map(Kind::Rfc2136),
                config::DnsKind::Webhook(hook) => webhook::Hook::open(hook).map(|hook| Kind::Webhook(Box::new(hook))),
            };
            let (name, zones, wait_seconds) = (provider.name.clone(), provider.zones.clone(), provider.wait_seconds);
            Ok::<_, String>(Provider { name, zones, wait_seconds, kind: kind.map_err(named)? })
        };
        let providers = providers.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { providers: Arc::new(providers), checks })
    }

    /// Puts answers into DNS; how many seconds they need to be everywhere. Doing it twice does no harm.
    pub async fn present(&self, answers: &[Challenge]) -> Result<u64, Failure> {
        let mut wait_seconds = 0;
        for answer in answers.iter().filter(|answer| answer.kind == ChallengeKind::Dns01) {
            let record = self.record(answer).await?;
            let (provider, zone) = self.of(&record.name).ok_or_else(|| self.not_delegated(answer, &record.name))?;
            self.change(provider, zone, &record, Change::Add).await?;
            wait_seconds = wait_seconds.max(provider.wait_seconds);
        }
        Ok(wait_seconds)
    }

    /// Takes them out again, as far as that goes.
    pub async fn cleanup(&self, answers: &[Challenge]) {
        for answer in answers.iter().filter(|answer| answer.kind == ChallengeKind::Dns01) {
            for attempt in 1..=CLEANUPS_MAX {
                match self.take_out(answer).await {
                    Ok(()) => break,
                    Err(failure) if attempt == CLEANUPS_MAX => {
                        let (domain, says) = (&answer.domain, failure.says);
                        tracing::warn!(%domain, says, "the answer to a challenge stays in DNS; it does no harm there");
                    }
                    Err(_) => {}
                }
            }
        }
    }

    async fn take_out(&self, answer: &Challenge) -> Result<(), Failure> {
        let record = self.record(answer).await?;
        match self.of(&record.name) {
            Some((provider, zone)) => self.change(provider, zone, &record, Change::Remove).await,
            None => Ok(()),
        }
    }

    async fn change(&self, provider: &Provider, zone: &str, record: &Record, change: Change) -> Result<(), Failure> {
        let limit = Duration::from_secs(CHANGE_SECONDS_MAX);
        let done = async {
            match &provider.kind {
                Kind::Rfc2136(server) => server.change(zone, record, change).await,
                Kind::Webhook(hook) => hook.change(record, change).await,
            }
        };
        let done = tokio::time::timeout(limit, done).await;
        let done = done.unwrap_or_else(|_| Err(format!("no answer within {CHANGE_SECONDS_MAX} s")));
        done.map_err(|says| {
            let says = format!("dns `{}` did not change {}: {says}", provider.name, record.name);
            Failure::new("dns_update_failed", says, State::Working, Who::Operator, Then::Retry { after: 0 })
        })
    }

    /// Where the name of a challenge leads: a customer may have delegated it by a CNAME record.
    async fn record(&self, answer: &Challenge) -> Result<Record, Failure> {
        let leads = self.checks.challenge_leads_to(&answer.domain).await;
        let name = leads.map_err(|says| {
            let says = format!("the name servers of {} did not answer: {says}", challenge_name(&answer.domain));
            Failure::new("dns_failed", says, State::ActionNeeded, Who::Customer, Then::Retry { after: 0 })
        })?;
        Ok(Record { name, value: value(&answer.key_authorization) })
    }

    /// Who keeps a name's zone: of several, the one with the longest.
    fn of(&self, name: &str) -> Option<(&Provider, &str)> {
        let zones =
            self.providers.iter().flat_map(|provider| provider.zones.iter().map(move |zone| (provider, &**zone)));
        let kept = zones.filter(|(_, zone)| lies_in(name, zone));
        kept.max_by_key(|(_, zone)| zone.len())
    }

    fn not_delegated(&self, answer: &Challenge, name: &str) -> Failure {
        let from = challenge_name(&answer.domain);
        let says = match from == name {
            true => format!("{from} is in no zone of [[dns]], and no CNAME record leads from it to one"),
            false => format!("{from} leads to {name}, which is in no zone of [[dns]]"),
        };
        Failure::new("dns_not_delegated", says, State::ActionNeeded, Who::Customer, Then::Retry { after: 0 })
    }
}

/// RFC 8555 section 8.4.
fn value(key_authorization: &str) -> String {
    URL_SAFE_NO_PAD.encode(contract::bundle::sha256(key_authorization.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8555 section 8.4 has no sample; made with `printf %s t.k | openssl dgst -sha256 -binary | basenc --base64url`.
    #[test]
    fn the_value_is_the_digest_of_the_key_authorization() {
        assert_eq!(value("t.k").len(), 43);
        assert_eq!(value(""), "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU");
    }
}
