//! The classes of the routes of Bold BI's API. In doubt a route gets the more dangerous class: a
//! refused route is noticed, a disclosed secret is not. Pure.

use std::borrow::Cow;

use http::Method;
use percent_encoding::percent_decode_str;

use crate::policy::{RouteClass, Routes};

mod catalogue;
mod designer;
mod ui;

use catalogue::{
    BELOW, CREDENTIAL_SEGMENTS, EXPORT_BEGINNINGS, FAMILIES, HARMLESS_POSTS, METHODS_OF_NAMED,
    NAMED, On, SECRET_ENDINGS, is_secret_word,
};

/// The facts about routes of Bold BI.
pub const ROUTES: Routes = Routes {
    classify,
    classify_installation,
    takes_name,
    masked: designer::classify_masked,
    ui: ui::classify_ui,
};

/// The class of a route, by its method and its path below the API base. The path begins with a
/// slash and is as the client spelled it.
///
/// The method suggests a class. The catalogue raises it for all spellings that some server takes
/// for the same route: case, encoding, parameters, dots and white space at the ends of segments,
/// empty segments and the version do not matter. The catalogue lowers it for the plain spelling
/// only, so no other spelling ever gets a weaker class.
///
/// An encoded slash splits a segment. This is the more dangerous reading of the two: no segment has
/// a higher class than all of its parts.
///
/// A route of the gateway's own has the class of its own, in all spellings.
fn classify(method: &Method, route: &str) -> RouteClass {
    let plain = plain(route);
    if is_own(&plain) {
        return RouteClass::Embed;
    }
    let looks = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    let suggested = if looks { RouteClass::Read } else { RouteClass::Write };
    let class = suggested.max(raised(looks, &plain));
    if class == RouteClass::Write && *method == Method::POST {
        let route = below_version(route);
        let harmless = HARMLESS_POSTS.iter().find(|(plain, _)| *plain == route);
        return harmless.map_or(class, |(_, class)| *class);
    }
    class
}

/// Whether the first segment of a plain route, without its version, is the one below which the
/// gateway itself answers, in any spelling that some server takes for it, also if it is decoded
/// twice.
fn is_own(route: &str) -> bool {
    let mut plain = Cow::Borrowed(route);
    loop {
        let first = segments(&plain).find(|segment| !is_version(segment));
        if first == Some(OWN) {
            return true;
        }
        if !plain.contains('%') {
            return false;
        }
        let decoded = self::plain(&plain);
        if decoded == plain {
            return false;
        }
        plain = Cow::Owned(decoded.into_owned());
    }
}

/// The class of a route of the administration of an installation. Its token has all rights on all
/// sites, so that no route is less than `admin`. A change of a user may set its password. (Bold BI:
/// REST API v2.0 of the site administration.)
fn classify_installation(method: &Method, route: &str) -> RouteClass {
    let class = classify(method, route).max(RouteClass::Admin);
    let plain = plain(route);
    let mut below = segments(&plain).skip_while(|segment| is_version(segment));
    let changes_user = below.next() == Some("users") && below.next().is_some();
    let may_set = !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::DELETE);
    if changes_user && may_set { RouteClass::Credentials } else { class }
}

/// Whether the last segment of a route is a name, which may have slashes. Only the published
/// spelling of the other segments counts.
fn takes_name(method: &Method, route: &str) -> bool {
    let parent = below_version(route).rsplit_once('/').map(|(parent, _)| parent);
    parent.is_some_and(|parent| NAMED.contains(&parent)) && METHODS_OF_NAMED.contains(method)
}

/// The most dangerous class that the catalogue has for a plain route.
fn raised(looks: bool, route: &str) -> RouteClass {
    let mut class = RouteClass::Read;
    let mut first = None;
    let counts = |on: On| match on {
        On::Look => looks,
        On::Change => !looks,
        On::Any => true,
    };
    for segment in segments(route) {
        if CREDENTIAL_SEGMENTS.contains(&segment) || is_secret(segment) {
            return RouteClass::Credentials;
        }
        if looks && EXPORT_BEGINNINGS.iter().any(|beginning| segment.starts_with(beginning)) {
            class = class.max(RouteClass::Export);
        }
        match first {
            None if is_version(segment) => {}
            None => {
                first = Some(segment);
                let known = FAMILIES.iter().filter(|row| row.1 == segment && counts(row.0));
                class = known.fold(class, |class, row| class.max(row.2));
            }
            Some(first) => {
                let known = BELOW.iter();
                let known = known.filter(|row| row.2 == segment && row.1 == first && counts(row.0));
                class = known.fold(class, |class, row| class.max(row.3));
            }
        }
    }
    class
}

/// The route in lower case and decoded once, with slashes for backslashes. It is not copied if
/// nothing changes.
fn plain(route: &str) -> Cow<'_, str> {
    let is_ascii = |b: u8| matches!(b, b'!'..=b'~') && !matches!(b, b'%' | b'\\');
    // Both look at all bytes, so that the compiler can take several at a time.
    let is_lower = !route.bytes().fold(false, |found, b| found | b.is_ascii_uppercase());
    if route.bytes().fold(true, |all, b| all & is_ascii(b)) {
        let folded = || route.to_ascii_lowercase();
        return if is_lower { Cow::Borrowed(route) } else { Cow::Owned(folded()) };
    }
    let decoded = percent_decode_str(route).decode_utf8_lossy();
    // To upper case first, as .NET compares: this turns `ſ`, which has no lower case, into `s`. `İ`
    // becomes an `i` and a separate dot, which is removed.
    let folded = decoded.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase);
    let folded = folded.filter(|&c| c != DOT_ABOVE);
    Cow::Owned(folded.map(|c| if c == '\\' { '/' } else { c }).collect())
}

/// The segments that are not empty, without the parameters behind a `;`, and without white space,
/// control characters and dots at their ends: some servers ignore these.
fn segments(route: &str) -> impl Iterator<Item = &str> {
    // A search for text is dear with names as short as these.
    let names = route.split('/').map(|name| match name.bytes().position(|b| b == b';') {
        Some(end) => &name[..end],
        None => name,
    });
    names.map(without_ignored_ends).filter(|name| !name.is_empty())
}

fn without_ignored_ends(name: &str) -> &str {
    let is_kept = |end: Option<&u8>| end.is_some_and(u8::is_ascii_alphanumeric);
    if is_kept(name.as_bytes().first()) && is_kept(name.as_bytes().last()) {
        return name;
    }
    name.trim_matches(|c: char| c == '.' || c.is_whitespace() || c.is_control())
}

/// The route without its version in front, if that is spelled as published, such as `/v5.0`.
fn below_version(route: &str) -> &str {
    let below = route.strip_prefix("/v").and_then(|rest| {
        let (number, _) = rest.split_once('/')?;
        is_number(number).then(|| &rest[number.len()..])
    });
    below.unwrap_or(route)
}

/// Whether a segment is a version, such as `v5.0` or `v5`.
fn is_version(segment: &str) -> bool {
    segment.strip_prefix('v').is_some_and(is_number)
}

fn is_number(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

/// Whether a segment has a word that means a secret, or ends with such words run together.
fn is_secret(segment: &str) -> bool {
    let one = segment.strip_suffix('s').unwrap_or(segment);
    segment.as_bytes().split(|b| matches!(b, b'-' | b'_')).any(is_secret_word)
        || SECRET_ENDINGS.iter().any(|ending| one.ends_with(ending))
}

/// The segment below which the gateway itself answers.
const OWN: &str = "boldgate";
const DOT_ABOVE: char = '\u{307}';

#[cfg(test)]
mod tests;
