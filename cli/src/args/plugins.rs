//! Plugins: their author's tools, what they read, and two of them by name.

use std::path::PathBuf;

use clap::Subcommand;

use super::Format;

#[derive(Debug, Subcommand)]
pub enum PluginAction {
    /// Make a key pair that plugins are signed with. Edges trust the public key by `plugins.trusted_keys`.
    Keygen {
        /// Private key, mode 0600; the public key lies beside it with `.pub` appended.
        #[arg(long, default_value = "plugins.pem")]
        out: PathBuf,
    },
    /// Sign a plugin: writes FILE.sig.
    Sign {
        /// Private key, as `keygen` made it.
        #[arg(long, env = "LATCHKEY_PLUGIN_KEY", value_name = "FILE")]
        key: PathBuf,
        file: PathBuf,
    },
    /// Upload a plugin (a Wasm component) with its signature, FILE.sig, and print the digest that a configuration names
    /// it by.
    Push {
        file: PathBuf,
        /// Sign it now, with this private key.
        #[arg(long, env = "LATCHKEY_PLUGIN_KEY", value_name = "FILE")]
        key: Option<PathBuf>,
    },
    /// The plugins that the proxy has.
    Ls,
    /// Failed calls of a plugin since the proxy started, grouped by what went wrong where.
    Crashes {
        /// As the configuration calls it, or sha256:…
        name: String,
    },
    /// Start a plugin of your own: a folder with a small policy in Rust, cases that test it, and this release's SDK.
    New {
        /// Lower-case letters, digits and hyphens; the folder's name too.
        name: String,
    },
    /// Compile the plugin of a folder that `new` made to built/NAME.wasm. Needs cargo.
    Build {
        #[arg(default_value = ".")]
        folder: PathBuf,
    },
    /// Run it: a whole edge on loopback, which compiles, checks and reloads when a file is saved, and tells each call.
    Run(RunArgs),
    /// Say what a component is (by latchkey-proxy, as the next three).
    #[command(disable_help_flag = true)]
    Inspect(ToProxy),
    /// Check that an edge of this release would take a component, and a configuration of it.
    #[command(disable_help_flag = true)]
    Check(ToProxy),
    /// Run a file of cases through the host code that serves traffic.
    #[command(disable_help_flag = true)]
    Test(ToProxy),
    /// Measure the calls of the same cases.
    #[command(disable_help_flag = true)]
    Bench(ToProxy),
}

/// Where requests go that a plugin lets pass, in the configuration of `latchkey plugin run`.
pub const THE_UPSTREAM: &str = "sample";

#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// Folder that `new` made.
    #[arg(default_value = ".")]
    pub folder: PathBuf,
    /// A component that is compiled otherwise, instead of the folder's.
    #[arg(long, value_name = "FILE")]
    pub plugin: Option<PathBuf>,
    /// Its configuration (JSON). Default: config.json of the folder, `{}` where there is none.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A table that the configuration names.
    #[arg(long = "table", value_name = "NAME=FILE", value_parser = named_file)]
    pub tables: Vec<(String, PathBuf)>,
    /// A server that it may ask while a request waits, by the name that it has in its configuration.
    #[arg(long = "callout", value_name = "NAME=URL", value_parser = named_url)]
    pub callouts: Vec<(String, String)>,
    /// Where requests go that it lets pass, such as http://127.0.0.1:3000. Default: a server that tells what it saw.
    #[arg(long, value_name = "URL")]
    pub upstream: Option<String>,
}

fn named_url(text: &str) -> Result<(String, String), String> {
    let (name, url) = text.split_once('=').ok_or("NAME=URL is expected")?;
    if name == THE_UPSTREAM {
        return Err(format!("`{THE_UPSTREAM}` is the name of the server behind the edge; take another"));
    }
    Ok((name.to_owned(), url.to_owned()))
}

fn named_file(text: &str) -> Result<(String, PathBuf), String> {
    let (name, file) = text.split_once('=').ok_or("NAME=FILE is expected")?;
    Ok((name.to_owned(), file.into()))
}

#[derive(Debug, clap::Args)]
pub struct ToProxy {
    /// Those of `latchkey-proxy`; --help shows them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<std::ffi::OsString>,
}

#[derive(Debug, Subcommand)]
pub enum TableAction {
    /// Upload a table, and print the digest that a configuration names it by.
    Push { file: PathBuf },
    /// The tables that the proxy has.
    Ls,
    /// Remove a table that the running configuration does not name.
    Rm {
        /// sha256:…
        digest: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum RedirectsAction {
    /// Print the redirects of another program's file as settings of the plugin (JSON). What has no counterpart is left
    /// out and told on standard error, with its line. Exit code 1: something was.
    Import {
        #[arg(long, value_enum)]
        from: Format,
        /// Print a table instead (CSV), for `latchkey table push`. Regular expressions are left out.
        #[arg(long, conflicts_with = "json")]
        table: bool,
        /// `-` reads standard input.
        file: PathBuf,
    },
    /// The rules that have answered nobody for so long, on one edge.
    Unused {
        /// 0 to 3650.
        #[arg(long, default_value_t = 30)]
        days: u64,
        /// As the configuration calls the plugin.
        #[arg(long, default_value = "redirects", value_name = "NAME")]
        plugin: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum HstsAction {
    /// How many sites promise what now, and which are held back because their certificate is unwell, and why.
    Status(HstsArgs),
    /// What each stage that is still to come would change, and which names its includeSubDomains would cut off.
    Plan(HstsArgs),
}

#[derive(Debug, clap::Args)]
pub struct HstsArgs {
    /// As the configuration calls the plugin.
    #[arg(long, default_value = "hsts", value_name = "NAME")]
    pub plugin: String,
    /// File of host names, one a line, instead of all domains of CertService; `-` reads standard input.
    #[arg(long, value_name = "FILE")]
    pub hosts: Option<PathBuf>,
}
