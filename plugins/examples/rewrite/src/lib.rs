//! Replaces texts in answers, such as the name that a customer's server has among its own by the one that visitors know:
//! `{"replace": [{"find": "https://shop-7.saas.example", "with": "https://{host}"}]}`. With `refuse`, uploads that contain one
//! of these texts are refused. A text may lie across pieces: the part that could begin one is held back.

use latchkey_sdk::body::{Body, BodyPolicy, Course, Head, Message, Messages, Passage};
use latchkey_sdk::config::Value;
use latchkey_sdk::http::{Action, Edit, Facts, HttpPolicy, Plan, Request, Verdict};
use latchkey_sdk::{Manifest, export_http_body};
use serde::{Deserialize, Serialize};

const RULES_MAX: usize = 32;
const TEXT_BYTES_MAX: usize = 256;
const TYPES: [&str; 5] =
    ["text/", "application/json", "application/javascript", "application/xml", "application/xhtml"];

#[derive(Serialize, Deserialize)]
struct Rewrite {
    replace: Vec<(String, String)>,
    refuse: Vec<String>,
    status: u16,
}

export_http_body!(Rewrite);

impl HttpPolicy for Rewrite {
    const MANIFEST: Manifest = Manifest {
        name: "rewrite",
        version: env!("CARGO_PKG_VERSION"),
        config_schema: r#"{
            "type": "object", "additionalProperties": false,
            "properties": {
                "replace": { "type": "array", "maxItems": 32, "items": {
                    "type": "object", "required": ["find", "with"], "additionalProperties": false,
                    "properties": {
                        "find": { "type": "string", "minLength": 1, "maxLength": 256 },
                        "with": { "description": "`{host}` is the visited host.", "type": "string", "maxLength": 256 }
                    }
                } },
                "refuse": { "type": "array", "maxItems": 32, "items": { "type": "string", "minLength": 1, "maxLength": 256 } },
                "status": { "type": "integer", "minimum": 400, "maximum": 599, "default": 403 }
            }
        }"#,
        fail_open_safe: true,
    };

    fn plan(config: &Value<'_>) -> Option<Plan<Self>> {
        let config = config.object(&["replace", "refuse", "status"])?;
        let replace = config.optional("replace", Vec::new(), |list| all(list, rule));
        let refuse = config.optional("refuse", Vec::new(), |list| all(list, text));
        let status = config.optional("status", 403, |v| v.integer(400..=599));
        let policy = Self { replace: replace?, refuse: refuse?, status: u16::try_from(status?).ok()? };
        let rewrites = !policy.replace.is_empty();
        let plan = Plan::new(policy);
        Some(if rewrites { plan.on_request() } else { plan })
    }

    /// The upstream is to send text that can be read, and all of it.
    fn on_request(&self, _facts: &Facts, _request: &Request<'_>) -> Verdict {
        let without = |name: &str| Edit::Remove(name.to_owned());
        Action::Edit(vec![without("accept-encoding"), without("range"), without("if-range")]).into()
    }
}

impl BodyPolicy for Rewrite {
    type Body = Scan;

    fn messages(&self) -> Messages {
        let mut messages = Messages::empty();
        messages.set(Messages::REQUESTS, !self.refuse.is_empty());
        messages.set(Messages::RESPONSES, !self.replace.is_empty());
        messages
    }

    fn begin(&self, head: &Head) -> Course<Scan> {
        match head.message {
            Message::Request => {
                let finds = self.refuse.iter().map(|find| (find.clone().into_bytes(), Found::Refuse(self.status)));
                Course::Watch(Scan::new(finds.collect()))
            }
            Message::Response(_) if is_readable(head) => {
                let with = |with: &str| Found::With(with.replace("{host}", &head.host).into_bytes());
                let finds = self.replace.iter().map(|(find, text)| (find.clone().into_bytes(), with(text)));
                Course::Change(Scan::new(finds.collect()))
            }
            Message::Response(_) => Course::Pass,
        }
    }
}

fn is_readable(head: &Head) -> bool {
    let kind = head.content_type.as_deref().unwrap_or_default().to_ascii_lowercase();
    head.content_encoding.is_none() && TYPES.iter().any(|known| kind.starts_with(known.as_bytes()))
}

enum Found {
    With(Vec<u8>),
    Refuse(u16),
}

/// Looks for texts in a stream.
struct Scan {
    finds: Vec<(Vec<u8>, Found)>,
    /// Bytes that begin one of them: most don't, and are passed over quickly.
    begins: [bool; 256],
    /// The last bytes, which may begin one of them.
    held: Vec<u8>,
    /// Nothing is replaced.
    watches: bool,
}

enum Here<'a> {
    Nothing,
    Text(usize, &'a Found),
    /// The rest may begin one.
    Perhaps,
}

impl Scan {
    fn new(finds: Vec<(Vec<u8>, Found)>) -> Self {
        let watches = finds.iter().all(|(_, found)| matches!(found, Found::Refuse(_)));
        let mut begins = [false; 256];
        finds.iter().filter_map(|(find, _)| find.first()).for_each(|byte| begins[usize::from(*byte)] = true);
        Self { finds, begins, held: Vec::new(), watches }
    }

    fn here(&self, rest: &[u8], end: bool) -> Here<'_> {
        for (find, found) in &self.finds {
            if rest.starts_with(find) {
                return Here::Text(find.len(), found);
            }
            if !end && find.starts_with(rest) {
                return Here::Perhaps;
            }
        }
        Here::Nothing
    }
}

impl Body for Scan {
    fn push(&mut self, piece: &[u8], end: bool) -> Passage {
        let mut data = std::mem::take(&mut self.held);
        data.extend_from_slice(piece);
        // What is before `from` is in `out`; what is before `at` has no text in it.
        let (mut out, mut from, mut at) = (Vec::with_capacity(data.len()), 0, 0);
        while let Some(next) = data[at..].iter().position(|byte| self.begins[usize::from(*byte)]) {
            at += next;
            match self.here(&data[at..], end) {
                Here::Nothing => at += 1,
                Here::Text(_, Found::Refuse(status)) => return Passage::Refuse(*status),
                Here::Text(bytes, Found::With(with)) => {
                    out.extend_from_slice(&data[from..at]);
                    out.extend_from_slice(with);
                    at += bytes;
                    from = at;
                }
                Here::Perhaps => {
                    self.held = data.split_off(at);
                    break;
                }
            }
        }
        out.extend_from_slice(&data[from..]);
        if self.watches || out == piece { Passage::Pass } else { Passage::Replace(out) }
    }
}

fn all<T>(list: &Value<'_>, read: fn(&Value<'_>) -> Option<T>) -> Option<Vec<T>> {
    // Each is read, so that each fault is told.
    let items: Vec<Option<T>> = list.list(RULES_MAX)?.iter().map(read).collect();
    items.into_iter().collect()
}

fn rule(value: &Value<'_>) -> Option<(String, String)> {
    let rule = value.object(&["find", "with"])?;
    let find = rule.required("find", text);
    let with = rule.required("with", |value| short(value, 0));
    Some((find?, with?))
}

fn text(value: &Value<'_>) -> Option<String> {
    short(value, 1)
}

fn short(value: &Value<'_>, bytes_min: usize) -> Option<String> {
    let text = value.text()?;
    if !(bytes_min..=TEXT_BYTES_MAX).contains(&text.len()) {
        let says = format!("is a text of {} bytes, {bytes_min} to {TEXT_BYTES_MAX} are accepted", text.len());
        return value.refuse(says, None);
    }
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use latchkey_sdk::body::pushed;
    use latchkey_sdk::http::check;

    use super::*;

    fn head(message: Message, kind: &str) -> Head {
        Head {
            message,
            host: "shop.example".to_owned(),
            path: "/".to_owned(),
            content_type: Some(kind.as_bytes().to_vec()),
            content_encoding: None,
            length: None,
            wanted: Vec::new(),
        }
    }

    fn policy(config: &str) -> Rewrite {
        check::<Rewrite>(config).map(|(plan, _)| plan.policy).unwrap_or_else(|faults| panic!("{faults:?}"))
    }

    #[test]
    fn texts_are_replaced_wherever_pieces_end() {
        let policy = policy(
            r#"{"replace": [{"find": "//a.saas.example", "with": "//{host}"}, {"find": "//a.", "with": "//b."}]}"#,
        );
        let html = b"<a href='//a.saas.example/x'> ///a.saas.example //a.saas.exampl //a.x /";
        for piece_bytes in 1..=html.len() {
            let Course::Change(body) = policy.begin(&head(Message::Response(200), "text/html")) else {
                panic!("not changed")
            };
            let out = pushed(body, html, piece_bytes).map(|out| String::from_utf8_lossy(&out).into_owned());
            let wanted = "<a href='//shop.example/x'> ///shop.example //b.saas.exampl //b.x /";
            assert_eq!(out.as_deref(), Ok(wanted), "in pieces of {piece_bytes}");
        }
        assert!(matches!(policy.begin(&head(Message::Response(200), "image/png")), Course::Pass));
    }

    #[test]
    fn uploads_with_a_text_are_refused_wherever_pieces_end() {
        let policy = policy(r#"{"refuse": ["attack"], "status": 422}"#);
        for piece_bytes in 1..10 {
            let begun = |upload: &[u8]| {
                let Course::Watch(body) = policy.begin(&head(Message::Request, "text/plain")) else {
                    panic!("not watched")
                };
                pushed(body, upload, piece_bytes)
            };
            assert_eq!(begun(b"att attac an attack at"), Err(422));
            assert_eq!(begun(b"att attac"), Ok(b"att attac".to_vec()));
        }
    }

    #[test]
    fn faults_are_told_together() {
        let faults =
            check::<Rewrite>(r#"{"replace": [{"find": ""}], "refuse": [1], "status": 200}"#).err().expect("is refused");
        let at: Vec<_> = faults.iter().map(|fault| fault.at.as_str()).collect();
        assert_eq!(at, ["/replace/0/find", "/replace/0", "/refuse/0", "/status"]);
    }
}
