//! Why the gateway cannot start or reload.

use std::io;

use super::socket;
use crate::config::{ListenAddress, Settings, SocketAccess};
use crate::descriptors::TooFew;
use crate::telemetry::LogSink;
use crate::trust::TrustError;

/// Why the gateway could not start or reload.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be bound.
    #[error("cannot listen on `{address}`: {cause}")]
    Bind {
        /// The address in the configuration.
        address: String,
        /// The error of the system.
        #[source]
        cause: io::Error,
    },
    /// A socket that systemd passes cannot be used.
    #[error("cannot listen on a socket that systemd passes: {0}")]
    Inherited(#[source] io::Error),
    /// The certificates for the trust in a server cannot be used.
    #[error("server `{server}`: {cause}")]
    Trust {
        /// The name of the server.
        server: String,
        /// The fault of the certificates.
        #[source]
        cause: TrustError,
    },
    /// The certificates for the trust in the collector of spans cannot be used.
    #[error("`traces`: {0}")]
    Collector(#[source] TrustError),
    /// There are too few file descriptors for the configuration.
    #[error(transparent)]
    Descriptors(#[from] TooFew),
    /// A log cannot be opened.
    #[error("cannot write the {log} to `{sink}` (`{key}`): {cause}")]
    Log {
        /// Its name.
        log: &'static str,
        /// The key of its destination.
        key: &'static str,
        /// The destination in the configuration.
        sink: LogSink,
        /// The error of the system.
        #[source]
        cause: io::Error,
    },
}

/// The errors of a start with `settings`, as far as they can be found without a change. A gateway
/// that runs with the same settings causes none.
pub fn start_errors(settings: &Settings) -> Vec<StartError> {
    let unbindable = |(address, access): (&ListenAddress, SocketAccess)| {
        let cause = socket::can_be_bound(address, access).err()?;
        Some(bind_error(address, cause))
    };
    let listeners = settings.listeners.iter().map(|listener| (&listener.address, listener.access));
    let sockets = listeners.chain([(&settings.admin.address, settings.admin.access)]);
    let mut found: Vec<_> = sockets.filter_map(unbindable).collect();
    let audit = settings.audit.as_ref().map(|sink| (AUDIT_LOG, sink));
    for ((log, key), sink) in [(ACCESS_LOG, &settings.access_log.to)].into_iter().chain(audit) {
        let failed = |cause| StartError::Log { log, key, sink: sink.clone(), cause };
        found.extend(sink.check().err().map(failed));
    }
    found
}

pub(super) fn bind_error(address: &ListenAddress, cause: io::Error) -> StartError {
    StartError::Bind { address: address.to_string(), cause }
}

/// Names of logs, and keys of their destinations.
pub(super) const ACCESS_LOG: (&str, &str) = ("access log", "access_log.to");
pub(super) const AUDIT_LOG: (&str, &str) = ("audit log", "audit.to");
