//! The edge's private key in a PKCS #11 token: SoftHSM2's, with keys that `latchkey-proxy` and OpenSC make.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use support::edge::{self, Edge};
use support::fleet::Plan;
use support::visitor::Visitor;
use support::wait::{PATIENCE, until};
use support::{port, program};

use crate::world::{World, output, stderr, stdout};

const PIN: &str = "493817-the-pin";

/// A host of an edge with a token of its own, which CertService does not know yet.
struct Host {
    folder: PathBuf,
    setup: edge::Setup,
}

fn module() -> PathBuf {
    let places = ["/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so"];
    let found = places.map(PathBuf::from).into_iter().find(|path| path.is_file());
    found.expect("SoftHSM2 is not installed; `make setup-test` installs it")
}

impl Host {
    async fn new(world: &World) -> Self {
        let folder = world.fleet.folder.subfolder("token-edge").unwrap();
        std::fs::create_dir(folder.join("tokens")).unwrap();
        let conf = format!("directories.tokendir = {}\nobjectstore.backend = file\n", folder.join("tokens").display());
        std::fs::write(folder.join("softhsm2.conf"), conf).unwrap();
        let addresses = [(); 2].map(|()| port::free().unwrap());
        let key = folder.join("edge.pem");
        let mut setup =
            edge::Setup::new(&folder, key, &world.fleet.certservice_setup, addresses[0], addresses[1]).unwrap();
        setup.within = vec!["env".into(), format!("SOFTHSM2_CONF={}", folder.join("softhsm2.conf").display())];
        let host = Self { folder, setup };
        host.pin(PIN);
        let made = host
            .run("softhsm2-util", &["--init-token", "--free", "--label", "edges", "--pin", PIN, "--so-pin", "5678"]);
        let made = made.await;
        assert!(made.status.success(), "{}{}", stdout(&made), stderr(&made));
        host.named("key_label = \"fra1\"")
    }

    fn pin(&self, pin: &str) {
        use std::os::unix::fs::PermissionsExt;
        let file = self.folder.join("pin");
        std::fs::write(&file, format!("{pin}\n")).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn named(mut self, key: &str) -> Self {
        let (module, pin) = (module(), self.folder.join("pin"));
        let pkcs11 = format!("module = {module:?}, token_label = \"edges\", {key}, pin_file = {pin:?}");
        self.setup.edge = Some(format!("pkcs11 = {{ {pkcs11} }}"));
        std::fs::write(self.setup.boot_file_path(), self.setup.boot_file()).unwrap();
        self
    }

    async fn run(&self, name: &str, arguments: &[&str]) -> Output {
        let program = program::own(name).or_else(|_| program::other(name)).unwrap();
        let mut command = Command::new(program);
        command.args(arguments).env("SOFTHSM2_CONF", self.folder.join("softhsm2.conf"));
        output(command).await
    }

    /// Of `latchkey-proxy`, with the boot file at the end.
    async fn proxy(&self, arguments: &[&str]) -> (bool, String) {
        let boot_file = self.setup.boot_file_path();
        let output = self.run("latchkey-proxy", &[arguments, &[boot_file.to_str().unwrap()]].concat()).await;
        (output.status.success(), stdout(&output) + &stderr(&output))
    }

    async fn keygen(&self) -> (bool, String) {
        let out = self.folder.join("edge.pem");
        self.proxy(&["keygen", "--out", out.to_str().unwrap(), "--in-token"]).await
    }

    fn public_key(&self) -> PathBuf {
        edge::public_key(&self.folder.join("edge.pem"))
    }

    async fn opensc(&self, arguments: &[&str]) -> Output {
        let module = module();
        let all =
            [&["--module", module.to_str().unwrap(), "--token-label", "edges", "--login", "--pin", PIN], arguments];
        self.run("pkcs11-tool", &all.concat()).await
    }

    async fn visit(&self, world: &World, name: &str) -> support::Result<Vec<String>> {
        let visitor = Visitor::to(self.setup.https).trusting(&world.fleet.root().await?)?;
        visitor.https(name).await.map(|connection| connection.names())
    }
}

async fn add(world: &World, public_key: &Path) {
    let pem = std::fs::read_to_string(public_key).unwrap();
    let body = serde_json::json!({"pool": "tokens", "public_key": pem}).to_string();
    let operator = world.fleet.certservice.as_operator();
    operator.send(reqwest::Method::POST, "/v1/keys", &[], body).await.unwrap().expect(201).unwrap();
}

#[tokio::test]
async fn an_edge_serves_with_a_key_that_never_leaves_its_token() {
    let world = World::start(Plan::default()).await;
    world.issue("before.example").await;
    let host = Host::new(&world).await;
    let (good, says) = host.keygen().await;
    assert!(good, "{says}");
    assert!(!host.folder.join("edge.pem").exists(), "only the public key is written");
    let (good, says) = host.keygen().await;
    assert!(!good && says.contains("has a key `fra1` already"), "{says}");
    add(&world, &host.public_key()).await;
    world.issue("after.example").await;

    let edge = Edge::start(&host.setup).await.unwrap();
    assert_eq!(host.visit(&world, "after.example").await.unwrap(), ["after.example"]);
    // What was issued before is wrapped for it by the edge that has a file, and tried with the token.
    assert!(host.visit(&world, "before.example").await.is_err());
    let rewrap = |boot_file: PathBuf, to: Option<PathBuf>| {
        let host = &host;
        async move {
            let to = to.map(|to| ["--to".to_owned(), to.display().to_string()]);
            let boot_file = boot_file.display().to_string();
            let arguments = ["rewrap", "--json", "--config", &boot_file];
            let to = to.iter().flatten().map(String::as_str);
            let output = host.run("latchkey-proxy", &arguments.into_iter().chain(to).collect::<Vec<_>>()).await;
            assert!(output.status.success(), "{}", stderr(&output));
            serde_json::from_str::<serde_json::Value>(&stdout(&output)).unwrap()
        }
    };
    let wrapped = rewrap(world.fleet.edge_setup.boot_file_path(), Some(host.public_key())).await;
    assert_eq!((&wrapped["rewrapped"], &wrapped["refused"]), (&1.into(), &0.into()));
    assert_eq!(rewrap(host.setup.boot_file_path(), None).await["confirmed"], 1);
    let served = until("what was wrapped", PATIENCE, async || host.visit(&world, "before.example").await);
    assert_eq!(served.await.unwrap(), ["before.example"]);

    let log = edge.process.log();
    assert!(log.contains("the edge's key is in a token") && log.contains("Raw"), "{log}");
    assert!(!log.contains(PIN), "{log}");
}

#[tokio::test]
async fn a_token_that_was_away_is_taken_up_again_and_nothing_is_lost_meanwhile() {
    let world = World::start(Plan::default()).await;
    let host = Host::new(&world).await;
    assert!(host.keygen().await.0);
    add(&world, &host.public_key()).await;
    for name in ["warm.example", "kept.example", "cold.example"] {
        world.issue(name).await;
    }
    let mut edge = Edge::start(&host.setup).await.unwrap();
    for name in ["warm.example", "kept.example"] {
        assert_eq!(host.visit(&world, name).await.unwrap(), [name]);
    }
    let on_disk = host.setup.data_folder().join("bundles");
    let kept = until("both bundles on disk", PATIENCE, async || match files_in(&on_disk) {
        2 => Ok(()),
        files => support::fail(format!("{files}")),
    });
    kept.await.unwrap();
    let _ = edge.process.stop().await;
    edge = Edge::start(&host.setup).await.unwrap();
    assert_eq!(host.visit(&world, "warm.example").await.unwrap(), ["warm.example"]);

    let (tokens, away) = (host.folder.join("tokens"), host.folder.join("away"));
    std::fs::rename(&tokens, &away).unwrap();
    std::fs::create_dir(&tokens).unwrap();
    for name in ["kept.example", "cold.example"] {
        assert!(host.visit(&world, name).await.is_err(), "{name}");
    }
    // What is in memory is served, and what is on disk stays there.
    assert_eq!(host.visit(&world, "warm.example").await.unwrap(), ["warm.example"]);
    assert_eq!(files_in(&on_disk), 2);
    let refused = edge.admin.metric("latchkey_tls_handshakes_total", "key_unavailable").await.unwrap();
    assert!(refused >= 2.0, "{refused}: {}", edge.process.log());

    std::fs::remove_dir(&tokens).unwrap();
    std::fs::rename(&away, &tokens).unwrap();
    for name in ["kept.example", "cold.example"] {
        let served = until(format!("{name} again"), PATIENCE, async || host.visit(&world, name).await);
        assert_eq!(served.await.unwrap(), [name]);
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_token_is_said_at_start() {
    let world = World::start(Plan::default()).await;
    let host = Host::new(&world).await;
    let (good, says) = host.proxy(&["--check", "--config"]).await;
    assert!(!good && says.contains("no RSA private key `fra1`") && says.contains("keygen --in-token"), "{says}");

    // OpenSC makes one that the token would give away, and one that it would not.
    let make = ["--keypairgen", "--key-type", "rsa:2048", "--usage-decrypt"];
    let loose = host.opensc(&[&make[..], &["--label", "loose", "--id", "01", "--extractable"]].concat()).await;
    assert!(loose.status.success(), "{}", stderr(&loose));
    let host = host.named("key_label = \"loose\"");
    let (good, says) = host.proxy(&["--check", "--config"]).await;
    assert!(!good && says.contains("CKA_EXTRACTABLE"), "{says}");
    let tight = host.opensc(&[&make[..], &["--label", "tight", "--id", "02a0"]].concat()).await;
    assert!(tight.status.success(), "{}", stderr(&tight));
    let host = host.named("key_id = \"02a0\"");
    let (good, says) = host.proxy(&["--check", "--config"]).await;
    assert!(good, "{says}");

    host.pin("not-the-pin");
    let (good, says) = host.proxy(&["--check", "--config"]).await;
    assert!(!good && says.contains("refuses the PIN") && !says.contains("not-the-pin"), "{says}");
    host.pin(PIN);
    assert!(host.proxy(&["--check", "--config"]).await.0);
    let elsewhere = host.setup.edge.clone().unwrap().replace("\"edges\"", "\"other\"");
    let mut host = host;
    host.setup.edge = Some(elsewhere);
    std::fs::write(host.setup.boot_file_path(), host.setup.boot_file()).unwrap();
    let (good, says) = host.proxy(&["--check", "--config"]).await;
    assert!(!good && says.contains("no token `other`") && says.contains("`edges`"), "{says}");
}

fn files_in(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { files_in(&path) } else { 1 }).sum()
}
