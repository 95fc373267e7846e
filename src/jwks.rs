//! Fetches the key sets of issuers over HTTP, within a deadline and a bound, without redirects.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::ACCEPT;
use http::{HeaderValue, Request, StatusCode, Uri};
use tokio::time::timeout;

use crate::caller::issuer_keys::KeySource;
use crate::caller::key_set::KeySet;
use crate::fetch::{self, FetchError, Fetcher};
use crate::trust::{self, Trust, TrustError};

/// A URL at which an issuer publishes its keys (RFC 7517, section 5).
pub struct HttpKeySource {
    url: Uri,
    fetcher: Fetcher,
    trust: Trust,
}

impl HttpKeySource {
    /// Prepares to fetch from `url`, at a server that is trusted by `trust`.
    ///
    /// # Errors
    /// When the certificates to trust cannot be read.
    pub fn new(url: Uri, trust: &Trust) -> Result<Self, TrustError> {
        let tls = url.scheme_str() == Some("https");
        let fetcher = Fetcher::new(tls, trust, FETCH_TIMEOUT, &[])?;
        Ok(Self { url, fetcher, trust: trust.clone() })
    }

    async fn fetch_keys(&self) -> Result<KeySet, String> {
        let request = Request::get(self.url.clone())
            .header(ACCEPT, HeaderValue::from_static("application/json"))
            .body(Bytes::new())
            .map_err(|error| error.to_string())?;
        let response = self.fetcher.send(request).await.map_err(|error| innermost(&error))?;
        let (head, body) = response.into_parts();
        if head.status != StatusCode::OK {
            return Err(format!("the response is {}, not 200", head.status.as_u16()));
        }
        if let Some(coding) = fetch::coding(&head.headers) {
            return Err(format!(
                "the `Content-Encoding` of the response is {coding}, although the request said \
                 `Accept-Encoding: identity`"
            ));
        }
        let body = body.whole(MAX_BODY).await.map_err(|error| innermost(&error))?;
        KeySet::parse(&body).map_err(|error| error.to_string())
    }
}

#[async_trait]
impl KeySource for HttpKeySource {
    async fn fetch(&self) -> Result<KeySet, String> {
        match timeout(FETCH_TIMEOUT, self.fetch_keys()).await {
            Ok(response) => response,
            Err(_) => Err(format!("no whole response within {FETCH_TIMEOUT:?}")),
        }
    }

    fn identity(&self) -> String {
        format!("{} {:?}", self.url, self.trust)
    }
}

/// The text of the innermost cause, which is the most specific.
fn innermost(error: &FetchError) -> String {
    match error {
        FetchError::NotHttp(cause) => format!("{error}: {}", root_of(&**cause)),
        FetchError::Connection(_) | FetchError::TooLarge | FetchError::NoDescriptors => {
            root_of(error)
        }
    }
}

fn root_of(error: &(dyn std::error::Error + 'static)) -> String {
    trust::causes(error).last().map_or_else(|| error.to_string(), trust::message_of)
}

const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_BODY: usize = 256 * 1024;
