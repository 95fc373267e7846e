//! The real binary as a process of its own.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};
use serde_json::Value;
use tokio::time::Instant;

/// The binary with these arguments and an empty environment.
pub fn boldgate(arguments: &[&str]) -> Command {
    program(env!("CARGO_BIN_EXE_boldgate").as_ref(), arguments)
}

/// Another binary, alike.
pub fn program(path: &OsStr, arguments: &[&str]) -> Command {
    let mut command = Command::new(path);
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub fn run(arguments: &[&str]) -> Ended {
    Process::start(boldgate(arguments)).end()
}

/// A process that has ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A process that runs. It is killed when it is dropped.
pub struct Process {
    child: Child,
    stdout: Gathered,
    stderr: Gathered,
}

impl Process {
    pub fn start(command: Command) -> Self {
        Self::start_with(command, Stdio::null())
    }

    /// The same with this as its standard input.
    pub fn start_with(mut command: Command, stdin: Stdio) -> Self {
        let mut child =
            command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = Gathered::from(child.stdout.take().unwrap());
        let stderr = Gathered::from(child.stderr.take().unwrap());
        Self { child, stdout, stderr }
    }

    /// `boldgate serve` with this configuration, once it is ready.
    pub fn serve(config: &str) -> Self {
        let process = Self::start(boldgate(&["serve", "--config", config]));
        process.stderr(|text| text.contains("boldgate is ready"));
        process
    }

    /// Waits until its stdout is `enough`, and returns it.
    pub fn stdout(&self, enough: impl Fn(&str) -> bool) -> String {
        self.stdout.wait(enough)
    }

    /// Waits until its stderr is `enough`, and returns it.
    pub fn stderr(&self, enough: impl Fn(&str) -> bool) -> String {
        self.stderr.wait(enough)
    }

    /// The lines of its log so far, which are JSON.
    pub fn log(&self) -> Vec<Value> {
        let text = self.stderr(|_| true);
        // The last line may be half written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }

    /// Waits until it logs that it is ready. Returns the addresses of its listeners and of its
    /// admin listener.
    pub fn ready(&self) -> (Vec<String>, SocketAddr) {
        self.stderr(|text| text.contains("boldgate is ready"));
        let log = self.log();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let listening = log.iter().filter(|line| line["message"] == "listening");
        let addresses = listening.map(|line| text(&line["address"])).collect();
        let ready = log.iter().find(|line| line["message"] == "boldgate is ready").unwrap();
        (addresses, text(&ready["admin"]).parse().unwrap())
    }

    /// The address of its first listener.
    pub fn address(&self) -> SocketAddr {
        self.stderr(|text| text.contains("boldgate is ready"));
        let log = self.log();
        let listening = log.iter().find(|line| line["message"] == "listening").unwrap();
        listening["address"].as_str().unwrap().parse().unwrap()
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its exit status. `None` while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// The file descriptors that it has open. It must be allowed to dump core.
    pub fn open_descriptors(&self) -> BTreeSet<usize> {
        let all = std::fs::read_dir(format!("/proc/{}/fd", self.id())).unwrap();
        all.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect()
    }

    /// Limits its file descriptors so that it can open so many more. The limit is above the number
    /// of the highest one.
    pub fn leave_descriptors(&self, more: usize) {
        let mut open = self.open_descriptors();
        // After the start it reads its files once more.
        loop {
            std::thread::sleep(Duration::from_millis(100));
            let now = self.open_descriptors();
            if now == open {
                break;
            }
            open = now;
        }
        let last = (0..).filter(|number| !open.contains(number)).nth(more - 1);
        self.limit_descriptors(last.unwrap() + 1);
    }

    /// Limits its file descriptors from now on.
    pub fn limit_descriptors(&self, limit: usize) {
        let pid = Some(Pid::from_child(&self.child));
        // The process has the hard limit of the test.
        let maximum = getrlimit(Resource::Nofile).maximum;
        let limit = Rlimit { current: Some(limit as u64), maximum };
        prlimit(pid, Resource::Nofile, limit).unwrap();
    }

    /// Waits until it ends by itself.
    pub fn end(mut self) -> Ended {
        let begun = Instant::now();
        let code = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status.code();
            }
            assert!(begun.elapsed() < PATIENCE, "the process does not end");
            std::thread::sleep(Duration::from_millis(5));
        };
        Ended { code, stdout: self.stdout.whole(), stderr: self.stderr.whole() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The process has ended already, unless a test has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The text that has come through a pipe.
struct Gathered {
    text: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Gathered {
    fn from(pipe: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let theirs = Arc::clone(&text);
        let reader = std::thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while pipe.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                theirs.lock().unwrap().push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        });
        Self { text, reader: Some(reader) }
    }

    fn wait(&self, enough: impl Fn(&str) -> bool) -> String {
        let begun = Instant::now();
        loop {
            let text = self.text.lock().unwrap().clone();
            if enough(&text) {
                return text;
            }
            assert!(begun.elapsed() < PATIENCE, "still waiting; so far there is only:\n{text}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn whole(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        self.text.lock().unwrap().clone()
    }
}

const PATIENCE: Duration = Duration::from_secs(30);
