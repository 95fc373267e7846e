//! The section `callers`: who may use the gateway, known by the hash of an API key or by JWTs, and
//! for what.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use http::Uri;
use http::header::{self, HeaderName};
use jsonwebtoken::Algorithm;

use crate::caller::jwks::IssuerKeys;
use crate::caller::jwt::{Issuer, KeySet};
use crate::caller::{ApiKeyHash, CallerAuth, CallerName, JwtCaller};
use crate::jwks::HttpKeySource;
use crate::policy::Rule;

use super::field::{Field, Named};
use super::file;
use super::place::Place;
use super::quantity::Period;
use super::tenants::FoundTenants;
use super::{Check, References};

/// For each caller, what it may do.
type Rules = HashMap<CallerName, Vec<Rule>>;

impl Check<'_> {
    pub(super) fn callers(
        self,
        root: &Place<'_>,
        callers: Field<Named<file::Caller>>,
        key_header: Field<String>,
        tenants: &FoundTenants,
    ) -> (Option<CallerAuth>, Rules) {
        let at = root.key("callers");
        let mut keys: HashMap<ApiKeyHash, CallerName> = HashMap::new();
        let mut jwts: Vec<JwtCaller> = Vec::new();
        let mut rules = Rules::new();
        for (name, caller) in callers.given().into_iter().flat_map(|c| c.0) {
            let at = at.key(&name);
            self.name(&at, &name);
            let Some(caller) = caller.given() else { continue };
            let name = CallerName::new(&name);
            if let (Field::Missing, Field::Missing) = (&caller.api_key, &caller.jwt) {
                self.notes.add(at.key("api_key").missing("`api_key` or `jwt`"));
            }
            if let Some(jwt) = self.jwt(&at.key("jwt"), caller.jwt, &name) {
                let same = |one: &JwtCaller| {
                    one.issuer.issuer == jwt.issuer.issuer
                        && one.issuer.audience == jwt.issuer.audience
                };
                if let Some(other) = jwts.iter().find(|one| same(one)) {
                    let problem =
                        format!("found issuer and audience of the caller `{}`", other.name);
                    let place = at.key("jwt").key("audience");
                    self.notes
                        .add(place.finding(problem, "an audience of its own for each caller"));
                }
                jwts.push(jwt);
            }
            if let Some(hash) = self.api_key(&at.key("api_key"), caller.api_key) {
                if let Some(other) = keys.get(&hash) {
                    let problem = format!("found the key of the caller `{other}`");
                    let place = at.key("api_key").key("sha256");
                    self.notes.add(place.finding(problem, "a key of its own for each caller"));
                }
                keys.insert(hash, name.clone());
            }
            rules.insert(name, self.permissions(&at.key("may"), caller.may, tenants));
        }
        let key_header = self.key_header(&root.key("api_key_header"), key_header);
        (key_header.map(|header| CallerAuth::new(keys, header, jwts)), rules)
    }

    fn api_key(self, at: &Place<'_>, api_key: Field<file::ApiKey>) -> Option<ApiKeyHash> {
        let api_key = api_key.given()?;
        let at = at.key("sha256");
        let text = api_key.sha256.required(&at, HASH, self.notes)?;
        let hash = ApiKeyHash::parse(&text);
        if hash.is_none() {
            let finding = at.wrong(HASH);
            self.notes.add(if text.starts_with("bgk_") {
                finding.hint("this is a key itself: its hash belongs here, and the key is no secret any more")
            } else {
                finding
            });
        }
        hash
    }

    fn jwt(self, at: &Place<'_>, jwt: Field<file::Jwt>, caller: &CallerName) -> Option<JwtCaller> {
        let mut jwt = jwt.given()?;
        let keys = self.issuer_keys(at, &mut jwt);
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
        let audience = text("audience", jwt.audience, "a value of the claim `aud`");
        let algorithms_at = at.key("algorithms");
        let algorithms = jwt.algorithms.required(&algorithms_at, ALGORITHMS, self.notes);
        if algorithms.as_ref().is_some_and(Vec::is_empty) {
            self.notes.add(algorithms_at.finding("found an empty list", ALGORITHMS));
        }
        let algorithms = algorithms?.into_iter().filter_map(Field::given).map(algorithm);
        let (issuer, audience) = (issuer?, audience?);
        let issuer =
            Issuer { issuer, audience, algorithms: algorithms.collect(), typ: jwt.typ.given() };
        Some(JwtCaller { name: caller.clone(), issuer, keys: keys? })
    }

    /// Keys from a file or from a URL, whichever is given.
    fn issuer_keys(self, at: &Place<'_>, jwt: &mut file::Jwt) -> Option<IssuerKeys> {
        let (file_at, url_at) = (at.key("jwks_file"), at.key("jwks_url"));
        let refresh = self.refresh(at, jwt);
        let (ca_at, ca_file) = (at.key("ca_file"), jwt.ca_file.as_given());
        if let (Some(_), Field::Missing) = (ca_file, &jwt.jwks_url) {
            self.notes.add(ca_at.key_finding("found a CA without a URL", "a CA with `jwks_url`"));
        }
        match (&jwt.jwks_file, &jwt.jwks_url) {
            (Field::Missing, Field::Missing) => {
                self.notes.add(url_at.missing("`jwks_url` or `jwks_file`"));
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
                if let Some(file) = ca_file {
                    self.certificates(&ca_at, file);
                }
                if self.references == References::Ignore {
                    return Some(IssuerKeys::fixed(KeySet::default()));
                }
                match HttpKeySource::new(url, ca_file.map(Path::new)) {
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
        let read = std::fs::read(file).map_err(|error| format!("cannot be read: {error}"));
        let keys = read.and_then(|json| KeySet::parse(&json).map_err(|error| error.to_string()));
        match keys {
            Ok(keys) => Some(keys),
            Err(problem) => {
                let problem = format!("the file cannot be used: {problem}");
                self.notes.add(at.finding(problem, "a JSON Web Key Set (RFC 7517)"));
                None
            }
        }
    }

    fn key_header(self, at: &Place<'_>, name: Field<String>) -> Option<HeaderName> {
        let name = HeaderName::try_from(name.given()?).ok().filter(|n| !IN_USE.contains(n));
        if name.is_none() {
            let accepted = "the name of a header that has no other use, such as `X-Api-Key`";
            self.notes.add(at.wrong(accepted));
        }
        name
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

fn algorithm(algorithm: file::Algorithm) -> Algorithm {
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
    }
}

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
const HASH: &str = "64 hexadecimal digits, the SHA-256 of a key, made by `boldgate key`";

/// Headers that mean something to the gateway or to Bold BI: the key's header is taken away.
const IN_USE: [HeaderName; 14] = [
    header::AUTHORIZATION,
    header::HOST,
    header::COOKIE,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::TRANSFER_ENCODING,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    header::EXPECT,
    header::ACCEPT,
    header::PROXY_AUTHORIZATION,
];
