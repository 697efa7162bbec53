//! The part of nginx's language that redirects are written in: `map` on the path, `rewrite`, `return` in `location = …` and
//! in a whole `server`.

use std::collections::HashMap;

use super::nginx_syntax::statements;
use super::{Imported, Rule, encoded, host_and_path, is_target, status};

const BY_ITSELF: &str = "a listener of protocol http sends everybody to https by itself";

pub(super) fn read(text: &str) -> Imported {
    let statements = statements(text);
    let words = statements.iter().map(|statement| statement.words.iter().map(String::as_str).collect::<Vec<_>>());
    let all: Vec<_> = statements.iter().zip(words).collect();
    let maps = all.iter().filter(|(statement, words)| statement.end == '{' && words.first() == Some(&"map"));
    let used = maps.filter_map(|(_, words)| Some((words.last()?.to_string(), None))).collect();
    let mut reader = Reader { imported: Imported::default(), blocks: Vec::new(), made: Vec::new(), used };
    for (statement, words) in all {
        match statement.end {
            '{' => reader.blocks.push(Block::of(&words)),
            '}' => reader.close(),
            ' ' => reader.add(statement.line, Err("the file ends within this statement".into())),
            _ => reader.statement(statement.line, &words),
        }
    }
    reader.finish()
}

struct Reader {
    imported: Imported,
    blocks: Vec<Block>,
    /// What maps hold, by their variable.
    made: Vec<(String, Made)>,
    /// What is done with the variable of each map: the status, and whether the query is kept.
    used: HashMap<String, Option<(u16, bool)>>,
}

type Made = (usize, Result<Rule, String>);

enum Block {
    /// `map $uri $variable`
    Map(String),
    OtherMap,
    Server {
        names: Vec<String>,
        /// In its own words, which nginx runs before it looks at locations.
        made: Vec<Made>,
        in_locations: Vec<Made>,
        whole: Option<(usize, Result<Whole, String>)>,
    },
    /// `location = /path`
    Exact(String),
    /// `location /` and blocks around servers, in which all that stands applies to every path.
    Open,
    /// What stands in it applies under a condition.
    If(String),
    Closed(String),
}

/// `return 301 https://other$request_uri;` for all that a server is asked.
struct Whole {
    status: u16,
    to: String,
}

impl Block {
    fn of(words: &[&str]) -> Self {
        match words {
            ["map", "$uri" | "$request_uri" | "$document_uri", variable] => Self::Map((*variable).to_owned()),
            ["map", ..] => Self::OtherMap,
            ["server"] => Self::Server { names: Vec::new(), made: Vec::new(), in_locations: Vec::new(), whole: None },
            ["location", "=", path] => Self::Exact((*path).to_owned()),
            ["location", "/"] | ["http"] => Self::Open,
            ["if", condition @ ..] => Self::If(condition.join(" ")),
            _ => Self::Closed(words.join(" ")),
        }
    }
}

impl Reader {
    fn statement(&mut self, line: usize, words: &[&str]) {
        if self.uses_map(words) {
            return;
        }
        let condition = self.blocks.iter().find_map(|block| match block {
            Block::If(condition) => Some(format!("`if {condition}`: conditions have no counterpart")),
            _ => None,
        });
        let made = match (self.blocks.last_mut(), words) {
            (Some(Block::Map(variable)), _) => {
                self.made.extend(mapped(words).map(|made| (variable.clone(), (line, made))));
                return;
            }
            (Some(Block::OtherMap), _) => Err("this map is not on $uri or $request_uri".into()),
            (Some(Block::Server { names, .. }), ["server_name", given @ ..]) => {
                names
                    .extend(given.iter().filter(|name| !matches!(**name, "_" | "\"\"")).map(|name| (*name).to_owned()));
                return;
            }
            (_, ["return" | "rewrite", ..]) if condition.is_some() => Err(condition.unwrap_or_default()),
            (Some(Block::Server { whole: Some((first, _)), .. }), ["return" | "rewrite", ..]) => Err(never(*first)),
            (Some(Block::Server { whole, .. }), ["return", ..]) => {
                *whole = Some((line, whole_server(words)));
                return;
            }
            (Some(Block::Exact(path)), ["return", ..]) => returned(path, words),
            (Some(Block::Exact(path)), ["rewrite", ..]) => {
                Err(format!("stands in `location = {path}`, for that path only; write it as a `return`"))
            }
            (Some(Block::Closed(block)), ["return" | "rewrite", ..]) => {
                Err(format!("stands in `{block}`, which answers for some paths only; write it in `server`"))
            }
            (_, ["rewrite", ..]) => rewritten(words),
            (_, ["return", ..]) => Err("only `server` and `location = /path` hold a return that is read".into()),
            // What is no redirect is none of ours.
            _ => return,
        };
        self.add(line, made);
    }

    /// Within a server, it is for that server's names.
    fn add(&mut self, line: usize, rule: Result<Rule, String>) {
        let direct = matches!(self.blocks.last(), Some(Block::Server { .. }));
        let server = self.blocks.iter_mut().rev().find_map(|block| match block {
            Block::Server { made, in_locations, .. } => Some(if direct { made } else { in_locations }),
            _ => None,
        });
        match server {
            Some(made) => made.push((line, rule)),
            None => self.imported.add(line, rule),
        }
    }

    fn close(&mut self) {
        let Some(Block::Server { names, made, in_locations, whole }) = self.blocks.pop() else { return };
        // An expression never comes before a prefix, so that after one the whole has to be an expression, too.
        let after_expressions = made.iter().any(|(_, rule)| rule.as_ref().is_ok_and(Rule::is_expression));
        for (line, rule) in made {
            self.on_names(line, &names, rule);
        }
        for (line, rule) in in_locations {
            let reached = whole.as_ref().map_or(Ok(()), |(first, _)| Err(never(*first)));
            self.on_names(line, &names, rule.and_then(|rule| reached.map(|()| rule)));
        }
        if let Some((line, whole)) = whole {
            let to_itself = |to: &str| names.iter().find(|name| host_and_path(to).0.as_deref() == Some(name)).cloned();
            if let Some(name) = whole.as_ref().ok().and_then(|whole| to_itself(&whole.to)) {
                self.imported.add(line, Err(format!("sends {name} to itself; {BY_ITSELF}")));
            }
            let others: Vec<_> = match &whole {
                Ok(Whole { to, .. }) => {
                    names.iter().filter(|name| host_and_path(to).0.as_ref() != Some(name)).cloned().collect()
                }
                Err(_) => names.clone(),
            };
            if !names.is_empty() && others.is_empty() {
                return;
            }
            let rule = whole.and_then(|Whole { status, to }| {
                let rule = match after_expressions {
                    true => Rule::expression("^/(.*)$", &format!("{to}/$1"))?,
                    false => Rule::of_kind("prefix", "/", &to),
                };
                Ok(rule.with_status(status))
            });
            self.on_names(line, &others, rule);
        }
    }

    fn on_names(&mut self, line: usize, names: &[String], rule: Result<Rule, String>) {
        let rule = match rule {
            Ok(rule) if !names.is_empty() => rule,
            Ok(_) => {
                let why = "the server has no server_name: it answers for hosts that no other has";
                return self.imported.add(line, Err(why.into()));
            }
            left_out => return self.imported.add(line, left_out),
        };
        for name in names {
            let on_name = match name.strip_prefix('.') {
                _ if name.starts_with('~') || name.ends_with('*') => {
                    Err(format!("server_name `{name}` has no counterpart"))
                }
                // `.shop.example` is the name itself and all below it.
                Some(suffix) => {
                    self.imported.add(line, Ok(rule.on(suffix)));
                    Ok(rule.on(&format!("*.{suffix}")))
                }
                None => Ok(rule.on(name)),
            };
            self.imported.add(line, on_name);
        }
    }

    /// `return 301 $new;`, `rewrite ^ $new permanent;`: what a map's answers are for.
    fn uses_map(&mut self, words: &[&str]) -> bool {
        let (to, used) = match words {
            ["return", code, to] => (*to, status(code).map(|code| (code, false))),
            ["rewrite", _, to, "permanent"] => (*to, Ok((301, true))),
            ["rewrite", _, to, "redirect"] => (*to, Ok((302, true))),
            _ => return false,
        };
        let variable = to.strip_prefix("$scheme://$host").unwrap_or(to);
        let Some(use_of_it) = self.used.get_mut(variable) else { return false };
        *use_of_it = used.ok();
        true
    }

    fn finish(mut self) -> Imported {
        while !self.blocks.is_empty() {
            self.close();
        }
        for (variable, (line, made)) in self.made {
            // A map by itself is read as if `return 301` used it.
            let (status, keeps_query) = self.used.get(&variable).copied().flatten().unwrap_or((301, false));
            let query = (!keeps_query).then_some("drop");
            self.imported.add(line, made.map(|rule| Rule { query, ..rule }.with_status(status)));
        }
        self.imported
    }
}

/// `/old /new;` or `~^/blog/(.*)$ /news/$1;`
fn mapped(words: &[&str]) -> Option<Result<Rule, String>> {
    Some(match words {
        ["default", "" | "\"\""] | ["default"] | ["volatile"] => return None,
        ["default", to] => Err(format!("`default {to}` would redirect every other path")),
        ["hostnames"] => return None,
        ["include", file] => Err(format!("`include {file}`: import that file by itself")),
        [from, to] if from.starts_with('~') => {
            expression(from.trim_start_matches(['~', '*']), to, from.starts_with("~*"))
        }
        [from, _] if from.contains('?') => Err(format!("`{from}` has a query; only paths are compared")),
        [from, to] => plain(to, from.trim_start_matches('\\')),
        _ => Err("is no pair of a path and a target".into()),
    })
}

fn plain(to: &str, from: &str) -> Result<Rule, String> {
    if to.contains('$') {
        return Err(format!("`{to}` has a variable, which has no counterpart"));
    }
    if !from.starts_with('/') {
        return Err(format!("`{from}` is not a path"));
    }
    target(to).map(|to| Rule::exact(&encoded(from), &to))
}

fn rewritten(words: &[&str]) -> Result<Rule, String> {
    let (from, to, code) = match words {
        [_, from, to, "permanent"] => (from, to, 301),
        [_, from, to, "redirect"] => (from, to, 302),
        [_, from, to] if to.starts_with("http") => (from, to, 302),
        [_, _, _] | [_, _, _, "last" | "break"] => {
            return Err("rewrites within the server; it belongs to the upstream".into());
        }
        _ => return Err("is no rewrite with `permanent` or `redirect`".into()),
    };
    // nginx appends the query unless the target ends with `?`.
    let (to, drops) = to.strip_suffix('?').map_or((*to, false), |to| (to, true));
    let rule = expression(from, to.strip_prefix("$scheme://$host").unwrap_or(to), false)?;
    Ok(Rule { query: drops.then_some("drop"), ..rule }.with_status(code))
}

fn never(line: usize) -> String {
    format!("is never reached: the return in line {line} answers first")
}

fn returned(path: &str, words: &[&str]) -> Result<Rule, String> {
    let (code, to) = match words {
        [_, "410", ..] => return Ok(Rule::exact(&encoded(path), "").with_status(410)),
        [_, to] if to.starts_with("http") || to.starts_with("$scheme") => (302, to),
        [_, code, to] if code.starts_with('3') => (status(code)?, to),
        _ => return Err("is no redirect: it belongs to the upstream".into()),
    };
    let (to, keeps) = to.strip_suffix("$is_args$args").map_or((*to, false), |to| (to, true));
    let rule = plain(to.strip_prefix("$scheme://$host").unwrap_or(to), path)?;
    Ok(Rule { query: (!keeps).then_some("drop"), ..rule }.with_status(code))
}

fn whole_server(words: &[&str]) -> Result<Whole, String> {
    let [_, code, to] = words else { return Err("is no return with a status and a target".into()) };
    let status = status(code)?;
    if to.starts_with("https://$host") || to.starts_with("https://$server_name") {
        return Err(BY_ITSELF.into());
    }
    let Some(to) = to.strip_suffix("$request_uri") else {
        return Err(format!("`{to}` does not end with $request_uri: a whole server is moved with its paths"));
    };
    let to = to.strip_prefix("$scheme://").map_or(to.to_owned(), |host| format!("https://{host}"));
    if to.contains('$') || !to.starts_with("http") {
        return Err(format!("`{to}` has a variable, which has no counterpart"));
    }
    Ok(Whole { status, to: target(&to)? })
}

fn expression(from: &str, to: &str, ignores_case: bool) -> Result<Rule, String> {
    for (at, _) in to.match_indices('$') {
        // Groups are known to the plugin, nginx's variables are not.
        if !to[at + 1..].starts_with(|c: char| c.is_ascii_digit()) {
            return Err(format!("`{to}` has a variable, which has no counterpart"));
        }
    }
    let from = match from.strip_prefix("^/") {
        Some(rest) if ignores_case => format!("^/(?i){rest}"),
        _ => from.to_owned(),
    };
    Rule::expression(&from, &target(to)?)
}

fn target(to: &str) -> Result<String, String> {
    let to = encoded(to);
    if is_target(&to) { Ok(to) } else { Err(format!("`{to}` is neither a path nor an http or https URL")) }
}

#[cfg(test)]
#[path = "nginx_tests.rs"]
mod tests;
