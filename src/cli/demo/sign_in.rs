//! The signing-in proxy of the demo's page in masked mode, such as oauth2-proxy: it knows the user
//! by a cookie, and adds its own key and the user's address to each request for data.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, COOKIE, HeaderMap, HeaderName, HeaderValue, ORIGIN};
use http::{Request, Response, StatusCode, request::Parts};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use parking_lot::RwLock;

use super::application::{USERS, typed};
use crate::caller::ApiKey;

/// The proxy. Nobody but the gateway knows its key.
pub(super) struct SignInProxy {
    key: ApiKey,
    gateway: RwLock<String>,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl SignInProxy {
    pub(super) fn new(key: ApiKey) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { key, gateway: RwLock::default(), client }
    }

    /// The hash of its key, for the configuration of the gateway.
    pub(super) fn key_hash(&self) -> String {
        self.key.hash().to_string()
    }

    /// Sets the URL of the gateway.
    pub(super) fn forward_to(&self, gateway: &str) {
        gateway.clone_into(&mut self.gateway.write());
    }

    /// Passes a request for data on, as the user who has signed in.
    pub(super) async fn pass(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let Some(user) = user_of(&head.headers) else {
            return text(StatusCode::UNAUTHORIZED, "Sign in first.");
        };
        let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
            return text(StatusCode::PAYLOAD_TOO_LARGE, "The body is too large.");
        };
        let Ok(request) = self.rebuilt(&head, USERS[user].0, body.to_bytes()) else {
            return text(StatusCode::BAD_REQUEST, "The request cannot be passed on.");
        };
        match self.client.request(request).await {
            Ok(response) => returned(response).await,
            Err(_) => text(StatusCode::BAD_GATEWAY, "The gateway cannot be reached."),
        }
    }

    /// The request for the gateway. The user's address is the proxy's own, whatever the page says.
    fn rebuilt(
        &self,
        head: &Parts,
        user: &str,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, http::Error> {
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        let mut request = Request::builder()
            .method(head.method.clone())
            .uri(format!("{}{target}", self.gateway.read()))
            .header("X-Api-Key", self.key.expose())
            .header("X-Forwarded-Email", user);
        for name in &FROM_PAGE {
            for value in head.headers.get_all(name) {
                request = request.header(name, value);
            }
        }
        request.body(Full::new(body))
    }
}

/// The response that signs a user in: back to the page, with the cookie.
pub(super) fn signed_in(user: usize, page: &'static str) -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::SEE_OTHER, "");
    let headers = response.headers_mut();
    headers.insert(http::header::LOCATION, HeaderValue::from_static(page));
    let cookie = format!("{USER_COOKIE}{user}; Path=/; HttpOnly; SameSite=Strict");
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        headers.insert(http::header::SET_COOKIE, cookie);
    }
    response
}

/// The user who has signed in. A real proxy has sessions; a cookie of the demo is a number.
pub(super) fn user_of(headers: &HeaderMap) -> Option<usize> {
    let cookies = headers.get(COOKIE)?.to_str().ok()?;
    let number = cookies.split(';').find_map(|cookie| cookie.trim().strip_prefix(USER_COOKIE))?;
    number.parse().ok().filter(|user| *user < USERS.len())
}

async fn returned(response: Response<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = response.into_parts();
    let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
        return text(StatusCode::BAD_GATEWAY, "The gateway's response broke off.");
    };
    let mut response = typed(head.status, "application/octet-stream", body.to_bytes());
    if let Some(kind) = head.headers.get(CONTENT_TYPE) {
        response.headers_mut().insert(CONTENT_TYPE, kind.clone());
    }
    response
}

fn text(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    typed(status, "text/plain", Bytes::from_static(text.as_bytes()))
}

/// The headers of a page that go on: those of dashboards, and by which the gateway knows the page.
static FROM_PAGE: [HeaderName; 8] = [
    ACCEPT,
    CONTENT_TYPE,
    ORIGIN,
    HeaderName::from_static("sec-fetch-site"),
    HeaderName::from_static("clientid"),
    HeaderName::from_static("dashboardpath"),
    HeaderName::from_static("mode"),
    HeaderName::from_static("localesettings"),
];
const USER_COOKIE: &str = "demo_user=";
const MAX_BODY: usize = 1 << 20;
