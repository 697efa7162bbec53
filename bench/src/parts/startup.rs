//! (e) A start with very many names: until the first answer, and until all names are known.

use std::time::{Duration, Instant};

use serde_json::json;
use sqlx::{Connection, SqliteConnection};
use support::certservice::CertService;
use support::edge::Edge;
use support::fleet::{Fleet, Plan};
use support::wait::until;
use support::{Context, Result, fail};

use super::{Effort, Measured, register};
use crate::cpu::Meter;
use crate::load::client::{Client, Group, Protocol};
use crate::load::requests::ask;
use crate::peers::LATCHKEY;
use crate::report::{Case, show};
use crate::{names, standin};

const PATIENCE: Duration = Duration::from_secs(300);
const KNOWN: &str = "latchkey_known_names";

const NAMES: &str = "INSERT INTO changes (`cursor`, domain, revision, gone) \
    WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < ?) \
    SELECT n + 10, printf('shop%07d.example', n), 1, 0 FROM number";
const HEAD: &str = "UPDATE changes_head SET `cursor` = (SELECT MAX(`cursor`) FROM changes)";

pub(super) async fn run(effort: Effort) -> Result<Measured> {
    let names = if effort.quick { 100_000 } else { 1_000_000 };
    let upstream = standin::upstream().await?;
    let mut fleet = Fleet::start(Plan::default()).await?;
    let config = json!({
        "upstreams": {"site": {"url": format!("http://{}", upstream.address)}},
        "sites": [{"hosts": ["*"], "upstream": "site"}],
    });
    fleet.edge.apply(&config).await?;
    let host = names::host(0);
    register(&fleet, std::slice::from_ref(&host)).await?;
    let client = Client::new(fleet.edge_setup.https, Group::X25519, Protocol::Http1)?;
    serves(&client, &host).await?;
    fleet.edge.process.stop().await?;
    fleet.certservice.process.stop().await?;

    fill(&fleet.certservice_setup.data_folder().join("certservice.db"), names).await?;
    let mut measured = Measured::default();
    let start = Instant::now();
    fleet.certservice = CertService::start(&fleet.certservice_setup).await?;
    let mut certservice = Case::new("CertService, start to ready", "s");
    certservice.add("certservice", start.elapsed().as_secs_f64());

    // An edge that has applied no change yet has none to catch up with: it only lists names.
    let _ = std::fs::remove_file(fleet.edge_setup.data_folder().join("cursor"));
    let mut edge = Edge::start(&fleet.edge_setup).await?;
    lists(&edge, names).await?;
    edge.process.stop().await?;

    let mut first = Case::new(says("start to first answer", names), "s");
    let mut listed = Case::new(says("start to all names listed", names), "s");
    let mut memory = Case::new("memory with all names listed", "MiB");
    for _ in 0..effort.rounds.min(3) {
        let start = Instant::now();
        let mut edge = Edge::start(&fleet.edge_setup).await?;
        serves(&client, &host).await?;
        first.add(LATCHKEY, start.elapsed().as_secs_f64());
        lists(&edge, names).await?;
        listed.add(LATCHKEY, start.elapsed().as_secs_f64());
        memory.add(LATCHKEY, Meter::of(edge.process.id()).memory()? as f64 / 1048576.0);
        edge.process.stop().await?;
    }
    measured.cases = vec![first, listed, memory, certservice];
    measured.cases.iter().for_each(show);
    measured.notes.push(format!(
        "{names} names in CertService's store (SQLite). The first answer is for a name that the edge has on its own disk; until \
         all names are listed, none is refused for not being listed."
    ));
    Ok(measured)
}

/// Targets are set for a million; a quick run says what it has.
fn says(what: &str, names: usize) -> String {
    if names == 1_000_000 { what.into() } else { format!("{what}, {names} names") }
}

async fn fill(file: &std::path::Path, names: usize) -> Result<()> {
    if !file.is_file() {
        return fail(format!("CertService's store is not {}", file.display()));
    }
    let url = format!("sqlite://{}", file.display());
    let mut connection = SqliteConnection::connect(&url).await.context("CertService's store")?;
    let count = i64::try_from(names)?;
    sqlx::query(NAMES).bind(count).execute(&mut connection).await.context("fill CertService's store")?;
    sqlx::query(HEAD).execute(&mut connection).await.context("fill CertService's store")?;
    Ok(connection.close().await?)
}

async fn serves(client: &Client, host: &str) -> Result<()> {
    let answered = until(format!("{host} to be served"), PATIENCE, async || {
        let answer = ask(client, Protocol::Http1, host, "/").await?;
        if answer.status == 200 { Ok(()) } else { fail(format!("{answer:?}")) }
    });
    answered.await
}

async fn lists(edge: &Edge, names: usize) -> Result<()> {
    let listed = until(format!("{names} names to be listed"), PATIENCE, async || {
        let known = edge.admin.metric(KNOWN, "").await?;
        if known >= names as f64 { Ok(()) } else { fail(format!("{known} are")) }
    });
    listed.await
}
