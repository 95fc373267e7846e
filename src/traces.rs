//! Traces: the spans of sampled requests, exported over OTLP in the background. A request is never
//! delayed by them, nor fails because of them.

use std::sync::Arc;
use std::time::SystemTime;

use http::{HeaderName, Uri};
use tokio::time::Instant;

mod collector;
mod exporter;
mod finished;
mod otlp;
mod recorder;

pub use collector::Collector;
use exporter::Exporter;
pub use exporter::Exports;
pub use finished::{RequestEnd, Stage, StageValue};
pub use recorder::SpanRecorder;

use crate::secret::Secret;
use crate::telemetry::Telemetry;
use crate::traceparent::TraceParent;
use crate::trust::{Trust, TrustError};

/// The configuration of traces.
#[derive(Clone, Debug)]
pub struct TraceSettings {
    /// The requests that are recorded.
    pub ratio: SampleRatio,
    /// The receiver of spans.
    pub collector: CollectorSettings,
}

/// The receiver of spans, and the process as it is told. An export goes on across reloads while
/// this is the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectorSettings {
    /// The URL that spans are sent to. It has no user info and no query.
    pub endpoint: Uri,
    /// Headers of each export. Their values were checked to be valid.
    pub headers: Vec<(HeaderName, Secret)>,
    /// The accepted certificates of an endpoint with TLS.
    pub trust: Trust,
    /// The `service.instance.id` of this process.
    pub instance: Option<String>,
}

/// The fraction of requests that are recorded, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleRatio(f64);

impl SampleRatio {
    /// `None` if `ratio` is not from 0 to 1.
    pub fn new(ratio: f64) -> Option<Self> {
        (0.0..=1.0).contains(&ratio).then_some(Self(ratio))
    }

    /// Decides by chance, and not by the id of the trace: a client chooses that.
    fn takes(self) -> bool {
        fastrand::f64() < self.0
    }
}

/// Decides which requests are recorded. A reload makes another one.
#[derive(Clone, Debug)]
pub struct Tracer {
    ratio: SampleRatio,
    exporter: Arc<Exporter>,
}

impl Tracer {
    /// Records requests by `settings`. The export of the tracer `before` goes on if it has the same
    /// collector; otherwise it ends after the last request that uses it.
    ///
    /// # Errors
    /// When the certificates to trust cannot be read.
    pub fn new(
        settings: TraceSettings,
        before: Option<&Self>,
        exports: &Exports,
        telemetry: &Telemetry,
    ) -> Result<Self, TrustError> {
        let TraceSettings { ratio, collector } = settings;
        let kept = before.filter(|before| *before.exporter.settings() == collector);
        let exporter = match kept {
            Some(before) => Arc::clone(&before.exporter),
            None => Exporter::start(collector, exports, telemetry.spans.clone())?,
        };
        Ok(Self { ratio, exporter })
    }

    /// Decides whether the request that arrived at `arrived` is recorded. The sampled flag of a
    /// `parent` decides if the client is `trusted`; otherwise anybody could have everything
    /// recorded.
    pub fn sample(
        &self,
        parent: Option<TraceParent<'_>>,
        trusted: bool,
        arrived: (SystemTime, Instant),
    ) -> Option<Box<SpanRecorder>> {
        let is_recorded = match parent {
            Some(parent) if trusted => parent.is_sampled(),
            _ => self.ratio.takes(),
        };
        let exporter = || Arc::clone(&self.exporter);
        is_recorded.then(|| Box::new(SpanRecorder::new(exporter(), parent, arrived)))
    }
}
