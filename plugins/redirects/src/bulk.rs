//! Rules that are too many for a configuration: a CSV table that was uploaded apart. They live in two datasets of the
//! proxy, so an instance holds none of them.

mod csv;
mod trails;

use std::cell::RefCell;

use latchkey_sdk::config::{Value, brief};
use latchkey_sdk::datasets::{Dataset, Entry, Kind as By, Reason, Subject, Table};
use latchkey_sdk::rules as used;

use crate::location::Target;
use crate::rules::{self, Wrong};
use crate::table::{Kind, Tables};
use crate::{Query, Status};
use csv::{Columns, Row};

/// Told of each kind; all of a million would be no help.
const ERRORS_MAX: usize = 50;
const WARNINGS_MAX: usize = 20;
/// Rules that go to the proxy in one call.
const BATCH: usize = 512;

pub(crate) struct Bulk {
    pub(crate) exact: Dataset,
    pub(crate) prefix: Dataset,
    pub(crate) rules: u32,
    prefixes: u32,
}

/// A rule of the table, as its dataset holds it: what is in one byte, the line, the length of `from`, `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stored<'a> {
    pub(crate) status: Status,
    pub(crate) query: Query,
    pub(crate) kind: Kind,
    pub(crate) line: u32,
    pub(crate) from_bytes: u16,
    pub(crate) to: &'a str,
}

/// Says what is wrong with lines, up to a number of them.
struct Report<'a> {
    value: &'a Value<'a>,
    name: &'a str,
    errors: RefCell<usize>,
    warnings: RefCell<usize>,
}

pub(crate) fn read(value: &Value<'_>, inline: &Tables) -> Option<Bulk> {
    let name = value.text()?;
    let open = || Table::open(name);
    let Some(table) = open() else {
        let hint =
            "upload it with `latchkey table push`, name it in `tables`, and in the binding's `tables`".to_owned();
        return value.refuse(format!("no table `{}` is granted to this binding", brief(name)), hint);
    };
    let report = Report { value, name, errors: RefCell::new(0), warnings: RefCell::new(0) };
    let (exact, prefix) = (
        Dataset::new("table-exact", By::Exact, Subject::Route),
        Dataset::new("table-prefix", By::Prefix, Subject::Route),
    );
    let mut bulk = Bulk { exact, prefix, rules: 0, prefixes: 0 };
    bulk.fill(&table, &report);
    if *report.errors.borrow() == 0
        && let Some(again) = open()
    {
        trails::check(&again, &bulk, inline, &report);
    }
    report.ended().then_some(bulk)
}

impl Bulk {
    fn fill(&mut self, table: &Table, report: &Report<'_>) {
        let (mut exact, mut prefix) = (Batch::default(), Batch::default());
        let mut numbered = Numbered::default();
        each_row(table, report, |line, row| {
            let rule = match rule(line, row) {
                Ok(rule) => rule,
                Err((message, hint)) => return report.error(line, message, hint),
            };
            self.rules += 1;
            numbered.put(line, rules::id(rule.host, rule.stored.kind, rule.from));
            let (batch, dataset) = match rule.stored.kind {
                Kind::Prefix => (&mut prefix, &self.prefix),
                _ => (&mut exact, &self.exact),
            };
            self.prefixes += u32::from(rule.stored.kind == Kind::Prefix);
            batch.push(rule);
            if batch.is_full() {
                batch.send(dataset, report);
            }
        });
        exact.send(&self.exact, report);
        prefix.send(&self.prefix, report);
        numbered.send();
    }
}

/// Rules by their lines: the places of lines that are none stay empty, and so does line 0, which there is not.
#[derive(Default)]
struct Numbered {
    sent: u32,
    ids: Vec<u64>,
}

impl Numbered {
    fn put(&mut self, line: u32, id: u64) {
        while self.sent + u32::try_from(self.ids.len()).unwrap_or_default() < line {
            self.ids.push(0);
            self.send_some();
        }
        self.ids.push(id);
        self.send_some();
    }

    fn send_some(&mut self) {
        if self.ids.len() >= BATCH {
            self.send();
        }
    }

    fn send(&mut self) {
        used::declare(&self.ids);
        self.sent += u32::try_from(self.ids.len()).unwrap_or_default();
        self.ids.clear();
    }
}

/// Entries are filled again when they have been sent.
#[derive(Default)]
struct Batch {
    entries: Vec<Entry>,
    lines: Vec<u32>,
}

impl Batch {
    fn push(&mut self, rule: Ruled<'_>) {
        if self.entries.len() == self.lines.len() {
            self.entries.push(Entry { key: String::new(), value: Vec::new() });
        }
        if let Some(Entry { key, value }) = self.entries.get_mut(self.lines.len()) {
            key.clear();
            key.push_str(rule.host);
            key.push_str(rule.from);
            value.clear();
            rule.stored.encode(value);
            self.lines.push(rule.stored.line);
        }
    }

    fn is_full(&self) -> bool {
        self.lines.len() >= BATCH
    }

    fn send(&mut self, dataset: &Dataset, report: &Report<'_>) {
        for refusal in dataset.add(self.entries.get(..self.lines.len()).unwrap_or_default()) {
            let place = refusal.entry as usize;
            let (Some(entry), Some(line)) = (self.entries.get(place), self.lines.get(place)) else { continue };
            let message = match refusal.why {
                Reason::Illegal(says) => says,
                Reason::Repeated => {
                    let earlier = dataset.find(&entry.key).and_then(|value| Some(Stored::decode(&value)?.line));
                    let earlier = earlier.map_or_else(String::new, |line| format!(" of line {line}"));
                    format!("repeats `{}`{earlier}", brief(&entry.key))
                }
            };
            report.error(*line, message, Some("keep one of the two".to_owned()));
        }
        self.lines.clear();
    }
}

/// A row that is a rule.
struct Ruled<'a> {
    host: &'a str,
    from: &'a str,
    stored: Stored<'a>,
}

/// Host and path.
fn source<'a>(row: &Row<'a>) -> (&'a str, &'a str) {
    match rules::url(row.from) {
        Some((authority, "")) => (authority, "/"),
        Some(both) => both,
        None => (row.host, row.from),
    }
}

fn rule<'a>(line: u32, row: &Row<'a>) -> Result<Ruled<'a>, Wrong> {
    let (host, from) = source(row);
    if !host.is_empty() {
        rules::check_host(host)?;
        if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err((
                format!("`{}` has capital letters", brief(host)),
                Some("write host names in lower case".into()),
            ));
        }
    }
    rules::check_path(from)?;
    let kind = match row.kind {
        "" | "exact" => Kind::Exact,
        "prefix" => Kind::Prefix,
        "regex" => return Err(("is a regular expression".to_owned(), Some("write it into `rules`".to_owned()))),
        other => return Err((format!("`{}` is not one of exact, prefix", brief(other)), None)),
    };
    let status = match row.status {
        "" => Status::MovedPermanently,
        text => rules::check_status(text.parse().unwrap_or_default())
            .map_err(|_| (format!("`{}` is not one of 301, 302, 303, 307, 308, 410", brief(text)), None))?,
    };
    match (status, row.to) {
        (Status::Gone, "") => {}
        (Status::Gone, _) => {
            return Err(("leads nowhere, since its status is 410".to_owned(), Some("leave `to` empty".into())));
        }
        (_, to) => {
            rules::check_target(to)?;
            if kind == Kind::Prefix {
                rules::check_prefix_target(to)?;
            }
        }
    }
    let query = match row.query {
        "" | "keep" => Query::Keep,
        "drop" => Query::Drop,
        "merge" => Query::Merge,
        other => return Err((format!("`{}` is not one of keep, drop, merge", brief(other)), None)),
    };
    let from_bytes = u16::try_from(from.len()).unwrap_or(u16::MAX);
    Ok(Ruled { host, from, stored: Stored { status, query, kind, line, from_bytes, to: row.to } })
}

impl<'a> Stored<'a> {
    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.push(self.status as u8 | (self.query as u8) << 3 | u8::from(self.kind == Kind::Prefix) << 5);
        bytes.extend_from_slice(&self.line.to_le_bytes());
        bytes.extend_from_slice(&self.from_bytes.to_le_bytes());
        bytes.extend_from_slice(self.to.as_bytes());
    }

    pub(crate) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (&packed, rest) = bytes.split_first()?;
        let (line, rest) = rest.split_first_chunk()?;
        let (from_bytes, to) = rest.split_first_chunk()?;
        Some(Self {
            status: *Status::ALL.get(usize::from(packed & 7))?,
            query: *[Query::Keep, Query::Drop, Query::Merge].get(usize::from(packed >> 3 & 3))?,
            kind: if packed >> 5 & 1 == 1 { Kind::Prefix } else { Kind::Exact },
            line: u32::from_le_bytes(*line),
            from_bytes: u16::from_le_bytes(*from_bytes),
            to: std::str::from_utf8(to).ok()?,
        })
    }

    pub(crate) fn target(&self) -> Target<'a> {
        Target {
            to: self.to,
            kind: self.kind,
            from_bytes: self.from_bytes.into(),
            query: self.query,
            groups: Vec::new(),
        }
    }
}

impl Report<'_> {
    fn error(&self, line: u32, message: String, hint: Option<String>) {
        *self.errors.borrow_mut() += 1;
        if *self.errors.borrow() <= ERRORS_MAX {
            self.value.refuse::<()>(format!("line {line} of table `{}`: {message}", brief(self.name)), hint);
        }
    }

    fn warn(&self, line: u32, message: String, hint: String) {
        *self.warnings.borrow_mut() += 1;
        if *self.warnings.borrow() <= WARNINGS_MAX {
            self.value.warn(format!("line {line} of table `{}`: {message}", brief(self.name)), hint);
        }
    }

    /// Whether all was right.
    fn ended(&self) -> bool {
        let (errors, warnings) = (*self.errors.borrow(), *self.warnings.borrow());
        if errors > ERRORS_MAX {
            self.value.refuse::<()>(
                format!("{errors} lines of table `{}` are wrong; {ERRORS_MAX} are shown", self.name),
                None,
            );
        }
        if warnings > WARNINGS_MAX {
            let message = format!("{warnings} remarks about table `{}`; {WARNINGS_MAX} are shown", self.name);
            self.value.warn(message, "mend those, and apply again");
        }
        errors == 0
    }
}

/// Calls `take` for each line but the first, which names the columns, and empty ones.
fn each_row(table: &Table, report: &Report<'_>, mut take: impl FnMut(u32, &Row<'_>)) {
    let (mut line, mut columns) = (0, None);
    loop {
        let chunk = table.lines();
        if chunk.is_empty() {
            if columns.is_none() {
                report.error(1, "there is none: the table is empty".to_owned(), None);
            }
            return;
        }
        let Ok(text) = std::str::from_utf8(&chunk) else {
            return report.error(line + 1, "this line, or one below it, is not UTF-8".to_owned(), None);
        };
        for record in csv::records(text) {
            line += 1;
            if record.text.is_empty() {
                continue;
            }
            let Some(columns) = &columns else {
                match Columns::of(&record) {
                    Ok(named) => columns = Some(named),
                    Err((message, hint)) => return report.error(line, message, hint),
                }
                continue;
            };
            let row = record.fields().and_then(|fields| columns.row(&fields).map(|row| take(line, &row)));
            if let Err(message) = row {
                report.error(line, message, None);
            }
        }
    }
}
