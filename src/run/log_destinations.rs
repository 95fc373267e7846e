//! Where the access log and the audit log go.

use super::generation::ProcessState;
use super::start_error::{ACCESS_LOG, AUDIT_LOG, StartError};
use crate::config::Settings;
use crate::telemetry::{AccessLogSettings, LogSink};

/// Where logs go, by a configuration.
pub(super) struct LogDestinations {
    access_log: AccessLogSettings,
    audit: Option<LogSink>,
}

impl LogDestinations {
    pub(super) fn of(settings: &Settings) -> Self {
        Self { access_log: settings.access_log.clone(), audit: settings.audit.clone() }
    }

    /// Writes the logs there from now on; both, or none.
    pub(super) fn open(&self, state: &ProcessState) -> Result<(), StartError> {
        let failed = |(log, key), sink: Option<&LogSink>, cause| StartError::Log {
            log,
            key,
            sink: sink.expect("only a log that is configured fails to open").clone(),
            cause,
        };
        let access_log = state.access_log.open(&self.access_log);
        let access_log =
            access_log.map_err(|cause| failed(ACCESS_LOG, Some(&self.access_log.to), cause))?;
        let audit = state.telemetry.audit.send_to(self.audit.as_ref());
        let audit = audit.map_err(|cause| failed(AUDIT_LOG, self.audit.as_ref(), cause))?;
        let access_log = state.access_log.activate(access_log);
        // Former logs write their last lines in a thread, or here if none can be started.
        if audit.is_some() || access_log.is_some() {
            let _ = std::thread::Builder::new().spawn(move || drop((audit, access_log)));
        }
        Ok(())
    }
}
