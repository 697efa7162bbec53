//! Which certificate a ClientHello is answered with, if any: decided once per handshake, before a session is resumed.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use contract::Hostname;
use openssl::ssl::SslAlert;

use super::hello::{Offer, ServerName};
use super::known::Known;
use super::miss::{Miss, Misses};
use super::table::{Found, Table, Tier};
use super::warm::Certificate;
use crate::observe::METRICS;

/// Where certificates are looked for.
#[derive(Clone)]
pub struct Sources {
    pub table: Arc<Table>,
    pub known: Arc<Known>,
    pub misses: Arc<Misses>,
}

#[derive(Clone)]
pub(super) enum Choice {
    Serve(Served),
    /// Nothing is known yet; the handshake waits.
    Wait(Hostname),
    Refuse(Refusal),
}

#[derive(Clone)]
pub(super) struct Served {
    pub(super) name: Hostname,
    pub(super) certificate: Arc<Certificate>,
    pub(super) tier: Tier,
    /// What it took to find it in memory; nothing if it was waited for.
    pub(super) found_in: Duration,
}

impl Served {
    pub(super) fn new(name: Hostname, certificate: Arc<Certificate>, tier: Tier) -> Self {
        Self { name, certificate, tier, found_in: Duration::ZERO }
    }
}

#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Refusal {
    #[error("the client named no host (SNI, RFC 6066 section 3)")]
    NoSni,
    #[error("the client named something that is not a host: {0}")]
    MalformedSni(String),
    #[error("{0}: {1}")]
    Miss(Hostname, Miss),
    #[error("{0}: the client offers acme-tls/1 beside other protocols (RFC 8737 section 3)")]
    AcmeAmongOthers(Hostname),
    #[error("{0}: no TLS-ALPN-01 challenge is open")]
    NoChallenge(Hostname),
}

impl Refusal {
    /// RFC 6066 section 3 for a name we do not serve; a passing fault is ours.
    pub(super) fn alert(&self) -> SslAlert {
        match self {
            Self::NoSni => SslAlert::MISSING_EXTENSION,
            Self::MalformedSni(_) | Self::Miss(_, Miss::Unknown | Miss::NotIssued) => SslAlert::UNRECOGNIZED_NAME,
            Self::Miss(..) => SslAlert::INTERNAL_ERROR,
            Self::AcmeAmongOthers(_) | Self::NoChallenge(_) => SslAlert::NO_APPLICATION_PROTOCOL,
        }
    }

    /// Label of the counter.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::NoSni => "no_sni",
            Self::MalformedSni(_) => "malformed_sni",
            Self::Miss(_, miss) => miss.reason(),
            Self::AcmeAmongOthers(_) => "acme_among_others",
            Self::NoChallenge(_) => "no_challenge",
        }
    }
}

impl Sources {
    pub(super) fn choose(&self, named: ServerName, offer: Offer, client: IpAddr) -> Choice {
        match (named, offer) {
            (ServerName::Absent, _) => Choice::Refuse(Refusal::NoSni),
            (ServerName::Malformed(why), _) => Choice::Refuse(Refusal::MalformedSni(why)),
            (ServerName::Host(name), Offer::Http) => self.of(name, client),
            (ServerName::Host(name), Offer::Acme) => Choice::Refuse(Refusal::NoChallenge(name)),
            (ServerName::Host(name), Offer::AcmeAmongOthers) => Choice::Refuse(Refusal::AcmeAmongOthers(name)),
        }
    }

    fn of(&self, name: Hostname, client: IpAddr) -> Choice {
        let started = Instant::now();
        let (tier, result, choice) = match self.table.find(&name, super::now()) {
            Found::Fresh(certificate, tier) => {
                (tier.label(), "hit", Choice::Serve(Served { name, certificate, tier, found_in: started.elapsed() }))
            }
            Found::Aging(certificate, tier) => {
                self.misses.refresh(&name);
                (tier.label(), "hit", Choice::Serve(Served { name, certificate, tier, found_in: started.elapsed() }))
            }
            Found::Absent(miss) => ("warm", "absent", Choice::Refuse(Refusal::Miss(name, miss))),
            Found::Nothing if self.may_exist(&name, client) => ("warm", "miss", Choice::Wait(name)),
            Found::Nothing => ("warm", "unknown_name", Choice::Refuse(Refusal::Miss(name, Miss::Unknown))),
        };
        METRICS.certificate_lookups.with_label_values(&[tier, result]).inc();
        choice
    }

    /// Who joins a load that is under way costs nothing more.
    fn may_exist(&self, name: &Hostname, client: IpAddr) -> bool {
        self.known.may_exist(name.as_str())
            || self.misses.loading(name)
            || self.known.may_look_up_unlisted(name.as_str(), client)
    }
}
