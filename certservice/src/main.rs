use std::alloc::System;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use certservice::admin::openapi;
use certservice::backup;
use certservice::config::{Config, Places};
use certservice::service::{Service, forbid_core_dumps};
use certservice::store::Restored;
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
    /// Write all that the store holds, as it is at one moment, into a file; CertService may run meanwhile.
    Backup {
        /// The boot file (TOML).
        #[arg(long)]
        config: PathBuf,
        /// The file, which must not be there yet. It gets mode 0600.
        #[arg(long)]
        out: PathBuf,
    },
    /// Put a backup into a store that holds nothing, of the same kind or another; all of it or nothing.
    Restore {
        /// The boot file (TOML).
        #[arg(long)]
        config: PathBuf,
        /// The backup.
        #[arg(long)]
        from: PathBuf,
        /// Only see whether the file is whole.
        #[arg(long)]
        check: bool,
    },
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
    match (arguments.command, &arguments.config) {
        (None, Some(file)) => serve(file, arguments.check, arguments.log_format),
        (Some(Command::Openapi), _) => {
            print!("{}", openapi());
            ExitCode::SUCCESS
        }
        (Some(Command::Backup { config, out }), _) => on_store(&config, async |places| {
            let rows = backup::write(places, &out).await?;
            Ok(format!("{}: {rows} rows", out.display()))
        }),
        (Some(Command::Restore { from, check: true, .. }), _) => told(backup::check(&from).map(|rows| {
            let file = from.display();
            format!("{file}: whole, {rows} rows")
        })),
        (Some(Command::Restore { config, from, check: false }), _) => on_store(&config, async |places| {
            let Restored { rows, domains, bundles, journal_seq } = backup::restore(places, &from).await?;
            Ok(format!(
                "{rows} rows: {domains} domains, {bundles} certificates with their keys, {journal_seq} entries of the journal, \
                 all checked"
            ))
        }),
        (None, None) => ExitCode::from(FAULTY_CONFIG),
    }
}

fn load(file: &Path) -> Result<Config, ExitCode> {
    Config::load(file).map_err(|faults| {
        eprint!("{}", render(&faults, &file.display().to_string()));
        ExitCode::from(FAULTY_CONFIG)
    })
}

fn serve(file: &Path, check: bool, log_format: LogFormat) -> ExitCode {
    let config = match load(file) {
        Ok(config) => config,
        Err(code) => return code,
    };
    if check {
        println!("{}: good", file.display());
        return ExitCode::SUCCESS;
    }
    log_to_stderr(log_format);
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error, "latchkey-certservice failed");
            ExitCode::from(FAILED)
        }
    }
}

/// What is done once with the store of a boot file, and what came of it.
fn on_store(file: &Path, act: impl AsyncFnOnce(&Places) -> Result<String, String>) -> ExitCode {
    let config = match load(file) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string());
    told(runtime.and_then(|runtime| runtime.block_on(act(&config.store))))
}

fn told(done: Result<String, String>) -> ExitCode {
    match done {
        Ok(says) => {
            println!("{says}");
            ExitCode::SUCCESS
        }
        Err(says) => {
            eprintln!("latchkey-certservice: {says}");
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
