//! The CA's folder. What is secret has mode 0600 from its first moment; every file is replaced whole.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rcgen::{Issuer, KeyPair};
use zeroize::Zeroizing;

use super::{Index, Issued, Subject, sign};

#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("{file}: {error}")]
    File { file: String, error: io::Error },
    #[error("{0} holds a CA already; `latchkey pki rotate --ca` makes it a new key")]
    Exists(String),
    #[error("{0} holds no CA (index.json); `latchkey pki init` makes one")]
    NoCa(String),
    #[error("another run of `latchkey pki` has worked on {0} for more than {1} s: end it, and run this one again")]
    Busy(String, u64),
    #[error("{0} is damaged: {1}")]
    Damaged(String, String),
    #[error("`{0}` can't be a name: 1 to 64 of letters, digits, `.`, `_`, `-`, and neither ca nor crl")]
    Name(String),
    #[error("`{0}` has a certificate that is valid; `latchkey pki rotate {0}` replaces it")]
    Known(String),
    #[error("`{0}` has no certificate that is valid; `latchkey pki ls` lists all")]
    Unknown(String),
    #[error("signing failed: {0}")]
    Sign(#[from] rcgen::Error),
}

pub struct Folder {
    path: PathBuf,
    pub index: Index,
    /// Held as long as this run works here: another one waits, and reads what this one has written.
    _lock: File,
}

impl Folder {
    pub fn init(path: &Path, name: &str, days: u32, now: u64) -> Result<Self, PkiError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|error| PkiError::File { file: path.display().to_string(), error })?;
        let lock = lock(path, WAIT_MAX)?;
        if path.join(INDEX).exists() {
            return Err(PkiError::Exists(path.display().to_string()));
        }
        let index = Index { name: name.to_owned(), generation: 0, crl_number: 0, certificates: Vec::new() };
        let mut folder = Self { path: path.to_owned(), index, _lock: lock };
        folder.rotate_ca(days, now)?;
        Ok(folder)
    }

    pub fn open(path: &Path) -> Result<Self, PkiError> {
        if !path.join(INDEX).exists() {
            return Err(PkiError::NoCa(path.display().to_string()));
        }
        let lock = lock(path, WAIT_MAX)?;
        let text = read(&path.join(INDEX))?;
        let index = serde_json::from_str(&text);
        let index = index.map_err(|error| damaged(&path.join(INDEX), &error))?;
        Ok(Self { path: path.to_owned(), index, _lock: lock })
    }

    /// A new key for the CA. What the ones before have signed stays valid; they sign revocations of it, and nothing else.
    pub fn rotate_ca(&mut self, days: u32, now: u64) -> Result<(), PkiError> {
        let generation = self.index.generation + 1;
        let made = sign::ca(&self.index.name, generation, days, now)?;
        write(&self.ca_file(generation, "key"), 0o600, &made.key)?;
        write(&self.ca_file(generation, "pem"), 0o644, &made.certificate)?;
        self.index.generation = generation;
        self.publish(now)
    }

    pub fn issue(&mut self, name: &str, subject: Subject, days: u32, now: u64) -> Result<&Issued, PkiError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let taken = name == "ca" || name == "crl" || name.starts_with("ca-") || name.starts_with('.');
        if taken || !(1..=64).contains(&name.len()) || !name.bytes().all(allowed) {
            return Err(PkiError::Name(name.to_owned()));
        }
        if self.valid(name, now).next().is_some() {
            return Err(PkiError::Known(name.to_owned()));
        }
        self.sign(name, subject, days, now)
    }

    /// Another key and certificate for the same. Those before stay valid until they end or are revoked.
    pub fn rotate(&mut self, name: &str, days: u32, now: u64) -> Result<&Issued, PkiError> {
        let before = self.valid(name, now).last();
        let subject = before.map(|issued| issued.subject.clone()).ok_or_else(|| PkiError::Unknown(name.to_owned()))?;
        self.sign(name, subject, days, now)
    }

    /// All that are valid under a name, or the one with that serial number.
    pub fn revoke(&mut self, name: &str, serial: Option<&str>, now: u64) -> Result<usize, PkiError> {
        let mut revoked = 0;
        for issued in &mut self.index.certificates {
            let meant = issued.name == name && serial.is_none_or(|serial| issued.serial == serial);
            if meant && issued.revoked_at.is_none() && issued.not_after > now {
                issued.revoked_at = Some(now);
                revoked += 1;
            }
        }
        if revoked == 0 {
            return Err(PkiError::Unknown(name.to_owned()));
        }
        self.publish(now)?;
        Ok(revoked)
    }

    fn valid(&self, name: &str, now: u64) -> impl Iterator<Item = &Issued> {
        let valid = move |issued: &&Issued| issued.revoked_at.is_none() && issued.not_after > now;
        self.index.certificates.iter().filter(move |issued| issued.name == name).filter(valid)
    }

    fn sign(&mut self, name: &str, subject: Subject, days: u32, now: u64) -> Result<&Issued, PkiError> {
        let generation = self.index.generation;
        let made = sign::certificate(&self.issuer(generation)?, name, &subject, days, now)?;
        let (serial, sha256, not_after) = (made.serial, made.sha256, made.not_after);
        let issued = Issued { name: name.to_owned(), subject, serial, sha256, generation, not_after, revoked_at: None };
        self.index.certificates.push(issued);
        // Known before it is handed out: what is not in the index can't be revoked.
        self.publish(now)?;
        write(&self.path.join(format!("{name}.key")), 0o600, &made.key)?;
        write(&self.path.join(format!("{name}.pem")), 0o644, &made.certificate)?;
        self.index.certificates.last().ok_or_else(|| PkiError::Unknown(name.to_owned()))
    }

    fn issuer(&self, generation: u32) -> Result<Issuer<'static, KeyPair>, PkiError> {
        let (key_file, file) = (self.ca_file(generation, "key"), self.ca_file(generation, "pem"));
        let key = KeyPair::from_pem(&read(&key_file)?).map_err(|error| damaged(&key_file, &error))?;
        Issuer::from_ca_cert_pem(&read(&file)?, key).map_err(|error| damaged(&file, &error))
    }

    /// The index, then what others read: all CA certificates and revocation lists, the newest first.
    fn publish(&mut self, now: u64) -> Result<(), PkiError> {
        self.index.crl_number += 1;
        let text = serde_json::to_string_pretty(&self.index).map_err(|error| damaged(&self.path, &error))?;
        write(&self.path.join(INDEX), 0o600, &text)?;
        let (mut ca, mut crl) = (String::new(), String::new());
        for generation in (1..=self.index.generation).rev() {
            ca.push_str(&read(&self.ca_file(generation, "pem"))?);
            let of_it = |issued: &&Issued| issued.generation == generation && issued.revoked_at.is_some();
            let revoked: Vec<_> = self.index.certificates.iter().filter(of_it).collect();
            crl.push_str(&sign::crl(&self.issuer(generation)?, &revoked, self.index.crl_number, now)?);
        }
        write(&self.path.join("crl.pem"), 0o644, &crl)?;
        write(&self.path.join("ca.pem"), 0o644, &ca)
    }

    fn ca_file(&self, generation: u32, ending: &str) -> PathBuf {
        self.path.join(format!("ca-{generation}.{ending}"))
    }
}

const INDEX: &str = "index.json";

/// A run takes milliseconds: one that takes longer hangs.
const WAIT_MAX: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// One run at a time: until it is dropped.
fn lock(folder: &Path, wait_max: Duration) -> Result<File, PkiError> {
    let failed = |error| PkiError::File { file: folder.display().to_string(), error };
    let (lock, began) = (File::open(folder).map_err(failed)?, Instant::now());
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::WouldBlock) if began.elapsed() < wait_max => std::thread::sleep(LOOK_EVERY),
            Err(TryLockError::WouldBlock) => {
                return Err(PkiError::Busy(folder.display().to_string(), wait_max.as_secs()));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
    }
}

fn read(path: &Path) -> Result<Zeroizing<String>, PkiError> {
    let failed = |error| PkiError::File { file: path.display().to_string(), error };
    std::fs::read_to_string(path).map(Zeroizing::new).map_err(failed)
}

fn write(path: &Path, mode: u32, text: &str) -> Result<(), PkiError> {
    let beside = path.with_extension(format!("{}.new", path.extension().unwrap_or_default().to_string_lossy()));
    // Left there by a crash.
    let _ = std::fs::remove_file(&beside);
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside);
    let written = opened.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    let renamed = written.and_then(|()| std::fs::rename(&beside, path));
    let folder = path.parent().unwrap_or(Path::new("/"));
    let synced = renamed.and_then(|()| File::open(folder)).and_then(|folder| folder.sync_all());
    synced.map_err(|error| PkiError::File { file: path.display().to_string(), error })
}

fn damaged(path: &Path, error: &dyn std::fmt::Display) -> PkiError {
    PkiError::Damaged(path.display().to_string(), error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    #[test]
    fn runs_at_once_wait_for_each_other_and_lose_nothing() {
        let folder = std::env::temp_dir().join(format!("latchkey-pki-{}", std::process::id()));
        let init = |_: usize| Folder::init(&folder, "Test CA", 10, NOW).is_ok();
        let issue = |at: usize| {
            let subject = Subject::Client { uri: format!("latchkey:edge/{at}") };
            Folder::open(&folder).and_then(|mut ca| ca.issue(&format!("e{at}"), subject, 1, NOW).map(drop)).is_ok()
        };
        let at_once = |run: &(dyn Fn(usize) -> bool + Sync)| {
            std::thread::scope(|scope| {
                let runs: Vec<_> = (0..8).map(|at| scope.spawn(move || run(at))).collect();
                runs.into_iter().map(|run| run.join().unwrap()).filter(|done| *done).count()
            })
        };
        assert_eq!(at_once(&init), 1, "one makes the CA, the others are told that there is one");
        assert_eq!(at_once(&issue), 8);
        let held = Folder::open(&folder).unwrap();
        let index = &held.index;
        let waited = lock(&folder, Duration::ZERO).err();
        assert!(matches!(waited, Some(PkiError::Busy(..))), "{waited:?}");
        std::fs::remove_dir_all(&folder).unwrap();
        let names: std::collections::BTreeSet<_> = index.certificates.iter().map(|issued| &issued.name).collect();
        assert_eq!((names.len(), index.certificates.len(), index.crl_number), (8, 8, 9));
    }
}
