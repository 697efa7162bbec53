//! What is read of a backup: checked, and made fit for a database that goes on from there. Pure.

use std::collections::HashMap;

use contract::journal::{Entry, Head};
use serde_json::Value;

use super::{Cell, Restored, TABLES, from_sql};

/// Cursors of a restored feed begin so far above those of then that none was given to an edge since: each edge reads all
/// of the feed again.
const CURSORS_BETWEEN: i64 = 1 << 40;
/// So many certificates no domain gets between a backup and its return.
const REVISIONS_BETWEEN: i64 = 1000;

#[derive(Default)]
pub(super) struct Reading {
    table: &'static str,
    columns: Vec<String>,
    /// Tables that have begun.
    begun: usize,
    rows: u64,
    domains: u64,
    revision_max: i64,
    /// What comes next has a higher one.
    revision_floor: i64,
    /// Up to where the journal was read; first, where it begins.
    journal: Head,
    /// Where it ends, as its head has it.
    journal_end: Option<Head>,
}

/// A row by its columns.
struct Fields<'a>(HashMap<&'a str, &'a mut Cell>);

impl Fields<'_> {
    fn number(&mut self, column: &str) -> Result<&mut i64, String> {
        match self.0.get_mut(column) {
            Some(Cell::Number(number)) => Ok(number),
            other => Err(format!("column `{column}` is {other:?}, not a number")),
        }
    }

    fn text(&mut self, column: &str) -> Result<&mut String, String> {
        match self.0.get_mut(column) {
            Some(Cell::Text(text)) => Ok(text),
            other => Err(format!("column `{column}` is {other:?}, not a text")),
        }
    }

    fn taken(&mut self, column: &str) -> Result<String, String> {
        self.text(column).cloned()
    }

    /// Nobody holds it any more.
    fn free(&mut self) -> Result<(), String> {
        self.text("holder")?.clear();
        *self.number("held_until")? = 0;
        Ok(())
    }

    /// Changes a JSON document.
    fn edit(&mut self, column: &str, change: impl FnOnce(&mut Value)) -> Result<(), String> {
        let text = self.text(column)?;
        let mut value: Value = serde_json::from_str(text).map_err(|error| format!("column `{column}`: {error}"))?;
        change(&mut value);
        *text = value.to_string();
        Ok(())
    }

    fn entry(&mut self) -> Result<Entry, String> {
        let detail = self.taken("detail")?;
        Ok(Entry {
            seq: from_sql(*self.number("seq")?),
            at: from_sql(*self.number("written_at")?),
            actor: self.taken("actor")?,
            action: self.taken("action")?,
            tenant: self.taken("tenant")?,
            name: self.taken("name")?,
            detail: serde_json::from_str(&detail).map_err(|error| format!("column `detail`: {error}"))?,
            hash: self.taken("hash")?,
        })
    }
}

impl Reading {
    /// Tables come once each, in their order.
    pub(super) fn begin(&mut self, table: &str, columns: Vec<String>) -> Result<(), String> {
        let wanted = TABLES.get(self.begun).copied().unwrap_or("no more");
        if table != wanted {
            return Err(format!("the backup goes on with table `{table}`, not with `{wanted}`"));
        }
        let is_name = |name: &String| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        if let Some(column) = columns.iter().find(|name| name.is_empty() || !is_name(name)) {
            return Err(format!("table `{table}` has a column `{column}`, which is no name"));
        }
        self.begun += 1;
        (self.table, self.columns) = (wanted, columns);
        Ok(())
    }

    pub(super) fn table(&self) -> &'static str {
        self.table
    }

    pub(super) fn at(&self, column: &str) -> Option<usize> {
        self.columns.iter().position(|known| known == column)
    }

    /// Of so many rows.
    pub(super) fn insertion(&self, rows: usize) -> String {
        let row = format!("({})", vec!["?"; self.columns.len()].join(", "));
        format!("INSERT INTO {} (`{}`) VALUES {}", self.table, self.columns.join("`, `"), vec![row; rows].join(", "))
    }

    pub(super) fn admit(&mut self, mut row: Vec<Cell>) -> Result<Vec<Cell>, String> {
        self.rows += 1;
        if row.len() != self.columns.len() || row.is_empty() {
            let (table, columns) = (self.table, self.columns.len());
            return Err(format!("a row of table `{table}` has {} values for {columns} columns", row.len()));
        }
        let names = self.columns.iter().map(String::as_str);
        let mut fields = Fields(names.zip(row.iter_mut()).collect());
        let table = self.table;
        let next = self.revision_floor.saturating_add(1);
        let done = match table {
            "domains" => {
                self.domains += 1;
                Ok(())
            }
            "changes" => fields.number("revision").map(|revision| *revision).and_then(|revision| {
                self.revision_max = self.revision_max.max(revision);
                fields.number("cursor").map(|cursor| *cursor += CURSORS_BETWEEN)
            }),
            "changes_head" => fields.number("cursor").map(|cursor| *cursor += CURSORS_BETWEEN).and_then(|()| {
                // The floor of an earlier restore may have been used up since the backup was made, as the highest may.
                let before = fields.number("revision_floor")?;
                self.revision_floor = self.revision_max.max(*before).saturating_add(REVISIONS_BETWEEN);
                *before = self.revision_floor;
                Ok(())
            }),
            "jobs" => fields.free().and_then(|()| fields.edit("body", |job| number_anew(job, next))),
            "webhooks" => fields.free(),
            "journal" => fields.entry().and_then(|entry| self.journal.follow(&entry).map_err(|says| says.to_string())),
            "journal_head" => fields.number("seq").map(|seq| from_sql(*seq)).and_then(|seq| {
                self.journal_end = Some(Head { seq, hash: fields.taken("hash")? });
                let base = from_sql(*fields.number("base_seq")?);
                self.journal = Head { seq: base, hash: fields.taken("base_hash")? };
                Ok(())
            }),
            _ => Ok(()),
        };
        drop(fields);
        done.map_err(|says| format!("table `{table}`: {says}"))?;
        Ok(row)
    }

    pub(super) fn end(self) -> Result<Restored, String> {
        if self.begun != TABLES.len() {
            return Err(format!("the backup ends before table `{}`", TABLES[self.begun]));
        }
        if self.journal_end.as_ref() != Some(&self.journal) {
            let Head { seq, hash } = &self.journal;
            return Err(format!("the journal ends with entry {seq} ({hash}), but its head is {:?}", self.journal_end));
        }
        Ok(Restored { rows: self.rows, domains: self.domains, bundles: 0, journal_seq: self.journal.seq })
    }
}

/// An order that was under way then brings what no edge has seen.
fn number_anew(job: &mut Value, revision: i64) {
    job["revision"] = revision.into();
    if let Some(first) = job.get_mut("first").and_then(|first| first.get_mut("bundle")) {
        first["revision"] = revision.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(table: &str, columns: &[&str]) -> Reading {
        let begun = TABLES.iter().position(|known| *known == table).unwrap();
        let mut reading = Reading { begun, ..Reading::default() };
        reading.begin(table, columns.iter().map(|name| (*name).to_owned()).collect()).unwrap();
        reading
    }

    fn text(text: &str) -> Cell {
        Cell::Text(text.into())
    }

    #[test]
    fn cursors_and_revisions_go_on_above_all_that_edges_may_have() {
        let mut reading = begun("changes", &["cursor", "domain", "revision", "gone"]);
        let row = vec![Cell::Number(7), text("a.example"), Cell::Number(3), Cell::Number(0)];
        let moved = reading.admit(row).unwrap();
        assert_eq!((&moved[0], &moved[2]), (&Cell::Number(CURSORS_BETWEEN + 7), &Cell::Number(3)));
        let columns = ["id", "cursor", "revision_floor"].map(str::to_owned);
        reading.begin("changes_head", columns.to_vec()).unwrap();
        let row = vec![Cell::Number(1), Cell::Number(9), Cell::Number(0)];
        let moved = reading.admit(row).unwrap();
        assert_eq!(moved[1..], [Cell::Number(CURSORS_BETWEEN + 9), Cell::Number(1003)]);
        // Restored twice, nothing that came after the first time comes again.
        let row = vec![Cell::Number(1), Cell::Number(9), Cell::Number(5000)];
        assert_eq!(reading.admit(row).unwrap()[2], Cell::Number(6000));
        // Orders go on from there as well.
        let columns = ["domain", "body", "holder", "held_until"].map(str::to_owned);
        reading.begun = TABLES.iter().position(|known| *known == "jobs").unwrap();
        reading.begin("jobs", columns.to_vec()).unwrap();
        let order = vec![text("a.example"), text(r#"{"revision":5001}"#), text(""), Cell::Number(0)];
        assert_eq!(reading.admit(order).unwrap()[1], text(r#"{"revision":6001}"#));
    }

    #[test]
    fn an_order_belongs_to_nobody_and_brings_a_new_revision() {
        let mut reading = begun("jobs", &["domain", "body", "holder", "held_until"]);
        reading.revision_floor = 1004;
        let body = r#"{"revision":5,"first":{"bundle":{"revision":5}}}"#;
        let moved = reading.admit(vec![text("a.example"), text(body), text("boot-1"), Cell::Number(99)]).unwrap();
        let body = r#"{"first":{"bundle":{"revision":1005}},"revision":1005}"#;
        assert_eq!(moved, [text("a.example"), text(body), text(""), Cell::Number(0)]);
    }

    #[test]
    fn what_is_out_of_order_short_or_no_name_is_refused_with_its_place() {
        let mut reading = Reading::default();
        let wrong = reading.begin("jobs", vec![]).unwrap_err();
        assert_eq!(wrong, "the backup goes on with table `jobs`, not with `domains`");
        let wrong = reading.begin("domains", vec!["a` FROM domains; --".to_owned()]).unwrap_err();
        assert!(wrong.contains("which is no name"), "{wrong}");
        let mut reading = begun("webhooks", &["holder", "held_until"]);
        let wrong = reading.admit(vec![text("x")]).unwrap_err();
        assert_eq!(wrong, "a row of table `webhooks` has 1 values for 2 columns");
        let wrong = reading.admit(vec![text("x"), text("soon")]).unwrap_err();
        assert!(wrong.starts_with("table `webhooks`: column `held_until` is"), "{wrong}");
        assert!(reading.end().unwrap_err().contains("ends before table `journal_head`"));
    }
}
