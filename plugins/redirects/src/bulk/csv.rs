//! CSV (RFC 4180), one record a line.

use std::borrow::Cow;

use latchkey_sdk::config::brief;

use crate::rules::{KEYS, Wrong};

/// More than a rule has.
const FIELDS_MAX: usize = 16;

pub(crate) type Fields<'a> = Vec<Cow<'a, str>>;

/// Where each setting stands; the first line says it.
pub(crate) struct Columns([Option<usize>; KEYS.len()]);

#[derive(Debug, Default)]
pub(crate) struct Row<'a> {
    pub(crate) from: &'a str,
    pub(crate) to: &'a str,
    pub(crate) status: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) host: &'a str,
    pub(crate) query: &'a str,
}

impl Columns {
    pub(crate) fn of(line: &str) -> Result<Self, Wrong> {
        let mut places = [None; KEYS.len()];
        for (place, name) in fields(line).map_err(|says| (says, None))?.iter().enumerate() {
            let name = name.trim().trim_start_matches('\u{feff}');
            let slot = KEYS.iter().position(|key| *key == name).and_then(|key| places.get_mut(key));
            let Some(slot) = slot else {
                let message = format!("`{}` is no column of redirects", brief(name));
                return Err((message, Some(format!("the first line names the columns, of {}", KEYS.join(", ")))));
            };
            *slot = Some(place);
        }
        if places.first().is_none_or(Option::is_none) {
            return Err((
                "no column is named `from`".to_owned(),
                Some(format!("begin with the line {}", KEYS.join(","))),
            ));
        }
        Ok(Self(places))
    }

    pub(crate) fn row<'a>(&self, fields: &'a Fields<'_>) -> Result<Row<'a>, String> {
        let columns = self.0.iter().flatten().count();
        if fields.len() != columns {
            return Err(format!("has {} fields, the first line names {columns}", fields.len()));
        }
        let [from, to, status, kind, host, query] =
            self.0.map(|place| place.and_then(|place| fields.get(place)).map_or("", |field| field.as_ref()));
        Ok(Row { from, to, status, kind, host, query })
    }
}

pub(crate) fn fields(line: &str) -> Result<Fields<'_>, String> {
    if !line.contains('"') {
        let fields: Fields<'_> = line.split(',').take(FIELDS_MAX + 1).map(Cow::Borrowed).collect();
        return Ok(fields);
    }
    let mut fields = Fields::new();
    let mut rest = Some(line);
    while let Some(text) = rest.filter(|_| fields.len() <= FIELDS_MAX) {
        let (field, after) = match text.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => text.split_once(',').map_or((text.into(), None), |(field, after)| (field.into(), Some(after))),
        };
        fields.push(field);
        rest = after;
    }
    Ok(fields)
}

/// Up to the closing quotation mark; two of them stand for one.
fn quoted_field(text: &str) -> Result<(Cow<'_, str>, Option<&str>), String> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let Some((part, after)) = rest.split_once('"') else {
            return Err("a quotation mark is not closed; a field can't go on in the next line".to_owned());
        };
        field.push_str(part);
        match (after.strip_prefix('"'), after.strip_prefix(',')) {
            (Some(more), _) => {
                field.push('"');
                rest = more;
            }
            (None, Some(more)) => return Ok((field.into(), Some(more))),
            (None, None) if after.is_empty() => return Ok((field.into(), None)),
            _ => return Err("something stands between a closing quotation mark and the comma".to_owned()),
        }
    }
}
