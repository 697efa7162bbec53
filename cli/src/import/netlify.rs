//! Netlify's `_redirects`: `/from /to 301`, with `*` and `:splat`, and `:names` for parts of a path. The first line that
//! fits answers there; here the exact one does, then the longest prefix. What that would change is told.

use super::{Imported, Rule, host_and_path, is_target, literal, status};

pub(super) fn read(text: &str) -> Imported {
    let mut imported = Imported::default();
    let mut before: Vec<Line> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let words: Vec<&str> = line.split_whitespace().take_while(|word| !word.starts_with('#')).collect();
        if words.is_empty() {
            continue;
        }
        let made = Line::read(number, &words).and_then(|line| {
            let rule = line.rule(&before)?;
            before.push(line);
            Ok(rule)
        });
        imported.add(number, made);
    }
    imported
}

struct Line {
    number: usize,
    host: Option<String>,
    /// Parts between slashes.
    from: Vec<String>,
    to: String,
    status: u16,
}

impl Line {
    fn read(number: usize, words: &[&str]) -> Result<Self, String> {
        let [from, ref rest @ ..] = *words else { return Err("is empty".into()) };
        let (host, path) = host_and_path(from);
        let Some(path) = path.strip_prefix('/') else {
            return Err(format!("`{from}` is neither a path nor an http or https URL"));
        };
        if let Some(parameter) = rest.iter().take_while(|word| !is_target(word)).next() {
            return Err(format!("`{parameter}`: conditions on the query have no counterpart"));
        }
        let [to, ref rest @ ..] = *rest else { return Err("has no target".into()) };
        if host.is_some()
            && host == host_and_path(to).0
            && host_and_path(to).1.trim_end_matches(":splat") == path_of(from)
        {
            return Err("sends a host to itself: a listener of protocol http sends everybody to https by itself".into());
        }
        // `!` (even where a file exists) is what a redirect at the edge does anyway.
        let (code, conditions) =
            rest.split_first().map_or(("301", &[][..]), |(code, rest)| (code.trim_end_matches('!'), rest));
        if let Some(condition) = conditions.first() {
            return Err(format!("`{condition}`: conditions on country, language, role or cookie have no counterpart"));
        }
        if matches!(code, "200" | "404") {
            return Err(format!("status {code} is a rewrite, not a redirect: it belongs to the upstream"));
        }
        let from: Vec<String> = path.split('/').map(str::to_owned).collect();
        if from.iter().rev().skip(1).any(|part| part == "*") {
            return Err("a `*` stands at the end only".into());
        }
        if let Some(part) = from.iter().find(|part| part.len() > 1 && part.contains('*')) {
            return Err(format!("`{part}`: a `*` stands for a whole part of a path, at its end"));
        }
        Ok(Self { number, host, from, to: to.to_owned(), status: status(code)? })
    }

    fn rule(&self, before: &[Self]) -> Result<Rule, String> {
        let mut covering = before.iter().filter(|earlier| earlier.covers(self));
        if let Some(earlier) = covering.clone().find(|earlier| earlier.host.is_none() || self.host.is_some()) {
            return Err(format!("is never reached: line {} answers first", earlier.number));
        }
        // For one host only. What is longer or exact goes before it here, also on that host.
        if let Some(earlier) = covering.find(|earlier| earlier.has_variables() && earlier.from != self.from) {
            let host = earlier.host.as_deref().unwrap_or_default();
            return Err(format!("on {host} line {} answers first, which has no counterpart", earlier.number));
        }
        let path = format!("/{}", self.from.join("/"));
        let made = match self.prefix() {
            // A prefix goes before every expression, so it can't stand below one.
            Some((from, to)) if !before.iter().any(Self::is_expression) => Rule::of_kind("prefix", &from, &to),
            None if !self.has_variables() => Rule::exact(&path, &self.to),
            _ => self.expression()?,
        };
        Ok(Rule { host: self.host.clone(), ..made }.with_status(self.status))
    }

    /// `/blog/* /news/:splat` is a prefix rule: where from, and where to.
    fn prefix(&self) -> Option<(String, String)> {
        let (last, parts) = self.from.split_last()?;
        let to = self.to.strip_suffix("/:splat")?;
        let (_, path) = host_and_path(to);
        let plain = last == "*" && !parts.iter().any(|part| is_name(part)) && !path.contains([':', '?', '#']);
        plain.then(|| (format!("/{}", parts.join("/")), if to.is_empty() { "/".into() } else { to.to_owned() }))
    }

    fn has_variables(&self) -> bool {
        self.from.iter().any(|part| part == "*" || is_name(part))
    }

    fn is_expression(&self) -> bool {
        self.has_variables() && self.prefix().is_none()
    }

    /// Every path of the other is one of this.
    fn covers(&self, other: &Self) -> bool {
        if self.host.is_some() && other.host.is_some() && self.host != other.host {
            return false;
        }
        for (at, part) in self.from.iter().enumerate() {
            match (part.as_str(), other.from.get(at)) {
                ("*", _) => return true,
                (_, None) => return false,
                (_, Some(theirs)) if theirs == "*" => return false,
                (mine, Some(_)) if is_name(mine) => {}
                (mine, Some(theirs)) if mine == theirs => {}
                _ => return false,
            }
        }
        self.from.len() == other.from.len()
    }

    /// `/news/:year/*` → `^/news/([^/]+)(?:/(.*))?$`, and the target's names to `$1`, `$2`.
    fn expression(&self) -> Result<Rule, String> {
        let (mut pattern, mut names) = (String::from("^"), Vec::new());
        for (at, part) in self.from.iter().enumerate() {
            if is_name(part) {
                pattern.push_str("/([^/]+)");
                names.push(&part[1..]);
            } else if part == "*" {
                pattern.push_str(if at == 0 { "/(.*)" } else { "(?:/(.*))?" });
                names.push("splat");
            } else {
                pattern.push('/');
                pattern.push_str(&literal(part));
            }
        }
        pattern.push('$');
        Rule::expression(&pattern, &numbered(&self.to, &names)?)
    }
}

fn path_of(from: &str) -> &str {
    host_and_path(from).1.trim_end_matches('*')
}

fn is_name(part: &str) -> bool {
    part.len() > 1 && part.starts_with(':')
}

/// The target with `$1` in the place of the first name, and so on.
fn numbered(to: &str, names: &[&str]) -> Result<String, String> {
    let (host, path) = host_and_path(to);
    if host.is_some() && !to.ends_with(path) {
        // A URL without a path.
        return Ok(to.to_owned());
    }
    let (mut out, mut rest) = (to[..to.len() - path.len()].to_owned(), path);
    while let Some(at) = rest.find([':', '$']) {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
        let name = &after[..end];
        if rest[at..].starts_with('$') {
            out.push_str("$$");
            rest = after;
            continue;
        }
        match names.iter().position(|known| *known == name) {
            Some(index) => out.push_str(&format!("${}", index + 1)),
            None if name.is_empty() => out.push(':'),
            None => return Err(format!("`:{name}` is no part of the path that it comes from")),
        }
        rest = &after[end..];
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_paths_splats_and_names() {
        let text = "# comment\n/old /new\n/blog/* /news/:splat 302!\n/:year/:month/* /p/:month-:year/:splat 308 # x\n\
                    https://a.example/* https://b.example/:splat 301\nhttps://c.example/x/* https://d.example/$/:splat\n";
        let imported = read(text);
        assert_eq!(imported.left_out, []);
        let regex = |from, to| Rule::expression(from, to).unwrap();
        assert_eq!(
            imported.rules,
            [
                Rule::exact("/old", "/new"),
                Rule::of_kind("prefix", "/blog", "/news").with_status(302),
                regex("^/([^/]+)/([^/]+)(?:/(.*))?$", "/p/$2-$1/$3").with_status(308),
                // Below an expression, which a prefix would overtake.
                regex("^/(.*)$", "https://b.example/$1").on("a.example"),
                regex("^/x(?:/(.*))?$", "https://d.example/$$/$1").on("c.example"),
            ]
        );
        let moved = read(
            "https://www.a.example/* https://a.example/:splat\n/* https://b.example/:splat\n/c https://d.example\n",
        );
        let whole = |to| Rule::of_kind("prefix", "/", to);
        assert_eq!(moved.rules, [whole("https://a.example").on("www.a.example"), whole("https://b.example")]);
        assert!(moved.left_out[0].why.contains("never reached: line 2"), "{:?}", moved.left_out);
    }

    #[test]
    fn tells_where_the_first_line_would_not_be_the_first_here() {
        let imported = read("https://a.example/s/* /x/:splat\n/s/t /y\n/u /v\n");
        assert_eq!(imported.rules.len(), 2);
        assert!(imported.left_out[0].why.contains("on a.example line 1 answers first"), "{:?}", imported.left_out);
    }

    #[test]
    fn a_host_is_not_sent_to_itself() {
        let imported =
            read("http://a.example/* https://a.example/:splat 301!\nhttp://a.example/* https://b.example/:splat 301!");
        assert_eq!(imported.left_out.len(), 1, "{imported:?}");
        assert!(imported.left_out[0].why.contains("to itself"));
        assert_eq!(imported.rules, [Rule::of_kind("prefix", "/", "https://b.example").on("a.example")]);
    }

    #[test]
    fn tells_what_has_no_counterpart() {
        let text = "/a /b 200\n/c id=:id /d/:id 301\n/e /f 302 Country=de\n/g\n/h/*/i /j\n/k* /l\n/m/* /n\n/m/o /p\n/q/:r /:s\n";
        let imported = read(text);
        assert_eq!(imported.rules, [Rule::expression("^/m(?:/(.*))?$", "/n").unwrap()]);
        let says = [
            (1, "rewrite"),
            (2, "conditions on the query"),
            (3, "conditions on country"),
            (4, "no target"),
            (5, "at the end only"),
            (6, "whole part"),
            (8, "never reached: line 7"),
            (9, "`:s` is no part"),
        ];
        assert_eq!(imported.left_out.len(), says.len(), "{:?}", imported.left_out);
        for (told, (line, says)) in imported.left_out.iter().zip(says) {
            assert!(told.line == line && told.why.contains(says), "{told:?}");
        }
    }
}
