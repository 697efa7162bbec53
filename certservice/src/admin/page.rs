//! `/p/{name}/{key}`: where a domain stands, for the customer's customer. Who has the link sees it, and nothing else.

use std::fmt::{self, Write};
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use contract::Hostname;
use contract::api::{Domain, DomainStep, State as DomainState, Who};
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use http::{HeaderName, StatusCode};
use ring::hmac;

use super::problem::ApiError;
use super::{Api, visits};
use crate::clock;

/// So much of the HMAC is in the link.
const KEY_BYTES: usize = 16;
/// A page that is left open looks again.
const REFRESH_SECONDS: u32 = 15;
const HEADERS: [(HeaderName, &str); 5] = [
    (CONTENT_TYPE, "text/html; charset=utf-8"),
    (CACHE_CONTROL, "no-store"),
    (REFERRER_POLICY, "no-referrer"),
    (CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"),
    (HeaderName::from_static("x-robots-tag"), "noindex"),
];

/// Makes links, and knows them again. Instances with the same signing key make the same.
pub struct Links(hmac::Key);

impl Links {
    /// `secret`: what nobody else has.
    pub fn new(secret: &[u8]) -> Self {
        let of_secret = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), b"latchkey domain page");
        Self(hmac::Key::new(hmac::HMAC_SHA256, of_secret.as_ref()))
    }

    fn key(&self, name: &Hostname) -> [u8; KEY_BYTES] {
        let tag = hmac::sign(&self.0, name.as_str().as_bytes());
        std::array::from_fn(|at| tag.as_ref()[at])
    }

    pub fn path(&self, name: &Hostname) -> String {
        format!("/p/{name}/{}", URL_SAFE_NO_PAD.encode(self.key(name)))
    }

    fn fits(&self, name: &Hostname, key: &str) -> bool {
        let Ok(key) = URL_SAFE_NO_PAD.decode(key) else { return false };
        let wanted = self.key(name);
        let difference = wanted.iter().zip(&key).fold(0, |sum, (a, b)| sum | (a ^ b));
        key.len() == wanted.len() && std::hint::black_box(difference) == 0
    }

    pub(super) fn with(&self, domain: Domain) -> Domain {
        Domain { page: Some(self.path(&domain.name)), ..domain }
    }
}

pub(super) async fn get(
    State(api): State<Arc<Api>>,
    Path((name, key)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let unknown = || ApiError::new(StatusCode::NOT_FOUND, "unknown_path", "Unknown path", "there is no such page");
    // Without the key nobody learns which domains there are.
    let name = Hostname::parse_domain(&name).ok().filter(|name| api.links.fits(name, &key)).ok_or_else(unknown)?;
    let domain = visits::shown(&api, api.store.domain(&name).await?.ok_or_else(unknown)?).await?;
    Ok((HEADERS, html(&domain, clock::now())).into_response())
}

/// Text of others in HTML.
struct Text<'a>(&'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

fn html(domain: &Domain, now: u64) -> String {
    let name = Text(domain.name.as_str());
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <meta http-equiv=\"refresh\" content=\"{REFRESH_SECONDS}\"><title>{name}</title><style>body{{font:16px/1.5 sans-serif;\
         max-width:40em;margin:2em auto;padding:0 1em}}li{{margin:.6em 0}}.no{{color:#a00}}.yes{{color:#070}}</style>\
         <h1>{name}</h1><p><strong>{}</strong> {}</p><ol>",
        headline(domain.state),
        Text(&domain.says)
    );
    for step in &domain.steps {
        write_step(&mut page, step);
    }
    page.push_str("</ol>");
    if let Some(at) = domain.next_check_at.filter(|_| domain.state != DomainState::Live) {
        let _ = write!(page, "<p>We look again in {} seconds.</p>", at.saturating_sub(now));
    }
    page.push_str("</html>\n");
    page
}

fn headline(state: DomainState) -> &'static str {
    match state {
        DomainState::Working => "We are at work; nobody needs to do anything.",
        DomainState::ActionNeeded => "Something has to be changed.",
        DomainState::Live => "The domain is served with a certificate.",
        DomainState::Blocked => "The domain was refused.",
    }
}

fn write_step(page: &mut String, step: &DomainStep) {
    let (class, mark) = match step.ok {
        Some(true) => ("yes", "✓"),
        Some(false) => ("no", "✗"),
        None => ("", "…"),
    };
    let (id, says) = (Text(&step.id), Text(&step.says));
    let _ = write!(page, "<li class=\"{class}\">{mark} <strong>{id}</strong>: {says}");
    if let Some(fix) = &step.fix {
        let who = match step.who {
            Who::Customer => "You can mend it: ",
            Who::Saas => "Your provider can mend it: ",
            Who::Operator => "The operator can mend it: ",
            Who::CertificateAuthority => "The certificate authority has to act: ",
            Who::Nobody => "",
        };
        let _ = write!(page, "<br>{who}{}", Text(fix));
    }
    page.push_str("</li>");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Hostname {
        Hostname::parse(text).unwrap()
    }

    #[test]
    fn a_link_is_of_one_name_and_of_one_secret() {
        let (links, others) = (Links::new(b"one"), Links::new(b"two"));
        let path = links.path(&name("shop.example"));
        let key = path.rsplit('/').next().unwrap();
        assert_eq!((key.len(), path.starts_with("/p/shop.example/")), (22, true));
        assert!(links.fits(&name("shop.example"), key) && Links::new(b"one").fits(&name("shop.example"), key));
        assert!(!links.fits(&name("other.example"), key) && !others.fits(&name("shop.example"), key));
        for wrong in ["", "A", &key[..21], &format!("{key}A"), "!", &"A".repeat(22)] {
            assert!(!links.fits(&name("shop.example"), wrong), "{wrong}");
        }
    }

    #[test]
    fn what_others_have_written_is_text_in_the_page() {
        let evil = "<script>alert(\"1\")</script> & 'x'";
        assert_eq!(Text(evil).to_string(), "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt; &amp; &#39;x&#39;");
        let step = DomainStep {
            id: "order".into(),
            ok: Some(false),
            code: "challenge_failed".into(),
            says: evil.into(),
            fix: Some(evil.into()),
            who: Who::Customer,
        };
        let mut page = String::new();
        write_step(&mut page, &step);
        assert!(!page.contains("<script") && page.contains("You can mend it"), "{page}");
    }
}
