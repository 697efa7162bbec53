//! Does a task and says what came of it. Decides nothing.

use std::collections::HashMap;
use std::time::Duration;

use contract::api::CertificateInfo;
use contract::sealed::Recipient;
use contract::{Bundle, Challenge, ChallengeKind, Hostname, Second};

use super::job::{Event, Job, SealedKey, Task};
use super::made::Made;
use crate::clock;
use crate::dns::Zones;
use crate::issue::{
    self, Chain, Csr, Failure, Finalized, Issuer, NewCertificate, OrderState, Own, Reason, Suggestion, Then,
};
use crate::keys::Keys;
use crate::notify::Notify;
use crate::precheck::Checks;
use crate::store::OWN;
use crate::{challenge, seal};

/// A caller waits for it.
const PROFILES_SECONDS_MAX: u64 = 5;
const REVOKE_SECONDS_MAX: u64 = 45;

/// What an order is worked on with.
pub struct Hands {
    pub issuers: HashMap<String, Issuer>,
    pub keys: Keys,
    pub notify: Notify,
    pub checks: Checks,
    pub zones: Zones,
    made: Made,
}

impl Hands {
    pub fn new(issuers: HashMap<String, Issuer>, keys: Keys, notify: Notify, checks: Checks, zones: Zones) -> Self {
        Self { issuers, keys, notify, checks, zones, made: Made::default() }
    }

    /// Takes answers out of DNS, which nobody waits for.
    pub fn clean_up(&self, answers: Vec<Challenge>) {
        if answers.iter().any(|answer| answer.kind == ChallengeKind::Dns01) {
            let zones = self.zones.clone();
            tokio::spawn(async move { zones.cleanup(&answers).await });
        }
    }

    /// `None` for hints, which nobody waits for.
    pub async fn act(&self, job: &Job, task: Task) -> Option<Event> {
        let done = match task {
            Task::Publish(answers) => {
                challenge::publish(&answers, &self.notify, clock::now()).await;
                return None;
            }
            Task::Withdraw(answers) => {
                challenge::withdraw(&answers, &self.notify).await;
                self.clean_up(answers);
                return None;
            }
            Task::Present(answers) => self.zones.present(&answers).await.map(Event::Presented),
            Task::Announce(bundle) => {
                self.notify.bundle(&bundle, clock::now()).await;
                return None;
            }
            Task::Check => self.check(job).await,
            Task::Order => self.order(job).await,
            Task::Look { order } => self.look(job, &order).await,
            Task::Ask { order } => self.ask(job, &order).await,
            Task::MakeKey => self.make_key(job).await,
            Task::Finalize { order, key } => self.finalize(job, order.as_deref(), key).await,
            Task::Fetch { order, key } => self.fetch(job, &order, key).await,
        };
        Some(done.unwrap_or_else(Event::Failed))
    }

    /// A certificate that was brought along, sealed to the edges.
    pub async fn seal_own(
        &self,
        domain: &Hostname,
        own: &Own,
        second: Option<&Own>,
    ) -> Result<(Bundle, CertificateInfo), Failure> {
        let Own { chain, key, facts, .. } = own;
        let edges = self.edges().await?;
        let rsa = second.map(|Own { chain, key, facts, .. }| {
            let x5c = Bundle::encode_chain(chain.iter().map(Vec::as_slice));
            Ok(Second { x5c, key: seal::to_certificate(key, facts, domain, &edges)? })
        });
        let also = second.map_or(facts, |second| &second.facts);
        let bundle = Bundle {
            domain: domain.clone(),
            revision: 0,
            issuer: OWN.to_owned(),
            // Valid while both are.
            not_before: facts.not_before.max(also.not_before),
            not_after: facts.not_after.min(also.not_after),
            x5c: Bundle::encode_chain(chain.iter().map(Vec::as_slice)),
            key: seal::to_certificate(key, facts, domain, &edges)?,
            rsa: rsa.transpose()?,
        };
        let shown = facts.shown(&bundle);
        Ok((bundle, shown))
    }

    /// To whom is sealed now.
    async fn edges(&self) -> Result<Vec<Recipient>, Failure> {
        let unread = |error| Failure::ours(format!("the edge keys can't be read: {error}"), Then::Retry { after: 0 });
        self.keys.active().await.map_err(unread)
    }

    /// Forgets the key of an order that is over.
    pub fn forget(&self, domain: &Hostname) {
        self.made.forget(domain);
    }

    /// Forgets keys of orders that somebody else has ended.
    pub(super) fn forget_old(&self, now: u64) {
        self.made.forget_old(now);
    }

    /// Private keys that are in memory.
    pub fn keys_in_memory(&self) -> usize {
        self.made.count()
    }

    fn issuer(&self, job: &Job) -> Result<&Issuer, Failure> {
        self.issuers.get(&job.issuer).ok_or_else(|| {
            let says = format!("issuer `{}` is no longer in the boot file", job.issuer);
            Failure { code: "unknown_issuer".into(), ..Failure::ours(says, Then::Retry { after: 0 }) }
        })
    }

    /// When an issuer would like a certificate to be replaced; `None` where it does not say, or is no more.
    pub async fn suggestion(&self, issuer: &str, ari_id: &str) -> Result<Option<Suggestion>, Failure> {
        match self.issuers.get(issuer) {
            Some(issuer) => issuer.suggestion(ari_id).await,
            None => Ok(None),
        }
    }

    /// Whether an issuer took a certificate back; `false` where it can't.
    pub async fn revoke(&self, issuer: &str, leaf: &[u8], reason: Reason) -> Result<bool, Failure> {
        let limit = Duration::from_secs(REVOKE_SECONDS_MAX);
        let issuer = self
            .issuers
            .get(issuer)
            .ok_or_else(|| Failure::ours(format!("issuer `{issuer}` is no longer in the boot file"), Then::Stop))?;
        let late = |_| Failure::unreachable(format!("no answer within {REVOKE_SECONDS_MAX} s"), 0);
        tokio::time::timeout(limit, issuer.revoke(leaf, reason)).await.map_err(late)?
    }

    /// Why none of these issuers makes certificates of a profile; `None` where one does, or may: one that can't be asked now is
    /// asked when the order leaves.
    pub async fn lacks_profile(&self, issuers: &[String], profile: &str) -> Option<String> {
        let limit = Duration::from_secs(PROFILES_SECONDS_MAX);
        let mut offers = Vec::new();
        for name in issuers {
            let issuer = self.issuers.get(name)?;
            let offered = tokio::time::timeout(limit, issuer.profiles()).await.ok()?.ok()?;
            let offered = offered.unwrap_or_default();
            if offered.iter().any(|known| known == profile) {
                return None;
            }
            let offered = if offered.is_empty() { "none".to_owned() } else { offered.join(", ") };
            offers.push(format!("{name} offers: {offered}"));
        }
        Some(format!("no issuer of the domain offers the profile `{profile}`; {}", offers.join("; ")))
    }

    async fn check(&self, job: &Job) -> Result<Event, Failure> {
        Ok(Event::Checked(self.checks.look(&job.issuer, &job.domain).await))
    }

    async fn order(&self, job: &Job) -> Result<Event, Failure> {
        let (domain, profile) = (&job.domain, job.profile.as_deref());
        let order = NewCertificate { domain, replaces: job.replaces(), profile };
        self.issuer(job)?.order(&order).await.map(Event::Ordered)
    }

    async fn look(&self, job: &Job, order: &str) -> Result<Event, Failure> {
        let state: OrderState = self.issuer(job)?.look(order, &job.domain, clock::now()).await?;
        Ok(Event::Looked(state))
    }

    async fn ask(&self, job: &Job, order: &str) -> Result<Event, Failure> {
        self.issuer(job)?.ask(order).await?;
        Ok(Event::Asked)
    }

    async fn make_key(&self, job: &Job) -> Result<Event, Failure> {
        let (domain, kind) = (job.domain.clone(), job.key_kind());
        let made = tokio::task::spawn_blocking(move || issue::new_key(&domain, kind)).await;
        let ended = |_| Failure::ours("making a key was broken off", Then::Retry { after: 0 });
        let (key, csr) = made.map_err(ended)??;
        let sealed = seal::before_issuance(&key, &csr, &job.domain, &self.edges().await?)?;
        self.made.keep(&job.domain, key, clock::now());
        Ok(Event::KeyMade(SealedKey { csr: csr.der().to_vec(), sealed }))
    }

    async fn finalize(&self, job: &Job, order: Option<&str>, key: SealedKey) -> Result<Event, Failure> {
        let csr = Csr::from_der(key.csr.clone())?;
        match self.issuer(job)?.finalize(order, &csr, &job.domain, clock::now()).await? {
            Finalized::Accepted => Ok(Event::Accepted),
            Finalized::Issued(chain) => self.certified(job, &csr, key, chain).await,
        }
    }

    async fn fetch(&self, job: &Job, order: &str, key: SealedKey) -> Result<Event, Failure> {
        match self.issuer(job)?.certificate(order).await? {
            Some(chain) => self.certified(job, &Csr::from_der(key.csr.clone())?, key, chain).await,
            None => Ok(Event::Pending),
        }
    }

    async fn certified(&self, job: &Job, csr: &Csr, key: SealedKey, chain: Chain) -> Result<Event, Failure> {
        let facts = issue::check(&chain, &job.domain, csr, clock::now())?;
        let sealed = match self.made.of(&job.domain).filter(|key| key.public_key_sha256() == csr.public_key_sha256()) {
            Some(key) => seal::to_certificate(&key, &facts, &job.domain, &self.edges().await?)?,
            None => key.sealed,
        };
        let x5c = Bundle::encode_chain(chain.iter().map(Vec::as_slice));
        let bundle = match &job.first {
            None => Bundle {
                domain: job.domain.clone(),
                revision: job.revision,
                issuer: job.issuer.clone(),
                not_before: facts.not_before,
                not_after: facts.not_after,
                x5c,
                key: sealed,
                rsa: None,
            },
            // Valid while both are.
            Some(first) => Bundle {
                not_before: first.bundle.not_before.max(facts.not_before),
                not_after: first.bundle.not_after.min(facts.not_after),
                rsa: Some(Second { x5c, key: sealed }),
                ..first.bundle.clone()
            },
        };
        Ok(Event::Certified { bundle: Box::new(bundle), facts })
    }
}
