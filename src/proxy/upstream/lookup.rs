//! Resolves the endpoints of a server to addresses. Names are looked up again when connections are
//! made, so that a change of DNS is followed.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::Upstream;
use crate::descriptors;
use crate::tenant::{HostPort, Server};

/// The endpoints of a server, and the outcome of the last lookup.
pub(super) struct Lookup {
    endpoints: Vec<HostPort>,
    /// Locked during a lookup, so that others wait for its outcome.
    last: Mutex<Option<Last>>,
}

struct Last {
    at: Instant,
    /// `Some` if the lookup failed and no address is known.
    failure: Option<LookupFault>,
}

/// Why the names have no known addresses.
#[derive(Clone)]
pub(super) enum LookupFault {
    /// No file descriptor is left to ask with.
    NoDescriptors,
    /// The last name that could not be looked up, and why.
    Name(String),
}

impl Lookup {
    pub(super) fn new(server: &Server) -> Self {
        Self { endpoints: server.endpoints(), last: Mutex::default() }
    }

    pub(super) fn has_names(&self) -> bool {
        self.endpoints.iter().any(|endpoint| literal(endpoint).is_none())
    }

    /// The endpoints that are IP addresses.
    pub(super) fn literals(&self) -> impl Iterator<Item = (usize, SocketAddr)> {
        let all = self.endpoints.iter().enumerate();
        all.filter_map(|(index, endpoint)| Some((index, literal(endpoint)?)))
    }
}

impl Upstream {
    /// Looks the names up, unless the last lookup is recent. A failed lookup changes no address.
    ///
    /// # Errors
    /// When no address is known at all.
    pub(super) async fn look_up(&self) -> Result<(), LookupFault> {
        if !self.lookup.has_names() {
            return Ok(());
        }
        let mut last = self.lookup.last.lock().await;
        if let Some(last) = &*last {
            let keep = if last.failure.is_some() { FAILED_LOOKUP_TTL } else { LOOKUP_TTL };
            if last.at.elapsed() < keep {
                return last.failure.clone().map_or(Ok(()), Err);
            }
        }
        // With known addresses, a request does not wait long for newer ones.
        let limit = if self.addresses.lock().untried(&[]) > 0 {
            LOOKUP_TIMEOUT
        } else {
            FIRST_LOOKUP_TIMEOUT
        };
        let mut failed = None;
        for (index, endpoint) in self.lookup.endpoints.iter().enumerate() {
            if literal(endpoint).is_some() {
                continue;
            }
            let asked = lookup_host((endpoint.host.as_str(), endpoint.port));
            let cause = match timeout(limit, asked).await {
                Ok(Ok(found)) => {
                    let found: Vec<_> = found.take(MAX_ADDRESSES).collect();
                    if !found.is_empty() {
                        self.addresses.lock().list(index, found);
                        continue;
                    }
                    "the name has no address".to_owned()
                }
                // The name service hides the cause of some failures.
                Ok(Err(error))
                    if descriptors::are_exhausted(&error) || descriptors::none_left() =>
                {
                    failed = Some(LookupFault::NoDescriptors);
                    continue;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no response from the name service within {limit:?}"),
            };
            self.warn_of_name(&endpoint.host, &cause);
            failed = Some(LookupFault::Name(cause));
        }
        self.update_metrics();
        let failure = failed.filter(|_| self.addresses.lock().untried(&[]) == 0);
        *last = Some(Last { at: Instant::now(), failure: failure.clone() });
        failure.map_or(Ok(()), Err)
    }

    fn warn_of_name(&self, name: &str, cause: &str) {
        if let Some(repeated) = self.log_limiter.allow("lookup") {
            tracing::warn!(
                server.address = self.server.origin(),
                repeated = (repeated > 0).then_some(repeated),
                hint = "check the name in the server's `url` or `addresses`, and the DNS used here",
                "the name `{name}` of server `{}` cannot be looked up: {cause}",
                self.server.name
            );
        }
    }
}

fn literal(endpoint: &HostPort) -> Option<SocketAddr> {
    let ip: IpAddr = endpoint.host.parse().ok()?;
    Some(SocketAddr::new(ip, endpoint.port))
}

const LOOKUP_TTL: Duration = Duration::from_secs(5);
const FAILED_LOOKUP_TTL: Duration = Duration::from_secs(1);
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(1);
const FIRST_LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// Most addresses of one name.
const MAX_ADDRESSES: usize = 64;
