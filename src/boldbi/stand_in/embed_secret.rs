//! The embed secret of a site of a stand-in, which administrators generate and read. (Bold BI: REST
//! API v4.0 and v5.0, "Generate Embed Secret"; knowledge base 16281.)

use http::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::respond::{self, StandInBody};
use super::state::{Issued, SharedState};

/// The reply to a request for a new embed secret.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GenerateReply {
    /// The new secret.
    #[default]
    Current,
    /// The secret is generated, and no response comes.
    Lost,
    /// Nothing is generated, and no response comes.
    Ignored,
    /// The secret is generated, and the response is a failure of a proxy in between.
    BadGateway,
    /// The secret is generated, and the response says in words that it is not.
    InWords,
    /// Nothing is generated: there is no such route.
    NoSuchRoute,
}

/// The response to a request for an embed secret; `None` if it is for something else.
pub(super) async fn respond(
    shared: &SharedState,
    site: Option<&str>,
    method: &Method,
    route: &str,
    issued: &Issued,
) -> Option<Response<StandInBody>> {
    let route = route.strip_prefix("/v5.0").or_else(|| route.strip_prefix("/v4.0"))?;
    let is_generate = match (method, route) {
        (&Method::POST, "/settings/embed-secret/generate") => true,
        (&Method::GET, "/settings/embed-secret") => false,
        _ => return None,
    };
    if !issued.user.starts_with(ADMINISTRATOR) {
        return Some(respond::json(
            StatusCode::FORBIDDEN,
            &failure("Only administrators may do this."),
        ));
    }
    if is_generate { Some(generate(shared, site).await) } else { Some(read(shared, site)) }
}

async fn generate(shared: &SharedState, site: Option<&str>) -> Response<StandInBody> {
    let (reply, secret) = {
        let mut state = shared.state();
        let reply = state.generate;
        if matches!(reply, GenerateReply::Ignored | GenerateReply::NoSuchRoute) {
            (reply, String::new())
        } else {
            state.last_serial += 1;
            let secret = format!("canary-generated-embed-secret-{:06}", state.last_serial);
            state.former_secrets.remove(&site.map(str::to_owned));
            let mut sites = state.sites.iter_mut();
            if let Some(known) = sites.find(|known| known.id.as_deref() == site) {
                known.embed_secret.clone_from(&secret);
            }
            (reply, secret)
        }
    };
    match reply {
        GenerateReply::Current => respond::json(StatusCode::OK, &success(&secret)),
        GenerateReply::Lost | GenerateReply::Ignored => std::future::pending().await,
        GenerateReply::InWords => respond::json(StatusCode::OK, &failure("The license has ended.")),
        GenerateReply::BadGateway => respond::page(StatusCode::BAD_GATEWAY),
        GenerateReply::NoSuchRoute => respond::page(StatusCode::NOT_FOUND),
    }
}

fn read(shared: &SharedState, site: Option<&str>) -> Response<StandInBody> {
    let state = shared.state();
    let known = state.sites.iter().find(|known| known.id.as_deref() == site);
    match known.filter(|_| state.shows_secret) {
        Some(known) => respond::json(StatusCode::OK, &success(&known.embed_secret)),
        None => respond::json(StatusCode::NOT_FOUND, &json!({"Message": "no such route"})),
    }
}

fn success(secret: &str) -> Value {
    json!({"ApiStatus": true, "Data": secret, "Status": true, "StatusMessage": "x"})
}

fn failure(words: &str) -> Value {
    json!({"ApiStatus": true, "Data": null, "Status": false, "StatusMessage": words})
}

/// The users whose names begin like this are administrators.
const ADMINISTRATOR: &str = "admin";
