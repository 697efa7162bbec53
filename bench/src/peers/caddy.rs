use std::path::Path;

use support::{Context, Result, folder, port, program};

use super::{Addresses, HSTS_SECONDS, Server, Site, start, version};

pub(super) async fn proxy(site: &Site<'_>) -> Result<Server> {
    let program =
        program::find("caddy").context("caddy is not installed (deploy/setup/bench.sh builds it where Go is)")?;
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

async fn run(program: &Path, folder: &Path, config: &Path, addresses: Addresses) -> Result<Server> {
    let mut server = start("caddy", program, folder, addresses, |command| {
        // Its own data stays in our folder, and it runs on as many threads as the others.
        command.env("HOME", folder).env("XDG_DATA_HOME", folder).env("XDG_CONFIG_HOME", folder).env("GOMAXPROCS", "1");
        command.args(["run", "--adapter", "caddyfile", "--config"]).arg(config);
    })
    .await?;
    server.version = version(program, "version");
    Ok(server)
}
