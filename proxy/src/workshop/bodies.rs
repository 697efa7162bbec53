//! A case's body, pushed through a plugin.

use std::sync::Arc;

use crate::wasm::{Binding, Fault, Passed, RequestFacts, RequestView, ResponseView, Usage};

/// What it was, and the message that it belongs to.
pub(super) struct Sent<'a> {
    pub request: &'a dyn RequestView,
    /// Of the answer, or else of the request.
    pub response: Option<&'a dyn ResponseView>,
    pub body: &'a str,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Emerged {
    Text(String),
    /// With this status.
    Refused(u16),
}

/// Byte by byte, beside what came out of it as a whole.
pub(super) fn compare(
    binding: &Arc<Binding>,
    facts: &RequestFacts,
    sent: &Sent<'_>,
    whole: &Emerged,
) -> Result<(), Fault> {
    let (pieces, _) = push(binding, facts, sent, 1)?;
    if *whole == pieces {
        return Ok(());
    }
    let brief = |emerged: &Emerged| match emerged {
        Emerged::Text(text) => format!("{:?}", text.chars().take(200).collect::<String>()),
        Emerged::Refused(status) => format!("a refusal with {status}"),
    };
    let (whole, pieces) = (brief(whole), brief(&pieces));
    Err(Fault::Output(format!("the body comes out as {whole}, and pushed byte by byte as {pieces}")))
}

pub(super) fn push(
    binding: &Arc<Binding>,
    facts: &RequestFacts,
    sent: &Sent<'_>,
    piece_bytes: usize,
) -> Result<(Emerged, Usage), Fault> {
    let length = Some(sent.body.len() as u64);
    let Some(mut body) = binding.begin(facts, sent.request, sent.response, length, true)? else {
        return Ok((Emerged::Text(sent.body.to_owned()), Usage { instructions: 0, memory_bytes: 0 }));
    };
    let mut out = Vec::new();
    let mut pieces = sent.body.as_bytes().chunks(piece_bytes.max(1)).peekable();
    loop {
        let piece = pieces.next().unwrap_or_default();
        let end = pieces.peek().is_none();
        match body.push(piece, end)? {
            Passed::AsItIs => out.extend_from_slice(piece),
            Passed::Replaced(with) => out.extend(with),
            Passed::Refused(status) => return Ok((Emerged::Refused(status), body.usage())),
        }
        if end {
            return Ok((Emerged::Text(String::from_utf8_lossy(&out).into_owned()), body.usage()));
        }
    }
}
