//! Which addresses are good. One that cannot be connected to is set aside at once; health checks,
//! where they are configured, set aside what does not answer well. Nobody's request is needed to
//! find out that an address is good again: that is done here, on connections of its own.

use std::sync::{Arc, Weak};
use std::time::Duration;

use http::header::{CONNECTION, HOST, HeaderValue, USER_AGENT};
use http::{Method, Version};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Upstream;
use super::address::Address;
use crate::http1::{ClientSession, ResponseError};
use crate::tenant::HealthCheck;
use crate::trust::CertificateHint;

impl Upstream {
    /// An address has failed: its idle connections are closed, and others are preferred.
    pub(super) fn eject(&self, address: &Arc<Address>, cause: &str, hint: Option<CertificateHint>) {
        if !address.set_ejected(true) {
            return;
        }
        drop(self.addresses().clear(address));
        let left = self.update_metrics();
        tracing::warn!(
            server.address = self.server.origin(),
            network.peer.address = %address.at,
            healthy_addresses = left,
            hint = hint.map_or(
                "look into Bold BI at this address; it is used again as soon as it is well",
                CertificateHint::as_str
            ),
            "an address of server `{}` is set aside: {cause}",
            self.server.name
        );
        if self.server.health_check.is_none() {
            tokio::spawn(reconnect_until_restored(Weak::clone(&self.this), Arc::clone(address)));
        }
    }

    /// An address is good again.
    pub(super) fn restore(&self, address: &Arc<Address>) {
        if address.set_ejected(false) {
            let healthy = self.update_metrics();
            tracing::info!(
                server.address = self.server.origin(),
                network.peer.address = %address.at,
                healthy_addresses = healthy,
                "an address of server `{}` is used again",
                self.server.name
            );
        }
    }

    /// Brings the metrics up to date; how many addresses are good.
    pub fn update_metrics(&self) -> usize {
        let addresses = self.addresses();
        let (all, good) = addresses.listed().fold((0_usize, 0_usize), |(all, good), address| {
            (all + 1, good + usize::from(!address.is_ejected()))
        });
        drop(addresses);
        self.metrics.addresses.set(i64::try_from(all).unwrap_or(i64::MAX));
        self.metrics.healthy_addresses.set(i64::try_from(good).unwrap_or(i64::MAX));
        good
    }

    async fn check(&self, address: &Arc<Address>, check: &HealthCheck) {
        let asked = timeout(check.timeout, self.probe(address, check)).await;
        let failed = match asked {
            Ok(Ok(200..=299)) => None,
            Ok(Ok(status)) => Some(format!("its health check is answered with {status}")),
            Ok(Err(cause)) => Some(format!("its health check fails: {cause}")),
            Err(_) => Some(format!("its health check is not answered within {:?}", check.timeout)),
        };
        let contrary_checks = address.checked(failed.is_none());
        match failed {
            Some(cause) if contrary_checks >= check.unhealthy_after => {
                self.eject(address, &cause, None)
            }
            None if contrary_checks >= check.healthy_after => self.restore(address),
            _ => {}
        }
    }

    /// The status of the response. The request is ours alone: it has no token, and nothing of a
    /// client's.
    async fn probe(&self, address: &Address, check: &HealthCheck) -> Result<u16, String> {
        let connection = self.connect_to(address.at).await.map_err(|error| error.to_string())?;
        let mut session = ClientSession::new(Box::new(connection));
        let (mut parts, ()) = http::Request::new(()).into_parts();
        parts.method = Method::GET;
        parts.uri = check.path.parse().map_err(|_| "its path is none".to_owned())?;
        parts.version = Version::HTTP_11;
        parts.headers.insert(HOST, self.authority.clone());
        parts.headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        parts.headers.insert(CONNECTION, HeaderValue::from_static("close"));
        session.write_head(Box::new(parts.into())).await.map_err(|error| text(&error))?;
        session.read_head().await.map_err(|error| text(&error))?;
        Ok(session.status().map_or(0, |status| status.as_u16()))
    }
}

fn text(error: &ResponseError) -> String {
    match error {
        ResponseError::NotHttp(cause) => format!("it answers, but not in HTTP: {cause}"),
        other => other.to_string(),
    }
}

/// Checks all addresses, again and again, as long as the pool lives.
pub(super) async fn check_always(upstream: Weak<Upstream>, check: HealthCheck) {
    loop {
        {
            let Some(upstream) = upstream.upgrade() else { return };
            // Why a name is not known has been told.
            let _ = upstream.look_up().await;
            let listed: Vec<_> = upstream.addresses().listed().cloned().collect();
            let mut checks = JoinSet::new();
            for address in listed {
                let (upstream, check) = (Arc::clone(&upstream), check.clone());
                checks.spawn(async move { upstream.check(&address, &check).await });
            }
            while checks.join_next().await.is_some() {}
        }
        sleep(jittered(check.interval)).await;
    }
}

/// Connects to an address that was set aside, with longer and longer pauses, until that succeeds.
async fn reconnect_until_restored(upstream: Weak<Upstream>, address: Arc<Address>) {
    let mut pause = MIN_RECONNECT_PAUSE;
    loop {
        sleep(jittered(pause)).await;
        let Some(upstream) = upstream.upgrade() else { return };
        // A request may have got through in the meantime.
        let listed = upstream.addresses().is_listed(&address);
        let Some(listed) = listed.filter(|_| address.is_ejected()) else { return };
        let limit = upstream.server.timeouts.connect;
        if listed && matches!(timeout(limit, upstream.connect_to(address.at)).await, Ok(Ok(_))) {
            return upstream.restore(&address);
        }
        pause = (pause * 2).min(MAX_RECONNECT_PAUSE);
    }
}

/// A tenth more or less, so that many gateways do not probe at the same time.
fn jittered(period: Duration) -> Duration {
    period.mul_f64(0.9 + fastrand::f64() / 5.0)
}

const AGENT: &str = concat!("boldgate/", env!("CARGO_PKG_VERSION"));
const MIN_RECONNECT_PAUSE: Duration = Duration::from_secs(1);
const MAX_RECONNECT_PAUSE: Duration = Duration::from_secs(60);
