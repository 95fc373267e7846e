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

use super::MASKED_TENANT;
use super::sign_in::{SignInProxy, signed_in, user_of};
use crate::caller::ApiKey;
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
    /// The URL of the embed endpoint, and of the SDK's file.
    urls: RwLock<(String, String)>,
    sign_in: SignInProxy,
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
        let sign_in = SignInProxy::new(ApiKey::generate().map_err(|e| cannot(&e))?);
        let shared = Arc::new(Pages { key, urls: RwLock::default(), sign_in, other });
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

    /// Sets the URLs that the pages use: the gateway's, its embed endpoint, and the SDK's file.
    pub(super) fn call(&self, gateway: &str, endpoint: &str, sdk: &str) {
        *self.shared.urls.write() = (endpoint.to_owned(), sdk.to_owned());
        self.shared.sign_in.forward_to(gateway);
    }

    /// The hash of the key by which the gateway knows the proxy of the page in masked mode.
    pub(super) fn key_hash(&self) -> String {
        self.shared.sign_in.key_hash()
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

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if request.uri().path().starts_with("/masked/") {
            return self.sign_in.pass(request).await;
        }
        self.respond(&request)
    }

    /// The page in masked mode. It has no token.
    fn masked_page(&self, user: Option<usize>) -> Response<Full<Bytes>> {
        let page = MASKED_PAGE
            .replace("SDK\"", &format!("{}\"", self.urls.read().1))
            .replace("TENANT", MASKED_TENANT)
            .replace(">USER<", &format!(">{}<", user.map_or("nobody", |user| USERS[user].0)));
        typed(StatusCode::OK, "text/html; charset=utf-8", page)
    }

    fn respond(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if *request.method() != Method::GET {
            return typed(StatusCode::METHOD_NOT_ALLOWED, "text/plain", String::new());
        }
        match request.uri().path() {
            "/" => {
                let page = PAGE.replace("ENDPOINT", &self.urls.read().0);
                typed(StatusCode::OK, "text/html; charset=utf-8", page)
            }
            MASKED_PATH => self.masked_page(user_of(request.headers())),
            path => {
                let user = |folder| {
                    let name = path.strip_prefix(folder)?;
                    USERS.iter().position(|(email, _)| *email == name)
                };
                if let Some(user) = user("/sign-in/") {
                    return signed_in(user, MASKED_PATH);
                }
                match user("/jwt/") {
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
                let pages = Arc::clone(&pages);
                async move { Ok::<_, Infallible>(pages.answer(request).await) }
            });
            // A browser that goes away is no fault.
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

pub(super) fn typed(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

const PAGE: &str = include_str!("page.html");
const MASKED_PAGE: &str = include_str!("masked.html");
/// The path of the page in masked mode.
pub(super) const MASKED_PATH: &str = "/masked-page";
/// Seconds that a JWT lives.
const JWT_LIFETIME: u64 = 600;
