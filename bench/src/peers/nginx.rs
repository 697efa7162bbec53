use std::path::Path;

use support::{Context, Result, folder, port, program};

use super::{Addresses, HSTS_SECONDS, Server, Site, start, version};

/// What every instance begins with: one worker, no log of requests, connections that live for ever.
fn preamble(folder: &Path, modules: &str) -> String {
    let at = folder.display();
    format!(
        "{modules}\nworker_processes 1;\ndaemon off;\npid {at}/nginx.pid;\nerror_log {at}/nginx-error.log error;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\naccess_log off;\nkeepalive_requests 1000000000;\nkeepalive_timeout 3600s;\ntcp_nodelay on;\n\
         server_names_hash_bucket_size 128;\n\
         client_body_temp_path {at}/nginx-body;\nproxy_temp_path {at}/nginx-proxy;\nfastcgi_temp_path {at}/nginx-fastcgi;\n\
         uwsgi_temp_path {at}/nginx-uwsgi;\nscgi_temp_path {at}/nginx-scgi;\n\
         ssl_protocols TLSv1.2 TLSv1.3;\nssl_session_tickets on;\n"
    )
}

/// What the edge tells an upstream, told by nginx.
const FORWARDED: &str = "proxy_http_version 1.1;\nproxy_set_header Connection \"\";\nproxy_set_header Host $host;\n\
    proxy_set_header X-Forwarded-For $remote_addr;\nproxy_set_header X-Forwarded-Proto https;\n\
    proxy_set_header X-Forwarded-Host $host;\n\
    proxy_set_header Forwarded \"for=$remote_addr;host=$host;proto=https\";\nproxy_set_header X-Real-IP \"\";\n";

pub(super) async fn proxy(site: &Site<'_>) -> Result<Server> {
    let program = program::find("nginx").context("nginx is not installed")?;
    let (plain, policies) = (port::free()?, port::free()?);
    let addresses = Addresses { plain, policies: Some(policies) };

    let Site { host, upstream, chain, key, .. } = site;
    let tls =
        format!("server_name {host};\nssl_certificate {};\nssl_certificate_key {};\n", chain.display(), key.display());
    let rules: String = site.redirects.iter().map(|(from, to)| format!("{from} {to};\n")).collect();
    let forward = format!("location / {{\nproxy_pass http://site;\n{FORWARDED}}}\n");
    let config = format!(
        "{}upstream site {{ server {upstream}; keepalive 1024; keepalive_requests 1000000000; }}\n\
         map $uri $redirect {{\ndefault \"\";\n{rules}}}\n\
         server {{\nlisten {plain} ssl http2;\n{tls}{forward}}}\n\
         server {{\nlisten {policies} ssl http2 proxy_protocol;\n{tls}\
         set_real_ip_from 127.0.0.0/8;\nreal_ip_header proxy_protocol;\n\
         add_header Strict-Transport-Security \"max-age={HSTS_SECONDS}\" always;\n\
         if ($redirect) {{ return 308 $redirect$is_args$args; }}\n{forward}}}\n}}\n",
        preamble(site.folder, "")
    );
    let file = site.folder.join("nginx.conf");
    folder::write(&file, config)?;
    run("nginx", &program, site.folder, &file, addresses).await
}

async fn run(name: &'static str, program: &Path, folder: &Path, config: &Path, addresses: Addresses) -> Result<Server> {
    let mut server = start(name, program, folder, addresses, |command| {
        command.arg("-e").arg(folder.join("nginx-error.log")).arg("-p").arg(folder).arg("-c").arg(config);
    })
    .await?;
    server.version = version(program, "-v");
    Ok(server)
}
