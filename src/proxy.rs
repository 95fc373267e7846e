//! One request from its head to its last byte: a straight line over pingora-core's sessions, with no
//! decisions of its own. [`Proxy::exchange`] is the whole of it, in order.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::UPGRADE;
use pingora::http::RequestHeader;
use pingora::protocols::http::v1::server::HttpSession;
use pingora::{Error, ErrorType, RetryType};
use tokio::time::{Instant, timeout};

pub mod connection;

mod admitted;
mod body;
mod downstream;
mod record;
mod respond;
mod serve;
mod upstream;

pub use downstream::{ClientLimits, Peer, linger};
pub use serve::{Current, Met};
pub use upstream::{Lane, Upstream};

use crate::gateway::Gateway;
use crate::refusal::{Overdue, Refusal};
use crate::request::{BodyFraming, RequestHead};
use crate::telemetry::{AccessLog, RequestOutcome, Telemetry};
use crate::token::AccessToken;
use admitted::Admitted;
use body::{Broken, Upload, UploadLimits};
use record::Record;
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
        down: &mut HttpSession,
        peer: &Peer,
        record: &mut Record,
    ) -> Result<(), Failure> {
        let admitted = self.admit(down, peer, record).await?;
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
        down: &mut HttpSession,
        admitted: &Admitted,
        peer: &Peer,
        record: &mut Record,
    ) -> Result<(), Failure> {
        let mut token = self.token(admitted, record).await?;
        if token.is_some() && admitted.framing != BodyFraming::Empty {
            down.enable_retry_buffering();
        }
        let sent = self.send(down, admitted, token.as_deref(), peer, record).await;
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
        down: &mut HttpSession,
        admitted: &Admitted,
        token: &mut Option<Arc<AccessToken>>,
        peer: &Peer,
        record: &mut Record,
    ) -> Result<Attempt, Failure> {
        *token = self.token(admitted, record).await?;
        self.send(down, admitted, token.as_deref(), peer, record).await
    }

    /// The token to put on; none when the request goes on with its own `Authorization`.
    async fn token(
        &self,
        admitted: &Admitted,
        record: &mut Record,
    ) -> Result<Option<Arc<AccessToken>>, Refusal> {
        let granted = self.gateway.token(&admitted.admission, record.request_id()).await?;
        record.token(granted.as_ref().map(|granted| granted.cached));
        Ok(granted.map(|granted| granted.token))
    }

    /// The strict parse and all decisions; nothing has been sent to anybody when this fails.
    async fn admit(
        &self,
        down: &mut HttpSession,
        peer: &Peer,
        record: &mut Record,
    ) -> Result<Admitted, Refusal> {
        let raw = down.get_headers_raw_bytes();
        let sent = down.req_header();
        record.method(&sent.method);
        let head = RequestHead::parse(&raw, &sent.method, sent.version, &sent.headers)?;
        record.target(&head.target);
        let admission = if record.is_anew() {
            self.gateway.admit_again(&peer.origin, &head).await?
        } else {
            self.gateway.admit(&peer.origin, &head).await?
        };
        record.admitted(&admission, self.gateway.metrics(admission.tenant()));
        if let BodyFraming::Length(length) = head.body
            && length > self.limits.max_body
        {
            return Err(Refusal::BodyTooLarge { limit: self.limits.max_body });
        }
        Ok(Admitted::new(head, admission))
    }

    /// Sends the request, with what was read of its body by an earlier try, and waits for the head of
    /// its answer. Requests that may be sent twice are sent again when the server closed the
    /// connection while it was idle, or closes it without an answer and has another address.
    async fn send(
        &self,
        down: &mut HttpSession,
        admitted: &Admitted,
        token: Option<&AccessToken>,
        peer: &Peer,
        record: &Record,
    ) -> Result<Attempt, Failure> {
        let lane = &self.lanes[admitted.admission.tenant().index];
        let upstream = lane.upstream();
        let kept = down.get_retry_buffer();
        let (mut avoided, mut again) = (None, 0);
        loop {
            let (theirs, id) = (&down.req_header().headers, record.request_id_value());
            let private = self.gateway.private_headers();
            let head = admitted.head(theirs, private, upstream.authority(), peer, token, id)?;
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
                    return Ok(Attempt { lease, upload });
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
        down: &mut HttpSession,
        lease: &mut Lease,
        head: Box<RequestHeader>,
        admitted: &Admitted,
        kept: Option<Bytes>,
    ) -> Result<Upload, Broken> {
        body::send_head(&mut lease.session, head).await?;
        if admitted.framing == BodyFraming::Empty {
            body::await_answer(down, &mut lease.session).await?;
            return Ok(Upload::Done);
        }
        if admitted.expects_continue {
            let told = Box::pin(down.write_continue_response()).await;
            told.map_err(|_| Broken::ClientGone)?;
            // An answer of any kind before the end of the body had switched keep-alive off.
            down.respect_keepalive();
        }
        let limits = self.upload_limits(lease.session.write_timeout);
        Box::pin(body::upload(down, &mut lease.session, kept, limits)).await
    }

    /// The server refused our token: send the request again with the next one, once.
    async fn replay(
        &self,
        down: &mut HttpSession,
        admitted: &Admitted,
        attempt: Attempt,
        refused: &Arc<AccessToken>,
        peer: &Peer,
        record: &mut Record,
    ) -> Result<Attempt, Failure> {
        let permit = &admitted.admission.permit;
        if down.retry_buffer_truncated() {
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
    async fn discard(&self, attempt: Attempt, admitted: &Admitted) {
        let Attempt { mut lease, upload } = attempt;
        if upload == Upload::Unfinished {
            return;
        }
        let mut read = 0;
        while read <= DISCARDED {
            match timeout(DISCARD_TIME, lease.session.read_body_bytes()).await {
                Ok(Ok(Some(piece))) => read += piece.len(),
                Ok(Ok(None)) => {
                    return self.upstream(admitted).give_back(lease).await;
                }
                _ => return,
            }
        }
    }

    async fn relay(
        &self,
        down: &mut HttpSession,
        admitted: &Admitted,
        attempt: Attempt,
        peer: &Peer,
        record: &mut Record,
    ) -> Result<(), Failure> {
        let Attempt { mut lease, upload } = attempt;
        let upstream = self.upstream(admitted);
        let status = lease.session.get_status().unwrap_or(StatusCode::BAD_GATEWAY);
        record.status(status);
        let limits = self.upload_limits(lease.session.write_timeout);
        let injected = admitted.admission.injects;
        let id = record.request_id_value();
        end_if_last(down, peer);
        let relayed = respond::relay(down, &mut lease.session, upload, &limits, injected, id).await;
        match relayed {
            Ok(Upload::Done) => upstream.give_back(lease).await,
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

    /// Ends a request that got no whole answer. True if the connection can go on.
    async fn fail(
        &self,
        down: &mut HttpSession,
        failure: Failure,
        peer: &Peer,
        record: &mut Record,
    ) -> bool {
        let begun = down.response_written().is_some_and(|head| !head.status.is_informational());
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
        respond::break_off(down).await;
        false
    }

    async fn refuse(
        &self,
        down: &mut HttpSession,
        refusal: &Refusal,
        peer: &Peer,
        record: &mut Record,
    ) -> bool {
        record.refused(refusal, &self.telemetry);
        end_if_last(down, peer);
        if refusal.ends_connection() {
            down.set_server_keepalive(None);
        }
        let written = respond::refuse(down, refusal, record.request_id());
        let Ok(Ok(status)) = timeout(self.limits.body, written).await else { return false };
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

    fn upstream(&self, admitted: &Admitted) -> &Upstream {
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
fn end_if_last(down: &mut HttpSession, peer: &Peer) {
    if peer.closing.is_cancelled() || down.get_header(UPGRADE).is_some() {
        down.set_server_keepalive(None);
    }
}

/// The server closed the connection without a whole head of an answer: while it was idle, or because
/// it ended.
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

/// What went wrong, without any byte of what was sent: pingora's own texts quote those.
fn cause(error: &Error) -> String {
    let kind = error.etype().as_str();
    match error.root_cause().downcast_ref::<std::io::Error>() {
        Some(io) => format!("{kind} ({io})"),
        None => kind.to_owned(),
    }
}

/// How often a request is sent again when connections break.
const SENT_AGAIN: u32 = 2;
const DISCARDED: usize = 64 * 1024;
const DISCARD_TIME: Duration = Duration::from_secs(1);
