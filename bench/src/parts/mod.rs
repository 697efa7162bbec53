//! The parts of the benchmark, by their letters.

mod cold;
mod flood;
mod hot;
mod orders;
mod plugins;
mod requests;
mod startup;
mod store;

use std::time::Duration;

use support::fleet::Fleet;
use support::wait::{PATIENCE, until};
use support::{Context, Result, fail};

use self::hot::Wanted;
use crate::cpu::Meter;
use crate::peers::{Missing, Server};
use crate::report::Case;

/// What a part found out.
#[derive(Default)]
pub struct Measured {
    pub cases: Vec<Case>,
    pub missing: Vec<Missing>,
    pub versions: Vec<(String, String)>,
    pub notes: Vec<String>,
}

impl Measured {
    pub fn of(servers: &[Server], missing: Vec<Missing>) -> Self {
        let versions = servers.iter().map(|server| (server.name.to_owned(), server.version.clone())).collect();
        Self { missing, versions, ..Self::default() }
    }
}

pub fn title(letter: char) -> &'static str {
    match letter {
        'a' => "Keep-alive requests through TLS",
        'b' => "Handshakes with hot names",
        'c' => "Cold names, to the first byte",
        'd' => "Memory of hot names",
        'e' => "Start-up with very many names",
        'f' => "Hot names in a flood of unknown ones",
        'g' => "Orders of certificates",
        'h' => "Very many names in CertService's store",
        'i' => "Plugins: calls, a million redirects, and guests that misbehave",
        _ => "",
    }
}

/// One part; (b) and (d) come together where both are wanted, as they need the same preparation.
pub async fn run(letter: char, wanted: &[char], effort: Effort) -> Result<Vec<(char, Measured)>> {
    let one = |measured| vec![(letter, measured)];
    match letter {
        'a' => requests::run(effort).await.map(one),
        'b' => {
            let memory = wanted.contains(&'d');
            let (handshakes, names) = hot::run(effort, Wanted { handshakes: true, memory }).await?;
            Ok(std::iter::once(('b', handshakes)).chain(memory.then_some(('d', names))).collect())
        }
        'c' => cold::run(effort).await.map(one),
        'd' if wanted.contains(&'b') => Ok(Vec::new()),
        'd' => hot::run(effort, Wanted { handshakes: false, memory: true }).await.map(|(_, names)| one(names)),
        'e' => startup::run(effort).await.map(one),
        'f' => flood::run(effort).await.map(one),
        'g' => orders::run(effort).await.map(one),
        'h' => store::run(effort).await.map(one),
        'i' => plugins::run(effort).await.map(one),
        _ => fail(format!("there is no part `{letter}`")),
    }
}

/// Has CertService issue certificates for these names.
async fn register(fleet: &Fleet, hosts: &[String]) -> Result<()> {
    let operator = fleet.certservice.as_operator();
    for host in hosts {
        operator.put(&format!("/v1/domains/{host}"), "{}").await?.expect(201).context(host)?;
    }
    for host in hosts {
        let live = until(format!("{host} to be live"), PATIENCE, async || {
            let domain = operator.get(&format!("/v1/domains/{host}")).await?.json()?;
            if domain["state"] == "live" { Ok(()) } else { fail(domain.to_string()) }
        });
        live.await?;
    }
    Ok(())
}

/// How long and how often.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    pub quick: bool,
    pub rounds: usize,
    /// Each round of each server.
    pub window: Duration,
    /// Before it.
    pub warm_up: Duration,
}

impl Effort {
    pub fn new(quick: bool) -> Self {
        let (rounds, window, warm_up) = if quick { (3, 800, 250) } else { (7, 1500, 300) };
        let (window, warm_up) = (Duration::from_millis(window), Duration::from_millis(warm_up));
        Self { quick, rounds, window, warm_up }
    }
}

/// Microseconds of processor time of one unit of work, and the share of one core that the server was busy.
pub struct Cost {
    pub microseconds: f64,
    pub busy: f64,
}

/// Measures while load is under way; `done` counts units of work.
pub async fn cost(effort: Effort, meter: Meter, mut done: impl FnMut() -> Result<u64>) -> Result<Cost> {
    tokio::time::sleep(effort.warm_up).await;
    let (start, before, window) = (std::time::Instant::now(), done()?, meter.open()?);
    tokio::time::sleep(effort.window).await;
    let (spent, units, elapsed) = (window.close()?, done()? - before, start.elapsed());
    if units == 0 {
        return fail("no unit of work was done");
    }
    let (spent, elapsed) = (spent.as_secs_f64(), elapsed.as_secs_f64());
    Ok(Cost { microseconds: spent * 1e6 / units as f64, busy: spent / elapsed })
}

/// Adds a sample, and how busy the server was.
pub fn note(case: &mut Case, busy: &mut Case, peer: &str, cost: &Cost) {
    case.add(peer, cost.microseconds);
    busy.add(peer, cost.busy * 100.0);
}
