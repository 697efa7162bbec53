//! A Redis that takes TLS with client certificates only, and a user who may do what is needed and nothing else.

use std::path::PathBuf;

use support::authority::Authority;
use support::certservice::{CertService, Issuer, Setup};
use support::edge::{self, Edge};
use support::folder::Folder;
use support::process::{Process, Signal};
use support::visitor::Visitor;
use support::wait::{PATIENCE, until};
use support::{fail, port, program};

use crate::world::{run, stdout};

/// As docs/certservice.md says it.
const USER: &str =
    "user fleet on >s3cret ~latchkey:* &latchkey:* -@all +get +set +del +setex +publish +subscribe +ping +hello";

struct Guarded {
    folder: Folder,
    port: u16,
    process: Process,
}

impl Guarded {
    async fn start() -> Self {
        let folder = Folder::new().unwrap();
        let authority = Authority::new("redis").unwrap();
        folder.write("redis-ca.pem", authority.root_pem().unwrap()).unwrap();
        for name in ["127.0.0.1", "client.example"] {
            let issued = authority.issue(name).unwrap();
            folder.write(&format!("{name}.pem"), issued.certificate.to_pem().unwrap()).unwrap();
            let key = folder.write(&format!("{name}.key"), issued.key.private_key_to_pem_pkcs8().unwrap()).unwrap();
            std::fs::set_permissions(key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        }
        folder.write("users.acl", format!("user default off\n{USER}\n")).unwrap();
        let port = port::free().unwrap().port();
        let process = Self::redis(&folder, port).await;
        Self { folder, port, process }
    }

    async fn redis(folder: &Folder, port: u16) -> Process {
        let file = |name: &str| folder.path().join(name);
        let mut process = Process::start("redis", &program::other("redis-server").unwrap(), folder.path(), |command| {
            command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port", "0"]);
            command
                .args(["--tls-port", &port.to_string(), "--tls-auth-clients", "yes", "--aclfile"])
                .arg(file("users.acl"));
            command.arg("--tls-ca-cert-file").arg(file("redis-ca.pem")).arg("--dir").arg(folder.path());
            command.arg("--tls-cert-file").arg(file("127.0.0.1.pem")).arg("--tls-key-file").arg(file("127.0.0.1.key"));
        })
        .unwrap();
        process.until_ready(async || Ok(std::net::TcpStream::connect(("127.0.0.1", port))?)).await.unwrap();
        process
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn settings(&self) -> String {
        format!(
            "ca_file = {:?}\ncertificate_file = {:?}\nkey_file = {:?}\n",
            self.file("redis-ca.pem"),
            self.file("client.example.pem"),
            self.file("client.example.key")
        )
    }

    fn certservice(&self) -> Setup {
        let key = edge::generate_key(self.folder.path()).unwrap();
        let mut setup = Setup::new(self.folder.path(), &[edge::public_key(&key)], &[Issuer::Internal]).unwrap();
        setup.redis_url = Some(format!("rediss://fleet:s3cret@127.0.0.1:{}/0", self.port));
        setup.redis_settings = self.settings();
        setup
    }

    async fn ask(&self, arguments: &[&str]) -> String {
        let answer = run("redis-cli", |command| {
            command.args([
                "-p",
                &self.port.to_string(),
                "--tls",
                "--user",
                "fleet",
                "--pass",
                "s3cret",
                "--no-auth-warning",
            ]);
            command.arg("--cacert").arg(self.file("redis-ca.pem")).arg("--cert").arg(self.file("client.example.pem"));
            command.arg("--key").arg(self.file("client.example.key")).args(arguments);
        });
        stdout(&answer.await)
    }

    async fn until_cached(&self, domain: &str) {
        let cached = until(format!("{domain} in Redis"), PATIENCE, async || {
            let token = self.ask(&["GET", &format!("latchkey:bundle:{domain}")]).await;
            if token.starts_with("ey") { Ok(()) } else { fail(token) }
        });
        cached.await.unwrap();
    }
}

async fn issue(certservice: &CertService, domain: &str) {
    let path = format!("/v1/domains/{domain}");
    certservice.as_operator().put(&path, "{}").await.unwrap().expect(201).unwrap();
    let live = until(format!("{domain} to be live"), PATIENCE, async || {
        let state = certservice.as_operator().get(&path).await?.json()?;
        if state["state"] == "live" { Ok(()) } else { fail(state.to_string()) }
    });
    live.await.unwrap();
}

#[tokio::test]
async fn certificates_pass_through_redis_with_tls_and_a_narrow_user() {
    let mut guarded = Guarded::start().await;
    let setup = guarded.certservice();
    let certservice = CertService::start(&setup).await.unwrap();
    issue(&certservice, "shop.example").await;
    guarded.until_cached("shop.example").await;
    assert!(guarded.ask(&["FLUSHALL"]).await.contains("NOPERM"));

    // Redis goes and comes back empty: both sides connect again, and what is issued next is there.
    guarded.process.stop().await.unwrap();
    guarded.process = Guarded::redis(&guarded.folder, guarded.port).await;
    let refilled = until("what is issued next to reach Redis", PATIENCE, async || {
        let name = format!("n{}.example", rand());
        issue(&certservice, &name).await;
        let token = guarded.ask(&["GET", &format!("latchkey:bundle:{name}")]).await;
        if token.starts_with("ey") { Ok(name) } else { fail(token) }
    });
    let name = refilled.await.unwrap();

    // An edge serves from it while CertService stands still.
    let (https, http) = (port::free().unwrap(), port::free().unwrap());
    let edge_setup = edge::Setup::new(guarded.folder.path(), guarded.file("edge.pem"), &setup, https, http).unwrap();
    let edge = Edge::start(&edge_setup).await.unwrap();
    let root = support::folder::read(&setup.internal_root()).unwrap();
    let visitor = Visitor::to(https).trusting(&root).unwrap();
    certservice.process.signal(Signal::STOP);
    let served = visitor.https(&name).await;
    certservice.process.signal(Signal::CONT);
    assert!(served.is_ok(), "{:?}: {}", served.err(), edge.process.log_tail());
}

fn rand() -> u32 {
    std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.subsec_nanos())
}
