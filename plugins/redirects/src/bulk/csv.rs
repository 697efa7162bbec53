//! CSV (RFC 4180), one record a line.

use std::borrow::Cow;

use latchkey_sdk::config::brief;

use crate::rules::{KEYS, Wrong};

/// Of a rule.
const FIELDS_MAX: usize = KEYS.len();
/// More than that, for a message.
const QUOTED_MAX: usize = 16;

/// Where each setting stands; the first line says it.
pub(crate) struct Columns {
    places: [Option<usize>; KEYS.len()],
    count: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Row<'a> {
    pub(crate) from: &'a str,
    pub(crate) to: &'a str,
    pub(crate) status: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) host: &'a str,
    pub(crate) query: &'a str,
}

/// A line, and where its commas are: a table has millions, so each byte is looked at once.
pub(crate) struct Record<'a> {
    pub(crate) text: &'a str,
    commas: [usize; FIELDS_MAX],
    /// Of all commas.
    count: usize,
    quoted: bool,
}

/// All but a last one that is empty.
pub(crate) fn records(text: &str) -> impl Iterator<Item = Record<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (record, after) = Record::first(rest)?;
        rest = after;
        Some(record)
    })
}

impl<'a> Record<'a> {
    fn first(text: &'a str) -> Option<(Self, &'a str)> {
        let (mut commas, mut count, mut quoted, mut end) = ([0; FIELDS_MAX], 0, false, text.len());
        for (at, byte) in text.bytes().enumerate() {
            match byte {
                b',' => {
                    commas.get_mut(count).into_iter().for_each(|comma| *comma = at);
                    count += 1;
                }
                b'"' => quoted = true,
                b'\n' => {
                    end = at;
                    break;
                }
                _ => {}
            }
        }
        let (line, rest) = text.split_at_checked(end).filter(|_| !text.is_empty())?;
        let text = line.strip_suffix('\r').unwrap_or(line);
        Some((Self { text, commas, count, quoted }, rest.strip_prefix('\n').unwrap_or_default()))
    }

    pub(crate) fn fields(&self) -> Result<Fields<'a>, String> {
        if self.quoted {
            return any_fields(self.text).map(Fields::Quoted);
        }
        let (mut fields, mut begin) = ([""; FIELDS_MAX], 0);
        let ends = self.commas.iter().take(self.count).copied().chain([self.text.len()]);
        for (field, end) in fields.iter_mut().zip(ends) {
            *field = self.text.get(begin..end).unwrap_or_default();
            begin = end + 1;
        }
        Ok(Fields::Plain(fields, self.count + 1))
    }
}

/// Of a record: the first ones, and how many there are.
pub(crate) enum Fields<'a> {
    Plain([&'a str; FIELDS_MAX], usize),
    Quoted(Vec<Cow<'a, str>>),
}

impl Fields<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Plain(_, count) => *count,
            Self::Quoted(fields) => fields.len(),
        }
    }

    fn get(&self, place: usize) -> Option<&str> {
        match self {
            Self::Plain(fields, count) => fields.get(place).filter(|_| place < *count).copied(),
            Self::Quoted(fields) => fields.get(place).map(AsRef::as_ref),
        }
    }
}

impl Columns {
    pub(crate) fn of(line: &Record<'_>) -> Result<Self, Wrong> {
        let mut places = [None; KEYS.len()];
        for (place, name) in any_fields(line.text).map_err(|says| (says, None))?.iter().enumerate() {
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
        Ok(Self { places, count: places.iter().flatten().count() })
    }

    pub(crate) fn row<'a>(&self, fields: &'a Fields<'_>) -> Result<Row<'a>, String> {
        let columns = self.count;
        if fields.len() != columns {
            return Err(format!("has {} fields, the first line names {columns}", fields.len()));
        }
        let [from, to, status, kind, host, query] =
            self.places.map(|place| place.and_then(|place| fields.get(place)).unwrap_or_default());
        Ok(Row { from, to, status, kind, host, query })
    }
}

fn any_fields(line: &str) -> Result<Vec<Cow<'_, str>>, String> {
    let mut fields = Vec::new();
    let mut rest = Some(line);
    while let Some(text) = rest.filter(|_| fields.len() <= QUOTED_MAX) {
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
