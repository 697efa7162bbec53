//! Edge keys that come and go while all runs: what was issued before is wrapped anew on an edge's host, and nothing is issued
//! again.

use std::path::{Path, PathBuf};
use std::process::Command;

use contract::sealed::EdgeKey;
use serde_json::Value;
use support::edge;
use support::fleet::Plan;
use support::folder::read;
use support::program;
use support::visitor::Visitor;
use support::wait::{PATIENCE, until};

use crate::world::{World, output, stderr, stdout};

/// `latchkey keys …` as an operator; the exit code, and what it printed.
async fn keys(world: &World, arguments: &[&str]) -> (i32, String) {
    let setup = &world.fleet.certservice_setup;
    let mut command = Command::new(program::own("latchkey").unwrap());
    command.arg("--json").arg("keys").args(arguments);
    command.env("LATCHKEY_CERTSERVICE", setup.url()).env("LATCHKEY_TOKEN", setup.operator_token());
    let output = output(command).await;
    (output.status.code().unwrap(), stdout(&output) + &stderr(&output))
}

/// `latchkey keys rewrap` on the host of an edge.
async fn rewrap(setup: &edge::Setup, to: &[&Path]) -> Value {
    let mut command = Command::new(program::own("latchkey").unwrap());
    command.args(["--json", "keys", "rewrap", "--config"]).arg(setup.boot_file_path());
    to.iter().for_each(|key| {
        command.arg("--to").arg(key);
    });
    let output = output(command).await;
    assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
    serde_json::from_str(&stdout(&output)).unwrap()
}

/// Of an edge key in the custody report: opens, unconfirmed, lacks, alone.
async fn custody(world: &World, key: &Path) -> [u64; 4] {
    let kid = kid(key);
    let reply = world.fleet.certservice.as_operator().get("/v1/custody").await.unwrap().json().unwrap();
    let of_key = reply["keys"].as_array().unwrap().iter().find(|of| of["kid"] == *kid).unwrap().clone();
    ["sealed", "unconfirmed", "missing", "alone"].map(|what| of_key[what].as_u64().unwrap())
}

fn kid(key: &Path) -> String {
    EdgeKey::from_pem(read(key).unwrap().as_bytes()).unwrap().kid().to_owned()
}

/// A host for another edge, whose key CertService does not know.
fn another_host(world: &World, name: &str) -> (PathBuf, edge::Setup) {
    let folder = world.fleet.folder.subfolder(name).unwrap();
    let key = edge::generate_key(&folder).unwrap();
    let [https, http] = [(); 2].map(|()| support::port::free().unwrap());
    let setup = edge::Setup::new(&folder, key.clone(), &world.fleet.certservice_setup, https, http).unwrap();
    (key, setup)
}

async fn visits(world: &World, setup: &edge::Setup, host: &str) -> support::Result<Vec<String>> {
    let visitor = Visitor::to(setup.https).trusting(&world.fleet.root().await?)?;
    visitor.https(host).await.map(|connection| connection.names())
}

async fn moves_to_another_key(plan: Plan) {
    let names = ["a.example", "b.example", "c.example"];
    let world = World::start(plan).await;
    for name in names {
        world.issue(name).await;
        world.still_serves(name).await;
    }
    let before = world.bundle("a.example").await;
    let (new, setup) = another_host(&world, "new-edge");
    let old = world.fleet.edge_setup.key.clone();
    let public = edge::public_key(&new);

    let (code, says) = keys(&world, &["add", "new", public.to_str().unwrap()]).await;
    assert_eq!(code, 0, "{says}");
    assert_eq!((custody(&world, &old).await, custody(&world, &new).await), ([3, 0, 0, 3], [0, 0, 3, 0]));
    let new_edge = edge::Edge::start(&setup).await.unwrap();
    assert!(visits(&world, &setup, "a.example").await.is_err());
    let (code, says) = keys(&world, &["retire", "--", &kid(&old)]).await;
    assert!(code == 1 && says.contains("3 bundles"), "{says}");
    let (code, says) = keys(&world, &["custody"]).await;
    assert!(code == 1 && says.contains("lacks 3 bundles"), "{says}");

    let wrapped = rewrap(&world.fleet.edge_setup, &[&public]).await;
    assert_eq!(
        (&wrapped["looked_at"], &wrapped["rewrapped"], &wrapped["confirmed"]),
        (&3.into(), &3.into(), &0.into())
    );
    assert_eq!(custody(&world, &new).await, [0, 3, 0, 0]);
    // It is done: begun again it finds nothing to do.
    assert_eq!(rewrap(&world.fleet.edge_setup, &[&public]).await["looked_at"], 0);
    let confirmed = rewrap(&setup, &[]).await;
    assert_eq!((&confirmed["rewrapped"], &confirmed["confirmed"]), (&0.into(), &3.into()));
    assert_eq!((custody(&world, &old).await, custody(&world, &new).await), ([3, 0, 0, 0], [3, 0, 0, 0]));

    let (code, says) = keys(&world, &["retire", "--", &kid(&old)]).await;
    assert_eq!(code, 0, "{says}");
    // Nothing was issued anew, but what the old key opened is taken out.
    let cleaned = until("the old key's entries to be gone", PATIENCE, async || match world.bundle("a.example").await {
        bundle if bundle.certificates().all(|(_, key)| key.recipients.len() == 1) => Ok(bundle),
        bundle => support::fail(format!("{} entries", bundle.key.recipients.len())),
    });
    let after = cleaned.await.unwrap();
    assert_eq!((after.revision, &after.x5c, &after.key.tag), (before.revision, &before.x5c, &before.key.tag));
    assert_eq!(custody(&world, &old).await, [0, 0, 3, 0]);
    for name in names {
        let served = until(format!("{name} from the new edge"), PATIENCE, async || visits(&world, &setup, name).await);
        assert_eq!(served.await.unwrap(), [name]);
        // The edge of the old key serves on with what it has.
        world.still_serves(name).await;
    }
    let (code, says) = keys(&world, &["retire", "--", &kid(&new)]).await;
    assert!(code == 1 && says.contains("last active edge key"), "{says}");
    let journal = world.fleet.certservice.as_operator().get("/v1/audit").await.unwrap().text();
    for action in ["key.added", "key.retired", "bundles.rewrapped", "bundles.cleaned"] {
        assert!(journal.contains(action), "{action}: {journal}");
    }
    drop(new_edge);
}

#[tokio::test]
async fn a_fleet_moves_to_another_edge_key_and_nothing_is_issued_anew() {
    moves_to_another_key(Plan::default()).await;
}

#[tokio::test]
async fn also_with_two_certificates_each_with_mariadb_and_redis() {
    moves_to_another_key(Plan { rsa: true, mariadb: true, redis: true, ..Plan::default() }).await;
}

#[tokio::test]
async fn an_edge_without_the_key_is_not_believed() {
    let world = World::start(Plan::default()).await;
    world.issue("a.example").await;
    let edge = world.fleet.certservice.as_edge();
    let kid = kid(&world.fleet.edge_setup.key);
    let page = edge.get(&format!("/v1/rewrap?kid={kid}")).await.unwrap();
    page.expect(200).unwrap();
    assert_eq!(page.json().unwrap()["bundles"].as_array().unwrap().len(), 0);
    let body = serde_json::json!({"kid": kid, "bundles": [{"name": "a.example", "version": "", "opens": false}]});
    for proof in ["", "AAAA", "%"] {
        let reply =
            edge.send(reqwest::Method::POST, "/v1/rewrap", &[("latchkey-proof", proof)], body.to_string()).await;
        let reply = reply.unwrap();
        assert_eq!((reply.status, reply.json().unwrap()["code"].as_str()), (403, Some("no_proof")), "{proof}");
    }
    let unknown = edge.get("/v1/rewrap?kid=none").await.unwrap();
    assert_eq!((unknown.status, unknown.json().unwrap()["code"].as_str()), (404, Some("unknown_key")));
    world.still_serves("a.example").await;
}
