//! What the client gets: the server's answer as it comes, or a refusal. Nothing else writes to
//! clients.

use std::time::Duration;

use futures_util::FutureExt;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER,
    TRANSFER_ENCODING, WWW_AUTHENTICATE,
};
use http::{Method, StatusCode, Version};
use pingora::Error;
use pingora::http::ResponseHeader;
use pingora::protocols::http::v1::{client, server};
use tokio::time::timeout;

use super::body::{Broken, Upload, UploadLimits, await_client_gone, duplex};
use super::connection::Connection;
use crate::headers;
use crate::refusal::Refusal;

/// Passes the answer on whose head has been read. `Upload::Done` when afterwards the server has all
/// of the request too, so that its connection can be used again.
pub(super) async fn relay(
    down: &mut server::HttpSession,
    up: &mut client::HttpSession,
    upload: Upload,
    limits: &UploadLimits,
    injected: bool,
    request_id: HeaderValue,
) -> Result<Upload, Broken> {
    let head = answer_head(down, up, injected, request_id);
    // A first piece that is there already leaves in one write with the head.
    let first = match up.read_body_ref().now_or_never() {
        Some(piece) => piece.map_err(Broken::Server)?.filter(|piece| !piece.is_empty()),
        None => None,
    };
    let state = Connection::write_state(down.stream());
    state.set_corked(first.is_some());
    let written = in_time(limits.client, down.write_response_header(head)).await;
    Connection::write_state(down.stream()).set_corked(false);
    written?;
    if let Some(first) = first {
        write(down, first).await?;
    }
    let upload = match upload {
        Upload::Done => Upload::Done,
        Upload::Unfinished => Box::pin(duplex(down, up, limits)).await?,
    };
    loop {
        let piece = tokio::select! {
            biased;
            piece = up.read_body_ref() => piece.map_err(Broken::Server)?,
            gone = await_client_gone(down), if upload == Upload::Done => return Err(gone),
        };
        match piece {
            Some(piece) => write(down, piece).await?,
            None => break,
        }
    }
    in_time(limits.client, down.finish_body()).await?;
    Ok(upload)
}

async fn write(down: &mut server::HttpSession, piece: &[u8]) -> Result<(), Broken> {
    // An empty one, as a chunk, would be the last (see `body`).
    if piece.is_empty() {
        return Ok(());
    }
    down.write_body(piece).await.map(drop).map_err(|_| Broken::ClientGone)
}

/// A client that takes nothing for so long is as good as gone. Sessions watch over pieces of bodies,
/// but not over heads and flushes.
async fn in_time<T>(
    limit: Duration,
    write: impl Future<Output = pingora::Result<T>>,
) -> Result<T, Broken> {
    match timeout(limit, write).await {
        Ok(Ok(written)) => Ok(written),
        _ => Err(Broken::ClientGone),
    }
}

/// The head for the client: the server's, without what belongs to its connection, framed for the
/// client's version of HTTP.
fn answer_head(
    down: &mut server::HttpSession,
    up: &client::HttpSession,
    injected: bool,
    request_id: HeaderValue,
) -> Box<ResponseHeader> {
    let theirs = up.resp_header().expect("the head has been read");
    let (mut parts, ()) = http::Response::new(()).into_parts();
    parts.status = theirs.status;
    parts.version = Version::HTTP_11;
    parts.headers.reserve(theirs.headers.len() + 3);
    for (name, value) in headers::to_client(&theirs.headers, injected) {
        parts.headers.append(name, value.clone());
    }
    parts.headers.insert(REQUEST_ID.clone(), request_id);
    let bodiless = down.req_header().method == Method::HEAD
        || matches!(theirs.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if theirs.status == StatusCode::NO_CONTENT {
        // It has neither (RFC 9110, section 8.6; RFC 9112, section 6.1).
        parts.headers.remove(CONTENT_LENGTH);
        parts.headers.remove(TRANSFER_ENCODING);
    }
    let chunked = parts.headers.contains_key(TRANSFER_ENCODING);
    if down.req_header().version == Version::HTTP_10 {
        if chunked || (!bodiless && !parts.headers.contains_key(CONTENT_LENGTH)) {
            // HTTP/1.0 knows no chunks: the end of the connection is the end of the body.
            parts.headers.remove(TRANSFER_ENCODING);
            down.set_server_keepalive(None);
        }
    } else if !bodiless && !chunked && !parts.headers.contains_key(CONTENT_LENGTH) {
        parts.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    Box::new(parts.into())
}

/// Answers with a refusal. The connection ends with it when the client may still be sending.
///
/// # Errors
/// When the client is gone.
pub(super) async fn refuse(
    down: &mut server::HttpSession,
    refusal: &Refusal,
    request_id: &str,
) -> Result<StatusCode, Box<Error>> {
    let answer = refusal.answer();
    let body = answer.problem(request_id);
    let (mut parts, ()) = http::Response::new(()).into_parts();
    parts.status = answer.status;
    parts.version = Version::HTTP_11;
    let head = &mut parts.headers;
    head.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    head.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    head.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(id) = HeaderValue::from_str(request_id) {
        head.insert(REQUEST_ID.clone(), id);
    }
    if let Some(wait) = answer.retry_after {
        head.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
    }
    if answer.status == StatusCode::METHOD_NOT_ALLOWED {
        let methods = crate::request::METHODS.map(|m| m.to_string()).join(", ");
        head.insert(ALLOW, HeaderValue::from_str(&methods).expect("methods are tokens"));
    }
    for challenge in answer.challenges {
        head.append(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    down.write_response_header(Box::new(parts.into())).await?;
    // Nothing is written in answer to HEAD: the session knows.
    down.write_body(body.as_bytes()).await?;
    down.finish_body().await?;
    Ok(answer.status)
}

/// Ends a connection in the middle of an answer, so that the client can tell: what was written goes
/// out, but no last chunk. Where the end of the connection is that of the answer, it is a broken one.
pub(super) async fn break_off(down: &mut server::HttpSession) {
    // A client that takes nothing gets no more.
    let pushed = std::future::poll_fn(|cx| Connection::poll_push(down.stream(), cx));
    let _ = timeout(LAST_WORDS, pushed).await;
    let head = down.response_written().map(|head| &head.headers);
    if !head.is_some_and(|h| h.contains_key(CONTENT_LENGTH) || h.contains_key(TRANSFER_ENCODING)) {
        Connection::break_off(down.stream());
    }
}

/// How long a client has to take the last bytes of an answer that breaks off.
/// Rounded up: who comes earlier is sent away again (RFC 9110, section 10.2.3).
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

const LAST_WORDS: Duration = Duration::from_secs(1);
/// Says which line of the logs belongs to an answer.
pub(super) static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
