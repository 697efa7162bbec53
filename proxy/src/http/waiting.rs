//! A request that waits for a plugin which asks other servers: for as long as its visitor is there.

use std::net::IpAddr;
use std::time::Duration;

use contract::Hostname;
use http::HeaderValue;
use pingora::http::RequestHeader;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};

use super::arrival::Lines;
use super::plugins::{Attached, Request};
use crate::observe::METRICS;
use crate::upstream::{LOOP_FIELD, LOOP_WORD};
use crate::wasm::{Action, Asked, Fault, RequestFacts};

/// RFC 5842 section 7.2.
const LOOP_DETECTED: u16 = 508;

/// What the plugin says, and how long it waited for others. An error where the visitor has left: then the call is broken off.
pub(super) async fn ask(
    session: &mut Session,
    attached: &Attached,
    host: &Hostname,
    client: Option<IpAddr>,
    facts: &RequestFacts,
    lines: &Lines,
) -> Result<(std::result::Result<Action, Fault>, Duration)> {
    // The visitor is watched meanwhile, so the head is not the session's any more.
    let head = session.req_header().clone();
    if is_of_a_callout(&head) {
        return Ok((Ok(Action::Deny(LOOP_DETECTED)), Duration::ZERO));
    }
    let view = Request::new(host.as_str(), &head, client, lines);
    let sample = attached.sample();
    let mut asked = tokio::select! {
        biased; // whose answer is there gets it
        asked = attached.on_request_waiting(facts, &view, sample.is_some()) => asked,
        () = gone(session) => {
            METRICS.plugin_callouts.with_label_values(&[&*attached.plugin, "abandoned"]).inc();
            return Err(Error::explain(ErrorType::ConnectionClosed, "the visitor left while a plugin waited").into_down());
        }
    };
    count(&attached.plugin, &asked);
    let waited = asked.waited();
    if let Some(sample) = sample {
        sample.waited(&mut asked, facts, &view);
    }
    Ok((asked.answer, waited))
}

/// A callout that comes back to an edge asks nobody: else it could go round for ever.
fn is_of_a_callout(head: &RequestHeader) -> bool {
    let listed = head.headers.get_all(LOOP_FIELD).iter().map(HeaderValue::as_bytes);
    let mut words = listed.flat_map(|value| value.split(|byte| *byte == b','));
    words.any(|word| {
        let id = word.split(|byte| *byte == b';').next().unwrap_or_default();
        id.trim_ascii().eq_ignore_ascii_case(LOOP_WORD.as_bytes())
    })
}

fn count(plugin: &str, asked: &Asked) {
    for callout in &asked.callouts {
        METRICS.plugin_callouts.with_label_values(&[plugin, callout.result]).inc();
        METRICS.plugin_callout_seconds.observe(callout.took.as_secs_f64());
    }
}

/// Returns when the visitor has left. Over HTTP/1, one who still has a body to send can't be watched: the time of the call
/// is bounded.
async fn gone(session: &mut Session) {
    let session = session.as_downstream_mut();
    if let Some(closed) = session.watch_h2_stream_close() {
        let _ = closed.await;
        return;
    }
    if !session.is_body_empty() {
        return std::future::pending().await;
    }
    match session.read_body_or_idle(true).await {
        Err(error) if *error.etype() != ErrorType::ConnectError => {}
        // It speaks another protocol before it was let to, and a byte of that is lost.
        _ => {
            session.set_keepalive(None);
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callout_is_known_wherever_it_went_through() {
        for (fields, known) in [
            (&["latchkey"][..], true),
            (&["other; v=1, Latchkey;x"], true),
            (&["other", " latchkey "], true),
            (&["latchkey-like", "x.latchkey"], false),
            (&["other; latchkey"], false),
            (&[], false),
        ] {
            let mut head = RequestHeader::build("GET", b"/", None).unwrap();
            for field in fields {
                head.append_header(LOOP_FIELD, *field).unwrap();
            }
            assert_eq!(is_of_a_callout(&head), known, "{fields:?}");
        }
    }
}
