//! Requests that are small on the wire and large in memory (CVE-2026-49975 and its kind).

use support::wait::{PATIENCE, until};
use support::{fail, folder};

use super::Siege;
use super::h2::{END_HEADERS, H2, HEADERS, field, frame, indexed_field, request};

const CONNECTIONS: u32 = 20;
const STREAMS: u32 = 100;
/// What may be held on purpose: for each connection the buffers of TLS and frames, some 128 KiB, and for each of its 100
/// streams up to 16 KiB that were read and not yet decoded: 20 × 1.7 MiB is 34 MiB. The rest is the allocator's slack.
/// Unbounded, the references of one connection alone unfold to 100 × 40 MB.
const GROWTH_MIB_MAX: u64 = 60;
/// Index of the newest entry of the dynamic table (RFC 7541 section 2.3.3).
const NEWEST: u8 = 0x80 | 62;

impl Siege {
    fn resident_mib(&self) -> u64 {
        let status = format!("/proc/{}/status", self.world.fleet.edge.process.id());
        let status = folder::read(status.as_ref()).unwrap();
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        kib.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }

    /// Sends the same streams on many connections and keeps them open; how far memory grew while they were.
    async fn bombed(&self, network: u8, stream: impl Fn(u32) -> Vec<u8>) -> u64 {
        let before = self.resident_mib();
        let mut peak = before;
        let mut open = Vec::new();
        for connection in 0..CONNECTIONS {
            let mut h2 = H2::open(self, [127, 0, network, connection as u8 + 1], &[]).await;
            for number in 0..STREAMS {
                if !h2.send(&stream(number)).await {
                    break;
                }
            }
            peak = peak.max(self.resident_mib());
            open.push(h2);
        }
        for h2 in &mut open {
            h2.closed().await;
            peak = peak.max(self.resident_mib());
        }
        drop(open);
        self.back_to_rest().await;
        let back = until("memory to come back", PATIENCE, async || {
            let now = self.resident_mib();
            if now <= before + GROWTH_MIB_MAX { Ok(()) } else { fail(format!("{now} MiB, {before} before")) }
        });
        back.await.unwrap();
        peak - before
    }
}

fn stream(number: u32, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, 2 * number + 1, block)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn header_bombs_take_little_memory() {
    let siege = Siege::start("").await;
    // The allocator's arenas of all threads are warm.
    for _ in 0..50 {
        siege.world.still_serves(super::HOST).await;
    }
    let request = request("POST", super::HOST, "/bomb");

    let large = indexed_field("x-bomb", &"x".repeat(4000));
    let references = |n| [&request[..], if n == 0 { &large } else { &[] }, &vec![NEWEST; 10_000]].concat();
    let growth = siege.bombed(1, |n| stream(n, &references(n))).await;
    assert!(growth < GROWTH_MIB_MAX, "references: {growth} MiB");

    let crumbs = [request.clone(), field("cookie", "").repeat(1_700)].concat();
    let growth = siege.bombed(2, |n| stream(n, &crumbs)).await;
    assert!(growth < GROWTH_MIB_MAX, "cookie crumbs: {growth} MiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_of_open_requests_are_held_within_their_budget() {
    let siege = Siege::start("open_headers_kib_max = 256").await;
    for _ in 0..50 {
        siege.world.still_serves(super::HOST).await;
    }
    // Each is accepted by itself: 12 KB that stay for as long as its body is waited for.
    let held = [request("POST", super::HOST, "/held"), field("x-held", &"x".repeat(4000)).repeat(3)].concat();
    let before = siege.world.metric("latchkey_http_local_answers_total", "reason=\"open_headers\"").await;
    let growth = siege.bombed(3, |n| stream(n, &held)).await;
    let refused = siege.world.metric("latchkey_http_local_answers_total", "reason=\"open_headers\"").await - before;
    assert!(growth < GROWTH_MIB_MAX, "held headers: {growth} MiB");
    // 20 requests of 12 KB fit into the budget of a connection; the other 80 do not.
    assert!(refused > f64::from(CONNECTIONS * STREAMS) / 2.0, "{refused} refused");
}
