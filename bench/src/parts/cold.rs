//! (c) Names that nobody has visited yet: from the first packet of a visitor to the first byte of the answer.

use std::time::Instant;

use redis::AsyncCommands;
use serde_json::json;
use support::authority::Authority;
use support::edge::{self, Edge};
use support::fleet::{Fleet, Plan};
use support::{Context, Result, fail, port};

use super::{Effort, Measured, register};
use crate::load::client::{Client, Group, Protocol};
use crate::load::requests::{self, Http1};
use crate::peers::{self, CADDY, LATCHKEY, Missing};
use crate::report::{Case, show};
use crate::stats::percentile;
use crate::{names, standin};

pub(super) async fn run(effort: Effort) -> Result<Measured> {
    let names = if effort.quick { 60 } else { 300 };
    let upstream = standin::upstream().await?;
    let fleet = Fleet::start(Plan { redis: true, ..Plan::default() }).await?;
    let config = json!({
        "upstreams": {"site": {"url": format!("http://{}", upstream.address)}},
        "sites": [{"hosts": ["*"], "upstream": "site"}],
    });
    fleet.edge.apply(&config).await?;
    register(&fleet, &(0..names).map(names::host).collect::<Vec<_>>()).await?;
    let mut measured = Measured::default();

    let mut from_redis = Tier::new("from Redis");
    let caddy = caddy(&fleet, names, upstream.address).await;
    let edge = Client::new(fleet.edge_setup.https, Group::X25519, Protocol::Http1)?;
    for number in 0..names {
        from_redis.visit(LATCHKEY, &edge, number).await?;
        if let Ok((server, _)) = &caddy {
            let client = Client::new(server.addresses.plain, Group::X25519, Protocol::Http1)?;
            from_redis.visit(CADDY, &client, number).await.context("caddy")?;
        }
    }
    came_from(&fleet.edge, "redis", names).await?;
    measured.cases.extend(from_redis.cases());
    match caddy {
        Ok((server, _)) => measured.versions.push((CADDY.into(), server.version.clone())),
        Err(error) => measured.missing.push(Missing { peer: CADDY.into(), why: error.to_string() }),
    }

    // Another edge, without Redis: first from CertService, and after a restart from its own disk.
    let folder = fleet.folder.subfolder("second")?;
    let (https, http) = (port::free()?, port::free()?);
    let mut setup = edge::Setup::new(&folder, fleet.edge_setup.key.clone(), &fleet.certservice_setup, https, http)?;
    setup.redis_url = None;
    let client = Client::new(https, Group::X25519, Protocol::Http1)?;
    for (tier, label) in [("from CertService", "certservice"), ("from disk", "disk")] {
        let mut second = Edge::start(&setup).await?;
        second.apply(&config).await?;
        let mut visits = Tier::new(tier);
        for number in 0..names {
            visits.visit(LATCHKEY, &client, number).await?;
        }
        came_from(&second, label, names).await?;
        measured.cases.extend(visits.cases());
        second.process.stop().await?;
    }
    measured.notes.push(format!("{names} names, one after the other, each visited once; time, not processor time."));
    Ok(measured)
}

struct Tier {
    name: &'static str,
    /// Milliseconds of each visit.
    times: Vec<(&'static str, f64)>,
}

impl Tier {
    fn new(name: &'static str) -> Self {
        Self { name, times: Vec::new() }
    }

    async fn visit(&mut self, server: &'static str, client: &Client, number: usize) -> Result<()> {
        let host = names::host(number);
        let request = requests::request(&host, "/");
        let start = Instant::now();
        let answer = Http1::new(client.connect(&host).await?).ask(request.as_bytes()).await?;
        self.times.push((server, start.elapsed().as_secs_f64() * 1e3));
        if answer.status != 200 { fail(format!("{server}, {host}: {answer:?}")) } else { Ok(()) }
    }

    fn cases(&self) -> Vec<Case> {
        let of = |percent: f64| {
            let mut case = Case::new(format!("{}, p{percent}", self.name), "ms to the first byte");
            for server in [LATCHKEY, CADDY] {
                let times = self.times.iter().filter(|(who, _)| *who == server).map(|(_, time)| *time);
                let at = percentile(&times.collect::<Vec<_>>(), percent);
                at.into_iter().for_each(|at| case.add(server, at));
            }
            show(&case);
            case
        };
        vec![of(50.0), of(99.0)]
    }
}

/// Every certificate came from where it was to come from.
async fn came_from(edge: &Edge, tier: &str, names: usize) -> Result<()> {
    let metrics = edge.admin.get("/metrics").await?.text();
    let hit = |line: &&str| line.contains(&format!("\"{tier}\"")) && line.contains("\"hit\"");
    let lines: Vec<&str> = metrics.lines().filter(|line| line.contains("certificate_lookups_total")).collect();
    let hits: usize =
        lines.iter().filter(|line| hit(line)).filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok()).sum();
    if hits < names { fail(format!("{hits} of {names} names came from {tier}: {lines:#?}")) } else { Ok(()) }
}

/// On the same Redis, with certificates of the same kind and size for the same names.
async fn caddy(
    fleet: &Fleet,
    names: usize,
    upstream: std::net::SocketAddr,
) -> Result<(peers::Server, standin::Server)> {
    let redis = fleet.redis.as_ref().context("Redis")?;
    let authority = Authority::new("Benchmark CA")?;
    let mut connection = redis.connection().await?;
    for number in 0..names {
        for (key, value) in peers::caddy_stores(&authority, &names::host(number))? {
            let () = connection.set(key, value).await?;
        }
    }
    let permission = standin::permission(names).await?;
    let folder = fleet.folder.subfolder("caddy")?;
    let server = peers::caddy_on_demand(&folder, &redis.url, permission.address, upstream).await?;
    Ok((server, permission))
}
