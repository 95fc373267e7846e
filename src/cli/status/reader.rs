//! Reads the status API at the address of the admin listener.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use rustls::ClientConfig;
use serde_json::{Value, json};
use tokio::time::timeout;
use url::form_urlencoded::Serializer;
use zeroize::Zeroizing;

use crate::cli::Failure;
use crate::cli::admin_reader::{AdminReader, explained};
use crate::config::ListenAddress;
use crate::fetch::FetchError;
use crate::secret::Secret;

pub(super) struct StatusReader(AdminReader);

impl StatusReader {
    pub(super) fn new(address: ListenAddress, token: Option<Secret>) -> Self {
        Self(AdminReader::new(address, token))
    }

    /// The same over TLS with these settings.
    pub(super) fn over_tls(self, tls: Arc<ClientConfig>) -> Self {
        Self(self.0.over_tls(tls))
    }

    /// The same with this token.
    pub(super) fn with_token(self, token: Secret) -> Self {
        Self(self.0.with_token(token))
    }

    /// Whether it is an admin listener that gives nothing without a token.
    pub(super) async fn asks_for_token(&self) -> Result<bool, Failure> {
        let (status, body) = self.ask("status").await?;
        Ok(status == StatusCode::UNAUTHORIZED && is_refusal(&body))
    }

    /// The address, for messages.
    pub(super) fn shown(&self) -> String {
        self.0.address().to_string()
    }

    /// The document `name` of the API.
    pub(super) async fn read(&self, name: &str) -> Result<Value, Failure> {
        let (status, body) = self.ask(name).await?;
        match status {
            StatusCode::OK => {
                let read = serde_json::from_slice(&body).ok();
                read.filter(|read| name != "status" || is_status(read))
                    .ok_or_else(|| self.unreachable(OTHER_LISTENER, Some(OTHER_TO_DO)))
            }
            // A listener for clients, or another program: it must not get the token.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if !is_refusal(&body) => {
                Err(self.unreachable(OTHER_LISTENER, Some(OTHER_TO_DO)))
            }
            StatusCode::NOT_FOUND if !body.starts_with(ADMIN_PATHS) => {
                Err(self.unreachable(OTHER_LISTENER, Some(OTHER_TO_DO)))
            }
            StatusCode::FORBIDDEN => {
                let what = "it takes client certificates alone, and `status` cannot present one";
                Err(self.unreachable(what, Some(BY_CERTIFICATE)))
            }
            StatusCode::NOT_FOUND => {
                let what = "it does not show its state: `/api/v1/status` is a 404";
                Err(self.unreachable(what, Some("set `admin: { status: true }`, and restart it")))
            }
            StatusCode::UNAUTHORIZED => {
                let what =
                    if self.0.has_token() { "it refuses the token" } else { "it asks for a token" };
                let hint = "give the file that its `admin.token_file` names with `--token-file`";
                Err(self.unreachable(what, Some(hint)))
            }
            status => Err(self.unreachable(&format!("it responds with {}", status.as_u16()), None)),
        }
    }

    /// The first tenants that these parameters find, at most `limit`.
    pub(super) async fn tenants(
        &self,
        wanted: &[(&str, &str)],
        limit: usize,
    ) -> Result<Value, Failure> {
        let (mut all, mut number) = (Vec::new(), 1);
        loop {
            let mut query = Serializer::new(String::new());
            query.extend_pairs(wanted).append_pair("sort", "state");
            query.append_pair("page", &number.to_string());
            let query = query.append_pair("per_page", &PER_PAGE.to_string()).finish();
            let mut page = self.read(&format!("tenants?{query}")).await?;
            let found = page["found"].take();
            let before = all.len();
            if let Some(tenants) = page["tenants"].as_array_mut() {
                all.append(tenants);
            }
            let is_last = all.len() < before + PER_PAGE;
            if is_last || all.len() >= limit {
                all.truncate(limit);
                return Ok(json!({ "found": found, "tenants": all }));
            }
            number += 1;
        }
    }

    async fn ask(&self, name: &str) -> Result<(StatusCode, Zeroizing<Vec<u8>>), Failure> {
        let response = timeout(DEADLINE, self.0.ask(&format!("/api/v1/{name}"), MAX_BODY)).await;
        let response =
            response.map_err(|_| self.unreachable("no response within 10 s", Some(SILENT)))?;
        response.map_err(|error| self.explained(&error))
    }

    fn explained(&self, error: &FetchError) -> Failure {
        let (what, hint) = explained(error, true);
        self.unreachable(&what, hint)
    }

    fn unreachable(&self, why: &str, hint: Option<&str>) -> Failure {
        let what = format!("the gateway at {}: {why}", self.0.address());
        Failure::Unavailable { what, hint: hint.map(str::to_owned) }
    }
}

/// Whether it is the document by which the admin listener of boldgate asks for a credential.
fn is_refusal(body: &[u8]) -> bool {
    let document: Value = serde_json::from_slice(body).unwrap_or_default();
    document["outcome"] == "failure" && document["error"].is_string()
}

/// Whether it is the document of boldgate: without its problems, anything would be all well.
fn is_status(document: &Value) -> bool {
    document["problems"].is_array() && document["version"].is_string()
}

const OTHER_LISTENER: &str = "it responds, but is not the admin listener of boldgate";
const OTHER_TO_DO: &str = "give the address of `admin.address` with `--address`: this may be a listener for \
                           clients, or another program, and must not get the token";
const BY_CERTIFICATE: &str = "add `admin.token_file`, which is taken beside certificates; or read it with \
                              `curl --cacert FILE --cert FILE --key FILE https://ADDRESS/api/v1/status`";
/// The begin of the admin listener's 404.
const ADMIN_PATHS: &[u8] = b"try /livez, ";
const SILENT: &str = "it hangs or has too little CPU time: look at its log, and at `/metrics`";
const DEADLINE: Duration = Duration::from_secs(10);
/// Above the largest document: the configuration in force.
const MAX_BODY: usize = 32 << 20;
/// The API gives no more at once.
const PER_PAGE: usize = 200;
