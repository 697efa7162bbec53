//! The audit log: every change that was asked for over the admin API, and what became of it. A line of JSON each, only ever
//! appended to; what requests carry is not in it.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use contract::admin::AuditEntry;
use tokio::sync::Mutex;

use crate::observe::disk_failed;

/// Beyond it a new file is begun, and the one before is kept.
const FILE_BYTES_MAX: u64 = 16 << 20;
const TEXT_CHARS_MAX: usize = 200;
/// So many requests of those who may change nothing are told in a window: whoever knocks without end pushes out nothing that
/// was changed, and makes nobody wait for the disk.
const FEW: u32 = 10;
const FEW_SECONDS: u64 = 600;

pub(super) struct Audit {
    path: PathBuf,
    writing: Mutex<()>,
    may_not: std::sync::Mutex<Few>,
    unknown: std::sync::Mutex<Few>,
}

/// Of who asked, as far as it counts here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    MayChange,
    /// Is known, and may change nothing, or not from there.
    MayNot,
    Unknown,
}

#[derive(Debug, Default)]
struct Few {
    since: u64,
    told: u32,
    left_out: u64,
}

impl Audit {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, writing: Mutex::new(()), may_not: Default::default(), unknown: Default::default() }
    }

    /// Is on disk when it returns. A disk that does not take it is told in the log, along with the entry.
    pub(super) async fn add(&self, mut entry: AuditEntry, standing: Standing) {
        let few = match standing {
            Standing::MayChange => None,
            Standing::MayNot => Some(&self.may_not),
            Standing::Unknown => Some(&self.unknown),
        };
        if let Some(few) = few {
            let told = few.lock().unwrap_or_else(PoisonError::into_inner).one(entry.at);
            let Some(left_out) = told else { return };
            entry.left_out = left_out;
        }
        for text in [&mut entry.method, &mut entry.path, &mut entry.who, &mut entry.message] {
            *text = text.chars().flat_map(char::escape_default).take(TEXT_CHARS_MAX).collect();
        }
        let _turn = self.writing.lock().await;
        let (path, entry) = (self.path.clone(), Arc::new(entry));
        let written = entry.clone();
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || append(&path, &written)).await {
            disk_failed("the audit log can't be written", "the entry is in this log only", &error);
            tracing::error!(?entry, "not in the audit log");
        }
    }

    /// The newest ones, newest first.
    pub(super) fn newest(&self, limit: usize) -> std::io::Result<Vec<AuditEntry>> {
        let mut newest = VecDeque::new();
        for path in [self.path.with_extension("1"), self.path.clone()] {
            let file = match File::open(path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                opened => opened?,
            };
            for line in BufReader::new(file).lines() {
                // A crash may have cut the last one.
                let Ok(entry) = serde_json::from_str(&line?) else { continue };
                if newest.len() == limit {
                    newest.pop_back();
                }
                newest.push_front(entry);
            }
        }
        Ok(newest.into())
    }
}

impl Few {
    /// Whether to tell of one more; and how many were left out before it.
    fn one(&mut self, now: u64) -> Option<u64> {
        if now.abs_diff(self.since) >= FEW_SECONDS {
            (self.since, self.told) = (now, 0);
        }
        if self.told == FEW {
            self.left_out += 1;
            return None;
        }
        self.told += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

fn append(path: &std::path::Path, entry: &AuditEntry) -> std::io::Result<()> {
    if std::fs::metadata(path).is_ok_and(|about| about.len() > FILE_BYTES_MAX) {
        std::fs::rename(path, path.with_extension("1"))?;
    }
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    // What a crash has cut is no part of the next line.
    let mut last = [b'\n'];
    if file.seek(SeekFrom::End(-1)).is_ok() {
        file.read_exact(&mut last)?;
    }
    let begin = if last == *b"\n" { "" } else { "\n" };
    let line = serde_json::to_string(entry)?;
    file.write_all(format!("{begin}{line}\n").as_bytes())?;
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(at: u64) -> AuditEntry {
        let [who, method, path] = ["operator:1", "PUT", "/v1/config\n"].map(str::to_owned);
        AuditEntry { at, who, method, path, status: 200, ..AuditEntry::default() }
    }

    #[tokio::test]
    async fn entries_are_kept_newest_first_and_a_cut_line_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let audit = Audit::new(path.clone());
        assert!(audit.newest(10).unwrap().is_empty());
        for at in 1..=3 {
            audit.add(entry(at), Standing::MayChange).await;
        }
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"at\": 4").unwrap();
        let found = audit.newest(2).unwrap();
        assert_eq!(found.iter().map(|entry| entry.at).collect::<Vec<_>>(), [3, 2]);
        assert_eq!(found[0].path, "/v1/config\\n");
        audit.add(entry(5), Standing::MayChange).await;
        assert_eq!(audit.newest(1).unwrap()[0].at, 5, "the cut line is not in its way");
    }

    #[tokio::test]
    async fn who_may_change_nothing_and_knocks_without_end_pushes_nothing_out() {
        let folder = tempfile::tempdir().unwrap();
        let audit = Audit::new(folder.path().join("audit.log"));
        let many = 1000;
        for standing in [Standing::Unknown, Standing::MayNot] {
            for _ in 0..many {
                audit.add(entry(FEW_SECONDS), standing).await;
            }
            audit.add(entry(2 * FEW_SECONDS), standing).await;
            let found = audit.newest(many).unwrap();
            assert_eq!((found.len(), found[0].left_out, found[1].left_out), (FEW as usize + 1, 990, 0), "{standing:?}");
            std::fs::remove_file(folder.path().join("audit.log")).unwrap();
        }
        for _ in 0..FEW + 1 {
            audit.add(entry(FEW_SECONDS), Standing::MayChange).await;
        }
        assert_eq!(audit.newest(many).unwrap().len(), FEW as usize + 1, "what may have been changed is always told");
    }

    #[tokio::test]
    async fn an_entry_is_short_whatever_was_sent() {
        let folder = tempfile::tempdir().unwrap();
        let audit = Audit::new(folder.path().join("audit.log"));
        let [long, control] = ["A".repeat(30_000), "\u{1b}".repeat(30_000)];
        let sent = AuditEntry { method: long.clone(), path: long, message: control.clone(), who: control, ..entry(1) };
        audit.add(sent, Standing::MayChange).await;
        let text = std::fs::read_to_string(folder.path().join("audit.log")).unwrap();
        assert!(text.len() < 2000 && !text.contains('\u{1b}'), "{text}");
    }

    #[tokio::test]
    async fn a_full_file_makes_room_and_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let audit = Audit::new(path.clone());
        audit.add(entry(1), Standing::MayChange).await;
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(FILE_BYTES_MAX + 1).unwrap();
        audit.add(entry(2), Standing::MayChange).await;
        assert!(path.with_extension("1").exists() && std::fs::metadata(&path).unwrap().len() < 1000);
        assert_eq!(audit.newest(10).unwrap().first().map(|entry| entry.at), Some(2));
    }
}
