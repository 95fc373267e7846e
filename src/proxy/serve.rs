//! A connection of a client: its requests one after the other, each by the configuration in force.

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
use crate::refusal::Refusal;

/// Tells which proxy serves the next request of a connection.
pub trait Current: Send + Sync {
    /// The one that is in force.
    fn proxy(&self) -> Arc<Proxy>;

    /// The same, and how the listener that `peer` came through meets it by the same configuration:
    /// no request is decided on by what is known of it by one and what is allowed by another.
    fn meet(&self, peer: &Peer) -> (Arc<Proxy>, Met);

    /// The heads that are still to arrive on all connections.
    fn unfinished_heads(&self) -> &UnfinishedHeads;
}

/// How a client is met whose connection may be older than the configuration in force.
pub enum Met {
    /// As when it came.
    AsBefore,
    /// In another way, but what it has proven counts.
    Otherwise(Box<Peer>),
    /// Its listener is gone, or does not believe what it has proven.
    NotAnyMore,
}

impl Proxy {
    /// Serves a connection to its end, each request by the proxy that is current when its head is
    /// there.
    pub async fn serve(current: &impl Current, mut connection: Box<Connection>, peer: &Peer) {
        let mut closing = pin!(peer.closing.cancelled());
        let (mut told, mut patience) = (false, current.proxy().limits.head);
        loop {
            // Between requests nothing but the connection is held, no session, no buffer.
            let first = tokio::select! {
                biased;
                first = timeout(patience, connection.first_bytes()) => first,
                () = &mut closing, if !told => {
                    (told, patience) = (true, patience.min(ON_ITS_WAY));
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

    /// Serves the request that begins with what was `read`, and those that follow without a pause.
    /// Gives the connection back if it can go on.
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
            // A head can take its time. From here on the request has one configuration to its end,
            // unless that loses it its permit.
            let mut met;
            (proxy, met) = current.meet(peer);
            let head = match head {
                Head::Closed => return None,
                Head::Refused(refusal) => {
                    Box::pin(proxy.end_unread(down, refusal, peer, record)).await;
                    return None;
                }
                Head::Read(head) => head,
            };
            let complete = loop {
                let as_met = match &met {
                    Met::AsBefore => Some(peer),
                    Met::Otherwise(peer) => Some(&**peer),
                    Met::NotAnyMore => None,
                };
                let failure = match as_met {
                    Some(peer) => proxy.exchange(&mut down, &head, peer, &mut record).await.err(),
                    None => Some(Refusal::ListenerChanged.into()),
                };
                let Some(failure) = failure else { break true };
                // Another configuration took its permit away before there was a token. Bold BI has
                // done nothing yet, so that one decides; each turn takes one that is newer still.
                if failure.is_withdrawn() {
                    let (newer, met_now) = current.meet(peer);
                    if !Arc::ptr_eq(&newer, &proxy) {
                        (proxy, met) = (newer, met_now);
                        record.anew();
                        continue;
                    }
                }
                break Box::pin(proxy.fail(&mut down, failure, peer, &mut record)).await;
            };
            record.bodies(down.body_received(), down.body_sent());
            proxy.finish(&record);
            // Not held while the connection lingers.
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

    /// Ends a connection on which no head came that could be read.
    async fn end_unread(
        &self,
        mut down: Session,
        refusal: Refusal,
        peer: &Peer,
        mut record: Record,
    ) {
        if matches!(refusal, Refusal::HeadEvicted { .. })
            && let Some(repeated) = self.telemetry.no_tenant.repeats.tell("head_evicted")
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

/// A request may be on its way at the moment at which it is decided that there are to be no more.
/// It is waited for so long, and its answer says that it is the last.
const ON_ITS_WAY: Duration = Duration::from_millis(300);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::RawHead;

    struct Always(Arc<Proxy>, UnfinishedHeads);

    impl Current for Always {
        fn proxy(&self) -> Arc<Proxy> {
            Arc::clone(&self.0)
        }

        fn meet(&self, _: &Peer) -> (Arc<Proxy>, Met) {
            (Arc::clone(&self.0), Met::AsBefore)
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
        type Request<'a> = (&'a Proxy, &'a mut Session, &'a RawHead, &'a Peer, &'a mut Record);
        let connection = size(|(current, connection, peer): (&Always, Box<Connection>, &Peer)| {
            Proxy::serve(current, connection, peer)
        });
        let requests = size(|(current, connection, first, peer): (&Always, _, _, &Peer)| {
            Proxy::requests(current, connection, first, peer)
        });
        let exchange = size(|(proxy, down, head, peer, record): Request<'_>| {
            proxy.exchange(down, head, peer, record)
        });
        println!(
            "{connection} bytes a connection, {requests} its requests, of which {exchange} one"
        );
        assert!(connection <= 512, "an idle connection holds {connection} bytes");
        assert!(exchange <= 2 * 1024, "one request holds {exchange} bytes");
        assert!(requests <= 3 * 1024, "a busy connection holds {requests} bytes");
    }
}
