//! The access of pages without a caller to a server: its connections behind a bulkhead, so that
//! they cannot take those of tenants.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;

use super::bulkheads::BulkheadOwner;
use super::{Lease, Upstream};
use crate::refusal::Refusal;

/// See the module.
pub struct PassedUpstream {
    upstream: Arc<Upstream>,
    limit: usize,
}

impl PassedUpstream {
    /// At most half of the connections to a server.
    pub fn new(upstream: Arc<Upstream>) -> Self {
        upstream.routes().export_passed();
        let limit = (upstream.server().max_connections / 2).max(1);
        Self { upstream, limit }
    }

    /// The connections to the server.
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// Most connections at the same time.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// A session to the server: see [`super::TenantUpstream::lease`].
    ///
    /// # Errors
    /// When no connection became free, or none could be made, within the connect timeout.
    pub async fn lease(&self, avoided: Option<SocketAddr>) -> Result<Lease, Refusal> {
        let deadline = Instant::now() + self.upstream.server().timeouts.connect;
        let bulkhead = self.upstream.enter(BulkheadOwner::Pages, self.limit, deadline).await;
        let bulkhead = bulkhead.ok_or_else(|| Refusal::Overloaded {
            server: self.upstream.server().name.clone(),
            limit: self.limit,
        })?;
        self.upstream.lease(Some(bulkhead), deadline, avoided).await
    }
}
