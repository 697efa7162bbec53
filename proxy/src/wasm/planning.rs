//! What `plan` reads and makes: tables that the operator has uploaded, and datasets.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;

use wasmtime::component::Resource;
use wasmtime::error::format_err;

use super::dataset::{Dataset, ENTRIES_MAX, Kind, Refused, Subject};
use super::guest::control::latchkey::edge::{datasets as wit, rules as rules_wit};
use super::limits::State;
use super::rules::RULES_MAX;
use super::verify::shown;

const DATASETS_MAX: usize = 16;
const NAME_BYTES_MAX: usize = 64;
/// Of all datasets of a binding.
const DATASET_BYTES_MAX: usize = 512 << 20;
const LINE_BYTES_MAX: usize = 16 << 10;
/// A plugin may read a table more than once.
const OPENED_MAX: usize = 64;
const CHUNK_BYTES: usize = 64 << 10;
/// A short line of a table, by which is reckoned how many entries may come.
const LINE_BYTES_USUAL: u64 = 64;

/// Uploaded tables that a binding is granted, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tables(pub BTreeMap<String, PathBuf>);

impl Tables {
    /// What can't be looked at is told when it is opened.
    pub(super) fn bytes(&self) -> u64 {
        let length = |path: &PathBuf| std::fs::metadata(path).map_or(0, |file| file.len());
        self.0.values().map(length).sum()
    }
}

/// A dataset by the name that the plan has for it.
pub(super) type Named = (String, Dataset);

/// What a plan has made beside its answer.
#[derive(Default)]
pub(super) struct Furnished {
    pub(super) datasets: Vec<Named>,
    pub(super) rules: Vec<u64>,
}

/// Stands for a dataset in the guest's hands.
#[allow(unreachable_pub)] // generated code re-exports it
pub struct Made;
/// Stands for a table.
#[allow(unreachable_pub)] // the same
pub struct Opened;

/// State of one `plan`.
pub(super) struct Planning {
    tables: Tables,
    opened: Vec<BufReader<File>>,
    made: Vec<Named>,
    /// Ids of the policy's rules.
    rules: Vec<u64>,
    /// What is added is checked against the limit once in a while.
    unchecked_bytes: usize,
}

impl Planning {
    pub(super) fn new(tables: &Tables) -> Self {
        Self { tables: tables.clone(), opened: Vec::new(), made: Vec::new(), rules: Vec::new(), unchecked_bytes: 0 }
    }

    fn declare(&mut self, ids: &[u64]) -> Result<(), String> {
        if self.rules.len() + ids.len() > RULES_MAX {
            return Err(format!("more than {RULES_MAX} rules are declared"));
        }
        self.rules.extend_from_slice(ids);
        Ok(())
    }

    /// All that was made, ready for look-ups, and the rules that were declared.
    pub(super) fn made(mut self) -> Result<Furnished, String> {
        for (name, dataset) in &mut self.made {
            dataset.ready().map_err(|says| format!("dataset `{}`: {says}", shown(name, NAME_BYTES_MAX)))?;
            dataset.shrink();
        }
        Ok(Furnished { datasets: self.made, rules: self.rules })
    }

    fn make(&mut self, name: String, kind: Kind, subject: Subject) -> Result<u32, String> {
        let quoted = shown(&name, NAME_BYTES_MAX);
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(format!("dataset name `{quoted}`: 1 to {NAME_BYTES_MAX} bytes are accepted"));
        }
        if self.made.iter().any(|(known, _)| *known == name) {
            return Err(format!("there are two datasets `{quoted}`"));
        }
        if self.made.len() >= DATASETS_MAX {
            return Err(format!("dataset `{quoted}` is one too many, at most {DATASETS_MAX} are accepted"));
        }
        let mut dataset = Dataset::new(kind, subject).map_err(|says| format!("dataset `{quoted}`: {says}"))?;
        dataset.expect(usize::try_from(self.tables.bytes() / LINE_BYTES_USUAL).unwrap_or(ENTRIES_MAX));
        self.made.push((name, dataset));
        u32::try_from(self.made.len() - 1).map_err(|error| error.to_string())
    }

    fn dataset(&mut self, number: u32) -> Result<&mut Dataset, String> {
        self.made.get_mut(number as usize).map(|(_, dataset)| dataset).ok_or_else(|| "no such dataset".to_owned())
    }

    fn add(&mut self, number: u32, entries: &[wit::Entry]) -> Result<Vec<wit::Refusal>, String> {
        let dataset = self.dataset(number)?;
        let mut refusals = Vec::new();
        for (entry, wit::Entry { key, value }) in (0..).zip(entries) {
            let why = match dataset.add(key, value) {
                Ok(()) => continue,
                Err(Refused::Repeated) => wit::Reason::Repeated,
                Err(Refused::Illegal(says)) => wit::Reason::Illegal(says),
            };
            refusals.push(wit::Refusal { entry, why });
        }
        self.unchecked_bytes += entries.iter().map(|entry| entry.key.len() + entry.value.len()).sum::<usize>();
        if self.unchecked_bytes > 1 << 20 {
            self.unchecked_bytes = 0;
            self.within_limits()?;
        }
        Ok(refusals)
    }

    fn within_limits(&self) -> Result<(), String> {
        let bytes: usize = self.made.iter().map(|(_, dataset)| dataset.bytes()).sum();
        let entries: usize = self.made.iter().map(|(_, dataset)| dataset.len()).sum();
        if bytes > DATASET_BYTES_MAX {
            return Err(format!(
                "the datasets of this binding take {bytes} bytes, at most {DATASET_BYTES_MAX} are accepted; \
                 spread the entries over several bindings"
            ));
        }
        if entries > ENTRIES_MAX {
            return Err(format!(
                "the datasets of this binding have {entries} entries, at most {ENTRIES_MAX} are accepted"
            ));
        }
        Ok(())
    }

    fn find(&mut self, number: u32, subject: &str) -> Result<Option<Vec<u8>>, String> {
        let dataset = self.dataset(number)?;
        dataset.ready()?;
        let entry = dataset.wanted(subject).and_then(|wanted| dataset.find(wanted));
        Ok(entry.map(|entry| dataset.value(entry).to_vec()))
    }

    fn find_any(&mut self, number: u32, subjects: &[String]) -> Result<Vec<u32>, String> {
        let dataset = self.dataset(number)?;
        dataset.ready()?;
        let found = |subject: &String| dataset.wanted(subject).is_some_and(|wanted| dataset.find(wanted).is_some());
        Ok((0..).zip(subjects).filter(|(_, subject)| found(subject)).map(|(place, _)| place).collect())
    }

    fn open(&mut self, name: &str) -> Result<Option<u32>, String> {
        let Some(path) = self.tables.0.get(name) else { return Ok(None) };
        if self.opened.len() >= OPENED_MAX {
            return Err(format!("tables are opened {OPENED_MAX} times at most"));
        }
        let file = File::open(path).map_err(|error| format!("table `{name}` can't be read: {error}"))?;
        self.opened.push(BufReader::with_capacity(CHUNK_BYTES, file));
        u32::try_from(self.opened.len() - 1).map(Some).map_err(|error| error.to_string())
    }

    fn lines(&mut self, number: u32) -> Result<Vec<u8>, String> {
        let Some(table) = self.opened.get_mut(number as usize) else { return Err("no such table".to_owned()) };
        let unread = |error: std::io::Error| format!("a table can't be read: {error}");
        let mut chunk = Vec::with_capacity(CHUNK_BYTES + LINE_BYTES_MAX);
        let buffered = table.fill_buf().map_err(unread)?;
        if buffered.is_empty() {
            return Ok(chunk);
        }
        // What is read already, and the end of its last line.
        chunk.extend_from_slice(buffered);
        let length = buffered.len();
        table.consume(length);
        if chunk.last() != Some(&b'\n') {
            let before = chunk.len();
            table.by_ref().take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut chunk).map_err(unread)?;
            if chunk.len() - before > LINE_BYTES_MAX {
                return Err(format!("a table has a line of over {LINE_BYTES_MAX} bytes"));
            }
        }
        Ok(chunk)
    }
}

impl State {
    fn planning<T>(&mut self, act: impl FnOnce(&mut Planning) -> Result<T, String>) -> wasmtime::Result<T> {
        let Some(planning) = &mut self.planning else {
            return Err(format_err!("datasets and tables are for `plan` only"));
        };
        act(planning).map_err(|says| format_err!("{says}"))
    }
}

impl rules_wit::Host for State {
    fn declare(&mut self, ids: Vec<u64>) -> wasmtime::Result<()> {
        self.planning(|planning| planning.declare(&ids))
    }
}

impl wit::Host for State {
    fn tables(&mut self) -> wasmtime::Result<Vec<String>> {
        self.planning(|planning| Ok(planning.tables.0.keys().cloned().collect()))
    }
}

impl wit::HostDataset for State {
    fn new(&mut self, name: String, kind: wit::Kind, subject: wit::Subject) -> wasmtime::Result<Resource<Made>> {
        let kind = match kind {
            wit::Kind::Exact => Kind::Exact,
            wit::Kind::Prefix => Kind::Prefix,
            wit::Kind::Suffix => Kind::Suffix,
            wit::Kind::Cidr => Kind::Cidr,
            wit::Kind::Regex => Kind::Regex,
        };
        let subject = match subject {
            wit::Subject::Host => Subject::Host,
            wit::Subject::Path => Subject::Path,
            wit::Subject::Route => Subject::Route,
            wit::Subject::Peer => Subject::Peer,
            wit::Subject::Client => Subject::Client,
        };
        self.planning(|planning| planning.make(name, kind, subject)).map(Resource::new_own)
    }

    fn add(&mut self, dataset: Resource<Made>, entries: Vec<wit::Entry>) -> wasmtime::Result<Vec<wit::Refusal>> {
        self.planning(|planning| planning.add(dataset.rep(), &entries))
    }

    fn find(&mut self, dataset: Resource<Made>, subject: String) -> wasmtime::Result<Option<Vec<u8>>> {
        self.planning(|planning| planning.find(dataset.rep(), &subject))
    }

    fn find_any(&mut self, dataset: Resource<Made>, subjects: Vec<String>) -> wasmtime::Result<Vec<u32>> {
        self.planning(|planning| planning.find_any(dataset.rep(), &subjects))
    }

    /// What was made stays.
    fn drop(&mut self, _dataset: Resource<Made>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl wit::HostTable for State {
    fn open(&mut self, name: String) -> wasmtime::Result<Option<Resource<Opened>>> {
        self.planning(|planning| planning.open(&name)).map(|table| table.map(Resource::new_own))
    }

    fn lines(&mut self, table: Resource<Opened>) -> wasmtime::Result<Vec<u8>> {
        self.planning(|planning| planning.lines(table.rep()))
    }

    fn drop(&mut self, _table: Resource<Opened>) -> wasmtime::Result<()> {
        Ok(())
    }
}
