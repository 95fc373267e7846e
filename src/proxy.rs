//! One request from its head to its last byte: a straight line over a session with the client and
//! one of pingora-core's with the server, with no decisions of its own. [`Proxy::exchange`] is the
//! whole of it, in order.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use pingora::http::RequestHeader;
use pingora::{Error, ErrorType, ImmutStr, RetryType};
use tokio::time::{Instant, timeout};

pub mod connection;

mod admitted;
mod body;
mod downstream;
mod record;
mod respond;
mod serve;
mod session;
mod upstream;

pub use downstream::{ClientLimits, Peer, linger};
pub use serve::{Current, Met};
pub use session::UnfinishedHeads;
pub use upstream::{Lane, Upstream};

use crate::gateway::{Arrival, Gateway};
use crate::headers;
use crate::refusal::{Overdue, Refusal};
use crate::request::{BodyFraming, RawHead, RequestHead};
use crate::telemetry::{AccessLog, RequestOutcome, Telemetry};
use crate::token::AccessToken;
use admitted::Admitted;
use body::{Broken, Upload, UploadLimits};
use record::Record;
use session::Session;
use upstream::Lease;

/// Serves requests, all by the same configuration. Another configuration is another proxy.
pub struct Proxy {
    gateway: Arc<Gateway>,
    /// For each tenant, by its index, the way to its server.
    lanes: Vec<Lane>,
    limits: ClientLimits,
    telemetry: Arc<Telemetry>,
    access_log: Arc<AccessLog>,
}

/// A request that was sent, and whose answer's head has been read.
struct Attempt {
    lease: Lease,
    upload: Upload,
    /// The token that was put on.
    token: Option<Arc<AccessToken>>,
}

/// What becomes of a request that nothing speaks against.
enum Decision<'h> {
    Forward(Admitted<'h>),
    /// The gateway answers a preflight with this head.
    Preflight(HeaderMap),
}

/// What ends a request without a whole answer of the server.
enum Failure {
    Refused(Refusal),
    ClientGone,
    /// The server broke off when its answer had begun.
    Truncated(String),
}

impl<R: Into<Refusal>> From<R> for Failure {
    fn from(refusal: R) -> Self {
        Self::Refused(refusal.into())
    }
}

impl Failure {
    /// The configuration in force no longer makes the permit.
    fn is_withdrawn(&self) -> bool {
        matches!(self, Self::Refused(Refusal::Exchange(no_token)) if no_token.is_withdrawn())
    }
}

impl Proxy {
    /// Serves what `gateway` admits. `lanes` are the ways to the tenants' servers, by tenant index.
    pub fn new(
        gateway: Arc<Gateway>,
        lanes: Vec<Lane>,
        limits: ClientLimits,
        telemetry: Arc<Telemetry>,
        access_log: Arc<AccessLog>,
    ) -> Self {
        Self { gateway, lanes, limits, telemetry, access_log }
    }

    /// The ways to the tenants' servers, by tenant index.
    pub fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    /// The gateway that decides.
    pub fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// One request and its answer.
    async fn exchange(
        &self,
        down: &mut Session,
        head: &RawHead,
        peer: &Peer,
        record: &mut Record,
    ) -> Result<(), Failure> {
        let admitted = match self.admit(down, head, peer, record).await? {
            Decision::Forward(admitted) => admitted,
            Decision::Preflight(head) => {
                return Box::pin(self.answer_preflight(down, head, peer, record)).await;
            }
        };
        let upstream = self.upstream(&admitted);
        let total = upstream.server().timeouts.total;
        match timeout(total, self.forward(down, &admitted, peer, record)).await {
            Ok(ended) => ended,
            Err(_) => Err(overdue(upstream, Overdue::Total(total)).into()),
        }
    }

    /// The token, the request to the server, the answer to the client.
    async fn forward(
        &self,
        down: &mut Session,
        admitted: &Admitted<'_>,
        peer: &Peer,
        record: &mut Record,
    ) -> Result<(), Failure> {
        let mut token = self.token(admitted, record).await?;
        if token.is_some() && admitted.framing != BodyFraming::Empty {
            down.keep_body();
        }
        let sent = self.send(down, admitted, token.as_ref(), peer, record).await;
        let mut attempt = match sent {
            Err(Failure::Refused(Refusal::TokenEnded(_))) => {
                Box::pin(self.send_by_next(down, admitted, &mut token, peer, record)).await?
            }
            sent => sent?,
        };
        if attempt.lease.session.get_status() == Some(StatusCode::UNAUTHORIZED)
            && let Some(refused) = token
        {
            let again = self.replay(down, admitted, attempt, &refused, peer, record);
            attempt = Box::pin(again).await?;
        }
        self.relay(down, admitted, attempt, peer, record).await
    }

    /// Sends the request by the token that there is now: `token` has ended.
    async fn send_by_next(
        &self,
        down: &mut Session,
        admitted: &Admitted<'_>,
        token: &mut Option<Arc<AccessToken>>,
        peer: &Peer,
        record: &mut Record,
    ) -> Result<Attempt, Failure> {
        *token = self.token(admitted, record).await?;
        self.send(down, admitted, token.as_ref(), peer, record).await
    }

    /// The token to put on; none when the request goes on with its own `Authorization`.
    async fn token(
        &self,
        admitted: &Admitted<'_>,
        record: &mut Record,
    ) -> Result<Option<Arc<AccessToken>>, Refusal> {
        let granted = self.gateway.token(&admitted.admission, record.request_id()).await?;
        record.token(granted.as_ref().map(|granted| granted.cached));
        Ok(granted.map(|granted| granted.token))
    }

    /// The strict parse and all decisions; nothing has been sent to anybody when this fails.
    async fn admit<'h>(
        &self,
        down: &mut Session,
        raw: &'h RawHead,
        peer: &Peer,
        record: &mut Record,
    ) -> Result<Decision<'h>, Refusal> {
        record.method(raw.method());
        let head = RequestHead::parse(raw)?;
        down.expect_body(head.body, head.expects_continue);
        record.target(&head.target);
        let arrived = match self.gateway.arrive(&peer.origin, &head)? {
            Arrival::Preflight(preflight) => {
                record.preflight(&preflight.tenant.name);
                let answer = respond::to_preflight(&preflight, record.request_id_value());
                return Ok(Decision::Preflight(answer));
            }
            Arrival::Request(arrived) => arrived,
        };
        record.arrived(&arrived);
        let admission = if record.is_anew() {
            self.gateway.admit_again(&peer.origin, &head, arrived).await?
        } else {
            self.gateway.admit(&peer.origin, &head, arrived).await?
        };
        record.admitted(&admission, self.gateway.metrics(admission.tenant()));
        if let BodyFraming::Length(length) = head.body
            && length > self.limits.max_body
        {
            return Err(Refusal::BodyTooLarge { limit: self.limits.max_body });
        }
        let admitted = Admitted::new(raw, head, admission, peer);
        admitted.check_size(self.gateway.private_headers(), peer)?;
        Ok(Decision::Forward(admitted))
    }

    /// Answers a preflight that is allowed.
    async fn answer_preflight(
        &self,
        down: &mut Session,
        head: HeaderMap,
        peer: &Peer,
        record: &mut Record,
    ) -> Result<(), Failure> {
        end_if_last(down, peer);
        let written = async {
            down.write_head(StatusCode::NO_CONTENT, head).await?;
            down.finish_body().await
        };
        written.await.map_err(|_| Failure::ClientGone)?;
        record.status_sent(StatusCode::NO_CONTENT);
        Ok(())
    }

    /// Sends the request, with what was read of its body by an earlier try, and waits for the head
    /// of its answer. Requests that may be sent twice are sent again when the server closed the
    /// connection while it was idle, or closes it without an answer and has another address.
    async fn send(
        &self,
        down: &mut Session,
        admitted: &Admitted<'_>,
        token: Option<&Arc<AccessToken>>,
        peer: &Peer,
        record: &Record,
    ) -> Result<Attempt, Failure> {
        let lane = &self.lanes[admitted.admission.tenant().index];
        let upstream = lane.upstream();
        let kept = down.kept_body();
        let (mut avoided, mut again) = (None, 0);
        loop {
            let (private, id) = (self.gateway.private_headers(), record.request_id_value());
            let head = admitted.head(
                private,
                upstream.authority(),
                peer,
                token.map(|token| &**token),
                id,
            )?;
            let mut lease = lane.lease(avoided).await?;
            // It may have been waited for.
            if token.is_some_and(|token| !token.is_good(Instant::now())) {
                let tenant = admitted.admission.tenant().name.clone();
                return Err(Refusal::TokenEnded(tenant).into());
            }
            let sent = self.send_on(down, &mut lease, head, admitted, kept.clone()).await;
            match sent {
                Ok(upload) => {
                    lease.session.read_timeout = Some(upstream.server().timeouts.read);
                    let status = lease.session.get_status();
                    if let Some(token) = token
                        && status.is_some_and(|status| status.is_success())
                    {
                        token.accept();
                    }
                    return Ok(Attempt { lease, upload, token: token.cloned() });
                }
                Err(Broken::Server(error))
                    if again < SENT_AGAIN
                        && admitted.may_be_sent_twice()
                        && was_closed(&error)
                        && (lease.reused || upstream.has_another(lease.address())) =>
                {
                    again += 1;
                    avoided = Some(lease.address());
                }
                Err(broken) => return Err(self.failure(broken, upstream)),
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
    ) -> Result<Upload, Broken> {
        body::send_head(&mut lease.session, head).await?;
        if admitted.framing == BodyFraming::Empty {
            body::await_answer(down, &mut lease.session).await?;
            return Ok(Upload::Done);
        }
        if admitted.expects_continue {
            down.write_continue().await?;
        }
        let limits = self.upload_limits(lease.session.write_timeout);
        Box::pin(body::upload(down, &mut lease.session, kept, limits)).await
    }

    /// The server refused our token: send the request again with the next one, once.
    async fn replay(
        &self,
        down: &mut Session,
        admitted: &Admitted<'_>,
        attempt: Attempt,
        refused: &Arc<AccessToken>,
        peer: &Peer,
        record: &mut Record,
    ) -> Result<Attempt, Failure> {
        let permit = &admitted.admission.permit;
        if down.is_kept_body_truncated() {
            return if self.gateway.reject(permit, refused) {
                Err(Refusal::NotReplayable(permit.tenant().name.clone()).into())
            } else {
                Ok(attempt)
            };
        }
        let id = record.request_id();
        let next = self.gateway.upstream_refused(&admitted.admission, refused, id).await?;
        let Some(next) = next else { return Ok(attempt) };
        self.discard(attempt, admitted).await;
        record.replayed();
        self.gateway.metrics(permit.tenant()).replays.inc();
        self.send(down, admitted, Some(&next), peer, record).await
    }

    /// Reads an answer that nobody gets, if it is short, so that its connection can be used again.
    async fn discard(&self, attempt: Attempt, admitted: &Admitted<'_>) {
        let Attempt { mut lease, upload, .. } = attempt;
        if upload == Upload::Unfinished {
            return;
        }
        let mut read = 0;
        while read <= DISCARDED {
            match timeout(DISCARD_TIME, lease.session.read_body_bytes()).await {
                Ok(Ok(Some(piece))) => read += piece.len(),
                Ok(Ok(None)) => {
                    return self.give_back(admitted, lease).await;
                }
                _ => return,
            }
        }
    }

    async fn relay(
        &self,
        down: &mut Session,
        admitted: &Admitted<'_>,
        attempt: Attempt,
        peer: &Peer,
        record: &mut Record,
    ) -> Result<(), Failure> {
        let Attempt { mut lease, upload, token } = attempt;
        let upstream = self.upstream(admitted);
        let status = lease.session.get_status().unwrap_or(StatusCode::BAD_GATEWAY);
        record.status(status);
        let limits = self.upload_limits(lease.session.write_timeout);
        let ours = respond::Ours {
            token: token.as_deref(),
            page: record.page(),
            request_id: record.request_id_value(),
        };
        end_if_last(down, peer);
        let relayed = respond::relay(down, &mut lease.session, upload, &limits, ours).await;
        match relayed {
            Ok(Upload::Done) => self.give_back(admitted, lease).await,
            Ok(Upload::Unfinished) => {}
            Err(Broken::Server(error)) => {
                let reading = Overdue::Read(upstream.server().timeouts.read);
                let late = late(&error, upstream, reading);
                let cause = late.map_or_else(|| cause(&error), |late| late.to_string());
                return Err(Failure::Truncated(cause));
            }
            Err(broken) => return Err(self.failure(broken, upstream)),
        }
        Ok(())
    }

    /// Keeps the connection for the next request, if nothing can be left on it that this one
    /// brought.
    async fn give_back(&self, admitted: &Admitted<'_>, lease: Lease) {
        let answer = lease.session.resp_header();
        let bound = answer.is_some_and(|answer| headers::may_bind_connection(&answer.headers));
        if !bound && !admitted.may_leave_traces() {
            self.upstream(admitted).give_back(lease).await;
        }
    }

    /// Ends a request that got no whole answer. True if the connection can go on.
    async fn fail(
        &self,
        down: &mut Session,
        failure: Failure,
        peer: &Peer,
        record: &mut Record,
    ) -> bool {
        let begun = down.has_responded();
        match failure {
            Failure::Refused(refusal) if !begun => {
                return self.refuse(down, &refusal, peer, record).await;
            }
            Failure::ClientGone => {
                record.outcome(RequestOutcome::ClientGone);
                return false;
            }
            Failure::Refused(refusal) => record.truncated(&refusal.to_string()),
            Failure::Truncated(cause) => record.truncated(&cause),
        }
        // The answer has no proper end, so that the client knows it is not whole.
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
        record.refused(refusal, &self.telemetry);
        end_if_last(down, peer);
        if refusal.ends_connection() {
            down.close_after_response();
        }
        // Nobody need be known for a refusal: one that is not taken must hold little, and not for
        // long.
        down.bound_pipeline();
        let written = respond::refuse(down, refusal, record.page(), record.request_id());
        let Ok(Ok(status)) = timeout(REFUSAL_TIMEOUT, written).await else { return false };
        record.status_sent(status);
        true
    }

    fn failure(&self, broken: Broken, upstream: &Upstream) -> Failure {
        let first_byte = Overdue::FirstByte(upstream.server().timeouts.first_byte);
        match broken {
            Broken::ClientGone => Failure::ClientGone,
            Broken::ClientSilent => Refusal::BodyTimeout.into(),
            Broken::ClientMalformed => Refusal::BodyMalformed.into(),
            Broken::TooLarge => Refusal::BodyTooLarge { limit: self.limits.max_body }.into(),
            Broken::Server(error) => match late(&error, upstream, first_byte) {
                Some(late) => overdue(upstream, late).into(),
                None => {
                    let server = upstream.server().name.clone();
                    Refusal::UpstreamInvalid { server, cause: cause(&error) }.into()
                }
            },
        }
    }

    fn upstream(&self, admitted: &Admitted<'_>) -> &Upstream {
        self.lanes[admitted.admission.tenant().index].upstream()
    }

    fn upload_limits(&self, write: Option<Duration>) -> UploadLimits {
        let ClientLimits { body: client, max_body, .. } = self.limits;
        UploadLimits { write: write.unwrap_or(client), client, max_body }
    }

    fn finish(&self, record: &Record) {
        record.finish(&self.telemetry, &self.access_log);
    }
}

/// While the gateway stops, or the listener is no more what the client came to, every answer is the
/// last on its connection. So is the answer to a client that asks for another protocol, which it
/// does not get: nothing that it sends in that protocol is ever read as a request.
fn end_if_last(down: &mut Session, peer: &Peer) {
    if peer.closing.is_cancelled() || down.wants_upgrade() {
        down.close_after_response();
    }
}

/// The server closed the connection without a whole head of an answer: while it was idle, or
/// because it ended.
fn was_closed(error: &Error) -> bool {
    let without_notice = || {
        let io = error.root_cause().downcast_ref::<std::io::Error>();
        io.is_some_and(|io| io.kind() == std::io::ErrorKind::UnexpectedEof)
    };
    matches!(error.retry, RetryType::ReusedOnly)
        || *error.etype() == ErrorType::WriteError
        || without_notice()
}

fn overdue(upstream: &Upstream, overdue: Overdue) -> Refusal {
    Refusal::UpstreamTimeout { server: upstream.server().name.clone(), overdue }
}

/// The deadline that an error stands for; `reading` is the one for what was being read.
fn late(error: &Error, upstream: &Upstream, reading: Overdue) -> Option<Overdue> {
    match error.etype() {
        ErrorType::WriteTimedout => Some(Overdue::Write(upstream.server().timeouts.write)),
        ErrorType::ReadTimedout => Some(reading),
        _ => None,
    }
}

/// What went wrong, without any byte of what was sent. Pingora's own texts quote those, but for the
/// ones that stand in its source as they are.
fn cause(error: &Error) -> String {
    let mut kind = error.etype().as_str().to_owned();
    if let Some(ImmutStr::Static(text)) = &error.context {
        kind = format!("{kind}, {text}");
    }
    match error.root_cause().downcast_ref::<std::io::Error>() {
        Some(io) => format!("{kind} ({io})"),
        None => kind,
    }
}

/// Longest time for a client to take a refusal.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a request is sent again when connections break.
const SENT_AGAIN: u32 = 2;
const DISCARDED: usize = 64 * 1024;
const DISCARD_TIME: Duration = Duration::from_secs(1);
