//! One request from its head to its last byte: [`Proxy::handle`] goes through all steps in their
//! order. The decisions are made in [`crate::gateway`].

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, StatusCode};
use tokio::time::{Instant, timeout};

mod admitted;
mod body;
mod downstream;
mod embed;
pub mod handshake;
mod passing;
mod record;
mod respond;
mod serve;
mod session;
mod upstream;

pub use downstream::{ClientLimits, Peer, linger};
pub(crate) use record::refusal_hint;
pub use serve::Current;
pub use session::UnfinishedHeads;
pub use upstream::{
    AddressState, ConnectionUsage, PassedUpstream, TenantUpstream, TotalConnections, Upstream,
};

use crate::caller::ListenerTerms;
use crate::gateway::{Admission, Arrival, Gateway};
use crate::headers;
use crate::http1::{RequestHeader, ResponseError};
use crate::refusal::{Overdue, Refusal};
use crate::request::{self, BodyFraming, RawHead, RequestHead, Upgrade};
use crate::telemetry::{
    AccessLog, EmbedOutcome, GaugeGuard, Reason, RequestOutcome, Telemetry, TokenOrigin,
};
use crate::token::AccessToken;
use crate::traces::{Stage, Tracer};
use admitted::{Admitted, Right};
use body::{TransferError, Upload, UploadLimits};
use embed::EmbedCall;
use record::Record;
use session::Session;
use upstream::Lease;

/// Serves requests by one configuration. A reload makes another proxy.
pub struct Proxy {
    gateway: Arc<Gateway>,
    /// By tenant index.
    upstreams: Vec<TenantUpstream>,
    /// The servers that listeners pass on.
    passed: Vec<PassedUpstream>,
    limits: ClientLimits,
    unfinished_heads: Arc<UnfinishedHeads>,
    telemetry: Arc<Telemetry>,
    access_log: Arc<AccessLog>,
    /// `None` while no request is recorded.
    tracer: Option<Tracer>,
}

/// A request that was sent, with the head of its response read.
struct SentRequest {
    lease: Lease,
    upload: Upload,
    /// `None` if the request carries its own `Authorization`.
    token: Option<Arc<AccessToken>>,
}

/// The next step of a request that is not refused.
#[expect(clippy::large_enum_variant, reason = "nearly all requests have the large one")]
enum Decision<'h> {
    Forward(Admitted<'h>),
    /// The gateway itself answers. In a box, because it is rare.
    Answer(Box<OwnAnswer<'h>>),
}

/// An answer of the gateway itself.
enum OwnAnswer<'h> {
    /// To the embed call of a web page.
    Embed(EmbedCall<'h>),
    /// To a preflight: the head of the response.
    Preflight(HeaderMap),
}

/// Why a request ends without a whole response of the server.
enum RequestFailure {
    Refused(Refusal),
    ClientGone,
    /// The server broke off in the middle of its response.
    Truncated(String, Option<Reason>),
}

impl<R: Into<Refusal>> From<R> for RequestFailure {
    fn from(refusal: R) -> Self {
        Self::Refused(refusal.into())
    }
}

impl RequestFailure {
    /// Whether a newer configuration no longer grants the permit.
    fn is_permit_revoked(&self) -> bool {
        matches!(self, Self::Refused(Refusal::Exchange(no_token)) if no_token.is_permit_revoked())
    }
}

impl Proxy {
    /// Serves the requests that `gateway` admits. `upstreams` are in the order of tenant indices.
    /// `unfinished_heads` bounds all unauthenticated clients, across configurations.
    pub fn new(
        gateway: Arc<Gateway>,
        upstreams: Vec<TenantUpstream>,
        limits: ClientLimits,
        unfinished_heads: Arc<UnfinishedHeads>,
        telemetry: Arc<Telemetry>,
        access_log: Arc<AccessLog>,
    ) -> Self {
        let (tracer, passed) = (None, Vec::new());
        Self { gateway, upstreams, passed, limits, unfinished_heads, telemetry, access_log, tracer }
    }

    /// Passes these servers on, where a listener does so.
    #[must_use]
    pub fn with_passed(self, passed: Vec<PassedUpstream>) -> Self {
        Self { passed, ..self }
    }

    /// The servers that are passed on.
    pub fn passed(&self) -> &[PassedUpstream] {
        &self.passed
    }

    /// Records the spans of requests that `tracer` chooses.
    #[must_use]
    pub fn with_traces(self, tracer: Option<Tracer>) -> Self {
        Self { tracer, ..self }
    }

    /// The tracer, if requests are recorded.
    pub fn tracer(&self) -> Option<&Tracer> {
        self.tracer.as_ref()
    }

    /// The upstreams of the tenants, by tenant index.
    pub fn upstreams(&self) -> &[TenantUpstream] {
        &self.upstreams
    }

    /// The bound on unfinished heads and on requests that wait for the keys of an issuer.
    pub fn unfinished_heads(&self) -> &Arc<UnfinishedHeads> {
        &self.unfinished_heads
    }

    /// The gateway that decides.
    pub fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// Serves one request: decides, forwards it and relays the response.
    async fn handle(
        &self,
        down: &mut Session,
        head: &RawHead,
        peer: &Peer,
        terms: &ListenerTerms,
        record: &mut Record,
    ) -> Result<(), RequestFailure> {
        let _in_flight = GaugeGuard::new(&self.telemetry.requests_in_flight);
        let admitted = match self.admit(down, head, peer, terms, record).await? {
            Decision::Forward(admitted) => admitted,
            Decision::Answer(answer) => {
                return Box::pin(self.answer(down, answer, peer, record)).await;
            }
        };
        let upstream = self.upstream(&admitted)?;
        let total = upstream.server().timeouts.total;
        match timeout(total, self.forward(down, &admitted, record)).await {
            Ok(ended) => ended,
            Err(_) => Err(overdue(upstream, Overdue::Total(total)).into()),
        }
    }

    /// Gets a token, sends the request to the server, and relays the response to the client.
    async fn forward(
        &self,
        down: &mut Session,
        admitted: &Admitted<'_>,
        record: &mut Record,
    ) -> Result<(), RequestFailure> {
        let mut token = self.token(admitted, record).await?;
        if token.is_some() && admitted.framing != BodyFraming::Empty {
            down.keep_body();
        }
        let sent = self.send(down, admitted, token.as_ref(), record).await;
        let mut sent_request = match sent {
            Err(RequestFailure::Refused(Refusal::TokenEnded(_))) => {
                Box::pin(self.send_with_next_token(down, admitted, &mut token, record)).await?
            }
            sent => sent?,
        };
        if sent_request.lease.session.status() == Some(StatusCode::UNAUTHORIZED)
            && let (Some(refused), Some(admission)) = (token, admitted.admission())
        {
            let replay = self.replay(down, admitted, (sent_request, admission), &refused, record);
            sent_request = Box::pin(replay).await?;
        }
        self.relay(down, admitted, sent_request, record).await
    }

    /// Gets a new token in place of `token`, which has expired, and sends the request with it.
    async fn send_with_next_token(
        &self,
        down: &mut Session,
        admitted: &Admitted<'_>,
        token: &mut Option<Arc<AccessToken>>,
        record: &mut Record,
    ) -> Result<SentRequest, RequestFailure> {
        *token = self.token(admitted, record).await?;
        self.send(down, admitted, token.as_ref(), record).await
    }

    /// The token to put on; `None` if the request goes on with its own `Authorization`.
    async fn token(
        &self,
        admitted: &Admitted<'_>,
        record: &mut Record,
    ) -> Result<Option<Arc<AccessToken>>, Refusal> {
        let Some(admission) = admitted.admission() else { return Ok(None) };
        record.stage(Stage::Token);
        let granted = self.gateway.token(admission, record.request_id()).await?;
        // A token that is a credential is never exchanged.
        let is_exchanged = admission.permit.tenant().credential.grant.is_exchanged();
        record.token(match &granted {
            None => TokenOrigin::Own,
            Some(granted) if granted.cached || !is_exchanged => TokenOrigin::Cache,
            Some(_) => TokenOrigin::Exchange,
        });
        Ok(granted.map(|granted| granted.token))
    }

    /// Parses the head and makes all decisions. Until it succeeds, nothing is sent to Bold BI.
    async fn admit<'h>(
        &self,
        down: &mut Session,
        raw: &'h RawHead,
        peer: &'h Peer,
        terms: &ListenerTerms,
        record: &mut Record,
    ) -> Result<Decision<'h>, Refusal> {
        let proxies = terms.trusted_proxies.as_deref();
        let client = peer.client(proxies, raw.headers());
        let trusted = peer.is_trusted(proxies);
        record.client(&client, raw.headers(), trusted, self.tracer.as_ref());
        record.stage(Stage::Admission);
        record.method(raw.method());
        let head = RequestHead::parse(raw)
            .inspect_err(|_| record.refused_path(request::refused_path(raw.target())))?;
        down.expect_body(head.body, head.expects_continue);
        record.target(&head.target);
        let gatekeeper = self.gateway.gatekeeper();
        let arrival = gatekeeper.arrive(terms, &peer.info, &head);
        let arrived = match arrival.inspect_err(|why| record.refused_host(why, head.host))? {
            Arrival::Preflight(preflight) => {
                record.preflight(&preflight.tenant.name);
                let head = respond::preflight_response(&preflight, record.request_id_value());
                return Ok(Decision::Answer(Box::new(OwnAnswer::Preflight(head))));
            }
            Arrival::Passage(passage) => {
                let client = (peer, client);
                return self.pass(down, (raw, head), passage, client, terms, record);
            }
            Arrival::Request(arrived) => arrived,
        };
        record.arrived(&arrived);
        let admission = {
            let mut admitting = pin!(async {
                if record.was_decided_before() {
                    gatekeeper.readmit(terms, &peer.info, &head, arrived).await
                } else {
                    gatekeeper.admit(terms, &peer.info, &head, arrived).await
                }
            });
            // Only a request that waits for the keys of an issuer pays for the bound.
            match admitting.as_mut().now_or_never() {
                Some(admission) => admission,
                None => {
                    let (memory, limit) = (down.memory(), self.limits.unfinished_heads);
                    let admission = self.unfinished_heads.hold_while(memory, limit, admitting);
                    Box::pin(admission).await.ok_or(Refusal::WaitingEvicted { limit })?
                }
            }
        };
        let admission = admission.inspect_err(|why| record.refused_host(why, head.host))?;
        record.admitted(&admission, self.gateway.metrics(admission.tenant()));
        if down.upgrade() == Upgrade::WebSocket {
            return Err(Refusal::WebSocket);
        }
        self.check_length(head.body)?;
        if admission.masked && self.gateway.begins_masked_session(&admission) {
            self.gateway.metrics(admission.tenant()).embedded(EmbedOutcome::Masked);
            record.audit_masked(&self.telemetry.audit);
        }
        if admission.embed.is_some() {
            let call = EmbedCall::new(admission, &head, peer);
            return Ok(Decision::Answer(Box::new(OwnAnswer::Embed(call))));
        }
        let right = Right::Admitted(admission);
        self.going_on(Admitted::new(raw, head, right, (peer, client), terms), record)
    }

    fn going_on<'h>(
        &self,
        admitted: Admitted<'h>,
        record: &mut Record,
    ) -> Result<Decision<'h>, Refusal> {
        let added = &self.upstream(&admitted)?.server().headers;
        admitted.check_size(self.gateway.private_headers(), added, record.spans().is_some())?;
        Ok(Decision::Forward(admitted))
    }

    fn check_length(&self, body: BodyFraming) -> Result<(), Refusal> {
        let limit = self.limits.max_body;
        match body {
            BodyFraming::Length(length) if length > limit => Err(Refusal::BodyTooLarge { limit }),
            _ => Ok(()),
        }
    }

    async fn answer(
        &self,
        down: &mut Session,
        answer: Box<OwnAnswer<'_>>,
        peer: &Peer,
        record: &mut Record,
    ) -> Result<(), RequestFailure> {
        match *answer {
            OwnAnswer::Embed(call) => self.answer_embed(down, call, record).await,
            OwnAnswer::Preflight(head) => self.respond_to_preflight(down, head, peer, record).await,
        }
    }

    async fn respond_to_preflight(
        &self,
        down: &mut Session,
        head: HeaderMap,
        peer: &Peer,
        record: &mut Record,
    ) -> Result<(), RequestFailure> {
        end_if_last(down, peer);
        // As for a refusal: the client is not authenticated.
        down.bound_pipeline();
        let written = async {
            down.write_head(StatusCode::NO_CONTENT, head).await?;
            down.finish_body().await
        };
        let Ok(Ok(())) = timeout(REFUSAL_TIMEOUT, written).await else {
            return Err(RequestFailure::ClientGone);
        };
        record.status_sent(StatusCode::NO_CONTENT);
        Ok(())
    }

    /// Sends the request, beginning with the body kept from an earlier try, and waits for the head
    /// of its response. A request that may be sent twice is sent again if the server closes a
    /// reused connection without a response, or any connection while it has another address.
    async fn send(
        &self,
        down: &mut Session,
        admitted: &Admitted<'_>,
        token: Option<&Arc<AccessToken>>,
        record: &mut Record,
    ) -> Result<SentRequest, RequestFailure> {
        let upstream = self.upstream(admitted)?;
        let kept = down.kept_body();
        let (mut avoided, mut resends) = (None, 0);
        loop {
            let (private, id) = (self.gateway.private_headers(), record.request_id_value());
            let trace = record.sending_to(upstream.server());
            let token_now = token.map(|token| &**token);
            let added = &upstream.server().headers;
            let head = admitted.head(private, added, upstream.authority(), token_now, id, trace);
            let mut lease = self.lease(admitted, avoided).await?;
            // It may have expired while the request waited for a connection.
            let sent_at = Instant::now();
            if let Some(admission) = admitted.admission()
                && token.is_some_and(|token| !token.is_good(sent_at))
            {
                return Err(Refusal::TokenEnded(admission.tenant().name.clone()).into());
            }
            let sent = self.send_on(down, &mut lease, head, admitted, kept.clone()).await;
            match sent {
                Ok(upload) => {
                    record.responded(sent_at, lease.session.status());
                    lease.session.set_read_timeout(Some(upstream.server().timeouts.read));
                    let status = lease.session.status();
                    if let Some(token) = token
                        && status.is_some_and(|status| status.is_success())
                    {
                        token.accept();
                    }
                    return Ok(SentRequest { lease, upload, token: token.cloned() });
                }
                Err(TransferError::Server(error))
                    if resends < MAX_RESENDS
                        && admitted.may_be_sent_twice()
                        && error.is_end()
                        && (lease.reused || upstream.has_another(lease.address())) =>
                {
                    record.unanswered(sent_at);
                    resends += 1;
                    record.connection_failed();
                    avoided = Some(lease.address());
                }
                Err(error) => return Err(self.failure(error, upstream)),
            }
        }
    }

    async fn send_on(
        &self,
        down: &mut Session,
        lease: &mut Lease,
        head: Box<RequestHeader>,
        admitted: &Admitted<'_>,
        kept: Option<Bytes>,
    ) -> Result<Upload, TransferError> {
        lease.session.write_head(head).await.map_err(TransferError::Server)?;
        if admitted.framing == BodyFraming::Empty {
            body::await_response(down, &mut lease.session).await?;
            return Ok(Upload::Done);
        }
        if admitted.expects_continue {
            down.write_continue().await?;
        }
        let limits = self.upload_limits(lease.session.write_timeout());
        Box::pin(body::upload(down, &mut lease.session, kept, limits)).await
    }

    /// Sends the request once more, with the next token, after the server has refused ours.
    async fn replay(
        &self,
        down: &mut Session,
        admitted: &Admitted<'_>,
        (sent_request, admission): (SentRequest, &Admission),
        refused: &Arc<AccessToken>,
        record: &mut Record,
    ) -> Result<SentRequest, RequestFailure> {
        let permit = &admission.permit;
        if down.is_kept_body_truncated() {
            return if self.gateway.reject(permit, refused) {
                Err(Refusal::NotReplayable(permit.tenant().name.clone()).into())
            } else {
                Ok(sent_request)
            };
        }
        let (id, asked_at) = (record.request_id(), Instant::now());
        let next = self.gateway.upstream_refused(admission, refused, id).await;
        let next = next.inspect_err(|_| record.waited_for_token(asked_at))?;
        let Some(next) = next else { return Ok(sent_request) };
        record.replayed(asked_at);
        self.discard(sent_request, admitted).await;
        self.gateway.metrics(permit.tenant()).replayed();
        self.send(down, admitted, Some(&next), record).await
    }

    /// Reads and drops a response, if it is short, so that its connection can be used again.
    async fn discard(&self, sent_request: SentRequest, admitted: &Admitted<'_>) {
        let SentRequest { mut lease, upload, .. } = sent_request;
        if upload == Upload::Unfinished {
            return;
        }
        let mut read = 0;
        while read <= MAX_DISCARDED {
            match timeout(DISCARD_TIMEOUT, lease.session.read_body()).await {
                Ok(Ok(Some(piece))) => read += piece.len(),
                Ok(Ok(None)) => {
                    return self.give_back(admitted, lease);
                }
                _ => return,
            }
        }
    }

    async fn relay(
        &self,
        down: &mut Session,
        admitted: &Admitted<'_>,
        sent_request: SentRequest,
        record: &mut Record,
    ) -> Result<(), RequestFailure> {
        let SentRequest { mut lease, upload, token } = sent_request;
        let upstream = self.upstream(admitted)?;
        let status = lease.session.status().unwrap_or(StatusCode::BAD_GATEWAY);
        record.status(status);
        if status == StatusCode::UNAUTHORIZED && token.is_some() {
            record.token_refused();
        }
        let limits = self.upload_limits(lease.session.write_timeout());
        let additions = respond::Additions {
            server: upstream.server(),
            to: admitted.response_to(),
            token: token.as_deref(),
            page: record.page(),
            masked: admitted.is_masked(),
            request_id: record.request_id_value(),
        };
        end_if_last(down, admitted.peer);
        let relayed = respond::relay(down, &mut lease.session, upload, &limits, additions).await;
        match relayed {
            Ok(Upload::Done) => self.give_back(admitted, lease),
            Ok(Upload::Unfinished) => {}
            Err(TransferError::Server(error)) => {
                let reading = Overdue::Read(upstream.server().timeouts.read);
                let late = late(&error, upstream, reading);
                let cause = late.map_or_else(|| error.to_string(), |late| late.to_string());
                return Err(RequestFailure::Truncated(cause, late.map(Overdue::reason)));
            }
            Err(error) => return Err(self.failure(error, upstream)),
        }
        Ok(())
    }

    /// Keeps the connection for the next request, unless a trace of this one may remain on it.
    fn give_back(&self, admitted: &Admitted<'_>, lease: Lease) {
        let bound = headers::may_bind_connection(lease.session.headers());
        if !bound
            && !admitted.may_affect_next_request()
            && let Ok(upstream) = self.upstream(admitted)
        {
            upstream.give_back(lease);
        }
    }

    /// Ends a request that has no whole response. Returns whether the connection can carry another.
    async fn fail(
        &self,
        down: &mut Session,
        failure: RequestFailure,
        peer: &Peer,
        record: &mut Record,
    ) -> bool {
        match failure {
            RequestFailure::Refused(refusal) if !down.has_responded() => {
                return self.refuse(down, &refusal, peer, record).await;
            }
            RequestFailure::ClientGone => {
                record.outcome(RequestOutcome::ClientGone);
                return false;
            }
            RequestFailure::Refused(refusal) => {
                record.truncated(&refusal.to_string(), refusal.reason());
            }
            RequestFailure::Truncated(cause, reason) => record.truncated(&cause, reason),
        }
        // A missing end tells the client that the response is not whole.
        down.break_off().await;
        false
    }

    async fn refuse(
        &self,
        down: &mut Session,
        refusal: &Refusal,
        peer: &Peer,
        record: &mut Record,
    ) -> bool {
        record.sample_unread(self.tracer.as_ref());
        record.refused(refusal, peer, &self.telemetry);
        end_if_last(down, peer);
        if refusal.ends_connection() {
            down.close_after_response();
        }
        // The client may be unauthenticated: it must not hold much memory, nor for long.
        down.bound_pipeline();
        let written = respond::refuse(down, refusal, record);
        let Ok(Ok(status)) = timeout(REFUSAL_TIMEOUT, written).await else { return false };
        record.status_sent(status);
        true
    }

    fn failure(&self, error: TransferError, upstream: &Upstream) -> RequestFailure {
        let first_byte = Overdue::FirstByte(upstream.server().timeouts.first_byte);
        match error {
            TransferError::ClientGone => RequestFailure::ClientGone,
            TransferError::ClientSilent => Refusal::BodyTimeout.into(),
            TransferError::ClientMalformed => Refusal::BodyMalformed.into(),
            TransferError::TooLarge => Refusal::BodyTooLarge { limit: self.limits.max_body }.into(),
            TransferError::Server(error) => match late(&error, upstream, first_byte) {
                Some(late) => overdue(upstream, late).into(),
                None => {
                    let server = upstream.server().name.clone();
                    Refusal::UpstreamInvalid { server, cause: error.to_string() }.into()
                }
            },
        }
    }

    fn upload_limits(&self, write: Option<Duration>) -> UploadLimits {
        let ClientLimits { body: client, max_body, .. } = self.limits;
        UploadLimits { write: write.unwrap_or(client), client, max_body }
    }

    fn finish(&self, record: &mut Record) {
        let routes = match (record.tenant_index(), self.passed_server(record.passed_server())) {
            (Some(index), _) => self.upstreams[index].upstream().routes(),
            (None, Some(passed)) => passed.upstream().routes(),
            (None, None) => &self.telemetry.no_server,
        };
        record.finish(&self.telemetry, routes, &self.access_log);
    }
}

/// Makes the response the last on its connection while the gateway stops or the listener has
/// changed, and for a client that may go on in another protocol: no byte of that is ever read as a
/// request.
fn end_if_last(down: &mut Session, peer: &Peer) {
    if peer.closing.is_cancelled() || down.upgrade().ends_connection() {
        down.close_after_response();
    }
}

fn overdue(upstream: &Upstream, overdue: Overdue) -> Refusal {
    Refusal::UpstreamTimeout { server: upstream.server().name.clone(), overdue }
}

/// The deadline that has passed, if any; `reading` is the one that bounded the read.
fn late(error: &ResponseError, upstream: &Upstream, reading: Overdue) -> Option<Overdue> {
    match error {
        ResponseError::WriteTimeout => Some(Overdue::Write(upstream.server().timeouts.write)),
        ResponseError::ReadTimeout => Some(reading),
        _ => None,
    }
}

/// Longest time for a client to take a refusal, or the response to a preflight.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(5);
/// Most retries of a request after its connection has failed.
const MAX_RESENDS: u32 = 2;
/// Most bytes of a response that are read and dropped.
const MAX_DISCARDED: usize = 64 * 1024;
const DISCARD_TIMEOUT: Duration = Duration::from_secs(1);
