//! Runs the cases of a file through a host as traffic has it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;

use super::cases::{Case, File, Limits};
use super::outcome::{self, Outcome};
use super::question::Question;
use super::script::Script;
use crate::wasm::{BindError, Binding, Callouts, Host, HostError, LoadError, Plugin, Settings, Tables, Terms, Usage};

/// How often a case is run for its time.
const RUNS: usize = 20;
/// How often a call is measured by `bench`, and how often an instance is started.
const BENCH_RUNS: usize = 2_000;
const BENCH_STARTS: usize = 50;

#[derive(Debug, thiserror::Error)]
pub(super) enum TrialError {
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Load(#[from] LoadError),
}

/// A plugin, and its bindings by configuration.
pub(super) struct Trial {
    host: Host,
    plugin: Arc<Plugin>,
    tables: Tables,
    /// Upstreams that may be asked.
    callouts: Callouts,
    script: Arc<Script>,
    bound: HashMap<String, Arc<Binding>>,
}

#[derive(Debug, Serialize)]
pub(super) struct Tried {
    pub name: String,
    /// What is not as expected; empty where all is.
    pub faults: Vec<String>,
    pub found: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used: Option<Used>,
}

/// By all calls of a case together.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Used {
    /// The shortest of 20 runs.
    pub micros: f64,
    pub instructions: u64,
    pub memory_kib: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct Benched {
    pub name: String,
    pub micros_median: f64,
    pub micros_p99: f64,
    /// Where an answer may be given again without a call: what that takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub micros_memo: Option<f64>,
    /// To start an instance: what the first call on a thread takes more.
    pub start_micros_median: f64,
    pub instructions: u64,
    pub memory_kib: u64,
}

impl Trial {
    pub(super) fn new(component: &[u8], tables: Tables, callouts: &[String]) -> Result<Self, TrialError> {
        // One thread asks, so a small pool does.
        Self::on(
            Settings { threads: 1, instances_per_thread_max: 16, ..Settings::default() },
            component,
            tables,
            callouts,
        )
    }

    fn on(settings: Settings, component: &[u8], tables: Tables, callouts: &[String]) -> Result<Self, TrialError> {
        let host = Host::new(settings)?;
        let plugin = host.load(component)?;
        let script = Arc::<Script>::default();
        Ok(Self { host, plugin, tables, callouts: script.callouts(callouts), script, bound: HashMap::new() })
    }

    pub(super) fn test(&mut self, file: &File, case: &Case) -> Tried {
        let (mut found, mut used) = (Outcome::new(), None);
        match self.bind(&config(file, case)) {
            Err(error) => refused(error, &mut found),
            Ok(binding) => {
                warned(&binding, &mut found);
                // Each case for itself.
                binding.forget_rates();
                match outcome::ask(&binding, &self.script, case) {
                    Ok((out, usage)) => {
                        found.extend(out);
                        used = usage.map(|usage| measured(&binding, &self.script, case, usage));
                    }
                    Err(fault) => drop(found.insert("fault".into(), fault.to_string().into())),
                }
            }
        }
        let mut faults = outcome::differences(&case.expect.0, &found);
        faults.extend(used.iter().flat_map(|used| over(&file.limits, used)));
        Tried { name: case.name.clone(), faults, found, used }
    }

    /// None where the configuration is refused or a call fails: there is nothing to measure.
    pub(super) fn bench(&mut self, file: &File, case: &Case) -> Option<Benched> {
        let binding = self.bind(&config(file, case)).ok()?;
        let (_, used) = outcome::ask(&binding, &self.script, case).ok()?;
        let used = used?;
        let question = Question::of(case);
        let once = |_| {
            self.script.begin(case);
            timed(|| drop(question.put(&binding, drop)))
        };
        let calls = sorted((0..BENCH_RUNS).map(once));
        let remembered = remembered(&binding, &self.script, case);
        let starts = sorted((0..BENCH_STARTS).map(|_| timed(|| drop(binding.start_once()))));
        Some(Benched {
            name: case.name.clone(),
            micros_median: micros(calls[BENCH_RUNS / 2]),
            micros_p99: micros(calls[BENCH_RUNS - BENCH_RUNS / 100]),
            micros_memo: remembered.map(micros),
            start_micros_median: micros(starts[BENCH_STARTS / 2]),
            instructions: used.instructions,
            memory_kib: kib(used.memory_bytes),
        })
    }

    fn bind(&mut self, config: &str) -> Result<Arc<Binding>, BindError> {
        if let Some(binding) = self.bound.get(config) {
            return Ok(binding.clone());
        }
        let callouts = self.callouts.clone();
        let binding = self.host.bind_on(&self.plugin, config, &self.tables, callouts, Terms::default())?;
        binding.ask_always(true);
        self.bound.insert(config.to_owned(), binding.clone());
        Ok(binding)
    }
}

/// The mean of many, since a single one is shorter than what a clock takes.
fn remembered(binding: &Arc<Binding>, script: &Script, case: &Case) -> Option<Duration> {
    let question = Question::of(case);
    binding.ask_always(false);
    script.begin(case);
    let _ = question.put(binding, drop);
    let all = timed(|| (0..BENCH_RUNS).for_each(|_| drop(question.put(binding, drop))));
    binding.ask_always(true);
    binding.remembers().then(|| all / u32::try_from(BENCH_RUNS).unwrap_or(1))
}

fn measured(binding: &Arc<Binding>, script: &Script, case: &Case, usage: Usage) -> Used {
    let question = Question::of(case);
    let once = |_| {
        script.begin(case);
        timed(|| drop(question.put(binding, drop)))
    };
    let shortest = (0..RUNS).map(once).min().unwrap_or_default();
    Used { micros: micros(shortest), instructions: usage.instructions, memory_kib: kib(usage.memory_bytes) }
}

fn kib(bytes: usize) -> u64 {
    (bytes as u64).div_ceil(1024)
}

fn config(file: &File, case: &Case) -> String {
    case.config.as_ref().unwrap_or(&file.config).0.to_string()
}

fn refused(error: BindError, found: &mut Outcome) {
    match error {
        BindError::Diagnostics(list) => {
            let errors = list.iter().filter(|d| d.severity == crate::wasm::Severity::Error);
            found.insert("refused".into(), errors.map(|d| Value::from(outcome::told(d))).collect());
        }
        BindError::Fault(fault) => drop(found.insert("fault".into(), fault.to_string().into())),
    }
}

fn warned(binding: &Binding, found: &mut Outcome) {
    let warnings: Vec<Value> = binding.warnings().iter().map(|d| outcome::told(d).into()).collect();
    if !warnings.is_empty() {
        found.insert("warnings".into(), warnings.into());
    }
}

fn over(limits: &Limits, used: &Used) -> Vec<String> {
    let mut over = Vec::new();
    if let Some(most) = limits.micros.filter(|most| used.micros > *most as f64) {
        over.push(format!("micros: {:.1}, at most {most} are allowed", used.micros));
    }
    for (name, used, most) in
        [("instructions", used.instructions, limits.instructions), ("memory_kib", used.memory_kib, limits.memory_kib)]
    {
        if let Some(most) = most.filter(|most| used > *most) {
            over.push(format!("{name}: {used}, at most {most} are allowed"));
        }
    }
    over
}

fn timed(call: impl FnOnce()) -> Duration {
    let start = Instant::now();
    call();
    start.elapsed()
}

fn sorted(times: impl Iterator<Item = Duration>) -> Vec<Duration> {
    let mut times: Vec<_> = times.collect();
    times.sort();
    times
}

fn micros(time: Duration) -> f64 {
    (time.as_nanos() as f64 / 10.0).round() / 100.0
}

#[cfg(test)]
#[path = "trial_tests.rs"]
mod tests;
