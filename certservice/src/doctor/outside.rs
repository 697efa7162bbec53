//! Looks beyond this machine.

use std::net::IpAddr;
use std::time::Instant;

use bytes::Bytes;
use contract::Hostname;
use http::header::{DATE, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpStream;

use super::{LOOK, LOOK_SECONDS_MAX};
use crate::{clock, https};

const DIRECTORY_BYTES_MAX: usize = 64 * 1024;

pub(super) struct Ca {
    pub name: String,
    /// Where it has a name.
    pub host: Option<Hostname>,
    directory: Uri,
    /// Which kind of certificate it is asked for.
    profile: Option<String>,
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
}

pub(super) struct Answer {
    pub ms: u128,
    /// Our clock before the CA's.
    pub ahead_seconds: Option<i64>,
}

impl Ca {
    pub(super) fn open(
        name: &str,
        directory: &str,
        root: Option<&[u8]>,
        profile: Option<String>,
    ) -> Result<Self, String> {
        let directory: Uri = directory.parse().map_err(|error| format!("issuer `{name}`: {error}"))?;
        let host = directory.host().and_then(|host| Hostname::parse(host).ok());
        let client = Client::builder(TokioExecutor::new()).build(https::connector(root, false)?);
        Ok(Self { name: name.to_owned(), host, directory, profile, client })
    }

    pub(super) async fn ask(&self) -> (&Self, Result<Answer, String>) {
        let answer = tokio::time::timeout(LOOK, self.directory()).await;
        (self, answer.unwrap_or_else(|_| Err(format!("no answer within {LOOK_SECONDS_MAX} s"))))
    }

    async fn directory(&self) -> Result<Answer, String> {
        let begun = Instant::now();
        // Some CAs answer nobody who does not say who it is (RFC 8555 section 6.1).
        let request = Request::get(&self.directory)
            .header(USER_AGENT, "latchkey-certservice")
            .body(Empty::new())
            .map_err(|error| error.to_string())?;
        let answer = self.client.request(request).await.map_err(|error| format!("it can't be reached: {error}"))?;
        let (parts, body) = answer.into_parts();
        let body =
            Limited::new(body, DIRECTORY_BYTES_MAX).collect().await.map_err(|error| error.to_string())?.to_bytes();
        let ms = begun.elapsed().as_millis();
        if parts.status != StatusCode::OK {
            return Err(format!("its directory answered with status {}", parts.status.as_u16()));
        }
        let directory: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        if directory["newOrder"].as_str().is_none() {
            return Err("what it answers with is no ACME directory".to_owned());
        }
        if let Some(profile) =
            self.profile.as_ref().filter(|profile| directory["meta"]["profiles"].get(profile).is_none())
        {
            return Err(format!("it offers no profile `{profile}` (`profile` of the issuer)"));
        }
        let theirs = parts.headers.get(DATE).and_then(|date| clock::http_date(date.to_str().ok()?));
        let ours = i64::try_from(clock::now()).unwrap_or(i64::MAX);
        let ahead_seconds = theirs.map(|theirs| ours - i64::try_from(theirs).unwrap_or(i64::MAX));
        Ok(Answer { ms, ahead_seconds })
    }
}

pub(super) async fn connect(address: IpAddr, port: u16) -> Result<(), String> {
    match tokio::time::timeout(LOOK, TcpStream::connect((address, port))).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {LOOK_SECONDS_MAX} s")),
    }
}
