//! (i) Plugins: a redirect among a million, loading those while others ask, and a guest that misbehaves beside them.

use std::collections::HashMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::certservice::hex;
use support::folder::{self, Folder};
use support::{Context, Result, fail, program};

use super::{Effort, Measured, cost, note};
use crate::cores;
use crate::load::client::{Client, Group, Protocol};
use crate::load::requests::{Http1, Load, ask, request};
use crate::names::Issuer;
use crate::peers::{self, LATCHKEY, Latchkey, LatchkeySetup, Server, Site};
use crate::report::{Case, show};
use crate::standin;
use crate::stats::percentile;

const HOST: &str = "shop.example";
const HOSTILE: &str = "hostile.example";
const RULES: usize = 1_000_000;
const RULES_QUICK: usize = 50_000;
/// Visits of the site whose p99 is told.
const VISITS: usize = 1500;
/// Calls of each misdeed, and between two of them.
const MISDEEDS: usize = 10_000;
const PAUSE: Duration = Duration::from_millis(1);

pub(super) async fn run(effort: Effort) -> Result<Measured> {
    let folder = Folder::new()?;
    let rules = if effort.quick { RULES_QUICK } else { RULES };
    let upstream = standin::upstream().await?;
    cores::as_servers()?;
    let issuer = Issuer::new(folder.path())?;
    let names = [issuer.issue(HOST)?, issuer.issue(HOSTILE)?];
    let bundles = names.iter().map(|name| Ok((name.host.clone(), issuer.token(name)?)));
    let certservice = standin::certservice(0, bundles.collect::<Result<HashMap<_, _>>>()?).await?;
    let [chain, key] = ["chain.pem", "key.pem"].map(|file| folder.path().join(file));
    folder::write(&chain, issuer.chain_pem(&names[0])?)?;
    folder::write(&key, names[0].key.private_key_to_pem_pkcs8()?)?;
    let both = chain.clone();
    let site = Site { folder: folder.path(), host: HOST, upstream: upstream.address, chain, key, both, redirects: &[] };
    let setup = LatchkeySetup {
        folder: folder.path(),
        certservice: certservice.address,
        redis_url: None,
        upstream: upstream.address,
        redirects: &[],
        warm_mib_max: 64,
    };
    let edge = setup.start_for_all().await.context("the edge")?;
    cores::as_load()?;
    let mut cases = Vec::new();
    load(&edge, upstream.address, rules, &mut cases).await.context("loading the table")?;
    cores::as_servers()?;
    let (mut servers, missing) = peers::redirectors(&site, &map(rules)).await;
    cores::as_load()?;
    let Latchkey { server, admin } = edge;
    servers.insert(0, server);
    let mut measured = Measured::of(&servers, missing);
    for (name, targets, status) in [
        ("a redirect among all", (0..4000).map(|n| from(n * (rules / 4000))).collect::<Vec<_>>(), 308),
        ("no redirect for the path", (0..4000).map(|n| format!("/products/{n}")).collect(), 200),
    ] {
        among(effort, name, &servers, &Arc::new(targets), status, &mut measured).await?;
    }
    let hostile = digest(&admin, "hostile").await?;
    misbehaves(effort, &admin, &servers[0], upstream.address, &hostile, &mut cases).await?;
    let hooks = hooks()?;
    hooks.iter().for_each(show);
    cases.extend(hooks);
    measured.cases.extend(cases);
    measured.notes.push(format!(
        "{rules} exact redirects: for the edge a table of the plugin `redirects`, for nginx a `map`, for nginx with Lua a table of the worker. \
         Misdeeds: {} calls of each, one after the other with 1 ms in between.",
        if effort.quick { MISDEEDS / 20 } else { MISDEEDS }
    ));
    Ok(measured)
}

fn from(n: usize) -> String {
    format!("/old/section-{}/page-{n}", n % 1000)
}

fn table(rules: usize) -> String {
    let mut text = "from,to,status\n".to_owned();
    for n in 0..rules {
        let _ = writeln!(text, "{},/new/{n},308", from(n));
    }
    text
}

/// As nginx's `map` has it.
fn map(rules: usize) -> String {
    let mut text = String::new();
    for n in 0..rules {
        let _ = writeln!(text, "{} /new/{n};", from(n));
    }
    text
}

/// Puts the table in force while a visitor asks again and again.
async fn load(edge: &Latchkey, upstream: std::net::SocketAddr, rules: usize, cases: &mut Vec<Case>) -> Result<()> {
    let plugin = digest(&edge.admin, "redirects").await?;
    let text = table(rules);
    let table = format!("sha256:{}", hex(&contract::bundle::sha256(text.as_bytes())));
    let put = edge.admin.put(&format!("/v1/tables/{table}"), text).await?;
    put.expect(201).context("upload the table")?;
    let document = json!({
        "plugins": {"redirects": {"digest": plugin}}, "tables": {"moved": {"digest": table}},
        "upstreams": {"site": {"url": format!("http://{upstream}")}},
        "sites": [{"hosts": ["*"], "upstream": "site", "plugins": [
            {"plugin": "redirects", "config": {"table": "moved"}, "tables": ["moved"]}]}],
    });
    let client = Client::new(edge.server.addresses.plain, Group::X25519, Protocol::Http1)?;
    let alone = visits(&client, || false).await?;
    let before = edge.server.meter().memory()?;
    let began = Instant::now();
    let window = edge.server.meter().open()?;
    let applying = edge.admin.put("/v1/config", document.to_string());
    let loaded = std::cell::Cell::new(None);
    let (applied, beside) = tokio::join!(
        async {
            let applied = applying.await;
            loaded.set(Some(began.elapsed()));
            applied
        },
        visits(&client, || loaded.get().is_none())
    );
    applied?.expect(200).context("apply the table")?;
    let seconds = loaded.get().unwrap_or_default().as_secs_f64();
    let spent = window.close()?;
    let grown = edge.server.meter().memory()?.saturating_sub(before);
    let p99 = |times: &[f64]| percentile(times, 99.0).unwrap_or_default();
    let beside = beside?;
    for (name, unit, value) in [
        ("loading all rules", "s", seconds),
        ("loading all rules, processor time", "s", spent.as_secs_f64()),
        ("memory of a rule", "bytes", grown as f64 / rules as f64),
        ("p99 while loading ÷ before", "×", p99(&beside) / p99(&alone)),
        ("p99 while loading", "ms", p99(&beside)),
    ] {
        one(cases, name, unit, value);
    }
    Ok(())
}

fn one(cases: &mut Vec<Case>, name: impl Into<String>, unit: &str, value: f64) {
    let mut case = Case::new(name, unit);
    case.add(LATCHKEY, value);
    show(&case);
    cases.push(case);
}

/// Asks the site again and again: milliseconds of each visit. At least so many, and for as long as `on` says.
async fn visits(client: &Client, on: impl Fn() -> bool) -> Result<Vec<f64>> {
    let mut connection = Http1::new(client.connect(HOST).await?);
    let (request, mut times) = (request(HOST, "/products/7").into_bytes(), Vec::new());
    while times.len() < VISITS || on() {
        let asked = Instant::now();
        connection.ask(&request).await?.expect(200)?;
        times.push(asked.elapsed().as_secs_f64() * 1000.0);
        tokio::time::sleep(PAUSE).await;
    }
    Ok(times)
}

async fn among(
    effort: Effort,
    name: &str,
    servers: &[Server],
    targets: &Arc<Vec<String>>,
    status: u16,
    into: &mut Measured,
) -> Result<()> {
    let (mut case, mut busy) =
        (Case::new(name, "µs CPU per request"), Case::new(format!("{name}: how busy"), "% of a core"));
    for _ in 0..effort.rounds {
        for server in servers {
            let client = Client::new(server.addresses.plain, Group::X25519, Protocol::Http1)?;
            let answer = ask(&client, Protocol::Http1, HOST, &targets[1]).await?;
            if answer.status != status {
                return fail(format!("{}: {name}: {answer:?}", server.name));
            }
            let mut load = Load::of_targets(&client, HOST, targets, status).await?;
            let cost = cost(effort, server.meter(), || load.answered()).await.context(server.name)?;
            note(&mut case, &mut busy, server.name, &cost);
        }
    }
    show(&case);
    into.cases.extend([case, busy]);
    Ok(())
}

/// Misdeeds of one site's guest, and the p99 of another site meanwhile, beside what it was alone.
async fn misbehaves(
    effort: Effort,
    admin: &support::api::Api,
    server: &Server,
    upstream: std::net::SocketAddr,
    digest: &str,
    cases: &mut Vec<Case>,
) -> Result<()> {
    let binding = json!({"plugin": "hostile", "config": {"behaviour": "by-path"}, "on_failure": "closed"});
    let document = json!({
        "plugins": {"hostile": {"digest": digest}}, "upstreams": {"site": {"url": format!("http://{upstream}")}},
        "sites": [{"hosts": [HOST], "upstream": "site"}, {"hosts": [HOSTILE], "upstream": "site", "plugins": [binding]}],
    });
    admin.put("/v1/config", document.to_string()).await?.expect(200).context("apply the hostile guest")?;
    let client = Client::new(server.addresses.plain, Group::X25519, Protocol::Http1)?;
    let calls = if effort.quick { MISDEEDS / 20 } else { MISDEEDS };
    let (before, mut costliest) = (server.meter().memory()?, 0.0_f64);
    for path in ["/spin", "/roots", "/eat", "/touch", "/recurse", "/trap", "/vast", "/edits", "/crlf", "/log"] {
        let alone = visits(&client, || false).await?;
        let over = std::cell::Cell::new(false);
        let attack = async {
            let request = request(HOSTILE, path).into_bytes();
            let mut connection = Http1::new(client.connect(HOSTILE).await?);
            for _ in 0..calls {
                if connection.ask(&request).await.is_err() {
                    connection = Http1::new(client.connect(HOSTILE).await?);
                }
                tokio::time::sleep(PAUSE).await;
            }
            over.set(true);
            Ok::<(), support::Error>(())
        };
        let (attacked, beside) = tokio::join!(attack, visits(&client, || !over.get()));
        attacked?;
        let p99 = |times: &[f64]| percentile(times, 99.0).unwrap_or_default();
        let ratio = p99(&beside?) / p99(&alone);
        costliest = costliest.max(ratio);
        one(cases, format!("{path}: p99 of another site ÷ alone"), "×", ratio);
    }
    one(cases, "misdeeds: the costliest", "×", costliest);
    let grown = server.meter().memory()?.saturating_sub(before);
    one(cases, "memory grown by all misdeeds", "MiB", grown as f64 / f64::from(1 << 20));
    Ok(())
}

/// Uploads a guest.
async fn digest(admin: &support::api::Api, plugin: &str) -> Result<String> {
    peers::push(admin, plugin).await
}

/// Calls of the three plugins as `latchkey-proxy plugin bench` measures them.
fn hooks() -> Result<Vec<Case>> {
    let program = program::own("latchkey-proxy")?;
    let mut cases = Vec::new();
    for plugin in ["hsts", "redirects", "proxy-policy"] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../plugins/{plugin}/cases.toml"));
        let output = std::process::Command::new(&program).args(["plugin", "bench", "--json"]).arg(file).output()?;
        let benched: Value = serde_json::from_slice(&output.stdout).context(plugin)?;
        for case in benched["cases"].as_array().into_iter().flatten() {
            let mut told = Case::new(format!("{plugin}: {}", case["name"].as_str().unwrap_or_default()), "µs");
            for (series, key) in
                [("call", "micros_median"), ("given again", "micros_memo"), ("fresh instance", "start_micros_median")]
            {
                case[key].as_f64().into_iter().for_each(|micros| told.add(series, micros));
            }
            cases.push(told);
        }
    }
    Ok(cases)
}
