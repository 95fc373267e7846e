//! The section `traces`: which requests are recorded, and where their spans go.

use http::header::{HOST, HeaderName, HeaderValue};
use http::{Uri, header};

use crate::secret::Secret;
use crate::traces::{CollectorSettings, SampleRatio, TraceSettings};

use super::field::{Field, Named};
use super::file;
use super::finding::Noted;
use super::place::Place;
use super::{Check, References};

impl Check<'_> {
    pub(super) fn traces(
        self,
        at: &Place<'_>,
        traces: Field<file::Traces>,
    ) -> Result<Option<TraceSettings>, Noted> {
        let Some(traces) = traces.optional()? else { return Ok(None) };
        let endpoint = self.otlp_endpoint(&at.key("otlp_endpoint"), traces.otlp_endpoint);
        let ratio_at = at.key("sample_ratio");
        let ratio = traces.sample_ratio.required(&ratio_at, RATIO, self.notes);
        let ratio = ratio.and_then(|ratio| {
            SampleRatio::new(ratio).ok_or_else(|| self.notes.add(ratio_at.wrong(RATIO)))
        });
        let headers = self.trace_headers(&at.key("headers"), traces.headers);
        let (ca_at, ca_file) = (at.key("ca_file"), traces.ca_file);
        let trust = match (&ca_file, &endpoint) {
            (Field::Given(_), Ok(endpoint)) if endpoint.scheme_str() == Some("http") => {
                let problem = "found a CA beside a URL without TLS";
                Err(self.notes.add(ca_at.key_finding(problem, "a CA with an `https://` endpoint")))
            }
            _ => self.ca_trust(&ca_at, &ca_file),
        };
        let instance = traces.instance.optional();
        let collector = CollectorSettings {
            endpoint: endpoint?,
            headers: headers?,
            trust: trust?,
            instance: instance?,
        };
        Ok(Some(TraceSettings { ratio: ratio?, collector }))
    }

    fn otlp_endpoint(self, at: &Place<'_>, given: Field<String>) -> Result<Uri, Noted> {
        let text = given.required(at, ENDPOINT, self.notes)?;
        // A URL with user info or a query may hold a key, and is not shown.
        let plain = !text.contains(['@', '?', '#']);
        let url = text.parse::<Uri>().ok().filter(|url| {
            plain && url.host().is_some() && matches!(url.scheme_str(), Some("http" | "https"))
        });
        let Some(url) = url else {
            let problem = "found a URL that is not accepted";
            return Err(self.notes.add(at.finding(problem, ENDPOINT)));
        };
        if url.path() == "/" {
            let finding = at.finding("found a URL without a path", ENDPOINT);
            let hint = "collectors take spans at `/v1/traces`: add that to the URL";
            return Err(self.notes.add(finding.hint(hint)));
        }
        Ok(url)
    }

    fn trace_headers(
        self,
        at: &Place<'_>,
        headers: Field<Named<file::SecretSource>>,
    ) -> Result<Vec<(HeaderName, Secret)>, Noted> {
        let Some(Named(headers)) = headers.optional()? else { return Ok(Vec::new()) };
        let read = headers.into_iter().map(|(name, source)| {
            let at = at.key(&name);
            let secret = self.stored_secret(&at, source);
            let name = name.parse::<HeaderName>().ok().filter(|name| !is_ours(name));
            let name = name.ok_or_else(|| {
                self.notes.add(at.key_finding("found a name that is not accepted", HEADER))
            });
            let secret = secret.and_then(|secret| {
                let is_value = HeaderValue::from_str(secret.expose()).is_ok();
                if self.references == References::Read && !is_value {
                    let problem = "found a secret that cannot be the value of a header";
                    return Err(self.notes.add(at.finding(problem, "visible ASCII")));
                }
                Ok(secret)
            });
            Ok((name?, secret?))
        });
        // Every header is read before the first fault counts.
        read.collect::<Vec<_>>().into_iter().collect()
    }
}

/// Whether each export has a value of its own for this header.
fn is_ours(name: &HeaderName) -> bool {
    [
        HOST,
        header::CONTENT_TYPE,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::CONNECTION,
    ]
    .contains(name)
}

const ENDPOINT: &str =
    "a URL such as `http://collector:4318/v1/traces`, without user info and query";
const RATIO: &str = "a number from 0 to 1";
const HEADER: &str = "the name of a header, other than those that each request has";
