//! `boldgate status`: the state of a running gateway, read from its status API.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::ArgAction;
use clap::builder::FalseyValueParser;
use rustix::termios::tcgetwinsize;
use serde_json::{Value, json};

use super::first_certificate::first_certificate;
use super::{ConfigFile, Failure, admin_tls, print, read_files, runtime};
use crate::config::{ListenAddress, Settings};
use crate::plain_file;
use crate::plain_file::limit::MAX_SECRET;
use crate::secret::{Secret, SecretError};
use reader::StatusReader;
use style::Style;

mod reader;
mod store;
mod style;
mod table;
mod text;

/// Show the state of the running gateway: its problems, tenants, servers, certificates, issuers and
/// reloads
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct StatusCommand {
    /// Show the tenants with this part in name, server, site or host, in whatever state they are
    #[arg(value_name = "SEARCH")]
    search: Option<String>,
    #[command(flatten)]
    config: ConfigFile,
    /// Read from this address (`127.0.0.1:9090`, `unix:/run/boldgate/admin.sock`) instead of the
    /// configuration's `admin.address`, and read no configuration
    #[arg(long, value_name = "ADDRESS", value_parser = ListenAddress::from_text)]
    address: Option<ListenAddress>,
    /// The file of the token that the admin listener asks for, if it is not the configured one
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Show all tenants, not only those that need an operator
    #[arg(long)]
    all: bool,
    /// Print one JSON document with all that the status API has
    #[arg(long)]
    json: bool,
    /// Print no colours, as into a pipe
    #[arg(long, env = "NO_COLOR", hide_env_values = true, action = ArgAction::SetTrue,
        value_parser = FalseyValueParser::new())]
    no_color: bool,
}

impl StatusCommand {
    /// Code 1 says that something is failing at the gateway, so it is for no other failure.
    pub(super) fn run(self) -> Result<(), Failure> {
        let something_fails = self.show().map_err(|failure| match failure {
            Failure::Other { what, hint } => Failure::Unavailable { what, hint },
            failure => failure,
        })?;
        if something_fails { Err(Failure::Reported) } else { Ok(()) }
    }

    /// Prints the state. Returns whether something is failing.
    fn show(self) -> Result<bool, Failure> {
        let token = self.token_file.as_deref().map(token_in).transpose()?;
        let (reader, own_token) = match self.address.clone() {
            Some(address) => (StatusReader::new(address, token), None),
            None => self.configured(token)?,
        };
        let runtime = runtime()?;
        let reader = match own_token {
            Some(file) if runtime.block_on(reader.asks_for_token())? => {
                reader.with_token(token_in(&file)?)
            }
            _ => reader,
        };
        let read = runtime.block_on(async { self.read(&reader).await })?;
        let problems = read["status"]["problems"].as_array();
        let fails = |problem: &Value| problem["severity"] == "failing";
        let something_fails = problems.is_some_and(|problems| problems.iter().any(fails));
        print(&if self.json {
            format!("{read:#}")
        } else {
            text::report(read, self.search.as_deref(), &reader.shown(), &self.style())
        })?;
        Ok(something_fails)
    }

    /// A reader of the admin listener in the configuration, and the file of its token, if that may
    /// be sent there: over TLS, to the holder of the configured certificate alone. Elsewhere any
    /// process of this machine could have taken the address. Faults of other keys do not matter:
    /// the gateway serves on with its former configuration.
    fn configured(
        &self,
        token: Option<Secret>,
    ) -> Result<(StatusReader, Option<PathBuf>), Failure> {
        let path = self.config.path.clone();
        let admin = read_files(move || Settings::admin_of(&path))?;
        let admin = admin
            .map_err(|findings| Failure::Config(vec![findings.with_consequence(WITHOUT_FILE)]))?;
        let at = self.config.path.display();
        if !admin.status {
            let what =
                format!("the gateway does not show its state: {at} has no `admin.status: true`");
            return Err(Failure::Unavailable { what, hint: Some(SWITCH_ON.to_owned()) });
        }
        let address = admin.address;
        if matches!(address, ListenAddress::Tcp(address) if address.port() == 0) {
            let what = format!("{at}: `admin.address` has port 0, and the system chose another");
            let hint = Some("give the address that the log names with `--address`".to_owned());
            return Err(Failure::Unavailable { what, hint });
        }
        let is_given = token.is_some();
        let reader = StatusReader::new(address, token);
        let Some(file) = admin.certificate_file else { return Ok((reader, None)) };
        let tls = admin_tls::only_certificate(&first_certificate(&file)?);
        let reader = reader.over_tls(tls.map_err(Failure::other)?);
        Ok((reader, admin.token_file.filter(|_| !is_given)))
    }

    /// All documents of the status API.
    async fn read(&self, reader: &StatusReader) -> Result<Value, Failure> {
        let status = reader.read("status").await?;
        let wanted = match &self.search {
            Some(search) => vec![("search", search.as_str())],
            None if self.all || self.json => Vec::new(),
            None => return self.read_troubled(reader, status).await,
        };
        let mut document = json!({ "tenants": reader.tenants(&wanted, usize::MAX).await? });
        self.add_others(reader, &mut document, status).await?;
        Ok(document)
    }

    /// The same with the first tenants that need an operator, and no others.
    async fn read_troubled(&self, reader: &StatusReader, status: Value) -> Result<Value, Failure> {
        let (mut shown, mut found) = (Vec::new(), 0);
        for state in ["failing", "secret_unreadable", "former_secret", "disabled"] {
            let limit = MAX_TROUBLED.saturating_sub(shown.len());
            let mut page = reader.tenants(&[("state", state)], limit).await?;
            found += page["found"].as_u64().unwrap_or_default();
            if let Some(tenants) = page["tenants"].as_array_mut() {
                shown.append(tenants);
            }
        }
        let mut document = json!({ "tenants": { "found": found, "tenants": shown } });
        self.add_others(reader, &mut document, status).await?;
        Ok(document)
    }

    async fn add_others(
        &self,
        reader: &StatusReader,
        document: &mut Value,
        status: Value,
    ) -> Result<(), Failure> {
        document["status"] = status;
        for name in ["servers", "issuers", "reloads"] {
            document[name] = reader.read(name).await?[name].take();
        }
        document["certificates"] = reader.read("certificates").await?;
        if self.json {
            document["config"] = reader.read("config").await?;
        }
        Ok(())
    }

    fn style(&self) -> Style {
        let stdout = std::io::stdout();
        if !stdout.is_terminal() {
            return Style::plain();
        }
        let columns = tcgetwinsize(&stdout).map_or(0, |size| size.ws_col.into());
        Style::terminal(columns, !self.no_color)
    }
}

pub(super) fn token_in(file: &Path) -> Result<Secret, Failure> {
    let path = file.to_owned();
    let read = read_files(move || Secret::from_file(plain_file::read(&path, MAX_SECRET)))?;
    read.map_err(|error: SecretError| Failure::Input {
        what: format!("no token can be read from `{}`: {error}", file.display()),
        hint: Some("give the file that `admin.token_file` names".to_owned()),
    })
}

/// Tenants that need an operator, of which more are only counted.
const MAX_TROUBLED: usize = 20;
const WITHOUT_FILE: &str = "`--address ADDRESS` asks the running gateway without this file";
const SWITCH_ON: &str =
    "add it, and restart the gateway; or name the address of another gateway with `--address`";
const AFTER_HELP: &str = "\
The gateway must have `admin: { status: true }`. Without SEARCH and --all, tenants are listed that fail, \
cannot use their secret, go on with a former one, or are disabled.

Exit codes: 0 no request fails by a fault that the gateway knows; 1 something is failing, it is in the \
output; 2 wrong usage; 69 the gateway cannot be reached, or does not show its state; 78 bad configuration, or \
a token file that cannot be used.";
