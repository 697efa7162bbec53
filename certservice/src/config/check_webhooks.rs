//! Who is told of changes, checked.

use std::net::IpAddr;

use contract::document::pointer;
use http::Uri;

use super::check::{Check, is_tenant};
use super::file::WebhookTable;
use super::{Secret, Webhook};

const WEBHOOKS_MAX: usize = 16;
const SECRET_BYTES_MIN: usize = 16;

impl Check<'_> {
    pub(super) fn webhooks(&mut self, tables: &[WebhookTable]) -> Vec<Webhook> {
        if tables.len() > WEBHOOKS_MAX {
            self.fault("/webhooks", format!("{} webhooks, at most {WEBHOOKS_MAX} are accepted", tables.len()));
        }
        let mut webhooks: Vec<Webhook> = Vec::new();
        for (index, table) in tables.iter().enumerate() {
            let at = pointer("/webhooks", index);
            if webhooks.iter().any(|known| known.name == table.name) {
                self.fault(&pointer(&at, "name"), format!("`{}` is the name of another webhook", table.name));
            }
            webhooks.extend(self.webhook(table, &at));
        }
        webhooks
    }

    fn webhook(&mut self, table: &WebhookTable, at: &str) -> Option<Webhook> {
        if !is_tenant(&table.name) {
            self.fault(&pointer(at, "name"), "a name is 1 to 64 characters of A-Z a-z 0-9 . _ -");
        }
        if table.tenant.as_ref().is_some_and(|tenant| !is_tenant(tenant)) {
            self.fault(&pointer(at, "tenant"), "a tenant is 1 to 64 characters of A-Z a-z 0-9 . _ -");
        }
        let plain = self.url_of_webhook(&table.url, &pointer(at, "url"));
        let secret = self.secret_of_webhook(&table.secret_file, &pointer(at, "secret_file"));
        let root = table.root_file.as_ref().and_then(|file| self.file(file, &pointer(at, "root_file")));
        let root = root.map(|pem| pem.as_bytes().to_vec());
        let (name, url, tenant) = (table.name.clone(), table.url.clone(), table.tenant.clone());
        Some(Webhook { name, url, secret: secret?, tenant, root, plain: plain? })
    }

    pub(super) fn secret_of_webhook(&mut self, file: &str, at: &str) -> Option<Secret> {
        let secret = self.secret_file(file, at).map(|text| Secret::new(text.trim()))?;
        if secret.reveal().len() < SECRET_BYTES_MIN {
            let says = format!("the secret has {} bytes; it takes {SECRET_BYTES_MIN} at least", secret.reveal().len());
            self.hinted(at, says, "head -c 32 /dev/urandom | base64");
        }
        Some(secret)
    }

    /// Whether it is `http`, which stays on this machine.
    pub(super) fn url_of_webhook(&mut self, url: &str, at: &str) -> Option<bool> {
        let uri: Option<Uri> = url.parse().ok();
        let host = uri.as_ref().and_then(Uri::host).map(|host| host.trim_matches(['[', ']']).to_owned());
        let scheme = uri.as_ref().and_then(Uri::scheme_str);
        match (scheme, host) {
            (Some("https"), Some(_)) => Some(false),
            (Some("http"), Some(host)) if host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()) => Some(true),
            _ => {
                self.fault(at, format!("`{url}` must be a URL with https, or with http and a loopback address"));
                None
            }
        }
    }
}
