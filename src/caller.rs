//! Authenticates callers. Only [`CallerAuth`] makes a [`Caller`]; `policy` decides on its rights.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName};

use crate::request::RequestHead;
use crate::telemetry::Reason;

mod api_key;
mod authorization;
mod certificate;
mod entry;
pub mod issuer_keys;
pub(crate) mod json;
mod jwk;
pub mod jwt;
pub mod key_set;
mod peer;
mod signature;
mod tried;
mod verified;

use api_key::ApiKeys;
pub use api_key::{ApiKey, ApiKeyHash, KnownKey};
use authorization::{Authorization, any_jwt, holds_key, is_empty_bearer, key_in_basic};
pub use certificate::{CertificateName, ClientCertificate};
use issuer_keys::IssuerKeys;
pub use issuer_keys::{KeyCondition, KeyFetches};
use jwt::{Issuer, JwtError, UnverifiedJwt, VerifiedClaims};
use key_set::KeySet;
use peer::PeerCallers;
pub use peer::{Admits, AllowedHosts, ListenerTerms, PeerInfo, UnixIdentity, UnixPeer};
pub use tried::TriedIssuer;
use verified::VerifiedCache;

/// The authenticated sender of a request.
#[derive(Clone, Debug)]
pub struct Caller {
    name: Option<CallerName>,
    claims: Option<Arc<VerifiedClaims>>,
    by_header: bool,
    own_authorization: bool,
}

impl Caller {
    /// The caller's name in the configuration; `None` for an anonymous caller.
    pub fn name(&self) -> Option<&CallerName> {
        self.name.as_ref()
    }

    /// The claims of the caller's JWT; `None` for any other credential.
    pub fn claims(&self) -> Option<&VerifiedClaims> {
        self.claims.as_deref()
    }

    /// Whether an API key or a JWT in a header proved the caller. No browser adds one by itself.
    pub fn is_by_header(&self) -> bool {
        self.by_header
    }

    /// Whether the request has an `Authorization` for Bold BI. A value that proved the caller, or
    /// an API key of ours, is never forwarded.
    pub fn brings_own_authorization(&self) -> bool {
        self.own_authorization
    }
}

#[cfg(test)]
impl Caller {
    /// A caller with these claims, as if a JWT had proved it.
    pub(crate) fn with_claims(name: &str, claims: serde_json::Value) -> Self {
        let claims = Arc::new(VerifiedClaims::as_if_verified(claims));
        Self {
            name: Some(CallerName::new(name)),
            claims: Some(claims),
            by_header: true,
            own_authorization: false,
        }
    }
}

/// The name of a caller in the configuration and in logs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallerName(Arc<str>);

impl CallerName {
    /// A name from the configuration.
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

/// A caller known by the JWTs of an issuer.
#[derive(Debug)]
pub struct JwtCaller {
    /// Its name.
    pub name: CallerName,
    /// The requirements on its tokens.
    pub issuer: Issuer,
    /// The keys that they are signed with.
    pub keys: IssuerKeys,
}

impl JwtCaller {
    async fn verify(
        &self,
        token: &mut UnverifiedJwt<'_>,
        now: SystemTime,
    ) -> Result<(VerifiedClaims, Arc<KeySet>), JwtError> {
        let known = match self.keys.at_hand() {
            Some(keys) => keys,
            None => token.without_claims(self.keys.current()).await.ok_or(JwtError::NoKeys)?,
        };
        let (verified, keys) = match token.verify(&self.issuer, &known, now) {
            Err(JwtError::UnknownKey) => {
                let id = token.key_id().map(str::to_owned);
                let newer = self.keys.newer_than(&known, id.as_deref());
                let newer = token.without_claims(newer).await.ok_or(JwtError::UnknownKey)?;
                (token.verify(&self.issuer, &newer, now), newer)
            }
            other => (other, known),
        };
        verified.map(|claims| (claims, keys))
    }
}

#[derive(Clone)]
struct Verified {
    /// Index of the caller that it proves.
    caller: usize,
    /// The keys that it was verified with. It is valid only while they are the issuer's.
    keys: Arc<KeySet>,
    claims: Arc<VerifiedClaims>,
}

/// Authenticates callers.
#[derive(Debug)]
pub struct CallerAuth {
    keys: ApiKeys,
    key_header: HeaderName,
    jwts: Vec<JwtCaller>,
    /// The callers whose keys may come in `Authorization: Basic`, too.
    by_basic: HashSet<CallerName>,
    verified: VerifiedCache<Verified>,
    peers: PeerCallers,
}

impl CallerAuth {
    /// Authenticates by API keys, sent in the header `key_header`, and by JWTs.
    pub fn new<K: Into<KnownKey>>(
        keys: impl IntoIterator<Item = (K, CallerName)>,
        key_header: HeaderName,
        jwts: Vec<JwtCaller>,
    ) -> Self {
        let keys = keys.into_iter().map(|(key, caller)| (key.into(), caller)).collect();
        let verified = VerifiedCache::new(if jwts.is_empty() { 0 } else { MAX_JWT_SETS });
        let (by_basic, peers) = (HashSet::new(), PeerCallers::default());
        Self { keys, key_header, jwts, by_basic, verified, peers }
    }

    /// Takes the keys of these callers in `Authorization: Basic` as well.
    #[must_use]
    pub fn with_basic(mut self, callers: impl IntoIterator<Item = CallerName>) -> Self {
        self.by_basic.extend(callers);
        self
    }

    /// Authenticates by names of client certificates as well.
    #[must_use]
    pub fn with_certificates(
        mut self,
        names: impl IntoIterator<Item = (CertificateName, CallerName)>,
    ) -> Self {
        self.peers.certificates.extend(names);
        self
    }

    /// Authenticates by processes at Unix sockets as well.
    #[must_use]
    pub fn with_unix(
        mut self,
        processes: impl IntoIterator<Item = (UnixIdentity, CallerName)>,
    ) -> Self {
        self.peers.unix.extend(processes);
        self
    }

    /// Takes over the fetched keys of `old` for issuers whose source is unchanged, so that a reload
    /// does not fetch them again.
    pub fn carry_over(&mut self, old: &Self) {
        for caller in &mut self.jwts {
            let known = old.jwts.iter().filter(|other| other.issuer.issuer == caller.issuer.issuer);
            caller.keys.carry_over(known.map(|other| &other.keys));
        }
    }

    /// The number of configured credentials.
    pub fn known(&self) -> usize {
        let peers = self.peers.certificates.len() + self.peers.unix.len();
        self.keys.len() + self.jwts.len() + peers
    }

    /// The API keys that expire: their callers, the first digits of their hashes, and their ends.
    pub fn api_key_ends(&self) -> impl Iterator<Item = (&CallerName, String, SystemTime)> {
        self.keys.ends()
    }

    /// The callers that are known by JWTs.
    pub fn jwt_callers(&self) -> &[JwtCaller] {
        &self.jwts
    }

    /// Whether a JWT is the only proof that any caller has.
    pub fn has_only_jwts(&self) -> bool {
        self.keys.len() == 0 && self.peers.is_empty() && !self.jwts.is_empty()
    }

    /// The callers whose issuer's keys are fetched, with the fetches so far.
    pub fn key_fetches(&self) -> impl Iterator<Item = (&CallerName, KeyFetches)> {
        self.jwts.iter().filter_map(|caller| Some((&caller.name, caller.keys.fetches()?)))
    }

    /// The callers with a file of keys to fall back to, each with whether those keys are in use.
    pub fn key_fallbacks(&self) -> impl Iterator<Item = (&CallerName, bool)> {
        self.jwts.iter().filter_map(|caller| Some((&caller.name, caller.keys.falls_back()?)))
    }

    /// The header for API keys. It is never forwarded.
    pub fn key_header(&self) -> &HeaderName {
        &self.key_header
    }

    /// The kinds of credentials that a request can have, beside those of its connection.
    pub fn credential_kinds(&self) -> CredentialKinds {
        CredentialKinds { api_keys: self.keys.len() > 0, jwts: !self.jwts.is_empty() }
    }

    /// The caller of this request.
    ///
    /// # Errors
    /// When the listener admits known callers only, and the request has credentials of none or of
    /// two. When `Authorization` holds a word in the form of our API keys that is not a valid key.
    pub async fn authenticate(
        &self,
        terms: &ListenerTerms,
        peer: &PeerInfo,
        head: &RequestHead<'_>,
    ) -> Result<Caller, CallerError> {
        if terms.admits == Admits::Anonymous {
            let own_authorization = self.is_for_server(head.headers)?;
            return Ok(Caller { name: None, claims: None, by_header: false, own_authorization });
        }
        let by_connection = self.peers.find(peer)?;
        let by_key = self.by_key(head.headers)?;
        let authorization = Authorization::of(head.headers);
        let (by_authorization, claims) = match authorization {
            Authorization::ApiKey(value) => (Some(self.by_key_in(value)?), None),
            Authorization::Bearer(token) => self.by_bearer(token).await?.unzip(),
            Authorization::Nothing | Authorization::Other => (None, None),
        };
        let by_header = by_key.is_some() || by_authorization.is_some();
        // Of two callers, readers could choose different ones: all credentials must be of one.
        let mut callers = [by_connection, by_key, by_authorization].into_iter().flatten();
        let Some(caller) = callers.next() else {
            return Err(match authorization {
                _ if self.jwts.is_empty() => CallerError::Missing,
                Authorization::Bearer(_) => CallerError::Bearer,
                // A page puts no value there where its user has not signed in.
                Authorization::Nothing if is_empty_bearer(head.headers) => CallerError::EmptyBearer,
                _ => CallerError::Missing,
            });
        };
        if callers.any(|other| other != caller) {
            return Err(CallerError::Several);
        }
        let own_authorization = match authorization {
            Authorization::Nothing | Authorization::ApiKey(_) => false,
            Authorization::Bearer(_) | Authorization::Other => {
                by_authorization.is_none() && !self.holds_own_jwt(head.headers)
            }
        };
        Ok(Caller { name: Some(caller.clone()), claims, by_header, own_authorization })
    }

    /// Whether a request under `terms` has a header that may authenticate its caller.
    pub fn may_prove_by_header(&self, terms: &ListenerTerms, head: &RequestHead<'_>) -> bool {
        terms.admits == Admits::Known
            && (head.headers.contains_key(&self.key_header)
                || Authorization::of(head.headers) != Authorization::Nothing)
    }

    /// Whether the `Authorization` of a request that nobody has to be admitted for is the server's
    /// affair. A JWT of a configured issuer is for the gateway, like an API key.
    ///
    /// # Errors
    /// When it holds a word in the form of our API keys that is not a valid key, or a JWT whose
    /// issuer cannot be told.
    pub fn is_for_server(&self, headers: &HeaderMap) -> Result<bool, CallerError> {
        match Authorization::of(headers) {
            Authorization::Nothing => Ok(false),
            Authorization::ApiKey(value) => self.by_key_in(value).map(|_| false),
            Authorization::Bearer(token) if holds_key(token) => Err(CallerError::Unknown),
            Authorization::Bearer(token) => {
                let text = std::str::from_utf8(token).unwrap_or_default();
                self.is_own_jwt(text).map(|is_own| !is_own && !self.holds_own_jwt(headers))
            }
            Authorization::Other => Ok(!self.holds_own_jwt(headers)),
        }
    }

    /// Whether the token is of a configured issuer.
    ///
    /// # Errors
    /// When its issuer cannot be told: two readers could find two, or it is too large to be read.
    fn is_own_jwt(&self, token: &str) -> Result<bool, CallerError> {
        if self.jwts.is_empty() {
            return Ok(false);
        }
        match UnverifiedJwt::parse(token) {
            Err(error @ (JwtError::Repeated | JwtError::TooLarge)) => {
                Err(CallerError::Jwt(error, None))
            }
            Ok(token) => Ok(self.jwts.iter().any(|caller| caller.issuer.is_meant_by(&token))),
            Err(_) => Ok(false),
        }
    }

    /// Whether a JWT of a configured issuer, or one whose issuer cannot be told, stands anywhere in
    /// `Authorization`, whatever its scheme.
    fn holds_own_jwt(&self, headers: &HeaderMap) -> bool {
        !self.jwts.is_empty()
            && headers.get(AUTHORIZATION).is_some_and(|value| {
                any_jwt(value.as_bytes(), |jwt| self.is_own_jwt(jwt).unwrap_or(true))
            })
    }

    /// The caller of a key in `Authorization`.
    fn by_key_in(&self, value: &[u8]) -> Result<&CallerName, CallerError> {
        let Some(key) = key_in_basic(value) else { return self.keys.find(value) };
        let caller = self.keys.find(&key)?;
        if self.by_basic.contains(caller) {
            Ok(caller)
        } else {
            Err(CallerError::NotInBasic(caller.clone()))
        }
    }

    fn by_key(&self, headers: &HeaderMap) -> Result<Option<&CallerName>, CallerError> {
        let mut keys = headers.get_all(&self.key_header).iter();
        match (keys.next(), keys.next()) {
            (None, _) => Ok(None),
            (Some(key), None) => self.keys.find(key.as_bytes()).map(Some),
            (Some(_), Some(_)) => Err(CallerError::Several),
        }
    }

    /// The caller of this JWT; `None` for a token of an unknown issuer, which is for Bold BI.
    async fn by_bearer(
        &self,
        bearer: &[u8],
    ) -> Result<Option<(&CallerName, Arc<VerifiedClaims>)>, CallerError> {
        let now = SystemTime::now();
        if let Some(verified) = self.verified.find(bearer)
            && now < verified.claims.expires_at
        {
            let caller = &self.jwts[verified.caller];
            let current = caller.keys.current().await;
            if current.is_some_and(|keys| Arc::ptr_eq(&keys, &verified.keys)) {
                return Ok(Some((&caller.name, verified.claims)));
            }
        }
        if holds_key(bearer) {
            return Err(CallerError::Unknown);
        }
        if self.jwts.is_empty() {
            return Ok(None);
        }
        // It is rare. In a box it takes no room in the futures of other requests.
        Box::pin(self.by_new_jwt(bearer, now)).await
    }

    async fn by_new_jwt(
        &self,
        bearer: &[u8],
        now: SystemTime,
    ) -> Result<Option<(&CallerName, Arc<VerifiedClaims>)>, CallerError> {
        let Ok(text) = std::str::from_utf8(bearer) else { return Ok(None) };
        let mut token = match UnverifiedJwt::parse(text) {
            Ok(token) => token,
            // It is not forwarded: it may be of an issuer in the configuration.
            Err(error @ (JwtError::Repeated | JwtError::TooLarge)) => {
                return Err(CallerError::Jwt(error, None));
            }
            Err(_) => return Ok(None),
        };
        let mut refused = None;
        for (index, caller) in self.jwts.iter().enumerate() {
            if !caller.issuer.is_meant_by(&token) {
                continue;
            }
            match caller.verify(&mut token, now).await {
                Ok((claims, keys)) => {
                    let claims = Arc::new(claims);
                    let verified = Verified { caller: index, keys, claims: Arc::clone(&claims) };
                    self.verified.keep(bearer, verified);
                    return Ok(Some((&caller.name, claims)));
                }
                // Another caller's tokens may have the same issuer and another audience: any other
                // fault says more.
                Err(error) if matches!(refused, None | Some(JwtError::Audience)) => {
                    refused = Some(error);
                }
                Err(_) => {}
            }
        }
        let Some(error) = refused else { return Ok(None) };
        let tried = self.jwts.iter().filter(|caller| caller.issuer.is_meant_by(&token));
        Err(CallerError::Jwt(error, TriedIssuer::of(tried).map(Arc::new)))
    }
}

/// The kinds of credentials that a request can have. Each has a challenge of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CredentialKinds {
    /// Some caller has an API key.
    pub api_keys: bool,
    /// Some caller has JWTs.
    pub jwts: bool,
}

/// Why a caller is not authenticated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallerError {
    /// A trusted CA issued the certificate, but it belongs to no caller.
    #[error("the client certificate belongs to no caller")]
    Certificate,
    /// No credential was sent.
    #[error("the request has no credential of a caller")]
    Missing,
    /// `Authorization` is the scheme `Bearer` without a token.
    #[error("the request has `Authorization: Bearer` without a token")]
    EmptyBearer,
    /// No caller has this API key.
    #[error("the API key is not known")]
    Unknown,
    /// The API key of this caller has expired.
    #[error("the API key of the caller `{0}` has expired")]
    Expired(CallerName),
    /// The API key of this caller came in `Authorization: Basic`, which its configuration does not
    /// allow.
    #[error("the API key of the caller `{0}` came in `Authorization: Basic`")]
    NotInBasic(CallerName),
    /// The `Bearer` token is not of a configured issuer.
    #[error("the bearer token is not a JWT of a configured issuer")]
    Bearer,
    /// The credentials are of several callers, or there are several API keys.
    #[error("the request has credentials of several callers, or several API keys")]
    Several,
    /// The JWT is of a configured issuer, but not valid.
    #[error("the caller's JWT is not valid: {0}")]
    Jwt(JwtError, Option<Arc<TriedIssuer>>),
}

impl CallerError {
    /// The word for it in logs and metrics.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Certificate => Reason::CertificateUnknown,
            Self::Missing => Reason::Missing,
            Self::Unknown => Reason::KeyUnknown,
            Self::Expired(_) => Reason::KeyExpired,
            Self::NotInBasic(_) => Reason::KeyInBasic,
            Self::Bearer => Reason::BearerUnknown,
            Self::Several => Reason::Several,
            Self::EmptyBearer => Reason::BearerEmpty,
            Self::Jwt(error, _) => error.reason(),
        }
    }
}

/// Whether the `Authorization` of a request may be for Bold BI. Authentication decides whether it
/// is ([`Caller::brings_own_authorization`]).
pub fn may_bring_own_authorization(head: &RequestHead<'_>) -> bool {
    matches!(Authorization::of(head.headers), Authorization::Bearer(_) | Authorization::Other)
}

/// Sets of four tokens: 8,192 tokens of at most 4 KiB, 32 MiB, and their claims.
const MAX_JWT_SETS: usize = 2048;
