//! Every command of `latchkey` against a real fleet, for people and with `--json`: where it goes well, where what is asked for
//! is not there, where the caller may not, and where nobody is there to be asked.

use std::process::{Command, Output};

use serde_json::Value;
use support::fleet::Plan;
use support::program;

use crate::world::{World, output, stderr, stdout};

/// Who is asked.
#[derive(Clone, Copy, PartialEq)]
enum Of {
    CertService,
    Proxy,
}
use Of::{CertService, Proxy};

/// Stands for a domain that is there no more afterwards.
const LEAVES: &str = "leaves.example";

/// Commands that go well, in this order.
const GOOD: &[(Of, &[&str])] = &[
    (CertService, &["domain", "ls"]),
    (CertService, &["domain", "show", "shop.example"]),
    (CertService, &["domain", "watch", "shop.example"]),
    (CertService, &["domain", "add", "shop.example"]),
    (CertService, &["domain", "renew", "shop.example"]),
    (CertService, &["cert", "ls"]),
    (CertService, &["cert", "show", "shop.example"]),
    (CertService, &["cert", "renew", "shop.example"]),
    (CertService, &["cert", "upload", "own.example", "--chain", "chain.pem", "--key", "key.pem"]),
    (CertService, &["issue", "--from", "list.csv"]),
    (CertService, &["forecast"]),
    (CertService, &["audit", "ls"]),
    (CertService, &["audit", "verify"]),
    (CertService, &["budget", "ls"]),
    (CertService, &["edge", "ls"]),
    (CertService, &["keys", "ls"]),
    (CertService, &["keys", "custody"]),
    (CertService, &["keys", "add", "more", "more.pem.pub", "--dry-run"]),
    (CertService, &["domain", "rm", LEAVES]),
    (Proxy, &["config", "dump"]),
    (Proxy, &["config", "log"]),
    (Proxy, &["config", "diff"]),
    (Proxy, &["config", "audit"]),
    (Proxy, &["config", "plan", "same.json"]),
    (Proxy, &["config", "apply", "same.json"]),
    (Proxy, &["config", "revert", "1", "--dry-run"]),
    (Proxy, &["plugin", "ls"]),
    (Proxy, &["plugin", "crashes", "hsts"]),
    (Proxy, &["table", "push", "table.csv"]),
    (Proxy, &["table", "ls"]),
    (Proxy, &["redirects", "unused"]),
    (Proxy, &["top"]),
    (Proxy, &["status"]),
];

/// What there is not, or must not be done, and the code that says so.
const REFUSED: &[(Of, &[&str], &str)] = &[
    (CertService, &["domain", "show", "none.example"], "unknown_domain"),
    (CertService, &["domain", "check", "none.example"], "unknown_domain"),
    (CertService, &["domain", "watch", "none.example"], "unknown_domain"),
    (CertService, &["domain", "renew", "none.example"], "unknown_domain"),
    (CertService, &["domain", "revoke", "none.example"], "unknown_domain"),
    (CertService, &["domain", "rm", "none.example"], "unknown_domain"),
    (CertService, &["domain", "add", "co.uk"], "public_suffix"),
    (CertService, &["domain", "add", "x.example", "--issuer", "nobody"], "unknown_issuer"),
    (CertService, &["cert", "show", "none.example"], "unknown_domain"),
    (CertService, &["cert", "renew", "none.example"], "unknown_domain"),
    (CertService, &["cert", "revoke", "none.example"], "unknown_domain"),
    (CertService, &["cert", "rm", "none.example"], "unknown_domain"),
    (CertService, &["cert", "rm", "shop.example"], "not_own"),
    (CertService, &["cert", "renew", "own.example"], "own_certificate"),
    (CertService, &["cert", "upload", "x.example", "--chain", "key.pem", "--key", "key.pem"], "invalid_certificate"),
    (CertService, &["cert", "upload", "x.example", "--chain", "none.pem", "--key", "key.pem"], "failed"),
    (CertService, &["import", "show", "none"], "unknown_import"),
    (CertService, &["issue", "--from", "none.csv"], "failed"),
    (CertService, &["keys", "add", "more", "chain.pem"], "invalid_key"),
    (CertService, &["keys", "retire", "none"], "unknown_key"),
    (CertService, &["audit", "archive", "--before", "90d", "--out", "journal"], "failed"),
    (Proxy, &["plugin", "crashes", "hst"], "unknown_plugin"),
    (Proxy, &["config", "apply", "bad.json"], "invalid_config"),
    (Proxy, &["config", "plan", "bad.json"], "invalid_config"),
    (Proxy, &["config", "plan", "none.json"], "failed"),
    (Proxy, &["config", "diff", "999"], "unknown_revision"),
    (Proxy, &["config", "revert", "999"], "unknown_revision"),
    (Proxy, &["plugin", "push", "chain.pem"], "*"),
    (Proxy, &["shadow", "show", "none"], "*"),
    (Proxy, &["shadow", "start", "none", "--with", "other"], "*"),
    (Proxy, &["shadow", "promote", "none"], "*"),
    (Proxy, &["shadow", "drop", "none"], "*"),
    (Proxy, &["table", "rm", "none"], "*"),
];

/// What asks nobody, or is tried by a test of its own.
const ELSEWHERE: &[&str] = &[
    "completions",
    "demo",
    "doctor",
    "hsts plan",
    "hsts status",
    "keys rewrap",
    "pki issue",
    "pki init",
    "pki ls",
    "pki revoke",
    "pki rotate",
    "plugin bench",
    "plugin build",
    "plugin check",
    "plugin inspect",
    "plugin keygen",
    "plugin new",
    "plugin run",
    "plugin sign",
    "plugin test",
    "redirects import",
];

struct Operator<'a> {
    world: &'a World,
    folder: std::path::PathBuf,
}

impl Operator<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let setup = &self.world.fleet.certservice_setup;
        let mut command = Command::new(program::own("latchkey").unwrap());
        command.current_dir(&self.folder).args(arguments);
        command.env("LATCHKEY_CERTSERVICE", setup.url()).env("LATCHKEY_TOKEN", setup.operator_token());
        command.env("LATCHKEY_ADMIN", format!("unix:{}", self.world.fleet.edge_setup.admin_socket().display()));
        command
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        output(self.command(arguments)).await
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.folder.join(name), text).unwrap();
    }

    /// Files that the commands name.
    async fn prepare(&self) {
        let authority = support::authority::Authority::new("a CA that sells").unwrap();
        let own = authority.issue("own.example").unwrap();
        self.write("chain.pem", own.certificate.to_pem().unwrap());
        self.write("key.pem", own.key.private_key_to_pem_pkcs8().unwrap());
        self.write("list.csv", "one.example\ntwo.example\n");
        self.write("same.json", self.run(&["config", "dump"]).await.stdout);
        self.write("bad.json", r#"{"sites": [{"hosts": ["*"], "upstream": "nobody"}]}"#);
        self.write("table.csv", "key,value\na,b\n");
        let key = openssl::rsa::Rsa::generate(3072).unwrap();
        self.write("more.pem.pub", key.public_key_to_pem().unwrap());
    }
}

fn name(arguments: &[&str]) -> String {
    let words: Vec<_> = arguments.iter().take_while(|word| !word.starts_with("--")).take(2).copied().collect();
    words.join(" ")
}

/// Each line a JSON document, at least one.
fn is_json(text: &str) -> bool {
    !text.is_empty() && text.lines().all(|line| serde_json::from_str::<Value>(line).is_ok())
        || serde_json::from_str::<Value>(text).is_ok()
}

/// The commands of `latchkey`, each with its words, as `--help` lists them.
async fn all_commands(operator: &Operator<'_>, above: &[&str]) -> Vec<String> {
    let help = stdout(&operator.run(&[above, &["--help"]].concat()).await);
    let listed = help.split_once("Commands:\n").map(|(_, rest)| rest.split("\n\n").next().unwrap().to_owned());
    let Some(listed) = listed else { return vec![above.join(" ")] };
    let mut all = Vec::new();
    for line in listed.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   ")) {
        let word = line.split_whitespace().next().unwrap();
        if word != "help" {
            all.extend(Box::pin(all_commands(operator, &[above, &[word]].concat())).await);
        }
    }
    all
}

#[tokio::test]
async fn every_command_says_by_its_exit_code_how_it_went() {
    let world = World::start(Plan { certservice_on_socket: true, ..Plan::default() }).await;
    world.issue("shop.example").await;
    world.issue("leaves.example").await;
    world.issue("leaves-too.example").await;
    let operator = Operator { folder: world.fleet.folder.subfolder("operator").unwrap(), world: &world };
    operator.prepare().await;
    let mut wrong = Vec::new();
    for (_, arguments) in GOOD {
        for (json, leaves) in [(false, "leaves.example"), (true, "leaves-too.example")] {
            let mut arguments: Vec<_> =
                arguments.iter().map(|word| if *word == LEAVES { leaves } else { word }).collect();
            arguments.extend(json.then_some("--json"));
            let done = operator.run(&arguments).await;
            let told = stdout(&done);
            let as_wanted = if json { is_json(&told) } else { !told.is_empty() && !told.starts_with(['{', '[']) };
            let is_config = arguments.starts_with(&["config", "dump"]);
            if done.status.code() != Some(0) || !(as_wanted || is_config && !told.is_empty()) {
                wrong.push(format!("{arguments:?}: {:?}, {told}{}", done.status.code(), stderr(&done)));
            }
        }
    }
    for (_, arguments, code) in REFUSED {
        let done = operator.run(arguments).await;
        if done.status.code() != Some(1) || !stderr(&done).starts_with("latchkey: ") {
            wrong.push(format!("{arguments:?}: {:?}, {}{}", done.status.code(), stdout(&done), stderr(&done)));
        }
        let done = operator.run(&[arguments, &["--json"][..]].concat()).await;
        let problem: Value = serde_json::from_slice(&done.stderr).unwrap_or_default();
        let says = problem["detail"].as_str().is_some_and(|detail| !detail.is_empty());
        if done.status.code() != Some(1) || !says || !(*code == "*" || problem["code"] == *code) {
            wrong.push(format!("{arguments:?} --json: {:?}, {}{}", done.status.code(), stdout(&done), stderr(&done)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // None is forgotten.
    let tried: Vec<_> =
        GOOD.iter().map(|(_, words)| name(words)).chain(REFUSED.iter().map(|(_, words, _)| name(words))).collect();
    let all = all_commands(&operator, &[]).await;
    assert!(all.len() > 40, "{all:?}");
    let forgotten: Vec<_> =
        all.iter().filter(|command| !tried.contains(command) && !ELSEWHERE.contains(&command.as_str())).collect();
    assert!(forgotten.is_empty(), "{forgotten:?}");
    let gone: Vec<_> = ELSEWHERE.iter().filter(|command| !all.iter().any(|known| known == *command)).collect();
    assert!(gone.is_empty(), "{gone:?}");
}

#[tokio::test]
async fn who_may_not_and_who_reaches_nobody_is_told_apart() {
    let world = World::start(Plan { certservice_on_socket: true, ..Plan::default() }).await;
    let operator = Operator { folder: world.fleet.folder.subfolder("operator").unwrap(), world: &world };
    operator.prepare().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut wrong = Vec::new();
    let commands =
        GOOD.iter().map(|(of, words)| (*of, *words)).chain(REFUSED.iter().map(|(of, words, _)| (*of, *words)));
    // What does not come as far as to ask.
    let asks = |words: &[&str]| {
        !words.iter().any(|word| word.starts_with("none.pem") || word.starts_with("none.csv") || *word == "none.json")
    };
    for (of, arguments) in commands.filter(|(_, words)| asks(words)) {
        let with_json = [arguments, &["--json"][..]].concat();
        let refused = output({
            let mut command = operator.command(&with_json);
            command.env("LATCHKEY_TOKEN", "another");
            command
        });
        if of == CertService {
            let done = refused.await;
            let problem: Value = serde_json::from_slice(&done.stderr).unwrap_or_default();
            if done.status.code() != Some(1) || problem["code"] != "unknown_caller" || !done.stdout.is_empty() {
                wrong.push(format!(
                    "refused {arguments:?}: {:?}, {}{}",
                    done.status.code(),
                    stdout(&done),
                    stderr(&done)
                ));
            }
        }
        let mut away = operator.command(&with_json);
        away.env("LATCHKEY_CERTSERVICE", format!("http://{free}")).env("LATCHKEY_ADMIN", "unix:/nowhere/proxy.sock");
        let done = output(away).await;
        // It is a verdict on what it reaches and what it does not.
        let expected = if arguments == ["status"] { (1, "failed") } else { (3, "unreachable") };
        let problem: Value = serde_json::from_slice(&done.stderr).unwrap_or_default();
        if done.status.code() != Some(expected.0) || problem["code"] != expected.1 {
            wrong.push(format!("away {arguments:?}: {:?}, {}{}", done.status.code(), stdout(&done), stderr(&done)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Its verdict depends on this machine; it is the one that it tells.
    let doctor = operator.run(&["doctor", "--json"]).await;
    let report: Value = serde_json::from_slice(&doctor.stdout).unwrap();
    assert_eq!(doctor.status.code(), Some(i32::from(report["passed"] == false)), "{report}");
    let usage = operator.run(&["domain", "show", "not a name", "--json"]).await;
    assert_eq!(usage.status.code(), Some(2));
}
