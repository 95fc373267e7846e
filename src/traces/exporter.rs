//! The export of finished traces: a bounded queue, and a task that sends batches of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::CollectorSettings;
use super::collector::{Collector, ExportError, MAX_RETRY_AFTER, TakeExport};
use super::finished::FinishedTrace;
use super::otlp::{Attribute, ExportRequest, Resource, ResourceSpans, Scope, ScopeSpans};
use crate::telemetry::{LogLimiter, SpanDrop, SpanMetrics, VERSION};
use crate::trust::TrustError;

/// The exports of the process: one, and after a reload also former ones until they end.
#[derive(Clone, Debug, Default)]
pub struct Exports {
    tasks: TaskTracker,
    stopping: CancellationToken,
}

impl Exports {
    /// Sends the spans that wait, with one attempt for each batch, for at most three seconds.
    pub async fn finish(&self) {
        self.stop();
        self.tasks.close();
        if timeout(FINISH_TIMEOUT, self.tasks.wait()).await.is_err() {
            tracing::warn!(
                hint = "find out why the collector is slow",
                "the last spans are lost: they were not exported within {FINISH_TIMEOUT:?}"
            );
        }
    }

    /// Lets the exports end after the spans that wait.
    pub fn stop(&self) {
        self.stopping.cancel();
    }
}

/// The way to one collector.
#[derive(Debug)]
pub(super) struct Exporter {
    settings: CollectorSettings,
    queue: Sender<FinishedTrace>,
    metrics: SpanMetrics,
}

impl Exporter {
    /// Starts the task that exports. It ends after the last reference to the exporter, or when
    /// the process stops.
    pub(super) fn start(
        settings: CollectorSettings,
        exports: &Exports,
        metrics: SpanMetrics,
    ) -> Result<Arc<Self>, TrustError> {
        let collector = Box::new(Collector::new(settings.clone())?);
        Ok(Self::start_with(collector, settings, exports, metrics))
    }

    fn start_with(
        collector: Box<dyn TakeExport>,
        settings: CollectorSettings,
        exports: &Exports,
        metrics: SpanMetrics,
    ) -> Arc<Self> {
        let (queue, waiting) = mpsc::channel(MAX_QUEUED);
        let export = Export {
            collector,
            endpoint: settings.endpoint.to_string(),
            resource: resource(settings.instance.as_deref()),
            metrics: metrics.clone(),
            log_limiter: LogLimiter::default(),
            stopping: exports.stopping.clone(),
            not_before: Instant::now(),
            lost: None,
            queue_full: metrics.dropped_by(SpanDrop::QueueFull),
        };
        exports.tasks.spawn(export.run(waiting));
        Arc::new(Self { settings, queue, metrics })
    }

    pub(super) fn settings(&self) -> &CollectorSettings {
        &self.settings
    }

    /// Queues a trace, or drops it if the queue is full.
    pub(super) fn offer(&self, trace: FinishedTrace) {
        let Err(TrySendError::Full(trace) | TrySendError::Closed(trace)) =
            self.queue.try_send(trace)
        else {
            return;
        };
        self.metrics.dropped(SpanDrop::QueueFull, trace.len());
    }
}

/// The task of an exporter.
struct Export {
    collector: Box<dyn TakeExport>,
    endpoint: String,
    resource: Resource,
    metrics: SpanMetrics,
    log_limiter: LogLimiter,
    stopping: CancellationToken,
    /// The collector takes nothing before this time: it said so, or it just failed.
    not_before: Instant,
    /// The spans lost since exports began to fail; `None` while they succeed.
    lost: Option<u64>,
    /// The count of spans for which there was no room, as it was logged last.
    queue_full: u64,
}

impl Export {
    async fn run(mut self, mut waiting: Receiver<FinishedTrace>) {
        let mut batch = Vec::new();
        while self.fill(&mut batch, &mut waiting).await {
            self.export(&batch).await;
            batch.clear();
            self.warn_of_full_queue();
        }
        self.log_limiter = LogLimiter::default();
        self.warn_of_full_queue();
    }

    /// Waits for the next traces, up to a full batch, or until the first has waited long enough.
    /// False if there are none, and will be none.
    async fn fill(
        &self,
        batch: &mut Vec<FinishedTrace>,
        waiting: &mut Receiver<FinishedTrace>,
    ) -> bool {
        let first = tokio::select! {
            biased;
            first = waiting.recv() => first,
            () = self.stopping.cancelled(), if !waiting.is_closed() => {
                // No more are taken; those that wait can still be received.
                waiting.close();
                waiting.recv().await
            }
        };
        let Some(first) = first else { return false };
        batch.push(first);
        let until = Instant::now() + BATCH_INTERVAL;
        while batch.len() < MAX_BATCH {
            let received = tokio::select! {
                biased;
                received = timeout_at(until, waiting.recv()) => received,
                () = self.stopping.cancelled(), if !waiting.is_closed() => {
                    waiting.close();
                    continue;
                }
            };
            match received {
                Ok(Some(next)) => batch.push(next),
                Ok(None) | Err(_) => break,
            }
        }
        true
    }

    /// Sends a batch, again and again while the collector is not available, for at most a minute.
    async fn export(&mut self, batch: &[FinishedTrace]) {
        let body = Bytes::from(self.body(batch).encode_to_vec());
        let spans = batch.iter().map(FinishedTrace::len).sum();
        let (begun, mut pause) = (self.not_before.max(Instant::now()), MIN_PAUSE);
        loop {
            tokio::select! {
                () = sleep_until(self.not_before) => {}
                () = self.stopping.cancelled() => {}
            }
            match self.collector.export(body.clone()).await {
                Ok(rejected) => return self.exported(spans, rejected.min(spans)),
                Err(failed) => {
                    let (cause, at_least, hint) = match failed {
                        ExportError::Refused(cause) => {
                            return self.lost(SpanDrop::Refused, spans, &cause, REFUSED);
                        }
                        ExportError::Busy(cause, at_least) => (cause, at_least, BUSY),
                        ExportError::Unavailable(cause) => (cause, None, UNAVAILABLE),
                    };
                    let wait = at_least.unwrap_or_default().clamp(pause, MAX_RETRY_AFTER);
                    pause = (2 * pause).min(MAX_PAUSE);
                    // The pause has up to a fifth more, so that replicas do not call together.
                    let wait = wait.mul_f64(1.0 + fastrand::f64() / 5.0);
                    self.not_before = Instant::now() + wait;
                    let is_over = self.not_before > begun + MAX_BATCH_TIME;
                    if is_over || self.stopping.is_cancelled() {
                        return self.lost(SpanDrop::Unavailable, spans, &cause, hint);
                    }
                    self.lost(SpanDrop::Unavailable, 0, &cause, hint);
                }
            }
        }
    }

    fn exported(&mut self, spans: u64, rejected: u64) {
        self.metrics.exported.inc_by(spans - rejected);
        if rejected > 0 {
            let cause = format!("{rejected} of {spans} spans were rejected");
            return self.lost(SpanDrop::Refused, rejected, &cause, REFUSED);
        }
        if let Some(dropped) = self.lost.take() {
            let endpoint = self.endpoint.as_str();
            tracing::info!(endpoint, dropped, "traces are exported again");
        }
    }

    /// Counts lost spans, and logs the cause, every ten seconds at most.
    fn lost(&mut self, reason: SpanDrop, spans: u64, cause: &str, hint: &'static str) {
        self.metrics.dropped(reason, spans);
        let dropped = self.lost.get_or_insert_default();
        *dropped += spans;
        if let Some(repeated) = self.log_limiter.allow(reason.into()) {
            tracing::warn!(
                endpoint = self.endpoint,
                error = cause,
                dropped = (*dropped > 0).then_some(*dropped),
                repeated = (repeated > 0).then_some(repeated),
                hint,
                "traces cannot be exported; requests are not affected"
            );
        }
    }

    fn warn_of_full_queue(&mut self) {
        let dropped = self.metrics.dropped_by(SpanDrop::QueueFull);
        if dropped > self.queue_full && self.log_limiter.allow(SpanDrop::QueueFull.into()).is_some()
        {
            tracing::warn!(
                endpoint = self.endpoint,
                dropped = dropped - self.queue_full,
                hint = "lower `traces.sample_ratio`, or find out why the collector is slow or away",
                "spans were dropped: {MAX_QUEUED} requests wait to be exported, as many as may"
            );
            self.queue_full = dropped;
        }
    }

    fn body(&self, batch: &[FinishedTrace]) -> ExportRequest {
        let scope = Scope { name: NAME.to_owned(), version: VERSION.to_owned() };
        let spans = batch.iter().flat_map(FinishedTrace::spans).collect();
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans }];
        let resource = Some(self.resource.clone());
        ExportRequest { resource_spans: vec![ResourceSpans { resource, scope_spans }] }
    }
}

fn resource(instance: Option<&str>) -> Resource {
    let attributes = [
        ("service.name", Some(NAME)),
        ("service.version", Some(VERSION)),
        ("service.instance.id", instance),
    ];
    let given = attributes.into_iter().filter_map(|(key, text)| Some(Attribute::text(key, text?)));
    Resource { attributes: given.collect() }
}

const NAME: &str = "boldgate";
const UNAVAILABLE: &str = "check that the collector is running and that `traces.otlp_endpoint` names its host and port; \
                           a batch is dropped after a minute";
const BUSY: &str = "the collector, or a proxy in front of it, cannot take exports now: look into its log, at its \
                    load and at its rate limits; a batch is dropped after a minute";
const REFUSED: &str = "look at the path of `traces.otlp_endpoint` (`/v1/traces` as a rule), at `traces.headers` and \
                       into the collector's own log";
/// Most traces that wait to be exported.
const MAX_QUEUED: usize = 2048;
/// Most traces in one export.
const MAX_BATCH: usize = 512;
/// From the first trace of a batch to its export. The default of OpenTelemetry.
const BATCH_INTERVAL: Duration = Duration::from_secs(5);
/// The pauses between attempts to send the same batch.
const MIN_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(15);
/// Longest time in which the same batch is sent again.
const MAX_BATCH_TIME: Duration = Duration::from_secs(60);
/// Longest time for the last exports when the process stops.
const FINISH_TIMEOUT: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use async_trait::async_trait;
    use http::Uri;
    use parking_lot::Mutex;
    use tokio::time::sleep;

    use super::super::finished::RequestEnd;
    use super::*;
    use crate::telemetry::Telemetry;
    use crate::trust::Trust;

    /// Responds to each export in its turn, and with success from then on.
    #[derive(Default)]
    struct Script {
        responses: Mutex<Vec<Result<u64, ExportError>>>,
        /// The number of spans in each export, with the time since the start.
        exports: Mutex<Vec<(Duration, usize)>>,
    }

    struct Scripted(Arc<Script>, Instant);

    #[async_trait]
    impl TakeExport for Scripted {
        async fn export(&self, body: Bytes) -> Result<u64, ExportError> {
            let decoded = ExportRequest::decode(body).unwrap();
            let spans = decoded.resource_spans[0].scope_spans[0].spans.len();
            self.0.exports.lock().push((self.1.elapsed(), spans));
            let mut responses = self.0.responses.lock();
            if responses.is_empty() { Ok(0) } else { responses.remove(0) }
        }
    }

    struct Setup {
        exporter: Arc<Exporter>,
        exports: Exports,
        script: Arc<Script>,
        telemetry: Telemetry,
    }

    impl Setup {
        fn new(responses: Vec<Result<u64, ExportError>>) -> Self {
            let (exports, telemetry) = (Exports::default(), Telemetry::default());
            let script = Arc::new(Script { responses: Mutex::new(responses), ..Script::default() });
            let settings = CollectorSettings {
                endpoint: Uri::from_static("http://collector/v1/traces"),
                headers: Vec::new(),
                trust: Trust::default(),
                instance: None,
            };
            let collector = Box::new(Scripted(Arc::clone(&script), Instant::now()));
            let exporter =
                Exporter::start_with(collector, settings, &exports, telemetry.spans.clone());
            Self { exporter, exports, script, telemetry }
        }

        /// Hands over the traces of requests without stages.
        fn offer(&self, count: usize) {
            for _ in 0..count {
                self.exporter.offer(FinishedTrace {
                    trace: [1; 16],
                    parent: None,
                    request: [2; 8],
                    begun: SystemTime::now(),
                    duration: Duration::ZERO,
                    stages: Vec::new(),
                    end: RequestEnd {
                        method: None,
                        scheme: None,
                        class: None,
                        status: None,
                        tenant: None,
                        outcome: "served",
                        refusal: None,
                        reason: None,
                        error: None,
                    },
                });
            }
        }

        /// The exports so far, in whole seconds since the start.
        fn seen(&self) -> Vec<(u64, usize)> {
            let exports = self.script.exports.lock();
            exports.iter().map(|(at, spans)| (at.as_secs(), *spans)).collect()
        }

        fn counts(&self) -> (u64, [u64; 3]) {
            let spans = &self.telemetry.spans;
            let dropped = [SpanDrop::QueueFull, SpanDrop::Unavailable, SpanDrop::Refused];
            (spans.exported.get(), dropped.map(|reason| spans.dropped_by(reason)))
        }
    }

    fn unavailable(after: Option<u64>) -> Result<u64, ExportError> {
        let after = after.map(Duration::from_secs);
        Err(ExportError::Busy("the response is 503".to_owned(), after))
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_goes_out_after_five_seconds_or_when_it_is_full() {
        let setup = Setup::new(Vec::new());
        setup.offer(3);
        sleep(Duration::from_secs(4)).await;
        setup.offer(1);
        assert_eq!(setup.seen(), []);
        sleep(Duration::from_secs(2)).await;
        assert_eq!(setup.seen(), [(5, 4)]);
        setup.offer(MAX_BATCH + 1);
        sleep(Duration::from_millis(1)).await;
        assert_eq!(setup.seen(), [(5, 4), (6, MAX_BATCH)]);
        sleep(Duration::from_secs(6)).await;
        assert_eq!(setup.seen()[2..], [(11, 1)]);
        assert_eq!(setup.counts(), (4 + 1 + MAX_BATCH as u64, [0; 3]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_is_sent_again_with_pauses_and_dropped_after_a_minute() {
        let setup = Setup::new((0..100).map(|_| unavailable(None)).collect());
        setup.offer(1);
        sleep(Duration::from_secs(70)).await;
        let attempts = setup.seen();
        let pauses: Vec<_> = attempts.windows(2).map(|two| two[1].0 - two[0].0).collect();
        assert!((6..=8).contains(&attempts.len()), "{attempts:?}");
        assert!(pauses.is_sorted_by(|a, b| *a <= b + 3), "they grow: {pauses:?}");
        assert!(pauses.iter().all(|&pause| pause <= 18), "up to a bound: {pauses:?}");
        assert_eq!(setup.counts(), (0, [0, 1, 0]));
        setup.script.responses.lock().clear();
        setup.offer(1);
        sleep(Duration::from_secs(6)).await;
        assert_eq!(setup.counts(), (1, [0, 1, 0]), "the next batch has its own minute");
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_waits_as_long_as_the_collector_says_and_is_not_lost() {
        let setup = Setup::new(vec![unavailable(Some(20))]);
        setup.offer(2);
        sleep(Duration::from_secs(24)).await;
        assert_eq!(setup.seen(), [(5, 2)]);
        sleep(Duration::from_secs(6)).await;
        assert_eq!(setup.seen().len(), 2);
        assert_eq!(setup.counts(), (2, [0; 3]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_collector_that_asks_for_more_than_a_minute_is_called_after_a_minute() {
        for asked in [300, u64::MAX] {
            let setup = Setup::new(vec![unavailable(Some(asked))]);
            setup.offer(1);
            sleep(Duration::from_secs(6)).await;
            assert_eq!(setup.counts(), (0, [0, 1, 0]), "the batch cannot wait that long");
            setup.offer(2);
            sleep(Duration::from_secs(58)).await;
            assert_eq!(setup.seen(), [(5, 1)]);
            sleep(Duration::from_secs(15)).await;
            assert_eq!(setup.seen().len(), 2);
            assert_eq!(setup.counts(), (2, [0, 1, 0]), "the next batch is sent later");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_batch_is_dropped_at_once() {
        let setup = Setup::new(vec![Err(ExportError::Refused("the response is 400".to_owned()))]);
        setup.offer(2);
        sleep(Duration::from_secs(6)).await;
        assert_eq!((setup.seen().len(), setup.counts()), (1, (0, [0, 0, 2])));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_exports_what_waits_and_ends_a_pause() {
        for (responses, counts) in [
            (vec![], (3000 - 952, [952, 0, 0])),
            (vec![unavailable(Some(50)), unavailable(None)], (1536, [952, 512, 0])),
        ] {
            let setup = Setup::new(responses);
            setup.offer(3000);
            sleep(Duration::from_millis(10)).await;
            let begun = Instant::now();
            setup.exports.finish().await;
            assert!(begun.elapsed() < Duration::from_secs(1));
            assert_eq!(setup.counts(), counts);
            setup.offer(1);
            assert_eq!(setup.counts().1[0], 953, "a request that ends later is counted");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_export_ends_after_its_last_request() {
        let setup = Setup::new(Vec::new());
        setup.offer(1);
        drop(setup.exporter);
        setup.exports.tasks.close();
        timeout(Duration::from_secs(1), setup.exports.tasks.wait()).await.unwrap();
        assert_eq!(setup.script.exports.lock().len(), 1);
    }
}
