//! Whatever a guest returns: what passes the checks is legal by rules that are written here a second time.

use super::super::guest::http;
use super::super::verify;
use super::*;

const ROUNDS: usize = 60_000;
const FORBIDDEN: [&str; 4] = ["connection", "content-length", "host", "transfer-encoding"];

/// Reads values out of bytes; out of none it reads zeros.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    fn number(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    fn bytes(&mut self) -> Vec<u8> {
        // Now and then what is too long.
        let length = match self.byte() {
            255 => 40_000,
            length => usize::from(length % 40),
        };
        (0..length).map(|_| self.byte()).collect()
    }

    fn text(&mut self) -> String {
        let words =
            ["x-a", "Set-Cookie", "/path", "//evil.example", "https://a.example/", "Host", "\r\n", "", "\u{e9}"];
        match usize::from(self.byte()) {
            place if place < words.len() => words[place].to_owned(),
            _ => String::from_utf8_lossy(&self.bytes()).into_owned(),
        }
    }

    fn header(&mut self) -> http::Header {
        http::Header { name: self.text(), value: self.bytes() }
    }

    fn edits(&mut self) -> Vec<http::Edit> {
        let count = usize::from(self.byte() % 70);
        let edit = |bytes: &mut Self| match bytes.byte() % 4 {
            0 => http::Edit::Set(bytes.header()),
            1 => http::Edit::Append(bytes.header()),
            2 => http::Edit::SetIfAbsent(bytes.header()),
            _ => http::Edit::Remove(bytes.text()),
        };
        (0..count).map(|_| edit(self)).collect()
    }

    fn action(&mut self) -> http::Action {
        match self.byte() % 5 {
            0 => http::Action::Next,
            1 => http::Action::Edit(self.edits()),
            2 => http::Action::Redirect(http::Redirect {
                status: http::RedirectStatus::Found,
                location: self.text(),
                edits: self.edits(),
            }),
            3 => {
                let count = usize::from(self.byte() % 70);
                let headers = (0..count).map(|_| self.header()).collect();
                http::Action::Respond(http::LocalResponse { status: self.number() % 700, headers, body: self.bytes() })
            }
            _ => http::Action::Deny(self.number() % 700),
        }
    }
}

/// A word for what became of it.
fn check(data: &[u8]) -> &'static str {
    match verify::action(Bytes(data).action()) {
        Err(fault) => {
            assert!(
                fault.to_string().chars().count() < 600 && !fault.to_string().contains(char::is_control),
                "{fault}"
            );
            "refused"
        }
        Ok(action) => {
            legal(&action);
            action.verdict()
        }
    }
}

fn legal(action: &Action) {
    let field = |name: &str, value: &[u8]| {
        assert!(!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':'), "{name:?}");
        assert!(name.bytes().all(|byte| !byte.is_ascii_uppercase()) && !FORBIDDEN.contains(&name), "{name:?}");
        assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)), "{value:?}");
    };
    let edited = |edits: &[Edit]| {
        assert!(edits.len() <= 64, "{} edits", edits.len());
        edits.iter().for_each(|edit| match edit {
            Edit::Set { name, value } | Edit::Append { name, value } | Edit::SetIfAbsent { name, value } => {
                field(name, value)
            }
            Edit::Remove { name } => field(name, b""),
        });
    };
    match action {
        Action::Next => {}
        Action::Edit(edits) => edited(edits),
        Action::Redirect { status, location, edits } => {
            assert!((301..=308).contains(status));
            assert!(location.bytes().all(|byte| byte.is_ascii_graphic()), "{location:?}");
            assert!(!location.starts_with("//") && (location.starts_with('/') || location.starts_with("http")));
            edited(edits);
        }
        Action::Respond { status, headers, body } => {
            assert!((200..=599).contains(status) && body.len() <= 64 << 10 && headers.len() <= 64);
            headers.iter().for_each(|header| field(&header.name, &header.value));
        }
        Action::Deny(status) => assert!((400..=599).contains(status)),
    }
}

/// So many inputs, or for LATCHKEY_FUZZ_SECONDS, then from a seed that is told.
#[test]
fn any_value_of_a_guest_is_refused_or_legal() {
    let seconds = std::env::var("LATCHKEY_FUZZ_SECONDS").ok().map(|text| text.parse().expect("a number of seconds"));
    let until = seconds.map(|seconds| std::time::Instant::now() + Duration::from_secs(seconds));
    let seed = until.map_or(7, |_| std::time::UNIX_EPOCH.elapsed().expect("is later").as_nanos() as u64 | 1);
    println!("seed {seed}");
    let (mut state, mut seen, mut done) = (seed, BTreeMap::new(), 0);
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    while until.map_or(done < ROUNDS, |until| std::time::Instant::now() < until) {
        done += 1;
        // Mostly few different bytes, so that words and short lists are common.
        let few = random() % 4 != 0;
        let length = random() % 300;
        let data: Vec<u8> = (0..length).map(|_| if few { (random() % 12) as u8 } else { random() as u8 }).collect();
        *seen.entry(check(&data)).or_insert(0) += 1;
    }
    println!("{done} inputs: {seen:?}");
    assert_eq!(seen.keys().copied().collect::<Vec<_>>(), ["deny", "edit", "next", "redirect", "refused", "respond"]);
}
