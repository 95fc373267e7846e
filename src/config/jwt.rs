//! The key `jwt` of a caller: whose tokens prove it, and the keys that they are signed with.

use std::net::IpAddr;
use std::time::Duration;

use http::Uri;
use jsonwebtoken::{Algorithm, AlgorithmFamily};

use crate::caller::issuer_keys::IssuerKeys;
use crate::caller::jwt::Issuer;
use crate::caller::key_set::KeySet;
use crate::caller::{CallerName, JwtCaller};
use crate::jwks::HttpKeySource;
use crate::plain_file;
use crate::plain_file::limit::MAX_KEY_SET;

use super::field::Field;
use super::file;
use super::place::Place;
use super::quantity::Period;
use super::{Check, References};

impl Check<'_> {
    pub(super) fn jwt(
        self,
        at: &Place<'_>,
        jwt: Field<file::Jwt>,
        caller: &CallerName,
    ) -> Option<JwtCaller> {
        let mut jwt = jwt.given()?;
        let keys = match &jwt.secret {
            Field::Missing => self.issuer_keys(at, &mut jwt),
            _ => self.shared_secret(at, &jwt),
        };
        let text = |key: &str, value: Field<String>, accepted: &str| {
            let at = at.key(key);
            let text = value.required(&at, accepted, self.notes)?;
            if text.is_empty() {
                self.notes.add(at.wrong(accepted));
                return None;
            }
            Some(text)
        };
        let issuer = text("issuer", jwt.issuer, "the value of the claim `iss`");
        let audiences = self.audiences(&at.key("audience"), jwt.audience);
        let leeway = self.leeway(&at.key("leeway"), jwt.leeway);
        let algorithms_at = at.key("algorithms");
        let algorithms = jwt.algorithms.required(&algorithms_at, ALGORITHMS, self.notes);
        if algorithms.as_ref().is_some_and(Vec::is_empty) {
            self.notes.add(algorithms_at.finding("found an empty list", ALGORITHMS));
        }
        self.fitting(&algorithms_at, algorithms.as_deref(), !matches!(jwt.secret, Field::Missing));
        let algorithms = algorithms?.into_iter().filter_map(Field::given).map(algorithm_of);
        let issuer = Issuer {
            issuer: issuer?,
            audiences: audiences?,
            algorithms: algorithms.collect(),
            typ: jwt.typ.given(),
            leeway: leeway?,
        };
        Some(JwtCaller { name: caller.clone(), issuer, keys: keys? })
    }

    /// The values of `aud`, of which one is enough.
    fn audiences(self, at: &Place<'_>, given: Field<file::Audience>) -> Option<Vec<String>> {
        let given = match given.required(at, AUDIENCE, self.notes)? {
            file::Audience::One(one) => vec![(at.clone(), one)],
            file::Audience::Several(all) => {
                let all = all.into_iter().enumerate();
                all.map(|(index, one)| (at.item(index), one)).collect()
            }
        };
        if given.is_empty() {
            self.notes.add(at.finding("found an empty list", AUDIENCE));
        }
        let (mut audiences, expected) = (Vec::new(), given.len());
        for (at, audience) in given {
            let Some(audience) = audience.given() else { continue };
            if audience.is_empty() {
                self.notes.add(at.wrong(AUDIENCE));
            } else if audiences.contains(&audience) {
                self.notes.add(at.finding("found the same audience again", "each audience once"));
            } else {
                audiences.push(audience);
            }
        }
        (audiences.len() == expected && expected > 0).then_some(audiences)
    }

    /// How much clocks may differ.
    fn leeway(self, at: &Place<'_>, given: Field<Period>) -> Option<Duration> {
        if let Field::Missing = given {
            return Some(LEEWAY);
        }
        let leeway = given.given()?;
        if leeway > MAX_LEEWAY || leeway.0.subsec_nanos() > 0 {
            self.notes.add(at.wrong(format!("whole seconds from `0s` to `{MAX_LEEWAY}`")));
            return None;
        }
        Some(leeway.0)
    }

    /// Notes where another caller has tokens that are no different.
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

    /// Notes algorithms that the kind of the keys is not for: a public key must never be taken for
    /// a secret, nor a secret be shared with whom only public keys are needed.
    fn fitting(self, at: &Place<'_>, algorithms: Option<&[Field<file::Algorithm>]>, shared: bool) {
        for (index, algorithm) in algorithms.into_iter().flatten().enumerate() {
            let Some(given) = algorithm.as_given().copied() else { continue };
            if (algorithm_of(given).family() == AlgorithmFamily::Hmac) != shared {
                let accepted = if shared { SHARED } else { ALGORITHMS };
                let finding = at.item(index).wrong(accepted);
                self.notes.add(if shared {
                    finding
                } else {
                    finding.hint("`HS…` needs a `secret`")
                });
            }
        }
    }

    /// The secret that an issuer signs with.
    fn shared_secret(self, at: &Place<'_>, jwt: &file::Jwt) -> Option<IssuerKeys> {
        let secret_at = at.key("secret");
        for (key, public) in
            [("jwks_url", &jwt.jwks_url), ("jwks_file", &jwt.jwks_file), ("ca_file", &jwt.ca_file)]
        {
            if !matches!(public, Field::Missing) {
                let problem = "found public keys beside a `secret`";
                self.notes.add(at.key(key).key_finding(problem, "a `secret` or public keys"));
            }
        }
        let secret = self.stored_secret(&secret_at, &jwt.secret)?;
        let given = jwt.algorithms.as_given().into_iter().flatten();
        let least = given.filter_map(|algorithm| match algorithm.as_given()? {
            file::Algorithm::HS512 => Some(64),
            file::Algorithm::HS384 => Some(48),
            _ => Some(32),
        });
        let least = least.max().unwrap_or(32);
        if self.references == References::Read && secret.expose().len() < least {
            let problem = format!("found a secret of less than {least} bytes");
            let accepted = format!("at least {least} random bytes (RFC 7518, section 3.2)");
            self.notes.add(secret_at.finding(problem, accepted));
            return None;
        }
        Some(IssuerKeys::fixed(KeySet::shared(&secret)))
    }

    /// Keys from a file or from a URL, whichever is given.
    fn issuer_keys(self, at: &Place<'_>, jwt: &mut file::Jwt) -> Option<IssuerKeys> {
        let (file_at, url_at) = (at.key("jwks_file"), at.key("jwks_url"));
        let refresh = self.refresh(at, jwt);
        let ca_at = at.key("ca_file");
        if let (Field::Given(_), Field::Missing) = (&jwt.ca_file, &jwt.jwks_url) {
            self.notes.add(ca_at.key_finding("found a CA without a URL", "a CA with `jwks_url`"));
        }
        match (&jwt.jwks_file, &jwt.jwks_url) {
            (Field::Missing, Field::Missing) => {
                self.notes.add(url_at.missing("`jwks_url`, `jwks_file` or `secret`"));
                None
            }
            (Field::Given(file), Field::Missing) => {
                self.key_set(&file_at, file).map(IssuerKeys::fixed)
            }
            (Field::Missing, Field::Given(url)) => {
                let Some(url) = jwks_url(url) else {
                    self.notes.add(url_at.finding("found a URL that is not accepted", JWKS_URL));
                    return None;
                };
                let trust = self.ca_trust(&ca_at, &jwt.ca_file)?;
                if self.references == References::Ignore {
                    return Some(IssuerKeys::fixed(KeySet::default()));
                }
                match HttpKeySource::new(url, &trust) {
                    Ok(source) => Some(IssuerKeys::fetched(
                        jwt.issuer.as_given().map_or("", String::as_str),
                        Box::new(source),
                        refresh?,
                    )),
                    Err(error) => {
                        self.notes.add(url_at.finding(error.to_string(), JWKS_URL));
                        None
                    }
                }
            }
            (Field::Given(_), Field::Given(_)) => {
                let problem = "found a file beside `jwks_url`";
                self.notes.add(file_at.key_finding(problem, "one of `jwks_url` and `jwks_file`"));
                None
            }
            _ => None,
        }
    }

    /// How old keys from a URL may become.
    fn refresh(self, at: &Place<'_>, jwt: &mut file::Jwt) -> Option<Duration> {
        let at = at.key("jwks_refresh");
        let period = std::mem::replace(&mut jwt.jwks_refresh, Field::Missing);
        match period {
            Field::Missing => Some(REFRESH),
            Field::Given(_) if matches!(jwt.jwks_url, Field::Missing) => {
                let problem = "found an age of keys that are not fetched";
                self.notes.add(at.key_finding(problem, "an age with `jwks_url`"));
                None
            }
            given => {
                let refresh = given.given()?;
                if refresh < MIN_REFRESH || refresh > MAX_REFRESH {
                    self.notes.add(at.wrong(format!("`{MIN_REFRESH}` to `{MAX_REFRESH}`")));
                    return None;
                }
                Some(refresh.0)
            }
        }
    }

    fn key_set(self, at: &Place<'_>, file: &str) -> Option<KeySet> {
        if self.references == References::Ignore {
            return Some(KeySet::default());
        }
        let read = self.content(file.as_ref(), MAX_KEY_SET);
        let read = read.map_err(|error| format!("cannot be read: {error}"));
        let unusable = |problem: String| {
            let named = plain_file::named(file.as_ref());
            let problem = format!("the file cannot be used{named}: {problem}");
            self.notes.add(at.finding(problem, "a JSON Web Key Set (RFC 7517)"));
        };
        let keys = read.and_then(|json| KeySet::parse(&json).map_err(|error| error.to_string()));
        let keys = keys.map_err(unusable).ok()?;
        // An issuer's mistake must not shut its callers out, but a file is the operator's own.
        keys.left_out().iter().map(ToString::to_string).for_each(unusable);
        let is_whole = keys.left_out().is_empty();
        let keys = keys.with_keys();
        match keys {
            Ok(keys) => Some(keys),
            Err(error) => {
                if is_whole {
                    unusable(error.to_string());
                }
                None
            }
        }
    }
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

/// By how much clocks may differ where the file does not say.
const LEEWAY: Duration = Duration::from_secs(30);
/// RFC 7519, section 4.1.4, speaks of a few minutes.
const MAX_LEEWAY: Period = Period::seconds(300);
const AUDIENCE: &str = "a value of the claim `aud`, or a list of values";
/// How old keys become where the file does not say.
const REFRESH: Duration = Duration::from_mins(5);
/// Less would be a load on the issuer.
const MIN_REFRESH: Period = Period::seconds(1);
/// As long as keys are used that cannot be fetched anew.
const MAX_REFRESH: Period = Period::seconds(3600);
const JWKS_URL: &str =
    "a URL with `https://`, or with `http://` on a loopback address; no user info";
const ALGORITHMS: &str =
    "some of `RS256`, `RS384`, `RS512`, `PS256`, `PS384`, `PS512`, `ES256`, `ES384`, `EdDSA`";
const SHARED: &str = "some of `HS256`, `HS384`, `HS512` with a `secret`";
