//! From what was written to what is meant. Goes through the whole file and collects every fault.

use std::fs::File as OpenFile;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use contract::api::Fault;
use contract::document::{Document, in_order, pointer};
use contract::tickets::TICKET_LIFETIME_SECONDS_MAX;
use zeroize::Zeroizing;

use super::file::{File, RedisTable, StoreTable, TicketsTable};
use super::file_orders::{IssuanceTable, OrderWord};
use super::*;
use crate::tickets::Pace;

pub(super) fn check(file: File, document: &Document, folder: &Path) -> Result<Config, Vec<Fault>> {
    let mut check = Check { document, folder, faults: Vec::new() };
    let data_dir = check.path(&file.data_dir);
    let listen = check.listen(&file.listen, file.tokens.is_empty() && file.certificates.is_empty());
    let tokens: Vec<_> = file.tokens.iter().enumerate().filter_map(|(at, token)| check.token(at, token)).collect();
    let certificates = check.certificates(&file.certificates, &file.listen);
    let store = check.store(file.store.as_ref(), &data_dir);
    let redis = file.redis.as_ref().and_then(|table| check.redis(table));
    let edges = check.edges(&file.edges, &data_dir);
    let issuers = check.issuers(&file.issuers, !file.dns.is_empty());
    let domains = Domains {
        names_per_registered_domain_max: file.domains.names_per_registered_domain_max.into(),
        www: file.domains.www,
        issuers: check.preferred(&file.domains, &file.issuers),
        order: match file.domains.order {
            OrderWord::Now => OrderWhen::Now,
            OrderWord::FirstVisit => OrderWhen::FirstVisit,
        },
        first_visits: an_hour(file.domains.first_visits_per_hour_max),
        renews: an_hour(file.domains.renews_per_hour_max),
    };
    let issuance = check.issuance(&file.issuance);
    let precheck = check.precheck(&file.precheck);
    let tickets = check.tickets(&file.tickets);
    let webhooks = check.webhooks(&file.webhooks);
    let dns = check.dns(&file.dns);
    match (listen, store) {
        (Some(listen), Some(store)) if check.faults.is_empty() => Ok(Config {
            data_dir,
            listen,
            tokens,
            certificates,
            store,
            redis,
            edges,
            issuers,
            domains,
            issuance,
            precheck,
            tickets,
            webhooks,
            dns,
        }),
        _ => Err(in_order(check.faults)),
    }
}

/// 0 is no limit.
fn an_hour(count: u32) -> Option<Limit> {
    (count > 0).then(|| Limit::new(count.into(), 3600))
}

pub(super) struct Check<'a> {
    document: &'a Document,
    folder: &'a Path,
    faults: Vec<Fault>,
}

impl Check<'_> {
    pub(super) fn fault(&mut self, at: &str, says: impl Into<String>) {
        self.faults.push(self.document.fault(at, says, None));
    }

    pub(super) fn hinted(&mut self, at: &str, says: impl Into<String>, hint: &str) {
        self.faults.push(self.document.fault(at, says, Some(hint.to_owned())));
    }

    pub(super) fn path(&self, written: &str) -> PathBuf {
        self.folder.join(written)
    }

    pub(super) fn file(&mut self, written: &str, at: &str) -> Option<Zeroizing<String>> {
        match read_file(&self.path(written)) {
            Ok(text) => Some(text),
            Err(says) => {
                self.fault(at, says);
                None
            }
        }
    }

    /// One that only its owner may read.
    pub(super) fn secret_file(&mut self, written: &str, at: &str) -> Option<Zeroizing<String>> {
        let path = self.path(written);
        let mode = path.metadata().map_or(0, |metadata| metadata.permissions().mode() & 0o777);
        if mode & 0o077 != 0 {
            let says = format!("{} has mode {mode:04o}: others may read this secret", path.display());
            self.hinted(at, says, &format!("chmod 600 {}", path.display()));
            return None;
        }
        self.file(written, at)
    }

    fn store(&mut self, table: Option<&StoreTable>, data_dir: &Path) -> Option<Places> {
        let in_data_dir = StoreUrl::Sqlite(data_dir.join("certservice.db"));
        let Some(table) = table else {
            return Some(in_data_dir.into());
        };
        let StoreTable { url, url_file, bundles, bundles_file } = table;
        if bundles.is_none() && bundles_file.is_none() {
            return self.database((url, url_file), ["url", "url_file"]).map(Places::from);
        }
        let store = match (url, url_file) {
            (None, None) => Some(in_data_dir),
            written => self.database(written, ["url", "url_file"]),
        };
        let bundles = self.database((bundles, bundles_file), ["bundles", "bundles_file"]);
        let (store, bundles) = (store?, bundles?);
        if store.is(&bundles) {
            let says = "`bundles` names the database that has the rest; it is for another one";
            self.hinted("/store", says, "leave `bundles` out to have all in one database");
            return None;
        }
        Some(Places { store, bundles: Some(bundles) })
    }

    fn database(&mut self, written: (&Option<String>, &Option<String>), names: [&str; 2]) -> Option<StoreUrl> {
        let url = self.url(written, "/store", names, &["sqlite:", "mysql://"])?;
        match url.reveal().strip_prefix("sqlite:") {
            Some(path) => Some(StoreUrl::Sqlite(self.path(path.strip_prefix("//").unwrap_or(path)))),
            None => Some(StoreUrl::Mysql(url)),
        }
    }

    fn redis(&mut self, table: &RedisTable) -> Option<Redis> {
        let schemes = ["redis://", "rediss://", "unix://"];
        let url = self.url((&table.url, &table.url_file), "/redis", ["url", "url_file"], &schemes)?;
        let names_files = table.ca_file.is_some() || table.certificate_file.is_some() || table.key_file.is_some();
        if names_files && !url.reveal().starts_with("rediss://") {
            self.fault("/redis", "ca_file, certificate_file and key_file are for rediss://, which is Redis with TLS");
        }
        let root = table.ca_file.as_ref().and_then(|file| self.file(file, "/redis/ca_file"));
        let identity = match (&table.certificate_file, &table.key_file) {
            (None, None) => None,
            (Some(certificate), Some(key)) => {
                let certificate = self.file(certificate, "/redis/certificate_file");
                let key = self.secret_file(key, "/redis/key_file");
                certificate.zip(key).map(|(pem, key)| (pem.as_bytes().to_vec(), Secret::new(key.as_str())))
            }
            _ => {
                self.fault("/redis", "certificate_file and key_file come together");
                None
            }
        };
        Some(Redis { url, root: root.map(|pem| pem.as_bytes().to_vec()), identity })
    }

    /// `written` as it stands, or the file that holds it.
    fn url(
        &mut self,
        written: (&Option<String>, &Option<String>),
        at: &str,
        [url, url_file]: [&str; 2],
        schemes: &[&str],
    ) -> Option<Secret> {
        let (url, at) = match written {
            (Some(written), None) => (Secret::new(written.clone()), pointer(at, url)),
            (None, Some(file)) => {
                let at = pointer(at, url_file);
                (Secret::new(self.secret_file(file, &at)?.trim()), at)
            }
            _ => {
                self.fault(at, format!("give either `{url}` or `{url_file}`"));
                return None;
            }
        };
        if !schemes.iter().any(|scheme| url.reveal().starts_with(scheme)) {
            self.fault(&at, format!("the URL must start with {}", schemes.join(" or ")));
            return None;
        }
        Some(url)
    }

    fn issuance(&mut self, table: &IssuanceTable) -> Issuance {
        if !(1..=CONCURRENCY_MAX).contains(&table.concurrency) {
            let says = format!("{} orders at once, 1 to {CONCURRENCY_MAX} are accepted", table.concurrency);
            self.fault("/issuance/concurrency", says);
        }
        if table.retry_seconds_min == 0 || table.retry_seconds_min > table.retry_seconds_max {
            self.fault("/issuance", "retry_seconds_min must be at least 1 and at most retry_seconds_max");
        }
        Issuance {
            concurrency: table.concurrency,
            retry_seconds_min: table.retry_seconds_min.into(),
            retry_seconds_max: table.retry_seconds_max.into(),
            rsa: table.rsa,
            renewals_wait_seconds: table.renewals_wait_seconds.into(),
        }
    }

    fn tickets(&mut self, table: &TicketsTable) -> Pace {
        let (rotation, lifetime) = (table.rotation_seconds, table.lifetime_seconds);
        let (least, most) = (TICKET_ROTATION_SECONDS.start(), TICKET_ROTATION_SECONDS.end());
        if !TICKET_ROTATION_SECONDS.contains(&rotation) {
            let says = format!("a new key every {rotation} s, {least} to {most} are accepted");
            self.fault("/tickets/rotation_seconds", says);
        }
        let longest = TICKET_LIFETIME_SECONDS_MAX.min(rotation.saturating_mul(TICKET_LIFETIME_ROTATIONS_MAX));
        if !(1..=longest).contains(&lifetime) {
            let says = format!(
                "sessions of {lifetime} s, 1 to {longest} are accepted: at most {TICKET_LIFETIME_ROTATIONS_MAX} rotations \
                 and {TICKET_LIFETIME_SECONDS_MAX} s"
            );
            self.fault("/tickets/lifetime_seconds", says);
        }
        Pace { rotation_seconds: rotation.into(), lifetime_seconds: lifetime }
    }
}

pub(super) const TENANT_RULE: &str = "a tenant is 1 to 64 characters of A-Z a-z 0-9 . _ -";

/// Whether `text` can name a tenant (and an issuer).
pub(crate) fn is_tenant(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=64).contains(&text.len()) && text.bytes().all(allowed)
}

pub(super) fn hex32(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut out = [0; 32];
    for (byte, digits) in out.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(out)
}

/// A small text file. The error continues a sentence and names the file.
pub(super) fn read_file(path: &Path) -> Result<Zeroizing<String>, String> {
    let shown = path.display();
    let mut text = Zeroizing::new(String::new());
    let file = OpenFile::open(path).map_err(|error| format!("{shown} can't be read: {error}"))?;
    let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    let read = read.map_err(|error| format!("{shown} can't be read: {error}"))?;
    if read as u64 > FILE_BYTES_MAX {
        return Err(format!("{shown} is more than {FILE_BYTES_MAX} bytes, which is the most that is read"));
    }
    Ok(text)
}
