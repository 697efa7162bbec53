//! The edge keys, to which private keys are sealed.

use std::path::PathBuf;

use clap::Subcommand;

use super::ToProxy;

#[derive(Debug, Subcommand)]
pub enum KeysAction {
    /// All edge keys: active ones, to which is sealed, and retired ones.
    Ls,
    /// Seal to another edge key from here on. What was issued before is re-wrapped on an edge: `latchkey keys rewrap`.
    Add {
        /// What the key is counted with, such as a site or a generation of edges.
        pool: String,
        /// Its public key (PEM), as `latchkey-proxy keygen` made it.
        file: PathBuf,
        /// Say what it would do; change nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Seal to an edge key no more, and take what is sealed to it out of all bundles. It never comes back.
    Retire {
        /// Several are retired one after the other.
        #[arg(required_unless_present = "pool", conflicts_with = "pool", value_name = "KID")]
        kids: Vec<String>,
        /// All active keys of a pool.
        #[arg(long)]
        pool: Option<String>,
        /// Also where bundles become unreadable by that: they are served no more until they are issued anew.
        #[arg(long)]
        force: bool,
        /// Say what it would do; change nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Which bundles are sealed to which edge keys, what is still to be re-wrapped, and what would be lost by retiring one.
    /// Exit code 1: an active key lacks some, or some can be opened by none.
    Custody,
    /// On an edge's host: try what others wrapped for this edge's key, and wrap what it opens for further keys. By latchkey-proxy.
    #[command(disable_help_flag = true)]
    Rewrap(ToProxy),
}
