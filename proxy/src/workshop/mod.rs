//! What a plugin's author runs: looks into a component, tests and measures it by the host code that serves traffic.
//!
//! Must never listen, be reached by a request, or run a guest in another way than traffic does.

mod bodies;
mod cases;
mod outcome;
mod question;
mod script;
mod trial;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Subcommand;
use contract::document::{Document, render};
use contract::plugin::{Signature, verify};
use contract::signed::VerifyKeys;
use serde_json::{Value, json};

use self::cases::File;
use self::script::Script;
use self::trial::{Benched, Trial, Tried};
use crate::wasm::{BindError, Binding, Diagnostic, Digest, Host, Plugin, Settings, Severity, Tables, Terms};

/// In the order in which they are told.
const FACTS: [&str; 10] = [
    "name",
    "version",
    "class",
    "asks_servers",
    "fail_open_safe",
    "bytes",
    "digest",
    "imports",
    "exports",
    "signature",
];

#[derive(Debug, Subcommand)]
pub enum Tool {
    /// Say what a component is: name, class, imports, exports, digest, signature
    Inspect {
        file: PathBuf,
        /// Public key (PEM) that the signature, FILE.sig, must be of
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// Print the JSON Schema of its configuration instead
        #[arg(long, conflicts_with = "key")]
        schema: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Check that an edge of this release would take a component, and a configuration of it
    Check {
        file: PathBuf,
        /// The plugin's own configuration (JSON)
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// A table that the configuration names
        #[arg(long = "table", value_name = "NAME=FILE", value_parser = named_file)]
        tables: Vec<(String, PathBuf)>,
        /// An upstream that it may ask
        #[arg(long = "callout", value_name = "NAME")]
        callouts: Vec<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Run cases (TOML): what goes in, what must come out, and what it may take. Exit code 1: a case failed
    Test {
        cases: PathBuf,
        /// The component, instead of the one that the file names
        #[arg(long, value_name = "FILE")]
        plugin: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Measure the calls of the same cases: time, instructions, memory
    Bench {
        cases: PathBuf,
        /// The component, instead of the one that the file names
        #[arg(long, value_name = "FILE")]
        plugin: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

pub fn run(tool: Tool) -> Result<(), String> {
    match tool {
        Tool::Inspect { file, key, schema, json } => inspect(&file, key.as_deref(), schema, json),
        Tool::Check { file, config, tables, callouts, json } => {
            check(&file, config.as_deref(), Tables(tables.into_iter().collect()), &callouts, json)
        }
        Tool::Test { cases, plugin, json } => test(&cases, plugin, json),
        Tool::Bench { cases, plugin, json } => bench(&cases, plugin, json),
    }
}

fn inspect(file: &Path, key: Option<&Path>, schema: bool, json: bool) -> Result<(), String> {
    let (bytes, (_, plugin)) = (read(file)?, load(file)?);
    if schema {
        println!("{}", plugin.config_schema().trim());
        return Ok(());
    }
    let signature = signature(file, &bytes, key)?;
    let mut facts = facts(&plugin, bytes.len());
    facts["signature"] = json!(signature);
    if json {
        println!("{facts:#}");
        return Ok(());
    }
    for name in FACTS {
        let lines = match &facts[name] {
            Value::Array(lines) => lines.iter().map(word).collect(),
            other => vec![word(other)],
        };
        for (index, line) in lines.iter().enumerate() {
            println!("{:<16} {line}", if index == 0 { name } else { "" });
        }
    }
    Ok(())
}

fn facts(plugin: &Plugin, bytes: usize) -> Value {
    let interfaces = plugin.interfaces();
    json!({
        "name": plugin.name(),
        "version": plugin.version(),
        "class": plugin.class().to_string(),
        "asks_servers": plugin.waits(),
        "fail_open_safe": plugin.fail_open_safe(),
        "bytes": bytes,
        "digest": plugin.digest().to_string(),
        "exports": interfaces.exports,
        "imports": interfaces.imports,
    })
}

fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "none".to_owned(),
        other => other.to_string(),
    }
}

/// Whose it is, and whether that was looked at.
fn signature(file: &Path, bytes: &[u8], key: Option<&Path>) -> Result<Option<String>, String> {
    let kept = PathBuf::from(format!("{}.sig", file.display()));
    if !kept.exists() && key.is_none() {
        return Ok(None);
    }
    let signature: Signature =
        text(&kept)?.trim_end().parse().map_err(|error| format!("{}: {error}", kept.display()))?;
    let Some(key) = key else { return Ok(Some(format!("{} (not verified: --key)", signature.kid()))) };
    let pem = text(key)?;
    let keys = VerifyKeys::from_pems([pem.as_str()]).map_err(|error| format!("{}: {error}", key.display()))?;
    verify(Digest::of(bytes).bytes(), &signature, &keys).map_err(|error| format!("{}: {error}", kept.display()))?;
    Ok(Some(format!("{} (good)", signature.kid())))
}

fn named_file(text: &str) -> Result<(String, PathBuf), String> {
    let (name, file) = text.split_once('=').ok_or("NAME=FILE is expected")?;
    Ok((name.to_owned(), file.into()))
}

fn check(file: &Path, config: Option<&Path>, tables: Tables, callouts: &[String], json: bool) -> Result<(), String> {
    let (bytes, (host, plugin)) = (read(file)?, load(file)?);
    let mut told = facts(&plugin, bytes.len());
    if let Some(config) = config {
        let binding = bind(&host, &plugin, config, &tables, callouts)?;
        let hooks = binding.hooks();
        told["on_request"] = hooks.request.into();
        told["on_response"] = hooks.response.into();
        told["request_body"] = hooks.request_body.into();
        told["response_body"] = hooks.response_body.into();
        told["compiled_bytes"] = binding.compiled_bytes().into();
        told["dataset_entries"] = binding.dataset_entries().into();
        told["dataset_bytes"] = binding.dataset_bytes().into();
        told["warnings"] = binding.warnings().iter().map(|d| Value::from(outcome::told(d))).collect();
        for warning in binding.warnings().iter().filter(|_| !json) {
            println!("warning: {}{}", outcome::told(warning), hint(warning));
        }
    }
    if json {
        println!("{told:#}");
    } else {
        let accepted = if config.is_some() { "; the configuration is accepted" } else { "" };
        let (name, version, class) = (plugin.name(), plugin.version(), plugin.class());
        println!("ok: {name} {version}, {class}, {} bytes{accepted}", bytes.len());
    }
    Ok(())
}

fn hint(diagnostic: &Diagnostic) -> String {
    diagnostic.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default()
}

/// Every fault with its line.
fn bind(
    host: &Host,
    plugin: &Arc<Plugin>,
    config: &Path,
    tables: &Tables,
    callouts: &[String],
) -> Result<Arc<Binding>, String> {
    let callouts = Arc::<Script>::default().callouts(callouts);
    let (name, text) = (config.display().to_string(), text(config)?);
    let document = Document::json(&text).map_err(|faults| render(&faults, &name))?;
    host.bind_on(plugin, &text, tables, callouts, Terms::default()).map_err(|error| match error {
        BindError::Diagnostics(list) => {
            let errors = list.into_iter().filter(|d| d.severity == Severity::Error);
            let faults: Vec<_> =
                errors.map(|d| document.fault(d.at.clone(), outcome::told(&d), d.hint.clone())).collect();
            render(&faults, &name)
        }
        BindError::Fault(fault) => format!("{name}: the plugin failed to read it: {fault}"),
    })
}

fn test(path: &Path, plugin: Option<PathBuf>, json: bool) -> Result<(), String> {
    let (file, mut trial) = prepare(path, plugin)?;
    let tried: Vec<Tried> = file.cases.iter().map(|case| trial.test(&file, case)).collect();
    if json {
        println!("{:#}", json!({ "cases": tried }));
    }
    for tried in tried.iter().filter(|_| !json) {
        let verdict = if tried.faults.is_empty() { "ok  " } else { "FAIL" };
        let used = tried.used.map(|used| {
            format!("{:>8.2} µs {:>8} instr. {:>6} KiB  ", used.micros, used.instructions, used.memory_kib)
        });
        println!("{verdict} {:<41}{}", used.unwrap_or_default(), tried.name);
        tried.faults.iter().for_each(|fault| println!("       {fault}"));
    }
    let failed = tried.iter().filter(|tried| !tried.faults.is_empty()).count();
    match failed {
        0 => Ok(()),
        _ => Err(format!("{failed} of {} cases failed", tried.len())),
    }
}

fn bench(path: &Path, plugin: Option<PathBuf>, json: bool) -> Result<(), String> {
    let (file, mut trial) = prepare(path, plugin)?;
    let benched: Vec<Benched> = file.cases.iter().filter_map(|case| trial.bench(&file, case)).collect();
    if json {
        println!("{:#}", json!({ "cases": benched }));
        return Ok(());
    }
    println!("{:>10} {:>10} {:>10} {:>10} {:>9} {:>7}", "µs median", "µs p99", "µs memo", "µs start", "instr.", "KiB");
    for Benched { name, micros_median, micros_p99, micros_memo, start_micros_median, instructions, memory_kib } in
        benched
    {
        let memo = micros_memo.map_or_else(|| "-".to_owned(), |memo| format!("{memo:.2}"));
        println!(
            "{micros_median:>10.2} {micros_p99:>10.2} {memo:>10} {start_micros_median:>10.2} {instructions:>9} {memory_kib:>7}  {name}"
        );
    }
    Ok(())
}

fn prepare(path: &Path, plugin: Option<PathBuf>) -> Result<(File, Trial), String> {
    let name = path.display().to_string();
    let document = Document::toml(&text(path)?).map_err(|faults| render(&faults, &name))?;
    let file: File = document.read().map_err(|faults| render(&faults, &name))?;
    let named = file.plugin.as_ref().map(|plugin| path.parent().unwrap_or(Path::new("")).join(plugin));
    let Some(component) = plugin.or(named) else {
        return Err(format!("{name}: names no plugin; write plugin = \"…wasm\" in it, or give --plugin FILE"));
    };
    let beside = |(name, file): (&String, &String)| (name.clone(), path.parent().unwrap_or(Path::new("")).join(file));
    let tables = Tables(file.tables.0.iter().map(beside).collect());
    let trial = Trial::new(&read(&component)?, tables, &file.callouts)
        .map_err(|error| format!("{}: {error}", component.display()))?;
    Ok((file, trial))
}

fn load(file: &Path) -> Result<(Host, Arc<Plugin>), String> {
    let settings = Settings { threads: 1, instances_per_thread_max: 1, ..Settings::default() };
    let host = Host::new(settings).map_err(|error| error.to_string())?;
    let plugin = host.load(&read(file)?).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok((host, plugin))
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))
}

fn text(file: &Path) -> Result<String, String> {
    std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))
}
