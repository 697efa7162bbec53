//! Parses a document and remembers where in its text each key and value stands.

use std::collections::HashMap;

use jsonc_parser::common::Ranged;
use jsonc_parser::{CollectOptions, ParseOptions, ast};
use serde_json::{Number, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{in_order, pointer};
use crate::api::Fault;

/// JSON pointer → where its key and its value begin.
pub(super) struct Places {
    text: Text,
    at: HashMap<String, Place>,
}

struct Place {
    key: Option<usize>,
    value: usize,
}

impl Places {
    pub(super) fn key(&self, at: &str) -> Option<(u32, u32)> {
        let place = self.at.get(at)?;
        Some(self.text.position(place.key.unwrap_or(place.value)))
    }

    pub(super) fn value(&self, at: &str) -> Option<(u32, u32)> {
        Some(self.text.position(self.at.get(at)?.value))
    }
}

struct Text(String);

impl Text {
    /// Line and column of a byte offset, both from 1; columns are characters.
    fn position(&self, offset: usize) -> (u32, u32) {
        let before = self.0.get(..offset).unwrap_or(&self.0);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let count = |n: usize| u32::try_from(n + 1).unwrap_or(u32::MAX);
        (count(before.matches('\n').count()), count(before[line_start..].chars().count()))
    }

    fn fault(&self, at: &str, offset: Option<usize>, says: impl Into<String>) -> Fault {
        let (line, column) = offset.map(|offset| self.position(offset)).unzip();
        Fault { at: at.to_owned(), line, column, says: says.into(), hint: None }
    }
}

struct Walk {
    text: Text,
    at: HashMap<String, Place>,
    faults: Vec<Fault>,
}

impl Walk {
    fn new(text: &str) -> Self {
        Self { text: Text(text.to_owned()), at: HashMap::new(), faults: Vec::new() }
    }

    fn finish(self, value: Value) -> Result<(Value, Places), Vec<Fault>> {
        if !self.faults.is_empty() {
            return Err(in_order(self.faults));
        }
        Ok((value, Places { text: self.text, at: self.at }))
    }

    fn refuse(&mut self, at: &str, offset: usize, says: &str) -> Value {
        self.faults.push(self.text.fault(at, Some(offset), says));
        Value::Null
    }
}

pub(super) fn parse_toml(text: &str) -> Result<(Value, Places), Vec<Fault>> {
    let mut walk = Walk::new(text);
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        walk.faults.push(walk.text.fault("", error.span().map(|s| s.start), error.message()));
    }
    let value = walk.toml_table(root.get_ref(), "");
    walk.finish(value)
}

impl Walk {
    fn toml_table(&mut self, table: &DeTable<'_>, at: &str) -> Value {
        let entry = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
            let name: &std::borrow::Cow<'_, str> = key.get_ref();
            (name.to_string(), self.toml_value(value, Some(key.span().start), pointer(at, name)))
        };
        Value::Object(table.iter().map(entry).collect())
    }

    fn toml_value(&mut self, value: &Spanned<DeValue<'_>>, key: Option<usize>, at: String) -> Value {
        let offset = value.span().start;
        let read = match value.get_ref() {
            DeValue::String(text) => Value::String(text.to_string()),
            DeValue::Boolean(value) => Value::Bool(*value),
            DeValue::Integer(value) => match i64::from_str_radix(value.as_str(), value.radix()) {
                Ok(value) => Value::Number(value.into()),
                Err(_) => self.refuse(&at, offset, "the number does not fit into 64 bits"),
            },
            DeValue::Float(value) => match value.as_str().parse().ok().and_then(Number::from_f64) {
                Some(value) => Value::Number(value),
                None => self.refuse(&at, offset, "not a finite number"),
            },
            DeValue::Datetime(_) => self.refuse(&at, offset, "no setting is a date; write it as a string, in quotes"),
            DeValue::Array(items) => {
                let items = items.iter().enumerate();
                Value::Array(items.map(|(index, item)| self.toml_value(item, None, pointer(&at, index))).collect())
            }
            DeValue::Table(table) => self.toml_table(table, &at),
        };
        self.at.insert(at, Place { key, value: offset });
        read
    }
}

pub(super) fn parse_json(text: &str) -> Result<(Value, Places), Vec<Fault>> {
    let mut walk = Walk::new(text);
    let strict = ParseOptions {
        allow_comments: false,
        allow_loose_object_property_names: false,
        allow_trailing_commas: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    };
    let tree = jsonc_parser::parse_to_ast(text, &CollectOptions::default(), &strict).map_err(|error| {
        let says = error.kind().to_string();
        let says = says[..1].to_lowercase() + &says[1..];
        vec![walk.text.fault("", Some(error.range().start), says)]
    })?;
    let tree = tree.value.ok_or_else(|| vec![walk.text.fault("", None, "the document is empty")])?;
    // The parser above knows places but is lenient in corners such as control characters; this one is the judge.
    let value: Value = serde_json::from_str(text).map_err(|error| {
        let says = error.to_string();
        let says = says.split(" at line ").next().unwrap_or_default();
        let number = |n: usize| u32::try_from(n).ok();
        vec![Fault { line: number(error.line()), column: number(error.column()), ..walk.text.fault("", None, says) }]
    })?;
    walk.json_value(&tree, None, String::new());
    walk.finish(value)
}

impl Walk {
    fn json_value(&mut self, value: &ast::Value<'_>, key: Option<usize>, at: String) {
        match value {
            ast::Value::Object(object) => {
                for property in &object.properties {
                    let name = property.name.as_str();
                    let (offset, at) = (property.name.start(), pointer(&at, name));
                    if self.at.contains_key(&at) {
                        self.refuse(&at, offset, &format!("`{name}` stands twice in this object"));
                        continue;
                    }
                    self.json_value(&property.value, Some(offset), at);
                }
            }
            ast::Value::Array(array) => {
                for (index, element) in array.elements.iter().enumerate() {
                    self.json_value(element, None, pointer(&at, index));
                }
            }
            _ => {}
        }
        self.at.insert(at, Place { key, value: value.start() });
    }
}
