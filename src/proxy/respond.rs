//! The response to the client: the server's as it comes, or a refusal. Nothing else writes to
//! clients.

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue,
    RETRY_AFTER, VARY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, StatusCode};

use super::Record;
use super::body::{TransferError, Upload, UploadLimits, duplex};
use super::session::{self, ClientGone, Session};
use crate::gateway::Preflight;
use crate::headers::{self, REQUEST_ID, ResponseTo};
use crate::http1::ClientSession;
use crate::refusal::Refusal;
use crate::tenant::Server;
use crate::token::AccessToken;

/// The fields that the gateway itself adds to the head of a response.
pub(super) struct Additions<'t> {
    /// The server of the response, which redirects to itself by its own URL.
    pub(super) server: &'t Server,
    /// The basis of the response.
    pub(super) to: ResponseTo,
    /// The token that was put on the request.
    pub(super) token: Option<&'t AccessToken>,
    /// The origin whose pages may read the response.
    pub(super) page: Option<&'t HeaderValue>,
    /// Whether it is to a request of masked mode.
    pub(super) masked: bool,
    pub(super) request_id: HeaderValue,
}

/// Relays the response whose head has been read. Returns `Upload::Done` if the server has also got
/// the whole request, so that its connection can be used again.
pub(super) async fn relay(
    down: &mut Session,
    up: &mut ClientSession,
    upload: Upload,
    limits: &UploadLimits,
    Additions { server, to, token, page, masked, request_id }: Additions<'_>,
) -> Result<Upload, TransferError> {
    let status = up.status().unwrap_or(StatusCode::BAD_GATEWAY);
    let mut headers = HeaderMap::with_capacity(up.headers().len() + MAX_ADDED);
    for (name, value) in headers::to_client(up.headers(), to, page) {
        headers.append(name, value.clone());
    }
    headers::localize(&mut headers, server);
    if let Some(length) = up.content_length() {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    if let Some(token) = token {
        hide_token(token, status, &mut headers, down);
    }
    headers::allow_page(&mut headers, page);
    if masked {
        // The request has no `Authorization` that would keep a cache from giving it to others.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    }
    headers.insert(REQUEST_ID.clone(), request_id);
    down.write_head(status, headers).await?;
    // A first piece that is there already goes out in one write with the head.
    match up.read_body().now_or_never() {
        Some(Err(error)) => return Err(TransferError::Server(error)),
        Some(Ok(Some(first))) => down.write_body(&first).await?,
        _ => down.flush().await?,
    }
    let upload = match upload {
        Upload::Done => Upload::Done,
        Upload::Unfinished => Box::pin(duplex(down, up, limits)).await?,
    };
    loop {
        let piece = tokio::select! {
            biased;
            piece = up.read_body() => piece.map_err(TransferError::Server)?,
            gone = down.client_gone(), if upload == Upload::Done => return Err(gone.into()),
        };
        match piece {
            Some(piece) => down.write_body(&piece).await?,
            None => break,
        }
    }
    down.finish_body().await?;
    Ok(upload)
}

/// Hides our token where the server repeats it: in the head of its response and, because error
/// pages for developers show the request, in the beginning of the body of an error.
fn hide_token(
    token: &AccessToken,
    status: StatusCode,
    headers: &mut HeaderMap,
    down: &mut Session,
) {
    let secret = token.as_bytes();
    for value in headers.values_mut().filter(|value| value.len() >= secret.len()) {
        let mut bytes = value.as_bytes().to_vec();
        if session::hide(secret, &mut bytes)
            && let Ok(redacted) = HeaderValue::from_bytes(&bytes)
        {
            *value = redacted;
        }
    }
    if status.is_client_error() || status.is_server_error() {
        down.hide(Bytes::copy_from_slice(secret));
    }
}

/// Writes the response to a refused request.
pub(super) async fn refuse(
    down: &mut Session,
    refusal: &Refusal,
    record: &Record,
) -> Result<StatusCode, ClientGone> {
    let response = refusal.response();
    let body = response.problem(record.request_id());
    let mut head = HeaderMap::new();
    head.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    head.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    head.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers::allow_page(&mut head, record.page());
    head.insert(REQUEST_ID.clone(), record.request_id_value());
    if let Some(wait) = response.retry_after {
        head.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
    }
    if response.status == StatusCode::METHOD_NOT_ALLOWED {
        // Only endpoints of the gateway itself refuse methods that are forwarded elsewhere.
        let is_own = matches!(refusal, Refusal::Forbidden { .. }) || record.names_endpoint();
        head.insert(ALLOW, if is_own { HeaderValue::from_static("POST") } else { methods() });
    }
    for challenge in response.challenges {
        head.append(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    // The session writes no body in response to HEAD.
    down.write_head(response.status, head).await?;
    down.write_body(body.as_bytes()).await?;
    down.finish_body().await?;
    Ok(response.status)
}

/// The head that allows a preflight. The request itself is decided when it comes.
pub(super) fn preflight_response(preflight: &Preflight<'_>, request_id: HeaderValue) -> HeaderMap {
    let mut head = HeaderMap::new();
    head.insert(ACCESS_CONTROL_ALLOW_ORIGIN, preflight.origin.clone());
    let methods = if preflight.is_own { HeaderValue::from_static("POST") } else { methods() };
    head.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
    if let Some(headers) = &preflight.headers {
        head.insert(ACCESS_CONTROL_ALLOW_HEADERS, headers.clone());
    }
    head.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(PREFLIGHT_MAX_AGE.as_secs()));
    head.insert(VARY, HeaderValue::from_static("Origin"));
    head.insert(REQUEST_ID.clone(), request_id);
    head
}

/// The methods that are forwarded, as a list.
fn methods() -> HeaderValue {
    let methods = crate::request::METHODS.map(|m| m.to_string()).join(", ");
    HeaderValue::from_str(&methods).expect("methods are tokens")
}

/// Rounded up, because an earlier request would be refused again (RFC 9110, section 10.2.3).
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

/// How long a browser may cache the response to a preflight. A page that is no longer listed is
/// refused all the same.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_secs(600);
/// Most headers that are added to a response.
const MAX_ADDED: usize = 7;
