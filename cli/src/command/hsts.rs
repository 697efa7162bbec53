use std::collections::BTreeMap;

use contract::Hostname;
use contract::admin::{HOSTS_MAX, MOMENTS_MAX, Preview, PreviewHost, PreviewedHost};
use serde_json::json;

use super::text;
use crate::Failure;
use crate::args::{AdminArgs, CertServiceArgs, HstsAction, HstsArgs};
use crate::client::{Admin, CertService};
use crate::hsts::{Break, NAMED_MAX, Status, Step, broken_now, plan, stages_to_come, status};
use crate::when::{date, now, span};

/// Hosts times moments: a question is answered within seconds, also by an edge that is busy.
const ASKED_AT_ONCE: usize = 10_000;

/// A host, with what CertService knows of its certificate.
struct Name {
    asked: PreviewHost,
    /// It is registered, and has none.
    lacks: bool,
}

pub(super) async fn run(
    admin: &AdminArgs,
    certservice: &CertServiceArgs,
    action: HstsAction,
    json: bool,
) -> Result<(), Failure> {
    let admin = Admin::new(admin)?;
    let (HstsAction::Status(args) | HstsAction::Plan(args)) = &action;
    let names = names(certservice, args).await?;
    let lacking: Vec<Hostname> = names.iter().filter(|name| name.lacks).map(|name| name.asked.host.clone()).collect();
    let now = now();
    match &action {
        HstsAction::Status(_) => {
            let hosts = preview(&admin, &args.plugin, names, &[now]).await?;
            let (status, broken) = (status(&hosts), broken_now(&hosts, &lacking));
            if json {
                println!("{}", json!({"status": status, "broken": broken}));
            } else {
                tell_status(&args.plugin, &status);
                tell_breaks("cut off already", &broken);
            }
        }
        HstsAction::Plan(_) => {
            let (text, _) = admin.config().await?;
            let config = serde_json::from_str(&text).unwrap_or_default();
            let mut moments = stages_to_come(&config, &args.plugin, now);
            moments.truncate(MOMENTS_MAX - 1);
            moments.insert(0, now);
            let hosts = preview(&admin, &args.plugin, names, &moments).await?;
            let steps = plan(&hosts, &moments, &lacking);
            if json {
                println!("{}", json!({ "steps": steps }));
            } else {
                tell_steps(&args.plugin, &steps, now);
            }
        }
    }
    Ok(())
}

async fn names(certservice: &CertServiceArgs, args: &HstsArgs) -> Result<Vec<Name>, Failure> {
    let Some(file) = &args.hosts else {
        let domains = CertService::new(certservice)?.domains().await?;
        // A wildcard is a certificate's name, not a host's.
        let hosts = domains.into_iter().filter(|domain| !domain.name.as_str().starts_with("*."));
        return Ok(hosts
            .map(|domain| Name {
                lacks: domain.certificate.is_none(),
                asked: PreviewHost {
                    host: domain.name,
                    not_before: domain.certificate.as_ref().map(|certificate| certificate.not_before),
                    not_after: domain.certificate.as_ref().map(|certificate| certificate.not_after),
                },
            })
            .collect());
    };
    let text = text(file)?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| match Hostname::parse(line.trim()) {
            Ok(host) => Ok(Name { asked: PreviewHost { host, not_before: None, not_after: None }, lacks: false }),
            Err(error) => Err(Failure::Outcome(format!("{}:{}: {error}", file.display(), index + 1))),
        })
        .collect()
}

async fn preview(
    admin: &Admin,
    plugin: &str,
    names: Vec<Name>,
    moments: &[u64],
) -> Result<Vec<PreviewedHost>, Failure> {
    let mut previewed = Vec::with_capacity(names.len());
    let at_once = (ASKED_AT_ONCE / moments.len().max(1)).clamp(1, HOSTS_MAX);
    for names in names.chunks(at_once) {
        let hosts = names.iter().map(|name| name.asked.clone()).collect();
        previewed.extend(admin.preview(plugin, &Preview { hosts, at: moments.to_vec() }).await?.hosts);
    }
    Ok(previewed)
}

fn tell_status(plugin: &str, status: &Status) {
    let without = match status.without_plugin {
        0 => String::new(),
        count => format!("; {count} hosts are not of a site with it"),
    };
    println!("{plugin}: {} sites{without}", status.sites);
    for group in &status.promises {
        println!("{:>9}  {:<50} {}", group.sites, group.promise, list(&group.examples, group.sites));
    }
    if status.without_certificate > 0 {
        println!("{:>9}  of them have no certificate, and so no promise", status.without_certificate);
    }
    if !status.unwell.is_empty() {
        println!("no stage begins for: {}", reasons(&status.unwell));
    }
    if !status.held.is_empty() {
        println!("held back by it already: {}", status.held.len());
    }
    for held in status.held.iter().take(NAMED_MAX) {
        println!("  {}: {} instead of {}: {}", held.host, held.promise, held.otherwise, why(&held.why));
        println!("      since {}, the certificate ends {}", date(held.since), date(held.ends));
    }
    for (host, fault) in status.faults.iter().take(NAMED_MAX) {
        println!("  {host}: the plugin gave no answer: {fault}");
    }
}

/// Of a site.
fn why(reason: &str) -> &str {
    match reason {
        "renewal_failing" => "the renewal of its certificate fails",
        "ending" => "its certificate ends soon and was not replaced",
        "handshake_errors" => "clients turn its certificate down",
        "none" => "it has no certificate",
        other => other,
    }
}

fn reasons(counts: &BTreeMap<String, usize>) -> String {
    let each = counts.iter().map(|(reason, count)| format!("{count} × {}", why(reason)));
    each.collect::<Vec<_>>().join(", ")
}

fn tell_steps(plugin: &str, steps: &[Step], now: u64) {
    if steps.is_empty() {
        println!("{plugin}: no stage is to come");
    }
    for step in steps {
        println!("{} (in {}):", date(step.at), span(step.at.saturating_sub(now)));
        if step.changes.is_empty() {
            println!("        0  sites change");
        }
        for change in &step.changes {
            println!("{:>9}  {} → {}  {}", change.sites, change.from, change.to, list(&change.examples, change.sites));
        }
        if step.held > 0 {
            println!("{:>9}  stay behind (latchkey hsts status): {}", step.held, reasons(&step.held_why));
        }
        tell_breaks("would be cut off", &step.breaks);
        if step.changes.iter().any(|change| change.to.contains("includeSubDomains")) {
            println!(
                "           names below these hosts that are not registered here can't be seen from here: look at their DNS zones"
            );
        }
        if step.changes.iter().any(|change| change.to.contains("preload")) {
            println!("           preload: browsers take months to forget it");
        }
    }
}

fn tell_breaks(what: &str, broken: &[Break]) {
    if broken.is_empty() {
        return;
    }
    let names: usize = broken.iter().map(|broken| broken.count).sum();
    println!("{names:>9}  names {what} by includeSubDomains, since they have no certificate:");
    for broken in broken.iter().take(NAMED_MAX) {
        println!("             below {}: {}", broken.host, list(&broken.names, broken.count));
    }
}

fn list(examples: &[Hostname], all: usize) -> String {
    let names: Vec<_> = examples.iter().map(Hostname::as_str).collect();
    let more = if all > names.len() { ", …" } else { "" };
    format!("{}{more}", names.join(", "))
}
