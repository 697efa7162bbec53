//! `latchkey issue --from FILE`: a list of domains, from the file to certificates. Begun again, it goes on with the same list.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use contract::api::{DomainList, State};
use serde_json::json;

use crate::Failure;
use crate::args::{CertServiceArgs, IssueArgs};
use crate::client::{CertService, ListOptions};
use crate::when::span;

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Where nobody looks on, a line this often.
const LINE_EVERY: Duration = Duration::from_secs(30);
/// Errors that are told one by one.
const ERRORS_SHOWN: usize = 20;

pub(super) async fn run(args: &CertServiceArgs, issue: IssueArgs, json: bool) -> Result<(), Failure> {
    let certservice = CertService::new(args)?;
    let text = read(&issue.from)?;
    let options = ListOptions {
        csv: issue
            .from
            .extension()
            .is_none_or(|extension| !matches!(extension.to_str(), Some("ndjson" | "jsonl" | "json"))),
        tenant: issue.tenant,
        issuer: issue.issuer,
        www: issue.www,
        order: issue.order,
    };
    let list = certservice.begin_list(text, &options).await?;
    if !json {
        eprintln!("import {}: {} lines", list.id, list.lines);
    }
    if issue.detach {
        show(&list, json);
        return Ok(());
    }
    let list = follow(&certservice, list, json).await?;
    show(&list, json);
    let live = count(&list, State::Live);
    let all = list.registered + list.known + list.refused;
    if list.refused == 0 && live + waiting(&list) == domains(&list) {
        return Ok(());
    }
    Err(Failure::Outcome(format!("{live} of {all} domains have a certificate")))
}

pub(super) async fn show_one(args: &CertServiceArgs, id: &str, json: bool) -> Result<(), Failure> {
    show(&CertService::new(args)?.list(id).await?, json);
    Ok(())
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |error| Failure::File { file: PathBuf::from(file), error };
    std::fs::read(file).map_err(failed)
}

/// Until nobody works on any of them any more.
async fn follow(certservice: &CertService, mut list: DomainList, json: bool) -> Result<DomainList, Failure> {
    let (begun, first) = (Instant::now(), count(&list, State::Live));
    let (on_screen, mut told) = (!json && std::io::stderr().is_terminal(), Instant::now());
    loop {
        let working = count(&list, State::Working);
        if list.over && working == waiting(&list) {
            break;
        }
        if on_screen || (!json && told.elapsed() >= LINE_EVERY) {
            let line = progress(&list, first, begun.elapsed(), budget(certservice).await);
            if on_screen {
                eprint!("\r\x1b[K{line}");
                let _ = std::io::stderr().flush();
            } else {
                eprintln!("{line}");
                told = Instant::now();
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
        list = certservice.list(&list.id).await?;
    }
    if on_screen {
        eprintln!();
    }
    Ok(list)
}

/// What the scarcest limit of the accounts leaves; only operators may ask.
async fn budget(certservice: &CertService) -> Option<u64> {
    let issuers = certservice.budgets(None).await.ok()?.issuers;
    issuers.iter().flat_map(|issuer| &issuer.limits).map(|budget| budget.left).min()
}

fn progress(list: &DomainList, first: u64, elapsed: Duration, budget: Option<u64>) -> String {
    let (live, all) = (count(list, State::Live), domains(list).max(list.lines));
    let per_minute = (live - first.min(live)) as f64 * 60.0 / elapsed.as_secs_f64().max(1.0);
    let filled = (live * 20).checked_div(all).unwrap_or(0) as usize;
    let mut line = format!("[{}{}] {live}/{all} issued", "#".repeat(filled), ".".repeat(20 - filled.min(20)));
    if list.done < list.lines {
        line += &format!(", {}/{} lines read", list.done, list.lines);
    }
    line += &format!(", {per_minute:.0} a minute");
    if per_minute > 0.0 {
        let seconds = count(list, State::Working) as f64 * 60.0 / per_minute;
        line += &format!(", {} left", span(seconds as u64));
    }
    budget.map_or(line.clone(), |left| format!("{line}, {left} orders of the CA's limit left"))
}

fn show(list: &DomainList, json: bool) {
    if json {
        println!("{}", json!(list));
        return;
    }
    let DomainList { lines, registered, known, refused, .. } = list;
    println!("import {}: {lines} lines; {registered} new, {known} known, {refused} refused", list.id);
    for group in &list.domains {
        let state = format!("{} ({})", super::domain::state(group.state), group.code);
        println!("  {:>8}  {state}", group.count);
    }
    let mut by_code: BTreeMap<&str, u64> = BTreeMap::new();
    list.errors.iter().for_each(|error| *by_code.entry(&error.code).or_default() += 1);
    by_code.iter().for_each(|(code, count)| println!("  {count:>8}  refused ({code})"));
    for error in list.errors.iter().take(ERRORS_SHOWN) {
        println!("  line {}: {}", error.line, error.says);
    }
    if *refused > ERRORS_SHOWN as u64 {
        println!("  … see GET /v1/imports/{}?errors_after=LINE for all", list.id);
    }
}

fn count(list: &DomainList, state: State) -> u64 {
    list.domains.iter().filter(|group| group.state == state).map(|group| group.count).sum()
}

/// Those that wait for their first visitor.
fn waiting(list: &DomainList) -> u64 {
    let waiting = |code: &str| super::domain::waits_for_visit(code);
    list.domains.iter().filter(|group| group.state == State::Working && waiting(&group.code)).map(|g| g.count).sum()
}

fn domains(list: &DomainList) -> u64 {
    list.domains.iter().map(|group| group.count).sum()
}
