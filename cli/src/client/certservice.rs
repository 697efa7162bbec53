use std::time::Duration;

use contract::Hostname;
use contract::api::{
    AddKey, BringCertificate, BudgetPage, CertificatePage, CheckReport, Custody, DoctorReport, Domain, DomainList,
    DomainPage, EdgeKeyInfo, Forecast, KeyPage, OrderWhen, PutDomain, RetiredKey, RevokeDomain, RevokeReason,
};
use contract::journal::{Archived, Head, Page};
use reqwest::Client;
use reqwest::header::CONTENT_TYPE;
use serde::{Deserialize, Serialize};

use super::credentials::{Credentials, read};
use super::{ClientError, Target};
use crate::args::CertServiceArgs;

/// An edge, as CertService saw it last.
#[derive(Debug, Serialize, Deserialize)]
pub struct Edge {
    /// Its key ID.
    pub edge: String,
    /// Of the last change that it has applied.
    pub cursor: u64,
    /// How many changes are newer than that.
    pub behind: u64,
    /// Unix seconds.
    pub seen_at: u64,
}

#[derive(Deserialize)]
struct Edges {
    edges: Vec<Edge>,
}

pub struct CertService {
    target: Target,
    client: Client,
}

/// A list of millions of lines takes its time.
const LIST_SECONDS_MAX: Duration = Duration::from_secs(1800);

/// How the lines of a list are meant.
#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    /// Else NDJSON.
    pub csv: bool,
    pub tenant: Option<String>,
    pub issuer: Option<String>,
    pub www: bool,
    pub order: Option<OrderWhen>,
}

impl ListOptions {
    fn query(&self) -> String {
        let tenant = self.tenant.as_ref().map(|tenant| format!("tenant={tenant}"));
        let issuer = self.issuer.as_ref().map(|issuer| format!("issuer={issuer}"));
        let www = self.www.then(|| "www=true".to_owned());
        let order = self.order.map(|order| match order {
            OrderWhen::Now => "order=now".to_owned(),
            OrderWhen::FirstVisit => "order=first_visit".to_owned(),
        });
        let all: Vec<_> = [tenant, issuer, www, order].into_iter().flatten().collect();
        if all.is_empty() { String::new() } else { format!("?{}", all.join("&")) }
    }
}

impl CertService {
    pub fn new(args: &CertServiceArgs) -> Result<Self, ClientError> {
        let target = args.target();
        let token = match &args.token_file {
            Some(file) => Some(read(file)?.trim().to_owned()),
            None => args.token.clone(),
        };
        let identity = args.cert_file.as_deref().zip(args.key_file.as_deref());
        let credentials = Credentials::read(token, args.ca_file.as_deref(), identity)?;
        let client = target.client(|builder| credentials.configure(builder))?;
        Ok(Self { target, client })
    }

    /// Registers a domain; one that is known already stays as it is.
    pub async fn add(&self, name: &Hostname, body: &PutDomain) -> Result<Domain, ClientError> {
        self.target.json(self.client.put(self.domain_url(name)).json(body)).await
    }

    pub async fn domain(&self, name: &Hostname) -> Result<Domain, ClientError> {
        self.target.json(self.client.get(self.domain_url(name))).await
    }

    /// How a domain looks now; no CA is asked.
    pub async fn check(&self, name: &Hostname) -> Result<CheckReport, ClientError> {
        self.target.json(self.client.post(format!("{}:check", self.domain_url(name)))).await
    }

    /// Orders a new certificate now.
    pub async fn renew(&self, name: &Hostname) -> Result<Domain, ClientError> {
        self.target.json(self.client.post(format!("{}:renew", self.domain_url(name)))).await
    }

    /// Has the CA take the certificate back.
    pub async fn revoke(&self, name: &Hostname, reason: RevokeReason) -> Result<Domain, ClientError> {
        let url = format!("{}:revoke", self.domain_url(name));
        self.target.json(self.client.post(url).json(&RevokeDomain { reason })).await
    }

    /// What is served of a domain.
    pub async fn certificate(&self, name: &Hostname) -> Result<CertificatePage, ClientError> {
        self.target.json(self.client.get(format!("{}/certificate", self.domain_url(name)))).await
    }

    /// Uploads a certificate with its key.
    pub async fn bring(&self, name: &Hostname, brought: &BringCertificate) -> Result<Domain, ClientError> {
        self.target.json(self.client.put(format!("{}/certificate", self.domain_url(name))).json(brought)).await
    }

    /// Back from an uploaded certificate to the issuers.
    pub async fn give_up(&self, name: &Hostname) -> Result<Domain, ClientError> {
        self.target.json(self.client.delete(format!("{}/certificate", self.domain_url(name)))).await
    }

    /// All domains.
    pub async fn domains(&self) -> Result<Vec<Domain>, ClientError> {
        self.domains_where("limit=1000").await
    }

    /// All domains that `filter` (a query string) lets through, page by page.
    pub async fn domains_where(&self, filter: &str) -> Result<Vec<Domain>, ClientError> {
        let mut all = Vec::new();
        let mut url = self.target.url(&format!("/v1/domains?{filter}"));
        loop {
            let page: DomainPage = self.target.json(self.client.get(&url)).await?;
            all.extend(page.domains);
            let Some(next) = page.next else { return Ok(all) };
            url = self.target.url(&format!("/v1/domains?{filter}&after={next}"));
        }
    }

    /// Off-boards a domain.
    pub async fn remove(&self, name: &Hostname) -> Result<(), ClientError> {
        self.target.send(self.client.delete(self.domain_url(name))).await.map(drop)
    }

    /// Sends a list of domains; the same list again is the one that was sent before.
    pub async fn begin_list(&self, text: Vec<u8>, options: &ListOptions) -> Result<DomainList, ClientError> {
        let mut of = contract::bundle::sha256(&text).to_vec();
        let query = options.query();
        of.extend_from_slice(query.as_bytes());
        let key: String = contract::bundle::sha256(&of).iter().map(|byte| format!("{byte:02x}")).collect();
        let kind = if options.csv { "text/csv" } else { "application/x-ndjson" };
        let request = self.client.post(self.target.url(&format!("/v1/imports{query}")));
        let request = request.header(CONTENT_TYPE, kind).header("idempotency-key", key).timeout(LIST_SECONDS_MAX);
        self.target.json(request.body(text)).await
    }

    pub async fn list(&self, id: &str) -> Result<DomainList, ClientError> {
        self.target.json(self.client.get(self.target.url(&format!("/v1/imports/{id}")))).await
    }

    pub async fn doctor(&self) -> Result<DoctorReport, ClientError> {
        self.target.json(self.client.get(self.target.url("/v1/doctor"))).await
    }

    pub async fn forecast(&self, ca_down_seconds: u64) -> Result<Forecast, ClientError> {
        let url = self.target.url(&format!("/v1/forecast?ca_down_seconds={ca_down_seconds}"));
        self.target.json(self.client.get(url)).await
    }

    /// Entries of the journal after one, and its head.
    pub async fn journal(&self, after: u64) -> Result<Page, ClientError> {
        self.target.json(self.client.get(self.target.url(&format!("/v1/audit?after={after}")))).await
    }

    /// Removes the entries up to one that an archive ends with.
    pub async fn archive_journal(&self, until: &Head) -> Result<Archived, ClientError> {
        self.target.json(self.client.post(self.target.url("/v1/audit/archive")).json(until)).await
    }

    /// What the CAs' limits leave; also what is counted by a domain, where one is named.
    pub async fn budgets(&self, domain: Option<&Hostname>) -> Result<BudgetPage, ClientError> {
        let query = domain.map_or(String::new(), |domain| format!("?domain={domain}"));
        self.target.json(self.client.get(self.target.url(&format!("/v1/budgets{query}")))).await
    }

    /// Those that have asked for changes since CertService started.
    pub async fn edges(&self) -> Result<Vec<Edge>, ClientError> {
        let answer: Edges = self.target.json(self.client.get(self.target.url("/v1/edges"))).await?;
        Ok(answer.edges)
    }

    /// To which edge keys is sealed, and was.
    pub async fn keys(&self) -> Result<Vec<EdgeKeyInfo>, ClientError> {
        let page: KeyPage = self.target.json(self.client.get(self.target.url("/v1/keys"))).await?;
        Ok(page.keys)
    }

    /// An edge key that is sealed to from here on, and whether it is new.
    pub async fn add_key(
        &self,
        pool: &str,
        public_key: &str,
        dry_run: bool,
    ) -> Result<(EdgeKeyInfo, bool), ClientError> {
        let known = self.keys().await?;
        let body = AddKey { pool: pool.to_owned(), public_key: public_key.to_owned() };
        let url = self.target.url(&format!("/v1/keys?dry_run={dry_run}"));
        let key: EdgeKeyInfo = self.target.json(self.client.post(url).json(&body)).await?;
        let new = known.iter().all(|known| known.kid != key.kid);
        Ok((key, new))
    }

    pub async fn retire_key(&self, kid: &str, force: bool, dry_run: bool) -> Result<RetiredKey, ClientError> {
        let url = self.target.url(&format!("/v1/keys/{kid}?force={force}&dry_run={dry_run}"));
        self.target.json(self.client.delete(url)).await
    }

    /// Which bundles are sealed to which edge keys.
    pub async fn custody(&self) -> Result<Custody, ClientError> {
        self.target.json(self.client.get(self.target.url("/v1/custody"))).await
    }

    /// An error that says why, where it is not ready.
    pub async fn ready(&self) -> Result<(), ClientError> {
        self.target.send(self.client.get(self.target.url("/readyz"))).await.map(drop)
    }

    fn domain_url(&self, name: &Hostname) -> String {
        self.target.url(&format!("/v1/domains/{name}"))
    }
}
