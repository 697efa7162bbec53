use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use support::api::Api;
use support::certservice::hex;
use support::process::Process;
use support::wait::until;
use support::{Context, Result, fail, folder, port, program};

use super::{Addresses, HSTS_SECONDS, LATCHKEY, START_PATIENCE, Server};

/// How an edge is to be started.
pub struct LatchkeySetup<'a> {
    /// Has `edge.pem` and `signing.pub`; boot file, data and log go here too.
    pub folder: &'a Path,
    pub certservice: SocketAddr,
    pub redis_url: Option<String>,
    pub upstream: SocketAddr,
    pub redirects: &'a [(String, String)],
    pub warm_mib_max: u64,
}

pub struct Latchkey {
    pub server: Server,
    pub admin: Api,
}

impl LatchkeySetup<'_> {
    fn data_folder(&self) -> PathBuf {
        self.folder.join("proxy")
    }

    fn boot_file(&self, addresses: &Addresses) -> String {
        let redis = self.redis_url.as_ref().map(|url| format!("[redis]\nurl = {url:?}\n")).unwrap_or_default();
        let policies = addresses.policies.map_or(String::new(), |address| {
            format!("[[listeners]]\nname = \"policies\"\naddress = \"{address}\"\nprotocol = \"https\"\n")
        });
        format!(
            "data_dir = {:?}\nthreads = 1\n\
             [[listeners]]\nname = \"plain\"\naddress = \"{}\"\nprotocol = \"https\"\n{policies}\
             [edge]\nkey_file = {:?}\n\
             [certservice]\nurl = \"http://{}\"\nverify_keys = [{:?}]\n{redis}\
             [tls]\nwarm_mib_max = {}\nrefresh_seconds = 86400\n\
             [plugins]\naccept_unsigned = true\n\
             [limits]\nconnections_per_client_max = 0\n",
            self.data_folder(),
            addresses.plain,
            self.folder.join("edge.pem"),
            self.certservice,
            self.folder.join("signing.pub"),
            self.warm_mib_max,
        )
    }

    /// Without plugins on one host, with HSTS and redirects on the other; PROXY headers on the second listener.
    fn config(&self, plain: &str, policies: &str, digests: &[(&str, String)]) -> Value {
        let plugins: serde_json::Map<_, _> =
            digests.iter().map(|(name, digest)| ((*name).to_owned(), json!({"digest": digest}))).collect();
        let rules: Vec<_> =
            self.redirects.iter().map(|(from, to)| json!({"from": from, "to": to, "status": 308})).collect();
        json!({
            "plugins": plugins,
            "upstreams": {"site": {"url": format!("http://{}", self.upstream)}},
            "sites": [
                {"hosts": [plain], "upstream": "site"},
                {"hosts": [policies], "upstream": "site", "plugins": [
                    {"plugin": "hsts", "config": {"max_age": HSTS_SECONDS}},
                    {"plugin": "redirects", "config": {"rules": rules}},
                ]},
            ],
            "listeners": {"policies": {"plugins": [
                {"plugin": "proxy-policy", "config": {"trusted": ["127.0.0.0/8"]}},
            ]}},
        })
    }

    /// With the three first-party plugins, for requests.
    pub async fn start_with_plugins(&self, plain: &str, policies: &str) -> Result<Latchkey> {
        let edge = self.start(Some(port::free()?)).await?;
        let mut digests = Vec::new();
        for plugin in ["hsts", "redirects", "proxy-policy"] {
            digests.push((plugin, push(&edge.admin, plugin).await?));
        }
        apply(&edge.admin, &self.config(plain, policies, &digests)).await?;
        Ok(edge)
    }

    /// Every host goes to the upstream, for handshakes.
    pub async fn start_for_all(&self) -> Result<Latchkey> {
        let edge = self.start(None).await?;
        let upstreams = json!({"site": {"url": format!("http://{}", self.upstream)}});
        let sites = json!([{"hosts": ["*"], "upstream": "site"}]);
        apply(&edge.admin, &json!({"upstreams": upstreams, "sites": sites})).await?;
        Ok(edge)
    }

    async fn start(&self, policies: Option<SocketAddr>) -> Result<Latchkey> {
        let addresses = Addresses { plain: port::free()?, policies };
        let boot_file = self.folder.join("proxy.toml");
        folder::write(&boot_file, self.boot_file(&addresses))?;
        let program = program::own("latchkey-proxy")?;
        let mut process = Process::start(LATCHKEY, &program, self.folder, |command| {
            command.env("RUST_LOG", "warn").arg("--config").arg(&boot_file);
        })?;
        let admin = Api::unix(&self.data_folder().join("admin.sock"))?;
        process.until_ready(async || admin.get("/healthz").await?.expect(200)).await?;
        let version = super::version(&program, "--version");
        Ok(Latchkey { server: Server { name: LATCHKEY, process, addresses, version }, admin })
    }
}

impl Latchkey {
    /// Waits until it has heard of all names.
    pub async fn until_listed(&self, names: usize) -> Result<()> {
        let listed = until(format!("{names} names to be listed"), START_PATIENCE, async || {
            let known = self.admin.metric("latchkey_known_names", "").await?;
            if known >= names as f64 { Ok(()) } else { fail(format!("{known} are")) }
        });
        listed.await
    }
}

async fn apply(admin: &Api, config: &Value) -> Result<()> {
    admin.put("/v1/config", config.to_string()).await?.expect(200).context("apply the configuration")
}

/// Uploads a guest: its digest.
pub async fn push(admin: &Api, plugin: &str) -> Result<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../plugins/built/{plugin}.wasm"));
    let bytes = std::fs::read(&file).context(format!("{}: run plugins/build.sh", file.display()))?;
    let digest = format!("sha256:{}", hex(&contract::bundle::sha256(&bytes)));
    let reply = admin.put(&format!("/v1/plugins/{digest}"), bytes).await?;
    match reply.status {
        200 | 201 => Ok(digest),
        status => fail(format!("push {plugin}: status {status}: {}", reply.text())),
    }
}
