//! The body of a request to the token endpoint, and its type. Pure. Buffers have their final size
//! from the start, because growing would make a copy of the secret that is not erased. They are
//! zeroised when dropped.

use bytes::Bytes;
use http::HeaderValue;
use serde::Serialize;
use url::form_urlencoded;
use zeroize::Zeroizing;

use crate::secret::Secret;
use crate::tenant::{Credential, ExchangeBody, Grant};

/// A body for the token endpoint. It has no `Debug`, because it holds the secret.
pub(super) struct GrantBody {
    /// Value of `Content-Type`.
    pub content_type: HeaderValue,
    /// The body itself; its memory is overwritten when the last reference is dropped.
    pub bytes: Bytes,
}

/// The body that exchanges `credential`, with its `secret`, for a token of `username`.
pub(super) fn body(credential: &Credential, secret: &Secret, username: &str) -> GrantBody {
    let (content_type, bytes) = match credential.body {
        ExchangeBody::Form => {
            ("application/x-www-form-urlencoded", form(credential, secret, username))
        }
        ExchangeBody::Json => ("application/json", json(credential, secret, username)),
    };
    let content_type = HeaderValue::from_static(content_type);
    GrantBody { content_type, bytes: Bytes::from_owner(bytes) }
}

/// The form that the official samples send; keys in lower case. (Bold BI: samples, "SDK Samples";
/// published API, "try it now" files.)
fn form(credential: &Credential, secret: &Secret, username: &str) -> Zeroizing<Vec<u8>> {
    let secret = secret.expose();
    // Each byte becomes three at most.
    let room = 3 * (username.len() + secret.len()) + FIXED_PARTS;
    let mut text = Zeroizing::new(String::with_capacity(room));
    form_urlencoded::Serializer::new(&mut *text)
        .append_pair("grant_type", credential.grant.as_str())
        .append_pair(name_field(credential.grant), username)
        .append_pair(secret_field(credential.grant), secret);
    debug_assert!(text.len() <= room, "the buffer never grows");
    Zeroizing::new(std::mem::take(&mut *text).into_bytes())
}

/// The JSON object of the published API. (Bold BI: REST API v4.0 to v6.0, `PasswordAuth` and
/// `EmbedSecretAuth`.)
fn json(credential: &Credential, secret: &Secret, username: &str) -> Zeroizing<Vec<u8>> {
    #[derive(Serialize)]
    struct FormFields<'c> {
        username: &'c str,
        #[serde(skip_serializing_if = "Option::is_none")]
        embed_secret: Option<&'c str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        password: Option<&'c str>,
        grant_type: &'static str,
    }
    let secret = secret.expose();
    let fields = FormFields {
        username,
        embed_secret: (credential.grant == Grant::EmbedSecret).then_some(secret),
        password: (credential.grant == Grant::Password).then_some(secret),
        grant_type: credential.grant.as_str(),
    };
    // Each byte becomes six at most (`\u001f`).
    let room = 6 * (username.len() + secret.len()) + FIXED_PARTS;
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    serde_json::to_writer(&mut *bytes, &fields).expect("text can always be written to memory");
    debug_assert!(bytes.len() <= room, "the buffer never grows");
    bytes
}

fn secret_field(grant: Grant) -> &'static str {
    match grant {
        Grant::Password => "password",
        Grant::EmbedSecret => "embed_secret",
        Grant::ClientCredentials => "client_secret",
        Grant::Token => unreachable!("{NOT_EXCHANGED}"),
    }
}

fn name_field(grant: Grant) -> &'static str {
    match grant {
        Grant::Password | Grant::EmbedSecret => "username",
        Grant::ClientCredentials => "client_id",
        Grant::Token => unreachable!("{NOT_EXCHANGED}"),
    }
}

const NOT_EXCHANGED: &str = "a personal access token is not exchanged";

/// More than the length of the field names and separators.
const FIXED_PARTS: usize = 128;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn sent(grant: Grant, body_type: ExchangeBody, username: &str, secret: &str) -> String {
        let credential = Credential {
            grant,
            username: Arc::from("not the subject"),
            secret: None,
            source: None,
            extra: None,
            hold: std::time::Duration::ZERO,
            body: body_type,
            version: 0,
            identity: 0,
        };
        String::from_utf8(body(&credential, &Secret::new(secret.into()), username).bytes.to_vec())
            .unwrap()
    }

    #[test]
    fn t1_a_hostile_password_survives_the_form() {
        assert_eq!(
            sent(Grant::Password, ExchangeBody::Form, "a+b@x.io", "p&ss=w%rd+1 é"),
            "grant_type=password&username=a%2Bb%40x.io&password=p%26ss%3Dw%25rd%2B1+%C3%A9"
        );
    }

    #[test]
    fn t16_json_request() {
        assert_eq!(
            sent(
                Grant::EmbedSecret,
                ExchangeBody::Json,
                "user@example.com",
                "test-embed-secret-for-vectors-00"
            ),
            r#"{"username":"user@example.com","embed_secret":"test-embed-secret-for-vectors-00","grant_type":"embed_secret"}"#
        );
    }

    #[test]
    fn both_grants_go_with_both_bodies() {
        assert_eq!(
            sent(Grant::EmbedSecret, ExchangeBody::Form, "u", "s/+="),
            "grant_type=embed_secret&username=u&embed_secret=s%2F%2B%3D"
        );
        assert_eq!(
            sent(Grant::Password, ExchangeBody::Json, "u", "\u{1f}\"\\"),
            r#"{"username":"u","password":"\u001f\"\\","grant_type":"password"}"#
        );
    }

    #[test]
    fn the_client_of_an_installation_sends_a_form_as_the_official_client_does() {
        assert_eq!(
            sent(
                Grant::ClientCredentials,
                ExchangeBody::Form,
                "92773343-0000-4000-8000-000000000000",
                "ab+c/d=="
            ),
            "grant_type=client_credentials&client_id=92773343-0000-4000-8000-000000000000&\
             client_secret=ab%2Bc%2Fd%3D%3D"
        );
    }

    #[test]
    fn the_worst_secret_fits_its_buffer() {
        let secret = "\u{1f}é&".repeat(1000);
        for body_type in [ExchangeBody::Form, ExchangeBody::Json] {
            sent(Grant::EmbedSecret, body_type, &secret, &secret);
        }
    }
}
