//! A disk that is really full: a small one, in a mount namespace of its own that edges are started in.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use reqwest::Method;
use serde_json::json;
use support::certservice::CertService;
use support::edge::Edge;
use support::fleet::Plan;
use support::process::Process;
use support::wait::{PATIENCE, until};
use support::{fail, program};

use crate::world::{World, guest, run};

const DISK_KIB: u32 = 600;
const ERRORS: &str = "latchkey_disk_errors_total";

/// Ends, and with it the namespace and the disk, with the value.
struct Disk {
    holder: Process,
    data_folder: PathBuf,
}

impl Disk {
    /// None, and why, where this system allows nobody but root of the whole host to mount.
    async fn mount(world: &World) -> Result<Self, String> {
        let may = run("unshare", |command| {
            command.args(["-rm", "mount", "-t", "tmpfs", "none", "/mnt"]);
        });
        let may = may.await;
        if !may.status.success() {
            return Err(String::from_utf8_lossy(&may.stderr).into_owned());
        }
        let data_folder = world.fleet.edge_setup.data_folder();
        let script = format!("mount -t tmpfs -o size={DISK_KIB}k,mode=0700 none {data_folder:?} && exec sleep 3600");
        let unshare = program::other("unshare").unwrap();
        let logs = world.fleet.folder.path();
        let holder = Process::start("disk", &unshare, logs, |command| {
            command.args(["-rm", "sh", "-c", &script]);
        });
        let disk = Self { holder: holder.unwrap(), data_folder };
        let mounted = until("the disk", PATIENCE, async || {
            let mounts = fs::read_to_string(format!("/proc/{}/mounts", disk.holder.id()))?;
            let folder = disk.data_folder.to_string_lossy().into_owned();
            if mounts.lines().any(|line| line.contains(&folder)) { Ok(()) } else { fail(mounts) }
        });
        mounted.await.unwrap();
        Ok(disk)
    }

    /// The data folder as the edge sees it.
    fn folder(&self) -> PathBuf {
        let inside = self.data_folder.strip_prefix("/").unwrap();
        PathBuf::from(format!("/proc/{}/root", self.holder.id())).join(inside)
    }

    fn filler(&self) -> PathBuf {
        self.folder().join("filler")
    }

    /// Until not a byte is left.
    fn fill(&self) {
        let mut file = fs::File::options().create(true).append(true).open(self.filler()).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        assert!(file.write_all(&[0]).is_err(), "it is full");
    }

    fn enter(&self) -> Vec<String> {
        let holder = self.holder.id().to_string();
        ["nsenter", "-t", &holder, "-U", "-m", "--preserve-credentials", "--"].map(str::to_owned).to_vec()
    }

    /// Files that were begun and not finished.
    fn partial_files(&self) -> Vec<PathBuf> {
        let (mut folders, mut partial) = (vec![self.folder()], Vec::new());
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                if entry.is_dir() {
                    folders.push(entry);
                } else if entry.extension().is_some_and(|extension| extension == "partial") {
                    partial.push(entry);
                }
            }
        }
        partial
    }
}

async fn restart(world: &mut World) {
    world.fleet.edge.process.stop().await.unwrap();
    world.fleet.edge = Edge::start(&world.fleet.edge_setup).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_costs_no_request_and_nothing_that_was_kept() {
    let mut world = World::start(Plan::default()).await;
    let disk = match Disk::mount(&world).await {
        Ok(disk) => disk,
        Err(why) => return eprintln!("SKIPPED: this user may not mount a disk in a namespace of its own: {why}"),
    };
    world.fleet.edge_setup.within = disk.enter();
    world.fleet.edge_setup.admin = Some(world.fleet.folder.path().join("admin.sock"));
    restart(&mut world).await;
    let config = json!({
        "upstreams": {"sample": {"url": world.upstream.url()}},
        "sites": [{"hosts": ["*"], "upstream": "sample"}],
    });
    world.fleet.edge.apply(&config).await.unwrap();
    world.issue("before.example").await;
    world.still_serves("before.example").await;
    until("the bundle to be kept", PATIENCE, async || {
        let kept = fs::read_dir(disk.folder().join("bundles"))?.count();
        if kept > 0 { Ok(()) } else { fail("none is") }
    })
    .await
    .unwrap();

    disk.fill();
    let before = world.metric(ERRORS, "").await;
    // What is new is served, from memory.
    for name in ["one.example", "two.example"] {
        world.issue(name).await;
        world.still_serves(name).await;
    }
    world.still_serves("before.example").await;
    world.grows(ERRORS, "", before, 2.0).await;
    world.says(&["free space on the file system of data_dir"]).await;

    // What can't be kept is not done, and says so.
    let mut changed = config.clone();
    changed["sites"][0]["hosts"] = json!(["*", "*.shop.example"]);
    let refused = world.fleet.edge.admin.put("/v1/config", changed.to_string()).await.unwrap();
    assert_eq!(refused.status, 500, "{}", refused.text());
    assert!(refused.text().contains("No space left on device"), "{}", refused.text());
    let (_, refused) = world.fleet.edge.upload(fs::read(guest("hsts")).unwrap()).await.unwrap();
    assert_eq!(refused.status, 500, "{}", refused.text());
    assert!(refused.text().contains("No space left on device"), "{}", refused.text());
    let running = world.fleet.edge.admin.get("/v1/config").await.unwrap().json().unwrap();
    assert_eq!(running["sites"][0]["hosts"], json!(["*"]), "{running:#}");
    let partial = disk.partial_files();
    assert!(partial.is_empty(), "something half written stays: {partial:?}");

    // A restart on the full disk serves what was kept before.
    world.fleet.certservice.process.kill();
    restart(&mut world).await;
    world.still_serves("before.example").await;
    world.fleet.certservice = CertService::start(&world.fleet.certservice_setup).await.unwrap();

    // Space is back: all goes on by itself.
    fs::remove_file(disk.filler()).unwrap();
    let errors = world.metric(ERRORS, "").await;
    world.fleet.edge.apply(&changed).await.unwrap();
    world.issue("after.example").await;
    world.still_serves("after.example").await;
    let operator = world.fleet.certservice.as_operator();
    operator.send(Method::GET, "/v1/domains/after.example", &[], "").await.unwrap().expect(200).unwrap();
    until("the bundle to be kept", PATIENCE, async || {
        let (mut folders, mut kept) = (vec![disk.folder().join("bundles")], 0);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)?.map(|entry| entry.unwrap().path()) {
                if entry.is_dir() { folders.push(entry) } else { kept += 1 }
            }
        }
        if kept >= 2 { Ok(()) } else { fail(format!("{kept} are")) }
    })
    .await
    .unwrap();
    assert_eq!(world.metric(ERRORS, "").await, errors, "no further error");
    world.fleet.certservice.process.kill();
    restart(&mut world).await;
    world.still_serves("after.example").await;
    let running = world.fleet.edge.admin.get("/v1/config").await.unwrap().json().unwrap();
    assert_eq!(running["sites"][0]["hosts"], json!(["*", "*.shop.example"]), "{running:#}");
}
