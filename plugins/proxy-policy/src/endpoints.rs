//! Private endpoints of clouds, as a balancer's header names them: AWS PrivateLink, Azure Private Link, Google Cloud's
//! Private Service Connect.

use latchkey_sdk::config::{Value, brief};
use latchkey_sdk::connection::HeaderFields;
use serde::{Deserialize, Serialize};

const ENDPOINTS_MAX: usize = 1000;
const AWS_BYTES_MAX: usize = 64;

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Endpoint {
    Aws(String),
    Azure(u32),
    Gcp(u64),
}

/// Sorted. None: it does not matter which.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Endpoints(Option<Vec<Endpoint>>);

impl Endpoints {
    pub(crate) fn read(list: &Value<'_>) -> Option<Self> {
        let items = list.list(ENDPOINTS_MAX)?;
        if items.is_empty() {
            return list.refuse("lets nobody in", "leave it out, or list endpoints".to_owned());
        }
        let read: Vec<_> = items.iter().map(endpoint).collect();
        let mut endpoints: Vec<Endpoint> = read.into_iter().collect::<Option<_>>()?;
        endpoints.sort_unstable();
        Some(Self(Some(endpoints)))
    }

    /// Whether one of those is named.
    pub(crate) fn admit(&self, fields: Option<&HeaderFields>) -> bool {
        let Some(known) = &self.0 else { return true };
        let Some(fields) = fields else { return false };
        let named = [
            fields.aws_vpce_id.clone().map(Endpoint::Aws),
            fields.azure_link_id.map(Endpoint::Azure),
            fields.gcp_psc_id.map(Endpoint::Gcp),
        ];
        named.into_iter().flatten().any(|endpoint| known.binary_search(&endpoint).is_ok())
    }
}

fn endpoint(value: &Value<'_>) -> Option<Endpoint> {
    let text = value.text()?;
    let read = match text.split_once(':') {
        Some(("aws", id)) if id.starts_with("vpce-") && id.len() <= AWS_BYTES_MAX => Some(Endpoint::Aws(id.to_owned())),
        Some(("azure", id)) => id.parse().ok().map(Endpoint::Azure),
        Some(("gcp", id)) => id.parse().ok().map(Endpoint::Gcp),
        _ => None,
    };
    let hint = "write aws:vpce-08d2bf15fac5001c9, azure:33555234 (the link ID), or gcp:13426798 (the connection's ID)";
    read.or_else(|| value.refuse(format!("`{}` is not a private endpoint", brief(text)), hint.to_owned()))
}
