//! Requests that rotate the embed secret of a site. (Bold BI: REST API v4.0 and v5.0, "Generate
//! Embed Secret"; knowledge base 621. Reading it back: knowledge base 16281.)

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, HeaderValue};
use http::{Method, Request, StatusCode};
use serde_json::Value;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::exchange::Client;
use super::reply::MAX_BODY;
use crate::fetch::FetchError;
use crate::secret::Secret;
use crate::tenant::Tenant;
use crate::token::AccessToken;

/// Why there is no new secret.
#[derive(Debug, thiserror::Error)]
pub enum NoNewSecret {
    /// The request was refused, with this status if there was a response: the secret is as it was.
    #[error("Bold BI refuses it: {0}")]
    Refused(String, Option<StatusCode>),
    /// The request may have been carried out, and the reply is lost.
    #[error("it is unknown whether Bold BI did it: {0}")]
    Unknown(String),
}

impl NoNewSecret {
    /// The remedy.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Refused(_, Some(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)) => {
                ADMINISTRATOR
            }
            Self::Refused(_, Some(StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED)) => {
                NO_SUCH_ROUTE
            }
            Self::Refused(..) | Self::Unknown(_) => LOGS,
        }
    }
}

/// Asks Bold BI for a new embed secret, which replaces the site's at once. It is sent once, on a
/// connection of its own, and never again. It may take as long as `deadline`.
///
/// # Errors
/// When Bold BI refuses it, or there is no reply that has the new secret.
pub async fn generate(
    tenant: &Tenant,
    token: &AccessToken,
    deadline: Duration,
) -> Result<Secret, NoNewSecret> {
    let (status, body) = send(tenant, Method::POST, GENERATE, token, deadline).await?;
    match status.as_u16() {
        200..=299 => secret_in(&body).ok_or_else(|| {
            let said = said(&body);
            let what = format!("its reply ({status}) has no secret that can be used{said}");
            NoNewSecret::Unknown(what)
        }),
        408 | 500..=599 => Err(NoNewSecret::Unknown(answered(tenant, GENERATE, status, &body))),
        _ => Err(NoNewSecret::Refused(answered(tenant, GENERATE, status, &body), Some(status))),
    }
}

/// The secret of the site, as far as Bold BI lets it be read.
///
/// # Errors
/// When there is no reply that has it.
pub async fn read_back(tenant: &Tenant, token: &AccessToken) -> Result<Secret, NoNewSecret> {
    let deadline = tenant.server.timeouts.exchange;
    let (status, body) = send(tenant, Method::GET, READ_BACK, token, deadline).await?;
    let secret = secret_in(&body).filter(|_| status.is_success());
    secret.ok_or_else(|| {
        let said = answered(tenant, READ_BACK, status, &body);
        match status.as_u16() {
            408 | 429 | 500..=599 => NoNewSecret::Unknown(said),
            _ => NoNewSecret::Refused(said, Some(status)),
        }
    })
}

/// A response without a secret in words.
fn answered(tenant: &Tenant, route: &str, status: StatusCode, body: &[u8]) -> String {
    let (url, said) = (url(tenant, route), said(body));
    format!("`{url}` answers with status {status}{said}")
}

fn url(tenant: &Tenant, route: &str) -> String {
    format!("{}{}{route}", tenant.server.origin(), tenant.api_base)
}

async fn send(
    tenant: &Tenant,
    method: Method,
    route: &str,
    token: &AccessToken,
    deadline: Duration,
) -> Result<(StatusCode, Zeroizing<Vec<u8>>), NoNewSecret> {
    // A connection of its own: on a used one, the request might be sent twice.
    let client = Client::new(&tenant.server);
    let client = client.map_err(|error| NoNewSecret::Refused(error.to_string(), None))?;
    let mut request = Request::builder()
        .method(&method)
        .uri(url(tenant, route))
        .header(ACCEPT, HeaderValue::from_static("application/json"))
        .header(AUTHORIZATION, token.authorization());
    if method == Method::POST {
        request = request.header(CONTENT_LENGTH, HeaderValue::from(0));
    }
    let request = request.body(Bytes::new());
    let request = request.map_err(|error| NoNewSecret::Refused(error.to_string(), None))?;
    let exchanged = timeout(deadline, async {
        let (head, body) = client.fetcher().send(request).await?.into_parts();
        Ok::<_, FetchError>((head.status, body.whole(MAX_BODY).await?))
    });
    match exchanged.await {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(error)) => Err(NoNewSecret::Unknown(error.to_string())),
        Err(_) => Err(NoNewSecret::Unknown(format!("no whole reply within {deadline:?}"))),
    }
}

/// The secret in `{"ApiStatus": true, "Data": "…", "Status": true}`.
fn secret_in(body: &[u8]) -> Option<Secret> {
    let mut reply: Value = serde_json::from_slice(body).ok()?;
    let is_true = |name: &str| reply.get(name).is_none_or(|value| value == &Value::Bool(true));
    if !is_true("Status") || !is_true("ApiStatus") {
        return None;
    }
    let Some(Value::String(text)) = reply.get_mut("Data").map(Value::take) else { return None };
    Secret::from_file(Ok(Zeroizing::new(text.into_bytes()))).ok()
}

/// Bold BI's own words behind a colon, if there are any.
fn said(body: &[u8]) -> String {
    message_in(body).map(|text| format!(": \"{text}\"")).unwrap_or_default()
}

/// Bold BI's own words in a reply without a secret, escaped. `None` if they could hold a secret: a
/// secret is one long word, or one of letters and digits.
fn message_in(body: &[u8]) -> Option<String> {
    let reply: Value = serde_json::from_slice(body).ok()?;
    let text = reply.get("StatusMessage")?.as_str()?.trim();
    let is_harmless = |word: &str| {
        let has = |wanted: fn(char) -> bool| word.chars().any(wanted);
        let is_mixed = has(char::is_alphabetic) && has(char::is_numeric);
        word.chars().count() <= MAX_WORD && !is_mixed
    };
    let is_secret = text.is_empty() || !text.split_whitespace().all(is_harmless);
    let is_in_data = reply
        .get("Data")
        .and_then(Value::as_str)
        .is_some_and(|data| !data.is_empty() && text.contains(data));
    if is_secret || is_in_data {
        return None;
    }
    let mut shown: String = text.chars().take(MAX_MESSAGE).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    Some(shown.escape_debug().to_string())
}

/// Shorter than any embed secret.
const MAX_WORD: usize = 20;
const MAX_MESSAGE: usize = 200;
const ADMINISTRATOR: &str = "the user of `--admin-subject` must be an administrator of the site";
const NO_SUCH_ROUTE: &str = "compare the `url` of the server and the `site` of the tenant with Bold BI's address. If they are right, \
                             this version has no API for it: generate the secret in Bold BI (Settings > Embed) and \
                             write it to the file";
const LOGS: &str = "look into the logs of Bold BI, and of proxies in front of it";
const GENERATE: &str = "/v5.0/settings/embed-secret/generate";
const READ_BACK: &str = "/v5.0/settings/embed-secret";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_bold_bi_are_shown_unless_they_could_hold_a_secret() {
        let shown = |text: &str| {
            let body =
                serde_json::json!({"Status": false, "Data": "topsecret", "StatusMessage": text});
            message_in(body.to_string().as_bytes())
        };
        assert_eq!(shown("No permission.").as_deref(), Some("No permission."));
        assert_eq!(shown("a\n\u{1b}[31mb \"c\"").as_deref(), None, "an escape with digits");
        assert_eq!(shown("a\u{1b}[m \"c\"").as_deref(), Some("a\\u{1b}[m \\\"c\\\""));
        let long = "word ".repeat(100);
        assert_eq!(shown(&long).unwrap().chars().count(), MAX_MESSAGE + 1);
        for text in ["", " ", "canary-a-new-secret-of-Bold-BI", "it is x7Kq2", "it is topsecret"] {
            assert_eq!(shown(text), None, "{text}");
        }
        assert_eq!(message_in(b"{\"StatusMessage\": 7}"), None);
        assert_eq!(message_in(b"no JSON"), None);
    }

    #[test]
    fn only_a_successful_reply_with_one_usable_text_has_a_secret() {
        let read = |body: &str| secret_in(body.as_bytes()).map(|s| s.expose().to_owned());
        let whole = r#"{"ApiStatus":true,"Data":"canary-S2","Status":true,"StatusMessage":"x"}"#;
        assert_eq!(read(whole).as_deref(), Some("canary-S2"));
        for body in [
            "",
            "canary-S2",
            "{}",
            r#"{"Data":""}"#,
            r#"{"Data":null,"Status":true}"#,
            r#"{"Data":["canary-S2"]}"#,
            r#"{"Data":"canary-S2","Status":false}"#,
            r#"{"Data":"canary-S2","ApiStatus":"True"}"#,
            r#"{"Data":"canary S2\nmore"}"#,
            r#"{"Data":" canary-S2"}"#,
        ] {
            assert_eq!(read(body), None, "{body}");
        }
    }
}
