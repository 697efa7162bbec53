use std::fmt::Write;
use std::path::PathBuf;

use contract::admin::{Difference, DifferenceKind};
use contract::api::{Fault, Problem};

use crate::client::ClientError;

/// Why a command failed, as it is told to its user.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("{}: {}", .file.display(), .problem.detail)]
    Config { file: PathBuf, problem: Box<Problem> },
    #[error("{}: {error}", .file.display())]
    File { file: PathBuf, error: std::io::Error },
    #[error(transparent)]
    Pki(#[from] crate::pki::PkiError),
    #[error("{0}")]
    Demo(support::Error),
    /// Already told.
    #[error("{0}")]
    Outcome(String),
}

impl From<support::Error> for Failure {
    fn from(error: support::Error) -> Self {
        Self::Demo(error)
    }
}

impl Failure {
    /// For scripts: whether there is an answer at all.
    pub fn exit_code(&self) -> u8 {
        if matches!(self, Self::Client(ClientError::Unreachable { .. })) { 3 } else { 1 }
    }

    pub fn tell(&self, json: bool) {
        let problem = match self {
            Self::Client(ClientError::Refused { problem, .. }) | Self::Config { problem, .. } => Some(problem),
            _ => None,
        };
        if json {
            let value = match problem {
                Some(problem) => serde_json::json!(problem),
                None => {
                    let code = if self.exit_code() == 3 { "unreachable" } else { "failed" };
                    serde_json::json!({"code": code, "detail": self.to_string()})
                }
            };
            eprintln!("{value}");
            return;
        }
        eprintln!("latchkey: {self}");
        let file = if let Self::Config { file, .. } = self { Some(file.display().to_string()) } else { None };
        for fault in problem.iter().flat_map(|problem| &problem.errors) {
            eprint!("{}", shown(fault, file.as_deref()));
        }
        if let Some(diff) = problem.and_then(|problem| problem.diff.as_ref()) {
            eprintln!("changed meanwhile:");
            diff.differences.iter().for_each(|changed| eprintln!("{}", difference(changed)));
        }
    }
}

/// `~ /sites/0/upstream: "a" → "b"`
pub(crate) fn difference(difference: &Difference) -> String {
    let Difference { at, kind, old, new } = difference;
    let [old, new] = [old, new].map(|value| value.as_deref().unwrap_or_default());
    match kind {
        DifferenceKind::Added => format!("+ {at}: {new}"),
        DifferenceKind::Removed => format!("- {at}: {old}"),
        DifferenceKind::Replaced => format!("~ {at}: {old} → {new}"),
        DifferenceKind::Reordered => format!("~ {at}: in another order"),
    }
}

/// `config.json:7:21: /sites/0/upstream: says` and the hint below it.
pub(crate) fn shown(fault: &Fault, file: Option<&str>) -> String {
    let mut place: Vec<String> = file.map(str::to_owned).into_iter().collect();
    place.extend([fault.line, fault.column].iter().flatten().map(u32::to_string));
    let mut text = place.join(":");
    for part in [&fault.at, &fault.says].into_iter().filter(|part| !part.is_empty()) {
        let _ = write!(text, "{}{part}", if text.is_empty() { "" } else { ": " });
    }
    text.push('\n');
    if let Some(hint) = &fault.hint {
        let _ = writeln!(text, "  hint: {hint}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_says_where_what_and_what_to_do() {
        let fault = Fault {
            at: "/sites/0/upstream".into(),
            line: Some(7),
            column: Some(21),
            says: "no upstream `shpo`".into(),
            hint: Some("did you mean `shop`?".into()),
        };
        let whole = "c.json:7:21: /sites/0/upstream: no upstream `shpo`\n  hint: did you mean `shop`?\n";
        assert_eq!(shown(&fault, Some("c.json")), whole);
        let bare = Fault { at: String::new(), line: None, column: None, hint: None, ..fault };
        assert_eq!(shown(&bare, None), "no upstream `shpo`\n");
    }
}
