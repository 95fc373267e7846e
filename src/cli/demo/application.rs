//! The application of the demo: a page that embeds a dashboard, and the JWTs of its users, as an
//! identity provider gives them. It has no secret of Bold BI.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, VARY};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::RwLock;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::cli::Failure;
use crate::cors::WebOrigin;

/// The users of the application, each with the regions that its JWTs name.
pub(super) const USERS: [(&str, &[&str]); 2] =
    [("jane@acme.example", &["North"]), ("joe@acme.example", &["South", "East"])];

/// The issuer of the JWTs.
pub(super) const ISSUER: &str = "https://login.demo.example/";

/// The application. It ends with the process.
pub(super) struct Application {
    address: SocketAddr,
    shared: Arc<Pages>,
}

struct Pages {
    key: Ed25519KeyPair,
    /// The URL of the embed endpoint.
    endpoint: RwLock<String>,
    /// The origin of pages that are not the demo's own.
    other: HeaderValue,
}

impl Application {
    /// Starts on a free port of loopback. Pages of `other` can read its JWTs, too.
    pub(super) async fn start(other: &WebOrigin) -> Result<Self, Failure> {
        let cannot = |error: &dyn std::fmt::Display| {
            Failure::other(format!("the page cannot start: {error}"))
        };
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|e| cannot(&e))?;
        let key = Ed25519KeyPair::from_pkcs8(key.as_ref()).map_err(|e| cannot(&e))?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(|e| cannot(&e))?;
        let address = listener.local_addr().map_err(|e| cannot(&e))?;
        let other = HeaderValue::try_from(other.to_string()).map_err(|e| cannot(&e))?;
        let shared = Arc::new(Pages { key, endpoint: RwLock::default(), other });
        tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared })
    }

    /// The origin of its pages.
    pub(super) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The key set of its JWTs.
    pub(super) fn key_set(&self) -> String {
        let x = URL_SAFE_NO_PAD.encode(self.shared.key.public_key());
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "demo", "x": x}]}).to_string()
    }

    /// Sets the URL of the embed endpoint that the page calls.
    pub(super) fn call(&self, endpoint: &str) {
        endpoint.clone_into(&mut self.shared.endpoint.write());
    }

    /// A JWT of one of [`USERS`].
    pub(super) fn jwt(&self, user: usize) -> String {
        self.shared.jwt(user)
    }
}

impl Pages {
    fn jwt(&self, user: usize) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let (email, regions) = USERS[user];
        let encode = |part: Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let head = encode(json!({"alg": "EdDSA", "kid": "demo"}));
        let claims = encode(json!({
            "iss": ISSUER, "aud": "boldgate", "iat": now, "exp": now + JWT_LIFETIME,
            "email": email, "regions": regions,
        }));
        let message = format!("{head}.{claims}");
        let signature = URL_SAFE_NO_PAD.encode(self.key.sign(message.as_bytes()));
        format!("{message}.{signature}")
    }

    fn respond(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if *request.method() != Method::GET {
            return typed(StatusCode::METHOD_NOT_ALLOWED, "text/plain", String::new());
        }
        match request.uri().path() {
            "/" => {
                let page = PAGE.replace("ENDPOINT", &self.endpoint.read());
                typed(StatusCode::OK, "text/html; charset=utf-8", page)
            }
            path => {
                let user = path.strip_prefix("/jwt/");
                let user = user.and_then(|name| USERS.iter().position(|(email, _)| *email == name));
                match user {
                    Some(user) => {
                        let mut jwt = typed(StatusCode::OK, "text/plain", self.jwt(user));
                        let headers = jwt.headers_mut();
                        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, self.other.clone());
                        headers.insert(VARY, HeaderValue::from_static("Origin"));
                        jwt
                    }
                    None => typed(StatusCode::NOT_FOUND, "text/plain", String::new()),
                }
            }
        }
    }
}

async fn accept(listener: TcpListener, pages: Arc<Pages>) {
    while let Ok((stream, _)) = listener.accept().await {
        let pages = Arc::clone(&pages);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let response = pages.respond(&request);
                async move { Ok::<_, Infallible>(response) }
            });
            // A browser that goes away is no fault.
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

fn typed(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

const PAGE: &str = include_str!("page.html");
/// Seconds that a JWT lives.
const JWT_LIFETIME: u64 = 600;
