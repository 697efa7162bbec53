//! Bodies: `{"behaviour": "bodies"}` and the path say what happens, such as `/watch/trap` or `/change/hold`.

use latchkey_sdk::body::{Body, BodyPolicy, Course, Head, Messages, Passage};

use crate::{Hostile, count, eat, spin, trap};

const PASSAGE_BYTES_MAX: usize = 128 << 10;

impl BodyPolicy for Hostile {
    type Body = Misdeed;

    fn messages(&self) -> Messages {
        match self.behaviour.as_str() {
            "bodies" => Messages::all(),
            "bodies-up" => Messages::REQUESTS,
            "bodies-trap" => {
                trap();
                Messages::empty()
            }
            _ => Messages::empty(),
        }
    }

    fn begin(&self, head: &Head) -> Course<Misdeed> {
        let (course, what) = head.path.trim_start_matches('/').split_once('/').unwrap_or(("", ""));
        if what == "begin" {
            trap();
        }
        let body = Misdeed { what: what.to_owned(), held: Vec::new(), pushed: 0 };
        match course {
            "watch" => Course::Watch(body),
            "change" => Course::Change(body),
            _ => Course::Pass,
        }
    }
}

pub(crate) struct Misdeed {
    what: String,
    held: Vec<u8>,
    pushed: u32,
}

impl Body for Misdeed {
    fn push(&mut self, piece: &[u8], end: bool) -> Passage {
        self.pushed += 1;
        match self.what.as_str() {
            "trap" => trap(),
            "late" if end => trap(),
            "spin" => spin(),
            "eat" => eat(),
            "refuse" => return Passage::Refuse(418),
            "status" => return Passage::Refuse(200),
            "most" => return Passage::Replace(vec![b'x'; PASSAGE_BYTES_MAX]),
            "huge" => return Passage::Replace(vec![b'x'; PASSAGE_BYTES_MAX + 1]),
            "vast" => return Passage::Replace(vec![b'x'; 1 << 20]),
            "sizes" => return Passage::Replace(format!("{},", piece.len()).into_bytes()),
            "count" => return Passage::Replace(format!("{},", count()).into_bytes()),
            "shout" => return Passage::Replace(piece.to_ascii_uppercase()),
            "hold" | "hold-trap" => {
                self.held.extend_from_slice(piece);
                if end && self.what == "hold-trap" {
                    trap();
                }
                return Passage::Replace(if end { std::mem::take(&mut self.held) } else { Vec::new() });
            }
            _ => {}
        }
        Passage::Pass
    }
}

impl Drop for Misdeed {
    fn drop(&mut self) {
        match self.what.as_str() {
            "drop-trap" => trap(),
            "drop-spin" => spin(),
            _ => {}
        }
    }
}
