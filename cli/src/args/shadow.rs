use std::path::PathBuf;

use clap::Subcommand;

use super::Why;

#[derive(Debug, Subcommand)]
pub enum ShadowAction {
    /// Put a shadow beside a plugin's bindings. What is not given is as in the binding.
    Start {
        /// The plugin whose bindings get one, as the configuration calls it.
        plugin: String,
        /// Another plugin of the configuration, such as a newer version of it.
        #[arg(long = "with", value_name = "PLUGIN", required_unless_present_any = ["config", "tables"])]
        with: Option<String>,
        /// Its own configuration (JSON); `-` reads standard input.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// A table that it may read; once for each.
        #[arg(long = "table", value_name = "NAME")]
        tables: Vec<String>,
        /// Of the calls, 0.01 to 100.
        #[arg(long, default_value_t = 1.0)]
        percent: f64,
        #[command(flatten)]
        change: Change,
    },
    /// What it would have done: differences with examples, time and instructions beside the live one, failures.
    Show { plugin: String },
    /// Let the shadow take the place of its binding.
    Promote {
        plugin: String,
        #[command(flatten)]
        change: Change,
    },
    /// Take it away.
    Drop {
        plugin: String,
        #[command(flatten)]
        change: Change,
    },
}

#[derive(Debug, clap::Args)]
pub struct Change {
    /// Only of the binding there (a JSON pointer, such as /sites/0/plugins/1); otherwise of all of the plugin's.
    #[arg(long, value_name = "POINTER")]
    pub at: Option<String>,
    /// Say what it would change; change nothing.
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub why: Why,
}
