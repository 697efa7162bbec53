//! Backup and return of a real service's store, on each database and from one to the other.

use std::process::{Command, Output, Stdio};

use crate::databases::on_each_layout;
use crate::edge::open_bundle;
use crate::process::{CertService, INTERNAL, LISTEN};

fn run(service: &CertService, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_latchkey-certservice"));
    command.current_dir(service.folder.path()).args(arguments).stdin(Stdio::null());
    command.output().unwrap()
}

fn backup(service: &CertService, to: &str) -> Output {
    run(service, &["backup", "--config", "cs.toml", "--out", to])
}

fn restore(service: &CertService, from: &str) -> Output {
    run(service, &["restore", "--config", "cs.toml", "--from", from])
}

/// Exit code, and what was told.
fn verdict(output: &Output) -> (Option<i32>, String) {
    let told = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    (output.status.code(), String::from_utf8(told).unwrap())
}

#[test]
fn a_backup_taken_under_way_comes_back_with_all_keys_on_either_database() {
    on_each_layout(|database| {
        let mut service = CertService::new("");
        let settings = format!("{INTERNAL}[issuance]\nconcurrency = 2\n{}", database.settings(&service));
        service.configure(LISTEN, &settings);
        service.start();
        let names: Vec<_> = (0..30).map(|n| format!("n{n}.example")).collect();
        for name in &names {
            assert_eq!(service.put(name, "").status, 201);
        }
        service.wait_live("n0.example");
        // Others are under way.
        let (code, told) = verdict(&backup(&service, "one.backup"));
        assert_eq!(code, Some(0), "{told}");
        let mode = service.path("one.backup").metadata().unwrap();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777, 0o600);
        let (code, told) = verdict(&backup(&service, "one.backup"));
        assert!(code == Some(1) && told.contains("is there already"), "{told}");
        for name in &names {
            service.wait_live(name);
        }
        // What came after the backup is lost, and is no harm.
        assert_eq!(service.put("late.example", "").status, 201);
        service.wait_live("late.example");
        let (code, told) = verdict(&restore(&service, "one.backup"));
        assert!(code == Some(1) && told.contains("a backup goes into an empty one"), "{told}");
        service.kill();

        // Into SQLite, and the other layout, wherever it came from.
        let bundles = if database.is_apart() { "" } else { "bundles = \"sqlite:restored-bundles.db\"\n" };
        let settings = format!("{INTERNAL}[store]\nurl = \"sqlite:restored.db\"\n{bundles}");
        service.configure(LISTEN, &settings);
        let (code, told) = verdict(&restore(&service, "one.backup"));
        assert!(code == Some(0) && told.contains("30 domains") && told.contains("all checked"), "{told}");
        service.start();
        assert_eq!(service.get("/v1/domains/late.example").status, 404);
        let keys = service.verify_keys();
        for name in &names {
            service.wait_live(name);
            let answer = service.get(&format!("/v1/bundles/{name}"));
            open_bundle(answer.text(), name, &keys, &service.edge);
        }
        assert!(service.get("/v1/changes?since=100").json()["cursor"].as_u64().unwrap() > 1 << 40);
        // And from there back again.
        let (code, told) = verdict(&backup(&service, "two.backup"));
        assert_eq!(code, Some(0), "{told}");
        service.kill();
        let number = std::cell::Cell::new(0);
        on_each_layout(|target| {
            number.set(number.get() + 1);
            let settings = target.settings_of(&service, &format!("target{}", number.get()));
            service.configure(LISTEN, &format!("{INTERNAL}{settings}"));
            let (code, told) = verdict(&restore(&service, "two.backup"));
            assert!(code == Some(0) && told.contains("30 certificates with their keys"), "{told}");
        });
    });
}

#[test]
fn a_file_that_is_cut_or_changed_is_refused_before_the_database_is_touched() {
    let mut service = CertService::started(INTERNAL);
    assert_eq!(service.put("shop.example", "").status, 201);
    service.wait_live("shop.example");
    assert_eq!(verdict(&backup(&service, "good.backup")).0, Some(0));
    service.kill();
    service.configure(LISTEN, &format!("{INTERNAL}[store]\nurl = \"sqlite:new.db\"\n"));
    let good = std::fs::read_to_string(service.path("good.backup")).unwrap();
    let lines: Vec<&str> = good.lines().collect();
    let cases = [
        (good[..good.len() / 2].to_owned(), "cut off here"),
        (lines[..lines.len() - 1].join("\n") + "\n", "cut off here"),
        (good.replace("shop.example", "shoq.example"), "is not what was written"),
        (good.replacen("\"latchkey_backup\":1", "\"latchkey_backup\":2", 1), "has form 2"),
        (good.replacen("\"schema\":", "\"schema\":9", 1), "this CertService reads"),
        ("hello\n".to_owned(), "this is no backup of CertService"),
        (String::new(), "cut off here"),
    ];
    for (text, says) in cases {
        std::fs::write(service.path("bad.backup"), text).unwrap();
        let check = ["restore", "--check", "--config", "cs.toml", "--from", "bad.backup"];
        for output in [restore(&service, "bad.backup"), run(&service, &check)] {
            let (code, told) = verdict(&output);
            assert!(code == Some(1) && told.contains("bad.backup") && told.contains(says), "{says}: {told}");
        }
        assert!(!service.path("new.db").exists(), "{says}");
    }
    let (code, told) = verdict(&restore(&service, "none.backup"));
    assert!(code == Some(1) && told.contains("none.backup can't be read"), "{told}");
    assert_eq!(verdict(&restore(&service, "good.backup")).0, Some(0));
}
