//! A tenant's way to its server: the connections, and how many of them it may use at once.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::{Lease, Upstream};
use crate::refusal::Refusal;
use crate::tenant::{Tenant, TenantName};

/// See the module.
pub struct Lane {
    upstream: Arc<Upstream>,
    tenant: TenantName,
    share: Option<Share>,
}

/// So many requests at the same time.
#[derive(Clone)]
struct Share {
    limit: usize,
    places: Arc<Semaphore>,
}

impl Lane {
    /// The way of `tenant`, which is `alone` if no other lives on its server. Where others do, no
    /// tenant has more than three quarters of the connections, unless it is said to.
    pub fn new(upstream: Arc<Upstream>, tenant: &Tenant, alone: bool) -> Self {
        let all = upstream.server().max_connections;
        let limit = match tenant.max_concurrent_requests {
            Some(limit) => limit,
            None if alone => all,
            None => (all * 3 / 4).max(1),
        };
        let places = || Share { limit, places: Arc::new(Semaphore::new(limit)) };
        // The server's own bound is reached first.
        let share = (limit < all).then(places);
        Self { upstream, tenant: tenant.name.clone(), share }
    }

    /// The same, with the places that requests have taken on the tenant's way so far, if it is the
    /// same way.
    #[must_use]
    pub fn carry_over(mut self, before: Option<&Self>) -> Self {
        let limit = |lane: &Self| lane.share.as_ref().map(|share| share.limit);
        if let Some(lane) = before
            && Arc::ptr_eq(&lane.upstream, &self.upstream)
            && limit(lane) == limit(&self)
        {
            self.share.clone_from(&lane.share);
        }
        self
    }

    /// Whose way it is.
    pub fn tenant(&self) -> &TenantName {
        &self.tenant
    }

    /// The connections.
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// A session to the server; on a new connection, at another address if there is one, when an
    /// earlier one to the address `avoided` has broken.
    ///
    /// # Errors
    /// When no connection became free, or none could be made, within the connect timeout.
    pub async fn lease(&self, avoided: Option<SocketAddr>) -> Result<Lease, Refusal> {
        let deadline = Instant::now() + self.upstream.server().timeouts.connect;
        let place = match &self.share {
            None => None,
            Some(share) => match Arc::clone(&share.places).try_acquire_owned() {
                Ok(place) => Some(place),
                Err(_) => Some(Box::pin(self.wait(share, deadline)).await?),
            },
        };
        self.upstream.lease(place, deadline, avoided).await
    }

    async fn wait(
        &self,
        share: &Share,
        deadline: Instant,
    ) -> Result<OwnedSemaphorePermit, Refusal> {
        match timeout_at(deadline, Arc::clone(&share.places).acquire_owned()).await {
            Ok(place) => Ok(place.expect("the semaphore is never closed")),
            Err(_) => Err(Refusal::ShareTaken {
                tenant: self.tenant.clone(),
                server: self.upstream.server().name.clone(),
                limit: share.limit,
            }),
        }
    }
}
