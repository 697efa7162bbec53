//! From an error to a status and a page: the only such place. Each fault has a culprit.

use pingora::{Error, ErrorSource, ErrorType};

use super::ctx::Ctx;
use super::local;
use crate::upstream::{NO_HEALTHY_PEER, PAUSED, SATURATED};

/// A plugin that fails closed failed at the answer of an upstream.
pub(super) const PLUGIN_FAILED: ErrorType = ErrorType::Custom("PluginFailed");

/// A plugin refused a body, with a status of its choice.
pub(super) const BODY_REFUSED: &str = "BodyRefused";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Culprit {
    Visitor,
    Upstream,
    Plugin,
    Edge,
}

impl Culprit {
    pub fn name(self) -> &'static str {
        match self {
            Self::Visitor => "visitor",
            Self::Upstream => "upstream",
            Self::Plugin => "plugin",
            Self::Edge => "edge",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    /// 0 if nobody is there to be answered.
    pub status: u16,
    pub culprit: Culprit,
    pub says: &'static str,
    /// Label of the counter of our answers.
    pub reason: &'static str,
}

pub(super) fn verdict(error: &Error) -> Verdict {
    use ErrorType::{
        ConnectNoRoute, ConnectProxyFailure, ConnectRefused, ConnectTimedout, ConnectionClosed, HTTPStatus,
        InvalidCert, ReadError, ReadTimedout, TLSHandshakeFailure, TLSHandshakeTimedout, WriteError, WriteTimedout,
    };
    let of = |status, culprit, says| {
        let reason = if culprit == Culprit::Upstream { "upstream_fault" } else { "fault" };
        Verdict { status, culprit, says, reason }
    };
    match (error.esource(), error.etype()) {
        (ErrorSource::Downstream, HTTPStatus(status)) => {
            of(*status, Culprit::Visitor, "The request is more than the edge accepts.")
        }
        (_, HTTPStatus(status)) => of(*status, Culprit::Edge, "The edge could not serve this request."),
        (_, kind) if *kind == PLUGIN_FAILED => {
            let says = "Something at the edge failed; it is ours to mend.";
            Verdict { reason: local::PLUGIN_FAULT, ..of(503, Culprit::Plugin, says) }
        }
        (source, ErrorType::CustomCode(name, status)) if *name == BODY_REFUSED => match source {
            ErrorSource::Downstream => {
                Verdict { reason: local::PLUGIN, ..of(*status, Culprit::Visitor, "This request is not allowed here.") }
            }
            _ => {
                Verdict { reason: local::PLUGIN, ..of(*status, Culprit::Upstream, "This answer is not allowed here.") }
            }
        },
        (_, kind) if *kind == PAUSED => {
            let says = "The visitor did not send its body in time.";
            Verdict { reason: local::BODY_PAUSED, ..of(408, Culprit::Visitor, says) }
        }
        (_, kind) if *kind == NO_HEALTHY_PEER => {
            of(503, Culprit::Upstream, "None of the site's servers is well right now.")
        }
        (_, kind) if *kind == SATURATED => {
            let says = "The site's server has as many requests as it can take; try again in a moment.";
            Verdict { reason: "saturated", ..of(503, Culprit::Upstream, says) }
        }
        (ErrorSource::Downstream, ReadError | WriteError | ConnectionClosed | ReadTimedout | WriteTimedout) => {
            of(0, Culprit::Visitor, "The visitor is gone.")
        }
        (ErrorSource::Downstream, _) => of(400, Culprit::Visitor, "The request is not valid HTTP."),
        (_, ConnectTimedout | ReadTimedout | WriteTimedout | TLSHandshakeTimedout) => {
            of(504, Culprit::Upstream, "The site's server did not answer in time.")
        }
        (_, ConnectRefused | ConnectNoRoute | ConnectProxyFailure) => {
            of(502, Culprit::Upstream, "The site's server does not accept connections.")
        }
        (_, InvalidCert | TLSHandshakeFailure) => {
            of(502, Culprit::Upstream, "The site's server has no valid certificate.")
        }
        (ErrorSource::Upstream, _) => of(502, Culprit::Upstream, "The site's server broke off or answered nonsense."),
        (ErrorSource::Internal | ErrorSource::Unset, _) => {
            of(500, Culprit::Edge, "Something at the edge failed; it is ours to mend.")
        }
    }
}

/// For the visitor: whose fault it is, and an ID that finds the log line.
pub(super) fn page(ctx: &mut Ctx, culprit: Culprit, says: &str) -> String {
    ctx.culprit = Some(culprit);
    format!("{says}\nFault {:016x}\n", ctx.id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_has_a_status_and_a_culprit() {
        for (kind, source, status, culprit) in [
            (ErrorType::ConnectRefused, ErrorSource::Upstream, 502, Culprit::Upstream),
            (ErrorType::ConnectTimedout, ErrorSource::Upstream, 504, Culprit::Upstream),
            (ErrorType::ReadTimedout, ErrorSource::Upstream, 504, Culprit::Upstream),
            (NO_HEALTHY_PEER, ErrorSource::Upstream, 503, Culprit::Upstream),
            (SATURATED, ErrorSource::Upstream, 503, Culprit::Upstream),
            (PAUSED, ErrorSource::Downstream, 408, Culprit::Visitor),
            (PLUGIN_FAILED, ErrorSource::Unset, 503, Culprit::Plugin),
            (PLUGIN_FAILED, ErrorSource::Upstream, 503, Culprit::Plugin),
            (ErrorType::InvalidCert, ErrorSource::Upstream, 502, Culprit::Upstream),
            (ErrorType::InvalidHTTPHeader, ErrorSource::Upstream, 502, Culprit::Upstream),
            (ErrorType::InvalidHTTPHeader, ErrorSource::Downstream, 400, Culprit::Visitor),
            (ErrorType::ConnectionClosed, ErrorSource::Downstream, 0, Culprit::Visitor),
            (ErrorType::InternalError, ErrorSource::Internal, 500, Culprit::Edge),
            (ErrorType::HTTPStatus(413), ErrorSource::Downstream, 413, Culprit::Visitor),
            (ErrorType::CustomCode(BODY_REFUSED, 418), ErrorSource::Downstream, 418, Culprit::Visitor),
            (ErrorType::CustomCode(BODY_REFUSED, 418), ErrorSource::Internal, 418, Culprit::Upstream),
        ] {
            let mut error = Error::new(kind.clone());
            error.esource = source;
            let verdict = verdict(&error);
            assert_eq!((verdict.status, verdict.culprit), (status, culprit), "{kind:?}");
        }
    }

    #[test]
    fn a_fault_keeps_its_id() {
        let mut ctx = Ctx::new(false);
        let id = ctx.id();
        assert!(page(&mut ctx, Culprit::Edge, "x").contains(&format!("{id:016x}")));
        assert_ne!(id, Ctx::new(false).id());
    }
}
