//! The spans of one request, if they are recorded.

use http::{HeaderValue, StatusCode};
use tokio::time::Instant;

use super::{Record, TRUNCATED};
use crate::telemetry::RequestOutcome;
use crate::tenant::Server;
use crate::traceparent::TraceParent;
use crate::traces::{RequestEnd, SpanRecorder, Stage, StageValue, Tracer};

/// Whether the spans of the request are recorded.
pub(super) enum Recording {
    Undecided,
    No,
    /// With the scheme of the client's request; `None` if its head could not be read.
    Yes(Box<SpanRecorder>, Option<&'static str>),
}

impl Record {
    /// Decides once whether the spans of the request are recorded.
    pub(super) fn sample(
        &mut self,
        tracer: &Tracer,
        parent: Option<TraceParent<'_>>,
        trusted: bool,
        scheme: Option<&'static str>,
    ) {
        if matches!(self.recording, Recording::Undecided) {
            let spans = tracer.sample(parent, trusted, (self.begun, self.started));
            self.recording = match spans {
                Some(spans) => Recording::Yes(spans, scheme),
                None => Recording::No,
            };
        }
    }

    /// The recorder of the request's spans, if they are recorded.
    pub(in crate::proxy) fn spans(&mut self) -> Option<&mut SpanRecorder> {
        match &mut self.recording {
            Recording::Yes(spans, _) => Some(spans),
            Recording::Undecided | Recording::No => None,
        }
    }

    /// Begins a stage of the request in its spans.
    pub(in crate::proxy) fn stage(&mut self, stage: Stage) {
        if let Some(spans) = self.spans() {
            spans.begin(stage, Instant::now());
        }
    }

    /// Begins a request to `server` in the spans. Returns the `traceparent` for it; `None` if the
    /// client's goes on.
    pub(in crate::proxy) fn sending_to(&mut self, server: &Server) -> Option<HeaderValue> {
        let method = self.forwarded_method().cloned();
        let Recording::Yes(spans, _) = &mut self.recording else { return None };
        spans.begin(Stage::Upstream, Instant::now());
        if let Some(method) = method {
            spans.attribute("http.request.method", StageValue::Name(method.to_string()));
        }
        spans.attribute("server.address", StageValue::Name(server.host.clone()));
        spans.attribute("server.port", StageValue::Number(server.port.into()));
        Some(spans.traceparent())
    }

    /// Shows in the spans that a connection failed before it brought a response.
    pub(in crate::proxy) fn connection_failed(&mut self) {
        if let Some(spans) = self.spans() {
            spans.unanswered("connection", Instant::now());
        }
    }

    /// Shows in the spans a wait for another token, which began at `asked_at`.
    pub(in crate::proxy) fn waited_for_token(&mut self, asked_at: Instant) {
        if let Some(spans) = self.spans() {
            spans.begin(Stage::Token, asked_at);
        }
    }

    /// Shows the status of the server's response in the spans.
    pub(super) fn upstream_status(&mut self, status: Option<StatusCode>) {
        if let (Some(status), Some(spans)) = (status, self.spans()) {
            spans.upstream_status(status.as_u16());
        }
    }

    /// Decides whether the spans of a request are recorded whose head was not looked at.
    pub(in crate::proxy) fn sample_unread(&mut self, tracer: Option<&Tracer>) {
        if let Some(tracer) = tracer {
            self.sample(tracer, None, false, None);
        }
    }

    /// Ends the stage in which the request was refused.
    pub(super) fn stage_refused(&mut self) {
        let has_failed = self.outcome == RequestOutcome::Failed;
        let (refusal, reason) = (self.refusal, self.reason());
        let Some(spans) = self.spans() else { return };
        for (key, word) in [("boldgate.refusal", refusal), ("boldgate.reason", reason)] {
            if let Some(word) = word {
                spans.attribute(key, StageValue::Word(word));
            }
        }
        match refusal.filter(|_| has_failed) {
            Some(code) => spans.fail(code, Instant::now()),
            None => spans.end(Instant::now()),
        }
    }

    /// Hands over the spans.
    pub(super) fn finish_spans(&mut self) {
        let Recording::Yes(spans, scheme) = std::mem::replace(&mut self.recording, Recording::No)
        else {
            return;
        };
        let error = match (self.outcome, self.status, self.refusal) {
            (RequestOutcome::Failed, _, Some(code)) => Some(code.into()),
            (RequestOutcome::UpstreamServerError, Some(status), _) => {
                Some(status.as_u16().to_string().into())
            }
            (RequestOutcome::Truncated, ..) => Some(TRUNCATED.into()),
            _ => None,
        };
        spans.finish(RequestEnd {
            method: self.forwarded_method().cloned(),
            scheme,
            class: self.granted.as_ref().map(|granted| granted.class.as_str()),
            status: self.status.map(|status| status.as_u16()),
            tenant: self.tenant().map(ToString::to_string),
            outcome: self.outcome.as_str(),
            refusal: self.refusal,
            reason: self.reason(),
            error,
        });
    }
}
