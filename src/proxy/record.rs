//! What is told of one request when it is over.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use http::uri::PathAndQuery;
use http::{HeaderValue, Method, StatusCode};
use tokio::time::Instant;

use super::downstream::Peer;
use crate::gateway::Admission;
use crate::refusal::Refusal;
use crate::request::Target;
use crate::telemetry::{AccessLine, AccessLog, RequestOutcome, Telemetry, TenantMetrics};
use crate::token::ExchangeError;

/// Filled in as the request goes its way.
pub(super) struct Record {
    begun: SystemTime,
    started: Instant,
    id: String,
    client: Option<IpAddr>,
    method: Option<Method>,
    target: Option<PathAndQuery>,
    tenant: Option<crate::tenant::TenantName>,
    metrics: Option<Arc<TenantMetrics>>,
    caller: Option<crate::caller::CallerName>,
    token: Option<&'static str>,
    replayed: bool,
    status: Option<StatusCode>,
    outcome: RequestOutcome,
    refusal: Option<&'static str>,
    body_received: u64,
    body_sent: u64,
}

impl Record {
    /// Of a request that begins now.
    pub(super) fn new(peer: &Peer) -> Self {
        Self {
            begun: SystemTime::now(),
            started: Instant::now(),
            id: next_id(),
            client: peer.address,
            method: None,
            target: None,
            tenant: None,
            metrics: None,
            caller: None,
            token: None,
            replayed: false,
            status: None,
            outcome: RequestOutcome::Served,
            refusal: None,
            body_received: 0,
            body_sent: 0,
        }
    }

    pub(super) fn request_id(&self) -> &str {
        &self.id
    }

    pub(super) fn request_id_value(&self) -> HeaderValue {
        HeaderValue::from_str(&self.id).expect("hexadecimal digits")
    }

    pub(super) fn method(&mut self, method: &Method) {
        self.method = Some(method.clone());
    }

    pub(super) fn target(&mut self, target: &Target) {
        self.target = Some(target.path_and_query().clone());
    }

    pub(super) fn admitted(&mut self, admission: &Admission, metrics: &Arc<TenantMetrics>) {
        self.tenant = Some(admission.tenant().name.clone());
        self.metrics = Some(Arc::clone(metrics));
        self.caller = admission.caller.name().cloned();
    }

    /// Where the token came from; none when none was put on.
    pub(super) fn token(&mut self, cached: Option<bool>) {
        self.token = cached.map(|cached| if cached { "cache" } else { "exchange" });
    }

    pub(super) fn replayed(&mut self) {
        self.replayed = true;
        self.token = Some("exchange");
    }

    /// The server answered.
    pub(super) fn status(&mut self, status: StatusCode) {
        self.status = Some(status);
        self.outcome = match status.as_u16() {
            400..500 => RequestOutcome::UpstreamClientError,
            500.. => RequestOutcome::UpstreamServerError,
            _ => RequestOutcome::Served,
        };
    }

    pub(super) fn status_sent(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    pub(super) fn outcome(&mut self, outcome: RequestOutcome) {
        self.outcome = outcome;
    }

    /// The answer had begun and has no end.
    pub(super) fn truncated(&mut self, cause: &str) {
        self.outcome = RequestOutcome::Truncated;
        let tenant = self.tenant.as_ref().map(tracing::field::display);
        tracing::warn!(request = self.id, tenant, cause, "an answer was cut off");
    }

    /// The gateway answers itself. What failed inside or behind it is logged with its cause.
    pub(super) fn refused(&mut self, refusal: &Refusal) {
        let answer = refusal.answer();
        self.refusal = Some(answer.code);
        if self.tenant.is_none() {
            self.tenant = refusal.tenant().cloned();
        }
        if let Refusal::Forbidden { caller, .. } = refusal {
            self.caller.clone_from(caller);
        }
        self.outcome = if answer.status.is_server_error() {
            let tenant = self.tenant.as_ref().map(tracing::field::display);
            let hint = match refusal {
                Refusal::Exchange(error) => hint(error),
                _ => None,
            };
            let code = answer.code;
            tracing::warn!(request = self.id, tenant, code, hint, "{refusal}");
            RequestOutcome::Failed
        } else {
            RequestOutcome::Refused
        };
    }

    pub(super) fn received(&mut self, received: usize, sent: usize) {
        (self.body_received, self.body_sent) = (received as u64, sent as u64);
    }

    /// Counts and logs.
    pub(super) fn finish(&self, telemetry: &Telemetry, log: &AccessLog) {
        let duration = self.started.elapsed();
        let metrics = match (&self.metrics, &self.tenant) {
            (Some(metrics), _) => metrics,
            (None, Some(tenant)) => &telemetry.tenant(tenant.as_str()),
            (None, None) => &telemetry.no_tenant,
        };
        metrics.request(self.outcome);
        metrics.request_seconds.observe(duration.as_secs_f64());
        log.write(&AccessLine {
            begun: self.begun,
            duration,
            request_id: &self.id,
            client: self.client,
            method: self.method.as_ref().map(Method::as_str),
            path: self.target.as_ref().map(PathAndQuery::path),
            status: self.status.map(|status| status.as_u16()),
            bytes_sent: self.body_sent,
            bytes_received: self.body_received,
            tenant: self.tenant.as_ref().map(crate::tenant::TenantName::as_str),
            caller: self.caller.as_ref().map(crate::caller::CallerName::as_str),
            outcome: self.outcome.as_str(),
            refusal: self.refusal,
            token: self.token,
            replayed: self.replayed,
        });
    }
}

fn hint(error: &ExchangeError) -> Option<&'static str> {
    Some(crate::boldbi::hint(error))
}

/// 16 hexadecimal digits that differ within a process and very likely between processes: a counter,
/// scrambled from a random start (SplitMix64).
fn next_id() -> String {
    static START: OnceLock<u64> = OnceLock::new();
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let start = START.get_or_init(|| RandomState::new().hash_one(0));
    let mut z = start.wrapping_add(COUNT.fetch_add(1, Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let mut id = String::with_capacity(16);
    for byte in (z ^ (z >> 31)).to_be_bytes() {
        id.push(char::from(HEXADECIMAL[usize::from(byte >> 4)]));
        id.push(char::from(HEXADECIMAL[usize::from(byte & 15)]));
    }
    id
}

const HEXADECIMAL: &[u8; 16] = b"0123456789abcdef";
