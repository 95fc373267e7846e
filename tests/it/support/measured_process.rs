//! The real binary as a process whose memory and end are measured from outside.

use std::net::SocketAddr;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::Instant;

use super::gateway::CANARY_SECRET;
use super::process::Process;
use crate::support::edit::Edit;

/// A running `boldgate serve`.
pub struct MeasuredProcess {
    serving: Process,
    pub address: SocketAddr,
    _files: tempfile::TempDir,
}

impl MeasuredProcess {
    /// Starts with this configuration, as `Gateway::start` does.
    pub fn serve(config: &str) -> Self {
        let files = tempfile::tempdir().unwrap();
        let secret = files.path().join("secret");
        std::fs::write(&secret, CANARY_SECRET).unwrap();
        let config = config.edit("SECRET_FILE", &secret.display().to_string());
        let file = files.path().join("boldgate.yaml");
        std::fs::write(&file, config).unwrap();
        let serving = Process::serve(file.to_str().unwrap());
        let address = serving.address();
        Self { serving, address, _files: files }
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        self.serving.stderr(|_| true)
    }

    /// The most memory it ever held, in KiB.
    pub fn peak_memory(&self) -> u64 {
        self.status("VmHWM:")
    }

    /// The memory it holds, in KiB.
    pub fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    fn status(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.serving.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Sends it SIGTERM.
    pub fn terminate(&self) {
        self.serving.signal(Signal::TERM);
    }

    /// How it ended, if it does within this time.
    pub async fn ended_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        let begun = Instant::now();
        while begun.elapsed() < limit {
            if let Some(status) = self.serving.ended() {
                return Some(status);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        None
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
pub fn megabytes(kibibytes: u64) -> f64 {
    kibibytes as f64 / 1024.0
}
