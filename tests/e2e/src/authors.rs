//! What a plugin's author does, from nothing to a plugin that serves.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::json;
use support::fleet::Plan;
use support::folder::Folder;
use support::process::{Process, Signal};
use support::program;
use support::visitor::Visitor;

use crate::world::{World, guest, output, repository, stderr, stdout};

async fn plugin(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(program::own("latchkey").unwrap());
    command.arg("plugin").args(arguments).current_dir(folder);
    output(command).await
}

/// The commands of the tutorial, in their order.
fn tutorial() -> String {
    let docs = std::fs::read_to_string(repository().join("docs/plugins.md")).unwrap();
    let section = docs.split("\n## ").find(|section| section.starts_with("Ten minutes")).expect("a tutorial");
    let blocks: Vec<&str> = section.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(blocks.len() >= 5, "the tutorial has steps");
    // They stand in a list.
    let lines = blocks.iter().flat_map(|block| block.lines());
    lines.map(|line| format!("{}\n", line.strip_prefix("   ").unwrap_or(line))).collect()
}

#[tokio::test]
async fn the_tutorial_leads_to_a_plugin_that_serves() {
    let world = World::start(Plan::default()).await;
    world.issue("shop.example").await;
    // The same folder each time, so that Cargo finds what it compiled before.
    let work = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("tutorial");
    let _ = std::fs::remove_dir_all(work.join("work"));
    std::fs::create_dir_all(work.join("work")).unwrap();
    let commands = tutorial().replace("http://127.0.0.1:9000", &world.upstream.url());
    let script = world.fleet.folder.write("tutorial.sh", format!("set -eu\n{commands}")).unwrap();
    let programs = program::own("latchkey").unwrap().parent().unwrap().to_owned();
    let path = std::env::var("PATH").unwrap();
    let mut command = Command::new("sh");
    command.arg(script).current_dir(work.join("work"));
    command.env("PATH", format!("{}:{path}", programs.display())).env("CARGO_TARGET_DIR", work.join("target"));
    command.env("LATCHKEY_ADMIN", format!("unix:{}", world.fleet.edge_setup.admin_socket().display()));
    command.env("LATCHKEY_PLUGIN_KEY", &world.fleet.edge_setup.plugin_key);
    let followed = output(command).await;
    assert!(followed.status.success(), "{}{}", stdout(&followed), stderr(&followed));
    let told = stdout(&followed);
    for says in ["ok   ", "ok: doorman 0.1.0, http", "µs median", "latchkey:edge/http-policy@0.2.1", "is in force"] {
        assert!(told.contains(says), "no `{says}` in:\n{told}");
    }
    let mut connection = world.https("shop.example").await;
    assert_eq!(connection.get("shop.example", "/admin/users").await.unwrap().status, 404);
    assert_eq!(connection.get("shop.example", "/cart").await.unwrap().status, 200);
}

#[tokio::test]
async fn cases_of_the_first_party_plugins_hold() {
    for name in ["hsts", "redirects", "proxy-policy", "examples/blocklist", "examples/rewrite"] {
        let tested = plugin(&repository().join("plugins").join(name), &["test", "cases.toml", "--json"]).await;
        assert!(tested.status.success(), "{name}: {}{}", stdout(&tested), stderr(&tested));
        let told: serde_json::Value = serde_json::from_slice(&tested.stdout).unwrap();
        let cases = told["cases"].as_array().unwrap();
        let measured = cases.iter().filter(|case| case["used"]["instructions"].as_u64() > Some(100)).count();
        assert!(cases.len() >= 6 && measured >= 5, "{name}: {told:#}");
    }
}

#[tokio::test]
async fn a_plugin_in_c_decides_as_its_cases_say() {
    let component = guest_in_c().display().to_string();
    let folder = repository().join("plugins/examples/maintenance-c");
    let tested = plugin(&folder, &["test", "cases.toml", "--plugin", &component]).await;
    assert!(tested.status.success(), "{}{}", stdout(&tested), stderr(&tested));
    let inspected = stdout(&plugin(&folder, &["inspect", &component]).await);
    assert!(inspected.contains("latchkey:edge/http-policy@0.2.1") && !inspected.contains("wasi:"), "{inspected}");

    let world = World::start(Plan::default()).await;
    world.issue("shop.example").await;
    let digest = world.fleet.edge.push(&guest_in_c()).await.unwrap();
    let mut document = world.config();
    document["plugins"]["maintenance"] = json!({"digest": digest});
    document["sites"][0]["plugins"] = json!([{"plugin": "maintenance", "config": {"until": 99_999_999_999_u64}}]);
    world.fleet.edge.apply(&document).await.unwrap();
    let answer = world.https("shop.example").await.get("shop.example", "/").await.unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (503, "Back soon.\n"));
    assert!(answer.header("retry-after").is_some_and(|seconds| seconds.parse::<u64>().is_ok()));
}

/// Compiled by clang.
fn guest_in_c() -> PathBuf {
    let file = repository().join("plugins/built/maintenance.wasm");
    assert!(file.is_file(), "{} is missing: run plugins/build-c.sh", file.display());
    file
}

/// Components as they were built when their version of wit/ was released, each with its cases.
#[tokio::test]
async fn components_of_every_released_wit_version_still_load_and_answer() {
    let kept = repository().join("tests/kept");
    let mut tried = 0;
    for version in std::fs::read_dir(&kept).unwrap() {
        let folder = version.unwrap().path();
        if !folder.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(&folder).unwrap() {
            let cases = file.unwrap().path();
            if cases.extension().is_none_or(|extension| extension != "toml") {
                continue;
            }
            let tested = plugin(&folder, &["test", &cases.display().to_string()]).await;
            assert!(tested.status.success(), "{}: {}{}", cases.display(), stdout(&tested), stderr(&tested));
            tried += 1;
        }
    }
    assert!(tried >= 3, "{tried} in {}", kept.display());
}

#[tokio::test]
async fn a_running_plugin_is_reloaded_when_its_files_are_saved_and_tells_its_calls() {
    let folder = Folder::new().unwrap();
    let component = folder.path().join("mine.wasm");
    std::fs::copy(guest("require-header"), &component).unwrap();
    let config = folder.write("config.json", r#"{"header": "x-key", "status": 401}"#).unwrap();
    let mut runs = Process::start("run", &program::own("latchkey").unwrap(), folder.path(), |command| {
        command.args(["plugin", "run", "--plugin"]).arg(&component).arg("--config").arg(&config);
    })
    .unwrap();
    let told = runs.says(&["curl --cacert", "https://plugin.localhost:"]).await.unwrap();
    let (_, root) = told.split_once("--cacert ").unwrap();
    let (root, url) = root.split_once(' ').unwrap();
    let port: u16 = url.trim_end_matches('/').rsplit_once(':').unwrap().1.parse().unwrap();
    let visitor = Visitor::to(([127, 0, 0, 1], port).into());
    let visitor = visitor.trusting(&std::fs::read_to_string(root).unwrap()).unwrap();
    let get = async || visitor.https("plugin.localhost").await.unwrap().get("plugin.localhost", "/a?b").await.unwrap();
    assert_eq!(get().await.status, 401);
    let call = runs.says(&["require-header request plugin.localhost/a?b → deny 401", " instructions, "]).await.unwrap();
    assert!(call.contains("µs"), "{call}");

    std::fs::write(&config, r#"{"header": "x-key", "status": 200}"#).unwrap();
    runs.says(&["not in force; what was before stays"]).await.unwrap();
    assert!(runs.log().contains("/status: 200 is out of range"), "{}", runs.log());
    assert_eq!(get().await.status, 401);
    std::fs::write(&config, r#"{"header": "x-key", "status": 402}"#).unwrap();
    runs.says(&["in force: require-header", "revision 2"]).await.unwrap();
    assert_eq!(get().await.status, 402);
    runs.says(&["→ deny 402"]).await.unwrap();
    runs.signal(Signal::INT);
    assert!(runs.ended().await.unwrap().success(), "{}", runs.log());
    let nowhere = plugin(folder.path(), &["run"]).await;
    assert!(stderr(&nowhere).contains("latchkey plugin new"), "{}", stderr(&nowhere));
}

#[tokio::test]
async fn a_case_that_does_not_hold_says_what_came_out() {
    let folder = Folder::new().unwrap();
    let component = guest("redirects").display().to_string();
    let cases = |expect: &str| {
        format!(
            "config = {{ rules = [{{ from = \"/a\", to = \"/b\" }}] }}\n[limits]\ninstructions = 10\n[[cases]]\nname = \"moved\"\n\
             request = {{ path = \"/a\" }}\nexpect = {{ {expect} }}\n"
        )
    };
    folder.write("wrong.toml", cases("verdict = \"redirect\", location = \"/c\"")).unwrap();
    let failed = plugin(folder.path(), &["test", "wrong.toml", "--plugin", &component]).await;
    assert_eq!(failed.status.code(), Some(1));
    let told = stdout(&failed);
    assert!(told.contains("FAIL") && told.contains("location: expected \"/c\", found \"/b\""), "{told}");
    assert!(told.contains("instructions: ") && told.contains("at most 10 are allowed"), "{told}");
    assert!(stderr(&failed).contains("1 of 1 cases failed"), "{}", stderr(&failed));

    folder.write("typo.toml", cases("verdcit = \"next\"")).unwrap();
    let refused = plugin(folder.path(), &["test", "typo.toml", "--plugin", &component]).await;
    assert!(stderr(&refused).contains("typo.toml:7:") && stderr(&refused).contains("verdcit"), "{}", stderr(&refused));
    folder.write("nothing.toml", cases("verdict = \"next\"")).unwrap();
    let unnamed = plugin(folder.path(), &["test", "nothing.toml"]).await;
    assert!(stderr(&unnamed).contains("names no plugin"), "{}", stderr(&unnamed));
}

#[tokio::test]
async fn a_component_and_its_configuration_are_checked_without_an_edge() {
    let folder = Folder::new().unwrap();
    let component = guest("hsts").display().to_string();
    folder.write("good.json", "{\"max_age\": 1, \"rollout_percent\": 0}").unwrap();
    let good = stdout(&plugin(folder.path(), &["check", &component, "--config", "good.json"]).await);
    assert!(good.contains("warning: /rollout_percent") && good.contains("ok: hsts 0.1.0, http"), "{good}");
    folder.write("bad.json", "{\n  \"max_age\": -1,\n  \"rollout\": 5\n}").unwrap();
    let bad = plugin(folder.path(), &["check", &component, "--config", "bad.json"]).await;
    assert_eq!(bad.status.code(), Some(1));
    assert!(stderr(&bad).contains("bad.json:2:") && stderr(&bad).contains("bad.json:3:"), "{}", stderr(&bad));
    let other = plugin(folder.path(), &["check", guest("other-world").to_str().unwrap()]).await;
    assert!(stderr(&other).contains("does not export latchkey:edge/control"), "{}", stderr(&other));

    let key = folder.path().join("own.pem").display().to_string();
    assert!(plugin(folder.path(), &["keygen", "--out", &key]).await.status.success());
    std::fs::copy(&component, folder.path().join("own.wasm")).unwrap();
    let unsigned = stdout(&plugin(folder.path(), &["inspect", "own.wasm"]).await);
    assert!(unsigned.contains("latchkey:edge/log@0.2.1") && unsigned.contains("signature        none"), "{unsigned}");
    assert!(plugin(folder.path(), &["sign", "--key", &key, "own.wasm"]).await.status.success());
    let public = format!("{key}.pub");
    let signed = stdout(&plugin(folder.path(), &["inspect", "own.wasm", "--key", &public]).await);
    assert!(signed.contains("(good)"), "{signed}");
    std::fs::copy(guest("redirects"), folder.path().join("own.wasm")).unwrap();
    let altered = plugin(folder.path(), &["inspect", "own.wasm", "--key", &public]).await;
    assert_eq!(altered.status.code(), Some(1), "{}", stdout(&altered));
    let schema = stdout(&plugin(folder.path(), &["inspect", &component, "--schema"]).await);
    assert!(serde_json::from_str::<serde_json::Value>(&schema).unwrap()["properties"]["max_age"].is_object());
}

#[tokio::test]
async fn a_new_plugin_needs_a_name_and_a_free_folder() {
    let folder = Folder::new().unwrap();
    let bad = plugin(folder.path(), &["new", "My_Plugin"]).await;
    assert!(bad.status.code() == Some(1) && stderr(&bad).contains("lower-case letters"), "{}", stderr(&bad));
    assert!(plugin(folder.path(), &["new", "mine"]).await.status.success());
    assert!(folder.path().join("mine/latchkey/wit/http.wit").is_file());
    assert_eq!(plugin(folder.path(), &["new", "mine"]).await.status.code(), Some(1), "never over what is there");
    let elsewhere = plugin(folder.path(), &["build", "."]).await;
    assert!(stderr(&elsewhere).contains("latchkey plugin new"), "{}", stderr(&elsewhere));
}
