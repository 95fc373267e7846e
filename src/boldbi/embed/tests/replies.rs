//! Bold BI's replies: those that go to a page, those that do not, and the tokens in them.

use std::time::SystemTime;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::time::Instant;

use super::super::reply;
use super::*;
use crate::boldbi::reply::Asked;
use crate::token::ExchangeErrorKind;

fn typed(content_type: &'static str) -> HeaderMap {
    [(CONTENT_TYPE, HeaderValue::from_static(content_type))].into_iter().collect()
}

fn token(body: &str, mapped: Option<&str>) -> Result<(String, u64), ExchangeErrorKind> {
    let asked = Asked { at: Instant::now(), clock: SystemTime::now() };
    let longest = Duration::from_secs(7200);
    let token = reply::token(&typed("application/json"), body.as_bytes(), mapped, asked, longest)?;
    Ok((String::from_utf8_lossy(token.as_bytes()).into_owned(), token.lifetime().as_secs()))
}

#[test]
fn only_a_200_with_json_without_our_secret_goes_to_a_page() {
    let json = typed("application/json");
    assert!(reply::head(StatusCode::OK, &json).is_ok());
    for status in [201, 204, 302, 400, 401, 403, 404, 429, 500, 503] {
        let status = StatusCode::from_u16(status).unwrap();
        assert!(reply::head(status, &json).is_err(), "{status}");
    }
    assert!(reply::head(StatusCode::OK, &typed("text/html; charset=utf-8")).is_err());
    let mut compressed = json.clone();
    compressed.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    assert!(reply::head(StatusCode::OK, &compressed).is_err());
    let secret = Secret::new(SECRET.into());
    let goes = |body: &str| reply::body(&json, body.as_bytes(), &secret).is_ok();
    for body in ["{\"Status\":true}", "\"{\\\"Status\\\":true}\"", "[]", " {} ", "\u{feff}{}"] {
        assert!(goes(body), "{body}");
    }
    for body in ["", " ", "<html>", "{", "{}{}", "no json"] {
        assert!(!goes(body), "{body}");
    }
    assert!(!goes(&format!("{{\"embedsecret\":\"{SECRET}\"}}")));
    let kept = reply::body(&typed("text/plain"), b"{}", &secret).unwrap();
    assert_eq!(kept, "text/plain", "its type stays as it is");
}

#[tokio::test]
async fn the_token_of_a_reply_is_found_and_lives_no_longer_than_was_asked_for() {
    for (body, lifetime) in [
        (r#"{"Status":true,"Data":{"access_token":"t","expires_in":3600}}"#, 3600),
        (r#"{"Status":true,"Data":{"access_token":"t","expires_in":86400}}"#, 7200),
        (r#"{"access_token":"t","expires_in":3600}"#, 3600),
    ] {
        assert_eq!(token(body, Some(JANE)).unwrap(), ("t".to_owned(), lifetime), "{body}");
    }
    for body in [
        r#"{"Status":false,"Data":{"access_token":"t"},"Message":"no"}"#,
        r#"{"Status":"true","Data":{"access_token":"t"}}"#,
        r#"{"Status":true,"Data":{}}"#,
        r#"{"Status":true,"Data":[{"access_token":"t"}]}"#,
        r#"{"Status":true,"Data":{"access_token":"a b"}}"#,
        "[]",
        "7",
    ] {
        let refused = token(body, Some(JANE)).unwrap_err();
        assert!(matches!(refused, ExchangeErrorKind::EmbedRefused { .. }), "{body}: {refused:?}");
    }
}

#[tokio::test]
async fn a_token_of_another_user_than_the_mapped_one_is_refused() {
    let of = |email: &str| {
        format!(r#"{{"Status":true,"Data":{{"access_token":"t","email":"{email}"}}}}"#)
    };
    assert!(token(&of("Jane@Acme.example"), Some(JANE)).is_ok(), "case makes no other user");
    let refused = token(&of("boss@acme.example"), Some(JANE)).unwrap_err();
    assert!(matches!(refused, ExchangeErrorKind::AnotherUser(_)));
    assert!(token(&of("svc@acme.example"), None).is_ok(), "a username may be a login name");
}
