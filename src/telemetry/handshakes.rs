//! TLS handshakes with clients that failed, by listener and reason.

use std::collections::HashSet;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use strum::{EnumCount, IntoStaticStr, VariantArray};

use super::LogLimiter;

/// Why a TLS handshake with a client failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumCount, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum HandshakeFailure {
    /// The listener demands a certificate, and the client sent none.
    NoCertificate,
    /// The client's certificate is of a CA that is not in `client_ca_file`.
    UnknownCa,
    /// The client's certificate has expired.
    Expired,
    /// The client's certificate is not valid yet.
    NotYetValid,
    /// The client's certificate is in a list of `client_crl_file`.
    Revoked,
    /// No list of `client_crl_file` is of the CA of the client's certificate.
    RevocationUnknown,
    /// The client's certificate has another fault.
    Certificate,
    /// The client ended the handshake with an alert, for example because it does not trust the
    /// certificate of the listener.
    ClientAlert,
    /// The client sent no TLS.
    NotTls,
    /// The client's TLS is malformed, or has no version or cipher suite in common with ours.
    Protocol,
    /// The handshake was not complete within `request_head_timeout`.
    Timeout,
    /// The client closed the connection.
    Closed,
    /// All unfinished handshakes and heads exceed `limits.unfinished_heads`.
    Evicted,
}

impl HandshakeFailure {
    /// The word for it in metrics and in the log.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// How often handshakes failed.
#[derive(Debug)]
pub struct Handshakes {
    failed: Family<FailureLabels, Counter>,
    /// The listeners that are exported.
    listeners: Mutex<HashSet<Box<str>>>,
    log_limiter: LogLimiter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailureLabels {
    listener: String,
    reason: &'static str,
}

impl FailureLabels {
    fn new(listener: &str, failure: HandshakeFailure) -> Self {
        Self { listener: listener.to_owned(), reason: failure.as_str() }
    }
}

impl Handshakes {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let failed: Family<FailureLabels, Counter> = Family::default();
        registry.register(
            "tls_handshakes_failed",
            "TLS handshakes with clients that failed, by listener and reason",
            failed.clone(),
        );
        Self { failed, listeners: Mutex::default(), log_limiter: LogLimiter::default() }
    }

    /// Exports these listeners, each with all reasons from 0 on, and no others. The number of
    /// label values is bounded, because they are those of the configuration.
    pub fn export(&self, listeners: &HashSet<&str>) {
        let mut exported = self.listeners.lock();
        for gone in exported.extract_if(|listener| !listeners.contains(&**listener)) {
            for &failure in HandshakeFailure::VARIANTS {
                self.failed.remove(&FailureLabels::new(&gone, failure));
            }
        }
        for &listener in listeners {
            exported.insert(listener.into());
            for &failure in HandshakeFailure::VARIANTS {
                drop(self.failed.get_or_create(&FailureLabels::new(listener, failure)));
            }
        }
    }

    /// Counts a failure at a listener. `Some` if it may be logged: see [`LogLimiter::allow`].
    pub fn failed(&self, listener: &str, failure: HandshakeFailure) -> Option<u64> {
        if self.listeners.lock().contains(listener) {
            self.failed.get_or_create(&FailureLabels::new(listener, failure)).inc();
        }
        self.log_limiter.allow(failure.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_exported_from_zero_until_it_is_removed() {
        let mut registry = Registry::default();
        let handshakes = Handshakes::register(&mut registry);
        let count = |text: &str| {
            let mut all = String::new();
            prometheus_client::encoding::text::encode(&mut all, &registry).unwrap();
            all.matches(text).count()
        };
        handshakes.export(&HashSet::from(["a:1", "b:2"]));
        assert_eq!(count("{listener=\"a:1\""), HandshakeFailure::COUNT);
        assert_eq!(handshakes.failed("a:1", HandshakeFailure::NotTls), Some(0));
        assert_eq!(handshakes.failed("b:2", HandshakeFailure::NotTls), None, "a line for both");
        assert_eq!(count("listener=\"a:1\",reason=\"not_tls\"} 1\n"), 1);
        handshakes.export(&HashSet::from(["b:2"]));
        handshakes.failed("a:1", HandshakeFailure::NotTls);
        assert_eq!(count("a:1"), 0, "a late failure does not bring it back");
        assert_eq!(count("listener=\"b:2\",reason=\"not_tls\"} 1\n"), 1);
    }
}
