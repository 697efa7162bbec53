//! Refuses requests that lack a header: `{"header": "x-edge-key", "status": 403}`.

use latchkey_sdk::config::{Value, brief};
use latchkey_sdk::http::{Action, Depends, Facts, Field, HttpPolicy, Plan, Request, Verdict};
use latchkey_sdk::{Manifest, export_http};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct RequireHeader {
    status: u16,
}

export_http!(RequireHeader);

impl HttpPolicy for RequireHeader {
    const MANIFEST: Manifest = Manifest {
        name: "require-header",
        version: env!("CARGO_PKG_VERSION"),
        config_schema: r#"{
            "type": "object", "required": ["header"], "additionalProperties": false,
            "properties": {
                "header": { "type": "string" },
                "status": { "type": "integer", "minimum": 400, "maximum": 599, "default": 403 }
            }
        }"#,
        fail_open_safe: false,
    };

    fn plan(config: &Value<'_>) -> Option<Plan<Self>> {
        let config = config.object(&["header", "status"])?;
        let header = config.required("header", name);
        let status = config.optional("status", 403, |v| v.integer(400..=599));
        let policy = Self { status: u16::try_from(status?).ok()? };
        Some(Plan::new(policy).on_request().wants(Field::RequestHeader(header?)))
    }

    fn on_request(&self, _facts: &Facts, request: &Request<'_>) -> Verdict {
        let action = match request.wanted {
            [Some(_)] => Action::Next,
            _ => Action::Deny(self.status),
        };
        Verdict::from(action).holds(Depends::WANTED, 3600)
    }
}

fn name(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return value.refuse(format!("`{}` is not a header name", brief(text)), None);
    }
    Some(text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use latchkey_sdk::http::check;

    use super::*;

    #[test]
    fn refuses_only_without_the_header() {
        let (plan, _) = check::<RequireHeader>(r#"{"header": "X-Edge-Key"}"#).expect("is accepted");
        let asked = |wanted: &[Option<Vec<u8>>]| {
            plan.policy.on_request(&Facts::EXAMPLE, &Request { host: "shop.example", path: "/", query: None, wanted })
        };
        assert_eq!(asked(&[Some(b"any".to_vec())]).action, Action::Next);
        assert_eq!(asked(&[None]).action, Action::Deny(403));
    }

    #[test]
    fn reports_a_bad_name_and_status_together() {
        let faults = check::<RequireHeader>(r#"{"header": "x y", "status": 200}"#).err().expect("is refused");
        assert_eq!(faults.iter().map(|d| d.at.as_str()).collect::<Vec<_>>(), ["/header", "/status"]);
    }
}
