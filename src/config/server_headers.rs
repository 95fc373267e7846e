//! The headers that the gateway adds to every request to a server.

use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH,
    CONTENT_TYPE, COOKIE, EXPECT, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue, RANGE, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE, USER_AGENT,
};

use super::Check;
use super::field::{Field, Named};
use super::file::{HeaderSource, SecretSource};
use super::finding::Noted;
use super::place::Place;
use crate::boldbi::CALLER;
use crate::secret::Secret;

impl Check<'_> {
    pub(super) fn server_headers(
        self,
        at: &Place<'_>,
        given: Field<Named<HeaderSource>>,
    ) -> Result<HeaderMap, Noted> {
        let Some(Named(given)) = given.optional()? else { return Ok(HeaderMap::new()) };
        let mut headers = HeaderMap::new();
        let mut faulty = (given.len() > MAX_HEADERS).then(|| {
            let problem = format!("found {} headers", given.len());
            self.notes.add(at.finding(problem, format!("at most {MAX_HEADERS}")))
        });
        for (name, source) in given {
            let at = at.key(&name);
            // Both are read before the first fault counts.
            let (name, value) = (self.header_name(&at, &name), self.header_value(&at, source));
            match (name, value) {
                (Ok(name), _) if headers.contains_key(&name) => {
                    let problem = "found a second time, in other letters";
                    faulty = Some(self.notes.add(at.key_finding(problem, "each header once")));
                }
                (Ok(name), Ok(value)) => drop(headers.insert(name, value)),
                (Err(noted), _) | (_, Err(noted)) => faulty = Some(noted),
            }
        }
        faulty.map_or(Ok(headers), Err)
    }

    fn header_name(self, at: &Place<'_>, text: &str) -> Result<HeaderName, Noted> {
        // A header with other characters never goes on, because servers read `_` as `-`.
        let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let name = text.parse::<HeaderName>().ok().filter(|_| plain && text.len() <= MAX_NAME);
        let Some(name) = name else {
            let problem = "found text that is no plain name of a header";
            return Err(self.notes.add(at.key_finding(problem, NAME)));
        };
        let is_ours = NOT_ADDED.contains(&name)
            || NOT_ADDED_BY_NAME.contains(&name.as_str())
            || FAMILIES.iter().any(|family| name.as_str().starts_with(family));
        if is_ours {
            let problem = "found a header that the gateway sets, checks or drops itself";
            return Err(self.notes.add(at.key_finding(problem, NAME).hint(OURS)));
        }
        Ok(name)
    }

    fn header_value(
        self,
        at: &Place<'_>,
        source: Field<HeaderSource>,
    ) -> Result<HeaderValue, Noted> {
        let value = match source.required(at, HeaderSource::ACCEPTED, self.notes)? {
            HeaderSource::File(path) => {
                self.stored_secret(at, Field::Given(SecretSource::File(path)))?
            }
            HeaderSource::Env(name) => {
                self.stored_secret(at, Field::Given(SecretSource::Env(name)))?
            }
            HeaderSource::Value(text) if text.is_empty() => {
                return Err(self.notes.add(at.finding("found an empty value", VALUE)));
            }
            HeaderSource::Value(text) => Secret::new(text),
        };
        let text = value.expose();
        if text.len() > MAX_VALUE {
            let problem = format!("found a value of {} bytes", text.len());
            return Err(self.notes.add(at.finding(problem, VALUE)));
        }
        let Ok(mut value) = HeaderValue::from_str(text) else {
            let problem = "found a value that cannot be that of a header";
            return Err(self.notes.add(at.finding(problem, VALUE)));
        };
        value.set_sensitive(true);
        Ok(value)
    }
}

const MAX_HEADERS: usize = 16;
const MAX_NAME: usize = 64;
const MAX_VALUE: usize = 4096;
const VALUE: &str = "1 to 4096 visible characters of ASCII";
const NAME: &str = "a name of letters, digits and `-`, by which a firewall in front of Bold BI knows the \
                    gateway, such as `X-Waf-Key`";
const OURS: &str = "credentials belong to tenants (`credential`), and addresses of clients to listeners \
                    (`trusted_proxies`); framing, `Host` and the trace are never configured";
/// Headers that decide on user, site or target, those that describe one message, and those of one
/// connection.
static NOT_ADDED: [HeaderName; 20] = [
    ACCEPT,
    ACCEPT_ENCODING,
    AUTHORIZATION,
    CALLER,
    CONNECTION,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    COOKIE,
    EXPECT,
    FORWARDED,
    HOST,
    RANGE,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    USER_AGENT,
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
];
const NOT_ADDED_BY_NAME: [&str; 11] = [
    "cookie2",
    "http2-settings",
    "isembed",
    "ispinwidget",
    "ispublic",
    "keep-alive",
    "x-host",
    "x-replaced-path",
    "x-request-id",
    "x-rewrite-url",
    "x-method-override",
];
const FAMILIES: [&str; 6] =
    ["proxy-", "x-forward-", "x-forwarded-", "x-http-method", "x-original-", "access-control-"];
