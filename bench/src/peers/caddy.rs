use std::net::SocketAddr;
use std::path::Path;

use support::authority::Authority;
use support::{Context, Result, fail, folder, port, program};

use super::{Addresses, CADDY, HSTS_SECONDS, Server, Site, start, version};

const NOT_INSTALLED: &str = "caddy is not installed (deploy/setup/bench.sh builds it where Go is)";

pub(super) async fn proxy(site: &Site<'_>) -> Result<Server> {
    let program = program::find("caddy").context(NOT_INSTALLED)?;
    let (plain, policies) = (port::free()?, port::free()?);
    let addresses = Addresses { plain, policies: Some(policies) };
    let tls = format!("bind 127.0.0.1\ntls {} {}\n", site.chain.display(), site.key.display());
    let rules: String = site.redirects.iter().map(|(from, to)| format!("redir {from} {to} 308\n")).collect();
    let proxy = format!(
        "reverse_proxy {} {{\nheader_up X-Forwarded-For {{client_ip}}\nheader_up -X-Real-IP\n\
         header_up Forwarded \"for={{client_ip}};host={{host}};proto=https\"\n\
         transport http {{\nkeepalive_idle_conns_per_host 1024\ncompression off\n}}\n}}\n",
        site.upstream
    );
    let (host, plain_port, policies_port) = (site.host, plain.port(), policies.port());
    let config = format!(
        "{{\nadmin off\nauto_https off\npersist_config off\nstorage file_system {}\n\
         servers 127.0.0.1:{policies_port} {{\nlistener_wrappers {{\nproxy_protocol {{\ntimeout 5s\nallow 127.0.0.0/8\n}}\ntls\n}}\n}}\n}}\n\
         https://{host}:{plain_port} {{\n{tls}{proxy}}}\n\
         https://{host}:{policies_port} {{\n{tls}header Strict-Transport-Security max-age={HSTS_SECONDS}\n{rules}{proxy}}}\n",
        site.folder.join("caddy").display(),
    );
    let file = site.folder.join("Caddyfile");
    folder::write(&file, config)?;
    run(&program, site.folder, &file, addresses).await
}

/// Any name, if the endpoint says that it exists, with certificates from Redis.
pub async fn caddy_on_demand(
    folder: &Path,
    redis_url: &str,
    permission: SocketAddr,
    upstream: SocketAddr,
) -> Result<Server> {
    let program = program::find("caddy").context(NOT_INSTALLED)?;
    let modules = std::process::Command::new(&program).arg("list-modules").output()?;
    if !String::from_utf8_lossy(&modules.stdout).contains("caddy.storage.redis") {
        return fail(
            "this caddy has no storage in Redis (deploy/setup/bench.sh builds one where its source can be had)",
        );
    }
    let redis = redis_url.trim_start_matches("redis://").trim_end_matches("/0");
    let (redis_host, redis_port) = redis.rsplit_once(':').context("the address of Redis")?;
    let plain = port::free()?;
    let config = format!(
        "{{\nadmin off\npersist_config off\nskip_install_trust\nauto_https disable_redirects\n\
         storage redis {{\nhost {redis_host}\nport {redis_port}\nkey_prefix caddy\n}}\n\
         on_demand_tls {{\nask http://{permission}/\n}}\n}}\n\
         https://:{} {{\nbind 127.0.0.1\ntls {{\nissuer internal\non_demand\n}}\nreverse_proxy {upstream}\n}}\n",
        plain.port()
    );
    let file = folder.join("Caddyfile-on-demand");
    folder::write(&file, config)?;
    run(&program, folder, &file, Addresses { plain, policies: None }).await
}

/// A certificate as that storage keeps it: keys of Redis and their values.
pub fn caddy_stores(authority: &Authority, host: &str) -> Result<Vec<(String, String)>> {
    let issued = authority.issue(host)?;
    let chain = [issued.certificate.to_pem()?, authority.root_pem()?].concat();
    // Caddy writes keys of this kind in SEC 1.
    let key = issued.key.ec_key()?.private_key_to_pem()?;
    let about = format!("{{\"sans\":[\"{host}\"],\"issuer_data\":null}}");
    let store = |ending: &str, value: &[u8]| {
        let record = serde_json::json!({
            "value": openssl::base64::encode_block(value),
            "modified": "2026-01-01T00:00:00Z",
            "size": value.len(),
            "compression": 0,
            "encryption": 0,
        });
        (format!("caddy/certificates/local/{host}/{host}.{ending}"), record.to_string())
    };
    Ok(vec![store("crt", &chain), store("key", &key), store("json", about.as_bytes())])
}

async fn run(program: &Path, folder: &Path, config: &Path, addresses: Addresses) -> Result<Server> {
    let mut server = start(CADDY, program, folder, addresses, |command| {
        // Its own data stays in our folder, and it runs on as many threads as the others.
        command.env("HOME", folder).env("XDG_DATA_HOME", folder).env("XDG_CONFIG_HOME", folder).env("GOMAXPROCS", "1");
        command.args(["run", "--adapter", "caddyfile", "--config"]).arg(config);
    })
    .await?;
    server.version = version(program, "version");
    Ok(server)
}
