use std::path::PathBuf;

use clap::Subcommand;

use crate::client::Target;

const ADMIN: &str = "unix:/run/latchkey/proxy.sock";

#[derive(Debug, clap::Args)]
pub struct AdminArgs {
    /// The proxy's admin API: unix:/path, https://host:port, or http://host:port on loopback.
    #[arg(long, global = true, env = "LATCHKEY_ADMIN", value_name = "WHERE", default_value = ADMIN)]
    pub admin: Target,
    /// File with the bearer token, where the admin API is asked over TCP.
    #[arg(long, global = true, env = "LATCHKEY_ADMIN_TOKEN_FILE", value_name = "FILE")]
    pub admin_token_file: Option<PathBuf>,
    /// Root certificate (PEM) of its https address, where it is not a public one.
    #[arg(long, global = true, env = "LATCHKEY_ADMIN_CA_FILE", value_name = "FILE")]
    pub admin_ca_file: Option<PathBuf>,
    /// Client certificate (PEM), where it takes them; with --admin-key-file.
    #[arg(long, global = true, env = "LATCHKEY_ADMIN_CERT_FILE", value_name = "FILE", requires = "admin_key_file")]
    pub admin_cert_file: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, global = true, env = "LATCHKEY_ADMIN_KEY_FILE", value_name = "FILE", requires = "admin_cert_file")]
    pub admin_key_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum ConfigAction {
    /// Print the configuration as it was applied. Applying it again changes nothing.
    Dump,
    /// Check a configuration as `apply` does and say what it would change; change nothing.
    Plan {
        /// JSON; `-` reads standard input.
        file: PathBuf,
    },
    /// Check a configuration and put it in force; requests in flight are not disturbed.
    Apply {
        /// JSON; `-` reads standard input.
        file: PathBuf,
        #[command(flatten)]
        why: Why,
    },
    /// What a revision changed, or what lies between two of them.
    Diff {
        /// Default: the running one.
        revision: Option<u64>,
        /// Compared with this one instead of the one before.
        #[arg(long, value_name = "REVISION")]
        since: Option<u64>,
    },
    /// Take up an earlier revision again, as a new one.
    Revert {
        revision: u64,
        /// Say what it would change; change nothing.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        why: Why,
    },
    /// The revisions: when, who, what and why.
    Log {
        /// How many, newest first.
        #[arg(long, default_value_t = 20, value_name = "COUNT")]
        limit: usize,
    },
    /// Every change that was asked for over the admin API: who, what, and what was answered. Newest first.
    Audit {
        /// How many, 1 to 1000.
        #[arg(long, default_value_t = 20, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
    },
}

#[derive(Debug, Default, clap::Args)]
pub struct Why {
    /// Why, for those who read the log later.
    #[arg(long, short, default_value = "")]
    pub message: String,
    /// Only where the running configuration still has this ETag (`config dump --json` tells it).
    #[arg(long, value_name = "ETAG")]
    pub if_match: Option<String>,
}
