//! RFC 4180.

use super::{Imported, LeftOut, Rule, host_and_path, status};

pub(super) fn read(text: &str) -> Imported {
    let mut imported = Imported::default();
    let mut records = records(text).into_iter();
    let Some((_, names)) = records.next() else { return imported };
    let names: Vec<String> = names.iter().map(|name| name.trim().to_ascii_lowercase()).collect();
    if !["from", "to"].iter().all(|needed| names.iter().any(|name| name == needed)) {
        let why = "the first line must name the columns, `from` and `to` among them".into();
        imported.left_out.push(LeftOut { line: 1, why });
        return imported;
    }
    for (line, record) in records {
        let column = |name: &str| {
            let index = names.iter().position(|known| known == name)?;
            record.get(index).map(|field| field.trim()).filter(|field| !field.is_empty())
        };
        imported.add(line, rule(column));
    }
    imported
}

fn rule<'a>(column: impl Fn(&str) -> Option<&'a str>) -> Result<Rule, String> {
    let (host, from) = host_and_path(column("from").ok_or("`from` is empty")?);
    let status = column("status").map_or(Ok(301), status)?;
    let to = column("to").unwrap_or_default();
    if to.is_empty() && status != 410 {
        return Err("`to` is empty".into());
    }
    let one_of = |name: &str, words: &[&'static str]| match column(name) {
        None => Ok(None),
        Some(given) => words
            .iter()
            .find(|word| **word == given)
            .map(|word| Some(*word))
            .ok_or_else(|| format!("`{name}` is `{given}`, none of {}", words.join(", "))),
    };
    let kind = one_of("match", &["exact", "prefix", "regex"])?;
    let query = one_of("query", &["keep", "drop", "merge"])?;
    let host = column("host").map(str::to_owned).or(host);
    Ok(Rule { kind, host, query, ..Rule::exact(from, to) }.with_status(status))
}

/// Each with the line that it begins in. Empty lines are none.
fn records(text: &str) -> Vec<(usize, Vec<String>)> {
    let (mut records, mut record, mut field) = (Vec::new(), Vec::new(), String::new());
    let (mut line, mut begun, mut quoted) = (1, 1, false);
    let mut chars = text.trim_start_matches('\u{feff}').chars().peekable();
    while let Some(char) = chars.next() {
        line += usize::from(char == '\n');
        match char {
            '"' if quoted && chars.peek() == Some(&'"') => field.extend(chars.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => record.push(std::mem::take(&mut field)),
            '\r' if !quoted => {}
            '\n' if !quoted => {
                record.push(std::mem::take(&mut field));
                records.push((begun, std::mem::take(&mut record)));
                begun = line;
            }
            other => field.push(other),
        }
    }
    record.push(field);
    records.push((begun, record));
    records.retain(|(_, record)| record.iter().any(|field| !field.trim().is_empty()));
    records
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_columns_by_name() {
        let text = "to,from,status,match\r\n/new,/old,,\r\n\"/a,\"\"b\"\"\",https://shop.example/x,308,prefix\r\n,/gone,410,\r\n";
        let imported = read(text);
        assert_eq!(imported.left_out, []);
        let shop = Rule { host: Some("shop.example".into()), ..Rule::of_kind("prefix", "/x", "/a,\"b\"") };
        assert_eq!(
            imported.rules,
            [Rule::exact("/old", "/new"), shop.with_status(308), Rule::exact("/gone", "").with_status(410)]
        );
    }

    #[test]
    fn tells_what_it_leaves_out_with_its_line() {
        let imported = read("from,to,status,query\n/a,/b,200,\n\n/c,,,\n/d,/e,,mrege\n,/f,,\n");
        let expected = [
            (2, "status `200` is none of 301, 302, 303, 307, 308, 410"),
            (4, "`to` is empty"),
            (5, "`query` is `mrege`, none of keep, drop, merge"),
            (6, "`from` is empty"),
        ];
        let told: Vec<_> = imported.left_out.iter().map(|left_out| (left_out.line, left_out.why.as_str())).collect();
        assert_eq!((imported.rules.len(), told), (0, expected.to_vec()));
        assert!(read("/old,/new\n").left_out[0].why.contains("must name the columns"));
        assert_eq!(read(""), Imported::default());
    }
}
