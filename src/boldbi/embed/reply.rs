//! Bold BI's replies to embed calls. Pure. A 200 with JSON goes to the page byte for byte; no part
//! of any other reply gets anywhere.

use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::boldbi::embed_faults::{
    COMPRESSED, EMPTY, HTML, NO_JSON, NO_TOKEN, NOT_THERE, NOT_THERE_PAGE, REFUSAL,
};
use crate::boldbi::reply::{self, Asked, is_html};
use crate::fetch;
use crate::invisible::without_byte_order_mark;
use crate::secret::Secret;
use crate::token::{AccessToken, EmbedSigner, ExchangeErrorKind, NamedUser};

/// Checks the head of a reply.
///
/// # Errors
/// When the status is another than 200, or the body is encoded or a page of HTML.
pub(super) fn head(status: StatusCode, headers: &HeaderMap) -> Result<(), ExchangeErrorKind> {
    let fault = match status.as_u16() {
        200 if is_html(headers) => HTML,
        200 if fetch::coding(headers).is_some() => COMPRESSED,
        200 => return Ok(()),
        300..=399 => "it is a redirect, and the gateway follows none",
        404 | 405 | 501 if is_html(headers) => NOT_THERE_PAGE,
        405 | 501 => NOT_THERE,
        500..=599 => "Bold BI, or a proxy in front of it, failed",
        _ => "it is not the status 200",
    };
    Err(refused(status, fault))
}

/// The type of a reply's body, once the body is known to be JSON that has no secret of ours.
///
/// # Errors
/// When it is not.
pub(super) fn body(
    headers: &HeaderMap,
    body: &[u8],
    secret: &Secret,
) -> Result<HeaderValue, ExchangeErrorKind> {
    let text = without_byte_order_mark(body).trim_ascii();
    let fault = match text {
        [] => EMPTY,
        [b'<', ..] => HTML,
        _ if serde_json::from_slice::<IgnoredAny>(text).is_err() => NO_JSON,
        _ if holds(text, secret) => "it repeats the embed secret",
        _ => {
            let sent = headers.get(CONTENT_TYPE).cloned();
            return Ok(sent.unwrap_or(HeaderValue::from_static("application/json")));
        }
    };
    Err(refused(StatusCode::OK, fault))
}

/// The token in a reply of success, which lives for `max_lifetime` at most.
///
/// # Errors
/// When the reply gives none, or one of another user than `mapped`, the user of a mapping. The
/// username of a credential may be a login name, while replies have email addresses.
pub(super) fn token(
    headers: &HeaderMap,
    body: &[u8],
    mapped: Option<&str>,
    asked: Asked,
    max_lifetime: Duration,
) -> Result<AccessToken, ExchangeErrorKind> {
    let without = |fault| refused(StatusCode::OK, fault);
    let text = without_byte_order_mark(body);
    let reply: Value = serde_json::from_slice(text).map_err(|_| without(NO_TOKEN))?;
    if reply.get("Status").is_some_and(|status| status != &Value::Bool(true)) {
        return Err(without(REFUSAL));
    }
    let data = reply.get("Data").unwrap_or(&reply);
    let data = zeroize::Zeroizing::new(serde_json::to_vec(data).map_err(|_| without(NO_TOKEN))?);
    if let Some(user) = mapped.filter(|user| reply::names_another(&data, user)) {
        let named = reply::other_email(&data, user).map(NamedUser::new);
        return Err(ExchangeErrorKind::AnotherUser(named));
    }
    reply::token(StatusCode::OK, headers, &data, asked, max_lifetime).map_err(|kind| match kind {
        ExchangeErrorKind::Unusable { fault, .. } => without(fault),
        _ => without(NO_TOKEN),
    })
}

fn holds(text: &[u8], secret: &Secret) -> bool {
    let secret = secret.expose().as_bytes();
    !secret.is_empty() && text.windows(secret.len()).any(|window| window == secret)
}

pub(super) fn refused(status: StatusCode, fault: &'static str) -> ExchangeErrorKind {
    let by = EmbedSigner::default();
    ExchangeErrorKind::EmbedRefused { status: status.as_u16(), fault, by }
}
