//! The claims of a token, to be shown to people. They are not verified: only Bold BI has the key.

use serde_json::{Map, Value};

use crate::token::AccessToken;

/// Name and value of the claims about a token's user, audience and lifetime; none if it is no JWT.
/// (Bold BI: claims of the tokens of `/token`.)
pub fn token_claims(token: &AccessToken) -> Vec<(&'static str, String)> {
    let value = token.authorization().to_str().unwrap_or_default();
    of_jwt(value.strip_prefix("Bearer ").unwrap_or_default())
}

/// The same of a JWT.
pub(super) fn of_jwt(jwt: &str) -> Vec<(&'static str, String)> {
    let Ok(decoded) = jsonwebtoken::dangerous::insecure_decode::<Map<String, Value>>(jwt) else {
        return Vec::new();
    };
    let text = |name: &'static str| match decoded.claims.get(name)? {
        Value::String(text) => Some((name, text.clone())),
        Value::Number(number) => Some((name, number.to_string())),
        _ => None,
    };
    SHOWN.into_iter().filter_map(text).collect()
}

const SHOWN: [&str; 8] = ["email", "upn", "nameid", "iss", "aud", "iat", "exp", "IP"];

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;

    /// Made up; its claims are those of a real one.
    const JWT: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.\
        eyJlbWFpbCI6InVzZXJAZXhhbXBsZS5jb20iLCJ1cG4iOiJ1c2VyIiwibmFtZWlkIjoiMSIsInVuaXF1ZV9uYW1lIjoi\
        NmUxMmVhNjYtMWU3My00NDVmLWJlMzMtNDY5OTg0ZjVkODNiIiwiSVAiOiI6OjEiLCJpc3N1ZWRfZGF0ZSI6IjE3NTY4\
        OTEwMDYiLCJjdXN0b21fYXR0cmlidXRlIjoie30iLCJuYmYiOjE3NTY4OTEwMDYsImV4cCI6MTc1NzQ5NTgwNiwiaWF0\
        IjoxNzU2ODkxMDA2LCJpc3MiOiJodHRwOi8vbG9jYWxob3N0OjYwNTE1L2JpL3NpdGUvc2l0ZTEiLCJhdWQiOiJodHRw\
        Oi8vbG9jYWxob3N0OjYwNTE1L2JpL3NpdGUvc2l0ZTEifQ.\
        Gm14dcwaVb3uVEN8JH4A1HsNFWVkJbdX5oCl3o3aa30";

    fn claims(token: &str) -> Vec<(&'static str, String)> {
        token_claims(&AccessToken::new(token, Instant::now(), Duration::from_secs(1)).unwrap())
    }

    #[tokio::test]
    async fn the_claims_of_a_jwt_are_shown_and_an_opaque_token_has_none() {
        let shown = claims(JWT);
        assert!(shown.contains(&("email", "user@example.com".into())));
        assert!(shown.contains(&("exp", "1757495806".into())));
        assert!(shown.iter().all(|(name, _)| *name != "custom_attribute"));
        assert!(claims("opaque_token").is_empty() && claims("a.b.c").is_empty());
    }
}
