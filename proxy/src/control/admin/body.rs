//! What is sent comes without long pauses: an upload that stops would be waited for without end.

use std::io::ErrorKind::TimedOut;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use futures_util::{StreamExt, stream};
use tokio::time::timeout;

use super::problem;

/// Between two pieces of a body.
const PIECE_WITHIN: Duration = Duration::from_secs(30);

pub(super) async fn in_time(request: Request, next: Next) -> Response {
    let slow = Arc::new(AtomicBool::new(false));
    let request = request.map(|body| without_pauses(body, slow.clone()));
    let response = next.run(request).await;
    if slow.load(Ordering::Relaxed) && response.status().is_client_error() {
        let says = format!("nothing more of the body came within {} s", PIECE_WITHIN.as_secs());
        return problem(StatusCode::REQUEST_TIMEOUT, "too_slow", &says, vec![]);
    }
    response
}

fn without_pauses(body: Body, slow: Arc<AtomicBool>) -> Body {
    let pieces = body.into_data_stream();
    Body::from_stream(stream::unfold(Some((pieces, slow)), |state| async {
        let (mut pieces, slow) = state?;
        let Ok(piece) = timeout(PIECE_WITHIN, pieces.next()).await else {
            slow.store(true, Ordering::Relaxed);
            return Some((Err(axum::Error::new(std::io::Error::from(TimedOut))), None));
        };
        let piece: Result<Bytes, axum::Error> = piece?;
        Some((piece, Some((pieces, slow))))
    }))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::body::to_bytes;

    use super::*;

    async fn received(body: Body) -> (Option<usize>, bool) {
        let slow = Arc::new(AtomicBool::new(false));
        let received = to_bytes(without_pauses(body, slow.clone()), usize::MAX).await;
        (received.ok().map(|bytes| bytes.len()), slow.load(Ordering::Relaxed))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_may_be_slow_but_not_stop() {
        let piece = Ok::<_, Infallible>(Bytes::from_static(b"from"));
        let stops = stream::iter([piece.clone()]).chain(stream::pending());
        assert_eq!(received(Body::from_stream(stops)).await, (None, true));
        let slow = stream::iter(vec![piece; 20]).then(|piece| async {
            tokio::time::sleep(PIECE_WITHIN - Duration::from_secs(1)).await;
            piece
        });
        assert_eq!(received(Body::from_stream(slow)).await, (Some(80), false));
    }
}
