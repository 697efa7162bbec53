//! (f) Visitors of names that do not exist: what becomes of those who visit names that do, and of memory.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use redis::AsyncCommands;
use support::authority::Authority;
use support::folder::Folder;
use support::redis::Redis;
use support::{Context, Result, fail};

use super::{Effort, Measured};
use crate::cores;
use crate::load::client::{Client, Group, Protocol};
use crate::load::flood::Flood;
use crate::load::handshakes::{Order, visit_all};
use crate::load::requests::ask;
use crate::names::{self, Issuer};
use crate::peers::{self, CADDY, LatchkeySetup, Missing, Server};
use crate::report::{Case, show};
use crate::standin;
use crate::stats::percentile;

const A_SECOND: u32 = 5000;
const NAMES: usize = 1000;
/// Of these, visited all the time.
const HOT: usize = 50;
/// Between two of those visits.
const PAUSE: Duration = Duration::from_millis(8);

pub(super) async fn run(effort: Effort) -> Result<Measured> {
    let folder = Folder::new()?;
    let (upstream, permission) = (standin::upstream().await?, standin::permission(NAMES).await?);
    let certservice = standin::certservice(NAMES, HashMap::new()).await?;
    let redis = Redis::start(folder.path()).await?;
    let (issuer, authority) = (Issuer::new(folder.path())?, Authority::new("Benchmark CA")?);
    let mut connection = redis.connection().await?;
    for number in 0..HOT {
        let name = issuer.issue(&names::host(number))?;
        let () = connection.set(format!("latchkey:bundle:{}", name.host), issuer.token(&name)?).await?;
        for (key, value) in peers::caddy_stores(&authority, &name.host)? {
            let () = connection.set(key, value).await?;
        }
    }
    cores::as_servers()?;
    let setup = LatchkeySetup {
        folder: folder.path(),
        certservice: certservice.address,
        redis_url: Some(redis.url.clone()),
        upstream: upstream.address,
        redirects: &[],
        warm_mib_max: 64,
    };
    let edge = setup.start_for_all().await.context("the edge")?;
    edge.until_listed(NAMES).await?;
    let caddy = peers::caddy_on_demand(folder.path(), &redis.url, permission.address, upstream.address).await;
    cores::as_load()?;
    let (mut servers, mut missing) = (vec![edge.server], Vec::new());
    match caddy {
        Ok(server) => servers.push(server),
        Err(error) => missing.push(Missing { peer: CADDY.into(), why: error.to_string() }),
    }
    let mut measured = Measured::of(&servers, missing);
    let mut cases = Cases::new();
    for server in &servers {
        match endure(effort, server, &mut cases).await {
            Err(error) if server.name == peers::LATCHKEY => return Err(error).context(server.name),
            Err(error) => measured.missing.push(Missing { peer: server.name.into(), why: error.to_string() }),
            Ok(()) => {}
        }
    }
    measured.cases = cases.0;
    measured.cases.iter().for_each(show);
    measured.notes.push(format!(
        "{A_SECOND} unknown names a second, each another one and from another loopback address, while {HOT} hot names are \
         visited in turn, each time with a new connection: full handshake, request, first byte."
    ));
    Ok(measured)
}

struct Cases(Vec<Case>);

impl Cases {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn add(&mut self, name: &str, unit: &str, server: &Server, value: f64) {
        match self.0.iter_mut().find(|case| case.name == name) {
            Some(case) => case.add(server.name, value),
            None => {
                let mut case = Case::new(name, unit);
                case.add(server.name, value);
                self.0.push(case);
            }
        }
    }
}

async fn endure(effort: Effort, server: &Server, cases: &mut Cases) -> Result<()> {
    let length = Duration::from_secs(if effort.quick { 4 } else { 20 });
    let client = Client::new(server.addresses.plain, Group::X25519, Protocol::Http1)?;
    visit_all(&client, 0..HOT).await?;
    let order = Order::of(HOT);
    let (before, _) = visits(server, &client, &order, length).await?;
    let memory_before = server.meter().memory()?;

    let flood = Flood::start(server.addresses.plain, A_SECOND)?;
    let (start, window) = (Instant::now(), server.meter().open()?);
    let (during, memory) = visits(server, &client, &order, length).await?;
    let (spent, elapsed, (refused, unanswered)) = (window.close()?, start.elapsed().as_secs_f64(), flood.counts());
    flood.stop()?;
    cases.add("p99 before", "ms", server, before);
    cases.add("p99 in the flood", "ms", server, during);
    cases.add("p99 in the flood ÷ before", "×", server, during / before);
    cases.add("memory before", "MiB", server, memory_before as f64 / 1048576.0);
    cases.add("memory grown", "MiB", server, memory.saturating_sub(memory_before) as f64 / 1048576.0);
    cases.add("unknown names refused", "a second", server, refused as f64 / elapsed);
    cases.add("connections without an answer", "a second", server, unanswered as f64 / elapsed);
    cases.add("how busy", "% of a core", server, spent.as_secs_f64() / elapsed * 100.0);
    Ok(())
}

/// The 99th percentile of their times in milliseconds, and the most memory seen meanwhile.
async fn visits(server: &Server, client: &Client, order: &Order, length: Duration) -> Result<(f64, u64)> {
    let (start, mut times, mut most) = (Instant::now(), Vec::new(), 0);
    while start.elapsed() < length {
        let (host, visit) = (order.next(), Instant::now());
        let answer = ask(client, Protocol::Http1, &host, "/").await?;
        times.push(visit.elapsed().as_secs_f64() * 1e3);
        if answer.status != 200 {
            return fail(format!("{host}: {answer:?}"));
        }
        most = most.max(server.meter().memory()?);
        tokio::time::sleep(PAUSE).await;
    }
    Ok((percentile(&times, 99.0).context("visits")?, most))
}
