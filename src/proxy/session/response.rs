//! The response on a client's connection: framed for the client's version of HTTP, and written.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::redact::Redactor;
use super::{ClientGone, Session};
use crate::http1::Body;

/// How a response's body ends (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Bodiless,
    /// After this number of bytes.
    Length(u64),
    Chunked,
    /// With the connection.
    Close,
}

impl Session {
    /// Writes `100 Continue`, if the client waits for it.
    pub(in super::super) async fn write_continue(&mut self) -> Result<(), ClientGone> {
        if !std::mem::take(&mut self.awaits_continue) {
            return Ok(());
        }
        self.write(CONTINUE).await?;
        self.flush().await
    }

    pub(in super::super) fn close_after_response(&mut self) {
        self.keep_alive = false;
    }

    pub(in super::super) fn has_responded(&self) -> bool {
        self.response.is_some()
    }

    /// Writes the head of the response, framed for the client's version of HTTP. It goes out with
    /// the first piece of the body, or with the next flush.
    pub(in super::super) fn write_head(
        &mut self,
        status: StatusCode,
        headers: HeaderMap,
    ) -> impl Future<Output = Result<(), ClientGone>> + Send {
        // Serialised before the future is made, so that the future does not hold the headers.
        let head = self.begin_response(status, headers);
        async move { self.write(&head).await }
    }

    fn begin_response(&mut self, status: StatusCode, mut headers: HeaderMap) -> Vec<u8> {
        let framing = self.frame(status, &mut headers);
        // The unread rest of the body must not be taken for a request.
        let is_read = self.body.as_ref().is_some_and(Body::is_done) && !self.is_end_doubtful();
        if framing == Framing::Close || !is_read {
            self.keep_alive = false;
        }
        self.response = Some(framing);
        response_head(status, &headers, self.keep_alive)
    }

    /// Decides how the body of the response ends, and sets its headers accordingly.
    fn frame(&self, status: StatusCode, headers: &mut HeaderMap) -> Framing {
        let request = self.request.as_ref();
        if status == StatusCode::NO_CONTENT {
            // It has neither header (RFC 9110, section 8.6; RFC 9112, section 6.1).
            headers.remove(CONTENT_LENGTH);
            headers.remove(TRANSFER_ENCODING);
        }
        let chunks = request.is_none_or(|request| request.version == Version::HTTP_11);
        if !chunks {
            headers.remove(TRANSFER_ENCODING);
        }
        if matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            || request.is_some_and(|request| request.head_only)
        {
            return Framing::Bodiless;
        }
        let length =
            headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        match length {
            Some(length) if !headers.contains_key(TRANSFER_ENCODING) => Framing::Length(length),
            _ if chunks => {
                headers.remove(CONTENT_LENGTH);
                headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
                Framing::Chunked
            }
            _ => Framing::Close,
        }
    }

    /// Hides `secret` in the first 64 KiB of the response's body.
    pub(in super::super) fn hide(&mut self, secret: Bytes) {
        self.redactor = Some(Redactor::new(secret));
    }

    /// Writes a piece of the response's body, and flushes.
    pub(in super::super) async fn write_body(&mut self, piece: &[u8]) -> Result<(), ClientGone> {
        match self.redactor.as_mut().map(|redactor| redactor.pass(piece)) {
            Some(piece) => Box::pin(self.write_piece(&piece)).await,
            None => self.write_piece(piece).await,
        }
    }

    async fn write_piece(&mut self, piece: &[u8]) -> Result<(), ClientGone> {
        let framing = self.response.as_mut().expect("the head has been written");
        let piece = match framing {
            Framing::Bodiless => return self.flush().await,
            Framing::Length(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(piece.len());
                *left -= here as u64;
                &piece[..here]
            }
            Framing::Chunked | Framing::Close => piece,
        };
        // An empty chunk would be the last one.
        if piece.is_empty() {
            return Ok(());
        }
        self.body_sent += piece.len() as u64;
        if *framing == Framing::Chunked {
            let size = format!("{:x}\r\n", piece.len());
            self.write(size.as_bytes()).await?;
            self.write(piece).await?;
            self.write(b"\r\n").await?;
        } else {
            self.write(piece).await?;
        }
        self.flush().await
    }

    /// Ends the response's body, and flushes.
    pub(in super::super) async fn finish_body(&mut self) -> Result<(), ClientGone> {
        if let Some(rest) = self.redactor.as_mut().map(Redactor::finish) {
            Box::pin(self.write_piece(&rest)).await?;
        }
        match self.response {
            Some(Framing::Chunked) => self.write(b"0\r\n\r\n").await?,
            // The client would take the next response for the rest of this one.
            Some(Framing::Length(1..)) => self.keep_alive = false,
            _ => {}
        }
        self.flush().await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), ClientGone> {
        write_within(self.limits.body, self.connection.write_all(bytes)).await
    }

    pub(in super::super) async fn flush(&mut self) -> Result<(), ClientGone> {
        write_within(self.limits.body, self.connection.flush()).await
    }

    /// Ends the response without its proper end, so that the client can tell: without a last chunk,
    /// or with a reset where the end of the connection would be the end of the response.
    pub(in super::super) async fn break_off(&mut self) {
        // A client that takes nothing gets no more.
        let _ = timeout(BREAK_OFF_TIMEOUT, self.write_pending()).await;
        if self.response == Some(Framing::Close) {
            self.connection.break_off();
        }
    }
}

/// Bounds a write: a client that takes nothing within `limit` counts as gone.
async fn write_within(
    limit: Duration,
    write: impl Future<Output = std::io::Result<()>>,
) -> Result<(), ClientGone> {
    match timeout(limit, write).await {
        Ok(Ok(())) => Ok(()),
        _ => Err(ClientGone),
    }
}

fn response_head(status: StatusCode, headers: &HeaderMap, keep_alive: bool) -> Vec<u8> {
    let mut head = Vec::with_capacity(USUAL_RESPONSE_HEAD);
    head.extend_from_slice(b"HTTP/1.1 ");
    head.extend_from_slice(status.as_str().as_bytes());
    head.push(b' ');
    head.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    head.extend_from_slice(b"\r\n");
    if !headers.contains_key(DATE) {
        field(&mut head, &DATE, date(SystemTime::now()).as_bytes());
    }
    for (name, value) in headers {
        field(&mut head, name, value.as_bytes());
    }
    field(&mut head, &CONNECTION, if keep_alive { b"keep-alive" } else { b"close" });
    head.extend_from_slice(b"\r\n");
    head
}

/// One header field, its name in the usual spelling (`Content-Type`).
fn field(head: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    let start = head.len();
    head.extend_from_slice(name.as_str().as_bytes());
    let mut begins = true;
    for byte in &mut head[start..] {
        if begins {
            byte.make_ascii_uppercase();
        }
        begins = *byte == b'-';
    }
    head.extend_from_slice(b": ");
    head.extend_from_slice(value);
    head.extend_from_slice(b"\r\n");
}

/// A date in the format of RFC 9110, section 5.6.7.
fn date(now: SystemTime) -> String {
    OffsetDateTime::from(now).format(IMF_FIXDATE).unwrap_or_default()
}

const IMF_FIXDATE: &[BorrowedFormatItem<'_>] = format_description!(
    "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
);
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// Longest wait for a client to take the last bytes of a response that breaks off.
const BREAK_OFF_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes of a usual response head.
const USUAL_RESPONSE_HEAD: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_head_is_framed_and_spelled_as_clients_know_it() {
        let mut headers = HeaderMap::new();
        headers.insert("x-request-id", HeaderValue::from_static("1"));
        headers.insert(DATE, HeaderValue::from_static("then"));
        let text = |keep_alive| {
            String::from_utf8(response_head(StatusCode::OK, &headers, keep_alive)).unwrap()
        };
        let head = "HTTP/1.1 200 OK\r\nX-Request-Id: 1\r\nDate: then\r\n";
        assert_eq!(text(true), format!("{head}Connection: keep-alive\r\n\r\n"));
        assert_eq!(text(false), format!("{head}Connection: close\r\n\r\n"));
        let odd = StatusCode::from_u16(599).unwrap();
        assert!(response_head(odd, &headers, true).starts_with(b"HTTP/1.1 599 \r\n"));
    }

    #[test]
    fn dates_are_written_as_rfc_9110_has_them() {
        let then = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(date(then), "Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
