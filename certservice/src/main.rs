use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use certservice::config::Config;
use certservice::service::{Service, forbid_core_dumps};
use clap::{Parser, ValueEnum};
use contract::document::render;
use tracing_subscriber::EnvFilter;

/// Registers domains, obtains their certificates and hands them, sealed, to the edges.
#[derive(Parser)]
#[command(name = "latchkey-certservice", version)]
struct Arguments {
    /// The boot file (TOML).
    #[arg(long)]
    config: PathBuf,
    /// Check the boot file and the files it names, and exit: 0 good, 2 faulty.
    #[arg(long)]
    check: bool,
    /// Form of the log on stderr. RUST_LOG chooses what is logged.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

const FAILED: u8 = 1;
const FAULTY_CONFIG: u8 = 2;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let config = match Config::load(&arguments.config) {
        Ok(config) => config,
        Err(faults) => {
            eprint!("{}", render(&faults, &arguments.config.display().to_string()));
            return ExitCode::from(FAULTY_CONFIG);
        }
    };
    if arguments.check {
        println!("{}: good", arguments.config.display());
        return ExitCode::SUCCESS;
    }
    log_to_stderr(arguments.log_format);
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error, "latchkey-certservice failed");
            ExitCode::from(FAILED)
        }
    }
}

fn run(config: Config) -> Result<(), String> {
    forbid_core_dumps()?;
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    runtime.block_on(async { Service::build(config).await?.run().await })
}

fn log_to_stderr(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let log = log.with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}
