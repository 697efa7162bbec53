//! From the CA's words to ours: whose fault it is, and what comes next.

use contract::api::{State, Who};
use instant_acme::{Error, Problem};

use super::limited::{self, Held};
use super::{Failure, Then};

/// A CA that asks for a longer pause is asked again after this one.
const PAUSE_SECONDS_MAX: u64 = 7 * 86_400;

pub(super) fn dead_order() -> Error {
    Error::Str("the order is no longer open")
}

pub(super) fn gone() -> Failure {
    let says = "the CA gave the order up without a reason (it may have expired)";
    Failure::new("order_lost", says, State::Working, Who::Nobody, Then::NewOrder)
}

pub(super) fn failure(error: &Error, pause: u64) -> Failure {
    match error {
        Error::Api(problem) => refusal(problem, pause),
        Error::Str("the order is no longer open") => gone(),
        Error::Unsupported(what) => {
            let says = format!("the CA does not offer {what}");
            Failure::new("ca_unsupported", says, State::Working, Who::Operator, Then::NewOrder)
        }
        error => Failure::unreachable(format!("talking to the CA failed: {}", with_causes(error)), pause),
    }
}

pub(super) fn account_failure(error: &Error, pause: u64) -> Failure {
    match error {
        Error::Api(problem) if problem.status.is_none_or(|status| status < 500 && status != 429) => {
            let says = format!("the CA refused the account: {}", words(problem));
            account_refused(says, Then::Retry { after: pause })
        }
        error => failure(error, pause),
    }
}

/// Nobody but an operator, or who asked for it, can choose another.
pub(super) fn unknown_profile(says: String) -> Failure {
    Failure::new("unknown_profile", says, State::ActionNeeded, Who::Operator, Then::Retry { after: 0 })
}

/// It holds up every order.
pub(super) fn account_refused(says: String, then: Then) -> Failure {
    Failure { closes: true, ..Failure::new("account_refused", says, State::Working, Who::Operator, then) }
}

/// RFC 8555 section 6.7: which problem is whose.
pub(super) fn refusal(problem: &Problem, pause: u64) -> Failure {
    let says = words(problem);
    let kind = problem.r#type.as_deref().unwrap_or_default();
    let retry = Then::Retry { after: pause };
    match kind.strip_prefix("urn:ietf:params:acme:error:").unwrap_or_default() {
        "alreadyReplaced" => Failure::new("already_replaced", says, State::Working, Who::Nobody, Then::NotReplacing),
        "rateLimited" => rate_limited(says, pause),
        "invalidProfile" => unknown_profile(says),
        "rejectedIdentifier" | "unsupportedIdentifier" => {
            Failure::new("name_refused", says, State::Blocked, Who::Operator, Then::Stop)
        }
        "accountDoesNotExist" | "externalAccountRequired" | "userActionRequired" => account_refused(says, retry),
        "caa" | "connection" | "dns" | "incorrectResponse" | "tls" => validation_failure(problem),
        "unauthorized" => Failure { then: Then::NewOrder, ..validation_failure(problem) },
        "malformed" | "orderNotReady" | "badCSR" => {
            Failure::new("order_refused", says, State::Working, Who::Operator, Then::NewOrder)
        }
        _ if problem.status == Some(404) => gone(),
        _ => Failure::unreachable(says, pause),
    }
}

/// A limit that our own model did not foresee, or a pause.
fn rate_limited(says: String, pause: u64) -> Failure {
    let limited = limited::read(&says);
    let told = limited.until.map_or(0, |until| until.saturating_sub(crate::clock::now()));
    let then = Then::Retry { after: pause.max(told).min(PAUSE_SECONDS_MAX) };
    if limited.unpause.is_some() {
        return Failure::new("paused_by_ca", says, State::ActionNeeded, Who::Operator, then);
    }
    let failure = Failure::new("rate_limited", says, State::Working, Who::Nobody, then);
    Failure { closes: limited.held == Held::Account, ..failure }
}

/// The CA looked at the domain and did not find our answer.
pub(super) fn validation_failure(problem: &Problem) -> Failure {
    let caa = problem.r#type.as_deref().is_some_and(|kind| kind.ends_with(":caa"));
    let code = if caa { "caa_forbids" } else { "challenge_failed" };
    Failure::new(code, words(problem), State::ActionNeeded, Who::Customer, Then::NewOrder)
}

fn words(problem: &Problem) -> String {
    let detail = problem.detail.clone().unwrap_or_else(|| "the CA gave no reason".to_owned());
    let parts = problem.subproblems.iter().filter_map(|part| part.detail.clone());
    std::iter::once(detail).chain(parts).collect::<Vec<_>>().join("; ")
}

fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(kind: &str, status: u16) -> Problem {
        let json = serde_json::json!({"type": format!("urn:ietf:params:acme:error:{kind}"), "detail": "because", "status": status});
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn each_refusal_has_a_culprit_and_a_next_step() {
        for (kind, status, code, who, then) in [
            ("rateLimited", 429, "rate_limited", Who::Nobody, Then::Retry { after: 7 }),
            ("rejectedIdentifier", 400, "name_refused", Who::Operator, Then::Stop),
            ("connection", 400, "challenge_failed", Who::Customer, Then::NewOrder),
            ("caa", 403, "caa_forbids", Who::Customer, Then::NewOrder),
            ("unauthorized", 403, "challenge_failed", Who::Customer, Then::NewOrder),
            ("orderNotReady", 403, "order_refused", Who::Operator, Then::NewOrder),
            ("serverInternal", 500, "ca_unavailable", Who::CertificateAuthority, Then::Retry { after: 7 }),
            ("somethingNew", 400, "ca_unavailable", Who::CertificateAuthority, Then::Retry { after: 7 }),
        ] {
            let failure = refusal(&problem(kind, status), 7);
            assert_eq!((&*failure.code, failure.who, failure.then), (code, who, then), "{kind}");
            assert_eq!(failure.says, "because");
        }
    }

    #[test]
    fn a_limit_of_the_account_closes_the_issuer_and_a_pause_has_its_link() {
        let told = |detail: &str| {
            let json =
                serde_json::json!({"type": "urn:ietf:params:acme:error:rateLimited", "detail": detail, "status": 429});
            refusal(&serde_json::from_value(json).unwrap(), 60)
        };
        let account =
            told("too many new orders (300) from this account in the last 3h0m0s, retry after 2026-11-23 05:00:00 UTC");
        assert!(account.closes && account.code == "rate_limited");
        assert!(!told("too many certificates (5) already issued for this exact set of identifiers").closes);
        let paused = told(
            "Your account is temporarily prevented from requesting certificates for a.example. Please visit: https://ca.example/unpause?jwt=x",
        );
        assert_eq!((&*paused.code, paused.who, paused.closes), ("paused_by_ca", Who::Operator, false));
        assert!(paused.says.contains("https://ca.example/unpause?jwt=x"));
    }
}
