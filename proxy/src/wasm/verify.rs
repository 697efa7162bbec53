//! Nothing that a guest returns is believed: names, values, sizes, statuses, locations and texts are checked here.

use std::net::SocketAddr;

use super::guest::{body, connection, control, http};
use super::types::{Action, Diagnostic, Edit, Fault, Header, Outcome, Seen, Severity};
use crate::accept::header::Header as ProxyHeader;

pub(super) const EDITS_MAX: usize = 64;
pub(super) const OUTPUT_BYTES_MAX: usize = 64 << 10;
/// What goes on in place of one piece of a body.
const PASSAGE_BYTES_MAX: usize = 128 << 10;
const LOCATION_BYTES_MAX: usize = 8 << 10;
const COMPILED_BYTES_MAX: usize = 1 << 20;
const WANTS_MAX: usize = 32;
const FOUND_MAX: usize = 16;
const DIAGNOSTICS_MAX: usize = 100;
const TEXT_CHARS_MAX: usize = 1000;

/// Fields that frame a message, name its target, or belong to one connection (RFC 9110 section 7.6.1, RFC 9112).
const NOT_FOR_PLUGINS: [&str; 11] = [
    "connection",
    "content-length",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "trailers",
    "transfer-encoding",
    "upgrade",
];

type Verified<T> = Result<T, Fault>;

fn refused<T>(text: impl Into<String>) -> Verified<T> {
    Err(Fault::Output(text.into()))
}

pub(super) fn action(action: http::Action) -> Verified<Action> {
    Ok(match action {
        http::Action::Next => Action::Next,
        http::Action::Edit(list) => Action::Edit(edits(list)?),
        http::Action::Redirect(http::Redirect { status, location, edits: list }) => Action::Redirect {
            status: redirect_status(status),
            location: checked_location(location)?,
            edits: edits(list)?,
        },
        http::Action::Respond(response) => respond(response)?,
        http::Action::Deny(status @ 400..=599) => Action::Deny(status),
        http::Action::Deny(status) => return refused(format!("deny with status {status}, 400 to 599 are accepted")),
    })
}

pub(super) fn edits(list: Vec<http::Edit>) -> Verified<Vec<Edit>> {
    check_count(list.len())?;
    let mut bytes = 0;
    let mut checked = Vec::with_capacity(list.len());
    for edit in list {
        let edit = match edit {
            http::Edit::Set(header) => {
                let Header { name, value } = checked_header(header)?;
                Edit::Set { name, value }
            }
            http::Edit::Append(header) => {
                let Header { name, value } = checked_header(header)?;
                Edit::Append { name, value }
            }
            http::Edit::SetIfAbsent(header) => {
                let Header { name, value } = checked_header(header)?;
                Edit::SetIfAbsent { name, value }
            }
            http::Edit::Remove(field) => Edit::Remove { name: editable_name(field)? },
        };
        bytes += match &edit {
            Edit::Set { name, value } | Edit::Append { name, value } | Edit::SetIfAbsent { name, value } => {
                name.len() + value.len()
            }
            Edit::Remove { name } => name.len(),
        };
        checked.push(edit);
    }
    check_bytes(bytes)?;
    Ok(checked)
}

fn respond(response: http::LocalResponse) -> Verified<Action> {
    let http::LocalResponse { status, headers, body } = response;
    if !(200..=599).contains(&status) {
        return refused(format!("response with status {status}, 200 to 599 are accepted"));
    }
    if matches!(status, 204 | 205 | 304) && !body.is_empty() {
        return refused(format!("response with status {status} and a body of {} bytes, none is allowed", body.len()));
    }
    check_count(headers.len())?;
    let headers = headers.into_iter().map(checked_header).collect::<Verified<Vec<_>>>()?;
    check_bytes(body.len() + headers.iter().map(|h| h.name.len() + h.value.len()).sum::<usize>())?;
    Ok(Action::Respond { status, headers, body })
}

fn check_count(count: usize) -> Verified<()> {
    if count > EDITS_MAX {
        return refused(format!("{count} header fields, at most {EDITS_MAX} are accepted"));
    }
    Ok(())
}

fn check_bytes(bytes: usize) -> Verified<()> {
    if bytes > OUTPUT_BYTES_MAX {
        return refused(format!("{bytes} bytes of header fields and body, at most {OUTPUT_BYTES_MAX} are accepted"));
    }
    Ok(())
}

fn checked_header(field: http::Header) -> Verified<Header> {
    header(field.name, field.value)
}

/// A field that a plugin may set.
pub(super) fn header(name: String, value: Vec<u8>) -> Verified<Header> {
    let name = editable_name(name)?;
    let legal = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
    if !value.iter().all(legal) {
        let name = shown(&name, 80);
        return refused(format!("value of `{name}` has a control character (RFC 9110 section 5.5)"));
    }
    Ok(Header { name, value: value.trim_ascii().to_vec() })
}

fn editable_name(field: String) -> Verified<String> {
    let field = name(field)?;
    if is_of_connection(&field) {
        let field = shown(&field, 80);
        return refused(format!("`{field}` frames the message or belongs to the connection; a plugin can't change it"));
    }
    Ok(field)
}

/// Whether a field, in lower case, frames a message or belongs to one connection.
pub(super) fn is_of_connection(field: &str) -> bool {
    NOT_FOR_PLUGINS.contains(&field)
}

/// RFC 9110 section 5.6.2.
pub(super) fn is_token(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(legal)
}

/// A field name (RFC 9110 section 5.1), in lower case.
pub(super) fn name(mut field: String) -> Verified<String> {
    if !is_token(&field) {
        return refused(format!("`{}` is not a header name (RFC 9110 section 5.1)", shown(&field, 80)));
    }
    field.make_ascii_lowercase();
    Ok(field)
}

/// An absolute path or an http(s) URL. `//host` would leave the site while it looks like a path, so it is refused: a
/// plugin that means another host says so with a scheme.
fn checked_location(location: String) -> Verified<String> {
    let quoted = || shown(&location, 200);
    if location.len() > LOCATION_BYTES_MAX {
        return refused(format!("location is {} bytes, at most {LOCATION_BYTES_MAX} are accepted", location.len()));
    }
    let legal = |b: u8| b.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&b);
    if !location.bytes().all(legal) {
        return refused(format!("location `{}` has characters that must be percent-encoded", quoted()));
    }
    let host = ["http://", "https://"].iter().find_map(|scheme| {
        let rest = location.get(scheme.len()..)?;
        location[..scheme.len()].eq_ignore_ascii_case(scheme).then_some(rest)
    });
    let acceptable = match host {
        Some(rest) => !rest.is_empty() && !rest.starts_with(['/', '?', '#', ':', '@']),
        None => location.starts_with('/') && !location.starts_with("//"),
    };
    if !acceptable {
        return refused(format!("location `{}` is neither an absolute path nor an http or https URL", quoted()));
    }
    Ok(location)
}

fn redirect_status(status: http::RedirectStatus) -> u16 {
    match status {
        http::RedirectStatus::MovedPermanently => 301,
        http::RedirectStatus::Found => 302,
        http::RedirectStatus::SeeOther => 303,
        http::RedirectStatus::TemporaryRedirect => 307,
        http::RedirectStatus::PermanentRedirect => 308,
    }
}

/// What a plugin makes of a piece of a body.
pub(super) fn passage(passage: body::Passage, changes: bool) -> Verified<body::Passage> {
    match &passage {
        body::Passage::Replace(_) if !changes => refused("replaced a piece of a body that it only watches"),
        body::Passage::Replace(bytes) if bytes.len() > PASSAGE_BYTES_MAX => {
            refused(format!("{} bytes for a piece of a body, at most {PASSAGE_BYTES_MAX} are accepted", bytes.len()))
        }
        body::Passage::Refuse(status) if !(400..=599).contains(status) => {
            refused(format!("refused a body with status {status}, 400 to 599 are accepted"))
        }
        _ => Ok(passage),
    }
}

/// Turns the verdict into an address, and refuses to take one from a header that names none.
pub(super) fn outcome(outcome: connection::Outcome, peer: SocketAddr, seen: Seen<'_>) -> Verified<Outcome> {
    match (outcome, seen) {
        (connection::Outcome::Reset, _) => Ok(Outcome::Reset),
        (connection::Outcome::Admit(connection::Client::Peer), _) => Ok(Outcome::Admit(peer)),
        (
            connection::Outcome::Admit(connection::Client::FromHeader),
            Some(ProxyHeader { source: Some(client), .. }),
        ) => Ok(Outcome::Admit(*client)),
        (connection::Outcome::Admit(connection::Client::FromHeader), _) => {
            refused("took the client's address from a PROXY header that names none")
        }
    }
}

pub(super) fn compiled(compiled: &[u8]) -> Verified<()> {
    if compiled.len() > COMPILED_BYTES_MAX {
        return refused(format!(
            "compiled plan is {} bytes, at most {COMPILED_BYTES_MAX} are accepted",
            compiled.len()
        ));
    }
    Ok(())
}

pub(super) fn wants_count(count: usize) -> Verified<()> {
    if count > WANTS_MAX {
        return refused(format!("plan wants {count} fields, at most {WANTS_MAX} are accepted"));
    }
    Ok(())
}

/// Each name is looked up for every request.
pub(super) fn found(names: &[String]) -> Verified<()> {
    if names.len() > FOUND_MAX {
        return refused(format!(
            "plan wants what {} datasets hold at once, at most {FOUND_MAX} are accepted",
            names.len()
        ));
    }
    let twice = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name));
    twice.map_or(Ok(()), |(_, name)| refused(format!("plan wants dataset `{}` twice", shown(name, 64))))
}

pub(super) fn refusal(diagnostics: Vec<control::Diagnostic>) -> Verified<Vec<Diagnostic>> {
    let diagnostics = texts(diagnostics);
    if !diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error) {
        return refused("configuration refused without an error that says why");
    }
    Ok(diagnostics)
}

pub(super) fn warnings(diagnostics: Vec<control::Diagnostic>) -> Verified<Vec<Diagnostic>> {
    let diagnostics = texts(diagnostics);
    if diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error) {
        return refused("configuration accepted with an error");
    }
    Ok(diagnostics)
}

fn texts(diagnostics: Vec<control::Diagnostic>) -> Vec<Diagnostic> {
    let text = |diagnostic: control::Diagnostic| Diagnostic {
        severity: match diagnostic.severity {
            control::Severity::Error => Severity::Error,
            control::Severity::Warning => Severity::Warning,
        },
        // Not a pointer: then it is about the whole.
        at: if diagnostic.at.starts_with('/') { shown(&diagnostic.at, TEXT_CHARS_MAX) } else { String::new() },
        message: shown(&diagnostic.message, TEXT_CHARS_MAX),
        hint: diagnostic.hint.map(|hint| shown(&hint, TEXT_CHARS_MAX)),
    };
    diagnostics.into_iter().take(DIAGNOSTICS_MAX).map(text).collect()
}

/// A guest's text, for people: control characters escaped, cut at `chars_max`.
pub(super) fn shown(text: &str, chars_max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(chars_max));
    for (count, char) in text.chars().enumerate() {
        if count == chars_max {
            out.push('…');
            break;
        }
        if char.is_control() {
            out.extend(char.escape_default());
        } else {
            out.push(char);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_looked_up_for_each_request_is_bounded() {
        let names = |count: usize| (0..count).map(|at| format!("d{at}")).collect::<Vec<_>>();
        assert!(found(&names(FOUND_MAX)).is_ok() && found(&names(FOUND_MAX + 1)).is_err());
        assert!(found(&["d".to_owned(), "d".to_owned()]).is_err());
    }

    #[test]
    fn a_fault_quotes_no_more_than_a_part_of_what_a_guest_returned() {
        let header = http::Header { name: "x".repeat(250_000), value: b"\n".to_vec() };
        let Err(Fault::Output(says)) = checked_header(header) else { panic!("accepted") };
        assert!(says.len() < 200, "{}", says.len());
    }
}
