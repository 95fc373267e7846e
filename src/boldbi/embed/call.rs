//! The call to Bold BI: one request, one reply, one deadline over both.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderValue, Method, Request};
use tokio::time::{Instant, timeout};

use super::signed::{self, Stamp};
use super::{json, reply};
use crate::boldbi::embed_faults::REFUSAL;
use crate::boldbi::embed_url;
use crate::boldbi::exchange::{BoldBi, failed, unreachable};
use crate::boldbi::reply::Asked;
use crate::embed::{EmbedOrder, EmbedReply};
use crate::fetch::FetchError;
use crate::policy::Permit;
use crate::tenant::{EmbedVia, SecretPosition};
use crate::token::{EmbedAnswer, ExchangeError, ExchangeErrorKind};

impl BoldBi {
    /// Asks for the embed token of the permit's subject. The whole call ends within the server's
    /// exchange timeout.
    pub(in crate::boldbi) async fn embed_once(
        &self,
        permit: &Permit,
        position: SecretPosition,
        order: &EmbedOrder,
    ) -> Result<EmbedAnswer, ExchangeError> {
        let tenant = permit.tenant();
        let url = embed_url(tenant);
        let deadline = tenant.server.timeouts.exchange;
        let answer = match timeout(deadline, self.ask_to_embed(permit, position, order, &url)).await
        {
            Ok(answer) => answer,
            Err(_) => Err(ExchangeErrorKind::Timeout(deadline)),
        };
        answer.map_err(|kind| ExchangeError {
            tenant: tenant.name.clone(),
            endpoint: url,
            grant: tenant.credential.grant,
            kind,
        })
    }

    async fn ask_to_embed(
        &self,
        permit: &Permit,
        position: SecretPosition,
        order: &EmbedOrder,
        url: &str,
    ) -> Result<EmbedAnswer, ExchangeErrorKind> {
        let tenant = permit.tenant();
        let secret = tenant.credential.secret_in(position);
        let secret = secret.ok_or(ExchangeErrorKind::SecretUnreadable)?;
        let subject = permit.subject().as_str();
        let request =
            Request::builder().header(ACCEPT, HeaderValue::from_static("application/json"));
        let asked = Asked { at: Instant::now(), clock: SystemTime::now() };
        let request = match order.via {
            EmbedVia::Signed => {
                let stamp = Stamp { nonce: nonce(), now: unix_seconds(asked.clock) };
                let query = signed::query(order, subject, secret, &stamp);
                request.method(Method::GET).uri(format!("{url}?{query}")).body(Bytes::new())
            }
            EmbedVia::Json => request
                .method(Method::POST)
                .uri(url)
                .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
                .body(json::body(tenant, secret, subject, order)),
        };
        let request = request.map_err(unreachable)?;
        let sent = self.fetcher(tenant)?.send(request).await.map_err(failed)?;
        let (head, body) = sent.into_parts();
        reply::head(head.status, &head.headers)?;
        let body = body.whole(MAX_REPLY).await.map_err(|error| match error {
            FetchError::TooLarge => reply::refused(head.status, "it is larger than 1 MiB"),
            other => failed(other),
        })?;
        let content_type = reply::body(&head.headers, &body, secret)?;
        let mapped = permit.is_mapped().then_some(subject);
        let token = reply::token(&head.headers, &body, mapped, asked, order.lifetime);
        if let Err(another @ ExchangeErrorKind::AnotherUser(_)) = token {
            return Err(another);
        }
        let is_refusal =
            matches!(token, Err(ExchangeErrorKind::EmbedRefused { fault: REFUSAL, .. }));
        let body = Bytes::from_owner(body);
        let reply = EmbedReply { content_type, body, is_refusal, secret: None };
        Ok(EmbedAnswer { reply, token })
    }
}

/// A random UUID (RFC 9562, version 4).
fn nonce() -> String {
    // It tells calls apart and protects nothing: the signature does that.
    let mut bytes = fastrand::u128(..).to_be_bytes();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex =
        bytes.iter().fold(String::with_capacity(32), |hex, byte| hex + &format!("{byte:02x}"));
    let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    parts.join("-")
}

fn unix_seconds(clock: SystemTime) -> u64 {
    clock.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A longer body is no reply of Bold BI; nothing beyond this is read.
const MAX_REPLY: usize = 1 << 20;
