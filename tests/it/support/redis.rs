//! A real redis-server, in a folder of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use super::tls::SelfSigned;
use super::upstream::free_address;

/// A server that is killed when it is dropped.
pub struct Redis {
    program: String,
    process: Child,
    port: u16,
    arguments: Vec<String>,
    folder: tempfile::TempDir,
    client: Vec<String>,
}

/// A port that nobody else takes.
pub fn free_port() -> u16 {
    free_address().port()
}

impl Redis {
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// A server with more arguments.
    pub fn with(arguments: &[&str]) -> Self {
        Self::at(free_port(), arguments)
    }

    /// A server at `port`.
    pub fn at(port: u16, arguments: &[&str]) -> Self {
        Self::of("redis-server", port, arguments)
    }

    /// A server of this program.
    pub fn of(program: &str, port: u16, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let arguments: Vec<_> = arguments.iter().map(|text| (*text).to_owned()).collect();
        let process = spawn(program, port, folder.path(), &arguments);
        let password = arguments.iter().position(|text| text == "--requirepass");
        let client = match password {
            Some(index) => {
                vec!["--no-auth-warning".into(), "-a".into(), arguments[index + 1].clone()]
            }
            None => Vec::new(),
        };
        let program = program.to_owned();
        let redis = Self { program, process, port, arguments, folder, client };
        redis.wait();
        redis
    }

    /// A server with TLS alone, also towards other servers.
    pub fn with_tls(tls: &RedisTls, arguments: &[&str]) -> Self {
        let port = free_port();
        let settings = tls.settings().map(|(key, value)| [format!("--{key}"), value]).concat();
        let mut all = vec!["--port".to_owned(), "0".into(), "--tls-port".into(), port.to_string()];
        all.extend(settings);
        let all: Vec<_> = all.iter().map(String::as_str).chain(arguments.iter().copied()).collect();
        let mut redis = Self::at(port, &all);
        redis.client.extend(tls.client());
        redis
    }

    fn wait(&self) {
        let begun = Instant::now();
        while std::net::TcpStream::connect(self.address()).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(10), "the server accepts within 10 s");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// The output of `redis-cli` with these arguments.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let output = Command::new("redis-cli")
            .args(["-p", &self.port.to_string()])
            .args(&self.client)
            .args(arguments)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// The names of all values.
    pub fn keys(&self, pattern: &str) -> Vec<String> {
        self.cli(&["--raw", "KEYS", pattern]).lines().map(Into::into).collect()
    }

    /// How many commands of this name it has run.
    pub fn calls(&self, command: &str) -> u64 {
        let stats = self.cli(&["INFO", "commandstats"]);
        let start = format!("cmdstat_{command}:calls=");
        let line = stats.lines().find_map(|line| line.strip_prefix(&start));
        line.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    pub fn kill(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// The same server again, without what it held.
    pub fn restart(&mut self) {
        self.kill();
        self.process = spawn(&self.program, self.port, self.folder.path(), &self.arguments);
        self.wait();
    }
}

/// A certificate of `localhost` and 127.0.0.1 that all have and trust, servers and clients.
pub struct RedisTls {
    pub certificate: String,
    pub key: String,
    _folder: tempfile::TempDir,
}

impl RedisTls {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pair = SelfSigned::for_names(&["localhost", "127.0.0.1"]);
        let file = |name: &str, text: &str| super::files::write(&folder, name, text);
        let (certificate, key) = (file("tls.crt", &pair.pem()), file("tls.key", &pair.key_pem()));
        Self { certificate, key, _folder: folder }
    }

    /// The settings of a server.
    pub fn settings(&self) -> [(&'static str, String); 6] {
        [
            ("tls-cert-file", self.certificate.clone()),
            ("tls-key-file", self.key.clone()),
            ("tls-ca-cert-file", self.certificate.clone()),
            ("tls-auth-clients", "yes".into()),
            ("tls-replication", "yes".into()),
            ("tls-cluster", "yes".into()),
        ]
    }

    /// The arguments of `redis-cli`.
    pub fn client(&self) -> Vec<String> {
        let (certificate, key) = (self.certificate.as_str(), self.key.as_str());
        let all = ["--tls", "--cacert", certificate, "--cert", certificate, "--key", key];
        all.map(str::to_owned).to_vec()
    }

    /// The keys of a store in the configuration.
    pub fn keys(&self) -> String {
        let (certificate, key) = (&self.certificate, &self.key);
        format!(
            ", ca_file: {certificate}, client_certificate_file: {certificate}, client_key_file: {key}"
        )
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(program: &str, port: u16, folder: &Path, arguments: &[String]) -> Child {
    Command::new(program)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
        .args(["--appendonly", "no", "--dir", &folder.display().to_string()])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("`redis-server` is installed: `make check` installs it")
}
