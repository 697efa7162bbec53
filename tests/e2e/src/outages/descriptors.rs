//! Too few file descriptors: who comes waits in the kernel's queue, nothing spins, and it is over when others leave.

use std::fs;
use std::time::{Duration, Instant};

use support::edge::Edge;
use support::fleet::Plan;
use tokio::io::AsyncWriteExt;

use crate::world::World;

const HOST: &str = "shop.example";
const ERRORS: &str = "latchkey_accept_errors_total";
/// More than the process needs for itself and its plugins, and not many more.
const DESCRIPTORS: usize = 160;
/// More than it can have.
const VISITORS: usize = 220;

/// Time on a processor, of all threads.
fn processor_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    let ticks: u64 = after_name.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_descriptors_accepting_waits_and_goes_on_when_there_are_some() {
    let mut world = World::start(Plan::default()).await;
    world.issue(HOST).await;
    world.fleet.edge.process.stop().await.unwrap();
    let limited = format!("ulimit -n {DESCRIPTORS}; exec \"$0\" \"$@\"");
    world.fleet.edge_setup.within = ["sh", "-c", &limited].map(str::to_owned).to_vec();
    world.fleet.edge_setup.settings = "[limits]\nheader_timeout_ms = 600000".into();
    world.fleet.edge = Edge::start(&world.fleet.edge_setup).await.unwrap();
    world.still_serves(HOST).await;
    let pid = world.fleet.edge.process.id();

    // On the plain listener: a connection is a descriptor and nothing else. They begin a head, for which they have all
    // the time; of one who says nothing at all a PROXY header would be awaited, and for a short time.
    let mut slow = Vec::new();
    for _ in 0..VISITORS {
        let mut visitor = world.plain().dial().await.unwrap();
        visitor.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        slow.push(visitor);
    }
    // Told by its log: the admin API may not get a descriptor now either, and how many /proc shows depends on whether the
    // kernel sets one aside for an accept that waits.
    world.says(&["no connection can be accepted", "raise the limit of open files", "Too many open files"]).await;
    let (began, spent) = (Instant::now(), processor_time(pid));
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (elapsed, spent) = (began.elapsed(), processor_time(pid) - spent);
    assert!(spent < elapsed / 4, "{spent:?} of processor time in {elapsed:?}: it spins");

    // They leave: whoever waited is served.
    let waiting = tokio::spawn({
        let visitor = world.visitor().await;
        async move { visitor.https(HOST).await?.get(HOST, "/").await }
    });
    drop(slow);
    assert_eq!(waiting.await.unwrap().unwrap().status, 200);
    assert!(world.metric(ERRORS, "").await >= 1.0);
    world.says(&["connections are accepted again"]).await;
}
