//! Small requests of our own, to one origin each: token exchanges and key sets. Redirects are never
//! followed, no proxy is taken from the environment, and bodies have a bound.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderValue, USER_AGENT};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use zeroize::Zeroizing;

use crate::trust::{self, TrustError};

/// The connections to one origin. Plain ones have no TLS configuration, so that an image without
/// any CA certificates serves where there is no TLS.
pub struct Fetcher(Connections);

enum Connections {
    Plain(Client<HttpConnector, Full<Bytes>>),
    Tls(Client<HttpsConnector<HttpConnector>, Full<Bytes>>),
}

impl Fetcher {
    /// Prepares for an origin that is spoken to with TLS or without; `ca_file` as in
    /// [`trust::client_config`].
    ///
    /// # Errors
    /// When the certificates to trust are not to be had.
    pub fn new(tls: bool, ca_file: Option<&Path>, connect: Duration) -> Result<Self, TrustError> {
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(connect));
        tcp.set_nodelay(true);
        let mut pooled = Client::builder(TokioExecutor::new());
        pooled
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .http1_max_buf_size(MAX_HEAD);
        if !tls {
            return Ok(Self(Connections::Plain(pooled.build(tcp))));
        }
        tcp.enforce_http(false);
        let config = trust::client_config(ca_file)?;
        let tls = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(Arc::unwrap_or_clone(config))
            .https_only()
            .enable_http1()
            .wrap_connector(tcp);
        Ok(Self(Connections::Tls(pooled.build(tls))))
    }

    /// Sends a request and waits for the head of its answer; the deadline is the caller's.
    ///
    /// # Errors
    /// When no connection can be made, or it breaks.
    pub async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, legacy::Error> {
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(AGENT));
        match &self.0 {
            Connections::Plain(client) => client.request(request).await,
            Connections::Tls(client) => client.request(request).await,
        }
    }
}

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It is larger than the bound.
    #[error("the body is too large")]
    TooLarge,
    /// The connection broke.
    #[error(transparent)]
    Broken(#[from] hyper::Error),
}

/// The whole of a body of at most `max` bytes, in memory that is overwritten afterwards.
///
/// # Errors
/// When it is larger, or the connection breaks.
pub async fn whole(mut body: Incoming, max: usize) -> Result<Zeroizing<Vec<u8>>, BodyError> {
    if body.size_hint().lower() > max as u64 {
        return Err(BodyError::TooLarge);
    }
    // The room for the largest is taken at once: a growing vector would leave copies behind.
    let mut whole = Zeroizing::new(Vec::with_capacity(max));
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            if whole.len() + data.len() > max {
                return Err(BodyError::TooLarge);
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok(whole)
}

const AGENT: &str = concat!("boldgate/", env!("CARGO_PKG_VERSION"));
/// Shorter than proxies keep an idle connection, usually; a stale one costs a second try.
const IDLE: Duration = Duration::from_secs(30);
/// Such requests are rare; more than a few at once are rarer.
const IDLE_CONNECTIONS: usize = 4;
/// The largest head of an answer that Bold BI's own proxies let through. (Bold BI: deployment
/// files for Kubernetes and Docker.)
const MAX_HEAD: usize = 128 * 1024;
