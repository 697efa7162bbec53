//! Applied configurations on disk: the running one, which a restart begins with, and those before it.
//!
//! One file a revision: its head (JSON, one line), then the text as it was given. The oldest go when there are too many.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use contract::admin::Revision;

use crate::files::write_atomically;
use crate::wasm::Digest;

/// Most revisions that are kept, and most bytes of them. The running one is kept whatever its size.
pub(super) const KEPT_MAX: usize = 200;
const KEPT_BYTES_MAX: u64 = 512 << 20;
const HEAD_BYTES_MAX: u64 = 64 << 10;
const EXTENSION: &str = "revision";

pub(super) struct Revisions {
    folder: PathBuf,
    /// Oldest first.
    heads: Mutex<VecDeque<Revision>>,
}

#[derive(Debug, thiserror::Error)]
pub enum RevisionError {
    #[error("{0}: {1}")]
    Io(String, std::io::Error),
    #[error("{0} is damaged: {1}; take the file away to begin with the revision before it")]
    Damaged(String, String),
    #[error("{0}")]
    Newest(String),
}

impl Revisions {
    /// An old revision that can't be read is left out. The newest one is not: to serve an older configuration instead
    /// is for an operator to decide.
    pub(super) fn open(folder: PathBuf) -> Result<Self, RevisionError> {
        let io = |error| RevisionError::Io(folder.display().to_string(), error);
        std::fs::create_dir_all(&folder).map_err(io)?;
        let (mut heads, mut damaged) = (Vec::new(), None);
        for entry in std::fs::read_dir(&folder).map_err(io)? {
            let path = entry.map_err(io)?.path();
            let named = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
            let Some(number) = named.filter(|_| path.extension().is_some_and(|extension| extension == EXTENSION))
            else {
                continue;
            };
            match head(&path) {
                Ok(head) if head.number == number => heads.push(head),
                read => {
                    let why =
                        read.map_or_else(|error| error.to_string(), |head| format!("it is revision {}", head.number));
                    let error = RevisionError::Damaged(path.display().to_string(), why);
                    tracing::error!("{error}");
                    damaged = damaged.max(Some(number).map(|number| (number, error.to_string())));
                }
            }
        }
        heads.sort_by_key(|head| head.number);
        match damaged {
            Some((number, error)) if heads.last().is_none_or(|head| head.number < number) => {
                Err(RevisionError::Newest(error))
            }
            _ => Ok(Self { folder, heads: Mutex::new(heads.into()) }),
        }
    }

    pub(super) fn list(&self) -> Vec<Revision> {
        self.heads().iter().rev().cloned().collect()
    }

    pub(super) fn latest(&self) -> Option<Revision> {
        self.heads().back().cloned()
    }

    pub(super) fn find(&self, number: u64) -> Option<Revision> {
        self.heads().iter().find(|head| head.number == number).cloned()
    }

    /// The text, as it was given.
    pub(super) fn text(&self, revision: &Revision) -> Result<String, RevisionError> {
        let path = self.path(revision.number);
        let shown = || path.display().to_string();
        let whole = std::fs::read_to_string(&path).map_err(|error| RevisionError::Io(shown(), error))?;
        let (_, text) = whole.split_once('\n').ok_or_else(|| RevisionError::Damaged(shown(), "no head".into()))?;
        let digest = Digest::of(text.as_bytes()).to_string();
        if digest != revision.digest {
            let says = format!("its digest is {digest}, not {}", revision.digest);
            return Err(RevisionError::Damaged(shown(), says));
        }
        Ok(text.to_owned())
    }

    /// On disk when it returns. What no longer has room goes.
    pub(super) fn keep(&self, revision: Revision, text: &str) -> std::io::Result<()> {
        self.keep_by(revision, text, write_atomically)
    }

    fn keep_by(
        &self,
        revision: Revision,
        text: &str,
        write: fn(&Path, &[u8]) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        let mut bytes = serde_json::to_vec(&revision)?;
        bytes.push(b'\n');
        bytes.extend_from_slice(text.as_bytes());
        let path = self.path(revision.number);
        if let Err(error) = write(&path, &bytes) {
            // It may be in place, only not for certain: a restart must not begin with what was said not to be applied.
            if let Err(error) = std::fs::remove_file(&path).or_else(|error| match error.kind() {
                std::io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            }) {
                tracing::error!(path = %path.display(), %error, "a revision that is not applied can't be removed; take it away");
            }
            return Err(error);
        }
        let mut heads = self.heads();
        heads.push_back(revision);
        let mut total: u64 = heads.iter().map(|head| head.bytes).sum();
        while heads.len() > 1 && (heads.len() > KEPT_MAX || total > KEPT_BYTES_MAX) {
            let Some(oldest) = heads.pop_front() else { break };
            total -= oldest.bytes;
            if let Err(error) = std::fs::remove_file(self.path(oldest.number)) {
                tracing::warn!(revision = oldest.number, %error, "an old revision could not be removed");
            }
        }
        Ok(())
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(number.to_string()).with_extension(EXTENSION)
    }

    fn heads(&self) -> std::sync::MutexGuard<'_, VecDeque<Revision>> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn head(path: &Path) -> std::io::Result<Revision> {
    let mut line = String::new();
    BufReader::new(std::fs::File::open(path)?.take(HEAD_BYTES_MAX)).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

#[cfg(test)]
mod tests {
    use contract::admin::Author;

    use super::*;

    fn revision(number: u64, text: &str) -> Revision {
        Revision {
            number,
            at: 7,
            who: Author { uid: Some(1000), ..Author::default() },
            message: "why".into(),
            digest: Digest::of(text.as_bytes()).to_string(),
            bytes: text.len() as u64,
            reverts_to: None,
            summary: "touches 0 of 0 hosts".into(),
        }
    }

    #[test]
    fn what_was_kept_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let text = "{\n  \"sites\": []\n}\n";
        Revisions::open(folder.path().into()).unwrap().keep(revision(1, text), text).unwrap();
        let again = Revisions::open(folder.path().into()).unwrap();
        assert_eq!(again.latest(), Some(revision(1, text)));
        assert_eq!(again.text(&revision(1, text)).unwrap(), text);
        assert_eq!(again.find(2), None);
    }

    #[test]
    fn what_is_told_as_not_kept_is_not_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let revisions = Revisions::open(folder.path().into()).unwrap();
        revisions.keep(revision(1, "{}"), "{}").unwrap();
        let in_place_for_now = |path: &Path, bytes: &[u8]| {
            std::fs::write(path, bytes)?;
            Err(std::io::Error::other("fsync of the folder"))
        };
        assert!(revisions.keep_by(revision(2, "{ }"), "{ }", in_place_for_now).is_err());
        let again = Revisions::open(folder.path().into()).unwrap();
        assert_eq!((revisions.latest(), again.latest()), (Some(revision(1, "{}")), Some(revision(1, "{}"))));
    }

    #[test]
    fn a_text_that_was_altered_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let revisions = Revisions::open(folder.path().into()).unwrap();
        revisions.keep(revision(1, "{}"), "{}").unwrap();
        let path = revisions.path(1);
        let altered = std::fs::read_to_string(&path).unwrap().replace("\n{}", "\n{ }");
        std::fs::write(&path, altered).unwrap();
        assert!(matches!(revisions.text(&revision(1, "{}")), Err(RevisionError::Damaged(..))));
        std::fs::write(&path, "nonsense").unwrap();
        let error = Revisions::open(folder.path().into()).err().unwrap().to_string();
        assert!(error.contains("1.revision is damaged") && error.contains("take the file away"), "{error}");
        revisions.keep(revision(2, "{}"), "{}").unwrap();
        let again = Revisions::open(folder.path().into()).unwrap();
        assert_eq!(again.list(), [revision(2, "{}")], "an old one is left out");
    }

    #[test]
    fn the_oldest_goes_when_there_is_one_too_many() {
        let folder = tempfile::tempdir().unwrap();
        let revisions = Revisions::open(folder.path().into()).unwrap();
        let count = KEPT_MAX as u64;
        for number in 1..=count {
            revisions.keep(revision(number, "{}"), "{}").unwrap();
        }
        assert!(revisions.find(1).is_some() && revisions.path(1).exists());
        revisions.keep(revision(count + 1, "{}"), "{}").unwrap();
        assert!(revisions.find(1).is_none() && !revisions.path(1).exists());
        let numbers: Vec<_> = revisions.list().iter().map(|head| head.number).collect();
        assert_eq!((numbers.len(), numbers[0], numbers[KEPT_MAX - 1]), (KEPT_MAX, count + 1, 2));
    }
}
