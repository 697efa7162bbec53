//! `/v1/events`: the journal as it grows, as server-sent events (WHATWG HTML section 9.2). Who was away goes on from the last
//! entry that it has, and misses none.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use contract::journal::Entry;
use futures_util::stream::{Stream, unfold};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use tokio::sync::watch;

use super::Api;
use super::access::Caller;
use super::domains::tenant;
use super::places::{Place, Places};
use super::problem::ApiError;

/// Listeners at once; of one tenant.
const STREAMS_MAX: usize = 64;
const STREAMS_OF_TENANT_MAX: usize = 16;
const BUSY_SECONDS: u64 = 30;
const LOOK_EVERY: Duration = Duration::from_secs(1);
const KEEP_ALIVE_SECONDS: u64 = 15;
/// Entries read at once.
const BATCH: u32 = 100;

static STREAMS: Places = Places::new("listen", STREAMS_MAX, STREAMS_OF_TENANT_MAX, BUSY_SECONDS);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct From {
    after: Option<u64>,
    tenant: Option<String>,
}

pub(super) async fn stream(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    from: Result<Query<From>, QueryRejection>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let invalid = |what: &str, says: String| {
        ApiError::new(StatusCode::BAD_REQUEST, &format!("invalid_{what}"), &format!("Invalid {what}"), says)
    };
    let Query(from) = from.map_err(|error| invalid("query", error.body_text()))?;
    let tenant = tenant(&caller, from.tenant)?;
    // A browser that comes back says what it has had.
    let last = headers.get("last-event-id").map(|value| value.to_str().ok().and_then(|text| text.parse().ok()));
    let after = match (last, from.after) {
        (Some(None), _) => return Err(invalid("header", "Last-Event-ID takes the id of an event".to_owned())),
        (Some(Some(last)), _) => last,
        (None, Some(after)) => after,
        (None, None) => api.store.journal_page(0, 1).await?.head.seq,
    };
    let place = STREAMS.take(caller.tenant())?;
    let stopping = api.stopping.subscribe();
    let tail = Tail { api, tenant, after, ready: VecDeque::new(), stopping, _place: place };
    let keep_alive = KeepAlive::new().interval(Duration::from_secs(KEEP_ALIVE_SECONDS));
    Ok(Sse::new(unfold(tail, Tail::next)).keep_alive(keep_alive))
}

struct Tail {
    api: Arc<Api>,
    tenant: Option<String>,
    after: u64,
    ready: VecDeque<Entry>,
    stopping: watch::Receiver<bool>,
    _place: Place,
}

impl Tail {
    /// Waits for the next entry. Ends where the database fails, and with the process: the listener comes back, and goes on
    /// after the last entry that it has.
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        loop {
            // However much is left for it.
            if *self.stopping.borrow() {
                return None;
            }
            if let Some(entry) = self.ready.pop_front() {
                let data = serde_json::to_string(&entry).ok()?;
                let event = Event::default().id(entry.seq.to_string()).event(&entry.action).data(data);
                return Some((Ok(event), self));
            }
            let read = self.api.store.journal(self.tenant.as_deref(), self.after, BATCH).await;
            let entries =
                read.inspect_err(|error| tracing::error!(%error, "a listener's events can't be read")).ok()?;
            match entries.last() {
                Some(last) => {
                    self.after = last.seq;
                    self.ready = entries.into();
                }
                None => tokio::select! {
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                    // The listener comes back, to who serves then.
                    _ = self.stopping.wait_for(|stopping| *stopping) => return None,
                },
            }
        }
    }
}
