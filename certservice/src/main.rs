use std::alloc::System;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use certservice::admin::openapi;
use certservice::config::Config;
use certservice::service::{Service, forbid_core_dumps};
use clap::{Parser, Subcommand, ValueEnum};
use contract::document::render;
use tracing_subscriber::EnvFilter;
use zeroizing_alloc::ZeroAlloc;

/// Wipes what is freed: copies of private keys that libraries make, and requests that carry one.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

/// Registers domains, obtains their certificates and hands them, sealed, to the edges.
#[derive(Parser)]
#[command(
    name = "latchkey-certservice",
    version,
    subcommand_negates_reqs = true,
    args_conflicts_with_subcommands = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// The boot file (TOML).
    #[arg(long, required = true)]
    config: Option<PathBuf>,
    /// Check the boot file and the files it names, and exit: 0 good, 2 faulty.
    #[arg(long)]
    check: bool,
    /// Form of the log on stderr. RUST_LOG chooses what is logged.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Subcommand)]
enum Command {
    /// Print the API as an OpenAPI 3.1 document, in JSON.
    Openapi,
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
    let file = match (&arguments.command, &arguments.config) {
        (None, Some(file)) => file,
        (Some(Command::Openapi), _) => {
            print!("{}", openapi());
            return ExitCode::SUCCESS;
        }
        (None, None) => return ExitCode::from(FAULTY_CONFIG),
    };
    let config = match Config::load(file) {
        Ok(config) => config,
        Err(faults) => {
            eprint!("{}", render(&faults, &file.display().to_string()));
            return ExitCode::from(FAULTY_CONFIG);
        }
    };
    if arguments.check {
        println!("{}: good", file.display());
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
