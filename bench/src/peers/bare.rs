use support::{Result, port, program};

use super::{Addresses, BARE, Server, Site, start};

/// Our own binary that is nothing but Pingora.
pub(super) async fn start_bare(site: &Site<'_>) -> Result<Server> {
    let program = program::own("bare-pingora")?;
    let addresses = Addresses { plain: port::free()?, policies: None };
    let mut server = start(BARE, &program, site.folder, addresses, |command| {
        command.env("RUST_LOG", "error");
        command.args(["--listen", &addresses.plain.to_string(), "--upstream", &site.upstream.to_string()]);
        command.arg("--certificate").arg(&site.chain).arg("--key").arg(&site.key);
    })
    .await?;
    server.version = "Pingora 0.9.1".into();
    Ok(server)
}
