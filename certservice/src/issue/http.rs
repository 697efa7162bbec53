//! The HTTP client under the ACME dialogue: what the library leaves out. A time-out and a size limit on each exchange,
//! `Retry-After` kept, and errors that are not ACME problems (a proxy's 503 page) turned into problems.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};

use crate::budget::{FullAt, Limit};
use crate::{clock, https};

/// One exchange with the CA, from sending to the last byte of the answer.
const EXCHANGE_SECONDS_MAX: u64 = 30;
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// A CA that asks for a longer pause is looked at again after this one.
const RETRY_AFTER_SECONDS_MAX: u64 = 24 * 3600;

tokio::task_local! {
    static PAUSE: Cell<u64>;
}

/// Runs a dialogue and gives back, besides its outcome, for how many seconds the CA asked to be left alone.
pub(super) async fn with_pause<T>(dialogue: impl Future<Output = T>) -> (T, u64) {
    PAUSE.scope(Cell::new(0), async { (dialogue.await, PAUSE.with(Cell::get)) }).await
}

#[derive(Clone)]
pub(super) struct AcmeHttp {
    client: Client<HttpsConnector<HttpConnector>, BodyWrapper<Bytes>>,
    /// How many requests the CA takes, whatever they are for.
    turns: Option<Arc<Turns>>,
}

/// Gives each request its turn.
struct Turns {
    limit: Limit,
    full_at: Mutex<FullAt>,
    /// What its milliseconds count from: whoever sets the clock must not make requests wait.
    since: Instant,
}

impl Turns {
    fn new(limit: Limit) -> Self {
        Self { limit, full_at: Mutex::new(0), since: Instant::now() }
    }

    async fn wait(&self) {
        let now_ms = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        tokio::time::sleep(Duration::from_millis(self.take(now_ms))).await;
    }

    /// Milliseconds until the next request may leave; they are taken.
    fn take(&self, now_ms: u64) -> u64 {
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let at = self.limit.turn_at(*full_at, now_ms);
        // Beyond the window, too: who waits has its place.
        *full_at = (*full_at).max(now_ms) + self.limit.interval_ms();
        at - now_ms
    }
}

impl AcmeHttp {
    /// Believes the system's roots or, where one is given, only that.
    pub(super) fn new(root_pem: Option<&[u8]>, requests: Option<Limit>) -> Result<Self, String> {
        let connector = https::connector(root_pem, false)?;
        let mut client = Client::builder(TokioExecutor::new());
        let client = client.pool_idle_timeout(Duration::from_secs(30)).build(connector);
        let turns = requests.map(|limit| Arc::new(Turns::new(limit)));
        Ok(Self { client, turns })
    }

    async fn exchange(self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Error> {
        let answer = self.client.request(request).await.map_err(|error| Error::Other(Box::new(error)))?;
        let (mut parts, body) = answer.into_parts();
        if let Some(seconds) = retry_after(&parts) {
            // Outside of `with_pause` nobody asks for it.
            let _ = PAUSE.try_with(|pause| pause.set(seconds));
        }
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(Error::Other)?.to_bytes();
        let failed = parts.status.is_client_error() || parts.status.is_server_error();
        let body = if failed && !is_problem(&parts, &body) { plain_error(&mut parts) } else { body };
        Ok(BytesResponse::from(Response::from_parts(parts, Full::new(body))))
    }
}

impl HttpClient for AcmeHttp {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let turns = self.turns.clone();
        let exchange = self.clone().exchange(request);
        Box::pin(async move {
            if let Some(turns) = turns {
                turns.wait().await;
            }
            let limit = Duration::from_secs(EXCHANGE_SECONDS_MAX);
            let late = || Error::Other(format!("no answer within {EXCHANGE_SECONDS_MAX} s").into());
            tokio::time::timeout(limit, exchange).await.unwrap_or_else(|_| Err(late()))
        })
    }
}

/// Seconds, or a date, which is taken as the longest pause that the CA's own `Date` allows for.
fn retry_after(parts: &http::response::Parts) -> Option<u64> {
    let text = parts.headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let seconds = match text.parse() {
        Ok(seconds) => seconds,
        Err(_) => clock::http_date(text)?.saturating_sub(clock::now()),
    };
    Some(seconds.min(RETRY_AFTER_SECONDS_MAX))
}

fn is_problem(parts: &http::response::Parts, body: &[u8]) -> bool {
    let json = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    json.is_some_and(|value| value.contains("json")) && serde_json::from_slice::<serde_json::Value>(body).is_ok()
}

fn plain_error(parts: &mut http::response::Parts) -> Bytes {
    let status = parts.status.as_u16();
    let problem =
        serde_json::json!({ "detail": format!("the CA answered HTTP {status} without a reason"), "status": status });
    parts.headers.remove(http::header::CONTENT_LENGTH);
    Bytes::from(problem.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(headers: &[(http::HeaderName, &str)]) -> http::response::Parts {
        let mut response = Response::new(());
        for (name, value) in headers {
            response.headers_mut().insert(name.clone(), value.parse().unwrap());
        }
        response.into_parts().0
    }

    #[test]
    fn bounds_the_pause() {
        assert_eq!(retry_after(&parts(&[])), None);
        assert_eq!(retry_after(&parts(&[(RETRY_AFTER, "120")])), Some(120));
        assert_eq!(retry_after(&parts(&[(RETRY_AFTER, "99999999999")])), Some(RETRY_AFTER_SECONDS_MAX));
        assert_eq!(retry_after(&parts(&[(RETRY_AFTER, "Thu, 01 Jan 1970 00:00:00 GMT")])), Some(0));
        assert_eq!(retry_after(&parts(&[(RETRY_AFTER, "later")])), None);
    }

    #[test]
    fn requests_leave_no_faster_than_the_ca_takes_them_and_each_in_its_turn() {
        let turns = Turns::new(Limit::new(5, 1));
        let now = 10_000;
        let waits: Vec<_> = (0..9).map(|_| turns.take(now)).collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 200, 400, 600, 800]);
        // Those that wait have their turns; what comes later comes after them.
        assert_eq!((turns.take(now + 500), turns.take(now + 10_000)), (500, 0));
    }

    #[test]
    fn a_page_is_not_a_problem() {
        let html = parts(&[(CONTENT_TYPE, "text/html")]);
        assert!(!is_problem(&html, b"{}"));
        let json = parts(&[(CONTENT_TYPE, "application/problem+json")]);
        assert!(is_problem(&json, b"{}") && !is_problem(&json, b"<html>"));
    }

    #[test]
    fn a_root_file_without_certificates_is_refused() {
        assert!(AcmeHttp::new(Some(b"nothing here"), None).err().unwrap().contains("root_file"));
    }
}
