//! What a CA says when it refuses for now: which limit, until when, and where to lift a pause. Texts as Let's Encrypt
//! (Boulder) writes them; of others what they have in common.

use crate::clock;

/// Which orders a refusal holds up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    /// This one only.
    Name,
    /// Every order of the account.
    Account,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Limited {
    pub held: Held,
    /// Unix seconds; what the text says, where it does.
    pub until: Option<u64>,
    /// Where a person lifts the pause.
    pub unpause: Option<String>,
}

pub(super) fn read(text: &str) -> Limited {
    let lower = text.to_ascii_lowercase();
    let account = ["new orders", "new registrations", "service busy", "requests", "overloaded"];
    let name = ["certificates", "failed authorizations", "exact set"];
    let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    // What names no limit that is known may be about this name only: the others find out by themselves.
    let held = if says(&account) && !says(&name) { Held::Account } else { Held::Name };
    let paused = says(&["temporarily prevented", "paused", "unpause"]);
    Limited { held, until: until(&lower), unpause: if paused { url(text) } else { None } }
}

/// `… retry after 2026-11-23 05:00:00 UTC …`
fn until(lower: &str) -> Option<u64> {
    let (_, after) = lower.split_once("retry after ")?;
    let mut words = after.split([' ', ':', '-', 't', ',', ';']);
    let mut number = || words.next()?.parse::<u64>().ok();
    let (year, month, day) = (number()?, number()?, number()?);
    let (hour, minute) = (number()?, number()?);
    let second = words.next()?.trim_end_matches(|c: char| !c.is_ascii_digit()).parse::<u64>().ok()?;
    let sound = (2020..2200).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    (sound && hour < 24 && minute < 60 && second < 61)
        .then(|| clock::days(year, month, day).map(|days| days * 86_400 + hour * 3600 + minute * 60 + second))?
}

fn url(text: &str) -> Option<String> {
    let start = text.find("https://")?;
    let end = text[start..].find(|c: char| c.is_whitespace() || matches!(c, '"' | '<' | '>'));
    let url = &text[start..end.map_or(text.len(), |end| start + end)];
    Some(url.trim_end_matches(['.', ',', ';']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_lets_encrypt_are_understood() {
        let until = Some(1_795_410_000);
        for (text, held) in [
            (
                "too many new orders (300) from this account in the last 3h0m0s, retry after 2026-11-23 05:00:00 UTC: see https://letsencrypt.org/docs/rate-limits/#new-orders-per-account",
                Held::Account,
            ),
            (
                "too many certificates (50) already issued for \"shop.example\" in the last 168h0m0s, retry after 2026-11-23 05:00:00 UTC: see https://x",
                Held::Name,
            ),
            (
                "too many certificates (5) already issued for this exact set of identifiers in the last 168h0m0s, retry after 2026-11-23 05:00:00 UTC",
                Held::Name,
            ),
            (
                "too many failed authorizations (5) for \"shop.example\" in the last 1h0m0s, retry after 2026-11-23T05:00:00Z",
                Held::Name,
            ),
        ] {
            assert_eq!(read(text), Limited { held, until, unpause: None }, "{text}");
        }
        assert_eq!(read("Service busy; retry later.").held, Held::Account);
    }

    #[test]
    fn a_pause_has_its_link() {
        let text = "Your account is temporarily prevented from requesting certificates for shop.example and possibly \
                    others. Please visit: https://portal.letsencrypt.org/sfe/v1/unpause?jwt=abc.def";
        let read = read(text);
        assert_eq!(read.held, Held::Name);
        assert_eq!(read.unpause.as_deref(), Some("https://portal.letsencrypt.org/sfe/v1/unpause?jwt=abc.def"));
    }

    #[test]
    fn odd_texts_hold_up_one_order_only() {
        for text in [
            "",
            "no",
            "retry after",
            "retry after tomorrow",
            "retry after 2026-13-23 05:00:00 UTC",
            "retry after 9999999999999999999-1-1 0:0:0",
            "limit: retry after 2026-11-23 05:00",
        ] {
            assert_eq!(read(text), Limited { held: Held::Name, until: None, unpause: None }, "{text}");
        }
    }
}
