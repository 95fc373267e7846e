//! Which addresses the endpoints of a server mean. Names are asked for again when connections are
//! made, so that a server that moves is followed.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::Upstream;
use crate::tenant::{HostPort, Server};

/// The endpoints of a server, and what is known of their names.
pub(super) struct Lookup {
    endpoints: Vec<HostPort>,
    /// Held while names are asked for: whoever comes meanwhile waits for the same answer.
    last: Mutex<Option<Last>>,
}

/// How the names were asked for the last time.
struct Last {
    at: Instant,
    /// Why nothing at all is known.
    nothing: Option<String>,
}

impl Lookup {
    pub(super) fn new(server: &Server) -> Self {
        Self { endpoints: server.endpoints(), last: Mutex::default() }
    }

    /// Whether there is anything to probe for.
    pub(super) fn has_names(&self) -> bool {
        self.endpoints.iter().any(|endpoint| literal(endpoint).is_none())
    }

    /// The endpoints that are addresses themselves.
    pub(super) fn literals(&self) -> impl Iterator<Item = (usize, SocketAddr)> {
        let all = self.endpoints.iter().enumerate();
        all.filter_map(|(index, endpoint)| Some((index, literal(endpoint)?)))
    }
}

impl Upstream {
    /// Asks for the names again, unless that was done just now. What cannot be found out stays as
    /// it was.
    ///
    /// # Errors
    /// Why no address is known at all.
    pub(super) async fn look_up(&self) -> Result<(), String> {
        if !self.lookup.has_names() {
            return Ok(());
        }
        let mut last = self.lookup.last.lock().await;
        if let Some(last) = &*last {
            let keep = if last.nothing.is_some() { FAILED_LOOKUP_TTL } else { LOOKUP_TTL };
            if last.at.elapsed() < keep {
                return last.nothing.clone().map_or(Ok(()), Err);
            }
        }
        // Who has addresses does not wait long for newer ones.
        let limit =
            if self.addresses().untried(&[]) > 0 { LOOKUP_TIMEOUT } else { FIRST_LOOKUP_TIMEOUT };
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
                        self.addresses().list(index, found);
                        continue;
                    }
                    "the name has no address".to_owned()
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer from the name service within {limit:?}"),
            };
            self.warn_of_name(&endpoint.host, &cause);
            failed = Some(cause);
        }
        self.update_metrics();
        let nothing = failed.filter(|_| self.addresses().untried(&[]) == 0);
        *last = Some(Last { at: Instant::now(), nothing: nothing.clone() });
        nothing.map_or(Ok(()), Err)
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

/// How long an answer counts as new.
const LOOKUP_TTL: Duration = Duration::from_secs(5);
/// How long a failure is believed.
const FAILED_LOOKUP_TTL: Duration = Duration::from_secs(1);
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(1);
const FIRST_LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// Most addresses of one name.
const MAX_ADDRESSES: usize = 64;
