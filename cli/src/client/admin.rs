use contract::bundle::sha256;
use reqwest::{Client, StatusCode};
use serde::{Deserialize, Serialize};

use super::{ClientError, Target, header};

pub struct Admin {
    target: Target,
    client: Client,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Readiness {
    pub ready: bool,
    /// Why not.
    pub reasons: Vec<String>,
    pub revision: u64,
    /// `ok`, or why it does not answer; a proxy that has its certificates serves without it.
    pub certservice: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Plugin {
    /// `sha256:` and hexadecimal digits.
    pub digest: String,
    /// As the plugin calls itself.
    pub name: String,
    pub version: String,
    /// Which hooks it has.
    pub class: String,
}

/// The hosts that a proxy is asked for most.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ranking {
    pub by: String,
    /// How far it looks back.
    pub seconds: u64,
    pub total: u64,
    pub names: Vec<Ranked>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Ranked {
    pub name: String,
    /// At most so many, and at least `at_least`.
    pub count: u64,
    pub at_least: u64,
}

#[derive(Deserialize)]
struct Plugins {
    plugins: Vec<Plugin>,
}

#[derive(Deserialize)]
struct Applied {
    revision: u64,
}

/// Whether a configuration is put in force or only looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Intent {
    Apply,
    Check,
}

impl Admin {
    pub fn new(target: &Target) -> Result<Self, ClientError> {
        Ok(Self { client: target.client(|builder| builder)?, target: target.clone() })
    }

    /// The configuration as it was applied, and its ETag.
    pub async fn config(&self) -> Result<(String, Option<String>), ClientError> {
        let response = self.target.send(self.client.get(self.target.url("/v1/config"))).await?;
        let etag = header(&response, "etag");
        Ok((response.text().await.map_err(|error| self.target.unreachable(&error))?, etag))
    }

    /// Puts a configuration in force: its revision.
    pub async fn apply(&self, config: String, if_match: Option<&str>) -> Result<u64, ClientError> {
        self.put_config(config, if_match, Intent::Apply).await
    }

    /// The faults that `apply` would find.
    pub async fn check(&self, config: String) -> Result<(), ClientError> {
        self.put_config(config, None, Intent::Check).await.map(drop)
    }

    async fn put_config(&self, config: String, if_match: Option<&str>, intent: Intent) -> Result<u64, ClientError> {
        let path = match intent {
            Intent::Apply => "/v1/config",
            Intent::Check => "/v1/config?dry_run=true",
        };
        let mut request =
            self.client.put(self.target.url(path)).header("content-type", "application/json").body(config);
        if let Some(etag) = if_match {
            request = request.header("if-match", etag);
        }
        self.target.json(request).await.map(|applied: Applied| applied.revision)
    }

    /// Uploads a component: its digest, and whether the proxy did not have it yet.
    pub async fn push(&self, component: Vec<u8>) -> Result<(String, bool), ClientError> {
        let hex: String = sha256(&component).iter().map(|byte| format!("{byte:02x}")).collect();
        let digest = format!("sha256:{hex}");
        let url = self.target.url(&format!("/v1/plugins/{digest}"));
        let request = self.client.put(url).header("content-type", "application/wasm").body(component);
        let response = self.target.send(request).await?;
        Ok((digest, response.status() == StatusCode::CREATED))
    }

    pub async fn plugins(&self) -> Result<Vec<Plugin>, ClientError> {
        let answer: Plugins = self.target.json(self.client.get(self.target.url("/v1/plugins"))).await?;
        Ok(answer.plugins)
    }

    pub async fn top(&self, by: &str, n: u16) -> Result<Ranking, ClientError> {
        self.target.json(self.client.get(self.target.url(&format!("/v1/top?by={by}&n={n}")))).await
    }

    pub async fn readiness(&self) -> Result<Readiness, ClientError> {
        let request = self.client.get(self.target.url("/readyz"));
        let response = request.send().await.map_err(|error| self.target.unreachable(&error))?;
        let status = response.status();
        let text = response.text().await.map_err(|error| self.target.unreachable(&error))?;
        serde_json::from_str(&text).map_err(|_| ClientError::Unexpected { target: self.target.clone(), status, text })
    }
}
