//! Requests that rotate the embed secret of a site. (Bold BI: REST API v4.0 and v5.0, "Generate
//! Embed Secret"; knowledge base 621. Reading it back: knowledge base 16281.)

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
    /// The request was refused: the secret is as it was.
    #[error("Bold BI refuses it: {0}")]
    Refused(String),
    /// The request may have been carried out, and the reply is lost.
    #[error("it is unknown whether Bold BI did it: {0}")]
    Unknown(String),
}

/// Asks Bold BI for a new embed secret, which replaces the site's at once. It is sent once, on a
/// connection of its own, and never again.
///
/// # Errors
/// When Bold BI refuses it, or there is no reply that has the new secret.
pub async fn generate(tenant: &Tenant, token: &AccessToken) -> Result<Secret, NoNewSecret> {
    let (status, body) = send(tenant, Method::POST, GENERATE, token).await?;
    match status.as_u16() {
        200..=299 => secret_in(&body).ok_or_else(|| {
            NoNewSecret::Unknown(format!("its reply ({status}) has no secret that can be used"))
        }),
        408 | 500..=599 => Err(NoNewSecret::Unknown(format!("it answers with status {status}"))),
        _ => Err(NoNewSecret::Refused(format!("it answers with status {status}"))),
    }
}

/// The secret of the site, as far as Bold BI lets it be read.
///
/// # Errors
/// When there is no reply that has it.
pub async fn read_back(tenant: &Tenant, token: &AccessToken) -> Result<Secret, NoNewSecret> {
    let (status, body) = send(tenant, Method::GET, READ_BACK, token).await?;
    let secret = secret_in(&body).filter(|_| status.is_success());
    secret.ok_or_else(|| NoNewSecret::Refused(format!("it answers with status {status}")))
}

async fn send(
    tenant: &Tenant,
    method: Method,
    route: &str,
    token: &AccessToken,
) -> Result<(StatusCode, Zeroizing<Vec<u8>>), NoNewSecret> {
    // A connection of its own: on a used one, the request might be sent twice.
    let client = Client::new(&tenant.server);
    let client = client.map_err(|error| NoNewSecret::Refused(error.to_string()))?;
    let url = format!("{}{}{route}", tenant.server.origin(), tenant.api_base);
    let mut request = Request::builder()
        .method(&method)
        .uri(url)
        .header(ACCEPT, HeaderValue::from_static("application/json"))
        .header(AUTHORIZATION, token.authorization());
    if method == Method::POST {
        request = request.header(CONTENT_LENGTH, HeaderValue::from(0));
    }
    let request = request.body(Bytes::new());
    let request = request.map_err(|error| NoNewSecret::Refused(error.to_string()))?;
    let deadline = tenant.server.timeouts.exchange;
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

const GENERATE: &str = "/v5.0/settings/embed-secret/generate";
const READ_BACK: &str = "/v5.0/settings/embed-secret";

#[cfg(test)]
mod tests {
    use super::*;

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
