//! A fleet with a configuration in force, and one upstream behind it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output};

use contract::{Bundle, Hostname, redis_keys};
use serde_json::{Value, json};
use support::fleet::{Fleet, Plan};
use support::upstream::Upstream;
use support::visitor::{Connection, Visitor};
use support::wait::{PATIENCE, until};
use support::{fail, port, program, proxy_header};

pub(crate) const PLUGINS: [&str; 3] = ["hsts", "redirects", "proxy-policy"];
/// Trusted to send PROXY headers; 127.0.0.1 is not.
pub(crate) const BALANCER: [u8; 4] = [127, 0, 0, 2];
/// A client that only a PROXY header can name (RFC 5737).
pub(crate) const CLIENT: &str = "203.0.113.7:51000";
pub(crate) const CLIENT_IP: &str = "203.0.113.7";

pub(crate) struct World {
    pub(crate) fleet: Fleet,
    pub(crate) upstream: Upstream,
    digests: BTreeMap<&'static str, String>,
}

impl World {
    pub(crate) async fn start(plan: Plan) -> Self {
        let fleet = Fleet::start(plan).await.unwrap();
        let upstream = Upstream::start("sample", port::free().unwrap()).await.unwrap();
        let mut digests = BTreeMap::new();
        for plugin in PLUGINS {
            digests.insert(plugin, fleet.edge.push(&guest(plugin)).await.unwrap());
        }
        let world = Self { fleet, upstream, digests };
        world.fleet.edge.apply(&world.config()).await.unwrap();
        world
    }

    /// Every host goes to the upstream, with HSTS and one redirect; both listeners trust one balancer.
    pub(crate) fn config(&self) -> Value {
        let digests: BTreeMap<_, _> =
            self.digests.iter().map(|(name, digest)| (name, json!({"digest": digest}))).collect();
        let trust = json!({"trusted": ["127.0.0.2/32"], "header": "require", "deny": ["198.51.100.0/24"]});
        let policy = json!({"plugins": [{"plugin": "proxy-policy", "config": trust, "on_failure": "closed"}]});
        json!({
            "plugins": digests,
            "upstreams": {"sample": {"url": self.upstream.url()}},
            "sites": [{
                "hosts": ["*"],
                "upstream": "sample",
                "plugins": [
                    {"plugin": "hsts", "config": {"max_age": 86400}},
                    {"plugin": "redirects", "config": {"rules": [{"from": "/old", "to": "/new", "status": 308}]}},
                ],
            }],
            "listeners": {"https": policy, "http": policy},
        })
    }

    /// Registers a domain and waits for its certificate.
    pub(crate) async fn issue(&self, name: &str) {
        let operator = self.fleet.certservice.as_operator();
        let path = format!("/v1/domains/{name}");
        operator.put(&path, "{}").await.unwrap().expect(201).unwrap();
        let live = until(format!("{name} to be live"), PATIENCE, async || {
            let domain = operator.get(&path).await?.json()?;
            if domain["state"] == "live" { Ok(()) } else { fail(domain.to_string()) }
        });
        live.await.unwrap();
    }

    pub(crate) async fn visitor(&self) -> Visitor {
        self.fleet.visitor().await.unwrap()
    }

    pub(crate) async fn https(&self, host: &str) -> Connection {
        self.visitor().await.https(host).await.unwrap()
    }

    /// A direct visitor of the plain listener.
    pub(crate) fn plain(&self) -> Visitor {
        Visitor::to(self.fleet.edge_setup.http)
    }

    pub(crate) fn v1(&self) -> Vec<u8> {
        proxy_header::v1(client(), self.fleet.edge_setup.https)
    }

    pub(crate) fn v2(&self) -> Vec<u8> {
        proxy_header::v2(client(), self.fleet.edge_setup.https)
    }

    pub(crate) async fn metric(&self, name: &str, label: &str) -> f64 {
        self.fleet.edge.admin.metric(name, label).await.unwrap()
    }

    /// Waits until a counter has grown by `by` since `before`.
    pub(crate) async fn grows(&self, name: &str, label: &str, before: f64, by: f64) {
        let grown = until(format!("{name} {label} to grow from {before}"), PATIENCE, async || {
            let now = self.metric(name, label).await;
            if now >= before + by { Ok(()) } else { fail(format!("it is {now}")) }
        });
        grown.await.unwrap();
    }

    /// Waits until the proxy has logged a line with all `parts`.
    pub(crate) async fn says(&self, parts: &[&str]) -> String {
        self.fleet.edge.process.says(parts).await.unwrap()
    }

    /// The proxy answers a known name: it has survived.
    pub(crate) async fn still_serves(&self, host: &str) {
        assert_eq!(self.https(host).await.get(host, "/").await.unwrap().status, 200);
    }

    pub(crate) async fn cached_token(&self, name: &str) -> String {
        let key = redis_keys::bundle(&hostname(name));
        self.fleet.redis.as_ref().unwrap().get(&key).await.unwrap().unwrap()
    }

    pub(crate) async fn cache_token(&self, name: &str, token: &str) {
        let key = redis_keys::bundle(&hostname(name));
        self.fleet.redis.as_ref().unwrap().set(&key, token).await.unwrap();
    }

    /// The bundle of a domain as CertService gives it to edges, its signature verified.
    pub(crate) async fn bundle(&self, name: &str) -> Bundle {
        let reply = self.fleet.certservice.as_edge().get(&format!("/v1/bundles/{name}")).await.unwrap();
        reply.expect(200).unwrap();
        let pem = support::folder::read(&self.fleet.certservice_setup.verify_key()).unwrap();
        let keys = contract::signed::VerifyKeys::from_pems([pem.as_str()]).unwrap();
        contract::signed::verify(&reply.text(), &keys).unwrap()
    }
}

pub(crate) fn client() -> SocketAddr {
    CLIENT.parse().unwrap()
}

pub(crate) fn hostname(name: &str) -> Hostname {
    Hostname::parse(name).unwrap()
}

pub(crate) fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

pub(crate) fn guest(name: &str) -> PathBuf {
    let file = repository().join(format!("plugins/built/{name}.wasm"));
    assert!(file.is_file(), "{} is missing: run plugins/build.sh", file.display());
    file
}

/// Runs another program, off this test's thread, on which its upstream runs.
pub(crate) async fn run(name: &str, arguments: impl FnOnce(&mut Command)) -> Output {
    let mut command = Command::new(program::other(name).unwrap());
    arguments(&mut command);
    output(command).await
}

pub(crate) async fn output(mut command: Command) -> Output {
    command.stdin(std::process::Stdio::null());
    tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
