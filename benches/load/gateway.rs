//! The gateway under load: `boldgate serve` as a process of its own, and what the system knows of
//! it.

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::listening::listening;
use crate::processors::Processors;
use crate::upstream::{SECRET, USER};

/// Where its access log goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum AccessLog {
    Nowhere,
    File,
}

/// A running gateway; dropping it ends it at once.
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    child: Child,
    folder: TempDir,
}

/// How to start one.
pub(crate) struct Start<'a> {
    pub(crate) program: &'a Path,
    pub(crate) upstream: SocketAddr,
    pub(crate) tenants: usize,
    pub(crate) access_log: AccessLog,
    /// Under valgrind, which counts instructions.
    pub(crate) counted: bool,
}

impl Gateway {
    pub(crate) fn start(
        start: &Start<'_>,
        processors: &Processors,
    ) -> Result<Self, Box<dyn Error>> {
        let folder = tempfile::Builder::new().prefix("boldgate-bench-").tempdir()?;
        fs::write(folder.path().join("secret"), SECRET)?;
        let config = folder.path().join("gateway.yaml");
        fs::write(&config, configuration(folder.path(), start))?;
        let mut command = if start.counted {
            let mut valgrind = Command::new("valgrind");
            let out = folder.path().join(COUNTS);
            valgrind.args(["--quiet", "--tool=callgrind", "--dump-instr=no"]);
            valgrind.arg(format!("--callgrind-out-file={}", out.display())).arg(start.program);
            valgrind
        } else {
            Command::new(start.program)
        };
        command.args(["--log-format", "json", "serve", "--config"]).arg(&config);
        command.stdin(Stdio::null()).stderr(Stdio::piped()).stdout(match start.access_log {
            AccessLog::Nowhere => Stdio::null(),
            AccessLog::File => Stdio::from(File::create(folder.path().join("access.log"))?),
        });
        let mut child = processors.give_gateway(|| command.spawn()).map_err(|error| {
            format!("cannot start {}: {error}", command.get_program().display())
        })?;
        let said = BufReader::new(child.stderr.take().ok_or("it has no stderr")?);
        let address = listening(said, crate::warn);
        // The guard is made first, so that the child is ended whatever happens next.
        let mut gateway = Self { address: SocketAddr::from(([0; 4], 0)), child, folder };
        gateway.address = address.recv_timeout(START)?;
        Ok(gateway)
    }

    /// Nanoseconds that its threads have spent on processors.
    pub(crate) fn cpu(&self) -> io::Result<u64> {
        let mut sum = 0;
        for task in fs::read_dir(self.proc("task"))? {
            // A thread may have ended since the list was read.
            let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
            sum += text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(sum)
    }

    /// KiB of memory that it has now, and that it had at most.
    pub(crate) fn memory(&self) -> io::Result<(u64, u64)> {
        let status = fs::read_to_string(self.proc("status"))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().strip_suffix(" kB")?.parse().ok()
        };
        let both = field("VmRSS:").zip(field("VmHWM:"));
        both.ok_or_else(|| io::Error::other("the system does not tell its memory"))
    }

    /// Ends it in order; the instructions that it has executed, if it was counted.
    pub(crate) fn stop(mut self) -> Result<Option<u64>, Box<dyn Error>> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        self.child.wait()?;
        let counts = fs::read_to_string(self.folder.path().join(COUNTS)).unwrap_or_default();
        let total = counts.lines().find_map(|line| line.strip_prefix("totals: "));
        Ok(total.map(str::parse).transpose()?)
    }

    fn proc(&self, file: &str) -> PathBuf {
        Path::new("/proc").join(self.child.id().to_string()).join(file)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // The process may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configuration(folder: &Path, start: &Start<'_>) -> String {
    let mut text = format!(
        "listeners: [ {{ address: 127.0.0.1:0, callers: anonymous, hosts: [bench] }} ]\n\
         admin: {{ address: 127.0.0.1:0 }}\n\
         servers: {{ main: {{ url: http://{}/bi }} }}\n\
         tenants:\n",
        start.upstream
    );
    let secret = folder.join("secret");
    for tenant in 0..start.tenants {
        text += &format!(
            "  t{tenant}: {{ server: main, site: t{tenant}, credential: {{ grant: embed_secret, \
             username: {USER}, user_source: local, embed_secret: {{ file: {} }} }} }}\n",
            secret.display()
        );
    }
    text
}

const COUNTS: &str = "callgrind.out";
/// Ample, also under valgrind.
const START: Duration = Duration::from_secs(60);
