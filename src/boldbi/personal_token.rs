//! Personal access tokens, which a user creates in Bold BI. Such a token is a credential that is
//! not exchanged: it goes on requests as it is, until its end.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::claims;
use super::reply::jwt_end;
use crate::tenant::Credential;
use crate::token::{AccessToken, ExchangeErrorKind};

/// When a personal access token ends: by its own `exp` if it is a JWT, or by `configured`, whatever
/// is earlier. `None` if neither tells, because without its end, the gateway would send it beyond
/// the end, and could not warn ahead; or if it is no token (RFC 6750, section 2.1).
pub fn token_end(token: &str, configured: Option<SystemTime>) -> Option<SystemTime> {
    if !token.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b)) {
        return None;
    }
    let own = jwt_end(token).filter(|end| *end < MAX_END);
    let own = own.map(|end| UNIX_EPOCH + Duration::from_secs(end));
    own.into_iter().chain(configured).min()
}

/// Whether the token itself names a user, and that is not `username`.
pub fn token_names_another(token: &str, username: &str) -> bool {
    let claims = claims::of_jwt(token);
    let mut names = claims.iter().filter(|(name, _)| matches!(*name, "email" | "upn")).peekable();
    names.peek().is_some() && names.all(|(_, value)| !value.eq_ignore_ascii_case(username))
}

/// The token of `credential`, at the moment `now` by both clocks.
pub(super) fn token(
    credential: &Credential,
    (now, clock): (Instant, SystemTime),
) -> Result<AccessToken, ExchangeErrorKind> {
    let both = credential.secret.as_ref().zip(credential.token_end());
    let (secret, end) = both.ok_or(ExchangeErrorKind::SecretUnreadable)?;
    let left = end.duration_since(clock).map_err(|_| ExchangeErrorKind::TokenEnded)?;
    let token = AccessToken::of_credential(secret.expose(), now, left)
        .map_err(|_| ExchangeErrorKind::SecretUnreadable)?;
    if token.is_usable(now) { Ok(token) } else { Err(ExchangeErrorKind::TokenEnded) }
}

/// The year 3000. A later end is a mistake.
const MAX_END: u64 = 32_503_680_000;

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;
    use crate::secret::Secret;
    use crate::tenant::{CredentialExtra, Grant, TokenEnds, samples};

    fn jwt(claims: &str) -> String {
        format!("eyJhbGciOiJIUzI1NiJ9.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn the_end_is_that_of_the_jwt_and_a_token_without_a_believable_end_has_none() {
        let good = jwt(r#"{"exp":2000000000}"#);
        let at = |seconds| Some(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(token_end(&good, None), at(2_000_000_000));
        assert_eq!(token_end(&good, at(1_999_999_999)), at(1_999_999_999), "the earlier one");
        assert_eq!(token_end(&good, at(2_000_000_001)), at(2_000_000_000), "the earlier one");
        let bad = [
            "opaque".to_owned(),
            "a.b.c".to_owned(),
            format!("Bearer {good}"),
            format!("{good}\u{e9}"),
            jwt("{}"),
            jwt(r#"{"exp":"soon"}"#),
            jwt(r#"{"exp":-5}"#),
            jwt(r#"{"exp":1e300}"#),
            jwt(r#"{"exp":2000000000000}"#),
        ];
        for bad in bad {
            assert_eq!(token_end(&bad, None), None, "{bad}");
        }
        assert_eq!(token_end("opaque-._~+/0=", at(5)), at(5));
        for no_token in ["Bearer opaque", "opa\"que", "opaque\u{e9}", "a,b", "a\u{0}"] {
            assert_eq!(token_end(no_token, at(5)), None, "{no_token}");
        }
    }

    #[test]
    fn another_user_is_told_by_the_claims_alone() {
        let token = jwt(r#"{"email":"ann@acme.example","upn":"ann"}"#);
        assert!(!token_names_another(&token, "Ann@acme.example"));
        assert!(!token_names_another(&token, "ann"), "control: a login name");
        assert!(token_names_another(&token, "bob@acme.example"));
        assert!(!token_names_another(&jwt(r#"{"exp":1}"#), "ann"), "it names nobody");
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_given_until_ten_seconds_before_its_end_however_often_it_is_read() {
        let text = jwt(r#"{"exp":2000000000}"#);
        let credential = Credential {
            grant: Grant::Token,
            extra: Some(Box::new(CredentialExtra::Ends(TokenEnds {
                token: token_end(&text, None),
                configured: None,
            }))),
            secret: Some(Secret::new(text.clone())),
            ..samples::credential()
        };
        let end = UNIX_EPOCH + Duration::from_secs(2_000_000_000);
        for (left, is_given) in [(86_400, true), (60, true), (11, true), (10, false), (1, false)] {
            let now = Instant::now();
            let token = token(&credential, (now, end - Duration::from_secs(left)));
            assert_eq!(token.is_ok(), is_given, "{left} s before the end");
            let Ok(token) = token else { continue };
            assert_eq!(token.as_bytes(), text.as_bytes());
            let last = now + Duration::from_secs(left - 10);
            assert!(token.is_usable(last - Duration::from_millis(1)) && !token.is_usable(last));
        }
        let after = token(&credential, (Instant::now(), end + Duration::from_secs(1)));
        assert!(matches!(after, Err(ExchangeErrorKind::TokenEnded)));
    }
}
