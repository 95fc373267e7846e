//! A client's connection: its requests one after the other, each by the active configuration.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use tokio::time::{Instant, timeout, timeout_at};

use super::Proxy;
use super::downstream::Peer;
use super::record::Record;
use super::session::{HeadOutcome, Session};
use crate::caller::ListenerTerms;
use crate::http1::{Connection, FirstBytes};
use crate::refusal::Refusal;
use crate::telemetry::RequestOutcome;

/// The configuration that serves the next request of a connection.
pub trait Current: Send + Sync {
    /// The active proxy.
    fn proxy(&self) -> Arc<Proxy>;

    /// The active proxy, and the terms of the connection's listener from the same generation:
    /// terms and permissions must never come from two configurations. `None` if the listener is
    /// gone, or no longer trusts the client's proof.
    fn proxy_and_terms(&self) -> (Arc<Proxy>, Option<Arc<ListenerTerms>>);
}

impl Proxy {
    /// Serves a connection to its end. Each request is served by the proxy that is active when its
    /// head is complete.
    pub async fn serve(current: &impl Current, mut connection: Box<Connection>, peer: &Peer) {
        let mut closing = pin!(peer.closing.cancelled());
        let (mut closes, mut idle_timeout) = (false, current.proxy().limits.head);
        loop {
            // Between requests only the connection is held: no session, no buffer.
            let first = tokio::select! {
                biased;
                first = timeout(idle_timeout, connection.first_bytes()) => first,
                () = &mut closing, if !closes => {
                    (closes, idle_timeout) = (true, idle_timeout.min(LAST_REQUEST_TIMEOUT));
                    continue;
                }
            };
            let Ok(Ok(first)) = first else { return };
            match Box::pin(Self::requests(current, connection, first, peer)).await {
                Some(idle) => connection = idle,
                None => return,
            }
            idle_timeout = current.proxy().limits.keep_alive;
        }
    }

    /// Waits for the rest of a TLS record. It is bounded as an unfinished head is, in time and,
    /// together with all others, in memory; `None` if it ends by that.
    async fn rest_of_record(
        current: &impl Current,
        connection: &mut Connection,
        mut undecrypted: u64,
    ) -> Option<BytesMut> {
        let proxy = current.proxy();
        let unfinished = proxy.unfinished_heads.enter();
        let deadline = Instant::now() + proxy.limits.head;
        loop {
            let held = usize::try_from(2 * undecrypted).unwrap_or(usize::MAX);
            unfinished.hold(held, proxy.limits.unfinished_heads);
            let more = tokio::select! {
                biased;
                () = unfinished.evicted() => return None,
                more = timeout_at(deadline, connection.more_bytes(undecrypted)) => more.ok()?.ok()?,
            };
            match more {
                FirstBytes::Arrived(first) => return Some(first),
                FirstBytes::Undecrypted(bytes) => undecrypted = bytes,
                FirstBytes::Closed => return None,
            }
        }
    }

    /// Serves the request that begins with the `first` bytes, and those that follow without a
    /// pause. Returns the connection if it can carry more requests.
    async fn requests(
        current: &impl Current,
        mut connection: Box<Connection>,
        first: FirstBytes,
        peer: &Peer,
    ) -> Option<Box<Connection>> {
        let mut read = match first {
            FirstBytes::Arrived(read) => read,
            FirstBytes::Undecrypted(bytes) => {
                Box::pin(Self::rest_of_record(current, &mut connection, bytes)).await?
            }
            FirstBytes::Closed => return None,
        };
        loop {
            let mut proxy = current.proxy();
            let mut down = Session::new(connection, read, proxy.limits);
            let begun = (SystemTime::now(), Instant::now());
            let head = down.read_head(&proxy.unfinished_heads).await;
            // A head can take its time. From here on the request keeps one configuration, unless
            // its permit is revoked.
            let mut terms;
            (proxy, terms) = current.proxy_and_terms();
            let head = match head {
                HeadOutcome::Closed => return None,
                HeadOutcome::Refused(refusal, path) => {
                    let mut record = Record::new(peer, begun);
                    record.refused_path(path);
                    Box::pin(proxy.end_unread(down, refusal, peer, record)).await;
                    return None;
                }
                HeadOutcome::Read(head) => head,
            };
            let mut request = RequestInService {
                proxy,
                record: Record::new(peer, begun),
                down: &mut down,
                ended: false,
            };
            let complete = loop {
                let RequestInService { proxy, record, down, .. } = &mut request;
                let failure = match &terms {
                    Some(terms) => proxy.handle(down, &head, peer, terms, record).await.err(),
                    None => Some(Refusal::ListenerChanged.into()),
                };
                let Some(failure) = failure else { break true };
                // A reload revoked the permit before there was a token. Bold BI has done nothing
                // yet, so the newer configuration decides. Each turn takes a newer one.
                if failure.is_permit_revoked() {
                    let (newer, newer_terms) = current.proxy_and_terms();
                    if !Arc::ptr_eq(&newer, proxy) {
                        (*proxy, terms) = (newer, newer_terms);
                        record.reset();
                        continue;
                    }
                }
                break Box::pin(proxy.fail(down, failure, peer, record)).await;
            };
            request.end();
            // The connection may linger: free it first.
            drop(head);
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
            && let Some(repeated) = self.telemetry.no_tenant.log_limiter().allow("head_evicted")
        {
            tracing::warn!(
                repeated = (repeated > 0).then_some(repeated),
                hint = "find out who opens connections without sending requests, or raise \
                        `limits.unfinished_heads`",
                "{refusal}"
            );
        }
        self.refuse(&mut down, &refusal, peer, &mut record).await;
        record.bodies(down.body_received(), down.body_sent());
        self.finish(&mut record);
        down.finish().await;
    }
}

/// A request whose response is not complete. If its connection's task is aborted, it is logged and
/// counted as cut off.
struct RequestInService<'s> {
    proxy: Arc<Proxy>,
    record: Record,
    down: &'s mut Session,
    ended: bool,
}

impl RequestInService<'_> {
    /// Logs and counts the request as its record says.
    fn end(mut self) {
        self.finish();
    }

    fn finish(&mut self) {
        self.record.bodies(self.down.body_received(), self.down.body_sent());
        self.proxy.finish(&mut self.record);
        self.ended = true;
    }
}

impl Drop for RequestInService<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.record.outcome(RequestOutcome::CutOff);
            self.finish();
        }
    }
}

/// Longest wait for a request that may be in transit when the connection begins to close. Its
/// response says that it is the last.
const LAST_REQUEST_TIMEOUT: Duration = Duration::from_millis(300);

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use async_trait::async_trait;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;
    use tokio_util::sync::CancellationToken;

    use super::super::ClientLimits;
    use super::*;
    use crate::caller::{Admits, PeerInfo};
    use crate::config::Settings;
    use crate::gateway::{Gatekeeper, Gateway};
    use crate::http1::Transport;
    use crate::policy::Permit;
    use crate::request::RawHead;
    use crate::telemetry::{AccessLog, Format, Telemetry};
    use crate::tenant::SecretPosition;
    use crate::token::{AccessToken, ExchangeError, TokenExchange, TokenSource};

    struct Always(Arc<Proxy>);

    impl Current for Always {
        fn proxy(&self) -> Arc<Proxy> {
            Arc::clone(&self.0)
        }

        fn proxy_and_terms(&self) -> (Arc<Proxy>, Option<Arc<ListenerTerms>>) {
            let terms = ListenerTerms {
                admits: Admits::Known,
                hosts: None,
                trusted_proxies: None,
                ui: None,
            };
            (Arc::clone(&self.0), Some(Arc::new(terms)))
        }
    }

    struct NoExchange;

    #[async_trait]
    impl TokenExchange for NoExchange {
        async fn exchange(
            &self,
            _: &Permit,
            _: SecretPosition,
        ) -> Result<AccessToken, ExchangeError> {
            unreachable!("no caller is admitted")
        }
    }

    const CONFIG: &str = "
listeners: [ { address: '127.0.0.1:0', callers: required } ]
servers: { main: { url: http://127.0.0.1:1/bi } }
tenants:
  acme:
    server: main
    site: site1
    credential:
      grant: embed_secret
      username: reports@acme.example
      embed_secret: { file: SECRET_FILE }
      user_source: azure_ad
callers:
  portal:
    api_key: { sha256: 4bf5122f344554c53bde2ebb8cd2b7e3d1600ad631c385a5d7cce23c7785459a }
    may: [ { tenant: acme, routes: [read] } ]
";

    /// A proxy that refuses every request.
    fn refusing() -> Always {
        let mut secret = tempfile::NamedTempFile::new().unwrap();
        secret.write_all(b"canary").unwrap();
        let config = CONFIG.replace("SECRET_FILE", &secret.path().display().to_string());
        let settings = Settings::parse(&config, "test.yaml").unwrap();
        let telemetry = Arc::new(Telemetry::default());
        let tokens = TokenSource::new(Arc::new(NoExchange), 10, Arc::clone(&telemetry));
        let Settings { caller_auth, tenants, policy, throttles, .. } = settings;
        let gatekeeper = Gatekeeper::new(caller_auth, tenants, policy, throttles);
        let gateway = Arc::new(Gateway::new(gatekeeper, tokens, &telemetry));
        let dropped = telemetry.access_lines_dropped.clone();
        let log = AccessLog::new(Format::Json, Box::new(std::io::sink()), dropped).unwrap();
        let limits = ClientLimits {
            head: Duration::from_secs(10),
            keep_alive: Duration::from_secs(75),
            body: Duration::from_secs(60),
            max_body: 1024,
            unfinished_heads: 32 << 20,
        };
        let (upstreams, unfinished) = (Vec::new(), Arc::default());
        let proxy = Proxy::new(gateway, upstreams, limits, unfinished, telemetry, Arc::new(log));
        Always(Arc::new(proxy))
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_whose_client_does_not_read_refusals_is_closed_after_five_seconds() {
        for takes in [true, false] {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let (mut refusals, mut requests) = theirs.into_split();
            let client = tokio::spawn(async move {
                let mut sent = 0_usize;
                while sent < 10_000
                    && requests.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.is_ok()
                {
                    sent += 1;
                }
                sent
            });
            let taken = tokio::spawn(async move {
                let mut taken = Vec::new();
                if takes {
                    refusals.read_to_end(&mut taken).await.unwrap();
                } else {
                    std::future::pending::<()>().await;
                }
                taken
            });
            let connection = Box::new(Connection::new(Transport::Unix(ours)));
            let peer = Peer::new(PeerInfo::default(), None, CancellationToken::new());
            let begun = Instant::now();
            Proxy::serve(&refusing(), connection, &peer).await;
            let sent = client.await.unwrap();
            if takes {
                let taken = taken.await.unwrap();
                assert_eq!(memchr::memmem::find_iter(&taken, "HTTP/1.1 401 ").count(), sent);
                assert_eq!(sent, 10_000);
            } else {
                assert!(sent < 10_000, "the connection was ended");
                let ended = begun.elapsed();
                assert!((5..6).contains(&ended.as_secs()), "{ended:?}");
            }
        }
    }

    /// The size of the future that a function returns; it is never made.
    fn size<A, F>(_: impl FnOnce(A) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_idle_connection_a_busy_one_and_a_request_hold_a_bounded_number_of_bytes() {
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
