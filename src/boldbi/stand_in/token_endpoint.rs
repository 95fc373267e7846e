//! The token endpoint of a stand-in: the documented request and replies, and all replies that a
//! client must survive.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{CONTENT_TYPE, HeaderName, LOCATION};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use ring::hmac;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use url::form_urlencoded;

use super::respond::{self, StandInBody};
use super::state::{SharedState, State, failure};
use super::{ADMINISTRATION, StandInClient};
use crate::tenant::Grant;

/// The reply of the token endpoint to a valid request.
#[derive(Clone, Debug, Default)]
pub enum TokenReply {
    /// As since 2022: a JWT, with `expires_in` a number of seconds. (Bold BI: knowledge base
    /// 17540.)
    #[default]
    Current,
    /// As in 2020: an opaque token, `expires_in` a date, `.issued` and `.expires`.
    Dated,
    /// As the published API says: `expires_in` a number as text.
    Published,
    /// Without a lifetime.
    NoExpiry,
    /// A failure with status 200.
    FailedLogin,
    /// A page of HTML with status 200.
    Html,
    /// An empty body with status 200.
    Empty,
    /// Half of the JSON, in a complete HTTP response.
    Truncated,
    /// Half of the JSON, in a response that breaks off.
    BrokenOff,
    /// A valid reply of more than 64 KiB.
    Oversize,
    /// Two tokens under the same name.
    DuplicateKeys,
    /// A token with a line end in it, followed by a header.
    LineEndInToken,
    /// Status 307 and this `Location`.
    Redirect(String),
    /// No response at all.
    Never,
    /// A valid reply, byte by byte, with this pause before each.
    Drip(Duration),
    /// This response.
    Raw {
        /// Its status.
        status: StatusCode,
        /// Names and values of its headers.
        headers: Vec<(String, String)>,
        /// Its body.
        body: Vec<u8>,
    },
}

pub(super) async fn respond(
    shared: &SharedState,
    site: Option<&str>,
    request: Request<Incoming>,
) -> Response<StandInBody> {
    let fields = match received(shared, request).await {
        Ok(fields) => fields,
        Err(response) => return *response,
    };
    let reply = {
        let state = shared.state();
        match authenticate(&state, site, &fields) {
            Ok(()) => state.reply.clone(),
            Err(failure) => return failure.response(),
        }
    };
    granted(shared, site, &fields["username"], reply).await
}

/// The response to a client of the administration. (Bold BI: REST API v2.0 of the site
/// administration; the reply is that of its schema.)
pub(super) async fn respond_to_client(
    shared: &SharedState,
    client: &StandInClient,
    request: Request<Incoming>,
) -> Response<StandInBody> {
    let fields = match received(shared, request).await {
        Ok(fields) => fields,
        Err(response) => return *response,
    };
    let field = |name| fields.get(name).map_or("", String::as_str);
    let given = (field("grant_type"), field("client_id"), field("client_secret"));
    if given != ("client_credentials", &client.id, &client.secret) {
        return respond::json(StatusCode::BAD_REQUEST, &json!({"error": "invalid_client"}));
    }
    let good = issue(shared, Some(ADMINISTRATION), &client.id, true, None);
    respond::json(
        StatusCode::OK,
        &json!({
            "token_type": "bearer",
            "access_token": good.token,
            "expires_in": good.lifetime.as_secs().to_string(),
            "clientId": client.id,
            "TenantStatus": "Active",
        }),
    )
}

/// The fields of a request that is to be answered; or the response to any other.
async fn received(
    shared: &SharedState,
    request: Request<Incoming>,
) -> Result<HashMap<String, String>, Box<Response<StandInBody>>> {
    shared.counts.token_request();
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
        return Err(Box::new(respond::json(StatusCode::PAYLOAD_TOO_LARGE, &json!({}))));
    };
    let body = body.to_bytes();
    shared.record(&head, body.len() as u64);
    let (latency, failing) = {
        let mut state = shared.state();
        (state.token_latency, failure(&mut state.failing_tokens))
    };
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    if let Some(status) = failing {
        return Err(Box::new(respond::json(status, &json!({"Message": "made to fail"}))));
    }
    if head.method != Method::POST {
        let text = "Request type was not POST";
        return Err(Box::new(message(StatusCode::METHOD_NOT_ALLOWED, text)));
    }
    Ok(fields(&head.headers, &body))
}

/// The fields of the form or of the JSON object. Their names are in lower case, because official
/// samples send `Username`. (Bold BI: samples.)
fn fields(headers: &HeaderMap, body: &[u8]) -> HashMap<String, String> {
    let content_type = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    if content_type.starts_with(b"application/json") {
        let Ok(Value::Object(object)) = serde_json::from_slice(body) else {
            return HashMap::new();
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        object.iter().map(|(name, value)| (name.to_ascii_lowercase(), text(value))).collect()
    } else {
        form_urlencoded::parse(body)
            .map(|(name, value)| (name.to_ascii_lowercase(), value.into_owned()))
            .collect()
    }
}

enum LoginFailure {
    NoUsername,
    UnknownUser,
    WrongCredential,
}

impl LoginFailure {
    /// The first two are documented (Bold BI: REST API v1.0 to v6.0). The reply to a wrong secret
    /// is not; but a `LoginResult` in replies makes sense only if it can be false.
    fn response(&self) -> Response<StandInBody> {
        match self {
            Self::NoUsername => message(StatusCode::BAD_REQUEST, "Email address is empty"),
            Self::UnknownUser => message(StatusCode::NOT_FOUND, "User detail not found"),
            Self::WrongCredential => respond::json(StatusCode::OK, &failed_login()),
        }
    }
}

fn authenticate(
    state: &State,
    site: Option<&str>,
    fields: &HashMap<String, String>,
) -> Result<(), LoginFailure> {
    let field = |name| fields.get(name).map_or("", String::as_str);
    let email = Some(field("username")).filter(|email| !email.is_empty());
    let email = email.ok_or(LoginFailure::NoUsername)?;
    let site = state.sites.iter().find(|known| known.id.as_deref() == site);
    let site = site.ok_or(LoginFailure::UnknownUser)?;
    let user =
        site.users.iter().find(|user| user.email == email).ok_or(LoginFailure::UnknownUser)?;
    let good = match field("grant_type") {
        "embed_secret" => {
            let given = field("embed_secret");
            let others = [state.former_secrets.get(&site.id), state.common_secret.as_ref()];
            given == site.embed_secret || others.into_iter().flatten().any(|other| given == other)
        }
        "password" => {
            user.source.allows(Grant::Password)
                && Some(field("password")) == user.password.as_deref()
        }
        _ => false,
    };
    good.then_some(()).ok_or(LoginFailure::WrongCredential)
}

async fn granted(
    shared: &SharedState,
    site: Option<&str>,
    email: &str,
    reply: TokenReply,
) -> Response<StandInBody> {
    let jwt = !matches!(reply, TokenReply::Dated | TokenReply::Published | TokenReply::NoExpiry);
    let good = issue(shared, site, email, jwt, None);
    tracing::debug!(site, user = email, serial = good.serial, "a token was given");
    let current = good.current();
    let ok = |body: Value| respond::json(StatusCode::OK, &body);
    let text = |body: String| respond::whole(StatusCode::OK, "application/json", body);
    match reply {
        TokenReply::Current => ok(current),
        TokenReply::Dated => ok(good.dated()),
        TokenReply::Published => ok(json!({
            "access_token": good.token,
            "token_type": "bearer",
            "expires_in": good.lifetime.as_secs().to_string(),
            "Email": email,
        })),
        TokenReply::NoExpiry => ok(json!({"access_token": good.token, "token_type": "bearer"})),
        TokenReply::FailedLogin => ok(failed_login()),
        TokenReply::Html => respond::page(StatusCode::OK),
        TokenReply::Empty => text(String::new()),
        TokenReply::Truncated => {
            let mut half = current.to_string();
            half.truncate(half.len() / 2);
            text(half)
        }
        TokenReply::BrokenOff => respond::broken_off(&current.to_string()),
        TokenReply::Oversize => text(current.to_string() + &" ".repeat(64 * 1024)),
        TokenReply::DuplicateKeys => {
            text(format!(r#"{{"access_token":"{0}","access_token":"{0}"}}"#, good.token))
        }
        TokenReply::LineEndInToken => {
            ok(json!({"access_token": format!("{}\r\nX-Injected: yes", good.token)}))
        }
        TokenReply::Redirect(location) => {
            let mut response = ok(json!({}));
            *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
            insert(&mut response, LOCATION.as_str(), &location);
            response
        }
        TokenReply::Never => std::future::pending().await,
        TokenReply::Drip(pause) => respond::dripped(current.to_string(), pause),
        TokenReply::Raw { status, headers, body } => {
            let mut response = respond::whole(status, "application/json", body);
            for (name, value) in headers {
                insert(&mut response, &name, &value);
            }
            response
        }
    }
}

/// A token that was just issued.
pub(super) struct NewToken<'e> {
    token: String,
    email: &'e str,
    serial: u64,
    issued: OffsetDateTime,
    lifetime: Duration,
}

/// Issues a token that lives for `lifetime`, or as long as tokens of this stand-in do.
pub(super) fn issue<'e>(
    shared: &SharedState,
    site: Option<&str>,
    email: &'e str,
    jwt: bool,
    lifetime: Option<Duration>,
) -> NewToken<'e> {
    let mut state = shared.state();
    state.last_serial += 1;
    let (serial, lifetime) = (state.last_serial, lifetime.unwrap_or(state.token_lifetime));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let token = if jwt {
        let base = shared.url.as_str();
        let audience = site.map_or_else(|| format!("{base}/"), |id| format!("{base}/site/{id}"));
        signed(&json!({
            "email": email, "upn": email, "nameid": "1", "unique_name": email, "IP": "127.0.0.1",
            "issued_date": now.to_string(), "nbf": now, "iat": now, "exp": now + lifetime.as_secs(),
            "iss": audience, "aud": audience, "jti": serial.to_string(),
        }))
    } else {
        format!("made_up-opaque-token_{serial:010}")
    };
    state.issue(token.clone(), site, email, (serial, lifetime));
    let issued = OffsetDateTime::from_unix_timestamp(now.cast_signed());
    let issued = issued.unwrap_or(OffsetDateTime::UNIX_EPOCH);
    NewToken { token, email, serial, issued, lifetime }
}

impl NewToken<'_> {
    pub(super) fn token(&self) -> &str {
        &self.token
    }

    fn current(&self) -> Value {
        json!({
            "email": self.email,
            "idpreferenceid": "91e76354-60f3-4d12-acce-95c664a3e91e",
            "username": self.email,
            "access_token": self.token,
            "token_type": "bearer",
            "expires_in": self.lifetime.as_secs(),
            "LoginResult": "True",
            "LoginStatusInfo": "Authentication successful",
        })
    }

    fn dated(&self) -> Value {
        let en_us = |date: OffsetDateTime| {
            let form = format_description!(
                "[month padding:none]/[day padding:none]/[year] [hour repr:12 padding:none]:[minute]:[second] [period] [offset_hour sign:mandatory]:[offset_minute]"
            );
            date.format(form).unwrap_or_default()
        };
        let expires = self.issued + self.lifetime;
        json!({
            "email": self.email,
            "access_token": self.token,
            "token_type": "bearer",
            "expires_in": expires.format(&Rfc3339).unwrap_or_default(),
            ".issued": en_us(self.issued),
            ".expires": en_us(expires),
            "LoginResult": "True",
            "LoginStatusInfo": "Authentication successful",
        })
    }
}

/// A JWT by HS256 (RFC 7519, RFC 7518, section 3.2).
fn signed(claims: &Value) -> String {
    let head = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let message = format!("{head}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"a stand-in's key, known to all");
    let signature = hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn failed_login() -> Value {
    json!({"access_token": null, "LoginResult": "False", "LoginStatusInfo": "Invalid credentials"})
}

fn message(status: StatusCode, text: &str) -> Response<StandInBody> {
    respond::json(status, &json!({"Message": text, "Status": false}))
}

fn insert(response: &mut Response<StandInBody>, name: &str, value: &str) {
    let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_str(value)) else {
        tracing::warn!(name, "a stand-in was told to send a header that cannot be sent");
        return;
    };
    response.headers_mut().insert(name, value);
}

const MAX_BODY: usize = 64 * 1024;
