//! What was measured, as it is kept: one JSON file a part, from which the Markdown and the plot are made.

mod markdown;
mod plot;
mod targets;

use std::path::Path;

use serde::{Deserialize, Serialize};
use support::{Context, Result, folder};

use crate::peers::Missing;
use crate::stats::Spread;

/// All of one letter of the benchmark.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Part {
    pub letter: char,
    pub title: String,
    pub quick: bool,
    /// Unix seconds.
    pub taken_at: u64,
    pub seconds: u64,
    pub machine: String,
    /// Load of the machine just before, from /proc/loadavg: above 1, numbers are noisy.
    pub load_before: f64,
    pub versions: Vec<(String, String)>,
    pub cases: Vec<Case>,
    pub missing: Vec<Missing>,
    pub notes: Vec<String>,
}

/// One thing that several servers were measured at, in turns.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Case {
    pub name: String,
    pub unit: String,
    pub series: Vec<Series>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Series {
    pub peer: String,
    /// One a round.
    pub samples: Vec<f64>,
}

impl Series {
    pub fn spread(&self) -> Option<Spread> {
        Spread::of(&self.samples)
    }
}

impl Case {
    pub fn new(name: impl Into<String>, unit: &str) -> Self {
        Self { name: name.into(), unit: unit.into(), series: Vec::new() }
    }

    pub fn add(&mut self, peer: &str, sample: f64) {
        match self.series.iter_mut().find(|series| series.peer == peer) {
            Some(series) => series.samples.push(sample),
            None => self.series.push(Series { peer: peer.into(), samples: vec![sample] }),
        }
    }

    /// Takes out one that did not get to the end: its rounds would not stand beside those of the others.
    pub fn remove(&mut self, peer: &str) {
        self.series.retain(|series| series.peer != peer);
    }

    pub fn of(&self, peer: &str) -> Option<&Series> {
        self.series.iter().find(|series| series.peer == peer)
    }

    /// Round by round, what one took compared with another: noise that both had falls out.
    pub fn ratio(&self, peer: &str, to: &str) -> Option<Spread> {
        let (peer, to) = (self.of(peer)?, self.of(to)?);
        let ratios: Vec<f64> = peer.samples.iter().zip(&to.samples).map(|(a, b)| a / b).collect();
        Spread::of(&ratios)
    }
}

/// Keeps a part, and makes the report anew from all that are kept.
pub fn keep(folder: &Path, part: &Part) -> Result<()> {
    std::fs::create_dir_all(folder).context(folder.display())?;
    let file = folder.join(format!("{}.json", part.letter));
    folder::write(&file, serde_json::to_string_pretty(part)? + "\n")?;
    render(folder)
}

pub fn render(folder: &Path) -> Result<()> {
    let mut parts = Vec::new();
    for letter in 'a'..='i' {
        let file = folder.join(format!("{letter}.json"));
        if file.is_file() {
            let part: Part = serde_json::from_str(&folder::read(&file)?).context(file.display())?;
            parts.push(part);
        }
    }
    folder::write(&folder.join("README.md"), markdown::report(&parts))?;
    folder::write(&folder.join("plot.svg"), plot::svg(&parts))
}

/// What a person sees while it runs.
pub fn show(case: &Case) {
    println!("  {} ({})", case.name, case.unit);
    for series in &case.series {
        if let Some(Spread { min, median, max }) = series.spread() {
            println!("    {:<16} {median:>10.2}   {min:.2} … {max:.2}", series.peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_round_by_round() {
        let mut case = Case::new("x", "µs");
        for (a, b) in [(10.0, 20.0), (30.0, 40.0), (5.0, 20.0)] {
            case.add("a", a);
            case.add("b", b);
        }
        assert_eq!(case.ratio("a", "b"), Some(Spread { min: 0.25, median: 0.5, max: 0.75 }));
        assert_eq!(case.ratio("a", "c"), None);
    }
}
