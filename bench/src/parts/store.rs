//! (h) Very many names in CertService's store: its start, its looks for what is due, its answers, its memory.

use std::path::Path;
use std::time::Instant;

use certservice::config::{Secret, StoreUrl};
use certservice::order::Stage;
use certservice::store::{End, Line, Store};
use support::certservice::{CertService, Issuer, Setup};
use support::folder::Folder;
use support::mariadb::MariaDb;
use support::wait::{PATIENCE, until};
use support::{Context, Result, edge, fail};

use self::fill::Database;
use super::{Effort, Measured};
use crate::cpu::Meter;
use crate::names;
use crate::peers::LATCHKEY;
use crate::report::{Case, show};
use crate::stats::percentile;

mod fill;

/// With these the store is small, and memory is compared with it.
const FEW: usize = 10_000;
const ISSUER: &str = "internal";
const PAGE: usize = 100;
/// What the documentation advises for so many names; MariaDB's default of 128 MiB makes a page of a list a matter of the disk.
const BUFFER_POOL_MIB: u32 = 2048;

pub(super) async fn run(effort: Effort) -> Result<Measured> {
    let names = if effort.quick { 50_000 } else { 1_000_000 };
    let mut measured = Measured::default();
    for store in ["MariaDB", "SQLite"] {
        let cases = on(store, names, effort).await.context(store)?;
        cases.iter().for_each(show);
        measured.cases.extend(cases);
    }
    measured.notes.push(format!(
        "{names} domains of 100 tenants with certificates, all in the feed, a bundle of real size for each tenth, an order that \
         waits for another try for each tenth besides; MariaDB with a buffer pool of {BUFFER_POOL_MIB} MiB, else its defaults. Answers are \
         those of the HTTP API on loopback, client included; looks are those of the store's code for what each second asks. \
         Times, not processor times."
    ));
    Ok(measured)
}

async fn on(store: &str, names: usize, effort: Effort) -> Result<Vec<Case>> {
    let folder = Folder::new()?;
    let mariadb = if store == "MariaDB" { Some(MariaDb::sized(folder.path(), BUFFER_POOL_MIB).await?) } else { None };
    let key = edge::generate_key(folder.path())?;
    let mut setup = Setup::new(folder.path(), &[edge::public_key(&key)], &[Issuer::Internal])?;
    setup.store_url = mariadb.as_ref().map(|mariadb| mariadb.url.clone());
    let (template, file) = (names::host(0), setup.data_folder().join("certservice.db"));
    let mut certservice = CertService::start(&setup).await?;
    let operator = certservice.as_operator();
    operator.put(&format!("/v1/domains/{template}"), "{}").await?.expect(201)?;
    let live = until(format!("{template} to be live"), PATIENCE, async || {
        let domain = operator.get(&format!("/v1/domains/{template}")).await?.json()?;
        if domain["state"] == "live" { Ok(()) } else { fail(domain.to_string()) }
    });
    live.await?;
    certservice.process.stop().await?;
    let mut database = Database::open(mariadb.as_ref().map(|mariadb| mariadb.url.as_str()), &file).await?;

    let samples = if effort.quick { 300 } else { 3000 };
    let mut few = Case::new(format!("{store}: memory with {FEW} names"), "MiB");
    let mut many = Case::new(format!("{store}: memory with {names} names"), "MiB");
    let mut grown = Case::new(says(store, "memory grown", names), "MiB");
    database.fill(1..FEW, &template).await?;
    let mut certservice = CertService::start(&setup).await?;
    answers(store, &certservice, FEW, samples).await?;
    let before = memory(&certservice)?;
    few.add(LATCHKEY, before);
    certservice.process.stop().await?;

    database.fill(FEW..names, &template).await?;
    let mut starts = Case::new(says(store, "start to ready", names), "s");
    for _ in 1..effort.rounds.min(3) {
        let start = Instant::now();
        let mut certservice = CertService::start(&setup).await?;
        starts.add(LATCHKEY, start.elapsed().as_secs_f64());
        certservice.process.stop().await?;
    }
    let start = Instant::now();
    let mut certservice = CertService::start(&setup).await?;
    starts.add(LATCHKEY, start.elapsed().as_secs_f64());
    let mut cases = vec![starts];
    cases.extend(answers(store, &certservice, names, samples).await?);
    let after = memory(&certservice)?;
    many.add(LATCHKEY, after);
    grown.add(LATCHKEY, (after - before).max(0.0));
    certservice.process.stop().await?;
    cases.extend(looks(store, mariadb.as_ref().map(|mariadb| mariadb.url.as_str()), &file, names, samples).await?);
    cases.extend([few, many, grown]);
    Ok(cases)
}

/// Targets are set for a million; a quick run says what it has.
fn says(store: &str, what: &str, names: usize) -> String {
    if names == 1_000_000 { format!("{store}: {what}") } else { format!("{store}: {what}, {names} names") }
}

fn memory(certservice: &CertService) -> Result<f64> {
    Ok(Meter::of(certservice.process.id()).memory()? as f64 / 1048576.0)
}

/// Names all over the store, the same in each run.
fn scattered(number: usize, names: usize) -> usize {
    number.wrapping_mul(2_654_435_761) % names
}

/// Single names, and pages of lists that begin anywhere.
async fn answers(store: &str, certservice: &CertService, names: usize, samples: usize) -> Result<Vec<Case>> {
    type Path = fn(usize) -> String;
    let questions: [(&str, Path); 5] = [
        ("one domain", |number| format!("/v1/domains/{}", names::host(number))),
        ("one bundle", |number| format!("/v1/bundles/{}", names::host(number / 10 * 10))),
        ("a page of all", |number| format!("/v1/domains?limit={PAGE}&after={}", names::host(number))),
        ("a page of a tenant", |number| {
            format!("/v1/domains?limit={PAGE}&tenant=tenant{}&after={}", number % 100, names::host(number / 2))
        }),
        ("a page of a state", |number| {
            format!("/v1/domains?limit={PAGE}&state=action_needed&after={}", names::host(number / 2))
        }),
    ];
    let mut cases = Vec::new();
    for (what, path) in questions {
        let mut times = Vec::new();
        let api = if what == "one bundle" { certservice.as_edge() } else { certservice.as_operator() };
        for sample in 0..samples {
            let path = path(scattered(sample, names));
            let start = Instant::now();
            let reply = api.get(&path).await?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
            reply.expect(200).context(path)?;
        }
        cases.extend(percentiles(says(store, what, names), &times)?);
    }
    Ok(cases)
}

/// What the runner, the search for renewals and that for windows ask again and again.
async fn looks(store: &str, url: Option<&str>, file: &Path, names: usize, samples: usize) -> Result<Vec<Case>> {
    let url = url.map_or_else(|| StoreUrl::Sqlite(file.to_owned()), |url| StoreUrl::Mysql(Secret::new(url)));
    let open = Store::open(&url.into()).await.context("the store")?;
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..samples {
        let now = names::now();
        let start = Instant::now();
        for stage in [Stage::UnderWay, Stage::Uncounted, Stage::InLine, Stage::ToCheck] {
            let line = Line { issuer: ISSUER, stage, leaving: false, end: End::First };
            let mut waiting = open.waiting(line, "bench", now, 8).await.context("who waits")?;
            waiting.truncate(8);
            open.claim(waiting, "bench", now, now).await.context("a claim")?;
        }
        times[0].push(start.elapsed().as_secs_f64() * 1e3);
        let start = Instant::now();
        open.urgent_renewals(now, 500).await.context("urgent renewals")?;
        open.renewals(ISSUER, now + fill::DUE_SECONDS, 100).await.context("renewals")?;
        times[1].push(start.elapsed().as_secs_f64() * 1e3);
        let start = Instant::now();
        open.windows_due(now, now, 32).await.context("windows")?;
        times[2].push(start.elapsed().as_secs_f64() * 1e3);
    }
    open.close().await;
    let mut cases = Vec::new();
    for (what, times) in ["orders that are due", "renewals that are due", "windows that are due"].iter().zip(&times) {
        cases.extend(percentiles(says(store, what, names), times)?);
    }
    Ok(cases)
}

/// The median of a busy machine says what the work takes, its p99 who else is at work.
fn percentiles(name: String, times: &[f64]) -> Result<[Case; 2]> {
    let mut median = Case::new(format!("{name}, p50"), "ms");
    median.add(LATCHKEY, percentile(times, 50.0).context("samples")?);
    let mut case = Case::new(name, "ms, p99");
    case.add(LATCHKEY, percentile(times, 99.0).context("samples")?);
    Ok([median, case])
}
