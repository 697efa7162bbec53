//! HTTP clients of the two APIs. Both answer errors as `application/problem+json`.

mod admin;
mod certservice;
mod credentials;

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use contract::api::Problem;
use reqwest::{Client, ClientBuilder, RequestBuilder, Response, StatusCode, Url};

pub use admin::{Admin, Intent, Order, ShadowChange};
pub use certservice::{CertService, Edge, ListOptions};

const CONNECT_SECONDS_MAX: u64 = 5;
const ANSWER_SECONDS_MAX: u64 = 60;

/// Where an API listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Unix(PathBuf),
    Http(Url),
}

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{target} can't be reached: {reason}; is it running, and is this its address (--admin, --certservice)?")]
    Unreachable { target: Target, reason: String },
    #[error("{}", .problem.detail)]
    Refused { etag: Option<String>, problem: Box<Problem> },
    #[error("{target} answered with status {status} and not as this API does: {text}")]
    Unexpected { target: Target, status: StatusCode, text: String },
    #[error("{file}: {reason}")]
    Setup { file: String, reason: String },
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.starts_with('/') {
                Ok(Self::Unix(path.into()))
            } else {
                Err("unix: takes an absolute path, as in unix:/run/latchkey/proxy.sock".into())
            };
        }
        let url: Url = text.parse().map_err(|error| format!("{error}; give unix:/path or https://host:port"))?;
        match url.scheme() {
            "https" => Ok(Self::Http(url)),
            "http" if is_loopback(&url) => Ok(Self::Http(url)),
            "http" => Err("http:// is for loopback only, tokens would travel in clear; use https://".into()),
            other => Err(format!("`{other}` is not known; give unix:/path or https://host:port")),
        }
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Http(url) => write!(f, "{}", url.as_str().trim_end_matches('/')),
        }
    }
}

impl Target {
    fn client(&self, configure: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Result<Client, ClientError> {
        let mut builder = Client::builder()
            .no_proxy()
            .connect_timeout(Duration::from_secs(CONNECT_SECONDS_MAX))
            .timeout(Duration::from_secs(ANSWER_SECONDS_MAX));
        if let Self::Unix(path) = self {
            builder = builder.unix_socket(path.as_path());
        }
        configure(builder).build().map_err(|error| self.unreachable(&error))
    }

    fn url(&self, path: &str) -> String {
        match self {
            Self::Unix(_) => format!("http://localhost{path}"),
            Self::Http(_) => format!("{self}{path}"),
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> ClientError {
        let mut cause: &dyn std::error::Error = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        ClientError::Unreachable { target: self.clone(), reason: cause.to_string() }
    }

    /// The response, where its status is one of success; else the problem that it tells.
    async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let (status, etag) = (response.status(), header(&response, "etag"));
        let text = response.text().await.map_err(|error| self.unreachable(&error))?;
        match serde_json::from_str::<Problem>(&text) {
            Ok(problem) => Err(ClientError::Refused { etag, problem: Box::new(problem) }),
            Err(_) => Err(ClientError::Unexpected { target: self.clone(), status, text }),
        }
    }

    async fn json<T: serde::de::DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ClientError> {
        let response = self.send(request).await?;
        let status = response.status();
        let text = response.text().await.map_err(|error| self.unreachable(&error))?;
        serde_json::from_str(&text).map_err(|error| ClientError::Unexpected {
            target: self.clone(),
            status,
            text: format!("{error}: {text}"),
        })
    }
}

fn header(response: &Response, name: &str) -> Option<String> {
    response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_sockets_https_or_loopback() {
        for good in ["unix:/run/a.sock", "https://certs.internal:8443", "http://127.0.0.1:80", "http://[::1]:80"] {
            assert!(good.parse::<Target>().is_ok(), "{good}");
        }
        for bad in ["unix:a.sock", "http://certs.internal", "http://127.0.0.1.evil.example", "ftp://a", "/run/a.sock"] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_follow_the_address() {
        let target: Target = "https://certs.internal:8443/".parse().unwrap();
        assert_eq!(target.url("/v1/domains"), "https://certs.internal:8443/v1/domains");
    }
}
