//! One line of a list. Pure.

use contract::api::OrderWhen;

use super::{Entry, Refusal, Rules, Wanted};

/// Longest line that is read.
pub const LINE_BYTES_MAX: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `name[,tenant[,issuer[,order]]]`, with or without a first line that says so.
    Csv,
    /// One JSON object a line.
    Ndjson,
}

/// What a line comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    Empty,
    Entry(Entry),
    Refused(Refusal),
}

impl Format {
    pub fn of_media_type(text: &str) -> Option<Self> {
        match text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "text/csv" => Some(Self::Csv),
            "application/x-ndjson" | "application/jsonl" => Some(Self::Ndjson),
            _ => None,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Ndjson => "ndjson",
        }
    }

    /// `others` stand for what the line leaves out; `number` counts from 1.
    pub fn read(self, text: &str, number: u64, rules: &Rules, own: Option<&str>, others: &Wanted) -> Line {
        let text = text.trim();
        let refused = |says: String| Line::Refused(Refusal { code: "invalid_line", says });
        if text.is_empty() {
            return Line::Empty;
        }
        if text.len() > LINE_BYTES_MAX {
            return refused(format!(
                "the line is more than {LINE_BYTES_MAX} bytes, which is the most that is accepted"
            ));
        }
        let wanted = match self {
            Self::Csv => csv(text),
            Self::Ndjson => serde_json::from_str(text).map_err(|error| {
                format!(
                    "the line is not as expected: {error}; such as {{\"name\": \"shop.example\", \"tenant\": \"acme\"}}"
                )
            }),
        };
        let wanted: Wanted = match wanted {
            Ok(wanted) if self == Self::Csv && number == 1 && wanted.name.eq_ignore_ascii_case("name") => {
                return Line::Empty;
            }
            Ok(wanted) => wanted,
            Err(says) => return refused(says),
        };
        let wanted = Wanted {
            tenant: wanted.tenant.or_else(|| others.tenant.clone()),
            issuer: wanted.issuer.or_else(|| others.issuer.clone().filter(|_| wanted.issuers.is_none())),
            www: wanted.www.or(others.www),
            order: wanted.order.or(others.order),
            ..wanted
        };
        match rules.admit(own, wanted) {
            Ok(entry) => Line::Entry(entry),
            Err(refusal) => Line::Refused(refusal),
        }
    }
}

/// RFC 4180, as far as names go: none has a comma, a quote or a line break in it.
fn csv(text: &str) -> Result<Wanted, String> {
    let cells: Vec<&str> = text.split(',').map(|cell| unquoted(cell.trim())).collect();
    let cell = |at: usize| cells.get(at).filter(|cell| !cell.is_empty()).map(|cell| (*cell).to_owned());
    match cells.len() {
        1..=4 => {
            let is_heading = cells[0].eq_ignore_ascii_case("name");
            let order = cell(3).filter(|_| !is_heading).map(|word| order(&word)).transpose()?;
            Ok(Wanted { name: cells[0].to_owned(), tenant: cell(1), issuer: cell(2), order, ..Wanted::default() })
        }
        more => Err(format!("the line has {more} columns; it takes name[,tenant[,issuer[,order]]]")),
    }
}

fn order(word: &str) -> Result<OrderWhen, String> {
    serde_json::from_value(word.into()).map_err(|_| {
        let shown: String = word.chars().take(64).collect();
        format!("order is `{shown}`; it takes now or first_visit")
    })
}

fn unquoted(cell: &str) -> &str {
    cell.strip_prefix('"').and_then(|cell| cell.strip_suffix('"')).unwrap_or(cell)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(format: Format, text: &str, number: u64) -> Line {
        let rules = Rules {
            issuers: vec!["ca".into(), "other".into()],
            preferred: vec!["ca".into()],
            wildcards: Vec::new(),
            names_max: 0,
            www: false,
            order: OrderWhen::Now,
        };
        let others = Wanted { tenant: Some("given".into()), ..Wanted::default() };
        format.read(text, number, &rules, None, &others)
    }

    fn entry(format: Format, text: &str) -> (String, String, String) {
        let Line::Entry(entry) = read(format, text, 2) else { panic!("{text}: {:?}", read(format, text, 2)) };
        (entry.name.to_string(), entry.tenant, entry.issuer)
    }

    #[test]
    fn both_formats_say_the_same() {
        let of = |name: &str, tenant: &str, issuer: &str| (name.to_owned(), tenant.to_owned(), issuer.to_owned());
        for (csv, ndjson, expected) in [
            ("a.example", r#"{"name": "a.example"}"#, of("a.example", "given", "ca")),
            ("A.Example,one\r", r#"{"name":"a.example","tenant":"one"}"#, of("a.example", "one", "ca")),
            (
                r#" "a.example" , "one","other""#,
                r#"{"name":"a.example","tenant":"one","issuer":"other"}"#,
                of("a.example", "one", "other"),
            ),
            ("a.example,,other", r#"{"name":"a.example","issuer":"other"}"#, of("a.example", "given", "other")),
        ] {
            assert_eq!(entry(Format::Csv, csv), expected);
            assert_eq!(entry(Format::Ndjson, ndjson), expected);
        }
    }

    #[test]
    fn a_heading_is_read_over_where_it_can_be_one() {
        assert_eq!(read(Format::Csv, "Name,tenant,issuer", 1), Line::Empty);
        assert!(matches!(read(Format::Csv, "name,tenant", 2), Line::Refused(_)));
        assert_eq!(read(Format::Ndjson, "  ", 7), Line::Empty);
    }

    #[test]
    fn a_bad_line_says_what_is_wrong_with_it() {
        let refused = |format, text: &str| {
            let Line::Refused(refusal) = read(format, text, 3) else { panic!("{text}") };
            refusal
        };
        let long = |bytes: usize| "a".repeat(bytes);
        assert!(refused(Format::Csv, &long(LINE_BYTES_MAX + 1)).says.contains("4096 bytes"));
        assert_eq!(refused(Format::Csv, &long(LINE_BYTES_MAX)).code, "invalid_name");
        assert!(refused(Format::Csv, "a,b,c,d,e").says.contains("5 columns"));
        assert!(
            refused(Format::Csv, "a.example,,,later").says.contains("order is `later`; it takes now or first_visit")
        );
        assert_eq!(refused(Format::Csv, "co.uk").code, "public_suffix");
        assert!(refused(Format::Ndjson, r#"{"name": "a.example", "tenat": "x"}"#).says.contains("tenat"));
        assert_eq!(refused(Format::Ndjson, "a.example").code, "invalid_line");
        assert_eq!(Format::of_media_type("text/csv; charset=utf-8"), Some(Format::Csv));
        assert_eq!(Format::of_media_type("application/json"), None);
    }
}
