//! The running gateway, which holds exchanges of a tenant meanwhile, and takes the new secret.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::super::admin_reader::{AdminReader, explained};
use super::super::first_certificate::first_certificate;
use super::super::status::token_in;
use super::super::{Failure, admin_tls, read_files};
use super::RotateCommand;
use crate::config::{ListenAddress, Settings};

/// A running gateway, or the reason why it cannot be told anything.
pub(super) struct RunningGateway {
    reader: Result<AdminReader, String>,
    /// The file of the token that is sent, and the words for where it is named.
    token: Option<(PathBuf, &'static str)>,
    /// The number of the hold that has begun.
    held: OnceLock<u64>,
}

/// Why a running gateway does not hold exchanges.
pub(super) enum NotHeld {
    /// It was not told.
    NotTold(String),
    /// It would not take a new secret either.
    Stuck(String),
}

impl RunningGateway {
    /// The gateway of this configuration. The configured token is sent where nobody else can
    /// listen: at a Unix socket, and over TLS to the holder of the configured certificate.
    pub(super) fn of(command: &RotateCommand) -> Self {
        let mut token = None;
        let reader = reader(command, &mut token);
        Self { reader, token, held: OnceLock::new() }
    }

    /// Lets it read its files, so that the hold is about the secret that they have now, and then
    /// hold exchanges of the tenant for that many seconds.
    pub(super) async fn hold(&self, command: &RotateCommand, seconds: u64) -> Result<(), NotHeld> {
        self.reload().await?;
        let body = json!({
            "tenant": command.tenant, "seconds": seconds, "subject": command.admin_subject
        });
        let (status, reply) = self.act("hold-exchanges", &body).await.map_err(NotHeld::NotTold)?;
        match reply["hold"].as_u64().filter(|_| status.is_success()) {
            Some(number) => {
                // It is told once.
                let _ = self.held.set(number);
                Ok(())
            }
            None => Err(NotHeld::NotTold(self.refusal(status, &reply))),
        }
    }

    /// Whether it was told to hold exchanges.
    pub(super) fn held(&self) -> Option<u64> {
        self.held.get().copied()
    }

    /// Ends the hold that has begun, and no later one. It ends by itself, so that a gateway that
    /// has gone does not matter.
    pub(super) async fn release(&self, command: &RotateCommand) {
        if let Some(number) = self.held() {
            self.release_hold(command, number).await;
        }
    }

    /// Ends the hold of this number, and no later one.
    pub(super) async fn release_hold(&self, command: &RotateCommand, number: u64) {
        let body = json!({
            "tenant": command.tenant, "seconds": 0, "subject": command.admin_subject,
            "hold": number
        });
        drop(self.act("hold-exchanges", &body).await);
    }

    /// Lets it read its files, and waits until the secrets in them are in force. That ends the
    /// hold.
    pub(super) async fn reload(&self) -> Result<(), NotHeld> {
        let begun = Instant::now();
        loop {
            let acted = self.act("reload", &json!({})).await;
            let (status, reply) = acted.map_err(NotHeld::NotTold)?;
            match reply["code"].as_str() {
                _ if status.is_success() => return Ok(()),
                // Others reload.
                Some("busy") if begun.elapsed() < DEADLINE => sleep(PAUSE).await,
                Some("reload_refused" | "files_unreadable") => {
                    return Err(NotHeld::Stuck(self.refusal(status, &reply)));
                }
                _ => return Err(NotHeld::NotTold(self.refusal(status, &reply))),
            }
        }
    }

    async fn act(&self, action: &str, body: &Value) -> Result<(StatusCode, Value), String> {
        let reader = self.reader.as_ref().map_err(Clone::clone)?;
        match timeout(DEADLINE, reader.act(action, body, MAX_BODY)).await {
            Ok(Ok((status, reply))) => {
                Ok((status, serde_json::from_slice(&reply).unwrap_or_default()))
            }
            Ok(Err(error)) => {
                let (what, hint) = explained(&error, false);
                let hint = hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
                Err(format!("{} does not answer: {what}{hint}", reader.address()))
            }
            Err(_) => Err(format!("{} does not answer within {DEADLINE:?}", reader.address())),
        }
    }

    /// The words for a response other than a success.
    fn refusal(&self, status: StatusCode, reply: &Value) -> String {
        match (status, &self.token) {
            (StatusCode::UNAUTHORIZED, Some((file, key))) => format!(
                "it refuses the token in `{}` ({key}) with status 401: give the one that the running \
                 gateway has by its `admin.token_file`",
                file.display()
            ),
            (StatusCode::UNAUTHORIZED, None) => {
                "it asks for a token (status 401): give its file with `--token-file`".to_owned()
            }
            _ => {
                let error = reply["error"].as_str().unwrap_or("no reason is given");
                format!("it refuses that with status {}: {}", status.as_u16(), error.escape_debug())
            }
        }
    }
}

fn reader(
    command: &RotateCommand,
    sent: &mut Option<(PathBuf, &'static str)>,
) -> Result<AdminReader, String> {
    let path = command.config.path.clone();
    let admin = read_files(move || Settings::admin_of(&path)).map_err(|_| UNREADABLE)?;
    let admin = admin.map_err(|_| UNREADABLE)?;
    if !admin.actions {
        return Err("its configuration has no `admin.actions: true`".to_owned());
    }
    if matches!(admin.address, ListenAddress::Tcp(address) if address.port() == 0) {
        return Err("its `admin.address` has port 0, and the system chose another".to_owned());
    }
    let file = match (&command.token_file, &admin.certificate_file, &admin.address) {
        (Some(given), ..) => Some((given.clone(), "`--token-file`")),
        (None, Some(_), _) | (None, None, ListenAddress::Unix(_)) => {
            admin.token_file.map(|file| (file, "`admin.token_file`"))
        }
        (None, None, ListenAddress::Tcp(_)) => {
            return Err("over plain HTTP, its token is sent only with `--token-file`".to_owned());
        }
    };
    let token = file.as_ref().map(|(file, key)| {
        token_in(file).map_err(|failure| match failure {
            Failure::Input { what, .. } | Failure::Other { what, .. } => format!("{key}: {what}"),
            _ => format!("{key}: its token cannot be read"),
        })
    });
    let token = token.transpose()?;
    *sent = file;
    let reader = AdminReader::new(admin.address, token);
    let Some(certificate) = admin.certificate_file else { return Ok(reader) };
    let certificate =
        first_certificate(&certificate).map_err(|_| "its certificate cannot be read")?;
    let tls = admin_tls::only_certificate(&certificate).map_err(|error| error.to_string())?;
    Ok(reader.over_tls(tls))
}

const UNREADABLE: &str = "the section `admin` cannot be read";
/// Longer than the gateway takes to read its files where one of them hangs.
const DEADLINE: Duration = Duration::from_secs(30);
/// Between two requests for a reload while others reload.
const PAUSE: Duration = Duration::from_millis(200);
const MAX_BODY: usize = 64 << 10;
