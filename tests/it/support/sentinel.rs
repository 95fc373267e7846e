//! A real sentinel, which names the master of a store.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::redis::{RedisTls, free_port};

/// A sentinel that is killed when it is dropped.
pub struct Sentinel {
    process: Child,
    pub port: u16,
    client: Vec<String>,
}

impl Sentinel {
    /// A sentinel of `master`, of which so many must agree on a failover; with TLS alone if there
    /// is a certificate, and with `more` lines of its configuration.
    pub fn start(
        folder: &Path,
        master: SocketAddr,
        quorum: usize,
        tls: Option<&RedisTls>,
        more: &str,
    ) -> Self {
        let port = free_port();
        let file = folder.join(format!("sentinel-{port}.conf"));
        let ports = match tls {
            None => format!("port {port}"),
            Some(tls) => {
                let lines = tls.settings().map(|(key, value)| format!("{key} {value}")).join("\n");
                format!("port 0\ntls-port {port}\n{lines}")
            }
        };
        let text = format!(
            "{ports}\nbind 127.0.0.1\ndir {}\n\
             sentinel monitor mymaster 127.0.0.1 {} {quorum}\n\
             sentinel down-after-milliseconds mymaster 500\n\
             sentinel failover-timeout mymaster 3000\n{more}",
            folder.display(),
            master.port()
        );
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new("redis-sentinel");
        command.arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let client = tls.map_or_else(Vec::new, RedisTls::client);
        Self { process: command.spawn().unwrap(), port, client }
    }

    /// The output of `redis-cli` with these arguments.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let output = Command::new("redis-cli")
            .args(["-p", &self.port.to_string()])
            .args(&self.client)
            .args(arguments)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// The port of the master that it names.
    pub fn named(&self) -> Option<u16> {
        let said = self.cli(&["sentinel", "get-master-addr-by-name", "mymaster"]);
        said.lines().nth(1)?.parse().ok()
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
