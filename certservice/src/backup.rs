//! A backup of the store as a file: one line of JSON for each row, between a head and a digest of all that stands above it.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::config::Places;
use crate::store::{Piece, Restored, Store};

/// Of this form of a file.
const FORM: u32 = 1;
/// Longest line: a part of a list of domains is the largest value that there is.
const LINE_BYTES_MAX: u64 = 32 * 1024 * 1024;

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Top {
    latchkey_backup: u32,
    /// Of the schema.
    schema: i64,
    /// Unix seconds.
    taken_at: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    rows: u64,
    /// Of all lines above, hexadecimal.
    sha256: String,
}

/// Writes all that the store holds as it is at one moment; CertService may go on meanwhile. The file is there when it is
/// whole; how many rows it has.
pub async fn write(places: &Places, to: &Path) -> Result<u64, String> {
    let failed = |error: std::io::Error| format!("{} can't be written: {error}", to.display());
    if to.exists() {
        return Err(format!("{} is there already; a backup replaces no other", to.display()));
    }
    let beside = to.with_added_extension("new");
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside).map_err(failed)?;
    let store = Store::open(places).await.map_err(|error| error.to_string())?;
    let mut out = Digesting { file: BufWriter::new(file), digest: Context::new(&SHA256) };
    let top = Top { latchkey_backup: FORM, schema: Store::schema(), taken_at: clock::now() };
    out.line(&top).map_err(failed)?;
    let mut rows = 0;
    let mut keep = |piece: Piece| {
        rows += u64::from(matches!(piece, Piece::Row(_)));
        out.line(&piece).map_err(failed)
    };
    let copied = store.copy_out(&mut keep).await;
    store.close().await;
    copied.map_err(|error| error.to_string())?;
    let sha256 = hex(out.digest.clone().finish().as_ref());
    out.line(&End { rows, sha256 }).map_err(failed)?;
    let file = out.file.into_inner().map_err(|error| failed(error.into_error()))?;
    file.sync_all().and_then(|()| std::fs::rename(&beside, to)).map_err(failed)?;
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    Ok(rows)
}

/// Reads a backup twice: first whether it is whole, then into a database that holds nothing.
pub async fn restore(places: &Places, from: &Path) -> Result<Restored, String> {
    check(from)?;
    let mut lines = Lines::open(from)?;
    let top = lines.top()?;
    // As it was written; then brought up to date like any other.
    let before = Store::open_at(places, top.schema).await.map_err(|error| error.to_string())?;
    let restored = before.copy_in(&mut || lines.piece(), top.taken_at).await;
    before.close().await;
    let restored = restored.map_err(|error| error.to_string())?;
    Store::open(places).await.map_err(|error| error.to_string())?.close().await;
    Ok(restored)
}

/// Whether a file is a whole backup, that this CertService can read: all but whether each certificate has its key, which takes
/// a database.
pub fn check(from: &Path) -> Result<u64, String> {
    let mut lines = Lines::open(from)?;
    let top = lines.top()?;
    if top.latchkey_backup != FORM || !(FIRST_SCHEMA..=Store::schema()).contains(&top.schema) {
        return Err(format!(
            "{} has form {} and schema version {}; this CertService reads form {FORM} and versions {FIRST_SCHEMA} to {}",
            from.display(),
            top.latchkey_backup,
            top.schema,
            Store::schema()
        ));
    }
    Ok(Store::read_through(&mut || lines.piece())?.rows)
}

/// The first that had backups.
const FIRST_SCHEMA: i64 = 13;

struct Digesting {
    file: BufWriter<File>,
    digest: Context,
}

impl Digesting {
    fn line(&mut self, value: &impl Serialize) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        self.digest.update(&line);
        self.file.write_all(&line)
    }
}

/// Of a backup, one by one; the last is compared with all before it.
struct Lines<'a> {
    path: &'a Path,
    file: BufReader<File>,
    digest: Context,
    number: u64,
    rows: u64,
}

impl<'a> Lines<'a> {
    fn open(path: &'a Path) -> Result<Self, String> {
        let file = File::open(path).map_err(|error| format!("{} can't be read: {error}", path.display()))?;
        Ok(Self { path, file: BufReader::new(file), digest: Context::new(&SHA256), number: 0, rows: 0 })
    }

    fn fault(&self, says: impl std::fmt::Display) -> String {
        format!("{}:{}: {says}", self.path.display(), self.number)
    }

    fn next(&mut self) -> Result<Vec<u8>, String> {
        self.number += 1;
        let mut line = Vec::new();
        let read = (&mut self.file).take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
        read.map_err(|error| self.fault(error))?;
        if line.last() == Some(&b'\n') {
            return Ok(line);
        }
        Err(self.fault(if line.len() as u64 == LINE_BYTES_MAX {
            format!("a line of more than {LINE_BYTES_MAX} bytes")
        } else {
            "the backup is cut off here".to_owned()
        }))
    }

    fn top(&mut self) -> Result<Top, String> {
        let line = self.next()?;
        self.digest.update(&line);
        serde_json::from_slice(&line).map_err(|error| self.fault(format!("this is no backup of CertService: {error}")))
    }

    /// `None` after the last one.
    fn piece(&mut self) -> Result<Option<Piece>, String> {
        let line = self.next()?;
        // A row of a number and a text would be taken for its fields in their order.
        let end = line.starts_with(b"{").then(|| serde_json::from_slice(&line).ok()).flatten();
        if let Some(End { rows, sha256 }) = end {
            let found = hex(self.digest.clone().finish().as_ref());
            if (rows, &sha256) != (self.rows, &found) {
                let says = format!("the backup is not what was written: {} rows with SHA-256 {found}", self.rows);
                return Err(self.fault(format!("{says}; it was {rows} with {sha256}")));
            }
            return Ok(None);
        }
        self.digest.update(&line);
        let piece = serde_json::from_slice(&line).map_err(|error| self.fault(error))?;
        self.rows += u64::from(matches!(piece, Piece::Row(_)));
        Ok(Some(piece))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
