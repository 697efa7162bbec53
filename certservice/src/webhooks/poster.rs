//! A POST that its receiver can tell from anybody else's.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header::CONTENT_TYPE;
use http_body_util::Full;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::signature;
use crate::config::Secret;
use crate::{clock, https};

const ANSWER_SECONDS_MAX: u64 = 10;

pub(crate) struct Poster {
    secret: Secret,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Poster {
    /// Believes the system's roots or, where some are given, only those. `plain` allows `http` as well.
    pub(crate) fn open(secret: Secret, root_pem: Option<&[u8]>, plain: bool) -> Result<Self, String> {
        let connector = https::connector(root_pem, plain)?;
        let client = Client::builder(TokioExecutor::new()).pool_idle_timeout(Duration::from_secs(30)).build(connector);
        Ok(Self { secret, client })
    }

    /// JSON; `event` is its number, where it has one. Any answer but 2xx is an error. Redirects are not followed.
    pub(crate) async fn post(&self, url: &str, event: Option<u64>, body: Vec<u8>) -> Result<(), String> {
        let now = clock::now();
        let mut request = Request::post(url)
            .header(CONTENT_TYPE, "application/json")
            .header("latchkey-timestamp", now)
            .header("latchkey-signature", signature(self.secret.reveal(), now, &body));
        if let Some(event) = event {
            request = request.header("latchkey-event", event);
        }
        let request = request.body(Full::new(Bytes::from(body))).map_err(|error| error.to_string())?;
        let limit = Duration::from_secs(ANSWER_SECONDS_MAX);
        let answer = tokio::time::timeout(limit, self.client.request(request)).await;
        let answer = answer.map_err(|_| format!("no answer within {ANSWER_SECONDS_MAX} s"))?;
        let status = answer.map_err(|error| with_causes(&error))?.status();
        if status.is_success() { Ok(()) } else { Err(format!("it answered with status {}", status.as_u16())) }
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
