//! A stand-in for Bold BI in the demo, tests and benches: a token endpoint, an embed endpoint, a
//! data service, static files, and an API that describes each request in its response. It listens
//! on loopback only, and does nothing with data.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::respond::StandInBody;
use self::state::{SharedState, State};
use super::UserSource;

mod api;
mod designer;
mod embed;
mod embed_sdk;
mod embed_secret;
mod respond;
mod state;
mod token_endpoint;

pub use embed_secret::GenerateReply;
pub use state::Recorded;
pub use token_endpoint::TokenReply;

/// The settings of a stand-in.
#[derive(Clone, Debug)]
pub struct StandInOptions {
    /// Where it listens; must be loopback. Port 0 takes a free one.
    pub address: SocketAddr,
    /// Its sites.
    pub sites: Vec<StandInSite>,
    /// The client of its administration (UMS), at `/api`; `None` if there is no administration.
    pub client: Option<StandInClient>,
    /// How long its tokens live.
    pub token_lifetime: Duration,
    /// Whether it keeps the last requests for [`StandIn::last_requests`].
    pub record: bool,
    /// Called for every request to its API.
    pub observer: Option<Observer>,
}

/// A callback for every complete request to the API, called before the response is sent.
#[derive(Clone)]
pub struct Observer(Arc<dyn Fn(&ObservedRequest<'_>) + Send + Sync>);

/// A request, as a observer gets it.
#[derive(Debug)]
pub struct ObservedRequest<'r> {
    /// The site that the path names.
    pub site: Option<&'r str>,
    /// Site and user of its token, even if the token has ended; `None` if they cannot be told.
    pub holder: Option<(Option<String>, String)>,
    /// Its method.
    pub method: &'r Method,
    /// Its target, as it was sent.
    pub target: &'r str,
    /// The status of its response.
    pub status: StatusCode,
}

impl Observer {
    /// Calls `listener`.
    pub fn new(listener: impl Fn(&ObservedRequest<'_>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(listener))
    }

    fn call(&self, request: &ObservedRequest<'_>) {
        (self.0)(request);
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}

/// A site of a stand-in.
#[derive(Clone, Debug)]
pub struct StandInSite {
    /// Its identifier, as in `/bi/api/site/{id}`; `None` for a site at `/bi/api`, as on Cloud.
    pub id: Option<String>,
    /// Its embed secret.
    pub embed_secret: String,
    /// Its users.
    pub users: Vec<StandInUser>,
}

/// A client of the administration of a stand-in.
#[derive(Clone, Debug)]
pub struct StandInClient {
    /// Its identifier.
    pub id: String,
    /// Its secret.
    pub secret: String,
}

/// A user of a stand-in.
#[derive(Clone, Debug)]
pub struct StandInUser {
    /// The email address that is its name.
    pub email: String,
    /// Its password, if it has one.
    pub password: Option<String>,
    /// Its source; the password works only if such users have one.
    pub source: UserSource,
}

impl Default for StandInOptions {
    /// One site, `site1`, with a local user and a directory user.
    fn default() -> Self {
        let user = |email: &str, password: Option<&str>, source| StandInUser {
            email: email.into(),
            password: password.map(Into::into),
            source,
        };
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            sites: vec![StandInSite {
                id: Some("site1".into()),
                embed_secret: "stand-in-embed-secret".into(),
                users: vec![
                    user("svc@example.com", Some("stand-in-password"), UserSource::Local),
                    user("reports@example.com", None, UserSource::AzureAd),
                ],
            }],
            client: None,
            token_lifetime: Duration::from_secs(7 * 24 * 60 * 60),
            record: true,
            observer: None,
        }
    }
}

/// A running stand-in. When it is dropped, it stops; requests in flight have a moment to end.
pub struct StandIn {
    address: SocketAddr,
    shared: Arc<SharedState>,
    stop: CancellationToken,
}

impl StandIn {
    /// Starts a stand-in.
    ///
    /// # Errors
    /// When the address is not loopback or cannot be listened on.
    pub async fn start(options: StandInOptions) -> io::Result<Self> {
        if !options.address.ip().is_loopback() {
            let message = "a stand-in listens on loopback addresses only";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let listener = TcpListener::bind(options.address).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(SharedState::new(options, format!("http://{address}/bi")));
        let stop = CancellationToken::new();
        tokio::spawn(accept(listener, Arc::clone(&shared), stop.clone()));
        Ok(Self { address, shared, stop })
    }

    /// Its address.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Its `url` as a server: `http://127.0.0.1:PORT/bi`.
    pub fn url(&self) -> String {
        self.shared.url.clone()
    }

    /// Ends the life of all tokens given so far.
    pub fn revoke_all(&self) {
        self.shared.state().tokens.clear();
    }

    /// Ends the life of all tokens of the user with this email address, on all sites.
    pub fn revoke(&self, email: &str) {
        self.shared.state().tokens.retain(|_, issued| issued.user != email);
    }

    /// Sets the reply of the token endpoint to valid requests.
    pub fn set_reply(&self, reply: TokenReply) {
        self.shared.state().reply = reply;
    }

    /// Sets the lifetime of new tokens.
    pub fn set_token_lifetime(&self, lifetime: Duration) {
        self.shared.state().token_lifetime = lifetime;
    }

    /// Sets the time before a response of the token endpoint and of the API.
    pub fn set_latency(&self, token: Duration, api: Duration) {
        let mut state = self.shared.state();
        (state.token_latency, state.api_latency) = (token, api);
    }

    /// Changes the embed secret of a site, as "Regenerate" does: former secrets end, tokens stay.
    pub fn set_embed_secret(&self, site: Option<&str>, secret: &str) {
        let mut state = self.shared.state();
        state.former_secrets.remove(&site.map(str::to_owned));
        for known in state.sites.iter_mut().filter(|known| known.id.as_deref() == site) {
            known.embed_secret = secret.into();
        }
    }

    /// Sets the common secret of the installation, which works beside that of each site, and which
    /// no rotation of a site changes. (Bold BI: "Embed settings" of the site administration.)
    pub fn set_common_secret(&self, secret: &str) {
        self.shared.state().common_secret = Some(secret.into());
    }

    /// Changes the embed secret of a site. The former one works, too, until the next change. Tokens
    /// stay.
    pub fn rotate_embed_secret(&self, site: Option<&str>, secret: &str) {
        let mut state = self.shared.state();
        let State { sites, former_secrets, .. } = &mut *state;
        for known in sites.iter_mut().filter(|known| known.id.as_deref() == site) {
            let former = std::mem::replace(&mut known.embed_secret, secret.into());
            former_secrets.insert(known.id.clone(), former);
        }
    }

    /// Sets the reply to a request of an administrator for a new embed secret. Users whose names
    /// begin with `admin` are administrators.
    pub fn set_generate(&self, reply: GenerateReply) {
        self.shared.state().generate = reply;
    }

    /// Lets administrators read the embed secret, or not.
    pub fn show_embed_secret(&self, shows: bool) {
        self.shared.state().shows_secret = shows;
    }

    /// The embed secret of a site.
    pub fn embed_secret(&self, site: Option<&str>) -> Option<String> {
        let state = self.shared.state();
        let known = state.sites.iter().find(|known| known.id.as_deref() == site);
        known.map(|known| known.embed_secret.clone())
    }

    /// Responds to the next `times` requests to the token endpoint with `status`.
    pub fn fail_next_token(&self, status: StatusCode, times: u64) {
        self.shared.state().failing_tokens = (status, times);
    }

    /// Responds to the next `times` requests to the API with `status`, whatever their token.
    pub fn fail_next_api(&self, status: StatusCode, times: u64) {
        self.shared.state().failing_api = (status, times);
    }

    /// Responds to the next `times` embed calls with `status`.
    pub fn fail_next_embed(&self, status: StatusCode, times: u64) {
        self.shared.state().failing_embeds = (status, times);
    }

    /// Refuses embed calls by a wrong secret as those of an unknown user: in words, with the status
    /// 200. How Bold BI does it is not documented.
    pub fn refuse_embeds_in_words(&self) {
        self.shared.state().refuses_in_words = true;
    }

    /// How many embed calls it has had.
    pub fn embed_requests(&self) -> u64 {
        self.shared.counts.embed_requests()
    }

    /// How many requests the token endpoint has had.
    pub fn token_requests(&self) -> u64 {
        self.shared.counts.token_requests()
    }

    /// How many requests the API has had, those without a live token included.
    pub fn api_requests(&self) -> u64 {
        self.shared.counts.api_requests()
    }

    /// How many connections were opened to it.
    pub fn connections(&self) -> u64 {
        self.shared.counts.connections()
    }

    /// The last requests without their bodies, oldest first; at most a thousand.
    pub fn last_requests(&self) -> Vec<Recorded> {
        self.shared.state().recorded.iter().cloned().collect()
    }
}

impl fmt::Debug for StandIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StandIn({})", self.address)
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn accept(listener: TcpListener, shared: Arc<SharedState>, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                shared.counts.connection();
                tokio::spawn(serve(stream, Arc::clone(&shared), stop.clone()));
            }
            // Out of file descriptors, most likely: connections that end free some.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn serve(stream: TcpStream, shared: Arc<SharedState>, stop: CancellationToken) {
    // Otherwise benches would measure a delay of the system, not of the code under test.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| respond(&shared, request));
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .max_headers(MAX_HEADERS)
            .serve_connection(TokioIo::new(stream), service)
    );
    tokio::select! {
        _ = connection.as_mut() => return,
        () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    let _ = timeout(GRACE, connection).await;
}

async fn respond(
    shared: &SharedState,
    request: Request<Incoming>,
) -> Result<Response<StandInBody>, Infallible> {
    let path = request.uri().path();
    if path.ends_with("/health-check") {
        return Ok(respond::text("Healthy"));
    }
    if let Some(route) = path.strip_prefix("/api").filter(|route| route.starts_with('/'))
        && let Some(client) = shared.client.clone()
    {
        let route = route.to_owned();
        return Ok(match route.as_str() {
            "/token" => token_endpoint::respond_to_client(shared, &client, request).await,
            _ => api::respond(shared, Some(ADMINISTRATION), &route, request).await,
        });
    }
    if let Some(file) = embed_sdk::file(path) {
        return Ok(file);
    }
    let request = match designer::respond(shared, request).await {
        Ok(response) => return Ok(response),
        Err(request) => request,
    };
    let Some((site, route)) = site_and_route(request.uri().path()) else {
        return Ok(respond::page(StatusCode::NOT_FOUND));
    };
    let (site, route) = (site.map(str::to_owned), route.to_owned());
    if !shared.has_site(site.as_deref()) {
        return Ok(respond::page(StatusCode::NOT_FOUND));
    }
    Ok(match route.as_str() {
        "/embed/authorize" => embed::respond(shared, site.as_deref(), request).await,
        "/token" => token_endpoint::respond(shared, site.as_deref(), request).await,
        _ => api::respond(shared, site.as_deref(), &route, request).await,
    })
}

/// `/bi/api/site/{site}/{route}` or `/bi/api/{route}`, in letters of any case up to the site.
fn site_and_route(path: &str) -> Option<(Option<&str>, &str)> {
    let behind = |path: &'_ str, start: &str| {
        let (first, _) = path.split_at_checked(start.len())?;
        first.eq_ignore_ascii_case(start).then_some(start.len())
    };
    let below = &path[behind(path, "/bi/api")?..];
    let below = below.starts_with('/').then_some(below)?;
    match behind(below, "/site/").map(|start| &below[start..]) {
        Some(rest) => {
            let end = rest.find('/')?;
            Some((Some(&rest[..end]), &rest[end..]))
        }
        None => Some((None, below)),
    }
}

/// Stands for the administration where a site is named. No site has this identifier.
const ADMINISTRATION: &str = "/";
/// The time for requests in flight to end.
const GRACE: Duration = Duration::from_secs(2);
/// More than the gateway lets through: too many headers must be refused by the gateway.
const MAX_HEADERS: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_listens_on_loopback_only() {
        for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
            let options =
                StandInOptions { address: address.parse().unwrap(), ..StandInOptions::default() };
            let error = StandIn::start(options).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
        let one = StandIn::start(StandInOptions::default()).await.unwrap();
        assert_ne!(one.addr().port(), 0);
        assert_eq!(one.url(), format!("http://{}/bi", one.addr()));
    }

    #[test]
    fn sites_are_found_in_paths() {
        assert_eq!(site_and_route("/bi/api/site/a/token"), Some((Some("a"), "/token")));
        assert_eq!(site_and_route("/bi/api/v5.0/items"), Some((None, "/v5.0/items")));
        assert_eq!(site_and_route("/BI/Api/SITE/a/x"), Some((Some("a"), "/x")));
        assert_eq!(site_and_route("/bi/api/site/a"), None);
        assert_eq!(site_and_route("/bi/apis"), None);
        assert_eq!(site_and_route("/ums"), None);
    }
}
