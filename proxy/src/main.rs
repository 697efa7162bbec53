//! Arguments → configuration → run. Exit codes: 0 stopped as told, 1 failed, 2 wrong arguments.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use proxy::config::Config;
use proxy::handover::Successor;
use proxy::wasm::{CompileLimits, compile_standard_input};
use proxy::workshop::Tool;
use tracing_subscriber::EnvFilter;

mod keygen;

/// A request makes about a hundred allocations, most of them in Pingora. OpenSSL keeps the C library's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Latchkey's edge: terminates HTTPS for customers' domains.
#[derive(Parser)]
#[command(name = "latchkey-proxy", version, about, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Boot file (TOML)
    #[arg(long, default_value = "/etc/latchkey/proxy.toml", env = "LATCHKEY_PROXY_CONFIG")]
    config: PathBuf,
    /// Check the boot file and the files it names, then exit
    #[arg(long)]
    check: bool,
    /// Form of the log on standard error; its level is set by RUST_LOG (default: info)
    #[arg(long, default_value = "text")]
    log_format: LogFormat,
    /// Said by a running latchkey-proxy to the one that it starts to take over; its standard input is their channel
    #[arg(long, hide = true)]
    take_over: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Make this edge's RSA key pair; the private key never leaves this host
    Keygen {
        /// Private key, mode 0600; the public key lies beside it with `.pub` appended
        #[arg(long, default_value = "/etc/latchkey/edge.pem")]
        out: PathBuf,
        /// Length. A cold name costs its edge one RSA operation: 0.3 ms with 2048 bits, 1.1 ms with 3072, 2.5 ms with
        /// 4096. What it seals is worth stealing only until the certificate ends
        #[arg(long, default_value = "2048")]
        bits: keygen::Bits,
        /// Make it in the token that this boot file names in [edge] pkcs11; only the public key is written
        #[arg(long, value_name = "BOOT FILE")]
        in_token: Option<PathBuf>,
    },
    /// Wrap what this edge opens for other edge keys, and try what others have wrapped for it; no certificate is issued anew
    Rewrap(proxy::rewrap::Arguments),
    /// Replace the running process by a new one, of the program and boot file that are there now; no request fails
    Upgrade {
        /// Boot file of the running process: its data_dir says where that is found
        #[arg(long, default_value = "/etc/latchkey/proxy.toml", env = "LATCHKEY_PROXY_CONFIG")]
        config: PathBuf,
    },
    /// Said by a running latchkey-proxy to itself: a component on standard input, its machine code on standard output
    #[command(name = proxy::wasm::COMMAND, hide = true)]
    CompilePlugin {
        #[arg(long)]
        seconds_max: u32,
        #[arg(long)]
        mib_max: u32,
        #[arg(long)]
        memory_bytes: Option<u64>,
    },
    /// Print the OpenAPI document of the admin API
    Openapi,
    /// Look into a plugin, test and measure it as this edge would run it
    Plugin {
        #[command(subcommand)]
        tool: Tool,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.command {
        Some(Command::Keygen { out, bits, in_token: None }) => keygen::run(&out, bits),
        Some(Command::Keygen { out, bits, in_token: Some(config) }) => keygen::in_token(&config, &out, bits),
        Some(Command::Rewrap(arguments)) => no_core_files().and_then(|()| proxy::rewrap::run(&arguments)),
        Some(Command::Upgrade { config }) => upgrade(&config),
        Some(Command::CompilePlugin { seconds_max, mib_max, memory_bytes }) => {
            let done = compile_standard_input(CompileLimits { seconds_max, mib_max }, memory_bytes);
            return told_as_it_is(done);
        }
        Some(Command::Openapi) => {
            print!("{}", proxy::control::openapi());
            Ok(())
        }
        Some(Command::Plugin { tool }) => {
            // What a guest says as it panics.
            start_log(LogFormat::Text, "warn");
            proxy::workshop::run(tool)
        }
        None => serve(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("latchkey-proxy: {}", error.trim_end());
            ExitCode::FAILURE
        }
    }
}

/// For the process that started this one.
fn told_as_it_is(done: Result<(), String>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: &Arguments) -> Result<(), String> {
    start_log(arguments.log_format, "info");
    no_core_files()?;
    raise_descriptors();
    let config = Config::read(&arguments.config).map_err(|error| error.to_string())?;
    if arguments.check {
        println!("{}: ok", arguments.config.display());
        return Ok(());
    }
    let successor = arguments.take_over.then(Successor::greet).transpose().map_err(|error| error.to_string())?;
    proxy::serve::run(config, successor).map_err(|error| error.to_string())
}

/// They would hold opened private keys.
fn no_core_files() -> Result<(), String> {
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(rustix::process::Resource::Core, none)
        .map_err(|error| format!("core files can't be turned off: {error}"))
}

/// As many open files as may be: a connection takes one, and one to its upstream.
fn raise_descriptors() {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: files.maximum, ..files };
    // What is not allowed stays as it was.
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised);
}

fn upgrade(config: &Path) -> Result<(), String> {
    let config = Config::read(config).map_err(|error| format!("nothing was changed:\n{error}"))?;
    println!("{}", proxy::handover::upgrade(&config).map_err(|error| error.to_string())?);
    Ok(())
}

fn start_log(format: LogFormat, level: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let colours = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}
