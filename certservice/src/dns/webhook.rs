//! Somebody else's program changes the zone: it is told what, in the words of lego's `httpreq`, and signed.

use super::{Change, Record};
use crate::config;
use crate::webhooks::Poster;

pub(super) struct Hook {
    url: String,
    poster: Poster,
}

impl Hook {
    pub(super) fn open(config: &config::DnsWebhook) -> Result<Self, String> {
        let poster = Poster::open(config.secret.clone(), config.root.as_deref(), config.plain)?;
        Ok(Self { url: config.url.trim_end_matches('/').to_owned(), poster })
    }

    pub(super) async fn change(&self, record: &Record, change: Change) -> Result<(), String> {
        let path = match change {
            Change::Add => "present",
            Change::Remove => "cleanup",
        };
        let body = serde_json::json!({"fqdn": format!("{}.", record.name), "value": record.value});
        self.poster.post(&format!("{}/{path}", self.url), None, body.to_string().into_bytes()).await
    }
}
