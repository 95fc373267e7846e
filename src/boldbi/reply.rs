//! Reads token replies. Pure: from a status, headers and bytes to a token, or to the reason why
//! there is none. No part of a body ever gets into an error.

use std::time::{Duration, SystemTime};

use http::header::{ALLOW, CONTENT_TYPE, DATE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use serde_json::error::Category;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::fetch;
use crate::invisible::without_byte_order_mark;
use crate::tenant::Grant;
use crate::token::{AccessToken, ExchangeErrorKind};

mod lifetime;
mod names;

pub(super) use lifetime::{NEGATIVE, TOO_LONG, UNREADABLE, jwt_end};
pub(super) use names::{names_another, other_email};

/// A longer body is no token reply; nothing beyond this is read.
pub const MAX_BODY: usize = 64 * 1024;

/// The moment at which a token was asked for, by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// By the monotonic clock.
    pub at: Instant,
    /// By the clock of dates.
    pub clock: SystemTime,
}

/// Reads a whole reply: [`head`], then [`token`].
///
/// # Errors
/// As [`head`] and [`token`].
pub fn read(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    asked: Asked,
    max_lifetime: Duration,
) -> Result<AccessToken, ExchangeErrorKind> {
    head(status, headers, asked.clock).map_err(|kind| refined(kind, body))?;
    token(status, headers, body, asked, max_lifetime)
}

/// Checks the head of a reply. (Bold BI: REST API v1.0 to v6.0 document 400, 404 and 405; other
/// failures are not documented.)
///
/// # Errors
/// When the status is not a success.
pub fn head(
    status: StatusCode,
    headers: &HeaderMap,
    now: SystemTime,
) -> Result<(), ExchangeErrorKind> {
    let code = status.as_u16();
    Err(match code {
        200..=299 => return Ok(()),
        300..=399 => ExchangeErrorKind::Unusable { status: code, fault: REDIRECT },
        405 | 501 if takes_no_post(code, headers) => {
            let sign = if is_html(headers) { PAGE } else { NO_POST };
            ExchangeErrorKind::EndpointMissing { status: code, sign }
        }
        408 | 429 | 500..=599 => {
            ExchangeErrorKind::Unavailable { status: code, retry_after: retry_after(headers, now) }
        }
        401 if offers_own_sign_in(headers) => {
            ExchangeErrorKind::Unusable { status: code, fault: OWN_SIGN_IN }
        }
        400..=499 => refusal(code, is_html(headers)),
        _ => ExchangeErrorKind::Unusable { status: code, fault: "it has no final status" },
    })
}

/// The same failure, or a more precise one by the beginning of its body. Firewalls and proxies
/// refuse with HTML or text, often without a `Content-Type`. Bold BI refuses with JSON or without a
/// body.
pub fn refined(kind: ExchangeErrorKind, beginning: &[u8]) -> ExchangeErrorKind {
    let ExchangeErrorKind::Refused { status, .. } = kind else { return kind };
    let text = without_byte_order_mark(beginning).trim_ascii_start();
    match text.first() {
        Some(b'<') => refusal(status, true),
        Some(first) if status == 404 && !b"{[\"".contains(first) && names_404(text) => {
            ExchangeErrorKind::EndpointMissing { status, sign: TEXT }
        }
        Some(first) if matches!(status, 400 | 403) && !b"{[\"".contains(first) => {
            ExchangeErrorKind::Unusable { status, fault: REFUSED_IN_TEXT }
        }
        _ => kind,
    }
}

/// Whether the text of a 404 says so itself, such as `404 page not found` and `default backend -
/// 404` of proxies and ingress controllers, which know no such host or path.
fn names_404(text: &[u8]) -> bool {
    let beginning = &text[..text.len().min(MAX_SAYING)];
    beginning.windows(3).any(|word| word == b"404")
}

/// Whether a 405 or a 501 means that a web server for files alone responds, which takes no POST at
/// all. Bold BI's token endpoint takes POST and nothing else, so a 405 of its own is about another
/// method, to which a proxy in between has changed it.
fn takes_no_post(status: u16, headers: &HeaderMap) -> bool {
    let allowed = headers.get_all(ALLOW).iter();
    let mut allowed = allowed.flat_map(|value| value.as_bytes().split(|b| *b == b','));
    let names_post = allowed.any(|method| method.trim_ascii().eq_ignore_ascii_case(b"POST"));
    match status {
        501 => true,
        405 => is_html(headers) || headers.contains_key(ALLOW) && !names_post,
        _ => false,
    }
}

/// The meaning of a 4xx. It is about the credential only if it can be from Bold BI.
fn refusal(status: u16, is_html: bool) -> ExchangeErrorKind {
    let fault = match status {
        404 if is_html => return ExchangeErrorKind::EndpointMissing { status, sign: PAGE },
        _ if is_html => REFUSED_IN_HTML,
        405 => "it means a method other than POST",
        // Servers check these before they look at the credential in the body.
        406 | 407 | 411..=417 | 421 | 426 | 428 | 431 | 451 => {
            "it is about the request, not about the credential"
        }
        _ => return ExchangeErrorKind::Refused { status, detail: detail(status) },
    };
    ExchangeErrorKind::Unusable { status, fault }
}

/// The token in the body of a success. The reply must have all signs of a success that Bold BI
/// knows: a token that is not empty, `LoginResult` absent or true, and no `error`.
///
/// # Errors
/// [`ExchangeErrorKind::Refused`] when the body refuses the credential,
/// [`ExchangeErrorKind::NoLifetime`] when the token's lifetime is zero, and
/// [`ExchangeErrorKind::Unusable`] when the body is no token reply.
pub fn token(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    asked: Asked,
    max_lifetime: Duration,
) -> Result<AccessToken, ExchangeErrorKind> {
    let status = status.as_u16();
    let unusable = |fault| ExchangeErrorKind::Unusable { status, fault };
    // A page of HTML is reported as a page, also when it is compressed.
    if let Some(coding) = fetch::coding(headers).filter(|_| !is_html(headers)) {
        return Err(ExchangeErrorKind::Encoded { coding });
    }
    let reply = Success::parse(headers, body).map_err(unusable)?;
    let token = reply.granted().map_err(|detail| ExchangeErrorKind::Refused { status, detail })?;
    if !reply.is_bearer() {
        return Err(unusable(NOT_BEARER));
    }
    let statements = lifetime::Statements {
        expires_in: reply.expires_in.as_ref(),
        issued: reply.issued.as_ref(),
        expires: reply.expires.as_ref(),
        token,
    };
    // The server's own clock, if it tells its time: then a jump of our clock does not matter.
    let clock = headers.get(DATE).and_then(date).unwrap_or(asked.clock);
    let lifetime = lifetime::lifetime(&statements, clock).map_err(unusable)?.min(max_lifetime);
    let token = AccessToken::new(token, asked.at, lifetime).map_err(|_| unusable(NOT_VISIBLE))?;
    if lifetime.is_zero() { Err(ExchangeErrorKind::NoLifetime(Box::new(token))) } else { Ok(token) }
}

/// The fields that count; all others are ignored. A field that occurs twice is an error, because it
/// is unknown which of the two counts (RFC 8259, section 4).
#[derive(Deserialize)]
struct Success {
    access_token: Option<Zeroizing<String>>,
    token_type: Option<Value>,
    expires_in: Option<Value>,
    #[serde(rename = ".issued")]
    issued: Option<Value>,
    #[serde(rename = ".expires")]
    expires: Option<Value>,
    #[serde(rename = "LoginResult")]
    login_result: Option<Value>,
    error: Option<Value>,
}

impl Success {
    fn parse(headers: &HeaderMap, body: &[u8]) -> Result<Self, &'static str> {
        if body.len() > MAX_BODY {
            return Err(TOO_LARGE);
        }
        let text = without_byte_order_mark(body).trim_ascii_start();
        if is_html(headers) || text.starts_with(b"<") {
            return Err(HTML);
        }
        if text.is_empty() {
            return Err("it is empty");
        }
        // Without this, serde would take an array for the fields in their order.
        if !text.starts_with(b"{") {
            return Err("it is not a JSON object");
        }
        serde_json::from_slice(text).map_err(|error| match error.classify() {
            Category::Eof => "its JSON is truncated",
            Category::Data => "a field of it has a wrong type or occurs twice",
            Category::Syntax | Category::Io => "it is not valid JSON",
        })
    }

    /// Whether the token is of type `bearer`, the only one that we can use (RFC 6749, section 7.1),
    /// or has no type.
    fn is_bearer(&self) -> bool {
        match &self.token_type {
            None | Some(Value::Null) => true,
            Some(Value::String(name)) => name.eq_ignore_ascii_case("bearer"),
            Some(_) => false,
        }
    }

    /// The token, unless the reply refuses the credential.
    fn granted(&self) -> Result<&str, &'static str> {
        if !matches!(&self.error, None | Some(Value::Null | Value::Bool(false)))
            && self.error.as_ref().and_then(Value::as_str) != Some("")
        {
            return Err(", with an `error`");
        }
        let logged_in = match &self.login_result {
            None | Some(Value::Null) => true,
            Some(Value::Bool(result)) => *result,
            Some(Value::String(result)) => result.eq_ignore_ascii_case("true"),
            Some(_) => false,
        };
        if !logged_in {
            return Err(", with a `LoginResult` that is not true");
        }
        match &self.access_token {
            Some(token) if !token.is_empty() => Ok(token),
            _ => Err(", without an `access_token`"),
        }
    }
}

/// The same failure of this grant. Bold BI documents its statuses for the users of a site, and an
/// installation has none.
pub fn of_grant(kind: ExchangeErrorKind, grant: Grant) -> ExchangeErrorKind {
    match kind {
        ExchangeErrorKind::Refused { status: status @ (400 | 404), .. }
            if grant == Grant::ClientCredentials =>
        {
            ExchangeErrorKind::Refused { status, detail: "" }
        }
        other => other,
    }
}

fn detail(status: u16) -> &'static str {
    match status {
        400 => {
            ", which Bold BI documents for an empty username only; the one in the configuration is not"
        }
        404 => ", which stands for an unknown user or an unknown site identifier",
        _ => "",
    }
}

pub(super) fn is_html(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    let has = |kind: &[u8]| {
        content_type.get(..kind.len()).is_some_and(|start| start.eq_ignore_ascii_case(kind))
    };
    has(b"text/html") || has(b"application/xhtml")
}

/// Whether a 401 asks for a sign-in at the web server or a proxy. Bold BI's token endpoint never
/// does. A header may hold several challenges (RFC 9110, section 11.6.1).
fn offers_own_sign_in(headers: &HeaderMap) -> bool {
    headers.get_all(WWW_AUTHENTICATE).iter().any(|value| {
        let mut is_quoted = false;
        let mut challenges = value.as_bytes().split(|&byte| {
            is_quoted ^= byte == b'"';
            byte == b',' && !is_quoted
        });
        challenges.any(|challenge| {
            let scheme = challenge.trim_ascii().split(u8::is_ascii_whitespace).next();
            let is =
                |known: &&str| scheme.is_some_and(|s| s.eq_ignore_ascii_case(known.as_bytes()));
            OWN_SIGN_INS.iter().any(is)
        })
    })
}

/// `Retry-After` in seconds or as a date (RFC 9110, section 10.2.3), at most an hour.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?;
    let wait = match value.to_str().ok()?.trim_ascii().parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => date(value)?.duration_since(now).unwrap_or_default(),
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

/// A date in a header (RFC 9110, section 5.6.7).
pub(super) fn date(value: &HeaderValue) -> Option<SystemTime> {
    let text = value.to_str().ok()?.trim_ascii();
    Some(OffsetDateTime::parse(text, &Rfc2822).ok()?.into())
}

/// The longest `Retry-After` that is believed.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60 * 60);
/// Bytes of a proxy's saying about a 404.
const MAX_SAYING: usize = 64;
const PAGE: &str = ", with a web page";
const NO_POST: &str = ", which takes no POST";
const TEXT: &str = ", with the text of a proxy or web server";
pub(super) const TOO_LARGE: &str = "it is larger than 64 KiB";
pub(super) const HTML: &str = "it is a web page (HTML) in place of a token";
const REFUSED_IN_HTML: &str =
    "it is a web server's page (HTML): the request was blocked before the credential was judged";
const REFUSED_IN_TEXT: &str = "it is text, but Bold BI refuses with JSON";
pub(super) const OWN_SIGN_IN: &str =
    "it asks for a sign-in (`WWW-Authenticate`) that is not Bold BI's";
const OWN_SIGN_INS: [&str; 5] = ["NTLM", "Negotiate", "Kerberos", "Basic", "Digest"];
const NOT_BEARER: &str = "its `token_type` is not `bearer`";
const REDIRECT: &str = "it is a redirect, and the gateway follows none";
const NOT_VISIBLE: &str = "its `access_token` holds spaces, line ends or other characters that no \
                           token has";

#[cfg(test)]
mod tests;
