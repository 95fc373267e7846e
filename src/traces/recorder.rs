//! Records the spans of one request, from the decision to do so to the end of the request.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use data_encoding::HEXLOWER;
use http::HeaderValue;
use tokio::time::Instant;

use super::exporter::Exporter;
use super::finished::{
    FinishedTrace, RecordedStage, RequestEnd, SpanId, Stage, StageValue, TraceId,
};
use crate::traceparent::TraceParent;

/// Records the spans of one request. Its stages follow one another, so at most one is open.
#[derive(Debug)]
pub struct SpanRecorder {
    exporter: Arc<Exporter>,
    trace: TraceId,
    /// The client's span.
    parent: Option<SpanId>,
    /// The span of the whole request.
    request: SpanId,
    begun: SystemTime,
    started: Instant,
    stages: Vec<RecordedStage>,
    is_open: bool,
    /// Requests that were sent to Bold BI before.
    sent: u32,
}

impl SpanRecorder {
    /// Records the spans of a request that arrived at `begun`, by both clocks. It is part of the
    /// client's trace, if there is one.
    pub(super) fn new(
        exporter: Arc<Exporter>,
        parent: Option<TraceParent<'_>>,
        (begun, started): (SystemTime, Instant),
    ) -> Self {
        let trace = parent.and_then(|parent| bytes_of(parent.trace_id())).unwrap_or_else(random);
        let parent = parent.and_then(|parent| bytes_of(parent.span_id()));
        Self {
            exporter,
            trace,
            parent,
            request: random(),
            begun,
            started,
            stages: Vec::with_capacity(USUAL_STAGES),
            is_open: false,
            sent: 0,
        }
    }

    /// The id of the trace, in hexadecimal digits.
    pub fn trace_id(&self) -> String {
        HEXLOWER.encode(&self.trace)
    }

    /// The id of the request's span, in hexadecimal digits.
    pub fn span_id(&self) -> String {
        HEXLOWER.encode(&self.request)
    }

    /// Ends the open stage and begins another at the time `at`.
    pub fn begin(&mut self, stage: Stage, at: Instant) {
        self.end(at);
        if self.stages.len() >= MAX_STAGES {
            return;
        }
        let from = at.saturating_duration_since(self.started);
        let (attributes, error) = (Vec::new(), None);
        self.stages.push(RecordedStage { stage, id: random(), from, to: from, attributes, error });
        self.is_open = true;
        if stage == Stage::Upstream && self.sent > 0 {
            self.attribute("http.request.resend_count", StageValue::Number(self.sent));
        }
    }

    /// Ends the open stage, if there is one, at the time `at`.
    pub fn end(&mut self, at: Instant) {
        let started = self.started;
        if let Some(open) = self.open() {
            open.to = at.saturating_duration_since(started).max(open.from);
            self.is_open = false;
        }
    }

    /// Ends the open stage, if there is one, by a failure.
    pub fn fail(&mut self, error: impl Into<Cow<'static, str>>, at: Instant) {
        if let Some(open) = self.open() {
            open.error = Some(error.into());
        }
        self.end(at);
    }

    /// Ends the open stage, in which the request was sent and got no response.
    pub fn unanswered(&mut self, error: &'static str, at: Instant) {
        self.sent += 1;
        self.fail(error, at);
    }

    /// Adds a fact to the open stage.
    pub fn attribute(&mut self, key: &'static str, value: StageValue) {
        if let Some(open) = self.open() {
            open.attributes.push((key, value));
        }
    }

    /// Adds the status of Bold BI's response to the open stage.
    pub fn upstream_status(&mut self, status: u16) {
        self.sent += 1;
        self.attribute("http.response.status_code", StageValue::Number(status.into()));
        if status >= 400
            && let Some(open) = self.open()
        {
            open.error = Some(status.to_string().into());
        }
    }

    /// The `traceparent` for Bold BI: its parent is the open stage.
    pub fn traceparent(&mut self) -> HeaderValue {
        let request = self.request;
        let parent = self.open().map_or(request, |open| open.id);
        let text = format!("00-{}-{}-01", HEXLOWER.encode(&self.trace), HEXLOWER.encode(&parent));
        HeaderValue::try_from(text).expect("digits and dashes")
    }

    /// Ends the request and hands its spans to the exporter, which drops them if too many wait.
    pub fn finish(mut self, end: RequestEnd) {
        let now = Instant::now();
        self.end(now);
        let exporter = Arc::clone(&self.exporter);
        exporter.offer(FinishedTrace {
            trace: self.trace,
            parent: self.parent,
            request: self.request,
            begun: self.begun,
            duration: now.saturating_duration_since(self.started),
            stages: std::mem::take(&mut self.stages),
            end,
        });
    }

    fn open(&mut self) -> Option<&mut RecordedStage> {
        self.stages.last_mut().filter(|_| self.is_open)
    }
}

/// A random id. Zeros alone would be invalid.
fn random<const N: usize>() -> [u8; N] {
    let mut id = [0; N];
    while id == [0; N] {
        fastrand::fill(&mut id);
    }
    id
}

/// The bytes of an id in hexadecimal digits.
fn bytes_of<const N: usize>(hex: &str) -> Option<[u8; N]> {
    HEXLOWER.decode(hex.as_bytes()).ok()?.try_into().ok()
}

/// Admission, token, upstream.
const USUAL_STAGES: usize = 3;
/// Bounds the spans of one request, to which replays, resends and reloads add.
const MAX_STAGES: usize = 16;
