use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use contract::plugin::{self, SIGNATURE_HEADER};
use contract::signed::SigningKey;
use reqwest::Method;

use crate::api::{Api, Reply};
use crate::certservice;
use crate::process::Process;
use crate::{Context, Result, fail, folder, program};

/// How a proxy is to be started; started again with the same value, it is the same edge after a restart.
#[derive(Clone)]
pub struct Setup {
    /// Boot file, data folder and log are here.
    pub folder: PathBuf,
    pub https: SocketAddr,
    pub http: SocketAddr,
    pub key: PathBuf,
    /// Lines of `[edge]` in place of that.
    pub edge: Option<String>,
    pub redis_url: Option<String>,
    /// More lines of `[redis]`.
    pub redis_settings: String,
    /// More lines of each listener.
    pub listener_settings: String,
    /// More of the boot file: settings of its last section, `[plugins]`, and further sections.
    pub settings: String,
    certservice_url: String,
    /// Lines of `[certservice]` in place of its address and token.
    pub certservice: Option<String>,
    token_file: PathBuf,
    verify_key: PathBuf,
    /// A command that the proxy is started by, which takes its command line as further arguments. Empty: by itself.
    pub within: Vec<String>,
    /// Where the admin socket is, if not in the data folder.
    pub admin: Option<PathBuf>,
    /// What it logs, as RUST_LOG has it.
    pub log: Option<&'static str>,
    /// Signs the plugins that are pushed. Its public key stands beside it, and is trusted.
    pub plugin_key: PathBuf,
}

/// Makes an edge key in `folder`: the private key's file. The public key stands beside it, see [`public_key`].
pub fn generate_key(folder: &Path) -> Result<PathBuf> {
    let key = folder.join("edge.pem");
    let output = Command::new(program::own("latchkey-proxy")?).arg("keygen").arg("--out").arg(&key).output()?;
    if !output.status.success() {
        return fail(format!("latchkey-proxy keygen: {}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(key)
}

pub fn public_key(private: &Path) -> PathBuf {
    private.with_extension("pem.pub")
}

impl Setup {
    pub fn new(
        folder: &Path,
        key: PathBuf,
        certservice: &certservice::Setup,
        https: SocketAddr,
        http: SocketAddr,
    ) -> Result<Self> {
        let (plugin_key, pem) = SigningKey::generate()?;
        let plugin_key_file = folder.join("plugins.pem");
        folder::write(&plugin_key_file, &*pem)?;
        folder::write(&public_key(&plugin_key_file), plugin_key.public_pem())?;
        Ok(Self {
            folder: folder.to_owned(),
            https,
            http,
            key,
            edge: None,
            redis_url: certservice.redis_url.clone(),
            redis_settings: certservice.redis_settings.clone(),
            listener_settings: String::new(),
            settings: String::new(),
            within: Vec::new(),
            admin: None,
            certservice_url: certservice.url(),
            certservice: None,
            token_file: certservice.edge_token_file(),
            verify_key: certservice.verify_key(),
            log: None,
            plugin_key: plugin_key_file,
        })
    }

    pub fn data_folder(&self) -> PathBuf {
        self.folder.join("proxy")
    }

    pub fn admin_socket(&self) -> PathBuf {
        self.admin.clone().unwrap_or_else(|| self.data_folder().join("admin.sock"))
    }

    pub fn boot_file_path(&self) -> PathBuf {
        self.folder.join("proxy.toml")
    }

    pub fn boot_file(&self) -> String {
        let redis = self
            .redis_url
            .as_ref()
            .map(|url| format!("[redis]\nurl = {url:?}\n{}", self.redis_settings))
            .unwrap_or_default();
        let by_token = || format!("url = {:?}\ntoken_file = {:?}", self.certservice_url, self.token_file);
        let certservice = self.certservice.clone().unwrap_or_else(by_token);
        format!(
            "data_dir = {:?}\n\
             [[listeners]]\nname = \"https\"\naddress = \"{}\"\nprotocol = \"https\"\n{more}\n\
             [[listeners]]\nname = \"http\"\naddress = \"{}\"\nprotocol = \"http\"\nredirect_port = {}\n{more}\n\
             [edge]\n{edge}\n\
             [certservice]\n{certservice}\nverify_keys = [{:?}]\n{redis}\
             [admin]\nlisten = \"unix:{}\"\n\
             [plugins]\ntrusted_keys = [{:?}]\n{}",
            self.data_folder(),
            self.https,
            self.http,
            self.https.port(),
            self.verify_key,
            self.admin_socket().display(),
            public_key(&self.plugin_key),
            self.settings,
            edge = self.edge.clone().unwrap_or_else(|| format!("key_file = {:?}", self.key)),
            more = self.listener_settings,
        )
    }
}

pub struct Edge {
    pub process: Process,
    pub admin: Api,
    plugin_key: PathBuf,
}

impl Edge {
    /// Up with whatever configuration it had; none on the first start.
    pub async fn start(setup: &Setup) -> Result<Self> {
        let program = program::own("latchkey-proxy")?;
        let boot_file = setup.boot_file_path();
        folder::write(&boot_file, setup.boot_file())?;
        let starter = setup.within.first().map(|name| program::other(name)).transpose()?;
        let mut process = Process::start("proxy", starter.as_ref().unwrap_or(&program), &setup.folder, |command| {
            if starter.is_some() {
                command.args(&setup.within[1..]).arg(&program);
            }
            command.arg("--config").arg(&boot_file);
            command.envs(setup.log.map(|log| ("RUST_LOG", log)));
        })?;
        let admin = Api::unix(&setup.admin_socket())?;
        process.until_ready(async || admin.get("/healthz").await?.expect(200)).await?;
        Ok(Self { process, admin, plugin_key: setup.plugin_key.clone() })
    }

    pub async fn apply(&self, config: &serde_json::Value) -> Result<()> {
        self.admin.put("/v1/config", config.to_string()).await?.expect(200).context("apply the configuration")
    }

    /// Signs and uploads a plugin: its digest, as a configuration names it.
    pub async fn push(&self, component: &Path) -> Result<String> {
        let bytes = std::fs::read(component).context(component.display())?;
        let (digest, reply) = self.upload(bytes).await?;
        match reply.status {
            200 | 201 => Ok(digest),
            status => fail(format!("push {}: status {status}: {}", component.display(), reply.text())),
        }
    }

    /// The same with whatever bytes: their digest, and what the proxy says.
    pub async fn upload(&self, bytes: Vec<u8>) -> Result<(String, Reply)> {
        let digest = contract::bundle::sha256(&bytes);
        let key = SigningKey::from_pem(&folder::read(&self.plugin_key)?)?;
        let signature = plugin::sign(&digest, &key).to_string();
        let digest = format!("sha256:{}", certservice::hex(&digest));
        let headers = [(SIGNATURE_HEADER, signature.as_str())];
        let reply = self.admin.send(Method::PUT, &format!("/v1/plugins/{digest}"), &headers, bytes).await?;
        Ok((digest, reply))
    }
}
