//! What is told of one request when it is over.

use std::fmt::Display;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use http::uri::PathAndQuery;
use http::{HeaderValue, Method, StatusCode};
use tokio::time::Instant;
use tracing::field::display;

use super::downstream::Peer;
use crate::gateway::Admission;
use crate::refusal::{Overdue, Refusal};
use crate::request::{METHODS, Target};
use crate::telemetry::{AccessLine, AccessLog, RequestOutcome, Telemetry, TenantMetrics};
use crate::tenant::Server;

/// Filled in as the request goes its way.
pub(super) struct Record {
    begun: SystemTime,
    started: Instant,
    id: String,
    client: Option<IpAddr>,
    method: Option<Method>,
    target: Option<PathAndQuery>,
    tenant: Option<crate::tenant::TenantName>,
    server: Option<Arc<Server>>,
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
            client: peer.origin.address,
            method: None,
            target: None,
            tenant: None,
            server: None,
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

    /// Only methods that are forwarded are told: any other is text of the client's choice.
    pub(super) fn method(&mut self, method: &Method) {
        self.method = METHODS.contains(method).then(|| method.clone());
    }

    pub(super) fn target(&mut self, target: &Target) {
        self.target = Some(target.path_and_query().clone());
    }

    pub(super) fn admitted(&mut self, admission: &Admission, metrics: &Arc<TenantMetrics>) {
        self.tenant = Some(admission.tenant().name.clone());
        self.server = Some(Arc::clone(&admission.tenant().server));
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
        self.warn(
            "truncated",
            &format_args!("an answer of Bold BI was cut off in the middle: {cause}"),
            Some("look into Bold BI's own logs, and those of proxies in between, at this time"),
        );
    }

    /// The gateway answers itself. What failed inside or behind it is logged with its cause.
    pub(super) fn refused(&mut self, refusal: &Refusal) {
        let answer = refusal.answer();
        self.refusal = Some(answer.code);
        if self.tenant.is_none() {
            self.tenant = refusal.tenant().cloned();
        }
        if self.caller.is_none() {
            self.caller = refusal.caller().cloned();
        }
        self.outcome = if answer.status.is_server_error() {
            self.warn(answer.code, refusal, hint(refusal));
            RequestOutcome::Failed
        } else {
            let id = self.id.as_str();
            tracing::debug!(boldgate.refusal = answer.code, request.id = id, "{refusal}");
            RequestOutcome::Refused
        };
    }

    /// Says what failed, in fields of the same names as in the access log. While the same goes on
    /// for the same tenant, it is said every few seconds only; `repeated` is how often it was not.
    fn warn(&self, code: &'static str, what: &dyn Display, hint: Option<&str>) {
        let told = match &self.metrics {
            Some(metrics) => metrics.repeats.tell(code),
            None => Some(0),
        };
        let id = self.id.as_str();
        let tenant = self.tenant.as_ref().map(display);
        let server = self.server.as_ref().map(|server| server.origin());
        let Some(repeated) = told else {
            tracing::debug!(
                boldgate.refusal = code,
                boldgate.tenant = tenant,
                server.address = server,
                request.id = id,
                "{what}"
            );
            return;
        };
        tracing::warn!(
            boldgate.refusal = code,
            boldgate.tenant = tenant,
            server.address = server,
            request.id = id,
            repeated = (repeated > 0).then_some(repeated),
            hint,
            "{what}"
        );
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

/// What an operator can try.
fn hint(refusal: &Refusal) -> Option<&'static str> {
    Some(match refusal {
        Refusal::Exchange(error) => crate::boldbi::hint(&error.cause),
        Refusal::Overloaded { .. } => {
            "look for what makes Bold BI slow, or raise `max_connections` of the server"
        }
        Refusal::UpstreamUnreachable { .. } => {
            "check that Bold BI is running and that the server's `url` names its host and port; \
             `boldgate token` with the tenant's name tries the same server"
        }
        Refusal::UpstreamInvalid { .. } => {
            "look into Bold BI's own logs, and those of proxies in between, at this time"
        }
        Refusal::ShareTaken { .. } => {
            "one tenant sends more than Bold BI answers: look for who asks so much, or raise \
             `max_concurrent_requests` of the tenant"
        }
        Refusal::UpstreamTimeout { overdue, .. } => match overdue {
            Overdue::Connection(_) => {
                "check that the server's `url` or `addresses` name its host and port, and that no \
                 firewall drops what is sent there"
            }
            Overdue::FirstByte(_) => {
                "Bold BI is slow or hangs: look into its health; for reports that take long, raise \
                 `timeouts.first_byte` of the server (`timeouts.read`, where that is not set)"
            }
            Overdue::Read(_) | Overdue::Write(_) => {
                "Bold BI hangs in the middle of a request, or a proxy in between does: look into \
                 their health"
            }
            Overdue::Total(_) => {
                "the client, Bold BI or the network between is very slow; for transfers that take \
                 so long, raise `timeouts.total` of the server"
            }
        },
        Refusal::NotReplayable(_) => {
            "there is nothing to repair: the client may send the request again, and it will go \
             with a new token"
        }
        _ => return None,
    })
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
