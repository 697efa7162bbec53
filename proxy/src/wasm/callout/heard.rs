//! What a live call heard from other servers, so that its shadow is told the same and asks nobody.

use super::CalloutRequest;
use crate::wasm::guest::callout as wit;

/// Who answers a call's questions.
#[derive(Debug)]
pub(in crate::wasm) enum Answering {
    Servers,
    /// The servers; what they say is kept for a shadow.
    Kept(Heard),
    /// Nobody is asked: what a live call heard, as far as it goes.
    Heard(Heard),
}

#[derive(Debug, Clone, Default)]
pub(in crate::wasm) struct Heard {
    /// In the order in which it was asked. The bounds of a call bound it.
    exchanges: Vec<Exchange>,
    /// The live call's time was used up when it asked once more.
    out_of_time: bool,
    /// What a shadow asked beside this.
    asked_else: Option<String>,
}

#[derive(Debug, Clone)]
struct Exchange {
    to: String,
    asked: CalloutRequest,
    told: Told,
}

type Told = Result<wit::Response, wit::Error>;

/// How the questions of a shadow differ from those of the live call.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::wasm) enum Questions {
    Same,
    /// It did not come to ask what the live one asked.
    Fewer(String),
    /// It asked what the live one did not, and was told nothing.
    Other {
        live: String,
        shadow: String,
    },
}

/// A shadow asked what nobody asked before. It ends the call: whatever it was told would be made up.
#[derive(Debug, thiserror::Error)]
#[error("a shadow asks something else than its live plugin did")]
pub(super) struct AskedElse;

impl Answering {
    pub(super) fn keep(&mut self, to: &str, asked: Option<CalloutRequest>, told: &Told) {
        if let (Self::Kept(heard), Some(asked)) = (self, asked) {
            heard.exchanges.push(Exchange { to: to.to_owned(), asked, told: told.clone() });
        }
    }

    pub(super) fn is_kept(&self) -> bool {
        matches!(self, Self::Kept(_))
    }

    pub(super) fn is_out_of_time(&mut self) {
        if let Self::Kept(heard) = self {
            heard.out_of_time = true;
        }
    }

    /// What was kept, or what is left of it.
    pub(in crate::wasm) fn heard(self) -> Option<Heard> {
        match self {
            Self::Servers => None,
            Self::Kept(heard) | Self::Heard(heard) => Some(heard),
        }
    }
}

impl Heard {
    /// Each answer once: who asks twice where the live one asked once would ask the server more.
    pub(super) fn again(&mut self, to: &str, asked: &CalloutRequest) -> Result<Told, AskedElse> {
        if let Some(at) = self.exchanges.iter().position(|exchange| exchange.to == to && exchange.asked == *asked) {
            return Ok(self.exchanges.remove(at).told);
        }
        if self.out_of_time {
            return Ok(Err(wit::Error::Spent));
        }
        self.asked_else = Some(self.other(to, asked));
        Err(AskedElse)
    }

    /// After a shadow's call.
    pub(in crate::wasm) fn questions(self) -> Questions {
        let live = || self.exchanges.iter().map(|it| line(&it.to, &it.asked)).collect::<Vec<_>>().join(", ");
        match self.asked_else {
            Some(shadow) if self.exchanges.is_empty() => Questions::Other { live: "asks no more".to_owned(), shadow },
            Some(shadow) => Questions::Other { live: format!("asks {}", live()), shadow },
            None if self.exchanges.is_empty() => Questions::Same,
            None => Questions::Fewer(format!("asks {}", live())),
        }
    }

    /// Values may be a visitor's secrets, so only the field that differs is named.
    fn other(&self, to: &str, asked: &CalloutRequest) -> String {
        let line = line(to, asked);
        let alike = |it: &&Exchange| (&it.to[..], &it.asked.method, &it.asked.path) == (to, &asked.method, &asked.path);
        let Some(Exchange { asked: live, .. }) = self.exchanges.iter().find(alike) else {
            return format!("asks {line}");
        };
        let pairs = live.headers.iter().map(Some).chain(std::iter::repeat(None)).zip(&asked.headers);
        let other = pairs.filter(|(live, shadow)| *live != Some(shadow)).map(|(_, shadow)| &shadow.name).next();
        let other = other.or_else(|| live.headers.get(asked.headers.len()).map(|live| &live.name));
        match other {
            Some(name) => format!("asks {line} with another `{name}`"),
            None => format!("asks {line} with another body"),
        }
    }
}

fn line(to: &str, asked: &CalloutRequest) -> String {
    format!("{to}: {} {}", asked.method, asked.path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wasm::types::Header;

    fn get(path: &str, user: &str) -> CalloutRequest {
        let headers = vec![Header { name: "x-user".to_owned(), value: user.into() }];
        let (method, path) = ("GET".to_owned(), path.to_owned());
        CalloutRequest { method, path, headers, body: Vec::new(), client: None }
    }

    fn reply(status: u16) -> Told {
        Ok(wit::Response { status, headers: Vec::new(), body: Vec::new() })
    }

    /// Of a call that asked these paths, for one user.
    fn heard(paths: &[&str]) -> Heard {
        let mut answering = Answering::Kept(Heard::default());
        for (at, path) in (0u16..).zip(paths) {
            answering.keep("auth", Some(get(path, "7")), &reply(200 + at));
        }
        answering.heard().unwrap()
    }

    fn status(told: Result<Told, AskedElse>) -> u16 {
        told.unwrap().unwrap().status
    }

    #[test]
    fn the_same_questions_have_the_same_answers_once_each() {
        let mut both = heard(&["/a", "/b", "/a"]);
        assert_eq!([(); 2].map(|()| status(both.again("auth", &get("/a", "7")))), [200, 202]);
        assert_eq!(status(both.again("auth", &get("/b", "7"))), 201);
        assert_eq!(both.clone().questions(), Questions::Same);
        assert!(both.again("auth", &get("/b", "7")).is_err());
        let other = Questions::Other { live: "asks no more".to_owned(), shadow: "asks auth: GET /b".to_owned() };
        assert_eq!(both.questions(), other);
    }

    #[test]
    fn another_question_is_told_without_what_may_be_secret() {
        let more = CalloutRequest { headers: Vec::new(), ..get("/a", "7") };
        let body = CalloutRequest { body: b"x".to_vec(), ..get("/a", "7") };
        for (to, asked, says) in [
            ("auth", get("/b", "7"), "asks auth: GET /b"),
            ("other", get("/a", "7"), "asks other: GET /a"),
            ("auth", get("/a", "secret"), "asks auth: GET /a with another `x-user`"),
            ("auth", more, "asks auth: GET /a with another `x-user`"),
            ("auth", body, "asks auth: GET /a with another body"),
        ] {
            let mut heard = heard(&["/a"]);
            assert!(heard.again(to, &asked).is_err(), "{says}");
            let live = "asks auth: GET /a".to_owned();
            assert_eq!(heard.questions(), Questions::Other { live, shadow: says.to_owned() });
        }
    }

    #[test]
    fn what_is_not_asked_is_told() {
        assert_eq!(heard(&["/a", "/b"]).questions(), Questions::Fewer("asks auth: GET /a, auth: GET /b".to_owned()));
        assert_eq!(heard(&[]).questions(), Questions::Same);
    }

    #[test]
    fn who_had_no_time_to_ask_has_none_in_the_shadow_either() {
        let mut answering = Answering::Kept(Heard::default());
        answering.is_out_of_time();
        let mut heard = answering.heard().unwrap();
        assert!(matches!(heard.again("auth", &get("/a", "7")), Ok(Err(wit::Error::Spent))));
        assert_eq!(heard.questions(), Questions::Same);
    }
}
