//! To whom keys are sealed: edges' public keys. Their private halves must be out of reach.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use contract::document::pointer;
use contract::rsa_key::edge_key_in;
use contract::sealed::{RECIPIENTS_MAX, Recipient};
use zeroize::Zeroizing;

use super::check::Check;
use super::file::EdgesTable;

/// Larger files are no private keys.
const KEY_FILE_BYTES_MAX: u64 = 64 * 1024;
/// Of one folder.
const FILES_MAX: usize = 4096;

impl Check<'_> {
    pub(super) fn edges(&mut self, table: &EdgesTable, data_dir: &Path) -> Vec<Recipient> {
        let files = &table.public_keys;
        if files.is_empty() || files.len() > RECIPIENTS_MAX {
            self.fault("/edges/public_keys", format!("{} edge keys, 1 to {RECIPIENTS_MAX} are accepted", files.len()));
        }
        let mut recipients: Vec<Recipient> = Vec::new();
        for (index, file) in files.iter().enumerate() {
            let at = pointer("/edges/public_keys", index);
            let Some(pem) = self.file(file, &at) else { continue };
            match Recipient::from_pem(&pem) {
                Ok(key) if recipients.iter().any(|known| known.kid() == key.kid()) => {
                    self.fault(&at, format!("{file} holds the same key as another entry"));
                }
                Ok(key) => recipients.push(key),
                Err(error) => self.fault(&at, format!("{file}: {error}")),
            }
        }
        if !table.private_keys_in_reach {
            self.private_keys(files, data_dir, &recipients);
        }
        recipients
    }

    /// Who takes CertService over must not find with it what opens all that it has sealed.
    fn private_keys(&mut self, files: &[String], data_dir: &Path, recipients: &[Recipient]) {
        let of_keys = files.iter().filter_map(|file| self.path(file).parent().map(Path::to_owned));
        let folders: BTreeSet<PathBuf> = of_keys.chain([self.path(""), data_dir.to_owned()]).collect();
        for file in folders.iter().flat_map(|folder| files_of(folder)) {
            let text = super::check::read_file(&file).unwrap_or_else(|_| Zeroizing::new(String::new()));
            let Some(kid) = edge_key_in(&text) else { continue };
            if recipients.iter().any(|recipient| recipient.kid() == kid) {
                let says = format!(
                    "{} holds the private key of edge {kid}: CertService could open what it seals",
                    file.display()
                );
                self.hinted(
                    "/edges/public_keys",
                    says,
                    "keep it on the edge only, and make a new one if this host is not the edge",
                );
            }
        }
    }
}

fn files_of(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().take(FILES_MAX);
    let small = |entry: &std::fs::DirEntry| {
        entry.path().metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() <= KEY_FILE_BYTES_MAX)
    };
    entries.filter(small).map(|entry| entry.path()).collect()
}
