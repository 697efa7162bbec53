//! CertService's store is lost and comes back from a backup: edges go on serving, and hear of all that comes after.

use std::path::{Path, PathBuf};
use std::process::Command;

use reqwest::Method;
use support::certservice::CertService;
use support::fleet::Plan;
use support::wait::{PATIENCE, until};
use support::{fail, program};

use crate::world::{World, output, stdout};

fn database(world: &World) -> PathBuf {
    world.fleet.certservice_setup.data_folder().join("certservice.db")
}

/// The SQLite database and what belongs to it.
fn files(database: &Path) -> [PathBuf; 3] {
    ["", "-wal", "-shm"].map(|end| PathBuf::from(format!("{}{end}", database.display())))
}

/// `latchkey-certservice backup` or `restore` with the boot file that the service runs with.
async fn command(world: &World, name: &str, option: &str, file: &Path) {
    let mut command = Command::new(program::own("latchkey-certservice").unwrap());
    let boot_file = world.fleet.certservice_setup.folder.join("certservice.toml");
    command.arg(name).arg("--config").arg(boot_file).arg(option).arg(file);
    let done = output(command).await;
    assert!(done.status.success(), "{name}: {}{}", stdout(&done), crate::world::stderr(&done));
}

async fn restart(world: &mut World, meanwhile: impl AsyncFnOnce(&World)) {
    world.fleet.certservice.process.stop().await.unwrap();
    meanwhile(world).await;
    world.fleet.certservice = CertService::start(&world.fleet.certservice_setup).await.unwrap();
}

async fn revision(world: &World, name: &str) -> u64 {
    let domain = world.fleet.certservice.as_operator().get(&format!("/v1/domains/{name}")).await.unwrap();
    domain.json().unwrap()["certificate"]["revision"].as_u64().unwrap()
}

/// Renews, until the edge serves the new certificate.
async fn renew(world: &World, name: &str) {
    let (visitor, before) = (world.visitor().await, world.https(name).await.fingerprint().unwrap());
    let path = format!("/v1/domains/{name}:renew");
    let asked = world.fleet.certservice.as_operator().send(Method::POST, &path, &[], "").await.unwrap();
    asked.expect(202).unwrap();
    let served = until(format!("the new certificate of {name}"), PATIENCE, async || {
        let now = visitor.https(name).await?.fingerprint()?;
        if now == before { fail("the old one is served") } else { Ok(()) }
    });
    served.await.unwrap();
}

async fn appears(world: &World, name: &str) {
    world.issue(name).await;
    let visitor = world.visitor().await;
    until(format!("{name} to be served"), PATIENCE, async || visitor.https(name).await.map(drop)).await.unwrap();
}

#[tokio::test]
async fn after_a_restore_edges_serve_on_and_take_what_comes_next() {
    let mut world = World::start(Plan::default()).await;
    world.issue("shop.example").await;
    world.still_serves("shop.example").await;
    let backup = world.fleet.folder.path().join("store.backup");
    command(&world, "backup", "--out", &backup).await;
    // The edge is two certificates and a name ahead of the backup.
    renew(&world, "shop.example").await;
    renew(&world, "shop.example").await;
    appears(&world, "late.example").await;
    assert_eq!(revision(&world, "shop.example").await, 3);
    let cursor = world.metric("latchkey_changes_cursor", "").await;
    restart(&mut world, async |world| {
        files(&database(world)).iter().for_each(|file| drop(std::fs::remove_file(file)));
        command(world, "restore", "--from", &backup).await;
    })
    .await;
    assert_eq!(revision(&world, "shop.example").await, 1);
    let read_again = until("the edge to read the feed again", PATIENCE, async || {
        let now = world.metric("latchkey_changes_cursor", "").await;
        if now > cursor + 1e12 { Ok(()) } else { fail(format!("its cursor is {now}")) }
    });
    read_again.await.unwrap();
    // What the edge has, it serves; also what the store knows nothing of any more.
    world.still_serves("shop.example").await;
    world.still_serves("late.example").await;
    // Its certificate is of revision 3; the next one has to be above that, or the edge would not take it.
    renew(&world, "shop.example").await;
    assert!(revision(&world, "shop.example").await > 1000);
    appears(&world, "new.example").await;
}

/// Files that were copied, not restored: cursors go back, and the edge sees it.
#[tokio::test]
async fn a_feed_that_went_back_is_read_anew() {
    let mut world = World::start(Plan::default()).await;
    world.issue("shop.example").await;
    let copy = world.fleet.folder.subfolder("copy").unwrap().join("certservice.db");
    let copied = copy.clone();
    restart(&mut world, async |world| {
        std::fs::copy(database(world), &copied).unwrap();
    })
    .await;
    for name in ["one.example", "two.example"] {
        appears(&world, name).await;
    }
    // shop, one, two: the edge has read further than the copy goes.
    world.grows("latchkey_changes_cursor", "", 0.0, 3.0).await;
    restart(&mut world, async |world| {
        files(&database(world)).iter().for_each(|file| drop(std::fs::remove_file(file)));
        std::fs::copy(&copy, database(world)).unwrap();
    })
    .await;
    world.says(&["the feed of changes went back"]).await;
    world.still_serves("shop.example").await;
    appears(&world, "new.example").await;
}
