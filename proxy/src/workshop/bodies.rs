//! A case's body, pushed through a plugin.

use std::sync::Arc;

use serde_json::Value;

use super::outcome::Outcome;
use crate::wasm::{Binding, Fault, Passed, RequestFacts, RequestView, ResponseView, Usage};

/// What it was, and the message that it belongs to.
pub(super) struct Sent<'a> {
    pub request: &'a dyn RequestView,
    /// Of the answer, or else of the request.
    pub response: Option<&'a dyn ResponseView>,
    pub body: &'a str,
}

/// Pushes it as it is, and again byte by byte: where pieces end is up to the network, so the same must come out.
pub(super) fn ask(
    binding: &Arc<Binding>,
    facts: &RequestFacts,
    sent: &Sent<'_>,
    outcome: &mut Outcome,
) -> Result<Usage, Fault> {
    let bytes = sent.body.as_bytes();
    let (whole, used) = pushed(binding, facts, sent, bytes.len().max(1))?;
    let (pieces, _) = pushed(binding, facts, sent, 1)?;
    if whole != pieces {
        let brief = |value: &Value| value.to_string().chars().take(200).collect::<String>();
        let (whole, pieces) = (brief(&whole), brief(&pieces));
        return Err(Fault::Output(format!("the body comes out as {whole}, and pushed byte by byte as {pieces}")));
    }
    let key = match whole {
        Value::Number(_) => "body_refused",
        _ if sent.response.is_some() => "response_body",
        _ => "request_body",
    };
    outcome.insert(key.to_owned(), whole);
    Ok(used)
}

/// The text that comes out, or the status of a refusal.
fn pushed(
    binding: &Arc<Binding>,
    facts: &RequestFacts,
    sent: &Sent<'_>,
    piece_bytes: usize,
) -> Result<(Value, Usage), Fault> {
    let length = Some(sent.body.len() as u64);
    let Some(mut body) = binding.begin(facts, sent.request, sent.response, length, true)? else {
        return Ok((sent.body.into(), Usage { instructions: 0, memory_bytes: 0 }));
    };
    let mut out = Vec::new();
    let mut pieces = sent.body.as_bytes().chunks(piece_bytes).peekable();
    loop {
        let piece = pieces.next().unwrap_or_default();
        let end = pieces.peek().is_none();
        match body.push(piece, end)? {
            Passed::AsItIs => out.extend_from_slice(piece),
            Passed::Replaced(with) => out.extend(with),
            Passed::Refused(status) => return Ok((status.into(), body.usage())),
        }
        if end {
            return Ok((String::from_utf8_lossy(&out).into(), body.usage()));
        }
    }
}
