//! Frames that cost the sender nothing: as many as a visitor has use for are taken, more end the connection.

use super::h2::{
    CONTINUATION, DATA, END_STREAM, Ended, H2, HEADERS, PING, PRIORITY, RST_STREAM, WINDOW_UPDATE, frame, get, post,
    request, settings,
};
use super::{GUARD, HOST, Siege};

const ME: [u8; 4] = [127, 0, 0, 5];

/// What is sent before, the frame, and how many are taken at once. Ours of the handshake count too.
fn floods() -> [(&'static str, Vec<u8>, Vec<u8>, usize); 6] {
    [
        ("SETTINGS", vec![], settings(&[]), 20 - 2),
        ("PING", vec![], frame(PING, 0, 0, &[0; 8]), 50),
        ("PRIORITY", vec![], frame(PRIORITY, 0, 99, &[0, 0, 0, 0, 16]), 1000),
        ("unknown", vec![], frame(0xbe, 0, 0, b"?"), 1000),
        ("WINDOW_UPDATE", vec![], frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]), 1000),
        ("empty DATA", post(1, "/empty-data"), frame(DATA, 0, 1, &[]), 100),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_flood_ends_at_its_limit() {
    let siege = Siege::start("").await;
    let attacks = async {
        for (what, before, one, limit) in floods() {
            let mut h2 = H2::open(&siege, ME, &[]).await;
            assert!(h2.send(&[before.clone(), one.repeat(limit), get(3, "/after")].concat()).await, "{what}");
            assert_eq!(h2.ended(3).await, Ended::Answered(200), "{limit} {what}");
            drop(h2);

            let mut h2 = H2::open(&siege, ME, &[]).await;
            // Time gives some back while they are on their way.
            h2.send(&[before, one.repeat(limit + limit / 5 + 5), get(3, "/flooded")].concat()).await;
            assert!(matches!(h2.ended(3).await, Ended::Closed(_)), "{what}");
        }
    };
    siege.withstands(&[(GUARD, "h2_flood", floods().len())], Box::pin(attacks)).await;
    assert!(siege.recorder.seen_at("/flooded").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rapid_reset_and_endless_headers_end() {
    let siege = Siege::start("").await;
    let attacks = async {
        let mut h2 = H2::open(&siege, ME, &[]).await;
        let cancelled =
            |n: u32| [get(2 * n + 1, "/cancelled"), frame(RST_STREAM, 0, 2 * n + 1, &[0, 0, 0, 8])].concat();
        h2.send(&(0..1000).flat_map(cancelled).collect::<Vec<_>>()).await;
        h2.closed().await;

        let mut h2 = H2::open(&siege, ME, &[]).await;
        h2.send(&frame(HEADERS, END_STREAM, 1, &request("GET", HOST, "/endless"))).await;
        h2.send(&frame(CONTINUATION, 0, 1, &[]).repeat(100)).await;
        h2.closed().await;
    };
    siege.withstands(&[(GUARD, "h2_header_block", 1)], Box::pin(attacks)).await;
    let cancelled = siege.recorder.seen_at("/cancelled").len();
    assert!(cancelled <= 300, "{cancelled} cancelled requests reached the upstream");
    assert!(siege.recorder.seen_at("/endless").is_empty());
}
