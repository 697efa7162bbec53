use std::path::Path;

use support::{Context, Result, folder, port, program};

use super::{Addresses, HAPROXY, HSTS_SECONDS, Server, Site, start, version};
use crate::names::host;

const PREAMBLE: &str = "global\n  nbthread 1\n  maxconn 4000\n  ssl-server-verify none\n  tune.ssl.default-dh-param 2048\n\
    defaults\n  mode http\n  timeout connect 5s\n  timeout client 3600s\n  timeout server 3600s\n  timeout http-keep-alive 3600s\n  \
    http-reuse always\n";

/// What the edge tells an upstream, told by HAProxy.
const FORWARDED: &str = "  http-request set-header X-Forwarded-For %[src]\n  http-request set-header X-Forwarded-Proto https\n  \
    http-request set-header X-Forwarded-Host %[req.hdr(host)]\n  \
    http-request set-header Forwarded for=%[src];host=%[req.hdr(host)];proto=https\n  http-request del-header X-Real-IP\n";

pub(super) async fn proxy(site: &Site<'_>) -> Result<Server> {
    let program = program::find("haproxy").context("haproxy is not installed")?;
    let (plain, policies) = (port::free()?, port::free()?);
    let addresses = Addresses { plain, policies: Some(policies) };
    let rules: String = site.redirects.iter().map(|(from, to)| format!("{from} {to}\n")).collect();
    let map = site.folder.join("haproxy.map");
    folder::write(&map, rules)?;
    let (pem, map, upstream) = (site.both.display(), map.display(), site.upstream);
    let config = format!(
        "{PREAMBLE}backend site\n  server upstream {upstream} pool-max-conn -1 pool-purge-delay 3600s\n\
         frontend plain\n  bind {plain} ssl crt {pem} alpn h2,http/1.1\n{FORWARDED}  default_backend site\n\
         frontend policies\n  bind {policies} accept-proxy ssl crt {pem} alpn h2,http/1.1\n{FORWARDED}  \
         http-request redirect location %[path,map({map})] code 308 if {{ path,map({map}) -m found }}\n  \
         http-response set-header Strict-Transport-Security max-age={HSTS_SECONDS}\n  default_backend site\n"
    );
    let file = site.folder.join("haproxy-bench.cfg");
    folder::write(&file, config)?;
    run(&program, site.folder, &file, addresses).await
}

/// With a list of certificates, all of which it loads when it starts.
pub(super) async fn names(site: &Site<'_>, pems: &Path, names: usize) -> Result<Server> {
    let program = program::find("haproxy").context("haproxy is not installed")?;
    let plain = port::free()?;
    let list: String = (0..names).map(|number| format!("{}/{}.pem\n", pems.display(), host(number))).collect();
    let list_file = site.folder.join("haproxy-certificates.txt");
    folder::write(&list_file, list)?;
    let config = format!(
        "{PREAMBLE}frontend plain\n  bind {plain} ssl crt {} crt-list {} alpn h2,http/1.1\n  http-request return status 200\n",
        site.both.display(),
        list_file.display()
    );
    let file = site.folder.join("haproxy-names.cfg");
    folder::write(&file, config)?;
    run(&program, site.folder, &file, Addresses { plain, policies: None }).await
}

async fn run(program: &Path, folder: &Path, config: &Path, addresses: Addresses) -> Result<Server> {
    let mut server = start(HAPROXY, program, folder, addresses, |command| {
        command.arg("-db").arg("-f").arg(config);
    })
    .await?;
    server.version = version(program, "-v");
    Ok(server)
}
