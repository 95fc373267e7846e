//! What the client gets: the server's response as it comes, or a refusal. Nothing else writes to
//! clients.

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER,
};
use http::{HeaderMap, StatusCode};
use pingora::protocols::http::v1::client;

use super::body::{Broken, Upload, UploadLimits, duplex};
use super::session::{self, ClientGone, Session};
use crate::headers;
use crate::refusal::Refusal;
use crate::token::AccessToken;

/// Passes the response on whose head has been read. `Upload::Done` when afterwards the server has all
/// of the request too, so that its connection can be used again.
pub(super) async fn relay(
    down: &mut Session,
    up: &mut client::HttpSession,
    upload: Upload,
    limits: &UploadLimits,
    token: Option<&AccessToken>,
    request_id: HeaderValue,
) -> Result<Upload, Broken> {
    let theirs = up.resp_header().expect("the head has been read");
    let (status, mut headers) = (theirs.status, HeaderMap::with_capacity(theirs.headers.len() + 3));
    for (name, value) in headers::to_client(&theirs.headers, token.is_some()) {
        headers.append(name, value.clone());
    }
    if let Some(length) = headers::content_length(&theirs.headers) {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    if let Some(token) = token {
        hide(token, status, &mut headers, down);
    }
    headers.insert(REQUEST_ID.clone(), request_id);
    down.write_head(status, headers).await?;
    // A first piece that is there already leaves in one write with the head.
    match up.read_body_ref().now_or_never() {
        Some(Err(error)) => return Err(Broken::Server(error)),
        Some(Ok(Some(first))) if !first.is_empty() => down.write_body(first).await?,
        _ => down.flush().await?,
    }
    let upload = match upload {
        Upload::Done => Upload::Done,
        Upload::Unfinished => Box::pin(duplex(down, up, limits)).await?,
    };
    loop {
        let piece = tokio::select! {
            biased;
            piece = up.read_body_ref() => piece.map_err(Broken::Server)?,
            gone = down.client_gone(), if upload == Upload::Done => return Err(gone.into()),
        };
        match piece {
            Some(piece) => down.write_body(piece).await?,
            None => break,
        }
    }
    down.finish_body().await?;
    Ok(upload)
}

/// Hides our token where the server shows it to the client: in the head of its response and, as error
/// pages for developers repeat the request, in the beginning of the body of an error.
fn hide(token: &AccessToken, status: StatusCode, headers: &mut HeaderMap, down: &mut Session) {
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

/// Answers with a refusal.
pub(super) async fn refuse(
    down: &mut Session,
    refusal: &Refusal,
    request_id: &str,
) -> Result<StatusCode, ClientGone> {
    let answer = refusal.answer();
    let body = answer.problem(request_id);
    let mut head = HeaderMap::new();
    head.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    head.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    head.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(id) = HeaderValue::from_str(request_id) {
        head.insert(REQUEST_ID.clone(), id);
    }
    if let Some(wait) = answer.retry_after {
        head.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
    }
    match answer.status {
        StatusCode::METHOD_NOT_ALLOWED => {
            let methods = crate::request::METHODS.map(|m| m.to_string()).join(", ");
            head.insert(ALLOW, HeaderValue::from_str(&methods).expect("methods are tokens"));
        }
        StatusCode::UNAUTHORIZED => {
            // RFC 9110, section 15.5.2: a 401 names a scheme. Ours is a header of its own.
            let scheme = HeaderValue::from_static("ApiKey realm=\"boldgate\"");
            head.insert(http::header::WWW_AUTHENTICATE, scheme);
        }
        _ => {}
    }
    // Nothing is written in answer to HEAD: the session knows.
    down.write_head(answer.status, head).await?;
    down.write_body(body.as_bytes()).await?;
    down.finish_body().await?;
    Ok(answer.status)
}

/// Rounded up: who comes earlier is sent away again (RFC 9110, section 10.2.3).
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

/// Says which line of the logs belongs to an answer.
pub(super) static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
