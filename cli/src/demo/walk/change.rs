//! What changes while visitors are there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use support::certservice::CertService;
use support::visitor::Visitor;
use support::wait::{PATIENCE, until};
use support::{Context, Result, fail};
use tokio::task::JoinSet;

use super::super::fleet::Demo;
use super::super::talk::Talk;
use super::HSTS_SECONDS;
use crate::client::{ClientError, Order};

const VISITORS: usize = 4;
const CHANGES: u32 = 10;
/// Answers between two changes.
const REQUESTS_PER_CHANGE: usize = 40;
const REQUESTS_PER_CONNECTION: usize = 20;

#[derive(Default)]
struct Tally {
    answered: AtomicUsize,
    failed: AtomicUsize,
    stop: AtomicBool,
}

pub(super) async fn hot_load(demo: &Demo, talk: &mut Talk) -> Result<()> {
    talk.step(
        "The configuration changes under load, no request fails",
        &format!(
            "{VISITORS} visitors keep asking while the configuration is replaced {CHANGES} times. Nothing restarts; each request\n\
             sees the old configuration or the new one, whole."
        ),
    );
    let tally = Arc::new(Tally::default());
    let mut visitors = JoinSet::new();
    for _ in 0..VISITORS {
        visitors.spawn(keep_asking(demo.fleet.visitor().await?, tally.clone()));
    }
    let mut revision = 0;
    for change in 1..=CHANGES {
        revision = demo.configure(HSTS_SECONDS + change).await?;
        let wanted = tally.answered.load(Ordering::Relaxed) + REQUESTS_PER_CHANGE;
        let answers = until("answers after a change", PATIENCE, async || {
            let answered = tally.answered.load(Ordering::Relaxed);
            if answered >= wanted { Ok(()) } else { fail(format!("{answered} of {wanted}")) }
        });
        answers.await?;
    }
    tally.stop.store(true, Ordering::Relaxed);
    let mut first_error = None;
    while let Some(ended) = visitors.join_next().await {
        first_error = first_error.or(ended?);
    }
    let (answered, failed) = (tally.answered.load(Ordering::Relaxed), tally.failed.load(Ordering::Relaxed));
    talk.evidence(
        "requests",
        format!("{answered} answered, {failed} failed; {CHANGES} changes, now revision {revision}"),
    );
    if let Some(error) = first_error {
        talk.evidence("first failure", error);
    }
    talk.check(failed == 0, "0 failed")?;
    let answer = demo.fleet.visitor().await?.https("shop.localhost").await?.get("shop.localhost", "/").await?;
    let header = answer.header("strict-transport-security").unwrap_or("(none)");
    talk.evidence("header now", format!("strict-transport-security: {header}"));
    talk.check(header.contains(&(HSTS_SECONDS + CHANGES).to_string()), "the last configuration is in force")
}

/// Asks until told to stop, over connections that are kept for a while: its first failure.
async fn keep_asking(visitor: Visitor, tally: Arc<Tally>) -> Option<String> {
    let mut first_error = None;
    while !tally.stop.load(Ordering::Relaxed) {
        if let Err(error) = ask_over_one_connection(&visitor, &tally).await {
            tally.failed.fetch_add(1, Ordering::Relaxed);
            first_error.get_or_insert(error.to_string());
        }
    }
    first_error
}

async fn ask_over_one_connection(visitor: &Visitor, tally: &Tally) -> Result<()> {
    let mut connection = visitor.https("shop.localhost").await?;
    for _ in 0..REQUESTS_PER_CONNECTION {
        let answer = connection.get("shop.localhost", "/").await?;
        if answer.status != 200 || answer.header("strict-transport-security").is_none() {
            return fail(format!("status {}, {}", answer.status, answer.text()));
        }
        tally.answered.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

pub(super) async fn refuses_mistakes(demo: &Demo, talk: &mut Talk) -> Result<()> {
    talk.step(
        "A configuration with mistakes is refused, all of them at once",
        "The running configuration is not touched.",
    );
    let (running, etag) = demo.admin.config().await?;
    let mistaken = "{\n  \"upstreams\": {\"shop\": {\"url\": \"ftp://127.0.0.1\"}},\n  \"sites\": [\n    \
                    {\"hosts\": [\"shop_localhost\"], \"upstream\": \"shpo\"}\n  ]\n}\n";
    let refused = demo.admin.apply(mistaken.into(), Order::APPLY).await.err();
    let Some(ClientError::Refused { problem, .. }) = refused else {
        return fail(format!("a mistaken configuration was not refused: {refused:?}"));
    };
    for fault in &problem.errors {
        let place = [fault.line, fault.column].map(|n| n.map_or("?".into(), |n| n.to_string())).join(":");
        let hint = fault.hint.as_deref().map(|hint| format!(" ({hint})")).unwrap_or_default();
        talk.evidence(&format!("line {place}"), format!("{}: {}{hint}", fault.at, fault.says));
    }
    talk.check(problem.errors.len() == 3, "three mistakes, three errors, each with its place")?;
    let now = demo.admin.config().await?;
    talk.check(now == (running, etag), "the running configuration is the same")
}

pub(super) async fn survives_without_certservice(demo: &mut Demo, talk: &mut Talk) -> Result<()> {
    talk.step(
        "CertService dies, visitors notice nothing",
        "It is killed. Certificates that the proxy holds go on being served; then CertService is started again.",
    );
    demo.fleet.certservice.process.kill();
    let start = Instant::now();
    let mut statuses = Vec::new();
    for (name, _) in &demo.sites {
        let mut connection = demo.fleet.visitor().await?.https(name.as_str()).await.context("CertService is down")?;
        statuses.push(connection.get(name.as_str(), "/").await?.status);
    }
    let took = start.elapsed();
    talk.evidence("three new visits", format!("status {statuses:?} in {} ms", took.as_millis()));
    talk.check(
        statuses.iter().all(|status| *status == 200) && took < Duration::from_secs(5),
        "all served, without delay",
    )?;

    demo.fleet.certservice =
        CertService::start(&demo.fleet.certservice_setup).await.context("start CertService again")?;
    let domains = demo.domains.domains().await?;
    talk.check(domains.len() == demo.sites.len(), "CertService is back and has lost nothing")
}
