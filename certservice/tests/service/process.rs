//! The real `latchkey-certservice` in a folder of its own.

use std::fs::File;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use contract::api::{Domain, State};
use contract::sealed::EdgeKey;
use contract::signed::VerifyKeys;

use crate::http::{Answer, exchange, exchange_with};

pub const LISTEN: &str = "[listen]\naddress = \"unix:cs.sock\"\n";
pub const INTERNAL: &str = "[[issuers]]\nname = \"internal\"\nkind = \"internal\"\n";

/// Ends the process when dropped.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub struct CertService {
    pub folder: tempfile::TempDir,
    pub edge: EdgeKey,
    process: Option<Running>,
}

impl CertService {
    /// With the issuers, and what else `settings` hold.
    pub fn new(settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let edge = EdgeKey::generate(2048).unwrap();
        std::fs::write(folder.path().join("edge.pub"), edge.public_pem().unwrap()).unwrap();
        let service = Self { folder, edge, process: None };
        service.configure(LISTEN, settings);
        service
    }

    pub fn configure(&self, listen: &str, settings: &str) {
        let text = format!("data_dir = \"data\"\n{listen}[edges]\npublic_keys = [\"edge.pub\"]\n{settings}");
        std::fs::write(self.path("cs.toml"), text).unwrap();
    }

    pub fn started(settings: &str) -> Self {
        let mut service = Self::new(settings);
        service.start();
        service
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Mode 0600.
    pub fn write_secret(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), text).unwrap();
        std::fs::set_permissions(self.path(name), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_latchkey-certservice"));
        command.arg("--config").arg(self.path("cs.toml")).args(["--log-format", "json"]);
        command.env("RUST_LOG", "info,certservice=trace").stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// Starts it; its log is appended to `log`.
    pub fn start(&mut self) {
        self.spawn();
        wait_for("the socket", || UnixStream::connect(self.path("cs.sock")).ok());
    }

    pub fn spawn(&mut self) {
        let log = File::options().append(true).create(true).open(self.path("log")).unwrap();
        self.process = Some(Running(self.command().stderr(log).spawn().unwrap()));
    }

    /// As `kill -9` does.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Waits until somebody else has killed it.
    pub fn wait_killed(&mut self) {
        let status = wait_for("the end of the process", || self.process().try_wait().unwrap());
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{status}");
    }

    pub fn process(&mut self) -> &mut Child {
        &mut self.process.as_mut().unwrap().0
    }

    pub fn call(&self, method: &str, path: &str, token: Option<&str>, body: &str) -> Answer {
        exchange(UnixStream::connect(self.path("cs.sock")).unwrap(), method, path, token, body.as_bytes())
    }

    pub fn get(&self, path: &str) -> Answer {
        self.call("GET", path, None, "")
    }

    pub fn get_as_edge(&self, path: &str, edge: &str) -> Answer {
        let header = format!("latchkey-edge: {edge}\r\n");
        exchange_with(UnixStream::connect(self.path("cs.sock")).unwrap(), "GET", path, &header, b"")
    }

    pub fn put(&self, domain: &str, body: &str) -> Answer {
        self.call("PUT", &format!("/v1/domains/{domain}"), None, body)
    }

    pub fn domain(&self, name: &str) -> Domain {
        serde_json::from_slice(&self.get(&format!("/v1/domains/{name}")).body).unwrap()
    }

    /// Polls until a domain is as `wanted`.
    pub fn wait(&self, name: &str, wanted: impl Fn(&Domain) -> bool) -> Domain {
        let mut last = None;
        let deadline = Instant::now() + Duration::from_secs(180);
        while Instant::now() < deadline {
            let domain = self.domain(name);
            if wanted(&domain) {
                return domain;
            }
            last = Some(domain);
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{name} stays {last:?}; log:\n{}", self.log());
    }

    pub fn wait_live(&self, name: &str) -> Domain {
        self.wait(name, |domain| domain.state == State::Live && domain.code == "issued")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub fn verify_keys(&self) -> VerifyKeys {
        let pem = std::fs::read_to_string(self.path("data/signing.pub")).unwrap();
        VerifyKeys::from_pems([pem.as_str()]).unwrap()
    }
}

pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not come within 120 s");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Every file below `folder`.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}
