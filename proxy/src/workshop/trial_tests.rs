use std::path::{Path, PathBuf};

use contract::document::Document;

use super::*;
use crate::wasm::{Isolation, Terms};

/// Calls of each plugin, in a random order, each on random terms.
const CALLS: usize = 1500;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// xorshift, so that a failure can be repeated.
fn random(state: &mut u64, below: usize) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    usize::try_from(*state % below as u64).unwrap()
}

/// Runs a plugin's cases, each over and over, on instances that were used by whatever came before, and says the first that
/// does not answer as a fresh instance does.
fn disagreement(folder: &Path, file: &File, seed: u64) -> Option<String> {
    let component = std::fs::read(folder.join(file.plugin.as_ref().unwrap())).unwrap();
    let beside = |(name, table): (&String, &String)| (name.clone(), folder.join(table));
    let tables = Tables(file.tables.0.iter().map(beside).collect());
    let settings = Settings { threads: 1, instances_per_thread_max: 64, tenant_uses: 1..=9, ..Settings::default() };
    let mut trial = Trial::on(settings, &component, tables, &file.callouts).unwrap();
    let script = trial.script.clone();
    let bound = file.cases.iter().filter_map(|case| Some((case, trial.bind(&config(file, case)).ok()?)));
    let all: Vec<_> = bound
        .map(|(case, binding)| {
            (case, Isolation::ALL.map(|isolation| Arc::new(binding.on_terms(Terms::isolated(isolation)))))
        })
        .collect();
    let mut state = seed | 1;
    for _ in 0..CALLS {
        let (case, bindings) = &all[random(&mut state, all.len())];
        let [_, _, fresh] = bindings;
        let place = random(&mut state, bindings.len());
        let plain = |answer: Result<(Outcome, Option<Usage>), _>| answer.map(|(outcome, _)| outcome);
        let (said, expected) =
            (plain(outcome::ask(&bindings[place], &script, case)), plain(outcome::ask(fresh, &script, case)));
        if said != expected {
            return Some(format!("{}, {:?}: {said:?}, not {expected:?}", case.name, Isolation::ALL[place]));
        }
    }
    None
}

#[test]
fn every_plugin_says_the_same_under_all_isolations() {
    for plugin in ["hsts", "redirects", "proxy-policy", "examples/rewrite", "examples/forward-auth"] {
        let folder = repository().join("plugins").join(plugin);
        let text = std::fs::read_to_string(folder.join("cases.toml")).unwrap();
        let file: File = Document::toml(&text).unwrap().read().unwrap();
        assert!(file.cases.len() > 1, "{plugin}");
        let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
        println!("{plugin}: seed {seed}");
        assert_eq!(disagreement(&folder, &file, seed), None, "{plugin}, seed {seed}");
    }
}

#[test]
fn a_plugin_that_remembers_is_found_out() {
    let text = "plugin = \"built/hostile.wasm\"\nconfig = { behaviour = \"by-path\" }\n\
                [[cases]]\nname = \"counts\"\nrequest = {}\nexpect = { verdict = \"deny\" }\n";
    let file: File = Document::toml(text).unwrap().read().unwrap();
    assert!(disagreement(&repository().join("plugins"), &file, 7).is_some());
}
