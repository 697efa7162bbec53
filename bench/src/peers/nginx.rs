use std::path::Path;

use support::{Context, Result, fail, folder, port, program};

use super::{Addresses, HSTS_SECONDS, NGINX_FILES, NGINX_LUA, Server, Site, start, version};

/// Where Debian keeps them.
const MODULES: &str = "/usr/lib/nginx/modules";

/// What every instance begins with: one worker, no log of requests, connections that live for ever.
fn preamble(folder: &Path, modules: &str) -> String {
    let at = folder.display();
    format!(
        "{modules}user root;\nworker_processes 1;\ndaemon off;\npid {at}/nginx.pid;\nerror_log {at}/nginx-error.log error;\n\
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

/// The certificate's file is named by the SNI: read and parsed in each handshake (`ssl_certificate_cache` came with 1.27.4).
pub(super) async fn files(site: &Site<'_>, pems: &Path) -> Result<Server> {
    let pems = pems.display();
    let certificate =
        format!("ssl_certificate {pems}/$ssl_server_name.pem;\nssl_certificate_key {pems}/$ssl_server_name.pem;\n");
    terminator(NGINX_FILES, site, "", "", &certificate).await
}

/// By Lua, with parsed certificates kept in a table of the worker for ever.
pub(super) async fn lua(site: &Site<'_>, pems: &Path) -> Result<Server> {
    let load = lua_modules()?;
    let init = "init_by_lua_block { ssl = require \"ngx.ssl\"; certificates = {} }\n";
    let choose = format!(
        "ssl_certificate {};\nssl_certificate_key {};\nssl_certificate_by_lua_block {{\n\
         local name = ssl.server_name()\nlocal found = certificates[name]\nif not found then\n\
         local file = assert(io.open(\"{}/\" .. name .. \".pem\"))\nlocal pem = file:read(\"*a\")\nfile:close()\n\
         found = {{ assert(ssl.parse_pem_cert(pem)), assert(ssl.parse_pem_priv_key(pem)) }}\n\
         certificates[name] = found\nend\n\
         assert(ssl.clear_certs())\nassert(ssl.set_cert(found[1]))\nassert(ssl.set_priv_key(found[2]))\n}}\n",
        site.chain.display(),
        site.key.display(),
        pems.display()
    );
    terminator(NGINX_LUA, site, &load, init, &choose).await
}

/// Redirects of a `map`, which nginx hashes when it starts.
pub(super) async fn redirects_by_map(site: &Site<'_>, map: &str) -> Result<Server> {
    let file = site.folder.join("redirects.map");
    folder::write(&file, map)?;
    let sizes = "map_hash_max_size 4194304;\nmap_hash_bucket_size 128;\n";
    let init = format!("{sizes}map $uri $redirect {{\ndefault \"\";\ninclude {};\n}}\n", file.display());
    let decide = "if ($redirect) { return 308 $redirect$is_args$args; }\n";
    redirector("nginx map", site, "", &init, decide).await
}

/// The same in a table of the worker's Lua.
pub(super) async fn redirects_by_lua(site: &Site<'_>, map: &str) -> Result<Server> {
    let file = site.folder.join("redirects.txt");
    folder::write(&file, map)?;
    let load = lua_modules()?;
    let init = format!(
        "init_by_lua_block {{\nredirects = {{}}\nfor line in io.lines(\"{}\") do\n\
         local from, to = line:match(\"^(%S+) (%S+);$\")\nredirects[from] = to\nend\n}}\n",
        file.display()
    );
    let decide = "rewrite_by_lua_block {\nlocal to = redirects[ngx.var.uri]\n\
                  if to then return ngx.redirect(to .. (ngx.var.is_args or \"\") .. (ngx.var.args or \"\"), 308) end\n}\n";
    redirector(NGINX_LUA, site, &load, &init, decide).await
}

async fn redirector(name: &'static str, site: &Site<'_>, load: &str, init: &str, decide: &str) -> Result<Server> {
    let program = program::find("nginx").context("nginx is not installed")?;
    let folder = site.folder.join(name.replace(' ', "-"));
    std::fs::create_dir_all(&folder)?;
    let plain = port::free()?;
    let Site { host, upstream, chain, key, .. } = site;
    let config = format!(
        "{}{init}upstream site {{ server {upstream}; keepalive 1024; keepalive_requests 1000000000; }}\n\
         server {{\nlisten {plain} ssl http2;\nserver_name {host};\nssl_certificate {};\nssl_certificate_key {};\n\
         {decide}location / {{\nproxy_pass http://site;\n{FORWARDED}}}\n}}\n}}\n",
        preamble(&folder, load),
        chain.display(),
        key.display(),
    );
    let file = folder.join("nginx.conf");
    folder::write(&file, config)?;
    run(name, &program, &folder, &file, Addresses { plain, policies: None }).await
}

fn lua_modules() -> Result<String> {
    let modules = ["ndk_http_module.so", "ngx_http_lua_module.so"].map(|file| format!("{MODULES}/{file}"));
    if let Some(missing) = modules.iter().find(|module| !Path::new(module).is_file()) {
        return fail(format!("{missing} is not installed (Debian: libnginx-mod-http-lua)"));
    }
    Ok(modules.iter().map(|module| format!("load_module {module};\n")).collect())
}

async fn terminator(name: &'static str, site: &Site<'_>, load: &str, init: &str, certificate: &str) -> Result<Server> {
    let program = program::find("nginx").context("nginx is not installed")?;
    let folder = site.folder.join(name.replace(' ', "-"));
    std::fs::create_dir_all(&folder)?;
    let plain = port::free()?;
    let config = format!(
        "{}{init}server {{\nlisten {plain} ssl http2;\n{certificate}location / {{ return 200; }}\n}}\n}}\n",
        preamble(&folder, load)
    );
    let file = folder.join("nginx.conf");
    folder::write(&file, config)?;
    run(name, &program, &folder, &file, Addresses { plain, policies: None }).await
}

async fn run(name: &'static str, program: &Path, folder: &Path, config: &Path, addresses: Addresses) -> Result<Server> {
    let mut server = start(name, program, folder, addresses, |command| {
        command.arg("-e").arg(folder.join("nginx-error.log")).arg("-p").arg(folder).arg("-c").arg(config);
    })
    .await?;
    server.version = version(program, "-v");
    Ok(server)
}
