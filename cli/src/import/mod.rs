//! Redirects from other programs' files, as rules of the plugin `redirects`. What has no counterpart there is told with
//! its line and left out: a rule that means something else is worse than one that is missing.

mod csv;
mod netlify;
mod nginx;
mod nginx_syntax;

use serde::Serialize;

/// What the plugin accepts of one expression (docs/plugins.md).
const EXPRESSION_BYTES_MAX: usize = 512;

/// A rule of the plugin; what is as the plugin has it by default is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Rule {
    from: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    to: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<&'static str>,
}

/// What a file holds, and what was left out of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Imported {
    pub(crate) rules: Vec<Rule>,
    pub(crate) left_out: Vec<LeftOut>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct LeftOut {
    pub(crate) line: usize,
    pub(crate) why: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Columns `from` and `to`, and `status`, `match`, `host`, `query` where there are any; the first line names them.
    Csv,
    /// Netlify's `_redirects`.
    Netlify,
    /// `map` on the path, `rewrite … permanent|redirect`, `return` in `location = …` and in a whole `server`.
    Nginx,
}

pub(crate) fn read(format: Format, text: &str) -> Imported {
    let mut imported = match format {
        Format::Csv => csv::read(text),
        Format::Netlify => netlify::read(text),
        Format::Nginx => nginx::read(text),
    };
    imported.left_out.sort_by_key(|left_out| left_out.line);
    imported
}

/// RFC 4180.
fn quoted(field: &str) -> String {
    if field.contains([',', '"']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field.to_owned() }
}

impl Rule {
    fn exact(from: &str, to: &str) -> Self {
        Self { from: from.into(), to: to.into(), status: None, kind: None, host: None, query: None }
    }

    fn of_kind(kind: &'static str, from: &str, to: &str) -> Self {
        Self { kind: Some(kind), ..Self::exact(from, to) }
    }

    /// With an expression that the plugin can read.
    fn expression(from: &str, to: &str) -> Result<Self, String> {
        if from.len() > EXPRESSION_BYTES_MAX {
            return Err(format!("the expression is {} bytes, at most {EXPRESSION_BYTES_MAX} are accepted", from.len()));
        }
        if !from.starts_with("^/") {
            return Err(format!("`{from}` does not begin with ^/"));
        }
        // The plugin compiles it with the same library.
        regex_lite::Regex::new(from).map_err(|error| format!("`{from}`: {error}"))?;
        Ok(Self::of_kind("regex", from, to))
    }

    pub(crate) fn is_expression(&self) -> bool {
        self.kind == Some("regex")
    }

    /// What an expression is known by to people.
    pub(crate) fn path(&self) -> &str {
        &self.from
    }

    /// A line of a table: from, to, status, match, host, query.
    pub(crate) fn as_csv(&self) -> String {
        let status = self.status.map(|status| status.to_string()).unwrap_or_default();
        let (kind, host, query) =
            (self.kind.unwrap_or_default(), self.host.as_deref().unwrap_or_default(), self.query.unwrap_or_default());
        let fields = [&self.from, &self.to, &status, kind, host, query];
        fields.map(quoted).join(",")
    }

    /// 301 is the plugin's default.
    fn with_status(self, status: u16) -> Self {
        Self { status: (status != 301).then_some(status), ..self }
    }

    fn on(&self, host: &str) -> Self {
        Self { host: Some(host.to_owned()), ..self.clone() }
    }
}

impl Imported {
    fn add(&mut self, line: usize, rule: Result<Rule, String>) {
        match rule {
            Ok(rule) => self.rules.push(rule),
            Err(why) => self.left_out.push(LeftOut { line, why }),
        }
    }
}

fn status(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(status @ (301 | 302 | 303 | 307 | 308 | 410)) => Ok(status),
        _ => Err(format!("status `{text}` is none of 301, 302, 303, 307, 308, 410")),
    }
}

/// `https://shop.example/old` → the host and `/old`; a path has no host.
fn host_and_path(text: &str) -> (Option<String>, &str) {
    let Some(rest) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else {
        return (None, text);
    };
    let at = rest.find('/').unwrap_or(rest.len());
    (Some(rest[..at].to_owned()), if at == rest.len() { "/" } else { &rest[at..] })
}

/// A path, or a URL of http or https.
fn is_target(text: &str) -> bool {
    host_and_path(text).1.starts_with('/') && !text.starts_with("//")
}

/// As browsers send it: what a URI may not hold is percent-encoded (RFC 3986). What is encoded already stays.
fn encoded(text: &str) -> String {
    let legal = |byte: u8| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte);
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if legal(byte) { out.push(byte.into()) } else { out += &format!("%{byte:02X}") }
    }
    out
}

/// Text that stands for itself in a regular expression.
fn literal(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        if r".+*?()|[]{}^$\".contains(char) {
            escaped.push('\\');
        }
        escaped.push(char);
    }
    escaped
}
