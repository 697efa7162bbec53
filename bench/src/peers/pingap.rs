use support::{Context, Result, folder, port, program};

use super::{Addresses, Server, Site, start, version};

/// Another proxy on Pingora. It takes PROXY headers and has plugins of its own, but no redirects by a table: only the
/// plain case is measured.
pub(super) async fn proxy(site: &Site<'_>) -> Result<Server> {
    let program = program::find("pingap").context(
        "pingap is not installed (`cargo install pingap --root ~/.cache/latchkey` takes half an hour on two cores)",
    )?;
    let addresses = Addresses { plain: port::free()?, policies: None };
    let config = format!(
        "[basic]\nname = \"bench\"\nlog_level = \"ERROR\"\n\
         [certificates.site]\ntls_cert = {:?}\ntls_key = {:?}\nis_default = true\n\
         [upstreams.site]\naddrs = [\"{}\"]\n\
         [locations.site]\nupstream = \"site\"\npath = \"/\"\n\
         [servers.site]\naddr = \"{}\"\nlocations = [\"site\"]\nthreads = 1\nglobal_certificates = true\nenabled_h2 = true\n",
        folder::read(&site.chain)?,
        folder::read(&site.key)?,
        site.upstream,
        addresses.plain,
    );
    let file = site.folder.join("pingap.toml");
    folder::write(&file, config)?;
    let mut server = start("pingap", &program, site.folder, addresses, |command| {
        command.arg("-c").arg(&file);
    })
    .await?;
    server.version = version(&program, "--version");
    Ok(server)
}
