//! The access line, the audit line and the metrics of one request.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::time::Instant;

use super::downstream::{Peer, RequestClient};
use crate::caller::CallerName;
use crate::embed::{EmbedEndpoint, EmbedOrder, GrantedValue};
use crate::gateway::{Admission, Arrived, Passage};
use crate::headers::given_request_id;
use crate::policy::{PermissionId, Permit, RouteClass};
use crate::refusal::Refusal;
use crate::request::{METHODS, Target, without_names};
use crate::telemetry::{
    AccessLine, AccessLog, AuditClient, AuditEmbed, AuditEvent, AuditLine, AuditLog, EmbedOutcome,
    EndedRequest, PassedKind, Reason, RequestOutcome, ResponseTimes, RouteMetrics, Telemetry,
    TenantMetrics, TokenOrigin,
};
use crate::tenant::{EmbedMode, Server, TenantName};
use crate::traceparent::{TRACEPARENT, TraceParent};
use crate::traces::{StageValue, Tracer};

mod embed_hints;
mod refused;
mod refused_secret;
mod spans;

pub(crate) use refused::hint as refusal_hint;
use spans::Recording;

/// The facts of one request, filled in as it is served.
pub(super) struct Record {
    begun: SystemTime,
    started: Instant,
    id: String,
    traceparent: Option<HeaderValue>,
    recording: Recording,
    client: AuditClient,
    method: Option<Method>,
    target: Option<PathAndQuery>,
    /// The path of a request that the strict parse refused, as it can be logged.
    refused_path: Option<Box<str>>,
    /// The requested host of a request that was refused by it.
    refused_host: Option<Box<str>>,
    tenant: Option<TenantName>,
    /// The origin whose web pages may read the response. In a box, because most requests have none.
    page: Option<Box<HeaderValue>>,
    caller: Option<CallerName>,
    granted: Option<Granted>,
    /// The server that it is passed on to, without being admitted.
    passed: Option<(Arc<Server>, PassedKind)>,
    /// The call of a web page that the gateway answers. In a box, because it is rare.
    embed: Option<Box<Embedding>>,
    metrics: Option<Arc<TenantMetrics>>,
    token: Option<&'static str>,
    /// When the whole head had arrived.
    head_read: Option<Instant>,
    /// The time of tries without a response, before the last response.
    unanswered: Duration,
    responded: Option<ResponseTimes>,
    decided_before: bool,
    replayed: bool,
    status: Option<StatusCode>,
    outcome: RequestOutcome,
    refusal: Option<&'static str>,
    reason: Option<Reason>,
    /// The cause of a refused embed call, in words.
    embed_fault: Option<Box<str>>,
    /// SHA-256 of a verified client certificate that no caller has.
    certificate: Option<Box<str>>,
    body_received: u64,
    body_sent: u64,
}

/// The parts of an admission that are logged. The admission itself ends with the request, because
/// it counts as in flight.
struct Granted {
    permit: Permit,
    by: PermissionId,
    class: RouteClass,
    /// Whether our token is put on, so that the request acts as the permit's subject.
    injects: bool,
}

/// The parts of an embed call that are logged.
struct Embedding {
    endpoint: &'static str,
    dashboards: String,
    mode: &'static str,
    values: String,
}

impl Embedding {
    /// The same for the audit log, where the server was asked by this secret of two.
    fn audited(&self, secret: Option<u8>) -> AuditEmbed<'_> {
        let named = |text: &'_ str| !text.is_empty();
        AuditEmbed {
            endpoint: self.endpoint,
            dashboards: Some(&*self.dashboards).filter(|text| named(text)),
            mode: self.mode,
            values: Some(&*self.values).filter(|text| named(text)),
            secret,
        }
    }
}

impl Record {
    /// The record of a request of `peer` that began at this time, of both clocks.
    pub(super) fn new(peer: &Peer, (begun, started): (SystemTime, Instant)) -> Self {
        Self {
            begun,
            started,
            id: next_id(),
            traceparent: None,
            recording: Recording::Undecided,
            client: AuditClient {
                address: peer.connected_client().address(),
                process: peer.info.unix_peer.map(|process| (process.user, process.group)),
            },
            method: None,
            target: None,
            refused_path: None,
            refused_host: None,
            tenant: None,
            page: None,
            caller: None,
            granted: None,
            passed: None,
            embed: None,
            metrics: None,
            token: None,
            head_read: None,
            unanswered: Duration::ZERO,
            responded: None,
            decided_before: false,
            replayed: false,
            status: None,
            outcome: RequestOutcome::Served,
            refusal: None,
            reason: None,
            embed_fault: None,
            certificate: None,
            body_received: 0,
            body_sent: 0,
        }
    }

    pub(super) fn request_id(&self) -> &str {
        &self.id
    }

    pub(super) fn request_id_value(&self) -> HeaderValue {
        HeaderValue::from_str(&self.id).expect("visible characters of ASCII")
    }

    /// Clears the decision of an earlier configuration, because a newer one decides again.
    pub(super) fn reset(&mut self) {
        (self.tenant, self.caller, self.granted) = (None, None, None);
        (self.embed, self.passed) = (None, None);
        (self.page, self.metrics, self.token) = (None, None, None);
        self.decided_before = true;
    }

    /// Whether an earlier configuration has decided on the request.
    pub(super) fn was_decided_before(&self) -> bool {
        self.decided_before
    }

    /// Records the client of a request with `headers`, and the ids by which other systems know it.
    /// The request's id is kept only of a `trusted` peer.
    pub(super) fn client(
        &mut self,
        client: &RequestClient,
        headers: &HeaderMap,
        trusted: bool,
        tracer: Option<&Tracer>,
    ) {
        self.client.address = client.address();
        let given = if trusted { given_request_id(headers) } else { None };
        if let Some(id) = given.and_then(|id| id.to_str().ok()) {
            id.clone_into(&mut self.id);
        }
        let parent = TraceParent::of(headers);
        if parent.is_some() {
            self.traceparent = headers.get(&TRACEPARENT).cloned();
        }
        if let Some(tracer) = tracer {
            self.sample(tracer, parent, trusted, Some(client.scheme()));
        }
    }

    /// Records the method, if it is one that is forwarded or looks like one: any other is text of
    /// the client's choice.
    pub(super) fn method(&mut self, method: &Method) {
        self.head_read.get_or_insert_with(Instant::now);
        let looks_like_one = || {
            let name = method.as_str();
            name.len() <= MAX_METHOD && name.bytes().all(|byte| byte.is_ascii_uppercase())
        };
        let is_known = METHODS.contains(method) || looks_like_one();
        self.method = is_known.then(|| method.clone());
    }

    /// The method, if it is one that is forwarded.
    fn forwarded_method(&self) -> Option<&Method> {
        self.method.as_ref().filter(|method| METHODS.contains(method))
    }

    pub(super) fn target(&mut self, target: &Target) {
        self.target = Some(target.path_and_query().clone());
    }

    /// Keeps the requested host if it, or the lack of a tenant, is why the request is refused.
    pub(super) fn refused_host(&mut self, refusal: &Refusal, host: Option<&str>) {
        if matches!(refusal, Refusal::Host { .. } | Refusal::TenantUnknown { .. }) {
            let end = host.map_or(0, |host| host.floor_char_boundary(MAX_HOST));
            self.refused_host = host.map(|host| host[..end].into());
        }
    }

    /// Records the path of a request that the strict parse refused.
    pub(super) fn refused_path(&mut self, path: Option<Box<str>>) {
        self.refused_path = path;
    }

    /// The path for the audit log, without the query.
    fn path(&self) -> Option<&str> {
        let target = self.target.as_ref().map(PathAndQuery::path);
        target.or(self.refused_path.as_deref())
    }

    /// Whether the path is that of an endpoint of the gateway, which takes POST alone. The tenant
    /// may be unknown.
    pub(super) fn names_endpoint(&self) -> bool {
        let route = self.path().and_then(|path| path.find("/boldgate/").map(|at| &path[at..]));
        route.and_then(EmbedEndpoint::at).is_some()
    }

    /// The path for the other logs, which name no people.
    fn path_without_names(&self) -> Option<Cow<'_, str>> {
        self.path().map(without_names)
    }

    pub(super) fn arrived(&mut self, arrived: &Arrived<'_>) {
        self.page = arrived.page().cloned().map(Box::new);
    }

    pub(super) fn page(&self) -> Option<&HeaderValue> {
        self.page.as_deref()
    }

    pub(super) fn preflight(&mut self, tenant: &TenantName) {
        self.tenant = Some(tenant.clone());
        self.outcome = RequestOutcome::Preflight;
        if let Some(spans) = self.spans() {
            spans.end(Instant::now());
        }
    }

    pub(super) fn admitted(&mut self, admission: &Admission, metrics: &Arc<TenantMetrics>) {
        let Admission { caller, permit, by, class, injects, .. } = admission;
        self.caller = caller.name().cloned();
        let permit = permit.clone();
        self.granted = Some(Granted { permit, by: *by, class: *class, injects: *injects });
        self.metrics = Some(Arc::clone(metrics));
    }

    /// Records a request that goes on without a token of ours.
    pub(super) fn passed(&mut self, passage: &Passage) {
        let is_data = passage.data.is_some();
        let kind = if is_data { PassedKind::DataRequest } else { PassedKind::StaticFile };
        self.passed = Some((Arc::clone(&passage.server), kind));
        if let Some(data) = &passage.data {
            self.tenant = Some(data.tenant.name.clone());
            self.page = data.page.clone().map(Box::new);
            if data.authorization.is_some() {
                self.token(TokenOrigin::Own);
            }
        }
    }

    /// The name of the server that it is passed on to.
    pub(super) fn passed_server(&self) -> Option<&str> {
        self.passed.as_ref().map(|(server, _)| &*server.name)
    }

    /// Records the embed call of a web page, once its body was read.
    pub(super) fn ordered(&mut self, order: &EmbedOrder) {
        let values: Vec<_> = order.grant.values().map(GrantedValue::name).collect();
        self.embed = Some(Box::new(Embedding {
            endpoint: order.grant.endpoint().as_str(),
            dashboards: order.dashboards.join(","),
            mode: order.mode.as_str(),
            values: values.join(","),
        }));
    }

    /// Writes the audit line of the embed call.
    pub(super) fn audit_embed(&self, outcome: EmbedOutcome, secret: Option<u8>, audit: &AuditLog) {
        if let Some(embed) = &self.embed {
            self.audit_page(embed.audited(secret), outcome, audit);
        }
    }

    /// Writes the audit line of a session of masked mode.
    pub(super) fn audit_masked(&self, audit: &AuditLog) {
        let edits = self.granted.as_ref().is_some_and(|granted| granted.class >= RouteClass::Write);
        let mode = if edits { EmbedMode::Design } else { EmbedMode::View };
        let (endpoint, mode) = ("masked", mode.as_str());
        let embed = AuditEmbed { endpoint, dashboards: None, mode, values: None, secret: None };
        self.audit_page(embed, EmbedOutcome::Granted, audit);
    }

    fn audit_page(&self, embed: AuditEmbed<'_>, outcome: EmbedOutcome, audit: &AuditLog) {
        let Some(granted) = &self.granted else { return };
        let (permission, tenant) = (granted.by.to_string(), granted.permit.tenant());
        audit.write(&AuditLine {
            begun: self.begun,
            request_id: Some(&self.id),
            caller: self.caller.as_ref().map(CallerName::as_str),
            permission: Some(&permission),
            tenant: Some(tenant.name.as_str()),
            subject: Some(granted.permit.subject().as_str()),
            grant: Some(tenant.credential.grant.as_str()),
            outcome: outcome.as_str(),
            event: AuditEvent::Embed { client: self.client, embed },
        });
    }

    /// Records the source of the token that goes up.
    pub(super) fn token(&mut self, origin: TokenOrigin) {
        let word = origin.into();
        self.token = Some(word);
        if let Some(spans) = self.spans() {
            spans.attribute("boldgate.token", StageValue::Word(word));
            spans.end(Instant::now());
        }
    }

    /// Records that the request is sent again, with a token that it waited for since `asked_at`.
    pub(super) fn replayed(&mut self, asked_at: Instant) {
        self.replayed = true;
        self.waited_for_token(asked_at);
        self.token(TokenOrigin::Exchange);
    }

    /// Records that the server, which had the request since `sent_at`, gave no response, and that
    /// the request is sent again.
    pub(super) fn unanswered(&mut self, sent_at: Instant) {
        self.unanswered += sent_at.elapsed();
    }

    /// Records that the head of the server's response has arrived. The server had the request since
    /// `sent_at`.
    pub(super) fn responded(&mut self, sent_at: Instant, status: Option<StatusCode>) {
        self.upstream_status(status);
        if let Some(head_read) = self.head_read {
            let now = Instant::now();
            let before = self.responded.map_or(Duration::ZERO, |times| times.upstream);
            let unanswered = std::mem::take(&mut self.unanswered);
            let upstream = before + unanswered + (now - sent_at);
            let added = (now - head_read).saturating_sub(upstream);
            self.responded = Some(ResponseTimes { upstream, added });
        }
    }

    /// The index of the tenant whose server the request is for; `None` if it was not admitted.
    pub(super) fn tenant_index(&self) -> Option<usize> {
        self.granted.as_ref().map(|granted| granted.permit.tenant().index)
    }

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

    /// The word for the reason of a refusal. A code that has only one cause is its own reason.
    pub(in crate::proxy) fn reason(&self) -> Option<&'static str> {
        self.reason.map(Reason::as_str).or(self.refusal)
    }

    pub(super) fn truncated(&mut self, cause: &str, reason: Option<Reason>) {
        self.reason = reason;
        if let Some(spans) = self.spans() {
            spans.fail(TRUNCATED, Instant::now());
        }
        self.outcome = RequestOutcome::Truncated;
        self.warn(
            TRUNCATED,
            &format_args!("a response of Bold BI was cut off in the middle: {cause}"),
            Some("look into Bold BI's own logs, and those of proxies in between, at this time"),
        );
    }

    /// Logs that the server refuses our token to the end. The client gets the server's response.
    pub(super) fn token_refused(&self) {
        if let Some(metrics) = &self.metrics {
            metrics.token_rejected();
        }
        self.warn(
            "upstream_unauthorized",
            &"Bold BI responds with 401 to a token that it gave, and the client gets this response",
            Some(
                "if all requests of the tenant get it, `boldgate doctor` with its name says why; if \
                 some do, Bold BI means what the token's user may not do",
            ),
        );
    }

    /// The tenant, once known.
    fn tenant(&self) -> Option<&TenantName> {
        let granted = self.granted.as_ref().map(|granted| &granted.permit.tenant().name);
        granted.or(self.tenant.as_ref())
    }

    pub(super) fn bodies(&mut self, received: u64, sent: u64) {
        (self.body_received, self.body_sent) = (received, sent);
    }

    /// Updates the metrics, writes the access line and hands over the spans.
    pub(super) fn finish(&mut self, telemetry: &Telemetry, routes: &RouteMetrics, log: &AccessLog) {
        let duration = self.started.elapsed();
        let metrics = match (&self.metrics, self.tenant()) {
            (Some(metrics), _) => metrics,
            (None, Some(tenant)) => &telemetry.tenant(tenant.as_str()),
            (None, None) => &telemetry.no_tenant,
        };
        metrics.request(self.outcome, duration);
        routes.ended(&EndedRequest {
            class: self.granted.as_ref().map(|granted| granted.class as usize),
            passed: self.passed.as_ref().map(|(_, kind)| *kind),
            outcome: self.outcome,
            status: self.status.map(|status| status.as_u16()),
            duration,
            responded: self.responded,
        });
        let own = self.spans().map(|spans| (spans.trace_id(), spans.span_id()));
        let trace = self.traceparent.as_ref().and_then(TraceParent::parse);
        let ids = match &own {
            Some((trace_id, span_id)) => Some((trace_id.as_str(), span_id.as_str())),
            None => trace.map(|trace| (trace.trace_id(), trace.span_id())),
        };
        log.write(&AccessLine {
            begun: self.begun,
            duration,
            request_id: &self.id,
            trace_id: ids.map(|(trace_id, _)| trace_id),
            span_id: ids.map(|(_, span_id)| span_id),
            client: self.client.address,
            method: self.method.as_ref().map(Method::as_str),
            path: self.path_without_names().as_deref(),
            host: self.refused_host.as_deref(),
            certificate: self.certificate.as_deref(),
            status: self.status.map(|status| status.as_u16()),
            bytes_sent: self.body_sent,
            bytes_received: self.body_received,
            tenant: self.tenant().map(TenantName::as_str),
            caller: self.caller.as_ref().map(CallerName::as_str),
            outcome: self.outcome,
            refusal: self.refusal,
            reason: self.reason(),
            embed_fault: self.embed_fault.as_deref(),
            token: self.token,
            replayed: self.replayed,
        });
        self.finish_spans();
    }
}

/// The word for a response that was cut off.
const TRUNCATED: &str = "truncated";
/// Most letters of a method that is refused: the longest registered one has 17.
const MAX_METHOD: usize = 17;
/// Most bytes of a requested host in a log, as in the longest name of DNS.
const MAX_HOST: usize = 255;

/// 16 random hexadecimal digits.
fn next_id() -> String {
    format!("{:016x}", fastrand::u64(..))
}

#[cfg(test)]
mod tests {
    use crate::policy::RouteClass;
    use crate::telemetry::ROUTE_CLASSES;

    #[test]
    fn metrics_name_each_route_class_by_its_own_word() {
        for &class in RouteClass::ALL {
            assert_eq!(ROUTE_CLASSES[class as usize], class.as_str());
        }
        assert_eq!(ROUTE_CLASSES.len(), RouteClass::ALL.len() + 1, "the last is for none");
    }
}
