//! Callers: who sends a request. Only [`CallerAuth`] makes a [`Caller`]; what a caller may do is
//! not decided here.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName};

use crate::request::RequestHead;

mod api_key;
pub mod jwks;
pub mod jwt;
mod signature;

use api_key::ApiKeys;
pub use api_key::{ApiKey, ApiKeyHash};
use jwks::IssuerKeys;
use jwt::{Issuer, JwtError, UnverifiedJwt, VerifiedClaims};

/// Who sends a request, proven.
#[derive(Clone, Debug)]
pub struct Caller {
    name: Option<CallerName>,
    claims: Option<Arc<VerifiedClaims>>,
}

impl Caller {
    /// The caller's name in the configuration; none for an anonymous caller.
    pub fn name(&self) -> Option<&CallerName> {
        self.name.as_ref()
    }

    /// What the JWT says that proved the caller; none for any other credential.
    pub fn claims(&self) -> Option<&VerifiedClaims> {
        self.claims.as_deref()
    }

    /// Whether the request's `Authorization` proved the caller. It is for the gateway then, and
    /// goes no further.
    pub fn is_by_authorization(&self) -> bool {
        self.claims.is_some()
    }
}

/// The name of a caller in the configuration and in logs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallerName(Arc<str>);

impl CallerName {
    /// Takes over a name from the configuration.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CallerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whom a listener lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Admits {
    /// Everybody who can reach it: for loopback and Unix sockets only.
    Anonymous,
    /// Callers who prove who they are.
    Known,
}

/// What is known of a client by its connection alone.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Whom the listener lets in that it came to.
    pub admits: Admits,
    /// Its address; none on a Unix socket.
    pub address: Option<IpAddr>,
}

/// A caller known by the JWTs of an issuer.
#[derive(Debug)]
pub struct JwtCaller {
    /// Who it is.
    pub name: CallerName,
    /// What its tokens must be like.
    pub issuer: Issuer,
    /// The keys that they are signed with.
    pub keys: IssuerKeys,
}

impl JwtCaller {
    async fn verify(&self, token: &UnverifiedJwt<'_>) -> Result<VerifiedClaims, JwtError> {
        let known = self.keys.current().await.ok_or(JwtError::NoKeys)?;
        let now = SystemTime::now();
        match token.verify(&self.issuer, &known, now) {
            Err(JwtError::UnknownKey) => match self.keys.newer_than(&known).await {
                Some(newer) => token.verify(&self.issuer, &newer, now),
                None => Err(JwtError::UnknownKey),
            },
            other => other,
        }
    }
}

/// Authenticates callers.
#[derive(Debug)]
pub struct CallerAuth {
    keys: ApiKeys,
    key_header: HeaderName,
    jwts: Vec<JwtCaller>,
}

impl CallerAuth {
    /// Knows callers by the hashes of their API keys, sent in the header `key_header`, and by their
    /// JWTs.
    pub fn new(
        keys: impl IntoIterator<Item = (ApiKeyHash, CallerName)>,
        key_header: HeaderName,
        jwts: Vec<JwtCaller>,
    ) -> Self {
        Self { keys: keys.into_iter().collect(), key_header, jwts }
    }

    /// How many callers are known, one with a key and JWTs twice.
    pub fn known(&self) -> usize {
        self.keys.len() + self.jwts.len()
    }

    /// The header that carries an API key; it never goes on to a server.
    pub fn key_header(&self) -> &HeaderName {
        &self.key_header
    }

    /// Who sends this request.
    ///
    /// # Errors
    /// When the listener admits known callers only and the request proves none, or two. An unknown
    /// key and a malformed one are the same error.
    pub async fn authenticate(
        &self,
        origin: &Origin,
        head: &RequestHead<'_>,
    ) -> Result<Caller, CallerError> {
        if origin.admits == Admits::Anonymous {
            return Ok(Caller { name: None, claims: None });
        }
        let by_key = self.by_key(head.headers)?;
        let by_jwt = self.by_jwt(head.headers).await?;
        match (by_key, by_jwt) {
            (Some(one), Some((other, _))) if one != other => Err(CallerError::Several),
            (_, Some((name, claims))) => Ok(Caller { name: Some(name), claims: Some(claims) }),
            (Some(name), None) => Ok(Caller { name: Some(name), claims: None }),
            (None, None) => Err(CallerError::Missing),
        }
    }

    fn by_key(&self, headers: &HeaderMap) -> Result<Option<CallerName>, CallerError> {
        let mut keys = headers.get_all(&self.key_header).iter();
        match (keys.next(), keys.next()) {
            (None, _) => Ok(None),
            (Some(key), None) => {
                self.keys.find(key.as_bytes()).ok_or(CallerError::Unknown).map(Some)
            }
            (Some(_), Some(_)) => Err(CallerError::Several),
        }
    }

    /// The caller whose JWT the request brings. A token of no issuer that is known is not about the
    /// caller: it is the client's own for Bold BI.
    async fn by_jwt(
        &self,
        headers: &HeaderMap,
    ) -> Result<Option<(CallerName, Arc<VerifiedClaims>)>, CallerError> {
        let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let bearer = bearer.filter(|_| !self.jwts.is_empty()).and_then(bearer_token);
        let Some(token) = bearer.and_then(|token| UnverifiedJwt::parse(token).ok()) else {
            return Ok(None);
        };
        let mut refused = None;
        for caller in self.jwts.iter().filter(|caller| caller.issuer.is_meant_by(&token)) {
            // Rare enough to be boxed: an API key needs none of its room.
            match Box::pin(caller.verify(&token)).await {
                Ok(claims) => return Ok(Some((caller.name.clone(), Arc::new(claims)))),
                // Another caller's tokens may have the same issuer and another audience.
                Err(error) => refused = Some(error),
            }
        }
        refused.map_or(Ok(None), |error| Err(CallerError::Jwt(error)))
    }
}

/// The token of an `Authorization` of the scheme `Bearer` (RFC 6750, section 2.1).
fn bearer_token(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

/// Why a caller is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallerError {
    /// No credential was sent.
    #[error("the request proves no caller")]
    Missing,
    /// The credential belongs to nobody.
    #[error("the API key is not known")]
    Unknown,
    /// Which of several credentials would count is anyone's guess.
    #[error("the request has more than one credential of a caller")]
    Several,
    /// The JWT is of an issuer that is known, and does not hold.
    #[error("the caller's JWT does not hold: {0}")]
    Jwt(JwtError),
}
