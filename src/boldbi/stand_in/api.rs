//! The API of a stand-in: it requires a valid token of the site, and describes each request in its
//! response.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use data_encoding::HEXLOWER;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use ring::digest;
use serde_json::{Value, json};
use url::form_urlencoded;

use super::respond::{self, StandInBody};
use super::state::{Issued, SharedState, failure};
use super::{ObservedRequest, embed_secret};

pub(super) async fn respond(
    shared: &SharedState,
    site: Option<&str>,
    route: &str,
    request: Request<Incoming>,
) -> Response<StandInBody> {
    shared.counts.api_request();
    let (head, body) = request.into_parts();
    let Ok(body) = BodyDigest::of(body).await else {
        return respond::json(StatusCode::BAD_REQUEST, &json!({"Message": "broken body"}));
    };
    shared.record(&head, body.length);
    let (latency, failing, issued) = {
        let mut state = shared.state();
        let issued = bearer(&head).and_then(|token| state.live(token, site));
        (state.api_latency, failure(&mut state.failing_api), issued)
    };
    if let Some(observer) = &shared.observer {
        let lives = if issued.is_some() { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
        observer.call(&ObservedRequest {
            site,
            holder: bearer(&head).and_then(|token| holder(shared, token)),
            method: &head.method,
            target: &head.uri.to_string(),
            status: failing.unwrap_or(lives),
        });
    }
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    if let Some(status) = failing {
        return respond::json(status, &json!({"Message": "made to fail"}));
    }
    let Some(issued) = issued else {
        tracing::debug!(site, method = %head.method, "a request without a live token");
        let mut response =
            respond::json(StatusCode::UNAUTHORIZED, &json!({"Message": "Access denied"}));
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return response;
    };
    let secret = embed_secret::respond(shared, site, &head.method, route, &issued).await;
    let mut response = secret.unwrap_or_else(|| served(&head, route, site, &issued, &body));
    let headers = response.headers_mut();
    headers.insert("stand-in-token", HeaderValue::from(issued.serial));
    if let Ok(user) = HeaderValue::from_str(&issued.user) {
        headers.insert("stand-in-user", user);
    }
    // For responses whose body does not name the target.
    if let Ok(target) = HeaderValue::from_str(&head.uri.to_string()) {
        headers.insert("stand-in-target", target);
    }
    response
}

/// Site and user of a token. They are in the token itself, if it has ended and is a JWT.
fn holder(shared: &SharedState, token: &str) -> Option<(Option<String>, String)> {
    if let Some(issued) = shared.state().tokens.get(token) {
        return Some((issued.site.clone(), issued.user.clone()));
    }
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    let site = claims["aud"].as_str()?.rsplit_once("/site/").map(|(_, site)| site.to_owned());
    Some((site, claims["email"].as_str()?.to_owned()))
}

fn served(
    head: &Parts,
    route: &str,
    site: Option<&str>,
    issued: &Issued,
    body: &BodyDigest,
) -> Response<StandInBody> {
    let query = head.uri.query().unwrap_or_default();
    let parameter = |name: &str| {
        form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name).map(|(_, v)| v)
    };
    if let Some(size) = parameter("size").and_then(|size| size.parse().ok()) {
        return respond::download(size, parameter("chunked").is_some());
    }
    if let Some(list) = list(&head.method, route, &issued.user) {
        return respond::json(StatusCode::OK, &list);
    }
    let headers: Vec<_> = head
        .headers
        .iter()
        .map(|(name, value)| {
            if name == AUTHORIZATION {
                return json!([name.as_str(), format!("token {}", issued.serial)]);
            }
            json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())])
        })
        .collect();
    respond::json(
        StatusCode::OK,
        &json!({
            "site": site,
            "user": issued.user,
            "token": issued.serial,
            "method": head.method.as_str(),
            "target": head.uri.to_string(),
            "headers": headers,
            "body": {"length": body.length, "sha256": body.sha256},
        }),
    )
}

/// Some lists of v4.0 and v5.0, for the demo.
fn list(method: &Method, route: &str, user: &str) -> Option<Value> {
    let route = route.strip_prefix("/v4.0/").or_else(|| route.strip_prefix("/v5.0/"))?;
    if *method != Method::GET {
        return None;
    }
    let item = |id: &str, name: &str, kind: &str| {
        json!({
            "Id": id, "Name": name, "ItemType": kind, "Description": "", "CanRead": true,
            "CreatedByDisplayName": user, "ModifiedDate": "2026-01-15T08:30:00Z",
        })
    };
    let sales = item("c5bab292-0ee6-4ee7-9dfa-d6b3cffed7ff", "Sales", "Dashboard");
    let stock = item("8428c9d9-85db-418c-b877-ea4495dcddd7", "Stock", "Dashboard");
    Some(match route {
        "dashboards" => json!([sales, stock]),
        "items" => {
            let orders = item("6e12ea66-1e73-445f-be33-469984f5d83b", "Orders", "Datasource");
            json!([sales, stock, orders])
        }
        "users" => json!({"UserList": [{"Email": user, "Username": user, "IsActive": true}]}),
        "groups" => json!({"GroupList": [{"Id": 1, "Name": "Everyone"}]}),
        _ => return None,
    })
}

/// The token in `Authorization`. The scheme may be in any case (RFC 9110, section 11.1).
fn bearer(head: &Parts) -> Option<&str> {
    let (scheme, token) = head.headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

/// Length and hash of a body, which is read to its end but not kept.
struct BodyDigest {
    length: u64,
    sha256: String,
}

impl BodyDigest {
    async fn of(mut body: Incoming) -> Result<Self, hyper::Error> {
        let mut length = 0;
        let mut context = digest::Context::new(&digest::SHA256);
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data() {
                length += data.len() as u64;
                context.update(&data);
            }
        }
        Ok(Self { length, sha256: HEXLOWER.encode(context.finish().as_ref()) })
    }
}
