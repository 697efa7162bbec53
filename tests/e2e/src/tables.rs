//! Tables: what plugins read that is too much for a configuration.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use support::edge::Edge;
use support::fleet::Plan;
use support::wait::{PATIENCE, until};
use support::{fail, program};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use crate::world::{World, output, stderr, stdout};

impl World {
    async fn table_command(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(program::own("latchkey").unwrap());
        let socket = format!("unix:{}", self.fleet.edge_setup.admin_socket().display());
        command.arg("table").args(arguments).args(["--admin", &socket]);
        output(command).await
    }

    async fn push_table(&self, name: &str, text: &str) -> String {
        let file = self.fleet.folder.write(name, text).unwrap();
        let pushed = self.table_command(&["push", path(&file)]).await;
        assert!(pushed.status.success(), "{}", stderr(&pushed));
        stdout(&pushed).split_whitespace().next().unwrap().to_owned()
    }

    /// Redirects by this table only.
    fn with_table(&self, digest: &str) -> Value {
        let mut document = self.config();
        document["tables"] = json!({"moved": {"digest": digest}});
        document["sites"][0]["plugins"] =
            json!([{"plugin": "redirects", "config": {"table": "moved"}, "tables": ["moved"]}]);
        document
    }

    async fn location(&self, target: &str) -> Option<String> {
        let answer = self.https("shop.example").await.get("shop.example", target).await.unwrap();
        answer.header("location").map(str::to_owned)
    }
}

fn path(file: &Path) -> &str {
    file.to_str().unwrap()
}

#[tokio::test]
async fn an_upload_that_takes_its_time_keeps_nobody_from_changing_anything() {
    let world = World::start(Plan::default()).await;
    world.issue("shop.example").await;
    let folder = world.fleet.edge_setup.data_folder().join("tables");
    let partials = || {
        let entries = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "partial")).count()
    };
    let mut upload = UnixStream::connect(world.fleet.edge_setup.admin_socket()).await.unwrap();
    let digest = "0".repeat(64);
    let head = format!("PUT /v1/tables/sha256:{digest} HTTP/1.1\r\nhost: admin\r\ncontent-length: 9\r\n\r\n/a,");
    upload.write_all(head.as_bytes()).await.unwrap();
    let begun = until("the upload to begin", PATIENCE, async || if partials() == 1 { Ok(()) } else { fail("not yet") });
    begun.await.unwrap();
    // A change, another upload and a hand-over go on meanwhile.
    let table = world.push_table("one.csv", "from,to\n/a,/one\n").await;
    world.fleet.edge.apply(&world.with_table(&table)).await.unwrap();
    assert_eq!(world.location("/a").await.as_deref(), Some("/one"));
    assert_eq!(partials(), 1);
    drop(upload);
    let gone = until("what was begun to go", PATIENCE, async || if partials() == 0 { Ok(()) } else { fail("not yet") });
    gone.await.unwrap();
}

#[tokio::test]
async fn redirects_of_an_uploaded_table_serve_survive_a_restart_and_are_replaced() {
    let mut world = World::start(Plan::default()).await;
    world.issue("shop.example").await;
    let first = world.push_table("one.csv", "from,to\n/a,/one\n/b,/one\n").await;
    world.fleet.edge.apply(&world.with_table(&first)).await.unwrap();
    assert_eq!(world.location("/a").await.as_deref(), Some("/one"));
    assert_eq!(world.location("/c").await, None);

    let in_use = world.table_command(&["rm", &first]).await;
    assert_eq!(in_use.status.code(), Some(1));
    assert!(stderr(&in_use).contains("is named by the running configuration"), "{}", stderr(&in_use));

    let second = world.push_table("two.csv", "from,to\n/a,/two\n").await;
    let planned = world.fleet.edge.admin.put("/v1/config?dry_run=true", world.with_table(&second).to_string()).await;
    let planned = planned.unwrap().json().unwrap();
    assert_eq!(planned["plan"]["hosts"]["changed"], 1, "another table touches the hosts that read it: {planned}");
    assert_eq!(world.location("/a").await.as_deref(), Some("/one"), "a dry run changes nothing");
    world.fleet.edge.apply(&world.with_table(&second)).await.unwrap();
    assert_eq!(world.location("/a").await.as_deref(), Some("/two"));
    assert_eq!(world.location("/b").await, None);

    world.fleet.edge.process.stop().await.unwrap();
    world.fleet.edge = Edge::start(&world.fleet.edge_setup).await.unwrap();
    assert_eq!(world.location("/a").await.as_deref(), Some("/two"), "it is read again at the start");
    let listed = stdout(&world.table_command(&["ls"]).await);
    assert!(listed.lines().any(|line| line.starts_with(&second) && line.ends_with("moved")), "{listed}");
    assert!(listed.lines().any(|line| line.starts_with(&first) && line.ends_with("not in use")), "{listed}");
    assert!(world.table_command(&["rm", &first]).await.status.success());
    assert_eq!(stdout(&world.table_command(&["ls"]).await).lines().count(), 1);
}

#[tokio::test]
async fn faults_of_a_table_are_told_with_its_lines_and_the_old_rules_stay() {
    let world = World::start(Plan::default()).await;
    world.issue("shop.example").await;
    let good = world.push_table("good.csv", "from,to\n/a,/one\n").await;
    world.fleet.edge.apply(&world.with_table(&good)).await.unwrap();
    let bad = world.push_table("bad.csv", "from,to\n/a,/b\n/b,/a\n/c,//evil.example\n").await;
    let put = async |document: &Value| {
        let reply = world.fleet.edge.admin.put("/v1/config", document.to_string()).await.unwrap();
        assert_eq!(reply.status, 422, "{}", reply.text());
        reply.json().unwrap()["errors"].clone()
    };
    let errors = put(&world.with_table(&bad)).await;
    assert_eq!(errors[0]["at"], "/sites/0/plugins/0/config/table");
    assert!(errors[0]["says"].as_str().unwrap().starts_with("line 4 of table `moved`: `//evil.example`"), "{errors}");

    let unknown = format!("sha256:{}", "0".repeat(64));
    let errors = put(&world.with_table(&unknown)).await;
    assert_eq!((&errors[0]["at"], errors.as_array().unwrap().len()), (&json!("/tables/moved/digest"), 1), "{errors}");
    assert!(errors[0]["hint"].as_str().unwrap().contains("latchkey table push"), "{errors}");

    let mut misspelt = world.with_table(&good);
    misspelt["sites"][0]["plugins"][0]["tables"] = json!(["mooved"]);
    let errors = put(&misspelt).await;
    assert_eq!(errors[0]["hint"], "did you mean `moved`?", "{errors}");
    assert_eq!(world.location("/a").await.as_deref(), Some("/one"), "what was in force stays");
}

#[tokio::test]
async fn a_table_must_have_the_digest_that_it_is_sent_under() {
    let world = World::start(Plan::default()).await;
    let admin = &world.fleet.edge.admin;
    let wrong = format!("/v1/tables/sha256:{}", "a".repeat(64));
    for (path, says) in [(wrong.as_str(), "the body's digest is sha256:"), ("/v1/tables/moved", "is not a digest")] {
        let reply = admin.put(path, "from,to\n".to_owned()).await.unwrap();
        assert_eq!((reply.status, reply.text().contains(says)), (400, true), "{}", reply.text());
    }
    let nothing = "/v1/tables/sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let empty = admin.put(nothing, "").await.unwrap();
    assert_eq!((empty.status, empty.json().unwrap()["code"].clone()), (400, json!("empty")));
    let gone = admin.send(reqwest::Method::DELETE, &wrong, &[], Vec::new()).await.unwrap();
    assert_eq!(gone.status, 404);
    assert_eq!(admin.get("/v1/tables").await.unwrap().json().unwrap(), json!({"tables": []}));
}

#[tokio::test]
async fn requests_go_on_while_a_large_table_is_read() {
    let world = World::start(Plan::default()).await;
    world.issue("shop.example").await;
    let rows: String = (0..20_000).map(|n| format!("/old/page-{n},/new/{n}\n")).collect();
    let digest = world.push_table("large.csv", &format!("from,to\n{rows}")).await;
    let document = world.with_table(&digest);
    let applying = world.fleet.edge.apply(&document);
    let asking = async {
        let mut answers = 0;
        while world.location("/old/page-7").await.is_none() {
            answers += 1;
        }
        answers
    };
    let (applied, answers) = tokio::join!(applying, asking);
    applied.unwrap();
    assert!(answers > 0, "requests were answered by the old configuration meanwhile");
    assert_eq!(world.location("/old/page-19999").await.as_deref(), Some("/new/19999"));
    assert_eq!(world.metric("latchkey_plugin_faults_total", "").await, 0.0);
}
