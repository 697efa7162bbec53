//! (b) Handshakes with names that are at hand, and (d) the memory that each of them takes.

use std::collections::HashMap;

use redis::AsyncCommands;
use support::folder::Folder;
use support::redis::Redis;
use support::{Context, Result};

use super::{Cost, Effort, Measured, cost, note};
use crate::cores;
use crate::load::client::{Client, Group, Protocol};
use crate::load::handshakes::{Load, Order, visit_all};
use crate::names::{self, Issuer, Name};
use crate::peers::{self, LATCHKEY, LatchkeySetup, Missing, Server, Site};
use crate::report::{Case, show};
use crate::standin;

/// What a warm name may cost at most while memory for certificates is not what is measured.
const MIB_FOR_CERTIFICATES: u64 = 8192;
/// Tokens sent to Redis at once.
const REDIS_BATCH: usize = 1000;

/// Whether handshakes, memory, or both are measured: both need the same servers with all their names visited.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) handshakes: bool,
    pub(super) memory: bool,
}

/// Who has at hand what was visited before; HAProxy has everything from its start, nginx with files nothing ever.
const KEEP_VISITED: [&str; 2] = [LATCHKEY, peers::NGINX_LUA];

struct Bed {
    names: usize,
    servers: Vec<Server>,
    missing: Vec<Missing>,
    /// Anonymous memory of each before any name was visited, in bytes.
    before: Vec<u64>,
    notes: Vec<String>,
    // Dropped after the servers.
    _standins: Vec<standin::Server>,
    _redis: Redis,
    _folder: Folder,
}

/// Results of (b) and of (d).
pub(super) async fn run(effort: Effort, wanted: Wanted) -> Result<(Measured, Measured)> {
    let sizes: &[usize] = if effort.quick { &[1, 1000, 5000] } else { &[1, 1000, 10_000, 100_000] };
    let most = sizes.iter().copied().max().unwrap_or(1);
    let bed = lay(most).await?;
    let mut handshakes = Measured::of(&bed.servers, bed.missing.clone());
    handshakes.notes.clone_from(&bed.notes);
    let mut memory = Measured::of(&bed.servers, Vec::new());
    let mut visited = 0;
    for &size in sizes {
        visit(&bed, visited..size).await?;
        visited = size;
        if wanted.memory && size > 1 {
            memory.cases.push(memory_a_name(&bed, size)?);
        }
        // Memory grows at a thousand names too, handshakes would not show anything new.
        if wanted.handshakes && size != 1000 {
            measure(effort, &bed, size, &mut handshakes).await?;
        }
    }
    memory
        .notes
        .push("Growth of anonymous memory (RssAnon) since before the first name, over the number of names.".into());
    let others = "nginx with files keeps no certificate: it reads and parses a file in each handshake. HAProxy parses all of \
                  them when it starts: all of its memory is counted.";
    memory.notes.push(others.into());
    Ok((handshakes, memory))
}

async fn lay(most: usize) -> Result<Bed> {
    let folder = Folder::new()?;
    let (upstream, certservice) = (standin::upstream().await?, standin::certservice(most, HashMap::new()).await?);
    let redis = Redis::start(folder.path()).await?;
    let issuer = Issuer::new(folder.path())?;
    let pems = folder.subfolder("pem")?;
    issue_all(&issuer, &pems, &redis, most).await?;
    let first = issuer.issue(&names::host(0))?;
    let site = site(&folder, &issuer, &first, upstream.address)?;

    cores::as_servers()?;
    let setup = LatchkeySetup {
        folder: folder.path(),
        certservice: certservice.address,
        redis_url: Some(redis.url.clone()),
        upstream: upstream.address,
        redirects: &[],
        warm_mib_max: MIB_FOR_CERTIFICATES,
    };
    let edge = setup.start_for_all().await.context("the edge")?;
    edge.until_listed(most).await?;
    let (mut servers, missing, mut notes) = peers::terminators(&site, &pems, most).await;
    cores::as_load()?;
    servers.insert(0, edge.server);
    notes.extend(peers::openssl_speed());
    let before = servers.iter().map(|server| server.meter().memory()).collect::<Result<_>>()?;
    let standins = vec![upstream, certservice];
    Ok(Bed { names: most, servers, missing, before, notes, _standins: standins, _redis: redis, _folder: folder })
}

fn site<'a>(folder: &'a Folder, issuer: &Issuer, name: &Name, upstream: std::net::SocketAddr) -> Result<Site<'a>> {
    let [chain, key, both] = ["chain.pem", "key.pem", "both.pem"].map(|file| folder.path().join(file));
    let (chain_pem, key_pem) = (issuer.chain_pem(name)?, name.key.private_key_to_pem_pkcs8()?);
    support::folder::write(&chain, &chain_pem)?;
    support::folder::write(&key, &key_pem)?;
    support::folder::write(&both, [chain_pem, key_pem].concat())?;
    Ok(Site { folder: folder.path(), host: "shop0000000.example", upstream, chain, key, both, redirects: &[] })
}

/// Certificates for all: files for the peers, bundles in Redis for the edge. On all cores: it takes a while.
async fn issue_all(issuer: &Issuer, pems: &std::path::Path, redis: &Redis, most: usize) -> Result<()> {
    let mut connection = redis.connection().await?;
    let threads = cores::count();
    for start in (0..most).step_by(REDIS_BATCH) {
        let end = most.min(start + REDIS_BATCH);
        let share = |offset: usize| {
            let numbers = (start + offset..end).step_by(threads);
            let one = |number| {
                let name = issuer.issue(&names::host(number))?;
                names::write_pem(pems, issuer, &name)?;
                let key = format!("latchkey:bundle:{}", name.host);
                Ok((key, issuer.token(&name)?))
            };
            numbers.map(one).collect::<Result<Vec<_>>>()
        };
        let batch = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|offset| scope.spawn(move || share(offset))).collect();
            let joined = workers.into_iter().map(|worker| worker.join().ok().context("a worker panicked")?);
            joined.collect::<Result<Vec<_>>>()
        })?;
        let batch: Vec<(String, String)> = batch.into_iter().flatten().collect();
        let () = connection.mset(&batch).await?;
    }
    Ok(())
}

/// Of those that keep what was visited.
async fn visit(bed: &Bed, numbers: std::ops::Range<usize>) -> Result<()> {
    for server in bed.servers.iter().filter(|server| KEEP_VISITED.contains(&server.name)) {
        let client = Client::new(server.addresses.plain, Group::X25519, Protocol::Http1)?;
        visit_all(&client, numbers.clone()).await.context(server.name)?;
    }
    Ok(())
}

fn memory_a_name(bed: &Bed, size: usize) -> Result<Case> {
    let mut case = Case::new(format!("{size} names"), "bytes per hot name");
    for (server, before) in bed.servers.iter().zip(&bed.before) {
        let memory = server.meter().memory()?;
        if KEEP_VISITED.contains(&server.name) {
            case.add(server.name, memory.saturating_sub(*before) as f64 / size as f64);
        } else if server.name == peers::HAPROXY && size == bed.names {
            case.add(server.name, memory as f64 / size as f64);
        }
    }
    show(&case);
    Ok(case)
}

async fn measure(effort: Effort, bed: &Bed, size: usize, into: &mut Measured) -> Result<()> {
    let all: Vec<&Server> = bed.servers.iter().filter(|server| size == 1 || server.name != peers::BARE).collect();
    let full = |group| {
        move |server: &Server| {
            let client = Client::new(server.addresses.plain, group, Protocol::Http1)?;
            Ok(Load::start(&client, &Order::of(size)))
        }
    };
    rounds(effort, &format!("full, {size} names, X25519"), &all, into, full(Group::X25519)).await?;
    if size > 1 {
        return Ok(());
    }
    let mut hybrid = Vec::new();
    for server in &bed.servers {
        let client = Client::new(server.addresses.plain, Group::X25519MlKem768, Protocol::Http1)?;
        match client.connect(&names::host(0)).await {
            Ok(_) => hybrid.push(server),
            Err(_) => into.missing.push(Missing {
                peer: format!("{}, X25519MLKEM768", server.name),
                why: "it does not take this key exchange (OpenSSL before 3.5)".into(),
            }),
        }
    }
    rounds(effort, "full, 1 names, X25519MLKEM768", &hybrid, into, full(Group::X25519MlKem768)).await?;
    let resume = |server: &Server| Load::start_resumed(server.addresses.plain, &names::host(0));
    rounds(effort, "resumed, 1 name, X25519", &all, into, resume).await
}

/// A peer that fails is missing from then on; the edge must not fail.
async fn rounds(
    effort: Effort,
    name: &str,
    servers: &[&Server],
    into: &mut Measured,
    start: impl Fn(&Server) -> Result<Load>,
) -> Result<()> {
    let mut case = Case::new(name, "µs CPU per handshake");
    let mut busy = Case::new(format!("{name}: how busy"), "% of a core");
    let mut resumed = Case::new(format!("{name}: resumed"), "% of handshakes");
    let mut servers = servers.to_vec();
    for _ in 0..effort.rounds {
        for server in std::mem::take(&mut servers) {
            match round(effort, server, &start).await {
                Ok((cost, share)) => {
                    note(&mut case, &mut busy, server.name, &cost);
                    resumed.add(server.name, share);
                    servers.push(server);
                }
                Err(error) if server.name == LATCHKEY => return Err(error).context(format!("{name}, the edge")),
                Err(error) => {
                    [&mut case, &mut busy, &mut resumed].into_iter().for_each(|case| case.remove(server.name));
                    into.missing.push(Missing { peer: format!("{}, {name}", server.name), why: error.to_string() });
                }
            }
        }
    }
    show(&case);
    into.cases.extend([case, busy]);
    if name.starts_with("resumed") {
        into.cases.push(resumed);
    }
    Ok(())
}

/// What it cost, and how many per cent were resumed.
async fn round(effort: Effort, server: &Server, start: &impl Fn(&Server) -> Result<Load>) -> Result<(Cost, f64)> {
    let mut load = start(server)?;
    let cost = cost(effort, server.meter(), || load.done()).await?;
    let share = load.resumed() as f64 / load.done()?.max(1) as f64 * 100.0;
    Ok((cost, share))
}
