//! A bare HTTP client for the admin API and CertService's API: shows status, headers and body as they are.

use std::path::Path;
use std::time::Duration;

use reqwest::{Client, Method};

use crate::{Context, Result, fail};

/// A plugin is compiled within it, where tests of several trees share a machine's cores.
const DEADLINE: Duration = Duration::from_secs(120);

#[derive(Clone)]
pub struct Api {
    client: Client,
    base: String,
    token: Option<String>,
}

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub etag: Option<String>,
    pub content_type: Option<String>,
    pub body: Vec<u8>,
}

impl Api {
    pub fn unix(socket: &Path) -> Result<Self> {
        let client = Client::builder().unix_socket(socket).timeout(DEADLINE).build()?;
        Ok(Self { client, base: "http://localhost".into(), token: None })
    }

    pub fn http(base: &str, token: Option<&str>) -> Result<Self> {
        let client = Client::builder().no_proxy().timeout(DEADLINE).build()?;
        Ok(Self { client, base: base.into(), token: token.map(str::to_owned) })
    }

    #[must_use]
    pub fn with_token(self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self }
    }

    pub async fn get(&self, path: &str) -> Result<Reply> {
        self.send(Method::GET, path, &[], Vec::new()).await
    }

    pub async fn put(&self, path: &str, body: impl Into<Vec<u8>>) -> Result<Reply> {
        self.send(Method::PUT, path, &[], body).await
    }

    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> Result<Reply> {
        let mut request = self.client.request(method, format!("{}{path}", self.base)).body(body.into());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.context(format!("request {path}"))?;
        let header = |name| response.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let (status, etag, content_type) = (response.status().as_u16(), header("etag"), header("content-type"));
        Ok(Reply { status, etag, content_type, body: response.bytes().await?.to_vec() })
    }

    /// The sum of a metric over all its labels that contain `label`; 0 where it has not been counted yet.
    pub async fn metric(&self, name: &str, label: &str) -> Result<f64> {
        let text = self.get("/metrics").await?.text();
        let of_metric = |line: &&str| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']) && rest.contains(label))
        };
        let values = text.lines().filter(of_metric).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        Ok(values.fold(0.0, |sum, value| sum + value))
    }
}

impl Reply {
    pub fn expect(&self, status: u16) -> Result<()> {
        if self.status == status {
            return Ok(());
        }
        fail(format!("status {}, not {status}: {}", self.status, self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body).context(format!("not JSON: {}", self.text()))
    }
}
