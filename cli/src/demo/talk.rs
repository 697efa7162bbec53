use std::io::IsTerminal;
use std::time::Instant;

use support::{Result, fail};

/// What the demo says: numbered steps, each with its evidence and a verdict.
pub(super) struct Talk {
    start: Instant,
    step: usize,
    checks: usize,
    colours: bool,
}

impl Default for Talk {
    fn default() -> Self {
        Self { start: Instant::now(), step: 0, checks: 0, colours: std::io::stdout().is_terminal() }
    }
}

impl Talk {
    pub(super) fn say(&self, text: &str) {
        println!("{text}");
    }

    /// What the next lines show, in plain words.
    pub(super) fn step(&mut self, title: &str, shows: &str) {
        self.step += 1;
        println!("\n{}", self.bold(&format!("{}. {title}", self.step)));
        println!("   {}", shows.replace('\n', "\n   "));
    }

    pub(super) fn evidence(&self, label: &str, value: impl std::fmt::Display) {
        println!("     {label:<23} {value}");
    }

    /// A claim that must hold; the walk ends where it does not.
    pub(super) fn check(&mut self, holds: bool, claim: &str) -> Result<()> {
        self.checks += 1;
        if holds {
            println!("   {} {claim}", self.green("ok"));
            return Ok(());
        }
        println!("   {} {claim}", self.red("FAILED"));
        fail(format!("step {}: this does not hold: {claim}", self.step))
    }

    pub(super) fn done(&self) {
        let seconds = self.start.elapsed().as_secs_f32();
        println!(
            "\n{}",
            self.bold(&format!("{} steps, {} checks, all hold ({seconds:.1} s).", self.step, self.checks))
        );
    }

    fn bold(&self, text: &str) -> String {
        self.coloured("1", text)
    }

    fn green(&self, text: &str) -> String {
        self.coloured("32", text)
    }

    fn red(&self, text: &str) -> String {
        self.coloured("31", text)
    }

    fn coloured(&self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
