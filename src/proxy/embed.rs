//! A call of a web page that the gateway itself answers: the body is read whole and checked, and
//! Bold BI is asked in place of the page. No byte of the page's request goes on.

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue,
    X_CONTENT_TYPE_OPTIONS,
};
use tokio::time::{Instant, timeout};

use super::downstream::Peer;
use super::session::{ClientFault, Session};
use super::{Overdue, Proxy, REFUSAL_TIMEOUT, Record, RequestFailure, end_if_last};
use crate::boldbi::embed::{authorize_order, token_order};
use crate::embed::{EmbedEndpoint, EmbedFault, EmbedGrant, EmbedOrder};
use crate::gateway::Admission;
use crate::headers::{self, REQUEST_ID};
use crate::refusal::{Refusal, RequestFacts};
use crate::request::{BodyFraming, RequestHead};
use crate::telemetry::EmbedOutcome;
use crate::tenant::EmbedSettings;
use crate::token::AccessToken;
use crate::traces::Stage;

/// An admitted call.
pub(super) struct EmbedCall<'h> {
    admission: Admission,
    peer: &'h Peer,
    framing: BodyFraming,
    expects_continue: bool,
    content_type: ContentType,
    /// Whether the token is asked for as JSON.
    as_json: bool,
}

/// The type of a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ContentType {
    Json,
    Absent,
    Other,
}

impl<'h> EmbedCall<'h> {
    pub(super) fn new(admission: Admission, head: &RequestHead<'_>, peer: &'h Peer) -> Self {
        Self {
            admission,
            peer,
            framing: head.body,
            expects_continue: head.expects_continue,
            content_type: ContentType::of(head.headers),
            as_json: wants_json(head.headers),
        }
    }

    fn refuse(&self, why: EmbedFault) -> Refusal {
        let Admission { caller, permit, by, class, .. } = &self.admission;
        let subject = Some(permit.subject());
        let facts = RequestFacts::of(caller.name(), permit.tenant(), *class, Some(*by), subject);
        Refusal::Embed { why: Box::new(why), facts }
    }
}

impl ContentType {
    fn of(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(CONTENT_TYPE).iter();
        match (values.next(), values.next()) {
            (None, _) => Self::Absent,
            (Some(value), None) if is_type(value.as_bytes(), b"application/json") => Self::Json,
            _ => Self::Other,
        }
    }
}

impl Proxy {
    /// Answers a call.
    pub(super) async fn answer_embed(
        &self,
        down: &mut Session,
        call: EmbedCall<'_>,
        record: &mut Record,
    ) -> Result<(), RequestFailure> {
        let tenant = std::sync::Arc::clone(call.admission.tenant());
        let total = tenant.server.timeouts.total;
        let (Some(grant), Some(settings)) = (&call.admission.embed, &tenant.embed) else {
            return Err(call.refuse(EmbedFault::Mode).into());
        };
        let answer = async {
            let order = self.order(down, &call, grant, settings).await?;
            record.ordered(&order);
            record.stage(Stage::Token);
            self.ask(&call, &order, record).await.map_err(RequestFailure::from)
        };
        let server = || tenant.server.name.clone();
        let answer = timeout(total, answer).await.unwrap_or_else(|_| {
            let overdue = Overdue::Total(total);
            Err(Refusal::UpstreamTimeout { server: server(), overdue }.into())
        });
        let (content_type, body) = match answer {
            Ok(answer) => answer,
            Err(failure) => {
                if let Some(outcome) = outcome_of(&failure) {
                    self.gateway.metrics(&tenant).embedded(outcome);
                }
                return Err(failure);
            }
        };
        let head = response_head(content_type, body.len(), record);
        end_if_last(down, call.peer);
        record.status(StatusCode::OK);
        let written = async {
            down.write_head(StatusCode::OK, head).await?;
            down.write_body(&body).await?;
            down.finish_body().await
        };
        match timeout(REFUSAL_TIMEOUT, written).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(RequestFailure::ClientGone),
        }
    }

    /// The order of the page, once its body has been read and checked.
    async fn order(
        &self,
        down: &mut Session,
        call: &EmbedCall<'_>,
        grant: &EmbedGrant,
        settings: &EmbedSettings,
    ) -> Result<EmbedOrder, RequestFailure> {
        if call.content_type == ContentType::Other {
            return Err(call.refuse(EmbedFault::ContentType).into());
        }
        let body = whole_body(down, call).await?;
        let may_lack_type = grant.endpoint() == EmbedEndpoint::Token && body.is_empty();
        if call.content_type == ContentType::Absent && !may_lack_type {
            return Err(call.refuse(EmbedFault::ContentType).into());
        }
        let subject = call.admission.permit.subject().as_str();
        let order = match grant.endpoint() {
            EmbedEndpoint::Authorize => authorize_order(&body, settings, grant.clone(), subject),
            EmbedEndpoint::Token => token_order(&body, settings, grant.clone(), subject),
        };
        order.map_err(|why| call.refuse(why).into())
    }

    /// Asks Bold BI. Returns the type and the body of the response, and writes the audit line.
    async fn ask(
        &self,
        call: &EmbedCall<'_>,
        order: &EmbedOrder,
        record: &Record,
    ) -> Result<(HeaderValue, Bytes), Refusal> {
        let (answer, outcome, secret) = match order.grant.endpoint() {
            EmbedEndpoint::Authorize => {
                let reply = self.gateway.embed(&call.admission, order).await?;
                let outcome =
                    if reply.is_refusal { EmbedOutcome::Refused } else { EmbedOutcome::Granted };
                ((reply.content_type, reply.body), outcome, reply.secret)
            }
            EmbedEndpoint::Token => {
                let found = self.gateway.embed_token(&call.admission, order).await?;
                let outcome =
                    if found.cached { EmbedOutcome::Cached } else { EmbedOutcome::Granted };
                (token_response(&found.token, call.as_json), outcome, found.secret)
            }
        };
        self.gateway.metrics(call.admission.tenant()).embedded(outcome);
        record.audit_embed(outcome, secret, &self.telemetry.audit);
        Ok(answer)
    }
}

/// The outcome of a call without a reply for the page; `None` where the client, or a change of the
/// configuration, is the cause, or the record of the request counts it.
fn outcome_of(failure: &RequestFailure) -> Option<EmbedOutcome> {
    let RequestFailure::Refused(refusal) = failure else { return None };
    if failure.is_permit_revoked() {
        return None;
    }
    let is_of_server = refusal.response().status.is_server_error();
    let is_of_bold_bi = matches!(refusal, Refusal::Exchange(_));
    match (is_of_server, is_of_bold_bi) {
        (true, _) => Some(EmbedOutcome::Failed),
        (false, true) => Some(EmbedOutcome::Refused),
        (false, false) => None,
    }
}

/// The body of a call. It is kept, in case a newer configuration decides on the call again.
async fn whole_body(down: &mut Session, call: &EmbedCall<'_>) -> Result<BytesMut, RequestFailure> {
    let too_large = || Refusal::BodyTooLarge { limit: MAX_BODY as u64 };
    if let BodyFraming::Length(length) = call.framing
        && length > MAX_BODY as u64
    {
        return Err(too_large().into());
    }
    let mut body = BytesMut::from(&down.kept_body().unwrap_or_default()[..]);
    down.keep_body();
    if call.expects_continue && call.framing != BodyFraming::Empty {
        down.write_continue().await.map_err(|_| RequestFailure::ClientGone)?;
    }
    loop {
        let piece = down.read_body().await.map_err(|fault| match fault {
            ClientFault::Gone => RequestFailure::ClientGone,
            ClientFault::Silent => Refusal::BodyTimeout.into(),
            ClientFault::Malformed => Refusal::BodyMalformed.into(),
        })?;
        let Some(piece) = piece else { return Ok(body) };
        if body.len() + piece.len() > MAX_BODY {
            return Err(too_large().into());
        }
        body.extend_from_slice(&piece);
    }
}

/// The bare token, or an object in the form of RFC 6749, section 5.1.
fn token_response(token: &AccessToken, as_json: bool) -> (HeaderValue, Bytes) {
    if !as_json {
        let text = HeaderValue::from_static("text/plain; charset=utf-8");
        return (text, Bytes::copy_from_slice(token.as_bytes()));
    }
    let left = token.expires_at().saturating_duration_since(Instant::now()).as_secs();
    let token = String::from_utf8_lossy(token.as_bytes());
    let token = serde_json::Value::from(&*token);
    let body = format!(r#"{{"access_token":{token},"token_type":"bearer","expires_in":{left}}}"#);
    (HeaderValue::from_static("application/json"), Bytes::from(body))
}

fn response_head(content_type: HeaderValue, length: usize, record: &Record) -> HeaderMap {
    let mut head = HeaderMap::new();
    head.insert(CONTENT_TYPE, content_type);
    head.insert(CONTENT_LENGTH, HeaderValue::from(length));
    head.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    head.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers::allow_page(&mut head, record.page());
    head.insert(REQUEST_ID.clone(), record.request_id_value());
    head
}

/// Whether `Accept` names JSON, and not plain text before it. `*/*` alone is the text that official
/// front ends read.
fn wants_json(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT).iter();
    let mut ranges = values.flat_map(|value| value.as_bytes().split(|b| *b == b','));
    let named = ranges.find_map(|range| {
        if is_type(range, b"application/json") {
            Some(true)
        } else {
            is_type(range, b"text/plain").then_some(false)
        }
    });
    named.unwrap_or(false)
}

/// Whether a media type is this one, whatever its parameters (RFC 9110, section 8.3.1).
fn is_type(value: &[u8], known: &[u8]) -> bool {
    let essence = value.split(|b| *b == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(known)
}

/// Most bytes of a body; the SDK's have about 700.
const MAX_BODY: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &http::header::HeaderName, values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn only_one_content_type_of_json_is_json() {
        for (values, expected) in [
            (&["application/json"][..], ContentType::Json),
            (&["Application/JSON; charset=utf-8"], ContentType::Json),
            (&[], ContentType::Absent),
            (&["text/plain"], ContentType::Other),
            (&["application/json", "text/plain"], ContentType::Other),
            (&["application/json-patch+json"], ContentType::Other),
            (&["text/plain, application/json"], ContentType::Other),
            (&[""], ContentType::Other),
        ] {
            assert_eq!(ContentType::of(&headers(&CONTENT_TYPE, values)), expected, "{values:?}");
        }
    }

    #[test]
    fn json_is_sent_to_clients_that_name_it_and_text_to_all_others() {
        for (values, expected) in [
            (&[][..], false),
            (&["*/*"], false),
            (&["text/plain"], false),
            (&["application/json"], true),
            (&["text/html, application/json;q=0.9"], true),
            (&["application/json, text/plain, */*"], true),
            (&["text/plain, application/json"], false),
        ] {
            assert_eq!(wants_json(&headers(&ACCEPT, values)), expected, "{values:?}");
        }
    }
}
