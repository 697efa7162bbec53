//! Measures the edge beside its peers, and CertService. Arguments → parts → `results/`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use support::{Context, Result, fail};

use bench::parts::{self, Effort};
use bench::report::{self, Part};
use bench::{cores, machine, names};

/// Measures the edge beside its peers, and CertService
#[derive(Parser)]
#[command(name = "latchkey-bench")]
struct Arguments {
    /// A few minutes: fewer and shorter rounds, fewer names
    #[arg(long)]
    quick: bool,
    /// Only these parts, such as `a,b`; the results of the others stay
    #[arg(long, value_delimiter = ',')]
    only: Vec<char>,
    /// Where results are kept
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/results"))]
    results: PathBuf,
    /// Only make the report anew from the results that are there
    #[arg(long)]
    render: bool,
}

const LETTERS: [char; 9] = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i'];

fn main() -> ExitCode {
    cores::count();
    let arguments = Arguments::parse();
    // One thread: what it starts runs on the cores that it is told to, and ends with it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.context("the runtime").and_then(|runtime| runtime.block_on(run(&arguments)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("latchkey-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<()> {
    if arguments.render {
        return report::render(&arguments.results);
    }
    if let Some(unknown) = arguments.only.iter().find(|letter| !LETTERS.contains(letter)) {
        return fail(format!("there is no part `{unknown}`; the parts are {LETTERS:?}"));
    }
    if cfg!(debug_assertions) {
        println!("Not optimised: these numbers say nothing. Build with --release.");
    }
    let wanted = LETTERS.into_iter().filter(|letter| arguments.only.is_empty() || arguments.only.contains(letter));
    let wanted: Vec<char> = wanted.collect();
    let effort = Effort::new(arguments.quick);
    let mut failed = Vec::new();
    for &letter in &wanted {
        if let Err(error) = part(letter, &wanted, effort, arguments).await {
            eprintln!("({letter}) failed: {error}");
            failed.push(letter);
        }
    }
    println!("results: {}", arguments.results.join("README.md").display());
    if failed.is_empty() { Ok(()) } else { fail(format!("these parts failed: {failed:?}")) }
}

/// Kept as soon as it is done: what fails later takes nothing with it.
async fn part(letter: char, wanted: &[char], effort: Effort, arguments: &Arguments) -> Result<()> {
    let (start, taken_at, load_before) = (Instant::now(), names::now(), machine::load());
    println!("({letter}) {}", parts::title(letter));
    for (letter, measured) in parts::run(letter, wanted, effort).await? {
        let part = Part {
            letter,
            title: parts::title(letter).into(),
            quick: effort.quick,
            taken_at,
            seconds: start.elapsed().as_secs(),
            machine: machine::describe(),
            load_before,
            versions: measured.versions,
            cases: measured.cases,
            missing: measured.missing,
            notes: measured.notes,
        };
        println!("  ({letter}) took {} s", part.seconds);
        for missing in &part.missing {
            println!("  missing: {}: {}", missing.peer, missing.why);
        }
        report::keep(&arguments.results, &part)?;
    }
    Ok(())
}
