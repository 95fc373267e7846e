//! A recorded request whose spans are complete, and the spans as they are exported. They hold
//! words, numbers and names of the configuration: no path, no query, no header and no user.

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::Method;

use super::otlp::{self, Attribute, Scalar, Span, SpanStatus};

/// A part of the way of a request, which has a span of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The decision whether the request goes on.
    Admission,
    /// The token: a lookup in the cache, or the wait for an exchange.
    Token,
    /// The request to Bold BI, with the wait for a connection, until its response ends.
    Upstream,
}

/// The end of a request, with the facts that its span shows.
#[derive(Debug)]
pub struct RequestEnd {
    /// The method; `None` if it is not one that is forwarded.
    pub method: Option<Method>,
    /// The scheme of the client's request; `None` if the head could not be read.
    pub scheme: Option<&'static str>,
    /// The class of the route; `None` before admission.
    pub class: Option<&'static str>,
    /// The status sent to the client; `None` if nothing was sent.
    pub status: Option<u16>,
    /// The name of the tenant, once known.
    pub tenant: Option<String>,
    /// How the request ended, in a word.
    pub outcome: &'static str,
    /// Code of the refusal, if it was one.
    pub refusal: Option<&'static str>,
    /// The reason of the refusal, where its code has more than one.
    pub reason: Option<&'static str>,
    /// The failure, if something inside or behind the gateway has failed.
    pub error: Option<Cow<'static, str>>,
}

/// A recorded request, whose spans are complete.
#[derive(Debug)]
pub(super) struct FinishedTrace {
    pub(super) trace: TraceId,
    pub(super) parent: Option<SpanId>,
    pub(super) request: SpanId,
    pub(super) begun: SystemTime,
    pub(super) duration: Duration,
    pub(super) stages: Vec<RecordedStage>,
    pub(super) end: RequestEnd,
}

/// A stage of a request, with its span.
#[derive(Debug)]
pub(super) struct RecordedStage {
    pub(super) stage: Stage,
    pub(super) id: SpanId,
    /// From the beginning of the request on.
    pub(super) from: Duration,
    pub(super) to: Duration,
    pub(super) attributes: Vec<(&'static str, StageValue)>,
    pub(super) error: Option<Cow<'static, str>>,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StageValue {
    /// A word of the program.
    Word(&'static str),
    /// A name of the configuration.
    Name(String),
    /// A number.
    Number(u32),
}

pub(super) type TraceId = [u8; 16];
pub(super) type SpanId = [u8; 8];

impl FinishedTrace {
    /// The number of its spans.
    pub(super) fn len(&self) -> u64 {
        1 + self.stages.len() as u64
    }

    /// Its spans as they are exported, that of the request last.
    pub(super) fn spans(&self) -> impl Iterator<Item = Span> {
        let stages = self.stages.iter().map(|stage| self.stage(stage));
        stages.chain(std::iter::once(self.request()))
    }

    fn stage(&self, stage: &RecordedStage) -> Span {
        let (name, kind) = match stage.stage {
            Stage::Admission => ("admission", otlp::INTERNAL),
            Stage::Token => ("token", otlp::INTERNAL),
            Stage::Upstream => ("upstream", otlp::CLIENT),
        };
        let mut attributes: Vec<_> =
            stage.attributes.iter().map(|(key, value)| Attribute::new(key, value.into())).collect();
        if let Some(error) = &stage.error {
            attributes.push(Attribute::text("error.type", error));
        }
        Span {
            trace: self.trace.to_vec(),
            id: stage.id.to_vec(),
            parent: self.request.to_vec(),
            name: name.to_owned(),
            kind,
            start_time_unix_nano: unix_nanos(self.begun + stage.from),
            end_time_unix_nano: unix_nanos(self.begun + stage.to),
            attributes,
            status: stage.error.as_ref().map(|_| SpanStatus { code: otlp::ERROR }),
            flags: otlp::SAMPLED | otlp::PARENT_IS_KNOWN,
        }
    }

    fn request(&self) -> Span {
        let end = &self.end;
        let method = end.method.as_ref().map(Method::as_str);
        let name = match (method, end.class) {
            (Some(method), Some(class)) => format!("{method} {class}"),
            (Some(method), None) => method.to_owned(),
            // As the convention says for a method that is not known.
            (None, _) => "HTTP".to_owned(),
        };
        let method = method.unwrap_or("_OTHER");
        let mut attributes = vec![Attribute::text("http.request.method", method)];
        if let Some(status) = end.status {
            let status = Scalar::Number(status.into());
            attributes.push(Attribute::new("http.response.status_code", status));
        }
        let texts = [
            ("url.scheme", end.scheme),
            ("boldgate.tenant", end.tenant.as_deref()),
            ("boldgate.route_class", end.class),
            ("boldgate.outcome", Some(end.outcome)),
            ("boldgate.refusal", end.refusal),
            ("boldgate.reason", end.reason),
            ("error.type", end.error.as_deref()),
        ];
        let texts = texts.into_iter().filter_map(|(key, text)| Some(Attribute::text(key, text?)));
        attributes.extend(texts);
        let remote = if self.parent.is_some() { otlp::PARENT_IS_REMOTE } else { 0 };
        Span {
            trace: self.trace.to_vec(),
            id: self.request.to_vec(),
            parent: self.parent.map_or_else(Vec::new, |parent| parent.to_vec()),
            name,
            kind: otlp::SERVER,
            start_time_unix_nano: unix_nanos(self.begun),
            end_time_unix_nano: unix_nanos(self.begun + self.duration),
            attributes,
            status: end.error.as_ref().map(|_| SpanStatus { code: otlp::ERROR }),
            flags: otlp::SAMPLED | otlp::PARENT_IS_KNOWN | remote,
        }
    }
}

impl From<&StageValue> for Scalar {
    fn from(value: &StageValue) -> Self {
        match value {
            StageValue::Word(word) => Self::Text((*word).to_owned()),
            StageValue::Name(name) => Self::Text(name.clone()),
            StageValue::Number(number) => Self::Number((*number).into()),
        }
    }
}

fn unix_nanos(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
