//! Which certificate a ClientHello is answered with, if any: decided once per handshake, before a session is resumed.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use contract::Hostname;
use openssl::ssl::SslAlert;

use super::acme::Proof;
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
    pub policy: NamePolicy,
}

/// What a client gets that names no host, or none of ours: an alert where there is nothing.
#[derive(Debug, Clone, Default)]
pub struct NamePolicy {
    pub without_sni: Option<Fallback>,
    /// Also for what is not a host name.
    pub unknown_sni: Option<Fallback>,
}

/// The certificate that stands in. Requests on such a connection are answered 421, whatever host they are for.
#[derive(Debug, Clone)]
pub enum Fallback {
    /// Of a domain that CertService knows.
    Of(Hostname),
    Certificate(Arc<Certificate>),
}

#[derive(Clone)]
pub(super) enum Choice {
    Serve(Served),
    /// Nothing is known yet; the handshake waits.
    Wait(Wanted),
    /// A CA checks a challenge: its answer is looked for.
    WaitForChallenge(Hostname),
    Prove(Hostname, Arc<Proof>),
    Refuse(Refusal),
}

/// Waits of one handshake: for the name, for its wildcard, for the order of one of them, for what stands in.
pub(super) const WAITS_MAX: usize = 4;

/// A certificate that is waited for.
#[derive(Clone)]
pub(super) struct Wanted {
    /// What the client named, or the default.
    pub(super) name: Hostname,
    /// Looked for under the wildcard that stands for the name, not under the name itself.
    wildcard: Option<Hostname>,
    /// It is to stand in for what would be refused.
    instead_of: Option<Refusal>,
    /// It is being issued.
    pub(super) coming: bool,
}

#[derive(Clone)]
pub(super) struct Served {
    /// What the client named; nothing if this is the default certificate.
    pub(super) name: Option<Hostname>,
    pub(super) certificate: Arc<Certificate>,
    pub(super) tier: Tier,
    /// What it took to find it in memory; nothing if it was waited for.
    pub(super) found_in: Duration,
}

impl Wanted {
    fn new(name: Hostname) -> Self {
        Self { name, wildcard: None, instead_of: None, coming: false }
    }
}

impl Wanted {
    fn coming(name: Hostname, wildcard: Option<Hostname>) -> Self {
        Self { wildcard, coming: true, ..Self::new(name) }
    }
}

impl Served {
    fn new(name: Option<Hostname>, certificate: Arc<Certificate>, tier: Tier) -> Self {
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
            Self::MalformedSni(_) => SslAlert::UNRECOGNIZED_NAME,
            Self::Miss(_, miss) if miss.is_none_yet() => SslAlert::UNRECOGNIZED_NAME,
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
            (ServerName::Absent, Offer::Http) => self.refuse(Refusal::NoSni),
            (ServerName::Malformed(why), Offer::Http) => self.refuse(Refusal::MalformedSni(why)),
            (ServerName::Host(name), Offer::Http) => self.of(name, client),
            // A CA is told the truth.
            (ServerName::Absent, _) => Choice::Refuse(Refusal::NoSni),
            (ServerName::Malformed(why), _) => Choice::Refuse(Refusal::MalformedSni(why)),
            (ServerName::Host(name), Offer::Acme) if self.may_exist(&name, client) => Choice::WaitForChallenge(name),
            (ServerName::Host(name), Offer::Acme) => Choice::Refuse(Refusal::NoChallenge(name)),
            (ServerName::Host(name), Offer::AcmeAmongOthers) => Choice::Refuse(Refusal::AcmeAmongOthers(name)),
        }
    }

    fn of(&self, name: Hostname, client: IpAddr) -> Choice {
        let started = Instant::now();
        let (tier, result, choice) = match self.in_memory(&name) {
            Found::Fresh(certificate, tier) | Found::Aging(certificate, tier) => {
                let served = Served { found_in: started.elapsed(), ..Served::new(Some(name), certificate, tier) };
                (tier.label(), "hit", Choice::Serve(served))
            }
            Found::Absent(miss) => match self.of_wildcard(&name, false) {
                Some(choice) => ("warm", "wildcard", choice),
                None if miss == Miss::Coming => ("warm", "miss", Choice::Wait(Wanted::coming(name, None))),
                None => ("warm", "absent", self.refuse(Refusal::Miss(name, miss))),
            },
            // The exact name has the first word, where there may be one.
            Found::Nothing if self.is_listed(&name) => ("warm", "miss", Choice::Wait(Wanted::new(name))),
            Found::Nothing => match self.of_wildcard(&name, false) {
                Some(choice) => ("warm", "wildcard", choice),
                None if self.known.may_look_up_unlisted(name.as_str(), client) => {
                    ("warm", "miss", Choice::Wait(Wanted::new(name)))
                }
                None => ("warm", "unknown_name", self.refuse(Refusal::Miss(name, Miss::Unknown))),
            },
        };
        METRICS.certificate_lookups.with_label_values(&[tier, result]).inc();
        choice
    }

    /// The wildcard one label above, where there may be one: at hand, or to be waited for. `unlisted`: also one that the list
    /// of names does not have yet.
    fn of_wildcard(&self, name: &Hostname, unlisted: bool) -> Option<Choice> {
        let wildcard = name.wildcard()?;
        match self.in_memory(&wildcard) {
            Found::Fresh(certificate, tier) | Found::Aging(certificate, tier) => {
                Some(Choice::Serve(Served::new(Some(name.clone()), certificate, tier)))
            }
            Found::Nothing if unlisted || self.is_listed(&wildcard) => {
                Some(Choice::Wait(Wanted { wildcard: Some(wildcard), ..Wanted::new(name.clone()) }))
            }
            Found::Absent(Miss::Coming) => Some(Choice::Wait(Wanted::coming(name.clone(), Some(wildcard)))),
            Found::Nothing | Found::Absent(_) => None,
        }
    }

    fn in_memory(&self, name: &Hostname) -> Found {
        let found = self.table.find(name, super::now());
        if matches!(found, Found::Aging(..)) {
            self.misses.refresh(name);
        }
        found
    }

    /// A refusal, or the certificate that stands in where the policy says so.
    fn refuse(&self, refusal: Refusal) -> Choice {
        let fallback = match &refusal {
            Refusal::NoSni => &self.policy.without_sni,
            Refusal::MalformedSni(_) => &self.policy.unknown_sni,
            Refusal::Miss(_, miss) if miss.is_none_yet() => &self.policy.unknown_sni,
            _ => &None,
        };
        match fallback {
            None => Choice::Refuse(refusal),
            Some(Fallback::Certificate(certificate)) => {
                Choice::Serve(Served::new(None, certificate.clone(), Tier::Parsed))
            }
            Some(Fallback::Of(name)) => match self.in_memory(name) {
                Found::Fresh(certificate, tier) | Found::Aging(certificate, tier) => {
                    Choice::Serve(Served::new(None, certificate, tier))
                }
                Found::Absent(_) => Choice::Refuse(refusal),
                Found::Nothing => Choice::Wait(Wanted { instead_of: Some(refusal), ..Wanted::new(name.clone()) }),
            },
        }
    }

    pub(super) async fn prove(&self, name: &Hostname) -> Choice {
        let challenge = match self.misses.challenge(name).await {
            Ok(challenge) => challenge,
            Err(miss) if miss.is_none_yet() => return Choice::Refuse(Refusal::NoChallenge(name.clone())),
            Err(miss) => return Choice::Refuse(Refusal::Miss(name.clone(), miss)),
        };
        match Proof::of(&challenge) {
            Ok(proof) => Choice::Prove(name.clone(), Arc::new(proof)),
            Err(error) => Choice::Refuse(Refusal::Miss(name.clone(), Miss::Rejected(error.to_string()))),
        }
    }

    /// What comes of waiting: never another wait for the same.
    pub(super) async fn wait(&self, wanted: &Wanted, deadline: Duration) -> Choice {
        let Wanted { name, wildcard, instead_of, coming } = wanted;
        let of = wildcard.as_ref().unwrap_or(name);
        let answer = match coming {
            true => self.misses.wait_for_order(of, deadline).await,
            false => self.misses.wait(of, deadline).await,
        };
        match (answer, instead_of) {
            (Ok((certificate, tier)), None) => Choice::Serve(Served::new(Some(name.clone()), certificate, tier)),
            (Ok((certificate, tier)), Some(_)) => Choice::Serve(Served::new(None, certificate, tier)),
            // Of one that is about to be there: what stands for it meanwhile is one that is known.
            (Err(Miss::Coming), None) if !coming => match wildcard {
                None => self.of_wildcard(name, false),
                Some(_) => None,
            }
            .unwrap_or_else(|| Choice::Wait(Wanted::coming(name.clone(), wildcard.clone()))),
            // Its own certificate is not there: a wildcard's will do. Who came so far has paid for a look.
            (Err(miss), None) if !coming && wildcard.is_none() => match self.of_wildcard(name, true) {
                Some(choice) => choice,
                None => self.refuse(Refusal::Miss(name.clone(), miss)),
            },
            (Err(miss), None) => self.refuse(Refusal::Miss(name.clone(), miss)),
            (Err(_), Some(refusal)) => Choice::Refuse(refusal.clone()),
        }
    }

    /// Who joins a load that is under way costs nothing more.
    fn is_listed(&self, name: &Hostname) -> bool {
        self.known.may_exist(name.as_str()) || self.misses.loading(name)
    }

    fn may_exist(&self, name: &Hostname, client: IpAddr) -> bool {
        self.is_listed(name) || self.known.may_look_up_unlisted(name.as_str(), client)
    }
}
