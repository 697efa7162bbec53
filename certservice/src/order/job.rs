//! An order in hand: all that has to survive a crash.

use contract::api::{Domain, DomainStep, PassedOver, State, Who};
use contract::sealed::Sealed;
use contract::{Bundle, Challenge, Hostname};
use serde::{Deserialize, Serialize};

use super::steps::steps;
use crate::budget::Shortage;
use crate::issue::{Facts, Failure, KeyKind, OrderState};
use crate::precheck::Report;

/// One order at work. Stored as JSON before each act; holds no plaintext key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    pub domain: Hostname,
    /// Whom it goes to now.
    pub issuer: String,
    /// The domain's own order of preference; empty: the boot file's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub issuers: Vec<String>,
    /// What kind of certificate; the issuer's own where the domain has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Issuers that have refused this name, and until when.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<PassedOver>,
    /// Why it goes to none of those that come before its issuer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passed: Vec<PassedOver>,
    /// Unix seconds; when another issuer may take it from the line that it waits in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub others_at: Option<u64>,
    /// Whose certificate is served while this one is obtained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served_by: Option<String>,
    /// Of the certificate that it will bring. The store raises it above all that edges may have of the domain.
    pub revision: u64,
    /// A certificate is served while this one is obtained.
    #[serde(default)]
    pub renews: bool,
    #[serde(default)]
    pub lane: Lane,
    /// Unix seconds; when the certificate that is served ends.
    #[serde(default)]
    pub deadline: u64,
    /// What the CA knows the certificate by that this one replaces (RFC 9773).
    #[serde(default)]
    pub replaces: Option<String>,
    /// The CA's limits were charged with it.
    #[serde(default)]
    pub spent: bool,
    /// Unix seconds.
    pub created_at: u64,
    /// Unix seconds; nothing happens before.
    pub due_at: u64,
    /// In a row; sets the pause before the next try.
    pub failures: u32,
    /// Unix seconds; of a renewal: when a try failed first. The edges are told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<u64>,
    pub step: Step,
    /// What must be found on the domain while the CA looks.
    pub answers: Vec<Challenge>,
    /// What the last look at the domain found.
    #[serde(default)]
    pub checks: Vec<DomainStep>,
    /// Unix seconds; when that was.
    #[serde(default)]
    pub looked_at: u64,
    /// Unix seconds; when the visitor came that it waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visited_at: Option<u64>,
    /// Unix seconds; when an order left last although the look found a fault.
    #[serde(default)]
    pub doubted_at: u64,
    /// The certificate that is here already, while the RSA one beside it is obtained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<Box<First>>,
    pub status: Status,
}

/// A certificate that could be served at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct First {
    pub bundle: Bundle,
    pub facts: Facts,
}

/// Where an order stands. Each step names what is known, so that a restart goes on from here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// No order yet; the domain is to be looked at.
    Queued,
    /// No order before a visitor comes. The domain is looked at until nothing is wrong with it, to tell its owner.
    Awaited,
    /// It was looked at; the CA's limits, or the CA, make it wait.
    InLine { checked_at: u64 },
    /// It was looked at; others have all places for orders.
    Looked { checked_at: u64 },
    /// What the order takes from the CA's limits is taken; the CA may or may not have it.
    Ordering,
    /// The CA has an order; what it wants is not known yet.
    Ordered { order: String },
    /// The answers are to be put into DNS.
    Presenting { order: String },
    /// The answers stand; the CA has not been asked to look at them.
    Answering { order: String },
    /// The CA was asked to look.
    Validating { order: String, polls: u32 },
    /// The CA will take a CSR. An issuer without orders starts here.
    Ready { order: Option<String> },
    /// Key made and sealed; the CA may or may not have the CSR.
    Keyed { order: Option<String>, key: SealedKey },
    /// The CA has the CSR.
    Finalizing { order: String, key: SealedKey, polls: u32 },
    /// The end: the bundle is to be stored and the job removed.
    Issued { bundle: Box<Bundle>, facts: Box<Facts> },
    /// The other end: refused for good; the job is removed.
    Stopped,
    /// Looked at, and all is well: the job is removed, and the visitor brings another.
    Parked,
}

/// Who goes first where not all can go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// Somebody has come and waits.
    Visitor = 0,
    /// What ends soonest goes first.
    Renewal = 1,
    #[default]
    New = 2,
    Bulk = 3,
}

/// What a step needs to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The CA knows of it: it goes on whatever the limits are.
    UnderWay = 0,
    /// An open issuer with budget left, and a place.
    InLine = 1,
    /// A look, which costs no CA anything.
    ToCheck = 2,
    /// An open issuer: it takes nothing of what that limits by account.
    Uncounted = 3,
}

impl Stage {
    /// Where nobody waits for a time, only for a turn.
    pub const IN_LINE: [Self; 2] = [Self::Uncounted, Self::InLine];
}

impl Lane {
    pub const ALL: [Self; 4] = [Self::Visitor, Self::Renewal, Self::New, Self::Bulk];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Visitor => "visitor",
            Self::Renewal => "renewal",
            Self::New => "new",
            Self::Bulk => "bulk",
        }
    }
}

/// Why an order that could leave does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Unix seconds.
    pub until: u64,
    /// All orders of the issuer wait, not only this one.
    pub whole: bool,
    pub code: String,
    pub says: String,
}

impl Held {
    pub(super) fn of(&self, issuer: &str) -> PassedOver {
        PassedOver { issuer: issuer.into(), code: self.code.clone(), says: self.says.clone(), until: self.until }
    }
}

impl From<&Shortage> for Held {
    fn from(short: &Shortage) -> Self {
        Self { until: short.until, whole: short.is_of_issuer(), code: "rate_limited".into(), says: short.says() }
    }
}

/// A key as it may be stored: sealed, with the CSR that it signed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SealedKey {
    /// DER, hexadecimal.
    #[serde(with = "super::hex")]
    pub csr: Vec<u8>,
    pub sealed: Sealed,
}

/// What is shown on the domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub state: State,
    pub code: String,
    pub says: String,
    pub who: Who,
    #[serde(default)]
    pub steps: Vec<DomainStep>,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// It is time: the first run, another try, another look, or the first run after a crash.
    Due,
    /// The domain was looked at, as the CA will.
    Checked(Report),
    /// It was about to leave.
    Held(Held),
    /// The same, and no place was free.
    Crowded,
    /// The CA opened an order; `None` from an issuer without orders.
    Ordered(Option<String>),
    /// The CA was asked for the state of the order.
    Looked(OrderState),
    /// The answers are in DNS, and everywhere in so many seconds.
    Presented(u64),
    /// The CA was asked to fetch the answers.
    Asked,
    KeyMade(SealedKey),
    /// The CA took the CSR, or had taken it before.
    Accepted,
    /// The CA is still making the certificate.
    Pending,
    /// The certificate is here and checked, its key sealed; the bundle has the first one too, if there is one.
    Certified {
        bundle: Box<Bundle>,
        facts: Facts,
    },
    Failed(Failure),
}

/// What to do next. All tasks may be done again.
#[derive(Debug, Clone, PartialEq)]
pub enum Task {
    /// Look at the domain. No CA is asked.
    Check,
    Order,
    Look {
        order: String,
    },
    /// Put the answers into DNS.
    Present(Vec<Challenge>),
    /// Hint to the edges' shared cache.
    Publish(Vec<Challenge>),
    /// The same, taken back.
    Withdraw(Vec<Challenge>),
    Ask {
        order: String,
    },
    MakeKey,
    Finalize {
        order: Option<String>,
        key: SealedKey,
    },
    Fetch {
        order: String,
        key: SealedKey,
    },
    /// Hint to the edges' shared cache.
    Announce(Box<Bundle>),
}

impl Job {
    /// A first order (`served` is 0) or a renewal of revision `served`.
    pub fn new(domain: Hostname, issuer: String, served: u64, now: u64) -> Self {
        let status = match served {
            0 => Status::working("queued", "waiting for its turn"),
            _ => Status::renewing(),
        };
        let mut job = Self {
            domain,
            served_by: (served > 0).then(|| issuer.clone()),
            issuer,
            issuers: Vec::new(),
            profile: None,
            refused: Vec::new(),
            passed: Vec::new(),
            others_at: None,
            revision: served + 1,
            renews: served > 0,
            lane: if served > 0 { Lane::Renewal } else { Lane::New },
            deadline: 0,
            spent: false,
            replaces: None,
            created_at: now,
            due_at: now,
            failures: 0,
            failing_since: None,
            step: Step::Queued,
            answers: Vec::new(),
            checks: Vec::new(),
            looked_at: 0,
            visited_at: None,
            doubted_at: 0,
            first: None,
            status,
        };
        job.status.steps = steps(&job);
        job
    }

    /// Of a domain whose uploaded certificate is given up, and served until this brings another.
    pub fn instead_of_own(domain: &Domain, issuer: String, served: u64, now: u64) -> Self {
        let job = Self::new(domain.name.clone(), issuer, served, now);
        let deadline = domain.certificate.as_ref().map_or(0, |certificate| certificate.not_after);
        let (issuers, profile) = (domain.issuers.clone(), domain.profile.clone());
        // No issuer has made what it replaces.
        Self { served_by: Some(domain.issuer.clone()), lane: Lane::New, issuers, profile, deadline, ..job }
    }

    /// Of the key that this order is about now.
    pub fn key_kind(&self) -> KeyKind {
        if self.first.is_some() { KeyKind::Rsa2048 } else { KeyKind::EcdsaP256 }
    }

    pub fn stage(&self) -> Stage {
        match self.step {
            Step::Queued | Step::Awaited => Stage::ToCheck,
            Step::InLine { .. } | Step::Looked { .. } if self.counts_for_account(&self.issuer) => Stage::InLine,
            Step::InLine { .. } | Step::Looked { .. } => Stage::Uncounted,
            _ => Stage::UnderWay,
        }
    }

    /// Its place among those of its lane: lower goes first. In line it is due whatever `due_at` says.
    pub fn place(&self) -> u64 {
        match (&self.step, self.lane) {
            (Step::InLine { .. } | Step::Looked { .. }, Lane::Renewal) => self.deadline,
            (Step::InLine { .. } | Step::Looked { .. }, _) => self.visited_at.unwrap_or(self.created_at),
            _ => self.due_at,
        }
    }

    /// A certificate is served, and has not ended. Orders from before there were deadlines have none.
    pub fn serves(&self, now: u64) -> bool {
        self.renews && (self.deadline == 0 || now < self.deadline)
    }
}

impl Step {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Awaited => "awaited",
            Self::InLine { .. } => "in_line",
            Self::Looked { .. } => "looked",
            Self::Ordering => "ordering",
            Self::Ordered { .. } => "ordered",
            Self::Presenting { .. } => "presenting",
            Self::Answering { .. } => "answering",
            Self::Validating { .. } => "validating",
            Self::Ready { .. } => "ready",
            Self::Keyed { .. } => "keyed",
            Self::Finalizing { .. } => "finalizing",
            Self::Issued { .. } => "issued",
            Self::Stopped => "stopped",
            Self::Parked => "parked",
        }
    }
}

impl Status {
    pub(crate) fn working(code: &str, says: &str) -> Self {
        Self { state: State::Working, code: code.into(), says: says.into(), who: Who::Nobody, steps: Vec::new() }
    }

    pub(super) fn renewing() -> Self {
        let says = "a new certificate is on its way; the current one is served".into();
        Self { state: State::Live, code: "renewing".into(), says, who: Who::Nobody, steps: Vec::new() }
    }

    pub(super) fn issued() -> Self {
        let says = "the certificate is served".into();
        Self { state: State::Live, code: "issued".into(), says, who: Who::Nobody, steps: Vec::new() }
    }

    /// The second certificate did not come.
    pub(super) fn issued_alone(failure: &Failure) -> Self {
        let says = format!(
            "the certificate is served; the RSA one for clients without ECDSA is tried again with the next renewal ({}: {})",
            failure.code, failure.says
        );
        Self { says, ..Self::issued() }
    }
}
