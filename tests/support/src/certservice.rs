use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::api::Api;
use crate::process::Process;
use crate::{Context, Result, folder, port, program};

/// How a CertService is to be started; started again with the same value, it is the same service after a restart.
#[derive(Clone)]
pub struct Setup {
    /// Boot file, tokens, data folder and log are here.
    pub folder: PathBuf,
    pub address: SocketAddr,
    /// Public keys (PEM files) of the edges.
    pub edges: Vec<PathBuf>,
    pub issuers: Vec<Issuer>,
    /// Default: SQLite in the data folder.
    pub store_url: Option<String>,
    pub redis_url: Option<String>,
    /// More lines of `[redis]`.
    pub redis_settings: String,
    /// An RSA certificate beside the ECDSA one.
    pub rsa: bool,
    /// On a Unix socket instead of its address: private keys are not taken in clear.
    pub on_socket: bool,
    /// More sections of the boot file.
    pub settings: String,
    edge_token: String,
    operator_token: String,
}

#[derive(Clone)]
pub enum Issuer {
    Internal,
    Acme {
        directory: String,
        root_file: PathBuf,
        resolver: SocketAddr,
        ports: (u16, u16),
        tls_alpn: bool,
    },
    /// A table of the boot file, as it stands.
    Written(String),
}

impl Setup {
    pub fn new(folder: &Path, edges: &[PathBuf], issuers: &[Issuer]) -> Result<Self> {
        let setup = Self {
            folder: folder.to_owned(),
            address: port::free()?,
            edges: edges.to_vec(),
            issuers: issuers.to_vec(),
            store_url: None,
            redis_url: None,
            redis_settings: String::new(),
            rsa: false,
            on_socket: false,
            settings: String::new(),
            edge_token: random_token()?,
            operator_token: random_token()?,
        };
        write_private(&setup.edge_token_file(), &setup.edge_token)?;
        write_private(&setup.operator_token_file(), &setup.operator_token)?;
        Ok(setup)
    }

    /// Where it listens, as its clients name it.
    pub fn url(&self) -> String {
        if self.on_socket { self.listen() } else { format!("http://{}", self.address) }
    }

    fn listen(&self) -> String {
        if self.on_socket { format!("unix:{}", self.socket().display()) } else { self.address.to_string() }
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("certservice.sock")
    }

    fn api(&self, token: &str) -> Result<Api> {
        let api = if self.on_socket { Api::unix(&self.socket())? } else { Api::http(&self.url(), None)? };
        Ok(api.with_token(token))
    }

    pub fn edge_token_file(&self) -> PathBuf {
        self.folder.join("edge.token")
    }

    pub fn operator_token_file(&self) -> PathBuf {
        self.folder.join("operator.token")
    }

    pub fn operator_token(&self) -> &str {
        &self.operator_token
    }

    pub fn data_folder(&self) -> PathBuf {
        self.folder.join("certservice")
    }

    /// What edges verify its signatures with; there once it has started.
    pub fn verify_key(&self) -> PathBuf {
        self.data_folder().join("signing.pub")
    }

    /// The root certificate of the internal CA.
    pub fn internal_root(&self) -> PathBuf {
        self.data_folder().join("internal-ca/internal/ca.pem")
    }

    fn boot_file(&self) -> String {
        let quoted: Vec<String> = self.edges.iter().map(|path| format!("{path:?}")).collect();
        let mut text = format!(
            "data_dir = {:?}\n[listen]\naddress = \"{}\"\n[edges]\nprivate_keys_in_reach = true\npublic_keys = [{}]\n",
            self.data_folder(),
            self.listen(),
            quoted.join(", ")
        );
        for (role, token) in [("edge", &self.edge_token), ("operator", &self.operator_token)] {
            text.push_str(&format!("[[tokens]]\nrole = \"{role}\"\nsha256 = \"{}\"\n", sha256_hex(token)));
        }
        for (section, url, more) in [("store", &self.store_url, ""), ("redis", &self.redis_url, &self.redis_settings)] {
            if let Some(url) = url {
                text.push_str(&format!("[{section}]\nurl = {url:?}\n{more}"));
            }
        }
        if self.rsa {
            text.push_str("[issuance]\nrsa = true\n");
        }
        for issuer in &self.issuers {
            text.push_str(&match issuer {
                Issuer::Written(table) => table.clone(),
                Issuer::Internal => {
                    "[[issuers]]\nname = \"internal\"\nkind = \"internal\"\nvalidity_days = 30\n".into()
                }
                Issuer::Acme { directory, root_file, resolver, ports, tls_alpn } => format!(
                    "[[issuers]]\nname = \"acme\"\nkind = \"acme\"\ndirectory = {directory:?}\n\
                     contact = [\"mailto:ops@example.com\"]\nroot_file = {root_file:?}\n{}\
                     [precheck]\naddresses = [\"127.0.0.1\"]\nresolver = \"{resolver}\"\nhttp_port = {}\nhttps_port = {}\n",
                    if *tls_alpn { "challenges = [\"tls-alpn-01\"]\n" } else { "" },
                    ports.0,
                    ports.1
                ),
            });
        }
        text + &self.settings
    }
}

pub struct CertService {
    pub process: Process,
    edge: Api,
    operator: Api,
}

impl CertService {
    pub async fn start(setup: &Setup) -> Result<Self> {
        let program = program::own("latchkey-certservice")?;
        let boot_file = setup.folder.join("certservice.toml");
        folder::write(&boot_file, setup.boot_file())?;
        let mut process = Process::start("certservice", &program, &setup.folder, |command| {
            command.arg("--config").arg(&boot_file);
        })?;
        let operator = setup.api(&setup.operator_token)?;
        let edge = setup.api(&setup.edge_token)?;
        process.until_ready(async || operator.get("/readyz").await?.expect(200)).await?;
        Ok(Self { process, edge, operator })
    }

    /// Its API, as an edge.
    pub fn as_edge(&self) -> &Api {
        &self.edge
    }

    /// Its API, as an operator.
    pub fn as_operator(&self) -> &Api {
        &self.operator
    }
}

fn random_token() -> Result<String> {
    let mut bytes = [0; 32];
    openssl::rand::rand_bytes(&mut bytes)?;
    Ok(hex(&bytes))
}

fn sha256_hex(token: &str) -> String {
    hex(&contract::bundle::sha256(token.as_bytes()))
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn write_private(path: &Path, content: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(content.as_bytes())).context(path.display())
}
