//! A plugin runs only if somebody whom the boot file trusts has signed it.

use std::process::Command;

use contract::bundle::sha256;
use contract::plugin::{SIGNATURE_HEADER, sign};
use contract::signed::SigningKey;
use reqwest::Method;
use support::api::Reply;
use support::edge::Edge;
use support::fleet::Plan;
use support::{folder, program};

use crate::world::{World, guest, output, stderr, stdout};

impl World {
    async fn upload(&self, signature: Option<&str>) -> Reply {
        let component = std::fs::read(guest("require-header")).unwrap();
        let path = format!("/v1/plugins/sha256:{}", support::certservice::hex(&sha256(&component)));
        let headers: Vec<_> = signature.iter().map(|signature| (SIGNATURE_HEADER, *signature)).collect();
        self.fleet.edge.admin.send(Method::PUT, &path, &headers, component).await.unwrap()
    }

    async fn loaded(&self) -> usize {
        let plugins = self.fleet.edge.admin.get("/v1/plugins").await.unwrap().json().unwrap();
        plugins["plugins"].as_array().unwrap().len()
    }

    fn trusted_key(&self) -> SigningKey {
        SigningKey::from_pem(&folder::read(&self.fleet.edge_setup.plugin_key).unwrap()).unwrap()
    }

    async fn restart(&mut self) {
        self.fleet.edge.process.stop().await.unwrap();
        self.fleet.edge = Edge::start(&self.fleet.edge_setup).await.unwrap();
    }
}

#[tokio::test]
async fn refuses_a_plugin_that_nobody_trusted_has_signed() {
    let world = World::start(Plan::default()).await;
    let (trusted, (stranger, _)) = (world.trusted_key(), SigningKey::generate().unwrap());
    let digest = sha256(&std::fs::read(guest("require-header")).unwrap());
    let good = sign(&digest, &trusted).to_string();
    let of_another = sign(&[7; 32], &trusted).to_string();
    let foreign = sign(&digest, &stranger).to_string();
    for (signature, code, says) in [
        (None, "unsigned", "latchkey plugin sign"),
        (Some("nonsense"), "bad_signature", "ed25519 <kid>"),
        (Some(&*of_another), "bad_signature", trusted.kid()),
        (Some(&*foreign), "unknown_key", stranger.kid()),
    ] {
        let reply = world.upload(signature).await;
        let problem = reply.json().unwrap();
        assert_eq!((reply.status, problem["code"].as_str()), (403, Some(code)), "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(says), "{problem}");
        assert_eq!(world.loaded().await, 3, "nothing was taken");
    }
    assert_eq!(world.metric("latchkey_config_revision", "").await, 1.0);
    let reply = world.upload(Some(&good)).await;
    assert_eq!((reply.status, reply.json().unwrap()["signed_by"].as_str()), (201, Some(trusted.kid())));
    assert_eq!(world.upload(Some(&good)).await.status, 200);
    assert_eq!(world.upload(None).await.status, 403, "known or not, the signature is asked for");
}

#[tokio::test]
async fn a_plugin_on_disk_whose_signature_is_gone_does_not_run() {
    let mut world = World::start(Plan::default()).await;
    let good = sign(&sha256(&std::fs::read(guest("require-header")).unwrap()), &world.trusted_key()).to_string();
    world.upload(Some(&good)).await.expect(201).unwrap();
    world.restart().await;
    assert_eq!(world.loaded().await, 4, "signatures are kept");
    let digest = support::certservice::hex(&sha256(&std::fs::read(guest("require-header")).unwrap()));
    let file = world.fleet.edge_setup.data_folder().join(format!("plugins/{digest}.sig"));
    std::fs::remove_file(file).unwrap();
    world.restart().await;
    assert_eq!(world.loaded().await, 3);
    world.says(&["plugin is not loaded any more: the plugin is not signed"]).await;
}

#[tokio::test]
async fn unsigned_plugins_are_taken_where_the_boot_file_says_so() {
    let mut world = World::start(Plan::default()).await;
    world.fleet.edge_setup.settings = "accept_unsigned = true\n".into();
    world.restart().await;
    world.says(&["plugins without a signature are accepted"]).await;
    assert_eq!(world.upload(None).await.status, 201);
    let of_another = sign(&[7; 32], &world.trusted_key()).to_string();
    assert_eq!(world.upload(Some(&of_another)).await.status, 403, "one that is given must be good");
}

#[tokio::test]
async fn an_operator_makes_a_key_signs_and_pushes() {
    let mut world = World::start(Plan::default()).await;
    let at = |name: &str| world.fleet.folder.path().join(name).display().to_string();
    let (key, component) = (at("own.pem"), at("guest.wasm"));
    std::fs::copy(guest("require-header"), &component).unwrap();
    let socket = world.fleet.edge_setup.admin_socket();
    let plugin = async |arguments: &[&str]| {
        let mut command = Command::new(program::own("latchkey").unwrap());
        command.arg("plugin").args(arguments).env("LATCHKEY_ADMIN", format!("unix:{}", socket.display()));
        output(command).await
    };
    let made = plugin(&["keygen", "--out", &key]).await;
    assert!(stdout(&made).contains("plugins.trusted_keys"), "{}{}", stdout(&made), stderr(&made));
    assert_eq!(plugin(&["keygen", "--out", &key]).await.status.code(), Some(1), "never over an existing key");
    let unsigned = plugin(&["push", &component]).await;
    assert!(unsigned.status.code() == Some(1) && stderr(&unsigned).contains("not signed"), "{}", stderr(&unsigned));
    assert!(plugin(&["sign", "--key", &key, &component]).await.status.success());
    let unknown = plugin(&["push", &component]).await;
    assert!(stderr(&unknown).contains("not among plugins.trusted_keys"), "{}", stderr(&unknown));

    let public = folder::read(format!("{key}.pub").as_ref()).unwrap();
    folder::write(&support::edge::public_key(&world.fleet.edge_setup.plugin_key), public).unwrap();
    // What the key before has signed is not trusted now: the configuration goes before the key does.
    world.fleet.edge.apply(&serde_json::json!({})).await.unwrap();
    world.restart().await;
    let pushed = plugin(&["push", &component]).await;
    assert!(stdout(&pushed).starts_with("sha256:"), "{}{}", stdout(&pushed), stderr(&pushed));
    assert!(stdout(&plugin(&["ls"]).await).contains("signed by"));
}
