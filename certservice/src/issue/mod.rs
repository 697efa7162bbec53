//! Obtains certificates: the subject's key and CSR, the ACME dialogue, the internal CA, and the check of what came back.
//! Must never write to the store, or log a key or a token.

mod acme;
mod certificate;
mod failure;
mod http;
mod internal;
mod key;
mod limited;
mod own;
mod refusal;

use std::path::Path;

use contract::{Challenge, Hostname};

pub use self::acme::Reason;
pub use self::certificate::{Facts, check};
pub use self::failure::{Failure, Then};
pub use self::key::{Csr, KeyKind, PrivateKey, new_key};
pub use self::own::{Own, OwnFault, beside, pem, read_own};
use crate::config;
use crate::renew::Window;

/// A chain in DER, leaf first.
pub type Chain = Vec<Vec<u8>>;

/// Who signs. The steps of an order are the same for both; the internal CA has no order and no challenges.
pub enum Issuer {
    Acme(Box<acme::Acme>),
    Internal(Box<internal::Internal>),
}

/// What is asked of an issuer.
#[derive(Debug, Clone, Copy)]
pub struct NewCertificate<'a> {
    pub domain: &'a Hostname,
    /// What the CA knows the last certificate by.
    pub replaces: Option<&'a str>,
    /// What kind; the issuer's own where nobody says.
    pub profile: Option<&'a str>,
}

/// What the CA says of an order.
#[derive(Debug)]
pub enum OrderState {
    /// Proof of control is wanted: these answers must be found on the domain.
    Pending(Vec<Challenge>),
    Ready,
    Processing,
    Valid,
    Invalid(Failure),
}

/// When a CA would like a certificate to be replaced (RFC 9773).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suggestion {
    pub window: Window,
    /// When to ask again.
    pub again_seconds: u64,
}

/// What finalizing led to.
#[derive(Debug)]
pub enum Finalized {
    /// The CA is at it.
    Accepted,
    Issued(Chain),
}

impl Issuer {
    /// Reads or makes what the issuer keeps in `data_dir`.
    pub fn open(config: &config::Issuer, data_dir: &Path) -> Result<Self, String> {
        match &config.kind {
            config::IssuerKind::Acme(acme) => {
                acme::Acme::open(&config.name, acme, data_dir).map(|acme| Self::Acme(Box::new(acme)))
            }
            config::IssuerKind::Internal { validity_days } => {
                internal::Internal::open(&config.name, *validity_days, data_dir).map(|ca| Self::Internal(Box::new(ca)))
            }
        }
    }

    /// What kinds of certificates it makes; `None` where it has none to choose from.
    pub async fn profiles(&self) -> Result<Option<Vec<String>>, Failure> {
        match self {
            Self::Acme(acme) => acme.profiles().await.map(Some),
            Self::Internal(_) => Ok(None),
        }
    }

    /// Opens an order; `None` where the issuer needs none.
    pub async fn order(&self, order: &NewCertificate<'_>) -> Result<Option<String>, Failure> {
        match self {
            Self::Acme(acme) => acme.order(order).await.map(Some),
            Self::Internal(_) => Ok(None),
        }
    }

    pub async fn look(&self, order: &str, domain: &Hostname, now: u64) -> Result<OrderState, Failure> {
        match self {
            Self::Acme(acme) => acme.look(order, domain, now).await,
            Self::Internal(_) => Ok(OrderState::Ready),
        }
    }

    /// Asks the CA to fetch the answers. Asking twice does no harm.
    pub async fn ask(&self, order: &str) -> Result<(), Failure> {
        match self {
            Self::Acme(acme) => acme.ask(order).await,
            Self::Internal(_) => Ok(()),
        }
    }

    /// Hands in the CSR. Doing it twice does no harm.
    pub async fn finalize(
        &self,
        order: Option<&str>,
        csr: &Csr,
        domain: &Hostname,
        now: u64,
    ) -> Result<Finalized, Failure> {
        match (self, order) {
            (Self::Acme(acme), Some(order)) => acme.finalize(order, csr).await.map(|()| Finalized::Accepted),
            (Self::Acme(_), None) => Err(Failure::ours("the order has no URL", Then::NewOrder)),
            (Self::Internal(internal), _) => internal.sign(csr, domain, now).map(Finalized::Issued),
        }
    }

    /// `None` where the issuer suggests nothing.
    pub async fn suggestion(&self, ari_id: &str) -> Result<Option<Suggestion>, Failure> {
        match self {
            Self::Acme(acme) => acme.suggestion(ari_id).await,
            Self::Internal(_) => Ok(None),
        }
    }

    /// Takes a certificate back; `false` where the issuer can't.
    pub async fn revoke(&self, leaf: &[u8], reason: Reason) -> Result<bool, Failure> {
        match self {
            Self::Acme(acme) => acme.revoke(leaf, reason).await.map(|()| true),
            Self::Internal(_) => Ok(false),
        }
    }

    /// The certificate of a finalized order; `None` while the CA is at it.
    pub async fn certificate(&self, order: &str) -> Result<Option<Chain>, Failure> {
        match self {
            Self::Acme(acme) => acme.certificate(order).await,
            Self::Internal(_) => Err(Failure::ours("the internal CA answers at once", Then::NewOrder)),
        }
    }
}
