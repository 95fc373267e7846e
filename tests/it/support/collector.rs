//! A collector that decodes spans by the published messages of OpenTelemetry.

use std::net::SocketAddr;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

use super::upstream::{RawResponse, Request, Upstream, status};

/// A collector, with all that it was sent.
pub struct SpanCollector(Upstream);

impl SpanCollector {
    /// Accepts every export.
    pub async fn start() -> Self {
        Self::responding(|_| status(200, "")).await
    }

    pub async fn responding(
        handler: impl Fn(&Request) -> RawResponse + Send + Sync + 'static,
    ) -> Self {
        Self(Upstream::with_handler_for_all(handler).await)
    }

    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// The exports as they arrived.
    pub fn requests(&self) -> Vec<Request> {
        self.0.seen.requests()
    }

    pub fn exports(&self) -> Vec<ExportTraceServiceRequest> {
        let decode = |request: Request| ExportTraceServiceRequest::decode(&request.body[..]);
        self.requests().into_iter().map(|request| decode(request).unwrap()).collect()
    }

    /// All spans, in the order they arrived.
    pub fn spans(&self) -> Vec<Span> {
        let resources = self.exports().into_iter().flat_map(|export| export.resource_spans);
        let scopes = resources.flat_map(|resource| resource.scope_spans);
        scopes.flat_map(|scope| scope.spans).collect()
    }

    /// The spans of each request, in the order in which the requests began; in each, that of the
    /// request first, and then its stages in their order.
    pub fn traces(&self) -> Vec<Vec<Span>> {
        let (mut requests, stages): (Vec<_>, Vec<_>) =
            self.spans().into_iter().partition(|span| span.kind == SERVER);
        requests.sort_by_key(|span| span.start_time_unix_nano);
        let with_stages = |request: Span| {
            let of_it = stages.iter().filter(|stage| stage.parent_span_id == request.span_id);
            let mut all: Vec<_> = of_it.cloned().collect();
            all.sort_by_key(|span| span.start_time_unix_nano);
            all.insert(0, request);
            all
        };
        let traces: Vec<_> = requests.into_iter().map(with_stages).collect();
        let spans = traces.iter().map(Vec::len).sum::<usize>();
        assert_eq!(spans, self.spans().len(), "every span belongs to a request");
        traces
    }
}

/// The configuration with traces of every request, sent to the collector at this address.
pub fn traced(config: &str, collector: SocketAddr) -> String {
    traced_with(config, collector, "sample_ratio: 1")
}

/// The same with these keys.
pub fn traced_with(config: &str, collector: SocketAddr, keys: &str) -> String {
    format!("{config}traces: {{ otlp_endpoint: \"http://{collector}/v1/traces\", {keys} }}\n")
}

/// The text of an attribute, or its number as text.
pub fn attribute(span: &Span, key: &str) -> Option<String> {
    value_of(&span.attributes, key)
}

pub fn value_of(attributes: &[KeyValue], key: &str) -> Option<String> {
    let mut of_key = attributes.iter().filter(|attribute| attribute.key == key);
    let attribute = of_key.next()?;
    assert!(of_key.next().is_none(), "{key} is there once");
    match attribute.value.clone()?.value? {
        Value::StringValue(text) => Some(text),
        Value::IntValue(number) => Some(number.to_string()),
        other => panic!("{key}: {other:?}"),
    }
}

pub fn names(spans: &[Span]) -> Vec<&str> {
    spans.iter().map(|span| span.name.as_str()).collect()
}

pub fn hex(id: &[u8]) -> String {
    id.iter().fold(String::new(), |all, byte| all + &format!("{byte:02x}"))
}

pub const INTERNAL: i32 = 1;
pub const SERVER: i32 = 2;
pub const CLIENT: i32 = 3;
/// The status code of a span that failed.
pub const ERROR: i32 = 2;
