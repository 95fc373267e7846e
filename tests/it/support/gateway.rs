//! A gateway in this process, and the configuration that most tests of it use.

use std::fmt::Display;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use boldgate::boldbi::BoldBi;
use boldgate::config::{ListenAddress, Settings};
use boldgate::run::{Running, StartError};
use boldgate::telemetry::{AccessLog, Format, Telemetry};
use tokio::time::timeout;

use super::client::{Client, Response};
use crate::support::edit::Edit;

/// The secret in every configuration made here. It must show nowhere.
pub const CANARY_SECRET: &str = "canary-embed-secret-0123456789";
/// Writes all that the gateway can log, as `serve --log-level trace` does, to the output of the
/// tests, which `make leaks` searches for canaries.
pub fn log_everything() {
    use tracing_subscriber::filter::{LevelFilter, Targets};
    use tracing_subscriber::layer::SubscriberExt;
    let all =
        Targets::new().with_default(LevelFilter::WARN).with_target("boldgate", LevelFilter::TRACE);
    let lines = tracing_subscriber::fmt::layer().with_test_writer();
    // Every test calls this; the first call sets it up for all.
    let _ = tracing::subscriber::set_global_default(
        tracing_subscriber::registry().with(all).with(lines),
    );
}

/// A gateway in this process, with everything it logs.
pub struct Gateway {
    pub running: Running,
    pub telemetry: Arc<Telemetry>,
    pub access: Arc<Mutex<Vec<u8>>>,
    _files: tempfile::TempDir,
}

/// The hosts that the clients of tests ask for, beside those of this machine.
pub const HOSTS: &str = ", hosts: [a, gw, canary-host, public.example]";

/// A path of tenant `acme`.
pub const PATH: &str = "/bi/api/site/site1/v5.0/items";

/// A configuration for one tenant `acme` at site `site1`, open to anybody on loopback.
pub fn anonymous(upstream: SocketAddr) -> String {
    config(upstream, "")
}

/// The same with more lines in the tenant, indented by four spaces.
pub fn config(upstream: SocketAddr, tenant: &str) -> String {
    format!(
        "listeners:\n  - {{ address: \"127.0.0.1:0\", callers: anonymous{HOSTS} }}\n\
         admin: {{ address: \"127.0.0.1:0\" }}\n\
         servers:\n  main: {{ url: \"http://{upstream}/bi\" }}\n\
         tenants:\n  acme:\n    server: main\n    site: site1\n{tenant}    credential:\n      \
         grant: embed_secret\n      username: reports@acme.example\n      \
         embed_secret: {{ file: SECRET_FILE }}\n      user_source: azure_ad\n"
    )
}

/// The configuration with its listener at this address instead of a free port.
pub fn listening_at(address: impl Display, config: &str) -> String {
    config.edit("\"127.0.0.1:0\", callers", &format!("\"{address}\", callers"))
}

impl Gateway {
    /// Starts with this configuration; `SECRET_FILE` in it is the path of a file that holds
    /// [`CANARY_SECRET`].
    pub fn start(config: &str) -> Self {
        Self::try_start(config).unwrap()
    }

    /// The same, where it may fail.
    pub fn try_start(config: &str) -> Result<Self, StartError> {
        log_everything();
        let files = tempfile::tempdir().unwrap();
        let secret = files.path().join("secret");
        std::fs::write(&secret, CANARY_SECRET).unwrap();
        let config = config.edit_any("SECRET_FILE", &secret.display().to_string());
        let settings = match Settings::parse(&config, "test.yaml") {
            Ok(settings) => settings,
            Err(findings) => panic!("{findings}\n{config}"),
        };
        let telemetry = Arc::new(Telemetry::default());
        let access = Arc::new(Mutex::new(Vec::new()));
        let lines = Sink(Arc::clone(&access));
        let log =
            AccessLog::new(Format::Json, Box::new(lines), telemetry.access_lines_dropped.clone())
                .unwrap();
        let exchange = BoldBi::new(settings.servers.iter()).unwrap();
        let running = Running::start(settings, Arc::new(exchange), Arc::clone(&telemetry), log)?;
        Ok(Self { running, telemetry, access, _files: files })
    }

    /// Address of the first listener.
    pub fn address(&self) -> SocketAddr {
        match self.running.addresses().first() {
            Some(ListenAddress::Tcp(address)) => *address,
            other => panic!("the first listener is no TCP port: {other:?}"),
        }
    }

    /// The access lines as soon as there are `count` of them.
    pub async fn access_lines(&self, count: usize) -> Vec<serde_json::Value> {
        let waited = timeout(Duration::from_secs(5), async {
            loop {
                let text = String::from_utf8(self.access.lock().unwrap().clone()).unwrap();
                if text.lines().count() >= count {
                    return text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        waited.await.expect("the access lines come within 5 s")
    }

    /// Stops, and gives all that was written to the access log on standard output.
    pub async fn stop(self) -> String {
        assert!(self.running.stop().await, "all requests have finished");
        String::from_utf8(std::mem::take(&mut *self.access.lock().unwrap())).unwrap()
    }

    /// Sends raw bytes on a connection of their own and reads one response.
    pub async fn send(&self, bytes: impl AsRef<[u8]>) -> Response {
        let mut client = Client::connect(self.address()).await;
        client.write(bytes.as_ref()).await;
        client.response().await
    }

    /// A GET of `path`, whose host is `localhost`.
    pub async fn get(&self, path: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await
    }
}

/// A GET of the class `read` of tenant `acme`, with these header lines, each with its line end.
pub async fn get(gateway: &Gateway, lines: &str) -> Response {
    let path = "/bi/api/site/site1/v5.0/dashboards";
    gateway.send(format!("GET {path} HTTP/1.1\r\nHost: gw\r\n{lines}\r\n")).await
}

struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
