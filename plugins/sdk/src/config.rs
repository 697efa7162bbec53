//! Reads a configuration and says everything that is wrong with it at once, each with its place.
//!
//! Readers return `None` where something is wrong, after reporting it; collect the values first and use `?` at the end,
//! so that one fault does not hide the next.

use std::cell::RefCell;
use std::fmt::Display;
use std::ops::RangeInclusive;

use serde_json::{Map, Value as Json};

/// One thing to say about a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    /// JSON pointer (RFC 6901).
    pub at: String,
    pub message: String,
    pub hint: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    Error,
    Warning,
}

type Report = RefCell<Vec<Diagnostic>>;

/// A place in the configuration, and what stands there.
pub struct Value<'a> {
    json: &'a Json,
    at: String,
    report: &'a Report,
}

/// A JSON object whose keys are known.
pub struct Object<'a> {
    fields: &'a Map<String, Json>,
    at: String,
    report: &'a Report,
}

/// Parses the text and lets `read` make something of it. The diagnostics of an `Ok` are warnings.
pub(crate) fn read<T>(
    text: &[u8],
    read: impl FnOnce(&Value<'_>) -> Option<T>,
) -> Result<(T, Vec<Diagnostic>), Vec<Diagnostic>> {
    let report = Report::default();
    let parsed = serde_json::from_slice(text).unwrap_or_else(|error| {
        say(&report, Severity::Error, String::new(), format!("not JSON: {error}"), None);
        Json::Null
    });
    if !report.borrow().is_empty() {
        return Err(report.into_inner());
    }
    let made = read(&Value { json: &parsed, at: String::new(), report: &report });
    let mut diagnostics = report.into_inner();
    let refused = diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
    match made {
        Some(made) if !refused => Ok((made, diagnostics)),
        _ if refused => Err(diagnostics),
        _ => {
            let message = "the plugin refused the configuration without saying why".to_owned();
            diagnostics.push(Diagnostic { severity: Severity::Error, at: String::new(), message, hint: None });
            Err(diagnostics)
        }
    }
}

impl<'a> Value<'a> {
    /// An object with these keys and no others.
    pub fn object(&self, keys: &[&str]) -> Option<Object<'a>> {
        let Json::Object(fields) = self.json else { return self.wrong_type("an object") };
        let object = Object { fields, at: self.at.clone(), report: self.report };
        for key in fields.keys().filter(|key| !keys.contains(&key.as_str())) {
            let hint = match nearest(key, keys.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("accepted: {}", keys.join(", ")),
            };
            object.error_at(key, format!("unknown key `{key}`"), hint);
        }
        Some(object)
    }

    /// A list of at most `count_max` values.
    pub fn list(&self, count_max: usize) -> Option<Vec<Value<'a>>> {
        let Json::Array(items) = self.json else { return self.wrong_type("a list") };
        if items.len() > count_max {
            return self.refuse(format!("has {} entries, at most {count_max} are accepted", items.len()), None);
        }
        let item = |(index, json)| Value { json, at: format!("{}/{index}", self.at), report: self.report };
        Some(items.iter().enumerate().map(item).collect())
    }

    pub fn text(&self) -> Option<&'a str> {
        self.json.as_str().or_else(|| self.wrong_type("a text"))
    }

    pub fn boolean(&self) -> Option<bool> {
        self.json.as_bool().or_else(|| self.wrong_type("true or false"))
    }

    pub fn integer(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let (least, most) = (*range.start(), *range.end());
        match self.json.as_u64() {
            Some(number) if range.contains(&number) => Some(number),
            None if !self.json.is_number() => self.wrong_type("a whole number"),
            _ => self.refuse(format!("{} is out of range, {least} to {most} are accepted", self.json), None),
        }
    }

    /// One of a few words, each with what it stands for.
    pub fn one_of<T: Clone>(&self, words: &[(&str, T)]) -> Option<T> {
        let text = self.text()?;
        if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == text) {
            return Some(meaning.clone());
        }
        let accepted: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        let hint = nearest(text, accepted.iter().copied()).map(|near| format!("did you mean `{near}`?"));
        self.refuse(format!("`{}` is not one of {}", brief(text), accepted.join(", ")), hint)
    }

    /// Reports an error at this place. Returns `None`, so that it can end a reader.
    pub fn refuse<T>(&self, message: impl Into<String>, hint: impl Into<Option<String>>) -> Option<T> {
        say(self.report, Severity::Error, self.at.clone(), message.into(), hint.into());
        None
    }

    /// Accepts, with a remark.
    pub fn warn(&self, message: impl Into<String>, hint: impl Into<String>) {
        say(self.report, Severity::Warning, self.at.clone(), message.into(), Some(hint.into()));
    }

    fn wrong_type<T>(&self, expected: &str) -> Option<T> {
        let found = match self.json {
            Json::Null => "null".to_owned(),
            Json::Bool(value) => value.to_string(),
            Json::Number(value) => value.to_string(),
            Json::String(value) => format!("the text `{}`", brief(value)),
            Json::Array(_) => "a list".to_owned(),
            Json::Object(_) => "an object".to_owned(),
        };
        self.refuse(format!("is {found}, {expected} is expected"), None)
    }
}

impl<'a> Object<'a> {
    pub fn get(&self, key: &str) -> Option<Value<'a>> {
        let json = self.fields.get(key)?;
        Some(Value { json, at: self.place(key), report: self.report })
    }

    /// What `read` makes of the key, which must be there.
    pub fn required<T>(&self, key: &str, read: impl FnOnce(&Value<'a>) -> Option<T>) -> Option<T> {
        match self.get(key) {
            Some(value) => read(&value),
            None => {
                let message = format!("`{key}` is missing");
                say(self.report, Severity::Error, self.at.clone(), message, None);
                None
            }
        }
    }

    /// What `read` makes of the key, or `default` where it is not there.
    pub fn optional<T>(&self, key: &str, default: T, read: impl FnOnce(&Value<'a>) -> Option<T>) -> Option<T> {
        match self.get(key) {
            Some(value) => read(&value),
            None => Some(default),
        }
    }

    /// Reports an error at a key.
    pub fn error_at(&self, key: &str, message: impl Into<String>, hint: impl Into<String>) {
        say(self.report, Severity::Error, self.place(key), message.into(), Some(hint.into()));
    }

    /// Accepts, with a remark at a key.
    pub fn warn_at(&self, key: &str, message: impl Into<String>, hint: impl Into<String>) {
        say(self.report, Severity::Warning, self.place(key), message.into(), Some(hint.into()));
    }

    fn place(&self, key: &str) -> String {
        format!("{}/{}", self.at, key.replace('~', "~0").replace('/', "~1"))
    }
}

fn say(report: &Report, severity: Severity, at: String, message: String, hint: Option<String>) {
    report.borrow_mut().push(Diagnostic { severity, at, message, hint });
}

fn nearest<'a>(word: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = words.map(|known| (strsim::damerau_levenshtein(word, known), known)).min()?;
    (near.0 <= word.len().div_ceil(3)).then_some(near.1)
}

/// The start of a text, for a message.
pub fn brief(text: &(impl Display + ?Sized)) -> String {
    let text = text.to_string();
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(value: &Value<'_>) -> Option<(u64, bool)> {
        let config = value.object(&["count", "wanted", "mode", "items"])?;
        let count = config.required("count", |v| v.integer(1..=9));
        let wanted = config.optional("wanted", true, Value::boolean);
        let mode = config.optional("mode", 'a', |v| v.one_of(&[("alpha", 'a'), ("beta", 'b')]));
        let items = config.optional("items", vec![], |v| v.list(2));
        let items = items.map(|items| items.iter().map(|item| item.text()).collect::<Vec<_>>());
        mode?;
        items?;
        Some((count?, wanted?))
    }

    fn faults(text: &str) -> Vec<(String, String)> {
        let diagnostics = read(text.as_bytes(), example).expect_err("is refused");
        diagnostics.into_iter().map(|d| (d.at, d.message)).collect()
    }

    #[test]
    fn reads_what_is_right() {
        assert_eq!(read(br#"{"count": 9, "items": ["x", "y"]}"#, example), Ok(((9, true), vec![])));
    }

    #[test]
    fn reports_every_fault_with_its_place() {
        let text = r#"{"count": 10, "wanted": "yes", "mode": "alpah", "items": ["x", 3], "a/b": 1}"#;
        let faults = faults(text);
        let at: Vec<_> = faults.iter().map(|(at, _)| at.as_str()).collect();
        assert_eq!(at, ["/a~1b", "/count", "/wanted", "/mode", "/items/1"]);
        assert!(faults[1].1.contains("10 is out of range, 1 to 9"), "{faults:?}");
    }

    #[test]
    fn suggests_the_nearest_key() {
        let diagnostics = read(br#"{"count": 1, "wnated": true}"#, example).expect_err("is refused");
        assert_eq!(diagnostics[0].hint.as_deref(), Some("did you mean `wanted`?"));
    }

    #[test]
    fn refuses_what_is_not_json_or_no_object() {
        assert!(faults("{").first().is_some_and(|(at, says)| at.is_empty() && says.starts_with("not JSON")));
        assert_eq!(faults("[]"), [(String::new(), "is a list, an object is expected".to_owned())]);
        assert_eq!(faults("{}"), [(String::new(), "`count` is missing".to_owned())]);
        assert_eq!(faults(r#"{"count": -1}"#)[0].1, "-1 is out of range, 1 to 9 are accepted");
    }

    #[test]
    fn accepts_the_limit_of_a_list_and_refuses_one_more() {
        assert!(read(br#"{"count": 1, "items": ["", ""]}"#, example).is_ok());
        assert_eq!(faults(r#"{"count": 1, "items": ["", "", ""]}"#)[0].1, "has 3 entries, at most 2 are accepted");
    }
}
