//! The access of pages without a caller to a server: its connections behind a bulkhead, so that
//! they cannot take those of tenants.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::{Lease, Upstream};
use crate::refusal::Refusal;

/// See the module.
pub struct PassedUpstream {
    upstream: Arc<Upstream>,
    limit: usize,
    permits: Arc<Semaphore>,
}

impl PassedUpstream {
    /// At most half of the connections to a server.
    pub fn new(upstream: Arc<Upstream>) -> Self {
        let limit = (upstream.server().max_connections / 2).max(1);
        Self { upstream, limit, permits: Arc::new(Semaphore::new(limit)) }
    }

    /// Keeps counting the running requests of `before` if the server is the same.
    #[must_use]
    pub fn carry_over(mut self, before: Option<&Self>) -> Self {
        if let Some(before) = before.filter(|before| Arc::ptr_eq(&before.upstream, &self.upstream))
        {
            self.permits = Arc::clone(&before.permits);
        }
        self
    }

    /// The connections to the server.
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// A session to the server: see [`super::TenantUpstream::lease`].
    ///
    /// # Errors
    /// When no connection became free, or none could be made, within the connect timeout.
    pub async fn lease(&self, avoided: Option<SocketAddr>) -> Result<Lease, Refusal> {
        let deadline = Instant::now() + self.upstream.server().timeouts.connect;
        let permit = match Arc::clone(&self.permits).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                let _waiting = self.upstream.waiting();
                let waited = timeout_at(deadline, Arc::clone(&self.permits).acquire_owned()).await;
                let server = || self.upstream.server().name.clone();
                waited
                    .map_err(|_| Refusal::Overloaded { server: server(), limit: self.limit })?
                    .expect("the semaphore is never closed")
            }
        };
        self.upstream.lease(Some(permit), deadline, avoided).await
    }
}
