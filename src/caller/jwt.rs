//! JWTs of callers: what is read before the signature is checked, and what must hold of a token to
//! prove a caller. Pure: keys and the time are given.

use std::collections::HashSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{Jwk, JwkSet, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::{Map, Number, Value};

use super::signature;
use crate::secret::Secret;
use crate::telemetry::Reason;

/// What may be read of a token before its signature is checked: which issuer's keys to look in, and
/// which of them. Nothing else of it counts before then.
#[derive(Debug)]
pub struct UnverifiedJwt<'t> {
    token: &'t str,
    /// `iss` (RFC 7519, section 4.1.1).
    pub issuer: String,
    /// `kid` (RFC 7515, section 4.1.4).
    pub key_id: Option<String>,
    algorithm: Algorithm,
    typ: Option<String>,
}

/// The one claim that is read before the signature is checked.
#[derive(Deserialize)]
struct UnverifiedClaims {
    iss: String,
}

/// What an issuer's tokens must be like.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// The exact value of `iss`.
    pub issuer: String,
    /// The value that must be among those of `aud`.
    pub audience: String,
    /// The only algorithms that count, whatever a token says.
    pub algorithms: Vec<Algorithm>,
    /// The exact value of the header `typ`, where one is demanded, such as `at+jwt` (RFC 9068).
    pub typ: Option<String>,
}

/// The claims of a token whose signature, issuer, audience and times hold.
#[derive(Clone, Debug)]
pub struct VerifiedClaims {
    claims: Map<String, Value>,
    /// When it stops to count, by the wall clock.
    pub expires_at: SystemTime,
}

impl Issuer {
    /// Whether a token speaks of this issuer, if only but for a slash at the end: whoever meant another
    /// has made a mistake that [`UnverifiedJwt::verify`] names.
    pub fn is_meant_by(&self, token: &UnverifiedJwt<'_>) -> bool {
        bare(&self.issuer) == bare(&token.issuer)
    }
}

impl VerifiedClaims {
    /// The text of a claim; none when it is absent or anything but text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.claims.get(name)?.as_str()
    }

    /// Claims of a token that no test wants to sign.
    #[cfg(test)]
    pub(crate) fn as_if_verified(claims: Value) -> Self {
        let Value::Object(claims) = claims else { panic!("claims are an object") };
        Self { claims, expires_at: SystemTime::now() }
    }

    /// The texts of a claim that is one text or a list of nothing but texts; none when it is
    /// anything else.
    pub fn texts(&self, name: &str) -> impl Iterator<Item = &str> {
        let all = match self.claims.get(name) {
            Some(one @ Value::String(_)) => std::slice::from_ref(one),
            Some(Value::Array(all)) if all.iter().all(Value::is_string) => all,
            _ => &[],
        };
        all.iter().filter_map(Value::as_str)
    }

    /// Whether the claim is there and anything but `true`, which some issuers write as text.
    pub fn says_false(&self, name: &str) -> bool {
        self.claims.get(name).is_some_and(|value| value != true && value != "true")
    }
}

/// Why a token proves nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// It is no signed JWT, or larger than 16 KiB.
    #[error("it is no signed JWT")]
    Malformed,
    /// Its algorithm is not one of the issuer's.
    #[error("its algorithm is not one that the issuer signs with")]
    Algorithm,
    /// Its header demands what is not known (`crit`), or is of another type.
    #[error("its header is of another type, or demands an extension that is not known")]
    Header,
    /// The issuer's keys could not be fetched.
    #[error("the issuer's keys could not be fetched")]
    NoKeys,
    /// None of the issuer's keys is the one that it names.
    #[error("none of the issuer's keys is the one that it names")]
    UnknownKey,
    /// The signature does not fit.
    #[error("its signature does not fit")]
    Signature,
    /// Its issuer is not spelled as the configured one.
    #[error("its issuer differs from the configured `issuer` by a slash at the end")]
    Slash,
    /// It is another issuer's.
    #[error("it is another issuer's")]
    Issuer,
    /// It is meant for somebody else.
    #[error("it is not meant for this gateway")]
    Audience,
    /// It has no end, or its times are not numbers.
    #[error("its times are missing or not numbers")]
    Times,
    /// It is over.
    #[error("it has expired")]
    Expired,
    /// Its time has not come.
    #[error("it is not valid yet")]
    NotYet,
}

impl JwtError {
    /// The word for it in the access log.
    pub fn reason(self) -> Reason {
        match self {
            Self::Malformed => Reason::BearerUnknown,
            Self::Algorithm => Reason::JwtAlgorithm,
            Self::Header => Reason::JwtHeader,
            Self::NoKeys => Reason::JwtKeysUnavailable,
            Self::UnknownKey => Reason::JwtKeyUnknown,
            Self::Signature => Reason::JwtSignature,
            Self::Slash | Self::Issuer => Reason::JwtIssuer,
            Self::Audience => Reason::JwtAudience,
            Self::Times => Reason::JwtTimes,
            Self::Expired => Reason::JwtExpired,
            Self::NotYet => Reason::JwtNotYet,
        }
    }
}

impl<'t> UnverifiedJwt<'t> {
    /// Reads the header and the issuer.
    ///
    /// # Errors
    /// When it is not of the form `header.payload.signature`, or too large.
    pub fn parse(token: &'t str) -> Result<Self, JwtError> {
        if token.len() > MAX_TOKEN || token.bytes().filter(|&b| b == b'.').count() != 2 {
            return Err(JwtError::Malformed);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| JwtError::Malformed)?;
        let claims: UnverifiedClaims = jsonwebtoken::dangerous::insecure_decode_claims(token)
            .map_err(|_| JwtError::Malformed)?;
        if header.crit.is_some() {
            return Err(JwtError::Header);
        }
        Ok(Self {
            token,
            issuer: claims.iss,
            key_id: header.kid,
            algorithm: header.alg,
            typ: header.typ,
        })
    }

    /// Checks everything, with the keys of the issuer that the token names.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn verify(
        &self,
        issuer: &Issuer,
        keys: &KeySet,
        now: SystemTime,
    ) -> Result<VerifiedClaims, JwtError> {
        if self.issuer != issuer.issuer && issuer.is_meant_by(self) {
            return Err(JwtError::Slash);
        }
        if !issuer.algorithms.contains(&self.algorithm) {
            return Err(JwtError::Algorithm);
        }
        if let Some(typ) = &issuer.typ
            && self.typ.as_ref() != Some(typ)
        {
            return Err(JwtError::Header);
        }
        let key = keys.find(self.key_id.as_deref(), self.algorithm).ok_or(JwtError::UnknownKey)?;
        signature::install();
        // The library checks the signature only: times and names are checked below, with the
        // caller's clock, and strictly by type.
        let mut validation = Validation::new(self.algorithm);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        let claims = jsonwebtoken::decode::<Map<String, Value>>(self.token, key, &validation)
            .map_err(|error| match error.kind() {
                ErrorKind::InvalidSignature => JwtError::Signature,
                _ => JwtError::Malformed,
            })?
            .claims;
        if claims.get("iss").and_then(Value::as_str) != Some(issuer.issuer.as_str()) {
            return Err(JwtError::Issuer);
        }
        if !names(claims.get("aud"), &issuer.audience) {
            return Err(JwtError::Audience);
        }
        let expires_at = check_times(&claims, now)?;
        Ok(VerifiedClaims { claims, expires_at })
    }
}

fn bare(issuer: &str) -> &str {
    issuer.strip_suffix('/').unwrap_or(issuer)
}

/// `aud` is one text or a list of texts (RFC 7519, section 4.1.3).
fn names(aud: Option<&Value>, audience: &str) -> bool {
    match aud {
        Some(Value::String(one)) => one == audience,
        Some(Value::Array(all)) => {
            all.iter().all(Value::is_string) && all.iter().any(|a| a.as_str() == Some(audience))
        }
        _ => false,
    }
}

/// `exp` must be there and ahead, `nbf` and `iat`, if they are there, must lie behind; a number that
/// comes as text is no number (CVE-2026-25537). Returns `exp`.
fn check_times(claims: &Map<String, Value>, now: SystemTime) -> Result<SystemTime, JwtError> {
    let now = now.duration_since(UNIX_EPOCH).map_err(|_| JwtError::Times)?.as_secs();
    let time = |name: &str| match claims.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) => seconds(number).map(Some).ok_or(JwtError::Times),
        Some(_) => Err(JwtError::Times),
    };
    let expires = time("exp")?.ok_or(JwtError::Times)?;
    if expires.saturating_add(LEEWAY) <= now {
        return Err(JwtError::Expired);
    }
    for name in ["nbf", "iat"] {
        if time(name)?.is_some_and(|at| at > now.saturating_add(LEEWAY)) {
            return Err(JwtError::NotYet);
        }
    }
    UNIX_EPOCH.checked_add(Duration::from_secs(expires)).ok_or(JwtError::Times)
}

/// Whole seconds since 1970, up to the year 9999.
fn seconds(number: &Number) -> Option<u64> {
    let whole = number.as_u64().or_else(|| {
        // `1.7e9` is the same number (RFC 7519, section 2, NumericDate).
        let float = number.as_f64().filter(|float| (0.0..1e12).contains(float))?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range")]
        Some(float as u64)
    })?;
    (whole <= LAST_SECOND).then_some(whole)
}

/// The keys of one issuer: its public keys, by their id, or one shared secret.
#[derive(Clone, Debug, Default)]
pub struct KeySet {
    keys: Vec<Key>,
}

#[derive(Clone, Debug)]
struct Key {
    id: Option<String>,
    algorithm: Option<Algorithm>,
    material: DecodingKey,
    /// It is the only one there is, whatever a token calls it.
    only: bool,
}

/// Why a document is no set of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// It is no JWKS (RFC 7517, section 5).
    #[error("it is no JSON Web Key Set")]
    Malformed,
    /// It holds no key that could sign.
    #[error("it holds no key that a signature could be checked with")]
    Empty,
    /// Two keys have the same id.
    #[error("two of its keys have the same id")]
    Ambiguous,
}

impl KeySet {
    /// Reads a JWKS. Keys that are not for signatures, or of a kind that is not known, are left out;
    /// symmetric keys too: a set that can be fetched holds no secrets.
    ///
    /// # Errors
    /// When nothing is left, or two keys have one id.
    pub fn parse(json: &[u8]) -> Result<Self, KeySetError> {
        let set: JwkSet = serde_json::from_slice(json).map_err(|_| KeySetError::Malformed)?;
        let keys: Vec<Key> = set.keys.iter().filter_map(Key::of).collect();
        if keys.is_empty() {
            return Err(KeySetError::Empty);
        }
        let mut ids = HashSet::new();
        if !keys.iter().filter_map(|key| key.id.as_ref()).all(|id| ids.insert(id)) {
            return Err(KeySetError::Ambiguous);
        }
        Ok(Self { keys })
    }

    /// The secret that the issuer signs with and that we know as well: for HS256 and its kin, and
    /// nothing else.
    pub fn shared(secret: &Secret) -> Self {
        let material = DecodingKey::from_secret(secret.expose().as_bytes());
        Self { keys: vec![Key { id: None, algorithm: None, material, only: true }] }
    }

    /// The key of this id; without one, the only key that fits.
    fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<&DecodingKey> {
        let mut fitting = self.keys.iter().filter(|key| {
            key.material.family() == algorithm.family()
                && key.algorithm.is_none_or(|own| own == algorithm)
        });
        let found = match id {
            Some(id) => fitting.find(|key| key.only || key.id.as_deref() == Some(id)),
            None => fitting.next().filter(|_| fitting.next().is_none()),
        };
        found.map(|key| &key.material)
    }
}

impl Key {
    fn of(jwk: &Jwk) -> Option<Self> {
        let common = &jwk.common;
        let signs = !matches!(common.public_key_use, Some(PublicKeyUse::Encryption))
            && common.key_operations.as_ref().is_none_or(|o| o.contains(&KeyOperations::Verify));
        let material = DecodingKey::from_jwk(jwk).ok()?;
        let algorithm = match common.key_algorithm {
            Some(named) => Some(named.to_string().parse().ok()?),
            None => None,
        };
        (signs && material.family() != AlgorithmFamily::Hmac).then(|| Self {
            id: common.key_id.clone(),
            algorithm,
            material,
            only: false,
        })
    }
}

const MAX_TOKEN: usize = 16 * 1024;
/// By so many seconds clocks may differ.
const LEEWAY: u64 = 30;
/// The end of the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;

#[cfg(test)]
mod tests;
