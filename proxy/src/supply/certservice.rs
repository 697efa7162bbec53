//! Client of CertService's API, over TLS, loopback TCP or a Unix socket.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use contract::Hostname;
use contract::api::{ChangePage, PROOF_HEADER, Problem, REWRAP_MAX, RewrapOutcome, RewrapPage};
use contract::signed::TOKEN_BYTES_MAX;
use reqwest::header::RETRY_AFTER;
use reqwest::{Certificate, Client, Identity, RequestBuilder, Response, StatusCode};
use zeroize::Zeroizing;

use super::SupplyError;
use super::breaker::Breaker;
use crate::observe::METRICS;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest page of changes: 10,000 of the longest names.
const CHANGES_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Largest page of bundles.
const REWRAP_BYTES_MAX: usize = REWRAP_MAX * (TOKEN_BYTES_MAX + 1024);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// `Retry-After` of a certificate that is being obtained.
const COMING_SECONDS: u64 = 1;
/// Of an answer that says why there is nothing.
const PROBLEM_BYTES_MAX: usize = 64 * 1024;

pub struct CertServiceConfig {
    pub address: Address,
    pub token: Option<Zeroizing<String>>,
    /// PEM of the root that CertService's TLS certificate chains to; the system's roots if absent.
    pub root: Option<Vec<u8>>,
    /// Client certificate and its key, PEM.
    pub identity: Option<(String, Zeroizing<String>)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `https://…`, or `http://` on loopback.
    Url(String),
    Unix(PathBuf),
}

pub struct CertService {
    client: Client,
    base: String,
    token: Option<Zeroizing<String>>,
    breaker: Breaker,
}

impl CertService {
    pub fn new(config: &CertServiceConfig) -> Result<Self, String> {
        let mut builder = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ANSWER_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        if let Some(root) = &config.root {
            let root = Certificate::from_pem_bundle(root)
                .map_err(|_| "ca_file of [certservice] is not a certificate in PEM")?;
            builder = builder.tls_certs_only(root);
        }
        if let Some((certificate, key)) = &config.identity {
            let identity = Identity::from_pkcs8_pem(certificate.as_bytes(), key.as_bytes());
            // The error is not shown: it could quote the key.
            let says =
                "certificate_file and key_file of [certservice] are not a certificate and its PKCS #8 key in PEM";
            builder = builder.identity(identity.map_err(|_| says)?);
        }
        let base = match &config.address {
            Address::Url(url) => url.trim_end_matches('/').to_owned(),
            Address::Unix(path) => {
                builder = builder.unix_socket(path.as_path());
                "http://certservice".to_owned()
            }
        };
        let client = builder.build().map_err(|error| error.to_string())?;
        Ok(Self { client, base, token: config.token.clone(), breaker: Breaker::default() })
    }

    pub(super) async fn bundle(&self, name: &Hostname) -> Result<String, SupplyError> {
        self.get(&format!("/v1/bundles/{name}"), "unknown_domain").await
    }

    pub(super) async fn challenge(&self, name: &Hostname, token: &str) -> Result<String, SupplyError> {
        self.get(&format!("/v1/challenges/{name}/{token}"), "unknown_challenge").await
    }

    pub(super) async fn tls_challenge(&self, name: &Hostname) -> Result<String, SupplyError> {
        self.get(&format!("/v1/challenges/{name}"), "unknown_challenge").await
    }

    pub(super) async fn ticket_keys(&self) -> Result<String, SupplyError> {
        self.get("/v1/ticket-keys", "no_ticket_keys").await
    }

    pub(super) async fn changes(&self, since: u64, limit: u32, edge: &str) -> Result<ChangePage, SupplyError> {
        let path = format!("/v1/changes?since={since}&limit={limit}");
        let sent = self.request(&path).header("latchkey-edge", edge).send().await;
        let answer = sent.map_err(|error| SupplyError::Unavailable(unavailable(error)))?;
        if answer.status() != StatusCode::OK {
            return Err(refused(answer, None).await);
        }
        // Nobody need wait for the end of a rest to learn that it answers.
        if self.breaker.answered() {
            awake();
        }
        let body = read(answer, CHANGES_BYTES_MAX).await?;
        serde_json::from_slice(&body)
            .map_err(|error| SupplyError::Rejected(format!("the feed of changes does not parse: {error}")))
    }

    /// Bundles that want something of the edge key `kid`.
    pub(crate) async fn rewrap_page(&self, kid: &str, to: &[&str], after: &str) -> Result<RewrapPage, SupplyError> {
        let path = format!("/v1/rewrap?kid={kid}&to={}&after={after}", to.join(","));
        self.json(self.request(&path)).await
    }

    /// What became of them, with the proof that it comes from who has the key.
    pub(crate) async fn rewrapped(&self, body: &[u8], proof: &str) -> Result<RewrapOutcome, SupplyError> {
        let post = self.authorized(self.client.post(format!("{}/v1/rewrap", self.base)));
        self.json(post.header(PROOF_HEADER, proof).body(body.to_vec())).await
    }

    async fn json<T: serde::de::DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, SupplyError> {
        let answer = request.send().await.map_err(|error| SupplyError::Unavailable(unavailable(error)))?;
        match answer.status() {
            StatusCode::OK => {}
            status if status.is_client_error() => {
                return Err(SupplyError::Rejected(refused(answer, None).await.to_string()));
            }
            _ => return Err(refused(answer, None).await),
        }
        let body = read(answer, REWRAP_BYTES_MAX).await?;
        serde_json::from_slice(&body)
            .map_err(|error| SupplyError::Rejected(format!("CertService's answer does not parse: {error}")))
    }

    pub(super) async fn check(&self) -> Result<(), String> {
        match self.request("/healthz").send().await.map_err(unavailable)?.status() {
            // An edge may not read CertService's health: that it is told so is health enough.
            StatusCode::OK | StatusCode::FORBIDDEN => Ok(()),
            StatusCode::UNAUTHORIZED => Err("CertService refuses this edge's token (certservice.token_file)".into()),
            status => Err(format!("CertService answers {status}")),
        }
    }

    fn request(&self, path: &str) -> RequestBuilder {
        self.authorized(self.client.get(format!("{}{path}", self.base)))
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.token {
            Some(token) => request.bearer_auth(token.as_str()),
            None => request,
        }
    }

    /// `unknown` is the code with which CertService itself says that there is no such thing.
    async fn get(&self, path: &str, unknown: &str) -> Result<String, SupplyError> {
        let resting = || SupplyError::Unavailable("CertService is left alone for a while, as it did not answer".into());
        let asking = self.breaker.ask(Instant::now()).ok_or_else(resting)?;
        let answer = match self.request(path).send().await {
            Ok(answer) => answer,
            Err(error) => {
                // Any error but a time-out comes at once, and holds up nobody.
                if !error.is_timeout() {
                    asking.answered().then(awake);
                } else if let Some(rest) = asking.failed(Instant::now()) {
                    asleep(rest);
                }
                return Err(SupplyError::Unavailable(unavailable(error)));
            }
        };
        asking.answered().then(awake);
        if answer.status() != StatusCode::OK {
            return Err(refused(answer, Some(unknown)).await);
        }
        let body = read(answer, TOKEN_BYTES_MAX).await?;
        String::from_utf8(body).map_err(|_| SupplyError::Rejected("the answer is not text".into()))
    }
}

fn asleep(rest: Duration) {
    if METRICS.certservice_resting.get() == 0 {
        tracing::warn!(?rest, "CertService does not answer in time, again and again: it is left alone for a while");
    }
    METRICS.certservice_resting.set(1);
}

fn awake() {
    METRICS.certservice_resting.set(0);
    tracing::info!("CertService answers again");
}

/// Only CertService's own words take a domain away: what stands before it may answer 404 on its own.
async fn refused(answer: Response, unknown: Option<&str>) -> SupplyError {
    let (status, coming) = (answer.status(), asks_again_soon(&answer));
    let body = read(answer, PROBLEM_BYTES_MAX).await.unwrap_or_default();
    match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) if status == StatusCode::NOT_FOUND && Some(&*problem.code) == unknown => SupplyError::Unknown,
        Ok(problem) if problem.code == "not_issued" && coming => SupplyError::Coming,
        Ok(problem) if problem.code == "not_issued" => SupplyError::NotIssued,
        Ok(problem) => SupplyError::Unavailable(format!("CertService answers {status}: {}", problem.detail)),
        Err(_) => SupplyError::Unavailable(format!(
            "{status} in no form of CertService's: does certservice.url lead to it, or to something before it?"
        )),
    }
}

/// Its order is under way, where CertService wants to be asked again at once.
fn asks_again_soon(answer: &Response) -> bool {
    let after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    after.and_then(|text| text.parse::<u64>().ok()).is_some_and(|seconds| seconds <= COMING_SECONDS)
}

async fn read(mut answer: Response, bytes_max: usize) -> Result<Vec<u8>, SupplyError> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| SupplyError::Unavailable(unavailable(error)))? {
        body.extend_from_slice(&chunk);
        if body.len() > bytes_max {
            return Err(SupplyError::Rejected(format!("the answer is longer than {bytes_max} bytes")));
        }
    }
    Ok(body)
}

/// The whole chain of causes on one line: `reqwest`'s own text stops at "error sending request".
fn unavailable(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = format!("CertService: {error}");
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    text
}
