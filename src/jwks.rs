//! Key sets over HTTP: the issuer's URL, asked within a deadline and a bound, redirects not followed.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::ACCEPT;
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::Full;
use ring::digest::{SHA256, digest};
use tokio::time::timeout;

use crate::caller::jwks::KeySource;
use crate::caller::key_set::KeySet;
use crate::fetch::{self, Fetcher};
use crate::trust::TrustError;

/// A URL at which an issuer publishes its keys (RFC 7517, section 5).
pub struct HttpKeySource {
    url: Uri,
    fetcher: Fetcher,
    /// Of the CAs to trust.
    trusted: Option<Vec<u8>>,
}

impl HttpKeySource {
    /// Prepares to fetch from `url`; `ca_file` holds the CAs to trust instead of the system's.
    ///
    /// # Errors
    /// When the certificates to trust are not to be had.
    pub fn new(url: Uri, ca_file: Option<&Path>) -> Result<Self, TrustError> {
        let tls = url.scheme_str() == Some("https");
        let fetcher = Fetcher::new(tls, ca_file, DEADLINE, &[])?;
        // It was readable a moment ago; a digest that is missing only fetches once too often.
        let trusted = ca_file.and_then(|file| std::fs::read(file).ok());
        let trusted = trusted.map(|pem| digest(&SHA256, &pem).as_ref().to_vec());
        Ok(Self { url, fetcher, trusted })
    }

    async fn ask(&self) -> Result<KeySet, String> {
        let request = Request::get(self.url.clone())
            .header(ACCEPT, HeaderValue::from_static("application/json"))
            .body(Full::new(Bytes::new()))
            .map_err(|error| error.to_string())?;
        let (head, body) =
            self.fetcher.send(request).await.map_err(|error| root_of(&error))?.into_parts();
        if head.status != StatusCode::OK {
            return Err(format!("the answer is {}, not 200", head.status.as_u16()));
        }
        let body = fetch::whole(body, MAX_BODY).await.map_err(|error| error.to_string())?;
        KeySet::parse(&body).map_err(|error| error.to_string())
    }
}

#[async_trait]
impl KeySource for HttpKeySource {
    async fn fetch(&self) -> Result<KeySet, String> {
        match timeout(DEADLINE, self.ask()).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no whole answer within {DEADLINE:?}")),
        }
    }

    fn identity(&self) -> String {
        format!("{} {:?}", self.url, self.trusted)
    }
}

/// The innermost cause, which is the one that says something.
fn root_of(error: &dyn std::error::Error) -> String {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    root.to_string()
}

const DEADLINE: Duration = Duration::from_secs(10);
const MAX_BODY: usize = 256 * 1024;
