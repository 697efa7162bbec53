//! Documents that a person writes: boot files (TOML) and runtime configuration (JSON).
//!
//! Reading is strict and reports every fault at once, each with its place in the text. A type takes part by deriving
//! [`deserr::Deserr`] with `#[deserr(error = Faults, deny_unknown_fields)]`; a field that may be left out says
//! `#[deserr(default)]`, an `Option` too. What the derive can't know is said by a `try_from` function
//! whose error is any `Display`, by a `validate` function that returns [`Faults`], or, where one part of the document
//! refers to another, after reading, with [`Document::fault`].

mod places;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::ControlFlow;

use deserr::{
    DeserializeError, Deserr, ErrorKind, IntoValue, Map, MergeWithError, Sequence, Value, ValueKind, ValuePointerRef,
};

use self::places::Places;
use crate::api::Fault;

/// Most faults that one reading reports.
pub const FAULTS_MAX: usize = 100;

/// Reads a boot file.
pub fn read_toml<T: Deserr<Faults>>(text: &str) -> Result<T, Vec<Fault>> {
    Document::toml(text)?.read()
}

/// Reads a JSON document: RFC 8259 to the letter, and no key twice in an object.
pub fn read_json<T: Deserr<Faults>>(text: &str) -> Result<T, Vec<Fault>> {
    Document::json(text)?.read()
}

/// For a terminal: one fault a line, in the form that editors and compilers use.
pub fn render(faults: &[Fault], file_name: &str) -> String {
    let line = |fault: &Fault| {
        let place = match (fault.line, fault.column) {
            (Some(line), Some(column)) => format!("{file_name}:{line}:{column}"),
            _ => file_name.to_owned(),
        };
        let hint = fault.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
        format!("{place}: {}{hint}\n", fault.says)
    };
    faults.iter().map(line).collect()
}

/// A document that is well-formed, with the place of each value in its text.
pub struct Document {
    value: serde_json::Value,
    places: Places,
}

impl Document {
    pub fn toml(text: &str) -> Result<Self, Vec<Fault>> {
        places::parse_toml(text).map(|(value, places)| Self { value, places })
    }

    pub fn json(text: &str) -> Result<Self, Vec<Fault>> {
        places::parse_json(text).map(|(value, places)| Self { value, places })
    }

    pub fn value(&self) -> &serde_json::Value {
        &self.value
    }

    pub fn read<T: Deserr<Faults>>(&self) -> Result<T, Vec<Fault>> {
        deserr::deserialize(self.value.clone()).map_err(|faults: Faults| {
            let placed = faults.0.into_iter().map(|found| self.placed(found)).collect();
            in_order(placed)
        })
    }

    /// A fault of the value at a JSON pointer (RFC 6901).
    pub fn fault(&self, at: impl Into<String>, says: impl Into<String>, hint: Option<String>) -> Fault {
        self.placed(Found { at: at.into(), on: On::Value, says: says.into(), hint })
    }

    fn placed(&self, found: Found) -> Fault {
        let place = match found.on {
            On::Key => self.places.key(&found.at),
            On::Value => self.places.value(&found.at),
            On::Parent => found.at.rsplit_once('/').and_then(|(parent, _)| self.places.value(parent)),
        };
        let (line, column) = place.unzip();
        Fault { at: found.at, line, column, says: found.says, hint: found.hint }
    }
}

/// By place, those without one last; bounded.
pub fn in_order(mut faults: Vec<Fault>) -> Vec<Fault> {
    faults.sort_by_key(|f| (f.line.is_none(), f.line, f.column));
    if faults.len() > FAULTS_MAX {
        let more = faults.len() - FAULTS_MAX;
        faults.truncate(FAULTS_MAX);
        let says = format!("and {more} more faults; at most {FAULTS_MAX} are shown");
        faults.push(Fault { at: String::new(), line: None, column: None, says, hint: None });
    }
    faults
}

/// Extends a JSON pointer by a key or an index.
pub fn pointer(parent: &str, step: impl Display) -> String {
    format!("{parent}/{}", step.to_string().replace('~', "~0").replace('/', "~1"))
}

/// What to propose for a word that is not known.
pub fn did_you_mean(given: &str, known: &[&str]) -> Option<String> {
    let allowed = (given.chars().count() / 3).max(1);
    let near = known.iter().map(|word| (strsim::damerau_levenshtein(given, word), word));
    match near.filter(|(distance, _)| *distance <= allowed).min() {
        Some((_, word)) => Some(format!("did you mean `{word}`?")),
        None if known.is_empty() => None,
        None => Some(format!("known here: {}", known.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(", "))),
    }
}

/// Faults on the way out of a reading: the error type to derive `Deserr` with.
#[derive(Debug)]
pub struct Faults(Vec<Found>);

#[derive(Debug)]
struct Found {
    at: String,
    on: On,
    says: String,
    hint: Option<String>,
}

/// Which part of the text a fault points at. What is missing has no place of its own.
#[derive(Debug)]
enum On {
    Key,
    Value,
    Parent,
}

impl Faults {
    /// A fault of the value at `location`, for functions given to deserr's `validate`.
    pub fn at(location: ValuePointerRef<'_>, says: impl Display, hint: Option<String>) -> Self {
        Self::one(to_pointer(location), On::Value, says.to_string(), hint)
    }

    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    fn one(at: String, on: On, says: String, hint: Option<String>) -> Self {
        Self(vec![Found { at, on, says, hint }])
    }
}

fn to_pointer(location: ValuePointerRef<'_>) -> String {
    match location {
        ValuePointerRef::Origin => String::new(),
        ValuePointerRef::Key { key, prev } => pointer(&to_pointer(*prev), key),
        ValuePointerRef::Index { index, prev } => pointer(&to_pointer(*prev), index),
    }
}

impl MergeWithError<Faults> for Faults {
    fn merge(first: Option<Self>, other: Faults, _: ValuePointerRef<'_>) -> ControlFlow<Self, Self> {
        ControlFlow::Continue(match first {
            Some(first) => first.and(other),
            None => other,
        })
    }
}

impl<T: Display> MergeWithError<T> for Faults {
    fn merge(first: Option<Self>, other: T, location: ValuePointerRef<'_>) -> ControlFlow<Self, Self> {
        Self::merge(first, Self::at(location, other, None), location)
    }
}

impl DeserializeError for Faults {
    fn error<V: IntoValue>(
        first: Option<Self>,
        error: ErrorKind<'_, V>,
        location: ValuePointerRef<'_>,
    ) -> ControlFlow<Self, Self> {
        let at = to_pointer(location);
        let fault = match error {
            ErrorKind::UnknownKey { key, accepted } => {
                Self::one(pointer(&at, key), On::Key, format!("unknown setting `{key}`"), did_you_mean(key, accepted))
            }
            ErrorKind::MissingField { field } => {
                Self::one(pointer(&at, field), On::Parent, format!("setting `{field}` is missing"), None)
            }
            ErrorKind::UnknownValue { value, accepted } => {
                Self::one(at, On::Value, format!("unknown value `{value}`"), did_you_mean(value, accepted))
            }
            ErrorKind::IncorrectValueKind { actual, accepted } => {
                let expected: Vec<_> = accepted.iter().map(|kind| words(*kind)).collect();
                let says = format!("expected {}, found {}", expected.join(" or "), found(&actual));
                Self::one(at, On::Value, says, None)
            }
            ErrorKind::BadSequenceLen { actual, expected } => {
                Self::one(at, On::Value, format!("{} elements, exactly {expected} are expected", actual.len()), None)
            }
            ErrorKind::Unexpected { msg } => Self::one(at, On::Value, msg, None),
        };
        Self::merge(first, fault, location)
    }
}

fn words(kind: ValueKind) -> &'static str {
    match kind {
        ValueKind::Null => "null",
        ValueKind::Boolean => "true or false",
        ValueKind::Integer => "a whole number",
        ValueKind::NegativeInteger => "a negative whole number",
        ValueKind::Float => "a number",
        ValueKind::String => "a string",
        ValueKind::Sequence => "a list",
        ValueKind::Map => "a group of settings",
    }
}

/// Strings are not shown: one may be a secret in the wrong place.
fn found<V: IntoValue>(value: &Value<V>) -> String {
    match value {
        Value::Boolean(value) => value.to_string(),
        Value::Integer(value) => value.to_string(),
        Value::NegativeInteger(value) => value.to_string(),
        Value::Float(value) => value.to_string(),
        other => words(other.kind()).to_owned(),
    }
}

/// A group whose keys are names that the author chose. Not `BTreeMap` itself: deserr 0.6 drops the faults of the values
/// of a map that it reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named<T>(pub BTreeMap<String, T>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Deserr<Faults>> Deserr<Faults> for Named<T> {
    fn deserialize_from_value<V: IntoValue>(value: Value<V>, location: ValuePointerRef<'_>) -> Result<Self, Faults> {
        let Value::Map(entries) = value else {
            let error = ErrorKind::IncorrectValueKind { actual: value, accepted: &[ValueKind::Map] };
            return Err(deserr::take_cf_content(Faults::error(None, error, location)));
        };
        let (mut read, mut faults) = (BTreeMap::new(), None);
        for (key, value) in entries.into_iter() {
            match T::deserialize_from_value(value.into_value(), location.push_key(&key)) {
                Ok(value) => drop(read.insert(key, value)),
                Err(more) => faults = Some(deserr::take_cf_content(Faults::merge(faults, more, location))),
            }
        }
        faults.map_or(Ok(Self(read)), Err)
    }
}

/// A JSON object that the document only carries: who it is for reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonObject(pub serde_json::Value);

impl Default for JsonObject {
    fn default() -> Self {
        Self(serde_json::Value::Object(serde_json::Map::new()))
    }
}

impl Deserr<Faults> for JsonObject {
    fn deserialize_from_value<V: IntoValue>(value: Value<V>, location: ValuePointerRef<'_>) -> Result<Self, Faults> {
        match value {
            Value::Map(_) => Ok(Self(serde_json::Value::from(value))),
            other => {
                let error = ErrorKind::IncorrectValueKind { actual: other, accepted: &[ValueKind::Map] };
                Err(deserr::take_cf_content(Faults::error(None, error, location)))
            }
        }
    }
}

#[cfg(test)]
mod tests;
