//! A gateway with the admin API, and requests to it.

use std::path::PathBuf;

use boldgate::boldbi::UserSource;
use boldgate::boldbi::stand_in::StandIn;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::support::audit::audit_lines;
use crate::support::client::{Client, Response};
use crate::support::edit::Edit;
use crate::support::files;
use crate::support::gateway::{CANARY_SECRET, Gateway, anonymous};
use crate::support::stand_in::{site, stand_in};

pub const TOKEN: &str = "canary-admin-token-0123";
pub const WITH_TOKEN: &str = "Authorization: Bearer canary-admin-token-0123\r\n";
/// A path of the tenant `acme` that is served with its token.
pub const ACME: &str = "/bi/api/site/site1/v5.0/echo";

/// A gateway whose admin listener has the API, and an audit log, before a stand-in.
pub struct Setup {
    pub stand_in: StandIn,
    pub gateway: Gateway,
    pub folder: tempfile::TempDir,
}

impl Setup {
    /// The admin section has these keys after its address at loopback.
    pub async fn new(keys: &str) -> Self {
        Self::at("127.0.0.1:0", keys).await
    }

    /// The same at this address. `DIR` is the folder of the test; the token is in `DIR/token`.
    pub async fn at(address: &str, keys: &str) -> Self {
        let mut acme = site(Some("site1"), &[("reports@acme.example", UserSource::AzureAd)]);
        acme.embed_secret = CANARY_SECRET.into();
        let stand_in = stand_in(vec![acme]).await;
        let folder = tempfile::tempdir().unwrap();
        files::write(&folder, "token", &format!("{TOKEN}\n"));
        let admin =
            format!("admin: {{ address: \"{address}\"{keys} }}\naudit: {{ to: DIR/audit }}");
        let config = anonymous(stand_in.addr())
            .edit("admin: { address: \"127.0.0.1:0\" }", &admin)
            .edit_all("DIR", &folder.path().display().to_string());
        let gateway = Gateway::start(&config);
        Self { stand_in, gateway, folder }
    }

    /// With actions, the status API and the token.
    pub async fn acting() -> Self {
        Self::new(ACTING).await
    }

    pub async fn connect(&self) -> Client {
        let mut address = self.gateway.running.admin_address();
        if address.ip().is_unspecified() {
            address.set_ip([127, 0, 0, 1].into());
        }
        Client::connect(address).await
    }

    /// A request for an action with the token, of a client that is no browser.
    pub async fn act(&self, action: &str, body: &str) -> Response {
        act(&mut self.connect().await, action, body, WITH_TOKEN).await
    }

    /// Sends these bytes, and reads one response.
    pub async fn send(&self, request: &str) -> Response {
        let mut client = self.connect().await;
        client.write(request.as_bytes()).await;
        client.response().await
    }

    pub fn audit_path(&self) -> PathBuf {
        self.folder.path().join("audit")
    }

    /// The audit lines of this event, once there are `count`; more are a fault.
    pub async fn audit(&self, event: &str, count: usize) -> Vec<Value> {
        audit_lines(&self.audit_path(), event, count).await
    }

    /// Whether the tenant is served, by which a test shows that nothing was done to it.
    pub async fn serves(&self) -> bool {
        self.gateway.get(ACME).await.status == 200
    }
}

pub const ACTING: &str = ", status: true, actions: true, token_file: DIR/token";

/// A request for an action with these header lines.
pub fn action_request(action: &str, body: &str, lines: &str) -> String {
    format!(
        "POST /api/v1/actions/{action} HTTP/1.1\r\nHost: localhost\r\n\
         Content-Type: application/json\r\nX-Boldgate-Action: {action}\r\n{lines}\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Sends a request for an action with these header lines.
pub async fn act<S: AsyncRead + AsyncWrite + Unpin>(
    client: &mut Client<S>,
    action: &str,
    body: &str,
    lines: &str,
) -> Response {
    client.write(action_request(action, body, lines).as_bytes()).await;
    client.response().await
}

/// The reply to an action, which has this status.
pub fn reply(response: &Response, status: u16) -> Value {
    assert_eq!(response.status, status, "{}", response.text());
    assert_eq!(response.header("content-type"), ["application/json"]);
    assert_eq!(response.header("cache-control"), ["no-store"]);
    assert!(!response.text().contains(TOKEN) && !response.text().contains(CANARY_SECRET));
    let reply: Value = serde_json::from_slice(&response.body).unwrap();
    let outcome = if status == 200 { "success" } else { "failure" };
    assert_eq!(reply["outcome"], outcome, "{reply}");
    let texts = if status == 200 { &["message"][..] } else { &["error", "hint"] };
    assert!(texts.iter().all(|key| reply[*key].as_str().is_some_and(|t| t.len() > 5)), "{reply}");
    reply
}
