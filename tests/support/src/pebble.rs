//! Let's Encrypt's test CA, with its DNS server that sends every name to loopback. Its quirks stay on: it refuses 5 % of
//! nonces. Its delays before validation are off.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use reqwest::{Certificate, Client};
use serde_json::json;
use tokio::net::TcpStream;

use crate::authority::Authority;
use crate::process::Process;
use crate::{Context, Result, folder, port, program};

pub struct Pebble {
    pub process: Process,
    pub names: Process,
    /// The ACME directory.
    pub directory: String,
    /// Root of the certificate of Pebble's own API.
    pub api_root: PathBuf,
    /// Its DNS server.
    pub resolver: SocketAddr,
    management: String,
    dns_management: SocketAddr,
    client: Client,
}

impl Pebble {
    /// `http_port` is where it validates http-01, in place of port 80, `tls_port` where tls-alpn-01, in place of 443.
    pub async fn start(folder: &Path, http_port: u16, tls_port: u16) -> Result<Self> {
        let (api, management) = (port::free()?, port::free()?);
        let (dns, dns_management) = (port::free()?, port::free()?);
        let authority = Authority::new("Pebble's API in a test")?;
        let api_root = folder.join("pebble-api-root.pem");
        folder::write(&api_root, authority.root_pem()?)?;
        let served = authority.issue("127.0.0.1")?;
        let (certificate, key) = (folder.join("pebble-api.pem"), folder.join("pebble-api.key"));
        folder::write(&certificate, served.certificate.to_pem()?)?;
        folder::write(&key, served.key.private_key_to_pem_pkcs8()?)?;
        let config = folder.join("pebble.json");
        let content = json!({"pebble": {
            "listenAddress": api,
            "managementListenAddress": management,
            "certificate": certificate,
            "privateKey": key,
            "httpPort": http_port,
            "tlsPort": tls_port,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
            "retryAfter": {"authz": 1, "order": 1},
        }});
        folder::write(&config, content.to_string())?;

        let names = start_names(folder, dns, dns_management).await?;
        let mut process = Process::start("pebble", &program::other("pebble")?, folder, |command| {
            command.arg("-config").arg(&config).args(["-dnsserver", &dns.to_string()]);
            command.env("PEBBLE_VA_NOSLEEP", "1");
        })?;
        let root = Certificate::from_pem(folder::read(&api_root)?.as_bytes())?;
        let client = Client::builder().no_proxy().user_agent("latchkey-tests").add_root_certificate(root).build()?;
        let directory = format!("https://127.0.0.1:{}/dir", api.port());
        process.until_ready(async || Ok(client.get(&directory).send().await?.error_for_status().map(drop)?)).await?;
        let management = format!("https://127.0.0.1:{}", management.port());
        Ok(Self { process, names, directory, api_root, resolver: dns, management, dns_management, client })
    }

    /// What the name resolves to from now on; none: loopback again.
    pub async fn point(&self, host: &str, address: Option<&str>) -> Result<()> {
        let (verb, body) = match address {
            Some(address) => ("add-a", json!({"host": format!("{host}."), "addresses": [address]})),
            None => ("clear-a", json!({"host": format!("{host}.")})),
        };
        let url = format!("http://{}/{verb}", self.dns_management);
        Ok(self.client.post(url).body(body.to_string()).send().await?.error_for_status().map(drop)?)
    }

    /// Root of the certificates that it issues; another one at each start.
    pub async fn issuing_root(&self) -> Result<String> {
        Ok(self.client.get(format!("{}/roots/0", self.management)).send().await?.error_for_status()?.text().await?)
    }
}

async fn start_names(folder: &Path, dns: SocketAddr, management: SocketAddr) -> Result<Process> {
    let program = program::other("pebble-challtestsrv")?;
    let (dns, management) = (dns.to_string(), management.to_string());
    let mut process = Process::start("challtestsrv", &program, folder, |command| {
        command.args(["-dnsserver", &dns, "-management", &management, "-defaultIPv4", "127.0.0.1"]);
        command.args(["-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", ""]);
    })?;
    process.until_ready(async || TcpStream::connect(&management).await.map(drop).context("connect")).await?;
    Ok(process)
}
