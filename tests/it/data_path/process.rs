//! The real binary as a process of its own: what only shows from outside is measured here.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::running::CANARY_SECRET;

/// A running `boldgate serve`. It is killed when the test ends before it does.
pub(super) struct Process {
    child: Child,
    pub(super) address: SocketAddr,
    log: Arc<Mutex<String>>,
    _files: tempfile::TempDir,
}

impl Process {
    /// Starts with this configuration, as `Gateway::start` in `running` does.
    pub(super) fn serve(config: &str) -> Self {
        let files = tempfile::tempdir().unwrap();
        let secret = files.path().join("secret");
        std::fs::write(&secret, CANARY_SECRET).unwrap();
        let config = config.replace("SECRET_FILE", &secret.display().to_string());
        let file = files.path().join("boldgate.yaml");
        std::fs::write(&file, config).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_boldgate"))
            .args(["--log-format", "json", "serve", "--config"])
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = Arc::new(Mutex::new(String::new()));
        let mut address = None;
        for line in lines.by_ref() {
            let line = line.unwrap();
            let entry: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            log.lock().unwrap().push_str(&(line + "\n"));
            if let Some(told) = find(&entry, "address")
                && address.is_none()
            {
                address = told.parse().ok();
            }
            if find(&entry, "message").is_some_and(|m| m.contains("is ready")) {
                break;
            }
        }
        let rest = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                rest.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        let address =
            address.unwrap_or_else(|| panic!("it did not start: {}", log.lock().unwrap()));
        Self { child, address, log, _files: files }
    }

    /// What it has logged.
    pub(super) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// The same while it grows.
    pub(super) fn log_handle(&self) -> Arc<Mutex<String>> {
        Arc::clone(&self.log)
    }

    /// The most memory it ever held, in KiB.
    pub(super) fn peak_memory(&self) -> u64 {
        self.status("VmHWM:")
    }

    /// The memory it holds, in KiB.
    pub(super) fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    fn status(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Sends it SIGTERM.
    pub(super) fn terminate(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    /// How it ended, if it does within this time.
    pub(super) async fn ended_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        let begun = Instant::now();
        while begun.elapsed() < limit {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(status);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        None
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A field of a log line, wherever it stands.
fn find<'v>(entry: &'v serde_json::Value, name: &str) -> Option<&'v str> {
    let object = entry.as_object()?;
    object
        .get(name)
        .and_then(|v| v.as_str())
        .or_else(|| object.values().find_map(|v| find(v, name)))
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
pub(super) fn megabytes(kibibytes: u64) -> f64 {
    kibibytes as f64 / 1024.0
}
