//! The running gateway, which holds exchanges of a tenant meanwhile.

use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;

use super::super::admin_reader::{AdminReader, explained};
use super::super::first_certificate::first_certificate;
use super::super::status::token_in;
use super::super::{admin_tls, read_files};
use super::RotateCommand;
use crate::config::{ListenAddress, Settings};

/// A running gateway, or the reason why it cannot be told anything.
pub(super) struct RunningGateway(Result<AdminReader, String>);

impl RunningGateway {
    /// The gateway of this configuration. The configured token is sent where nobody else can
    /// listen: at a Unix socket, and over TLS to the holder of the configured certificate.
    pub(super) fn of(command: &RotateCommand) -> Self {
        Self(reader(command))
    }

    /// Lets it hold exchanges of `tenant` for that many seconds; 0 ends that.
    pub(super) async fn hold(&self, tenant: &str, admin: &str, seconds: u64) -> Result<(), String> {
        let reader = self.0.as_ref().map_err(Clone::clone)?;
        let body = json!({"tenant": tenant, "seconds": seconds, "subject": admin});
        let acting = reader.act("hold-exchanges", &body, MAX_BODY);
        match timeout(DEADLINE, acting).await {
            Ok(Ok((status, _))) if status.is_success() => Ok(()),
            Ok(Ok((status, _))) => Err(format!("it answers with status {}", status.as_u16())),
            Ok(Err(error)) => Err(explained(&error).0),
            Err(_) => Err(format!("it does not answer within {DEADLINE:?}")),
        }
    }
}

fn reader(command: &RotateCommand) -> Result<AdminReader, String> {
    let path = command.config.path.clone();
    let admin = read_files(move || Settings::admin_of(&path)).map_err(|_| UNREADABLE)?;
    let admin = admin.map_err(|_| UNREADABLE)?;
    if !admin.actions {
        return Err("it has no `admin.actions: true`".to_owned());
    }
    if matches!(admin.address, ListenAddress::Tcp(address) if address.port() == 0) {
        return Err("`admin.address` has port 0".to_owned());
    }
    let file = match (&command.token_file, &admin.certificate_file, &admin.address) {
        (Some(given), ..) => Some(given.clone()),
        (None, Some(_), _) | (None, None, ListenAddress::Unix(_)) => admin.token_file,
        (None, None, ListenAddress::Tcp(_)) => {
            return Err("over plain HTTP, its token is sent only with `--token-file`".to_owned());
        }
    };
    let token =
        file.map(|file| token_in(&file)).transpose().map_err(|_| "its token cannot be read")?;
    let reader = AdminReader::new(admin.address, token);
    let Some(certificate) = admin.certificate_file else { return Ok(reader) };
    let certificate =
        first_certificate(&certificate).map_err(|_| "its certificate cannot be read")?;
    let tls = admin_tls::only_certificate(&certificate).map_err(|error| error.to_string())?;
    Ok(reader.over_tls(tls))
}

const UNREADABLE: &str = "the section `admin` cannot be read";
const DEADLINE: Duration = Duration::from_secs(3);
const MAX_BODY: usize = 64 << 10;
