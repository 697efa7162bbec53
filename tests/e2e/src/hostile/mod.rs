//! Attacks on the running proxy, over the wire: each ends at its limit and is counted, and visitors don't notice.

mod floods;
mod guests;
mod h2;
mod hosts;
mod leave;
mod limits;
mod memory;
mod recorder;
mod smuggling;
mod targets;
mod time_http1;
mod time_http2;
mod wire;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use support::edge::Edge;
use support::fleet::Plan;
use support::wait::{PATIENCE, until};
use support::{fail, port};

use crate::world::World;
use recorder::Recorder;

const HOST: &str = "shop.example";
const OTHER_HOST: &str = "blog.example";
const GUARD: &str = "latchkey_guard_closed_total";
const LOCAL: &str = "latchkey_http_local_answers_total";
const REFUSALS: &str = "latchkey_connection_refusals_total";
const HANDSHAKES: &str = "latchkey_tls_handshakes_total";
const OPEN: &str = "latchkey_open_connections";

/// Short, so that a test takes seconds, and each unlike the others, so that one is not taken for another.
const HEADER_TIMEOUT: Duration = Duration::from_millis(1000);
const IDLE_TIMEOUT: Duration = Duration::from_millis(1700);
const STALL_TIMEOUT: Duration = Duration::from_millis(1300);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_millis(2500);
/// What a busy machine may add. The defaults are longer than a short limit with this added.
const SLACK: Duration = Duration::from_secs(5);

/// Where healthy visitors dial from; no attack does.
const NEIGHBOUR: [u8; 4] = [127, 0, 0, 77];

/// A fleet with short time-outs, and an upstream that remembers what reached it.
struct Siege {
    world: World,
    recorder: Recorder,
}

impl Siege {
    /// `limits` are more lines of the boot file's `[limits]`.
    async fn start(limits: &str) -> Self {
        let mut world = World::start(Plan::default()).await;
        let recorder = Recorder::start(port::free().unwrap()).await;
        world.fleet.edge.process.stop().await.unwrap();
        world.fleet.edge_setup.settings = format!(
            "[tls]\nhandshake_timeout_ms = {}\nload_timeout_ms = 2000\n\
             [limits]\nheader_timeout_ms = {}\nkeepalive_timeout_ms = {idle}\nh2_idle_timeout_ms = {idle}\n\
             stall_timeout_ms = {}\n{limits}\n",
            HANDSHAKE_TIMEOUT.as_millis(),
            HEADER_TIMEOUT.as_millis(),
            STALL_TIMEOUT.as_millis(),
            idle = IDLE_TIMEOUT.as_millis(),
        );
        world.fleet.edge = Edge::start(&world.fleet.edge_setup).await.unwrap();
        let config = json!({
            "plugins": {},
            "upstreams": {"recorder": {"url": recorder.url()}},
            "sites": [{"hosts": ["*"], "upstream": "recorder"}],
        });
        world.fleet.edge.apply(&config).await.unwrap();
        world.issue(HOST).await;
        world.issue(OTHER_HOST).await;
        world.still_serves(HOST).await;
        Self { world, recorder }
    }

    async fn count(&self, metric: &str, reason: &str) -> f64 {
        self.world.metric(metric, &format!("\"{reason}\"")).await
    }

    /// Requests refused for what they ask for, by our own code and by the HTTP library.
    async fn refusals(&self) -> f64 {
        self.count(LOCAL, "bad_target").await + self.count(LOCAL, "bad_request").await
    }

    /// Runs attacks while a healthy visitor asks again and again. After: the visitor got every answer, every attack was
    /// counted under its reason, no more and no less, and no connection is left.
    async fn withstands<T>(&self, expected: &[(&str, &str, usize)], attacks: impl Future<Output = T>) -> T {
        let mut before = Vec::new();
        for (metric, reason, _) in expected {
            before.push(self.count(metric, reason).await);
        }
        let visitor = self.world.visitor().await.from(NEIGHBOUR);
        let over = Arc::new(AtomicBool::new(false));
        let healthy = tokio::spawn({
            let over = over.clone();
            async move {
                let mut answers = 0;
                while !over.load(Ordering::Relaxed) {
                    let asked = Instant::now();
                    let mut connection = visitor.https(HOST).await.unwrap();
                    assert_eq!(connection.get(HOST, "/healthy").await.unwrap().status, 200);
                    assert!(asked.elapsed() < SLACK, "a healthy visitor waited {:?}", asked.elapsed());
                    answers += 1;
                }
                answers
            }
        });
        let outcome = attacks.await;
        over.store(true, Ordering::Relaxed);
        assert!(healthy.await.unwrap() > 0);
        for ((metric, reason, times), before) in expected.iter().zip(before) {
            self.world.grows(metric, &format!("\"{reason}\""), before, *times as f64).await;
            assert_eq!(self.count(metric, reason).await - before, *times as f64, "{metric} {reason}");
        }
        self.back_to_rest().await;
        outcome
    }

    /// The process lives and serves, and no connection is left open.
    async fn back_to_rest(&self) {
        self.world.still_serves(HOST).await;
        let rest = until("connections to be closed", PATIENCE, async || {
            let open = self.world.fleet.edge.admin.metric(OPEN, "").await?;
            if open == 0.0 { Ok(()) } else { fail(format!("{open} are open")) }
        });
        rest.await.unwrap();
    }
}

/// A connection that began to wait at `since` ended no sooner than its limit and not much later.
#[track_caller]
fn ended_at(what: &str, since: Instant, limit: Duration) {
    let took = since.elapsed();
    assert!(took >= limit && took < limit + SLACK, "{what} ended after {took:?}; the limit is {limit:?}");
}
