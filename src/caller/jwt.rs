//! JWTs of callers: parsing before the signature is verified, and all checks of a token. Pure:
//! keys and the time are arguments.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::{Map, Number, Value};

use super::json::Json;
use super::jwk;
use super::key_set::KeySet;
use super::signature;
use crate::telemetry::Reason;

/// A token whose signature has not been verified. It is used only to choose the issuer and the key.
#[derive(Debug)]
pub struct UnverifiedJwt<'t> {
    /// Header and claims as received: the signature is over these bytes.
    message: &'t str,
    signature: &'t str,
    /// `iss` (RFC 7519, section 4.1.1).
    issuer: String,
    header: Header,
    claims: Map<String, Value>,
}

/// The members of a token's header that are used (RFC 7515, section 4.1).
#[derive(Debug)]
struct Header {
    /// `None` if it is unknown.
    algorithm: Option<Algorithm>,
    key_id: Option<String>,
    typ: Option<String>,
    /// It demands an extension (`crit`), or a member has the wrong type.
    is_unfit: bool,
}

/// The requirements on an issuer's tokens.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// The exact value of `iss`.
    pub issuer: String,
    /// One of these values must be among those of `aud`.
    pub audiences: Vec<String>,
    /// The only accepted algorithms. A token cannot choose another.
    pub algorithms: Vec<Algorithm>,
    /// The required value of the header `typ`, such as `at+jwt` (RFC 9068); `None` accepts any.
    pub typ: Option<String>,
    /// Allowed clock skew: added to `exp`, and allowed for `nbf` and `iat`.
    pub leeway: Duration,
}

/// The claims of a token whose signature, issuer, audience and times are valid.
#[derive(Clone, Debug)]
pub struct VerifiedClaims {
    claims: Map<String, Value>,
    /// Its end, by the wall clock.
    pub expires_at: SystemTime,
}

impl Issuer {
    /// Whether a token names this issuer, give or take a slash at the end. A differing slash is a
    /// mistake in the configuration, which [`UnverifiedJwt::verify`] reports.
    pub fn is_meant_by(&self, token: &UnverifiedJwt<'_>) -> bool {
        bare(&self.issuer) == bare(&token.issuer)
    }
}

impl VerifiedClaims {
    /// The text of a claim; `None` if it is absent or not text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.claims.get(name)?.as_str()
    }

    /// A claim, whatever its type.
    pub fn value(&self, name: &str) -> Option<&Value> {
        self.claims.get(name)
    }

    /// Claims without a signed token.
    #[cfg(test)]
    pub(crate) fn as_if_verified(claims: Value) -> Self {
        let Value::Object(claims) = claims else { panic!("claims are an object") };
        Self { claims, expires_at: SystemTime::now() }
    }

    /// The texts of a claim that is one text or a list of texts; empty for any other claim.
    pub fn texts(&self, name: &str) -> impl Iterator<Item = &str> {
        let all = match self.claims.get(name) {
            Some(one @ Value::String(_)) => std::slice::from_ref(one),
            Some(Value::Array(all)) if all.iter().all(Value::is_string) => all,
            _ => &[],
        };
        all.iter().filter_map(Value::as_str)
    }

    /// Whether the claim is present and not `true`, which some issuers write as text.
    pub fn says_false(&self, name: &str) -> bool {
        self.claims.get(name).is_some_and(|value| value != true && value != "true")
    }
}

/// Why a token is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// It is not a signed JWT.
    #[error("it is not a signed JWT")]
    Malformed,
    /// It is larger than 16 KiB.
    #[error("it is larger than 16 KiB")]
    TooLarge,
    /// A member name occurs twice: two readers may take different values.
    #[error("a member name occurs twice in it")]
    Repeated,
    /// Its algorithm is not one of the issuer's.
    #[error("its algorithm is not one of those configured for the issuer")]
    Algorithm,
    /// Its header demands an extension (`crit`), or has a wrong `typ` or `kid`.
    #[error("its header has a wrong `typ` or `kid`, or demands an extension (`crit`)")]
    Header,
    /// The issuer's keys could not be fetched.
    #[error("the issuer's keys could not be fetched")]
    NoKeys,
    /// The issuer has no key with its `kid` and algorithm.
    #[error("the issuer has no key with its `kid` and algorithm")]
    UnknownKey,
    /// The signature is not valid.
    #[error("its signature is not valid")]
    Signature,
    /// Its issuer differs from the configured one by a slash.
    #[error("its issuer differs from the configured `issuer` by a slash at the end")]
    Slash,
    /// It is from another issuer.
    #[error("it is from another issuer")]
    Issuer,
    /// Its audience is another.
    #[error("its audience (`aud`) is not this gateway")]
    Audience,
    /// It has no `exp`, or one of its times is not a number.
    #[error("its `exp` is missing, or one of its times is not a number")]
    Times,
    /// It has expired.
    #[error("it has expired")]
    Expired,
    /// It is not valid yet.
    #[error("it is not valid yet")]
    NotYet,
}

impl JwtError {
    /// The word for it in the access log.
    pub fn reason(self) -> Reason {
        match self {
            Self::Malformed => Reason::BearerUnknown,
            Self::TooLarge => Reason::JwtTooLarge,
            Self::Repeated => Reason::JwtRepeatedName,
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
    /// When it is not of the form `header.payload.signature`, or too large, or repeats a name.
    pub fn parse(token: &'t str) -> Result<Self, JwtError> {
        if token.len() > MAX_JWT_BYTES {
            return Err(JwtError::TooLarge);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(JwtError::Malformed)?;
        let (header, claims) = message.split_once('.').ok_or(JwtError::Malformed)?;
        let (header, claims) = (part(header)?, part(claims)?);
        if header.repeats || claims.repeats {
            return Err(JwtError::Repeated);
        }
        let (Value::Object(header), Value::Object(claims)) = (header.value, claims.value) else {
            return Err(JwtError::Malformed);
        };
        let issuer = claims.get("iss").and_then(Value::as_str).ok_or(JwtError::Malformed)?;
        let (issuer, header) = (issuer.to_owned(), Header::read(&header)?);
        Ok(Self { message, signature, issuer, header, claims })
    }

    /// `kid` (RFC 7515, section 4.1.4).
    pub fn key_id(&self) -> Option<&str> {
        self.header.key_id.as_deref()
    }

    /// Waits for `wait` without the parsed claims, which may take thirty times the memory of their
    /// text. The client is not authenticated yet, so it must not hold that much.
    pub async fn without_claims<T>(&mut self, wait: impl Future<Output = T>) -> T {
        self.claims = Map::new();
        let waited = wait.await;
        let (_, claims) = self.message.split_once('.').expect("it was split there before");
        if let Ok(Json { value: Value::Object(claims), .. }) = part(claims) {
            self.claims = claims;
        }
        waited
    }

    /// Checks everything, with the keys of the issuer that the token names.
    ///
    /// # Errors
    /// The first failed check.
    pub fn verify(
        &self,
        issuer: &Issuer,
        keys: &KeySet,
        now: SystemTime,
    ) -> Result<VerifiedClaims, JwtError> {
        if self.issuer != issuer.issuer && issuer.is_meant_by(self) {
            return Err(JwtError::Slash);
        }
        let algorithm = self.header.algorithm.filter(|own| issuer.algorithms.contains(own));
        let algorithm = algorithm.ok_or(JwtError::Algorithm)?;
        if self.header.is_unfit || (issuer.typ.is_some() && self.header.typ != issuer.typ) {
            return Err(JwtError::Header);
        }
        let mut fitting = keys.fitting(self.key_id(), algorithm).peekable();
        if fitting.peek().is_none() {
            return Err(JwtError::UnknownKey);
        }
        signature::install();
        let holds = |key| {
            let message = self.message.as_bytes();
            jsonwebtoken::crypto::verify(self.signature, message, key, algorithm).unwrap_or(false)
        };
        if !fitting.any(holds) {
            return Err(JwtError::Signature);
        }
        if self.issuer != issuer.issuer {
            return Err(JwtError::Issuer);
        }
        if !is_for(self.claims.get("aud"), &issuer.audiences) {
            return Err(JwtError::Audience);
        }
        let expires_at = check_times(&self.claims, now, issuer.leeway.as_secs())?;
        Ok(VerifiedClaims { claims: self.claims.clone(), expires_at })
    }
}

/// One part of a token: base64url of JSON.
fn part(text: &str) -> Result<Json, JwtError> {
    let json = URL_SAFE_NO_PAD.decode(text).map_err(|_| JwtError::Malformed)?;
    serde_json::from_slice(&json).map_err(|_| JwtError::Malformed)
}

impl Header {
    fn read(header: &Map<String, Value>) -> Result<Self, JwtError> {
        let algorithm = header.get("alg").and_then(Value::as_str).ok_or(JwtError::Malformed)?;
        let is_text =
            |name| matches!(header.get(name), None | Some(Value::Null | Value::String(_)));
        let text = |name| header.get(name).and_then(Value::as_str).map(str::to_owned);
        Ok(Self {
            algorithm: jwk::algorithm(algorithm),
            key_id: text("kid"),
            typ: text("typ"),
            is_unfit: header.contains_key("crit") || !is_text("kid") || !is_text("typ"),
        })
    }
}

fn bare(issuer: &str) -> &str {
    issuer.strip_suffix('/').unwrap_or(issuer)
}

/// `aud` is one text or a list of texts (RFC 7519, section 4.1.3).
fn is_for(aud: Option<&Value>, audiences: &[String]) -> bool {
    let is_ours = |one: &Value| audiences.iter().any(|own| one.as_str() == Some(own));
    match aud {
        Some(Value::Array(all)) => all.iter().all(Value::is_string) && all.iter().any(is_ours),
        Some(one) => is_ours(one),
        None => false,
    }
}

/// Returns `exp`, which must be present and in the future. `nbf` and `iat`, if present, must be in
/// the past. A number written as text is not one (CVE-2026-25537). Clocks may differ by `leeway`
/// seconds.
fn check_times(
    claims: &Map<String, Value>,
    now: SystemTime,
    leeway: u64,
) -> Result<SystemTime, JwtError> {
    let now = now.duration_since(UNIX_EPOCH).map_err(|_| JwtError::Times)?.as_secs();
    let time = |name: &str| match claims.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) => seconds(number).map(Some).ok_or(JwtError::Times),
        Some(_) => Err(JwtError::Times),
    };
    let expires = time("exp")?.ok_or(JwtError::Times)?;
    if expires.saturating_add(leeway) <= now {
        return Err(JwtError::Expired);
    }
    for name in ["nbf", "iat"] {
        if time(name)?.is_some_and(|at| at > now.saturating_add(leeway)) {
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
    (whole <= MAX_UNIX_SECONDS).then_some(whole)
}

/// Most bytes of a JWT.
const MAX_JWT_BYTES: usize = 16 * 1024;
/// The end of the year 9999.
const MAX_UNIX_SECONDS: u64 = 253_402_300_799;

#[cfg(test)]
mod tests;
