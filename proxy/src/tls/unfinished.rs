//! Handshakes that came to nothing, and why.

use std::time::Duration;

use contract::Hostname;
use openssl::error::ErrorStack;

use super::choice::Refusal;

/// A handshake that came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Unfinished {
    #[error("{0}")]
    Refused(String, &'static str),
    #[error("what came is not TLS")]
    NotTls,
    #[error("the client and this server could not agree, or the client broke off: {0}")]
    Protocol(String),
    #[error("the client turned the certificate down: {0}")]
    CertificateRefused(String),
    #[error("not finished within {0:?}")]
    TimedOut(Duration),
    #[error("{0}: a TLS-ALPN-01 challenge was answered; there is no request on such a connection")]
    ChallengeAnswered(Hostname),
    #[error("OpenSSL: {0}")]
    Internal(#[from] ErrorStack),
}

impl Unfinished {
    /// Label of the counter.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Refused(_, reason) => reason,
            Self::NotTls => "not_tls",
            Self::Protocol(_) => "protocol",
            Self::CertificateRefused(_) => "certificate_refused",
            Self::TimedOut(_) => "timed_out",
            Self::ChallengeAnswered(_) => "challenge_answered",
            Self::Internal(_) => "internal",
        }
    }
}

impl From<&Refusal> for Unfinished {
    fn from(refusal: &Refusal) -> Self {
        Self::Refused(refusal.to_string(), refusal.reason())
    }
}

/// What OpenSSL adds to the number of an alert that the other side sent (`SSL_AD_REASON_OFFSET`).
const ALERT: i32 = 1000;
/// RFC 8446 section 6.2: bad, unsupported, revoked, expired, unknown certificate, and unknown CA.
const OF_CERTIFICATE: [i32; 6] = [42, 43, 44, 45, 46, 48];

pub(super) fn unfinished(error: &openssl::ssl::Error) -> Unfinished {
    let reasons = error.ssl_error().map(|stack| stack.errors()).unwrap_or_default();
    let reason = reasons.first().and_then(|e| e.reason()).unwrap_or("the connection ended");
    if reasons.first().is_some_and(|error| OF_CERTIFICATE.contains(&(error.reason_code() - ALERT))) {
        return Unfinished::CertificateRefused(reason.to_owned());
    }
    match reason {
        "wrong version number"
        | "http request"
        | "https proxy request"
        | "packet length too long"
        | "record layer failure" => Unfinished::NotTls,
        _ => Unfinished::Protocol(reason.to_owned()),
    }
}
