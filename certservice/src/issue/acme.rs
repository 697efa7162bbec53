//! The ACME dialogue (RFC 8555). Each function is one step that can be taken again after a crash: the order's URL is
//! all that has to be remembered.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use contract::{Challenge, ChallengeKind, Hostname};
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, CertificateIdentifier, ChallengeStatus, ChallengeType, Error,
    ExternalAccountKey, Identifier, NewAccount, NewOrder, Order, OrderStatus, RevocationReason, RevocationRequest,
};
use serde::Deserialize;
use tokio::sync::OnceCell;
use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::pem::Pem;
use zeroize::Zeroizing;

use super::http::{AcmeHttp, with_pause};
use super::refusal::{
    account_failure, account_refused, dead_order, failure, gone, refusal, unknown_profile, validation_failure,
};
use super::{Chain, Csr, Failure, NewCertificate, OrderState, Suggestion, Then};
use crate::renew::Window;
use crate::{config, secret_file};

/// How long an edge believes an answer. Orders that take longer fail at the CA first.
const ANSWER_SECONDS: u64 = 24 * 3600;

pub struct Acme {
    name: String,
    directory: String,
    contact: Vec<String>,
    eab: Option<(String, Zeroizing<Vec<u8>>)>,
    challenges: Vec<ChallengeKind>,
    profile: Option<String>,
    http: AcmeHttp,
    credentials: PathBuf,
    account: OnceCell<Account>,
}

impl Acme {
    pub(super) fn open(name: &str, config: &config::Acme, data_dir: &Path) -> Result<Self, String> {
        let folder = data_dir.join("accounts");
        secret_file::make_folder(&folder)?;
        let eab = config.eab.as_ref().map(|eab| {
            let text = eab.hmac_key.reveal();
            let key = URL_SAFE_NO_PAD.decode(text).or_else(|_| URL_SAFE.decode(text));
            let key = key.map_err(|_| format!("the EAB key of issuer `{name}` is not base64url"))?;
            Ok::<_, String>((eab.kid.clone(), Zeroizing::new(key)))
        });
        let acme = Self {
            name: name.to_owned(),
            directory: config.directory.clone(),
            contact: config.contact.clone(),
            eab: eab.transpose()?,
            challenges: config.challenges.clone(),
            profile: config.profile.clone(),
            http: AcmeHttp::new(config.root.as_deref(), config.requests)?,
            credentials: folder.join(format!("{name}.json")),
            account: OnceCell::new(),
        };
        acme.stored_credentials()?;
        Ok(acme)
    }

    /// What kinds of certificates the CA makes (draft-aaron-acme-profiles).
    pub(super) async fn profiles(&self) -> Result<Vec<String>, Failure> {
        self.dialogue(async |account| {
            let mut names: Vec<_> = account.profiles().map(|profile| profile.name.to_owned()).collect();
            names.sort_unstable();
            Ok(names)
        })
        .await
    }

    /// The profile of the domain, else of the issuer: one that the CA offers.
    async fn offered<'a>(&'a self, wanted: Option<&'a str>) -> Result<Option<&'a str>, Failure> {
        let Some(profile) = wanted.or(self.profile.as_deref()) else { return Ok(None) };
        let offered = self.profiles().await?;
        if offered.iter().any(|known| known == profile) {
            return Ok(Some(profile));
        }
        let offered = if offered.is_empty() { "none".to_owned() } else { offered.join(", ") };
        Err(unknown_profile(format!("the CA offers no profile `{profile}`; it offers: {offered}")))
    }

    pub(super) async fn order(&self, order: &NewCertificate<'_>) -> Result<String, Failure> {
        let NewCertificate { domain, replaces, profile } = *order;
        let profile = self.offered(profile).await?;
        let identifier = [Identifier::Dns(domain.to_string())];
        let mut new = NewOrder::new(&identifier);
        let replaced = replaces.and_then(certificate_id);
        let names_one = replaced.is_some();
        if let Some(profile) = profile {
            new = new.profile(profile);
        }
        if let Some(replaced) = replaced {
            new = new.replaces(replaced);
        }
        let order = self.dialogue(async |account| account.new_order(&new).await).await;
        let order = order.map_err(|failure| match &*failure.code {
            // No name was looked at yet: what is not authorized is the account, one that was deactivated.
            "challenge_failed" if !names_one => account_refused(failure.says, Then::Retry { after: 0 }),
            // Whatever the CA has against the certificate that is replaced, the name still needs one.
            "order_refused" | "ca_unsupported" | "challenge_failed" | "order_lost" if names_one => {
                Failure { then: Then::NotReplacing, ..failure }
            }
            "ca_unavailable" if names_one && failure.says.contains("replaces field mismatch") => {
                Failure { then: Then::NotReplacing, closes: false, ..failure }
            }
            _ => failure,
        });
        Ok(order?.url().to_owned())
    }

    /// `None` where the CA has no renewal information.
    pub(super) async fn suggestion(&self, ari_id: &str) -> Result<Option<Suggestion>, Failure> {
        let Some(id) = certificate_id(ari_id) else { return Ok(None) };
        let asked = self.dialogue(async |account| match account.renewal_info(&id).await {
            Err(Error::Unsupported(_)) => Ok(None),
            answer => answer.map(Some),
        });
        let Some((info, again)) = asked.await? else { return Ok(None) };
        let seconds = |time: i64| u64::try_from(time).unwrap_or(0);
        let window = info.suggested_window;
        let window =
            Window { start: seconds(window.start.unix_timestamp()), end: seconds(window.end.unix_timestamp()) };
        Ok(Some(Suggestion { window, again_seconds: again.as_secs() }))
    }

    pub(super) async fn revoke(&self, leaf: &[u8], reason: Reason) -> Result<(), Failure> {
        let certificate = CertificateDer::from_slice(leaf);
        let reason = match reason {
            Reason::Unspecified => RevocationReason::Unspecified,
            Reason::KeyCompromise => RevocationReason::KeyCompromise,
            Reason::Superseded => RevocationReason::Superseded,
            Reason::CessationOfOperation => RevocationReason::CessationOfOperation,
        };
        let request = RevocationRequest { certificate: &certificate, reason: Some(reason) };
        self.dialogue(async |account| match account.revoke(&request).await {
            // Who asks again after a crash gets what it wanted.
            Err(Error::Api(problem)) if problem.r#type.as_deref().is_some_and(|t| t.ends_with(":alreadyRevoked")) => {
                Ok(())
            }
            done => done,
        })
        .await
    }

    pub(super) async fn look(&self, order: &str, domain: &Hostname, now: u64) -> Result<OrderState, Failure> {
        self.dialogue(async |account| {
            let mut order = account.order(order.to_owned()).await?;
            Ok(match order.state().status {
                OrderStatus::Pending => OrderState::Pending(answers(&mut order, domain, &self.challenges, now).await?),
                OrderStatus::Ready => OrderState::Ready,
                OrderStatus::Processing => OrderState::Processing,
                OrderStatus::Valid => OrderState::Valid,
                OrderStatus::Invalid => OrderState::Invalid(why_invalid(&mut order).await?),
            })
        })
        .await
    }

    pub(super) async fn ask(&self, order: &str) -> Result<(), Failure> {
        self.dialogue(async |account| {
            let mut order = account.order(order.to_owned()).await?;
            let mut authorizations = order.authorizations();
            while let Some(authorization) = authorizations.next().await {
                let mut authorization = authorization?;
                if authorization.status != AuthorizationStatus::Pending {
                    continue;
                }
                if let Some(kind) = preferred(&authorization.challenges, &self.challenges)
                    && let Some(mut challenge) = authorization.challenge(offered_as(kind))
                    && challenge.status == ChallengeStatus::Pending
                {
                    challenge.set_ready().await?;
                }
            }
            Ok(())
        })
        .await
    }

    pub(super) async fn finalize(&self, order: &str, csr: &Csr) -> Result<(), Failure> {
        self.dialogue(async |account| {
            let mut order = account.order(order.to_owned()).await?;
            match order.state().status {
                OrderStatus::Ready => order.finalize_csr(csr.der()).await,
                // After a crash: this order was finalized before, with the same CSR.
                OrderStatus::Processing | OrderStatus::Valid => Ok(()),
                OrderStatus::Pending | OrderStatus::Invalid => Err(dead_order()),
            }
        })
        .await
    }

    pub(super) async fn certificate(&self, order: &str) -> Result<Option<Chain>, Failure> {
        let pem = self.dialogue(async |account| {
            let mut order = account.order(order.to_owned()).await?;
            match order.state().status {
                OrderStatus::Processing | OrderStatus::Valid => order.certificate().await,
                OrderStatus::Ready | OrderStatus::Pending | OrderStatus::Invalid => Err(dead_order()),
            }
        });
        let Some(pem) = pem.await? else {
            return Ok(None);
        };
        let chain: Result<Vec<_>, _> =
            Pem::iter_from_buffer(pem.as_bytes()).map(|pem| pem.map(|p| p.contents)).collect();
        chain.map(Some).map_err(|_| Failure::unreachable("the CA's certificate chain is not PEM", 0))
    }

    /// Runs one step with the account and says what went wrong in our words.
    async fn dialogue<T>(&self, step: impl AsyncFnOnce(&Account) -> Result<T, Error>) -> Result<T, Failure> {
        let account = self.account.get_or_try_init(|| self.open_account()).await?;
        let (outcome, pause) = with_pause(step(account)).await;
        outcome.map_err(|error| match failure(&error, pause) {
            failure if failure.code == "account_refused" => {
                let file = self.credentials.display();
                let says = format!("{}; if the CA lost the account, remove {file} and restart", failure.says);
                Failure { says, ..failure }
            }
            failure => failure,
        })
    }

    async fn open_account(&self) -> Result<Account, Failure> {
        let builder = Account::builder_with_http(Box::new(self.http.clone()));
        let stored = self.stored_credentials().map_err(|says| Failure::ours(says, Then::Retry { after: 0 }))?;
        if let Some(credentials) = stored {
            let (account, pause) = with_pause(builder.from_credentials(credentials)).await;
            return account.map_err(|error| account_failure(&error, pause));
        }
        let contact: Vec<&str> = self.contact.iter().map(String::as_str).collect();
        let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let eab = self.eab.as_ref().map(|(kid, key)| ExternalAccountKey::new(kid.clone(), key));
        let (made, pause) = with_pause(builder.create(&new, self.directory.clone(), eab.as_ref())).await;
        let (account, credentials) = made.map_err(|error| account_failure(&error, pause))?;
        let text = serde_json::to_string(&credentials).map_err(|error| error.to_string());
        let written = text.and_then(|text| secret_file::write(&self.credentials, &Zeroizing::new(text)));
        written.map_err(|says| Failure::ours(says, Then::Retry { after: 0 }))?;
        tracing::info!(issuer = self.name, account = account.id(), "made an ACME account");
        Ok(account)
    }

    fn stored_credentials(&self) -> Result<Option<AccountCredentials>, String> {
        if !self.credentials.exists() {
            return Ok(None);
        }
        let shown = self.credentials.display();
        let text = secret_file::read(&self.credentials)?;
        let damaged = |_| format!("{shown} is not an ACME account as CertService writes it");
        let Origin { directory } = serde_json::from_str(&text).map_err(damaged)?;
        if directory != self.directory {
            return Err(format!(
                "{shown} is an account at {directory}, but issuer `{}` now names {}; give the issuer another name",
                self.name, self.directory
            ));
        }
        serde_json::from_str(&text).map(Some).map_err(damaged)
    }
}

/// Why a certificate is taken back (RFC 5280 section 5.3.1); the reasons that a subscriber may give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    Unspecified,
    KeyCompromise,
    Superseded,
    CessationOfOperation,
}

fn certificate_id(ari_id: &str) -> Option<CertificateIdentifier<'_>> {
    let (key, serial) = ari_id.split_once('.')?;
    Some(CertificateIdentifier { authority_key_identifier: key.into(), serial: serial.into() })
}

/// Which CA an account file belongs to; the library keeps that to itself.
#[derive(Deserialize)]
struct Origin {
    directory: String,
}

fn offered_as(kind: ChallengeKind) -> ChallengeType {
    match kind {
        ChallengeKind::Http01 => ChallengeType::Http01,
        ChallengeKind::TlsAlpn01 => ChallengeType::TlsAlpn01,
        ChallengeKind::Dns01 => ChallengeType::Dns01,
    }
}

/// The first kind of ours that the CA offers.
fn preferred(offered: &[instant_acme::Challenge], ours: &[ChallengeKind]) -> Option<ChallengeKind> {
    ours.iter().copied().find(|kind| offered.iter().any(|challenge| challenge.r#type == offered_as(*kind)))
}

/// The answers of the authorizations that are still wanted.
async fn answers(
    order: &mut Order,
    domain: &Hostname,
    ours: &[ChallengeKind],
    now: u64,
) -> Result<Vec<Challenge>, Error> {
    let mut answers = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status != AuthorizationStatus::Pending {
            continue;
        }
        let unsupported = Error::Unsupported("a challenge of the kinds in issuers.challenges");
        let Some(kind) = preferred(&authorization.challenges, ours) else { return Err(unsupported) };
        let challenge = authorization.challenge(offered_as(kind)).ok_or(unsupported)?;
        answers.push(Challenge {
            domain: domain.clone(),
            token: challenge.token.clone(),
            kind,
            key_authorization: challenge.key_authorization().as_str().to_owned(),
            expires_at: now + ANSWER_SECONDS,
        });
    }
    Ok(answers)
}

/// The CA's words on why it gave the order up: the challenge knows more than the order.
async fn why_invalid(order: &mut Order) -> Result<Failure, Error> {
    let of_order = order.state().error.clone();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let authorization = authorization?;
        if let Some(problem) = authorization.challenges.iter().find_map(|challenge| challenge.error.as_ref()) {
            return Ok(Failure { then: Then::NewOrder, ..validation_failure(problem) });
        }
    }
    Ok(match of_order {
        Some(problem) => Failure { then: Then::NewOrder, ..refusal(&problem, 0) },
        None => gone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_file_of_another_directory_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let config = |directory: &str| config::Acme {
            directory: directory.into(),
            contact: vec![],
            root: None,
            eab: None,
            challenges: vec![ChallengeKind::Http01],
            profile: None,
            requests: None,
        };
        std::fs::create_dir(folder.path().join("accounts")).unwrap();
        let file = folder.path().join("accounts/le.json");
        std::fs::write(&file, r#"{"id":"x","key_pkcs8":"AAAA","directory":"https://a.example/dir"}"#).unwrap();
        assert!(Acme::open("le", &config("https://a.example/dir"), folder.path()).is_ok());
        let error = Acme::open("le", &config("https://b.example/dir"), folder.path()).err().unwrap();
        assert!(error.contains("https://a.example/dir") && error.contains("`le`"), "{error}");
    }
}
