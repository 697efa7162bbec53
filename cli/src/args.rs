mod admin;
mod certservice;
mod keys;
mod pki;
mod plugins;
mod shadow;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

pub use self::admin::{AdminArgs, ConfigAction, Why};
use self::certservice::seconds;
pub use self::certservice::{
    AuditAction, BudgetAction, CertAction, CertServiceArgs, DomainAction, EdgeAction, ImportAction, IssueArgs,
};
pub use self::keys::KeysAction;
pub use self::pki::{PkiAction, PkiArgs, Role};
pub use self::plugins::{
    HstsAction, HstsArgs, PluginAction, RedirectsAction, RunArgs, THE_UPSTREAM, TableAction, ToProxy,
};
pub use self::shadow::{Change, ShadowAction};
pub use crate::import::Format;

/// The operator's command for Latchkey: domains and their certificates, a proxy's configuration and plugins.
#[derive(Debug, Parser)]
#[command(
    name = "latchkey",
    version,
    after_help = "Exit codes: 0 done, 1 failed or not well, 2 wrong usage, 3 the proxy or CertService can't be reached."
)]
pub struct Args {
    /// Print JSON, for scripts.
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Domains and their certificates, through CertService.
    Domain {
        #[command(flatten)]
        certservice: CertServiceArgs,
        #[command(subcommand)]
        action: DomainAction,
    },
    /// Certificates: what is served, and one's own.
    Cert {
        #[command(flatten)]
        certservice: CertServiceArgs,
        #[command(subcommand)]
        action: CertAction,
    },
    /// Register a list of domains and follow it to its certificates. Begun again with the same file, it goes on.
    Issue {
        #[command(flatten)]
        certservice: CertServiceArgs,
        #[command(flatten)]
        issue: IssueArgs,
    },
    /// Lists of domains that were sent with `issue`.
    Import {
        #[command(flatten)]
        certservice: CertServiceArgs,
        #[command(subcommand)]
        action: ImportAction,
    },
    /// Whether what CertService lives on is well: database, disk, clock, CAs, DNS, Redis, ports. Exit code 1: something is not.
    Doctor {
        #[command(flatten)]
        certservice: CertServiceArgs,
    },
    /// What renewals will take, and what an outage of the CAs would do. Exit code 1: certificates would end, or have ended.
    Forecast {
        #[command(flatten)]
        certservice: CertServiceArgs,
        /// If no CA answered from now on, for so long: 90m, 12h, 3d.
        #[arg(long, value_name = "SPAN", value_parser = seconds)]
        ca_down: Option<u64>,
    },
    /// Who changed what, and when: an append-only journal whose entries cover each other.
    Audit {
        #[command(flatten)]
        certservice: CertServiceArgs,
        #[command(subcommand)]
        action: AuditAction,
    },
    /// What the CAs' limits leave.
    Budget {
        #[command(flatten)]
        certservice: CertServiceArgs,
        #[command(subcommand)]
        action: BudgetAction,
    },
    /// Edges, as CertService sees them.
    Edge {
        #[command(flatten)]
        certservice: CertServiceArgs,
        #[command(subcommand)]
        action: EdgeAction,
    },
    /// The edge keys: to which private keys are sealed, and what is sealed to which.
    Keys {
        #[command(flatten)]
        certservice: CertServiceArgs,
        #[command(subcommand)]
        action: KeysAction,
    },
    /// A private CA for CertService's API: client certificates with roles, its server certificate, revocation.
    Pki {
        #[command(flatten)]
        pki: PkiArgs,
        #[command(subcommand)]
        action: PkiAction,
    },
    /// A proxy's routes, upstreams and plugin bindings, through its admin socket.
    Config {
        #[command(flatten)]
        admin: AdminArgs,
        #[command(subcommand)]
        action: ConfigAction,
    },
    /// A proxy's plugins, through its admin socket.
    Plugin {
        #[command(flatten)]
        admin: AdminArgs,
        #[command(subcommand)]
        action: PluginAction,
    },
    /// Another version or configuration of a plugin, asked about a share of live traffic and compared; nothing of it applied.
    Shadow {
        #[command(flatten)]
        admin: AdminArgs,
        #[command(subcommand)]
        action: ShadowAction,
    },
    /// A proxy's tables: what plugins read that is too much for a configuration.
    Table {
        #[command(flatten)]
        admin: AdminArgs,
        #[command(subcommand)]
        action: TableAction,
    },
    /// Rules of the plugin `redirects`.
    Redirects {
        #[command(flatten)]
        admin: AdminArgs,
        #[command(subcommand)]
        action: RedirectsAction,
    },
    /// The rollout of the plugin `hsts`: who promises what, who is held back, and what comes next.
    Hsts {
        #[command(flatten)]
        admin: AdminArgs,
        #[command(flatten)]
        certservice: CertServiceArgs,
        #[command(subcommand)]
        action: HstsAction,
    },
    /// Whether a proxy (and CertService, where it is named) is ready, and why not.
    Status {
        #[command(flatten)]
        admin: AdminArgs,
        #[command(flatten)]
        certservice: CertServiceArgs,
    },
    /// The hosts that a proxy is asked for most, over the last 5 to 10 minutes.
    Top {
        #[command(flatten)]
        admin: AdminArgs,
        #[arg(long, value_enum, default_value = "requests")]
        by: By,
        /// How many, 1 to 256.
        #[arg(short, default_value = "20", value_parser = clap::value_parser!(u16).range(1..=256))]
        n: u16,
    },
    /// Print completions for a shell: latchkey completions bash > /etc/bash_completion.d/latchkey
    Completions { shell: clap_complete::Shell },
    /// Start a whole fleet on loopback, walk through real requests with explanations, stay up to be tried.
    Demo(DemoArgs),
}

/// What hosts are ranked by.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum By {
    Requests,
    /// Bytes of bodies, both ways
    Bytes,
    /// Answers of 500 and above
    Errors,
    Handshakes,
    /// Names that nobody registered, by registered domain
    UnknownSni,
}

#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// Do the walk, stop everything, exit 0 where each step held.
    #[arg(long)]
    pub once: bool,
    /// Keep certificates in a Redis of the demo's own too.
    #[arg(long)]
    pub redis: bool,
    /// Folder with hsts.wasm, redirects.wasm and proxy-policy.wasm. Default: `plugins` beside this program.
    #[arg(long, value_name = "FOLDER")]
    pub plugins: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_shell_gets_completions_of_every_command() {
        for shell in <clap_complete::Shell as clap::ValueEnum>::value_variants() {
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut Args::command(), "latchkey", &mut text);
            let text = String::from_utf8(text).unwrap();
            for word in ["domain", "watch", "pki", "revoke", "forecast"] {
                assert!(text.contains(word), "{shell}: {word}");
            }
        }
    }

    #[test]
    fn names_are_read_as_people_type_them() {
        let args = Args::try_parse_from(["latchkey", "domain", "add", "Bücher.Example"]).unwrap();
        let Command::Domain { action: DomainAction::Add { name, .. }, .. } = args.command else { panic!("{args:?}") };
        assert_eq!(name.as_str(), "xn--bcher-kva.example");
    }

    #[test]
    fn refuses_tokens_on_the_wire_in_clear() {
        let args = ["latchkey", "domain", "ls", "--certservice", "http://certs.internal:8443"];
        let error = Args::try_parse_from(args).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("loopback"), "{error}");
    }
}
