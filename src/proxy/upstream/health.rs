//! Ejects unhealthy addresses and restores them. A failed connection ejects an address at once, and
//! so do configured health checks. Recovery is found on connections made here, not by requests.

use std::sync::{Arc, Weak};
use std::time::Duration;

use http::header::{CONNECTION, HOST, HeaderValue, USER_AGENT};
use http::{Method, Version};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Upstream;
use super::address::Address;
use crate::descriptors;
use crate::http1::{ClientSession, ResponseError};
use crate::telemetry::DescriptorUse;
use crate::tenant::HealthCheck;
use crate::trust::CertificateHint;

impl Upstream {
    /// Closes the idle connections of an address that has failed. Others are preferred from now on.
    pub(super) fn eject(&self, address: &Arc<Address>, cause: &str, hint: Option<CertificateHint>) {
        if !address.set_ejected(true) {
            return;
        }
        address.set_cause(cause);
        drop(self.addresses.lock().clear(address));
        let left = self.update_metrics();
        let usual = match &self.server.proxy {
            None => "look into Bold BI at this address; it is used again as soon as it is healthy",
            Some(_) => {
                "the address is that of the server's `proxy`: look into the proxy, and whether it \
                 reaches Bold BI; it is used again as soon as that works"
            }
        };
        tracing::warn!(
            server.address = self.server.origin(),
            network.peer.address = %address.at,
            healthy_addresses = left,
            hint = hint.map_or(usual, CertificateHint::as_str),
            "an address of server `{}` is ejected: {cause}",
            self.server.name
        );
        if self.server.health_check.is_none() {
            tokio::spawn(reconnect_until_restored(Weak::clone(&self.this), Arc::clone(address)));
        }
    }

    pub(super) fn restore(&self, address: &Arc<Address>) {
        if address.set_ejected(false) {
            let healthy = self.update_metrics();
            tracing::info!(
                server.address = self.server.origin(),
                network.peer.address = %address.at,
                healthy_addresses = healthy,
                "an address of server `{}` is restored",
                self.server.name
            );
        }
    }

    /// Updates the metrics of addresses; returns how many are healthy.
    pub fn update_metrics(&self) -> usize {
        let addresses = self.addresses.lock();
        let (all, healthy) =
            addresses.listed().fold((0_usize, 0_usize), |(all, healthy), address| {
                (all + 1, healthy + usize::from(!address.is_ejected()))
            });
        drop(addresses);
        self.metrics.addresses.set(i64::try_from(all).unwrap_or(i64::MAX));
        self.metrics.healthy_addresses.set(i64::try_from(healthy).unwrap_or(i64::MAX));
        healthy
    }

    async fn check(&self, address: &Arc<Address>, check: &HealthCheck) {
        let asked = timeout(check.timeout, self.probe(address, check)).await;
        let failed = match asked {
            Ok(Ok(200..=299)) => None,
            Ok(Ok(status)) => Some(format!("its health check has status {status}")),
            // It says nothing about the address.
            Ok(Err(None)) => {
                return self.telemetry.descriptors.exhausted(DescriptorUse::HealthCheck);
            }
            Ok(Err(Some(cause))) => Some(format!("its health check fails: {cause}")),
            Err(_) => Some(format!("its health check has no response within {:?}", check.timeout)),
        };
        let contrary_checks = address.checked(failed.is_none());
        match failed {
            Some(cause) if contrary_checks >= check.unhealthy_after => {
                self.eject(address, &cause, None);
            }
            None if contrary_checks >= check.healthy_after => self.restore(address),
            _ => {}
        }
    }

    /// The status of the response to a health check, which carries no token and nothing of a
    /// client. The error is `None` if no file descriptor is left to check with.
    async fn probe(&self, address: &Address, check: &HealthCheck) -> Result<u16, Option<String>> {
        let connection = self
            .connect_to(address.at)
            .await
            .map_err(|error| (!descriptors::are_exhausted(&error)).then(|| error.to_string()))?;
        let mut session = ClientSession::new(Box::new(connection));
        let (mut parts, ()) = http::Request::new(()).into_parts();
        parts.method = Method::GET;
        parts.uri = check.path.parse().map_err(|_| Some("its path is not valid".to_owned()))?;
        parts.version = Version::HTTP_11;
        parts.headers.clone_from(&self.server.headers);
        parts.headers.insert(HOST, self.authority.clone());
        parts.headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        parts.headers.insert(CONNECTION, HeaderValue::from_static("close"));
        session.write_head(Box::new(parts.into())).await.map_err(|error| check_error(&error))?;
        session.read_head().await.map_err(|error| check_error(&error))?;
        Ok(session.status().map_or(0, |status| status.as_u16()))
    }
}

fn check_error(error: &ResponseError) -> Option<String> {
    Some(match error {
        ResponseError::NotHttp(cause) => format!("it answers, but not in HTTP: {cause}"),
        other => other.to_string(),
    })
}

/// Checks all addresses at each interval until the pool is dropped.
pub(super) async fn check_always(upstream: Weak<Upstream>, check: HealthCheck) {
    loop {
        {
            let Some(upstream) = upstream.upgrade() else { return };
            // A failure is logged already.
            let _ = upstream.look_up().await;
            let listed: Vec<_> = upstream.addresses.lock().listed().cloned().collect();
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

/// Connects to an ejected address, with exponential backoff, until that succeeds.
async fn reconnect_until_restored(upstream: Weak<Upstream>, address: Arc<Address>) {
    let mut pause = MIN_RECONNECT_PAUSE;
    loop {
        sleep(jittered(pause)).await;
        let Some(upstream) = upstream.upgrade() else { return };
        // A request may have restored it in the meantime.
        let listed = upstream.addresses.lock().is_listed(&address);
        let Some(listed) = listed.filter(|_| address.is_ejected()) else { return };
        let limit = upstream.server.timeouts.connect;
        if listed && matches!(timeout(limit, upstream.connect_to(address.at)).await, Ok(Ok(_))) {
            return upstream.restore(&address);
        }
        pause = (pause * 2).min(MAX_RECONNECT_PAUSE);
    }
}

/// Ten percent more or less, so that many gateways do not check at the same time.
fn jittered(period: Duration) -> Duration {
    period.mul_f64(0.9 + fastrand::f64() / 5.0)
}

const AGENT: &str = concat!("boldgate/", env!("CARGO_PKG_VERSION"));
const MIN_RECONNECT_PAUSE: Duration = Duration::from_secs(1);
const MAX_RECONNECT_PAUSE: Duration = Duration::from_secs(60);
