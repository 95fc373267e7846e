//! The calls to a collector: spans as protobuf, sent over HTTP (OTLP/HTTP).

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use prost::Message;
use tokio::time::timeout;

use super::CollectorSettings;
use super::otlp::ExportResponse;
use crate::fetch::{FetchError, Fetcher};
use crate::trust::{self, TrustError};

/// Takes exports.
#[async_trait]
pub(super) trait TakeExport: Send + Sync {
    /// Sends the body of one export. Returns the number of spans that were rejected.
    async fn export(&self, body: Bytes) -> Result<u64, ExportError>;
}

/// Why an export was not accepted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ExportError {
    /// No response came; a later one may.
    Unavailable(String),
    /// The collector says that it cannot take it now; and for how long, if it says that.
    Busy(String, Option<Duration>),
    /// It would not be accepted later either.
    Refused(String),
}

/// A collector of spans that is reached over HTTP.
pub struct Collector {
    settings: CollectorSettings,
    fetcher: Fetcher,
}

impl Collector {
    /// Prepares for a collector.
    ///
    /// # Errors
    /// When the certificates to trust cannot be read.
    pub fn new(settings: CollectorSettings) -> Result<Self, TrustError> {
        let tls = settings.endpoint.scheme_str() == Some("https");
        let fetcher = Fetcher::new(tls, &settings.trust, CONNECT_TIMEOUT, &[])?;
        Ok(Self { settings, fetcher })
    }

    /// Sends an export without spans, which every collector accepts.
    ///
    /// # Errors
    /// The cause for which it was not accepted.
    pub async fn check(&self) -> Result<(), String> {
        match self.export(Bytes::new()).await {
            Ok(_) => Ok(()),
            Err(
                ExportError::Unavailable(cause)
                | ExportError::Busy(cause, _)
                | ExportError::Refused(cause),
            ) => Err(cause),
        }
    }

    async fn send(&self, body: Bytes) -> Result<u64, ExportError> {
        let mut request = Request::post(self.settings.endpoint.clone())
            .body(body)
            .map_err(|error| ExportError::Refused(error.to_string()))?;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROTOBUF));
        for (name, secret) in &self.settings.headers {
            let mut value = HeaderValue::from_str(secret.expose())
                .map_err(|_| ExportError::Refused(format!("`{name}` has an invalid value")))?;
            value.set_sensitive(true);
            headers.insert(name.clone(), value);
        }
        let response = self.fetcher.send(request).await;
        let response = response.map_err(|error| ExportError::Unavailable(cause_of(&error)))?;
        let (head, body) = response.into_parts();
        let status = head.status;
        // Read in any case, so that the connection can be used again.
        let body = body.whole(MAX_RESPONSE).await;
        if status.is_success() {
            // No body, and one that cannot be read, say nothing about rejected spans.
            let response = body.ok().and_then(|body| ExportResponse::decode(&body[..]).ok());
            let partial = response.and_then(|response| response.partial_success);
            let rejected = partial.map_or(0, |partial| partial.rejected_spans);
            return Ok(u64::try_from(rejected).unwrap_or_default());
        }
        let cause = format!("the response is {}", status.as_u16());
        Err(match status {
            // The only ones after which OTLP sends again.
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => {
                let after = retry_after(&head.headers);
                ExportError::Busy(cause + &after.map_or_else(String::new, waits), after)
            }
            _ => ExportError::Refused(cause),
        })
    }
}

#[async_trait]
impl TakeExport for Collector {
    async fn export(&self, body: Bytes) -> Result<u64, ExportError> {
        timeout(EXPORT_TIMEOUT, self.send(body)).await.unwrap_or_else(|_| {
            let cause = format!("no whole response within {EXPORT_TIMEOUT:?}");
            Err(ExportError::Unavailable(cause))
        })
    }
}

/// The text of the innermost cause, which is the most specific.
fn cause_of(error: &FetchError) -> String {
    let innermost =
        trust::causes(error).last().map_or_else(|| error.to_string(), trust::message_of);
    match error {
        FetchError::NotHttp(_) => format!("{error}: {innermost}"),
        _ => innermost,
    }
}

/// How a `Retry-After` is kept, in words.
fn waits(after: Duration) -> String {
    let seconds = after.as_secs();
    if after > MAX_RETRY_AFTER {
        format!(", with `Retry-After: {seconds}`, which is kept for {MAX_RETRY_AFTER:?} at most")
    } else {
        format!(", with `Retry-After: {seconds}`")
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

const PROTOBUF: &str = "application/x-protobuf";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The default of OpenTelemetry.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait that a collector can ask for.
pub(super) const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);
const MAX_RESPONSE: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_has_the_retry_after_and_its_bound_if_that_cuts_it() {
        assert_eq!(waits(Duration::from_secs(60)), ", with `Retry-After: 60`");
        let cut = ", with `Retry-After: 61`, which is kept for 60s at most";
        assert_eq!(waits(Duration::from_secs(61)), cut);
    }
}
