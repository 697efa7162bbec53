//! (g) Orders at a CA that answers at once: what CertService itself takes for one, on each of its stores.

use std::time::{Duration, Instant};

use contract::api::{DomainList, State};
use reqwest::Method;
use support::certservice::{CertService, Issuer, Setup};
use support::folder::Folder;
use support::mariadb::MariaDb;
use support::{Context, Result, edge, fail};

use super::{Effort, Measured};
use crate::ca::Ca;
use crate::cpu::Meter;
use crate::names;
use crate::peers::LATCHKEY;
use crate::report::{Case, show};

/// How often it is asked how far the orders are: asking costs, too.
const LOOK: Duration = Duration::from_millis(250);
/// Of all orders of a round.
const PATIENCE: Duration = Duration::from_secs(300);

pub(super) async fn run(effort: Effort) -> Result<Measured> {
    let (rounds, orders) = if effort.quick { (2, 100) } else { (5, 500) };
    let mut measured = Measured::default();
    for store in ["SQLite", "MariaDB"] {
        let (cost, pace) = on(store, rounds, orders).await.context(store)?;
        show(&cost);
        show(&pace);
        measured.cases.extend([cost, pace]);
    }
    measured.notes.push(format!(
        "{orders} names a round, from the list that brings them to the last certificate, 8 orders at once. Each order takes \
         all of ACME: account, nonce, order, authorization, http-01 challenge, CSR, certificate; each certificate is \
         checked, its key sealed to one edge, and both stored. Left out is the look at the domain before (`precheck = false`)."
    ));
    Ok(measured)
}

async fn on(store: &str, rounds: usize, orders: usize) -> Result<(Case, Case)> {
    let folder = Folder::new()?;
    let ca = Ca::start(folder.path()).await?;
    let mariadb = if store == "MariaDB" { Some(MariaDb::start(folder.path()).await?) } else { None };
    let key = edge::generate_key(folder.path())?;
    let issuer = format!(
        "[[issuers]]\nname = \"ca\"\nkind = \"acme\"\ndirectory = {:?}\nroot_file = {:?}\nprecheck = false\n",
        ca.directory, ca.root
    );
    let mut setup = Setup::new(folder.path(), &[edge::public_key(&key)], &[Issuer::Written(issuer)])?;
    setup.store_url = mariadb.as_ref().map(|mariadb| mariadb.url.clone());
    let certservice = CertService::start(&setup).await?;
    let mut cost = Case::new(format!("an order, on {store}"), "ms CPU of CertService");
    let mut pace = Case::new(format!("an order, on {store}: by the clock"), "ms");
    // The first round opens the account, and is not counted.
    for round in 0..=rounds {
        let meter = Meter::of(certservice.process.id()).open()?;
        let start = Instant::now();
        issue(&certservice, round * orders..(round + 1) * orders).await?;
        let (spent, elapsed) = (meter.close()?, start.elapsed());
        if round > 0 {
            cost.add(LATCHKEY, spent.as_secs_f64() * 1e3 / orders as f64);
            pace.add(LATCHKEY, elapsed.as_secs_f64() * 1e3 / orders as f64);
        }
    }
    Ok((cost, pace))
}

/// Brings a list of names, and waits until each has its certificate.
async fn issue(certservice: &CertService, numbers: std::ops::Range<usize>) -> Result<()> {
    let wanted = numbers.len() as u64;
    let body: String = numbers.map(|number| names::host(number) + "\n").collect();
    let operator = certservice.as_operator();
    let reply = operator.send(Method::POST, "/v1/imports", &[("content-type", "text/csv")], body).await?;
    reply.expect(202)?;
    let list: DomainList = serde_json::from_slice(&reply.body)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let reply = operator.get(&format!("/v1/imports/{}", list.id)).await?;
        let list: DomainList = serde_json::from_slice(&reply.body)?;
        let live = list.domains.iter().filter(|group| group.state == State::Live);
        if live.map(|group| group.count).sum::<u64>() == wanted {
            return Ok(());
        }
        if Instant::now() > deadline {
            return fail(format!("{wanted} orders did not end within {} s: {list:?}", PATIENCE.as_secs()));
        }
        tokio::time::sleep(LOOK).await;
    }
}
