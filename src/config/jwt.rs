//! The key `jwt` of a caller: the issuer of its tokens, and the keys that verify them.

use std::net::IpAddr;
use std::time::Duration;

use http::Uri;
use jsonwebtoken::{Algorithm, AlgorithmFamily};

use crate::caller::issuer_keys::IssuerKeys;
use crate::caller::jwt::Issuer;
use crate::caller::key_set::KeySet;
use crate::caller::{CallerName, JwtCaller};
use crate::jwks::HttpKeySource;
use crate::plain_file::limit::MAX_KEY_SET;

use super::field::{Field, some};
use super::file::{self, SecretSource};
use super::finding::Noted;
use super::place::Place;
use super::quantity::Period;
use super::{Check, References, shown};

impl Check<'_> {
    pub(super) fn jwt(
        self,
        at: &Place<'_>,
        jwt: file::Jwt,
        caller: &CallerName,
    ) -> Result<JwtCaller, Noted> {
        let text = |key: &str, value: Field<String>, accepted: &str| {
            let at = at.key(key);
            let text = value.required(&at, accepted, self.notes)?;
            if text.is_empty() {
                return Err(self.notes.add(at.wrong(accepted)));
            }
            Ok(text)
        };
        let issuer = text("issuer", jwt.issuer, "the value of the claim `iss`");
        let audiences = self.audiences(&at.key("audience"), jwt.audience);
        let leeway = self.leeway(&at.key("leeway"), jwt.leeway);
        let is_shared = !jwt.secret.is_missing();
        let given = jwt.algorithms.as_ref().given().into_iter().flatten();
        let given = given.filter_map(|algorithm| algorithm.as_ref().given());
        let min_secret = given.map(|algorithm| min_secret(*algorithm)).max();
        let algorithms = self.algorithms(&at.key("algorithms"), jwt.algorithms, is_shared);
        let public = PublicKeys {
            url: jwt.jwks_url,
            refresh: jwt.jwks_refresh,
            ca_file: jwt.ca_file,
            file: jwt.jwks_file,
        };
        let keys = if is_shared {
            self.shared_secret(at, jwt.secret, &public, min_secret.unwrap_or(MIN_SECRET))
        } else {
            self.issuer_keys(at, issuer.as_deref().unwrap_or_default(), public)
        };
        let issuer = Issuer {
            issuer: issuer?,
            audiences: audiences?,
            algorithms: algorithms?,
            typ: jwt.typ.optional()?,
            leeway: leeway?,
        };
        Ok(JwtCaller { name: caller.clone(), issuer, keys: keys? })
    }

    /// The values of `aud`, of which one is enough.
    fn audiences(self, at: &Place<'_>, given: Field<file::Audience>) -> Result<Vec<String>, Noted> {
        let mut known = Vec::new();
        let mut read = |at: &Place<'_>, audience: String| {
            if audience.is_empty() {
                return Err(self.notes.add(at.wrong(AUDIENCE)));
            }
            if known.contains(&audience) {
                let problem = "found the same audience again";
                return Err(self.notes.add(at.finding(problem, "each audience once")));
            }
            known.push(audience);
            Ok(())
        };
        match given.required(at, AUDIENCE, self.notes)? {
            file::Audience::One(one) => read(at, one)?,
            file::Audience::Several(all) => drop(some(all, at, AUDIENCE, self.notes, read)?),
        }
        Ok(known)
    }

    /// The clock skew that is allowed.
    fn leeway(self, at: &Place<'_>, given: Field<Period>) -> Result<Duration, Noted> {
        let Some(leeway) = given.optional()? else { return Ok(LEEWAY) };
        if leeway > MAX_LEEWAY || leeway.0.subsec_nanos() > 0 {
            let accepted = format!("whole seconds from `0s` to `{MAX_LEEWAY}`");
            return Err(self.notes.add(at.wrong(accepted)));
        }
        Ok(leeway.0)
    }

    /// Notes that the tokens of another caller cannot be told from these.
    pub(super) fn one_of_a_kind(self, at: &Place<'_>, jwt: &JwtCaller, others: &[JwtCaller]) {
        let same = |one: &&JwtCaller| {
            let audiences = &jwt.issuer.audiences;
            one.issuer.issuer == jwt.issuer.issuer
                && one.issuer.audiences.iter().any(|audience| audiences.contains(audience))
        };
        if let Some(other) = others.iter().find(same) {
            let problem = format!("found issuer and audience of the caller `{}`", other.name);
            let accepted = "an audience of its own for each caller";
            self.notes.add(at.key("audience").finding(problem, accepted));
        }
    }

    /// The algorithms, which must fit the kind of the keys: a public key must never be taken for a
    /// secret, nor a secret be shared where public keys are enough.
    fn algorithms(
        self,
        at: &Place<'_>,
        algorithms: Field<Vec<Field<file::Algorithm>>>,
        is_shared: bool,
    ) -> Result<Vec<Algorithm>, Noted> {
        let algorithms = algorithms.required(at, ALGORITHMS, self.notes)?;
        some(algorithms, at, ALGORITHMS, self.notes, |at, algorithm| {
            let algorithm = algorithm_of(algorithm);
            if (algorithm.family() == AlgorithmFamily::Hmac) == is_shared {
                return Ok(algorithm);
            }
            Err(self.notes.add(if is_shared {
                at.wrong(SHARED)
            } else {
                at.wrong(ALGORITHMS).hint("`HS…` needs a `secret`")
            }))
        })
    }

    /// The secret that an issuer signs with.
    fn shared_secret(
        self,
        at: &Place<'_>,
        secret: Field<SecretSource>,
        public: &PublicKeys,
        min_length: usize,
    ) -> Result<IssuerKeys, Noted> {
        let secret_at = at.key("secret");
        for (key, given) in
            [("jwks_url", &public.url), ("jwks_file", &public.file), ("ca_file", &public.ca_file)]
        {
            if !given.is_missing() {
                let problem = "found public keys beside a `secret`";
                self.notes.add(at.key(key).key_finding(problem, "a `secret` or public keys"));
            }
        }
        let secret = self.stored_secret(&secret_at, secret)?;
        if self.references == References::Read && secret.expose().len() < min_length {
            let problem = format!("found a secret of less than {min_length} bytes");
            let accepted = format!("at least {min_length} random bytes (RFC 7518, section 3.2)");
            return Err(self.notes.add(secret_at.finding(problem, accepted)));
        }
        Ok(IssuerKeys::fixed(KeySet::shared(&secret)))
    }

    /// Keys from a file, or from a URL. Beside a URL, a file is the fallback.
    fn issuer_keys(
        self,
        at: &Place<'_>,
        issuer: &str,
        keys: PublicKeys,
    ) -> Result<IssuerKeys, Noted> {
        let (file_at, url_at) = (at.key("jwks_file"), at.key("jwks_url"));
        let refresh = self.refresh(&at.key("jwks_refresh"), keys.refresh, &keys.url);
        let ca_at = at.key("ca_file");
        if let (Field::Given(_), Field::Missing) = (&keys.ca_file, &keys.url) {
            self.notes.add(ca_at.key_finding("found a CA without a URL", "a CA with `jwks_url`"));
        }
        match (keys.file.optional()?, keys.url.optional()?) {
            (None, None) => {
                Err(self.notes.add(url_at.missing("`jwks_url`, `jwks_file` or `secret`")))
            }
            (Some(file), None) => self.key_set(&file_at, &file).map(IssuerKeys::fixed),
            (file, Some(url)) => {
                let fallback = file.map(|file| self.key_set(&file_at, &file)).transpose();
                let url = jwks_url(&url).ok_or_else(|| {
                    self.notes.add(url_at.finding("found a URL that is not accepted", JWKS_URL))
                })?;
                let trust = self.ca_trust(&ca_at, &keys.ca_file)?;
                if self.references == References::Ignore {
                    return Ok(IssuerKeys::fixed(KeySet::default()));
                }
                let source = HttpKeySource::new(url, &trust)
                    .map_err(|error| self.notes.add(url_at.finding(error.to_string(), JWKS_URL)))?;
                let keys = IssuerKeys::fetched(issuer, Box::new(source), refresh?);
                Ok(match fallback? {
                    Some(fallback) => keys.with_fallback(fallback),
                    None => keys,
                })
            }
        }
    }

    /// The age that keys from a URL may reach.
    fn refresh(
        self,
        at: &Place<'_>,
        period: Field<Period>,
        url: &Field<String>,
    ) -> Result<Duration, Noted> {
        match period {
            Field::Missing => Ok(REFRESH),
            Field::Given(_) if url.is_missing() => {
                let problem = "found an age of keys that are not fetched";
                Err(self.notes.add(at.key_finding(problem, "an age with `jwks_url`")))
            }
            given => self.within(at, given, MIN_REFRESH, MAX_REFRESH).map(|period| period.0),
        }
    }

    fn key_set(self, at: &Place<'_>, file: &str) -> Result<KeySet, Noted> {
        if self.references == References::Ignore {
            return Ok(KeySet::default());
        }
        let unusable = |problem: String| {
            let named = shown::file(file.as_ref());
            let problem = format!("the file{named} cannot be used: {problem}");
            self.notes.add(at.finding(problem, "a JSON Web Key Set (RFC 7517)"))
        };
        let json = self
            .content(file.as_ref(), MAX_KEY_SET)
            .map_err(|error| unusable(format!("cannot be read: {error}")))?;
        let keys = KeySet::parse(&json).map_err(|error| unusable(error.to_string()))?;
        // An issuer's mistake must not shut its callers out, but a file is the operator's own.
        let left_out = keys.left_out().iter().map(|key| unusable(key.to_string()));
        let left_out = left_out.fold(None, |_, noted| Some(noted));
        let keys = keys.with_keys();
        match (keys, left_out) {
            (Ok(keys), None) => Ok(keys),
            (_, Some(noted)) => Err(noted),
            (Err(error), None) => Err(unusable(error.to_string())),
        }
    }
}

/// The keys of a JWT issuer that anybody may know, as they are written.
struct PublicKeys {
    url: Field<String>,
    refresh: Field<Period>,
    ca_file: Field<String>,
    file: Field<String>,
}

/// A URL with TLS, or on this machine; without user info, which would be a secret in the file.
fn jwks_url(text: &str) -> Option<Uri> {
    let url: Uri = text.parse().ok()?;
    let host = url.host()?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let on_this_machine =
        host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    let trusted = match url.scheme_str()? {
        "https" => true,
        "http" => on_this_machine,
        _ => false,
    };
    (trusted && !text.contains(['@', '#'])).then_some(url)
}

/// The length of a secret that an algorithm needs, in bytes (RFC 7518, section 3.2).
fn min_secret(algorithm: file::Algorithm) -> usize {
    match algorithm {
        file::Algorithm::HS512 => 64,
        file::Algorithm::HS384 => 48,
        _ => MIN_SECRET,
    }
}

fn algorithm_of(algorithm: file::Algorithm) -> Algorithm {
    match algorithm {
        file::Algorithm::RS256 => Algorithm::RS256,
        file::Algorithm::RS384 => Algorithm::RS384,
        file::Algorithm::RS512 => Algorithm::RS512,
        file::Algorithm::PS256 => Algorithm::PS256,
        file::Algorithm::PS384 => Algorithm::PS384,
        file::Algorithm::PS512 => Algorithm::PS512,
        file::Algorithm::ES256 => Algorithm::ES256,
        file::Algorithm::ES384 => Algorithm::ES384,
        file::Algorithm::EdDSA => Algorithm::EdDSA,
        file::Algorithm::HS256 => Algorithm::HS256,
        file::Algorithm::HS384 => Algorithm::HS384,
        file::Algorithm::HS512 => Algorithm::HS512,
    }
}

const MIN_SECRET: usize = 32;
/// The clock skew that is allowed where the file does not say.
const LEEWAY: Duration = Duration::from_secs(30);
/// RFC 7519, section 4.1.4, speaks of a few minutes.
const MAX_LEEWAY: Period = Period::seconds(300);
const AUDIENCE: &str = "a value of the claim `aud`, or a list of values";
/// The age that keys reach where the file does not say.
const REFRESH: Duration = Duration::from_mins(5);
/// Less would be a load on the issuer.
const MIN_REFRESH: Period = Period::seconds(1);
/// Stale keys are used for as long if newer ones cannot be fetched.
const MAX_REFRESH: Period = Period::seconds(3600);
const JWKS_URL: &str =
    "a URL with `https://`, or with `http://` on a loopback address; no user info";
const ALGORITHMS: &str =
    "some of `RS256`, `RS384`, `RS512`, `PS256`, `PS384`, `PS512`, `ES256`, `ES384`, `EdDSA`";
const SHARED: &str = "some of `HS256`, `HS384`, `HS512` with a `secret`";
