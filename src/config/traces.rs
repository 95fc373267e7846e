//! The section `traces`: the collector that spans are sent to, and the requests that are recorded.

use http::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE, USER_AGENT,
};
use http::uri::Authority;
use http::{HeaderName, HeaderValue, Uri};

use super::field::{Field, Named};
use super::finding::Noted;
use super::place::Place;
use super::quantity::Ratio;
use super::server_url::{endpoint, is_path, is_request_host};
use super::{Check, References, file};
use crate::secret::Secret;
use crate::traces::{CollectorSettings, SampleRatio, TraceSettings};
use crate::trust::Trust;

impl Check<'_> {
    /// The settings of traces; `None` if no request is recorded.
    pub(super) fn traces(
        self,
        at: &Place<'_>,
        traces: Field<file::Traces>,
    ) -> Result<Option<TraceSettings>, Noted> {
        let Some(traces) = traces.optional()? else { return Ok(None) };
        let endpoint_at = at.key("otlp_endpoint");
        let endpoint = self.otlp_endpoint(&endpoint_at, traces.otlp_endpoint);
        let ratio = self.sample_ratio(&at.key("sample_ratio"), traces.sample_ratio);
        let headers = self.export_headers(&at.key("headers"), traces.headers);
        let trust = self.collector_trust(at, &traces.ca_file, endpoint.as_ref().ok());
        let instance = self.instance(&at.key("instance"), traces.instance);
        let (endpoint, headers) = (endpoint?, headers?);
        if !headers.is_empty() {
            self.warn_of_export_headers(&endpoint_at, &endpoint);
        }
        let (trust, instance) = (trust?, instance?);
        let collector = CollectorSettings { endpoint, headers, trust, instance };
        Ok(Some(TraceSettings { ratio: ratio?, collector }))
    }

    fn otlp_endpoint(self, at: &Place<'_>, given: Field<String>) -> Result<Uri, Noted> {
        let text = given.required(at, ENDPOINT, self.notes)?;
        url_of_collector(&text).map_err(|problem| {
            // Without the URL, because it may hold a key.
            self.notes.add(at.finding(format!("found a URL {problem}"), ENDPOINT))
        })
    }

    fn sample_ratio(self, at: &Place<'_>, given: Field<Ratio>) -> Result<SampleRatio, Noted> {
        let ratio = given.required(at, SAMPLE_RATIO, self.notes)?;
        SampleRatio::new(ratio.0).ok_or_else(|| self.notes.add(at.wrong(SAMPLE_RATIO)))
    }

    /// The headers of each export; their values are secrets.
    fn export_headers(
        self,
        at: &Place<'_>,
        given: Field<Named<file::SecretSource>>,
    ) -> Result<Vec<(HeaderName, Secret)>, Noted> {
        let Some(Named(given)) = given.optional()? else { return Ok(Vec::new()) };
        let mut names = Vec::new();
        let read = given.into_iter().map(|(name, source)| {
            let at = at.key(&name);
            let secret = self.stored_secret(&at, source);
            let name = name.parse::<HeaderName>().ok().filter(|name| !SET_BY_US.contains(name));
            let name = name.ok_or_else(|| {
                let problem = "found a header that cannot be added to an export";
                self.notes.add(at.key_finding(problem, HEADER_NAME))
            })?;
            if names.contains(&name) {
                let problem = "found a second time, in other letters";
                return Err(self.notes.add(at.key_finding(problem, "each header once")));
            }
            names.push(name.clone());
            let secret = secret?;
            if HeaderValue::from_str(secret.expose()).is_err() {
                let problem = "found a secret that cannot be the value of a header";
                return Err(self.notes.add(at.finding(problem, "visible characters of ASCII")));
            }
            Ok((name, secret))
        });
        // Every header is read before the first fault counts.
        read.collect::<Vec<_>>().into_iter().collect()
    }

    fn collector_trust(
        self,
        at: &Place<'_>,
        ca_file: &Field<String>,
        endpoint: Option<&Uri>,
    ) -> Result<Trust, Noted> {
        let ca_at = at.key("ca_file");
        let tls = endpoint.map(is_tls);
        if let (Field::Given(_), Some(false)) = (ca_file, tls) {
            let problem = "found a CA for a collector that is spoken to without TLS";
            self.notes.add(ca_at.key_finding(problem, "a CA with `https://`"));
        }
        let trust = self.ca_trust(&ca_at, ca_file)?;
        if tls == Some(true)
            && self.references == References::Read
            && let Err(error) = trust.check()
        {
            let finding = at.key("otlp_endpoint").finding(format!("found that {error}"), CA_FILE);
            return Err(self.notes.add(finding));
        }
        Ok(trust)
    }

    fn instance(self, at: &Place<'_>, given: Field<String>) -> Result<Option<String>, Noted> {
        let Some(instance) = given.optional()? else { return Ok(None) };
        let is_plain = instance.bytes().all(|b| b.is_ascii_graphic());
        if instance.is_empty() || instance.len() > MAX_INSTANCE || !is_plain {
            return Err(self.notes.add(at.wrong(INSTANCE)));
        }
        Ok(Some(instance))
    }
}

pub(super) fn is_tls(endpoint: &Uri) -> bool {
    endpoint.scheme_str() == Some("https")
}

/// The URL, or the problem with it, without any part of the URL.
fn url_of_collector(text: &str) -> Result<Uri, &'static str> {
    let (tls, rest) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
        (Some(rest), _) => (false, rest),
        (_, Some(rest)) => (true, rest),
        _ => return Err("that does not begin with `http://` or `https://`"),
    };
    if rest.contains(['@', '?', '#']) {
        return Err("with user info, a query or a fragment");
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.parse::<Authority>().ok().filter(|_| endpoint(authority).is_some());
    if !host.is_some_and(|authority| !tls || is_request_host(authority.host())) {
        return Err("whose host is neither a DNS name nor an IP address");
    }
    if path.is_empty() || path == "/" {
        return Err("without a path");
    }
    if !is_path(path) {
        return Err("with a path that not all servers read in the same way");
    }
    text.parse().map_err(|_| "that is malformed")
}

const ENDPOINT: &str = "the whole URL for traces, such as `http://otel-collector:4318/v1/traces`; \
                        keys belong into `headers`";
const SAMPLE_RATIO: &str = "a number from `0` to `1`, such as `0.01`";
const HEADER_NAME: &str = "a header by which the collector knows its clients, such as \
                           `Authorization` or `api-key`";
const CA_FILE: &str = "a collector with a `ca_file`, or CA certificates of the system";
const INSTANCE: &str = "1 to 128 visible characters of ASCII";
const MAX_INSTANCE: usize = 128;
/// Headers that an export has anyway, and those of a connection.
static SET_BY_US: [HeaderName; 14] = [
    ACCEPT_ENCODING,
    CONNECTION,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    EXPECT,
    HOST,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    USER_AGENT,
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_of_a_collector_has_a_host_and_a_path_and_nothing_that_may_be_a_key() {
        for text in [
            "http://otel-collector:4318/v1/traces",
            "https://collector.example.com/v1/traces",
            "http://my_collector:4318/v1/traces",
            "https://[2001:db8::1]:4318/v1/traces",
            "http://127.0.0.1:4318/v1/traces",
            "https://api.example.com/otlp/v1/traces",
        ] {
            assert_eq!(url_of_collector(text).map(|url| url.to_string()), Ok(text.to_owned()));
        }
        for (text, says) in [
            ("otel-collector:4318/v1/traces", "begin"),
            ("grpc://otel-collector:4317/v1/traces", "begin"),
            ("http://otel-collector:4318", "without a path"),
            ("http://otel-collector:4318/", "without a path"),
            ("http://key@otel-collector:4318/v1/traces", "user info"),
            ("http://otel-collector:4318/v1/traces?key=canary", "query"),
            ("http://otel-collector:4318/v1/traces#canary", "fragment"),
            ("http://otel-collector:0/v1/traces", "host"),
            ("https://my_collector:4318/v1/traces", "host"),
            ("http:///v1/traces", "host"),
            ("http://otel-collector:4318/v1//traces", "path"),
            ("http://otel-collector:4318/v1/traces/", "path"),
            ("http://otel-collector:4318/v1/%74races", "path"),
        ] {
            let problem = url_of_collector(text).unwrap_err();
            assert!(problem.contains(says), "{text}: {problem}");
            assert!(!problem.contains("canary"));
        }
    }
}
