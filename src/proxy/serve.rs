//! A client's connection: its requests one after the other, each by the configuration in force.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::timeout;

use super::Proxy;
use super::connection::Connection;
use super::downstream::Peer;
use super::record::Record;
use super::session::{Head, Session, UnfinishedHeads};
use crate::caller::ListenerTerms;
use crate::refusal::Refusal;

/// The configuration that serves the next request of a connection.
pub trait Current: Send + Sync {
    /// The proxy in force.
    fn proxy(&self) -> Arc<Proxy>;

    /// The proxy in force, and the terms of the connection's listener from the same generation:
    /// terms and permissions must never come from two configurations. `None` if the listener is
    /// gone, or no longer trusts the client's proof.
    fn proxy_and_terms(&self) -> (Arc<Proxy>, Option<Arc<ListenerTerms>>);

    /// The unfinished heads of all connections.
    fn unfinished_heads(&self) -> &UnfinishedHeads;
}

impl Proxy {
    /// Serves a connection to its end. Each request is served by the proxy that is in force when its
    /// head is complete.
    pub async fn serve(current: &impl Current, mut connection: Box<Connection>, peer: &Peer) {
        let mut closing = pin!(peer.closing.cancelled());
        let (mut closes, mut patience) = (false, current.proxy().limits.head);
        loop {
            // Between requests only the connection is held: no session, no buffer.
            let first = tokio::select! {
                biased;
                first = timeout(patience, connection.first_bytes()) => first,
                () = &mut closing, if !closes => {
                    (closes, patience) = (true, patience.min(LAST_REQUEST_TIMEOUT));
                    continue;
                }
            };
            let Ok(Ok(first)) = first else { return };
            if first.is_empty() {
                return;
            }
            match Box::pin(Self::requests(current, connection, first, peer)).await {
                Some(idle) => connection = idle,
                None => return,
            }
            patience = current.proxy().limits.keep_alive;
        }
    }

    /// Serves the request that begins with the bytes `read`, and those that follow without a pause.
    /// Returns the connection if it can carry more requests.
    async fn requests(
        current: &impl Current,
        mut connection: Box<Connection>,
        mut read: BytesMut,
        peer: &Peer,
    ) -> Option<Box<Connection>> {
        loop {
            let mut proxy = current.proxy();
            let mut down = Session::new(connection, read, proxy.limits);
            let mut record = Record::new(peer);
            let head = down.read_head(current.unfinished_heads()).await;
            // A head can take its time. From here on the request keeps one configuration, unless
            // its permit is revoked.
            let mut terms;
            (proxy, terms) = current.proxy_and_terms();
            let head = match head {
                Head::Closed => return None,
                Head::Refused(refusal) => {
                    Box::pin(proxy.end_unread(down, refusal, peer, record)).await;
                    return None;
                }
                Head::Read(head) => head,
            };
            let complete = loop {
                let failure = match &terms {
                    Some(terms) => {
                        proxy.handle(&mut down, &head, peer, terms, &mut record).await.err()
                    }
                    None => Some(Refusal::ListenerChanged.into()),
                };
                let Some(failure) = failure else { break true };
                // A reload revoked the permit before there was a token. Bold BI has done nothing
                // yet, so the newer configuration decides. Each turn takes a newer one.
                if failure.is_withdrawn() {
                    let (newer, newer_terms) = current.proxy_and_terms();
                    if !Arc::ptr_eq(&newer, &proxy) {
                        (proxy, terms) = (newer, newer_terms);
                        record.reset();
                        continue;
                    }
                }
                break Box::pin(proxy.fail(&mut down, failure, peer, &mut record)).await;
            };
            record.bodies(down.body_received(), down.body_sent());
            proxy.finish(&record);
            // They are not held while the connection lingers.
            drop((head, record));
            if !complete {
                return None;
            }
            (connection, read) = down.finish().await?;
            if read.is_empty() {
                return Some(connection);
            }
        }
    }

    /// Ends a connection whose request head could not be read.
    async fn end_unread(
        &self,
        mut down: Session,
        refusal: Refusal,
        peer: &Peer,
        mut record: Record,
    ) {
        if matches!(refusal, Refusal::HeadEvicted { .. })
            && let Some(repeated) = self.telemetry.no_tenant.log_limiter.allow("head_evicted")
        {
            tracing::warn!(
                repeated = (repeated > 0).then_some(repeated),
                hint = "find out who opens connections without sending requests, or raise \
                        `limits.unfinished_heads`",
                "{refusal}"
            );
        }
        self.refuse(&mut down, &refusal, peer, &mut record).await;
        self.finish(&record);
        down.finish().await;
    }
}

/// Longest wait for a request that may be on its way when the connection begins to close. Its
/// response says that it is the last.
const LAST_REQUEST_TIMEOUT: Duration = Duration::from_millis(300);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::RawHead;

    struct Always(Arc<Proxy>, UnfinishedHeads);

    impl Current for Always {
        fn proxy(&self) -> Arc<Proxy> {
            Arc::clone(&self.0)
        }

        fn proxy_and_terms(&self) -> (Arc<Proxy>, Option<Arc<ListenerTerms>>) {
            (Arc::clone(&self.0), None)
        }

        fn unfinished_heads(&self) -> &UnfinishedHeads {
            &self.1
        }
    }

    /// The size of the future that `of` makes; it is never polled, nor even made.
    fn size<A, F>(_: impl FnOnce(A) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn what_is_held_for_a_connection_and_for_a_request_stays_small() {
        type Request<'a> =
            (&'a Proxy, &'a mut Session, &'a RawHead, &'a Peer, &'a ListenerTerms, &'a mut Record);
        let connection = size(|(current, connection, peer): (&Always, Box<Connection>, &Peer)| {
            Proxy::serve(current, connection, peer)
        });
        let requests = size(|(current, connection, first, peer): (&Always, _, _, &Peer)| {
            Proxy::requests(current, connection, first, peer)
        });
        let request = size(|(proxy, down, head, peer, terms, record): Request<'_>| {
            proxy.handle(down, head, peer, terms, record)
        });
        println!(
            "{connection} bytes a connection, {requests} its requests, of which {request} one"
        );
        assert!(connection <= 512, "an idle connection holds {connection} bytes");
        assert!(request <= 2 * 1024, "one request holds {request} bytes");
        assert!(requests <= 3 * 1024, "a busy connection holds {requests} bytes");
    }
}
