//! The operator's command against a real fleet, and its demo.

use std::process::{Command, Output};

use support::fleet::Plan;
use support::wait::{PATIENCE, until};
use support::{fail, program};

use crate::world::{World, guest, output, repository, stderr, stdout};

async fn latchkey(world: &World, arguments: &[&str]) -> Output {
    let setup = &world.fleet.certservice_setup;
    let mut command = Command::new(program::own("latchkey").unwrap());
    command.args(arguments).env("LATCHKEY_CERTSERVICE", setup.url()).env("LATCHKEY_TOKEN", setup.operator_token());
    command.env("LATCHKEY_ADMIN", format!("unix:{}", world.fleet.edge_setup.admin_socket().display()));
    output(command).await
}

#[tokio::test]
async fn an_operator_registers_and_follows_a_domain() {
    let world = World::start(Plan::default()).await;
    let added = latchkey(&world, &["domain", "add", "Bücher.Example", "--json"]).await;
    assert!(added.status.success(), "{}", stderr(&added));
    let domain: serde_json::Value = serde_json::from_slice(&added.stdout).unwrap();
    assert_eq!(domain["name"], "xn--bcher-kva.example");
    let watched = latchkey(&world, &["domain", "watch", "bücher.example"]).await;
    assert!(watched.status.success() && stdout(&watched).contains("live"), "{}{}", stdout(&watched), stderr(&watched));
    let shown = stdout(&latchkey(&world, &["domain", "show", "bücher.example"]).await);
    assert!(shown.contains("valid until") && shown.contains("left)"), "{shown}");
    let listed = stdout(&latchkey(&world, &["domain", "ls"]).await);
    assert!(listed.contains("xn--bcher-kva.example") && listed.contains("1 domain"), "{listed}");

    let removed = latchkey(&world, &["domain", "rm", "bücher.example"]).await;
    assert!(removed.status.success(), "{}", stderr(&removed));
    assert!(stdout(&latchkey(&world, &["domain", "ls"]).await).contains("0 domains"));

    let unknown = latchkey(&world, &["domain", "show", "stranger.example"]).await;
    assert_eq!(unknown.status.code(), Some(1));
    assert!(stderr(&unknown).contains("stranger.example"), "{}", stderr(&unknown));
    assert_eq!(latchkey(&world, &["domain", "show", "not a name"]).await.status.code(), Some(2));
}

#[tokio::test]
async fn an_operator_registers_domains_that_wait_for_their_first_visitor() {
    let world = World::start(Plan::default()).await;
    let added = latchkey(&world, &["domain", "add", "a.example", "--order", "first-visit"]).await;
    assert!(added.status.success() && stdout(&added).contains("awaits_visit"), "{}{}", stdout(&added), stderr(&added));
    assert!(!stdout(&added).contains("domain watch"), "there is nothing to watch: {}", stdout(&added));
    let watched = latchkey(&world, &["domain", "watch", "a.example"]).await;
    assert!(watched.status.success(), "{}", stderr(&watched));
    let shown = stdout(&latchkey(&world, &["domain", "show", "a.example"]).await);
    assert!(shown.contains("with the first visit") && shown.contains("first visitor comes"), "{shown}");
    // A list ends where nobody works on any of them.
    let list = world.fleet.folder.path().join("names.csv");
    std::fs::write(&list, "b.example\nc.example,,,now\n").unwrap();
    let issued = latchkey(&world, &["issue", "--from", list.to_str().unwrap(), "--order", "first-visit"]).await;
    assert!(
        issued.status.success() && stdout(&issued).contains("awaits_visit"),
        "{}{}",
        stdout(&issued),
        stderr(&issued)
    );
    let now = latchkey(&world, &["domain", "add", "a.example", "--order", "now"]).await;
    assert!(now.status.success(), "{}", stderr(&now));
    assert!(latchkey(&world, &["domain", "watch", "a.example"]).await.status.success());
    assert!(stdout(&latchkey(&world, &["domain", "show", "a.example"]).await).contains("valid until"));
    assert_eq!(latchkey(&world, &["domain", "add", "d.example", "--order", "soon"]).await.status.code(), Some(2));
}

/// Entries go into a file, and the chain holds over it and what is left; `head` is of before.
async fn archives(world: &World, head: &str) {
    let file = world.fleet.folder.path().join("journal.1");
    let path = file.to_str().unwrap();
    let none = latchkey(world, &["audit", "archive", "--before", "90d", "--out", path]).await;
    assert!(none.status.code() == Some(1) && stderr(&none).contains("no entry is older"), "{}", stderr(&none));
    // An entry of this second is not older than it.
    until("an entry to be a second old", PATIENCE, async || {
        let done = latchkey(world, &["audit", "archive", "--before", "0m", "--out", path, "--json"]).await;
        if done.status.success() { Ok(()) } else { fail(stderr(&done)) }
    })
    .await
    .unwrap();
    let left = stdout(&latchkey(world, &["audit", "verify"]).await);
    assert!(left.contains("are in archives: add --archive"), "{left}");
    let whole = latchkey(world, &["audit", "verify", "--archive", path, "--head", head]).await;
    assert!(whole.status.success() && stdout(&whole).contains("none changed"), "{}", stderr(&whole));
    let listed = stdout(&latchkey(world, &["audit", "ls"]).await);
    assert!(listed.contains("journal.archived"), "{listed}");
    let again = latchkey(world, &["audit", "archive", "--before", "0m", "--out", path]).await;
    assert!(again.status.code() == Some(1) && stderr(&again).contains("journal.1"), "{}", stderr(&again));
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replacen("\"tenant\":\"", "\"tenant\":\"x", 1)).unwrap();
    let changed = latchkey(world, &["audit", "verify", "--archive", path]).await;
    assert!(changed.status.code() == Some(1) && stderr(&changed).contains("is not what was written"));
    std::fs::write(&file, text.lines().next().unwrap().to_owned() + "\n").unwrap();
    let cut = latchkey(world, &["audit", "verify", "--archive", path]).await;
    assert!(cut.status.code() == Some(1) && stderr(&cut).contains("ends at entry 1"), "{}", stderr(&cut));
}

#[tokio::test]
async fn an_operator_brings_a_list_to_certificates_looks_ahead_and_audits() {
    let world = World::start(Plan::default()).await;
    let list = world.fleet.folder.write("domains.csv", "name\na.example\nb.example,acme\nnot a name\n").unwrap();
    let list = list.display().to_string();
    let issued = latchkey(&world, &["issue", "--from", &list]).await;
    let told = stdout(&issued);
    assert_eq!(issued.status.code(), Some(1), "one line is faulty: {told}{}", stderr(&issued));
    assert!(told.contains("2 new, 0 known, 1 refused") && told.contains("line 4: "), "{told}");
    assert!(told.contains("2  live (issued)"), "{told}");
    let again = latchkey(&world, &["issue", "--from", &list, "--json"]).await;
    let again: serde_json::Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!((&again["registered"], &again["lines"]), (&2.into(), &4.into()), "it is the same list");
    let id = again["id"].as_str().unwrap();
    assert!(stdout(&latchkey(&world, &["import", "show", id]).await).contains("4 lines"));

    let forecast = latchkey(&world, &["forecast", "--ca-down", "3d"]).await;
    assert!(forecast.status.success(), "{}", stderr(&forecast));
    assert!(stdout(&forecast).contains("0 certificates would end"), "{}", stdout(&forecast));
    let grim = latchkey(&world, &["forecast", "--ca-down", "364d"]).await;
    assert_eq!(grim.status.code(), Some(1));
    assert!(stdout(&grim).contains("2 certificates would end") && stdout(&grim).contains("a.example"));

    let journal = stdout(&latchkey(&world, &["audit", "ls", "--name", "b.example"]).await);
    assert!(journal.contains("domain.registered") && journal.contains("by operator:"), "{journal}");
    let verified = stdout(&latchkey(&world, &["audit", "verify", "--json"]).await);
    let head: serde_json::Value = serde_json::from_str(&verified).unwrap();
    let head = format!("{}:{}", head["seq"], head["hash"].as_str().unwrap());
    let still = latchkey(&world, &["audit", "verify", "--head", &head]).await;
    assert!(still.status.success() && stdout(&still).contains("none changed"), "{}", stderr(&still));
    let other = latchkey(&world, &["audit", "verify", "--head", &format!("2:{}", "0".repeat(64))]).await;
    assert_eq!(other.status.code(), Some(1));
    assert!(stderr(&other).contains("entry 2"), "{}", stderr(&other));
    let beyond = latchkey(&world, &["audit", "verify", "--head", &format!("999:{}", "0".repeat(64))]).await;
    assert!(stderr(&beyond).contains("before entry 999"), "{}", stderr(&beyond));
    archives(&world, &head).await;
}

#[tokio::test]
async fn an_operator_sees_every_fault_with_its_place() {
    let world = World::start(Plan::default()).await;
    let text = "{\n  \"upstreams\": {\"a\": {\"url\": \"http://127.0.0.1:1\"}},\n  \"sites\": [\n    \
                {\"hosts\": [\"shop.example\"], \"upstream\": \"b\"},\n    {\"hosts\": [\"-\"], \"upstream\": \"a\"}\n  ]\n}\n";
    let file = world.fleet.folder.write("mistaken.json", text).unwrap();
    let name = file.display().to_string();
    for action in ["apply", "plan"] {
        let refused = latchkey(&world, &["config", action, &name]).await;
        assert_eq!(refused.status.code(), Some(1));
        let told = stderr(&refused);
        assert!(told.contains(&format!("{name}:4:")) && told.contains("/sites/0/upstream"), "{told}");
        assert!(told.contains(&format!("{name}:5:")) && told.contains("/sites/1/hosts/0"), "{told}");
    }
}

#[tokio::test]
async fn an_operator_plans_applies_and_goes_back() {
    let world = World::start(Plan::default()).await;
    let mut config = world.config();
    config["sites"][0]["hosts"] = serde_json::json!(["*", "shop.example"]);
    let file = world.fleet.folder.write("new.json", format!("{config:#}")).unwrap().display().to_string();
    let planned = stdout(&latchkey(&world, &["config", "plan", &file]).await);
    let touches = "touches 1 of 2 hosts (1 added: shop.example)";
    assert!(planned.contains("+ /sites/0/hosts/1: \"shop.example\"") && planned.contains(touches), "{planned}");

    let dumped = stdout(&latchkey(&world, &["config", "dump", "--json"]).await);
    let etag = serde_json::from_str::<serde_json::Value>(&dumped).unwrap()["etag"].as_str().unwrap().to_owned();
    let apply = ["config", "apply", &file, "-m", "Shop gets a site", "--if-match", &etag];
    let applied = latchkey(&world, &apply).await;
    assert!(stdout(&applied).contains("revision 2 is in force: touches"), "{}{}", stdout(&applied), stderr(&applied));
    let again = stdout(&latchkey(&world, &["config", "apply", &file]).await);
    assert!(again.contains("revision 2 stays in force"), "{again}");
    let stale = latchkey(&world, &apply).await;
    assert_eq!(stale.status.code(), Some(1));
    assert!(stderr(&stale).contains("changed meanwhile:\n+ /sites/0/hosts/1"), "{}", stderr(&stale));

    let reverted = latchkey(&world, &["config", "revert", "1", "-m", "not yet"]).await;
    assert!(stdout(&reverted).contains("revision 3 is in force"), "{}{}", stdout(&reverted), stderr(&reverted));
    let log = stdout(&latchkey(&world, &["config", "log"]).await);
    assert!(log.contains("Shop gets a site") && log.contains("back to 1") && log.contains("not yet"), "{log}");
    let diff = stdout(&latchkey(&world, &["config", "diff"]).await);
    assert!(diff.contains("- /sites/0/hosts/1"), "{diff}");
    let since = stdout(&latchkey(&world, &["config", "diff", "3", "--since", "1"]).await);
    assert!(since.contains("changes nothing"), "{since}");
}

#[tokio::test]
async fn an_operator_pushes_plugins_and_asks_for_the_status() {
    let world = World::start(Plan::default()).await;
    let key = world.fleet.edge_setup.plugin_key.display().to_string();
    let push = async |file: std::path::PathBuf| {
        latchkey(&world, &["plugin", "push", file.to_str().unwrap(), "--key", &key]).await
    };
    let pushed = push(guest("hsts")).await;
    assert!(stdout(&pushed).starts_with("sha256:"), "{}{}", stdout(&pushed), stderr(&pushed));
    let listed = stdout(&latchkey(&world, &["plugin", "ls"]).await);
    assert_eq!(listed.lines().count(), 3, "{listed}");
    assert!(listed.contains(stdout(&pushed).split(' ').next().unwrap().trim()), "{listed}");
    let text = repository().join("README.md");
    assert_eq!(push(text).await.status.code(), Some(1));

    let status = latchkey(&world, &["status"]).await;
    assert!(status.status.success(), "{}{}", stdout(&status), stderr(&status));
    assert_eq!(stdout(&status).matches(" ready ").count(), 2, "{}", stdout(&status));

    let seen = support::wait::until("the edge to be seen", support::wait::PATIENCE, async || {
        let edges = stdout(&latchkey(&world, &["edge", "ls"]).await);
        if edges.contains("up to date") { Ok(edges) } else { support::fail(edges) }
    });
    assert!(seen.await.unwrap().contains("1 edge seen"));
}

#[tokio::test]
async fn the_demo_walks_and_ends_everything() {
    for redis in [false, true] {
        let folder = support::folder::Folder::new().unwrap();
        let mut command = Command::new(program::own("latchkey").unwrap());
        command.args(["demo", "--once", "--plugins"]).arg(guest("hsts").parent().unwrap());
        command.args(redis.then_some("--redis")).env("TMPDIR", folder.path());
        let walked = output(command).await;
        assert!(walked.status.success(), "{}{}", stdout(&walked), stderr(&walked));
        assert!(stdout(&walked).contains("all hold"), "{}", stdout(&walked));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "its folder is removed");
    }
}

#[tokio::test]
async fn an_operator_reads_what_plugins_remark() {
    let world = World::start(Plan::default()).await;
    let mut config = world.config();
    config["sites"][0]["plugins"][1]["config"]["rules"] =
        serde_json::json!([{"from": "/older", "to": "/old"}, {"from": "/old", "to": "/new"}]);
    let file = world.fleet.folder.write("chain.json", format!("{config:#}")).unwrap().display().to_string();
    for action in ["plan", "apply"] {
        let told = stdout(&latchkey(&world, &["config", action, &file]).await);
        let warning = told.lines().find(|line| line.starts_with(&format!("warning: {file}:"))).unwrap_or_default();
        let at = "/sites/0/plugins/1/config/rules/0/to: is a chain of rules 0, 1";
        assert!(warning.contains(at) && told.contains("hint: send it to `/new` at once"), "{told}");
    }
    let json = stdout(&latchkey(&world, &["config", "plan", &file, "--json"]).await);
    let planned: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(planned["plan"]["warnings"].as_array().map(Vec::len), Some(1), "{planned:#}");
    assert!(planned["plan"]["warnings"][0]["line"].as_u64() > Some(1), "{planned:#}");
}
