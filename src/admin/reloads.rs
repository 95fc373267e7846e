//! The way from the action `reload` to the task that reloads, and back.

use parking_lot::Mutex;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

/// Takes requests to reload. They wait in a queue of one, so that reloads come one after another.
#[derive(Debug, Default)]
pub struct ReloadPort(Mutex<Option<mpsc::Sender<ReloadRequest>>>);

/// A request to reload, from the admin API.
#[derive(Debug)]
pub struct ReloadRequest {
    /// The requester, who may have gone.
    pub reply: oneshot::Sender<ReloadReport>,
}

/// The result of a reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReloadReport {
    /// The changed configuration is active.
    Applied {
        /// Its number.
        generation: u64,
        /// Keys whose new values need a restart.
        needs_restart: Vec<&'static str>,
        /// Its warnings.
        warnings: Vec<String>,
    },
    /// The files hold the active configuration.
    Unchanged,
    /// The configuration is refused: the active one stays.
    Refused {
        /// Its faults, in one line.
        findings: String,
    },
    /// A file cannot be read at the moment: the active configuration stays.
    Unreadable {
        /// The file and the error.
        error: String,
        /// The remedy.
        hint: &'static str,
    },
}

/// Why no reload was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoReload {
    /// Others wait already.
    Busy,
    /// No task reloads: the gateway starts or stops.
    Away,
}

impl ReloadPort {
    /// The requests from now on, for the task that reloads.
    pub fn open(&self) -> mpsc::Receiver<ReloadRequest> {
        let (sender, requests) = mpsc::channel(1);
        *self.0.lock() = Some(sender);
        requests
    }

    /// Requests a reload. The receiver gets its report; it fails if the gateway stops before.
    pub(super) fn request(&self) -> Result<oneshot::Receiver<ReloadReport>, NoReload> {
        let (reply, report) = oneshot::channel();
        let sender = self.0.lock().clone().ok_or(NoReload::Away)?;
        match sender.try_send(ReloadRequest { reply }) {
            Ok(()) => Ok(report),
            Err(TrySendError::Full(_)) => Err(NoReload::Busy),
            Err(TrySendError::Closed(_)) => Err(NoReload::Away),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_reload_waits_behind_another_and_more_are_refused() {
        let port = ReloadPort::default();
        assert_eq!(port.request().unwrap_err(), NoReload::Away, "no task reloads yet");
        let mut requests = port.open();
        let first = port.request().unwrap();
        assert_eq!(port.request().unwrap_err(), NoReload::Busy);
        let under_way = requests.recv().await.unwrap();
        let second = port.request().unwrap();
        under_way.reply.send(ReloadReport::Unchanged).unwrap();
        assert_eq!(first.await, Ok(ReloadReport::Unchanged));
        drop(requests);
        assert!(second.await.is_err(), "the gateway stops");
        assert_eq!(port.request().unwrap_err(), NoReload::Away);
    }
}
