//! Answers that the edge gives itself.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION};
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;

use super::ctx::Ctx;
use super::edits;
use super::fault::Culprit;
use super::plugins::{self, Decision};
use crate::observe::METRICS;
use crate::wasm::Header;

/// Why the edge answered: label of the counter, field of the log.
pub(super) const CHALLENGE: &str = "challenge";
pub(super) const TO_HTTPS: &str = "to_https";
pub(super) const BAD_HOST: &str = "bad_host";
pub(super) const BAD_TARGET: &str = "bad_target";
pub(super) const BODY_PAUSED: &str = "body_paused";
pub(super) const BAD_REQUEST: &str = "bad_request";
pub(super) const MISDIRECTED: &str = "misdirected";
pub(super) const NO_SITE: &str = "no_site";
pub(super) const PLUGIN: &str = "plugin";
pub(super) const PLUGIN_FAULT: &str = "plugin_fault";

pub(super) async fn text(
    session: &mut Session,
    ctx: &mut Ctx,
    why: &'static str,
    status: u16,
    body: String,
) -> Result<()> {
    let mut response = ResponseHeader::build(status, Some(4))?;
    response.insert_header(CONTENT_TYPE, "text/plain; charset=utf-8")?;
    send(session, ctx, why, response, body.into()).await
}

pub(super) async fn redirect(
    session: &mut Session,
    ctx: &mut Ctx,
    why: &'static str,
    status: u16,
    location: &str,
) -> Result<()> {
    let mut response = ResponseHeader::build(status, Some(4))?;
    response.insert_header(LOCATION, location)?;
    send(session, ctx, why, response, Bytes::new()).await
}

/// True if the plugins' decision was an answer, which has been sent.
pub(super) async fn decided(session: &mut Session, ctx: &mut Ctx, decision: Decision) -> Result<bool> {
    match decision {
        Decision::GoOn => return Ok(false),
        Decision::Redirect { status, location, edits } => {
            let mut response = ResponseHeader::build(status, Some(4))?;
            response.insert_header(LOCATION, location)?;
            edits::apply(&edits, &mut response);
            send(session, ctx, PLUGIN, response, Bytes::new()).await?;
        }
        Decision::Respond { status, headers, body } => {
            let mut response = ResponseHeader::build(status, Some(headers.len() + 2))?;
            for Header { name, value } in headers {
                response.append_header(name, value)?;
            }
            send(session, ctx, PLUGIN, response, body.into()).await?;
        }
        Decision::Deny(status) => {
            text(session, ctx, PLUGIN, status, "This request is not allowed here.\n".into()).await?
        }
        Decision::Failed => {
            let page = super::fault::page(ctx, Culprit::Plugin, "Something at the edge failed; it is ours to mend.");
            text(session, ctx, PLUGIN_FAULT, 503, page).await?;
        }
    }
    Ok(true)
}

/// A site's plugins see these responses too: a redirect carries HSTS as any other answer does.
async fn send(
    session: &mut Session,
    ctx: &mut Ctx,
    why: &'static str,
    mut response: ResponseHeader,
    body: Bytes,
) -> Result<()> {
    ctx.local = Some(why);
    METRICS.local_answers.with_label_values(&[why]).inc();
    if why != PLUGIN_FAULT && !plugins::on_response(ctx, session.req_header(), &mut response) {
        // Sent without what the plugin would have added, under a status that says so.
        response.set_status(503)?;
    }
    response.set_content_length(body.len())?;
    let without_body = body.is_empty() || session.req_header().method == http::Method::HEAD;
    session.write_response_header(Box::new(response), without_body).await?;
    if !without_body {
        session.write_response_body(Some(body), true).await?;
    }
    Ok(())
}
