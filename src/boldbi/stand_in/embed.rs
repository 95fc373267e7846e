//! The embed endpoint of a stand-in: the signed query, whose signature is checked over the bytes
//! that came, and the JSON body.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use ring::hmac;
use serde_json::{Value, json};

use super::respond::{self, StandInBody};
use super::state::{SharedState, failure};
use super::token_endpoint::issue;

/// An embed call that was found good.
struct Call {
    email: String,
    dashboard: Option<String>,
    lifetime: Duration,
    /// The filters as they came.
    filter: String,
}

pub(super) async fn respond(
    shared: &SharedState,
    site: Option<&str>,
    request: Request<Incoming>,
) -> Response<StandInBody> {
    shared.counts.embed_request();
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
        return respond::json(StatusCode::PAYLOAD_TOO_LARGE, &json!({}));
    };
    let body = body.to_bytes();
    shared.record(&head, body.len() as u64);
    let (latency, failing) = {
        let mut state = shared.state();
        (state.token_latency, failure(&mut state.failing_embeds))
    };
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    if let Some(status) = failing {
        return respond::json(status, &json!({"Message": "made to fail"}));
    }
    let call = match head.method {
        Method::GET => signed(shared, site, &head),
        Method::POST => by_json(shared, site, &body),
        _ => return respond::json(StatusCode::METHOD_NOT_ALLOWED, &json!({})),
    };
    match call {
        Ok(call) => granted(shared, site, &call),
        Err(Refused::Secret) => {
            let in_words = shared.state().refuses_in_words;
            let status = if in_words { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
            respond::json(status, &failed("Embed authentication failed"))
        }
        Err(Refused::Call(message)) => respond::json(StatusCode::OK, &failed(message)),
    }
}

enum Refused {
    /// The signature or the secret is wrong.
    Secret,
    /// The user or the dashboard is.
    Call(&'static str),
}

/// The secrets that work for a site.
fn secrets(shared: &SharedState, site: Option<&str>) -> Vec<String> {
    let state = shared.state();
    let known = state.sites.iter().find(|known| known.id.as_deref() == site);
    let former = state.former_secrets.get(&site.map(str::to_owned)).cloned();
    let own = known.map(|known| known.embed_secret.clone());
    own.into_iter().chain(former).chain(state.common_secret.clone()).collect()
}

fn signed(shared: &SharedState, site: Option<&str>, head: &Parts) -> Result<Call, Refused> {
    let query = head.uri.query().unwrap_or_default();
    let (message, signature) = query.rsplit_once("&embed_signature=").ok_or(Refused::Secret)?;
    let signature = STANDARD.decode(signature).map_err(|_| Refused::Secret)?;
    let is_by = |secret: &String| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        hmac::verify(&key, message.as_bytes(), &signature).is_ok()
    };
    if !secrets(shared, site).iter().any(is_by) {
        return Err(Refused::Secret);
    }
    let value = |name: &str| {
        let mut pairs = message.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(known, _)| *known == name).map(|(_, value)| value.to_owned())
    };
    let number = |name: &str| value(name).and_then(|text| text.parse::<u64>().ok());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let sent_at = number("embed_server_timestamp").or_else(|| number("embed_timestamp"));
    if sent_at.is_none_or(|at| at.abs_diff(now) > MAX_SKEW) {
        return Err(Refused::Call("The embed URL has expired"));
    }
    let nonce = value("embed_nonce").unwrap_or_default();
    if !shared.state().nonces.insert(nonce) {
        return Err(Refused::Call("The nonce was used before"));
    }
    let filter = message.split_once("&embed_datasource_filter=").map_or("", |(_, filter)| filter);
    Ok(Call {
        email: value("embed_user_email").unwrap_or_default(),
        dashboard: value("embed_dashboard_id").filter(|id| !id.is_empty()),
        lifetime: Duration::from_secs(number("embed_expirationtime").unwrap_or(DEFAULT_LIFETIME)),
        filter: filter.to_owned(),
    })
}

fn by_json(shared: &SharedState, site: Option<&str>, body: &[u8]) -> Result<Call, Refused> {
    let fields: Value = serde_json::from_slice(body).map_err(|_| Refused::Secret)?;
    let text = |name: &str| fields[name].as_str().unwrap_or_default().to_owned();
    let identifier = site.map(|site| format!("site/{site}")).unwrap_or_default();
    if !secrets(shared, site).contains(&text("embedsecret")) || text("siteidentifier") != identifier
    {
        return Err(Refused::Secret);
    }
    let names = ["datasourcefilters", "dashboardparameters", "customattributes"];
    let filters: Vec<_> = names.iter().filter(|name| fields.get(name).is_some()).collect();
    let filters = filters.iter().map(|name| format!("{name}: {}", fields[**name]));
    Ok(Call {
        email: text("email"),
        dashboard: fields["dashboard"]["id"].as_str().map(str::to_owned),
        lifetime: Duration::from_secs(DEFAULT_LIFETIME),
        filter: filters.collect::<Vec<_>>().join(", "),
    })
}

/// The documented reply. The details are JSON as text. (Bold BI: "Token generation".)
fn granted(shared: &SharedState, site: Option<&str>, call: &Call) -> Response<StandInBody> {
    let is_user = {
        let state = shared.state();
        let site = state.sites.iter().find(|known| known.id.as_deref() == site);
        site.is_some_and(|site| site.users.iter().any(|user| user.email == call.email))
    };
    if !is_user {
        return respond::json(StatusCode::OK, &failed("User detail not found"));
    }
    let token = issue(shared, site, &call.email, true, Some(call.lifetime));
    let name = if call.dashboard.as_deref() == Some(STOCK) { "Stock" } else { "Sales" };
    let item = json!({"Id": call.dashboard, "Name": name, "ItemType": "Dashboard"});
    respond::json(
        StatusCode::OK,
        &json!({
            "ApiStatus": true,
            "Data": {
                "email": call.email,
                "access_token": token.token(),
                "token_type": "bearer",
                "ItemDetail": item.to_string(),
                "UserDetail": json!({"Email": call.email}).to_string(),
                "StandInFilter": call.filter,
            },
            "Status": true,
        }),
    )
}

fn failed(message: &str) -> Value {
    json!({"ApiStatus": false, "Message": message, "Status": false})
}

const MAX_BODY: usize = 64 * 1024;
/// Seconds by which a call may be early or late.
const MAX_SKEW: u64 = 300;
const DEFAULT_LIFETIME: u64 = 86_400;
const STOCK: &str = "8428c9d9-85db-418c-b877-ea4495dcddd7";
