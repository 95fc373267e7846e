//! What a route of Bold BI's API does. In doubt a route counts as more dangerous than it is: a
//! route refused is noticed, a secret shown is not. Pure.

use std::borrow::Cow;

use http::Method;
use percent_encoding::percent_decode_str;

use crate::policy::RouteClass;

/// The class of a route: its method and its path below the API base, with the slash in front, as
/// the client spells it. Routing in Bold BI ignores case, so spelling does not matter here; empty
/// segments do not count, nor does the version. (Bold BI: REST API v1.0 to v6.0, all operations;
/// deployment files for Kubernetes, where prefixes are matched without regard to case.)
pub fn classify(method: &Method, route: &str) -> RouteClass {
    let route = plain(route);
    if segments(&route).any(|segment| CREDENTIAL_SEGMENTS.contains(&segment) || is_secret(segment))
    {
        return RouteClass::Credentials;
    }
    let mut rest = segments(&route).skip_while(|segment| is_version(segment));
    let first = rest.next().unwrap_or_default();
    let second = rest.next().unwrap_or_default();
    let last = rest.last().unwrap_or(second);

    let looks = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    let posts = *method == Method::POST;
    match first {
        // The common secret of all sites is among these.
        "administration" if second == "embed" => RouteClass::Credentials,
        "settings" | "administration" => RouteClass::Admin,
        // The one GET that does something.
        "schedules" if last == "run" => RouteClass::Write,
        _ if looks && segments(&route).any(is_export) => RouteClass::Export,
        _ if looks => RouteClass::Read,
        first if ADMIN_FIRST.contains(&first) => RouteClass::Admin,
        "publish" if second == "external-sites" => RouteClass::Admin,
        // Who sees a dashboard without a login, and which rows of a data source a user sees.
        "dashboards" if second == "public" || last == "public" => RouteClass::Admin,
        "datasources" if last == "user-filter" => RouteClass::Admin,
        // Only as the second segment: deeper ones may be names that a client has chosen.
        "dashboards" | "datasource" | "datasources" if posts && is_export(second) => {
            RouteClass::Export
        }
        // The one POST that does nothing.
        "items" | "pinboard" if posts && second == "is-name-exists" => RouteClass::Read,
        _ => RouteClass::Write,
    }
}

/// The route in lower case and decoded once; itself, without allocation, where that is no change.
fn plain(route: &str) -> Cow<'_, str> {
    let is_plain = |b: u8| b.is_ascii_graphic() && !b.is_ascii_uppercase() && b != b'%';
    if route.bytes().all(is_plain) {
        return Cow::Borrowed(route);
    }
    let decoded = percent_decode_str(route).decode_utf8_lossy();
    // By way of upper case, as .NET compares: it makes a plain `s` of `ſ`, which has no lower case.
    Cow::Owned(decoded.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect())
}

/// The segments that are not empty. Parameters behind a `;` do not count, nor do white space and
/// dots at the ends, for some servers leave them out.
fn segments(route: &str) -> impl Iterator<Item = &str> {
    let ignored = |c: char| c == '.' || c.is_whitespace();
    let names = route.split('/').map(|s| s.split_once(';').map_or(s, |(name, _)| name));
    names.map(move |name| name.trim_matches(ignored)).filter(|name| !name.is_empty())
}

/// `v5.0`, `v5`.
fn is_version(segment: &str) -> bool {
    segment.strip_prefix('v').is_some_and(|number| {
        number.starts_with(|c: char| c.is_ascii_digit())
            && number.bytes().all(|b| b.is_ascii_digit() || b == b'.')
    })
}

/// A segment with a word that means a secret, or one that is such words run together.
fn is_secret(segment: &str) -> bool {
    segment.split(['-', '_']).any(|word| SECRET_WORDS.contains(&word))
        || SECRET_ENDINGS.iter().any(|ending| segment.ends_with(ending))
}

fn is_export(segment: &str) -> bool {
    segment.starts_with("export") || segment.starts_with("download")
}

/// Routes that mint tokens or configure who may log in and with what keys.
const CREDENTIAL_SEGMENTS: [&str; 3] = ["authorize", "authentication", "get-user-key"];
/// In `embed-secret`, `api-keys`, `regenerate-signing-key`, `personal-access-token`, …
const SECRET_WORDS: [&str; 11] = [
    "token",
    "tokens",
    "secret",
    "secrets",
    "key",
    "keys",
    "apikey",
    "apikeys",
    "credential",
    "credentials",
    "password",
];
/// In `embedsecret`, `getuserkey`, …
const SECRET_ENDINGS: [&str; 10] = [
    "token",
    "tokens",
    "secret",
    "secrets",
    "apikey",
    "apikeys",
    "userkey",
    "signingkey",
    "encryptionkey",
    "password",
];
/// First segments below which every change is about who may do what.
const ADMIN_FIRST: [&str; 16] = [
    "users",
    "user",
    "csv-users",
    "groups",
    "group",
    "permissions",
    "permission",
    "attribute",
    "attributes",
    "external-sites",
    "system-settings",
    "tenants",
    "tenant",
    "startup",
    "site",
    "sites",
];

#[cfg(test)]
mod tests;
