//! The gateway: `boldgate serve` as a process of its own.

use std::fs;
use std::io::{BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::Failure;
use crate::listening::listening;
use crate::population::ADMIN;

/// A running gateway; dropping it ends it at once.
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    pub(crate) warnings: Arc<AtomicU64>,
    child: Child,
    folder: TempDir,
}

impl Gateway {
    /// Starts it in a folder with these files, with what `configuration` makes of its path.
    pub(crate) fn start(
        program: &Path,
        files: Vec<(String, String)>,
        configuration: impl FnOnce(&Path) -> String,
    ) -> Result<Self, Failure> {
        let folder = tempfile::Builder::new().prefix("boldgate-soak-").tempdir()?;
        for (name, text) in files {
            fs::write(folder.path().join(name), text)?;
        }
        let path = folder.path().join(FILE);
        fs::write(&path, configuration(folder.path()))?;
        let mut child = Command::new(program)
            .args(["--log-format", "json", "serve", "--config"])
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", program.display()))?;
        let said = BufReader::new(child.stderr.take().ok_or("it has no stderr")?);
        let warnings = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&warnings);
        let address = listening(said, move |_| {
            count.fetch_add(1, Relaxed);
        });
        // The guard is made first, so that the child is ended whatever happens next.
        let address_later = SocketAddr::from(([0; 4], 0));
        let mut gateway = Self { address: address_later, warnings, child, folder };
        gateway.address = address.recv_timeout(START_TIMEOUT)?;
        Ok(gateway)
    }

    /// Where its files are.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Puts another file in the place of its configuration.
    pub(crate) fn configure(&self, text: &str) -> Result<(), Failure> {
        self.replace(FILE, text)
    }

    /// Puts another file in the place of this one, in one moment.
    pub(crate) fn replace(&self, name: &str, text: &str) -> Result<(), Failure> {
        let next = self.folder.path().join("next");
        fs::write(&next, text)?;
        Ok(fs::rename(next, self.folder.path().join(name))?)
    }

    /// Sends it SIGHUP.
    pub(crate) fn reload(&self) -> Result<(), Failure> {
        Ok(kill_process(Pid::from_child(&self.child), Signal::HUP)?)
    }

    /// MiB of memory that it has now (`VmRSS`).
    pub(crate) fn memory(&self) -> Result<u64, Failure> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        let kib: u64 = kib.ok_or("the system does not tell its memory")?.parse()?;
        Ok(kib / 1024)
    }

    /// How many tokens it has taken from its store.
    pub(crate) fn taken_from_store(&self) -> Result<u64, Failure> {
        let mut admin = UnixStream::connect(self.folder.path().join(ADMIN))?;
        admin.set_read_timeout(Some(START_TIMEOUT))?;
        admin.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut page = String::new();
        admin.read_to_string(&mut page)?;
        let hits = page.lines().find_map(|line| line.strip_prefix(HITS));
        Ok(hits.ok_or("its metrics have no series of the store")?.trim().parse()?)
    }

    /// Ends it in order, which it must do.
    pub(crate) fn stop(mut self) -> Result<(), Failure> {
        if let Some(status) = self.child.try_wait()? {
            return Err(format!("the gateway has ended by itself: {status}").into());
        }
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("it ended with {status}").into()) }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // The process may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const HITS: &str = "boldgate_token_store_requests_total{outcome=\"hit\"}";
const FILE: &str = "gateway.yaml";
const START_TIMEOUT: Duration = Duration::from_secs(30);
