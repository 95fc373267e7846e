//! The forms of a stand-in's responses.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use serde_json::Value;

/// A body that may be streamed, or break off.
pub(super) type StandInBody = UnsyncBoxBody<Bytes, io::Error>;

/// A whole body of some type.
pub(super) fn whole(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<StandInBody> {
    let body = Full::new(body.into()).map_err(|never| match never {}).boxed_unsync();
    typed(status, content_type, body)
}

/// JSON, as Bold BI types it. (Bold BI: a reply of 2020.)
pub(super) fn json(status: StatusCode, body: &Value) -> Response<StandInBody> {
    whole(status, JSON, body.to_string())
}

/// Plain text with status 200.
pub(super) fn text(body: &'static str) -> Response<StandInBody> {
    whole(StatusCode::OK, "text/plain; charset=utf-8", body)
}

/// A page of HTML, as from a web server that has no such site.
pub(super) fn page(status: StatusCode) -> Response<StandInBody> {
    let body = "<!DOCTYPE html><html><title>Bold BI</title><body>Not here</body></html>";
    whole(status, "text/html; charset=utf-8", body)
}

/// JSON that is sent byte by byte.
pub(super) fn dripped(body: String, pause: Duration) -> Response<StandInBody> {
    let drops = stream::unfold(body.into_bytes().into_iter(), move |mut bytes| async move {
        tokio::time::sleep(pause).await;
        let drop = Bytes::from(vec![bytes.next()?]);
        Some((Ok(Frame::data(drop)), bytes))
    });
    typed(StatusCode::OK, JSON, StreamBody::new(drops).boxed_unsync())
}

/// JSON that breaks off in the middle, with the connection.
pub(super) fn broken_off(body: &str) -> Response<StandInBody> {
    let half = Bytes::copy_from_slice(&body.as_bytes()[..body.len() / 2]);
    let lost = io::Error::from(io::ErrorKind::ConnectionReset);
    let frames = stream::iter([Ok(Frame::data(half)), Err(lost)]);
    let mut response = typed(StatusCode::OK, JSON, StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    response
}

/// `size` bytes in pieces, with a `Content-Length` or chunked.
pub(super) fn download(size: u64, chunked: bool) -> Response<StandInBody> {
    static PIECE: [u8; 64 * 1024] = [b'x'; 64 * 1024];
    let pieces = stream::unfold(size, |left| async move {
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE.len());
        let piece = Bytes::from_static(&PIECE[..length]);
        (length > 0).then(|| (Ok(Frame::data(piece)), left - length as u64))
    });
    let body = StreamBody::new(pieces).boxed_unsync();
    let mut response = typed(StatusCode::OK, "application/octet-stream", body);
    if !chunked {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(size));
    }
    response
}

fn typed(
    status: StatusCode,
    content_type: &'static str,
    body: StandInBody,
) -> Response<StandInBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

const JSON: &str = "application/json; charset=utf-8";
