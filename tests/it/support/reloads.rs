//! Requests to a gateway that is reloaded, and its log and metrics about the changes.

use std::net::SocketAddr;
use std::time::Duration;

use boldgate::boldbi::UserSource;
use boldgate::boldbi::stand_in::StandIn;

use super::client::{Client, Response};
use super::process::Process;
use super::stand_in::{site, stand_in};
use super::waiting::becomes;

/// The alarm about a secret that cannot be used, of a tenant that had it before.
pub const KEPT: &str =
    "the secret of a tenant cannot be used: it goes on with the secret that it had";
/// A path of tenant `acme`, and one of tenant `bolt`.
pub const ACME: &str = "/bi/api/site/site1/v5.0/items";
pub const BOLT: &str = "/bi/api/site/site2/v5.0/items";
/// A change takes effect within this time.
pub const CHANGE_DEADLINE: Duration = Duration::from_secs(1);
/// Waits that are not the subject of a test end after this time.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A stand-in with two sites of the same embed secret.
pub async fn two_sites() -> StandIn {
    let users = [("reports@example.com", UserSource::Local)];
    stand_in(vec![site(Some("site1"), &users), site(Some("site2"), &users)]).await
}

pub async fn get(address: SocketAddr, path: &str) -> Response {
    let mut client = Client::connect(address).await;
    client.write(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await;
    client.response().await
}

/// Asks until a response has this status. Returns how long that took.
pub async fn until_status(address: SocketAddr, path: &str, status: u16) -> Duration {
    let what = format!("{path} becomes {status}");
    becomes(PATIENCE, &what, async || get(address, path).await.status == status).await
}

/// The value of a metric, which must be there. Its name includes its labels, if it has any.
pub async fn metric(admin: SocketAddr, name: &str) -> u64 {
    let text = get(admin, "/metrics").await.text();
    value(&text, name).unwrap_or_else(|| panic!("no {name} in\n{text}"))
}

/// The same of a series that may not have begun: that of a tenant begins with its first event.
pub async fn metric_if_any(admin: SocketAddr, name: &str) -> Option<u64> {
    value(&get(admin, "/metrics").await.text(), name)
}

fn value(page: &str, name: &str) -> Option<u64> {
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    Some(line.parse().expect("a whole number"))
}

/// Waits for a line of the log with this message. Metrics change before the line is written.
pub async fn log_line(process: &Process, message: &str) -> serde_json::Value {
    becomes(PATIENCE, message, async || !log_lines(process, message).is_empty()).await;
    log_lines(process, message).remove(0)
}

/// Lines of the log with this message.
pub fn log_lines(process: &Process, message: &str) -> Vec<serde_json::Value> {
    process.log().into_iter().filter(|line| line["message"] == message).collect()
}
