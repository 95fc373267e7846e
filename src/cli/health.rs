//! `boldgate health`: the health check of a container whose image has no other program.

use std::time::Duration;

use http::StatusCode;
use tokio::time::{Instant, timeout_at};

use super::admin_reader::{AdminReader, explained};
use super::{ConfigFile, Failure, admin_tls, print, runtime};
use crate::config::{Findings, ListenAddress, Settings};
use crate::plain_file::ReadThreads;

/// Ask the gateway on this machine whether it runs; for health checks of containers
#[derive(Debug, clap::Args)]
#[command(after_help = "It ends within 2 s.

Exit codes: 0 the response is good; 1 it is not, or there is none")]
pub(super) struct HealthCommand {
    /// Ask whether it is ready (`/readyz`), not only whether it runs (`/livez`)
    #[arg(long)]
    ready: bool,
    /// Ask at this address (`127.0.0.1:9090`, `unix:/run/boldgate/admin.sock`) instead of the
    /// configuration's `admin.address`, and read no file
    #[arg(
        long,
        value_name = "ADDRESS",
        value_parser = ListenAddress::from_text,
        env = "BOLDGATE_ADMIN_ADDRESS",
        hide_env_values = true
    )]
    address: Option<ListenAddress>,
    /// With `--address`: the admin listener has `tls`. Its certificate is not checked
    #[arg(long, requires = "address")]
    https: bool,
    #[command(flatten)]
    config: ConfigFile,
}

impl HealthCommand {
    pub(super) fn run(self) -> Result<(), Failure> {
        let deadline = Instant::now() + DEADLINE;
        let given = self.address.clone().map(|address| (address, self.https));
        let (address, https) = given.map_or_else(|| self.configured(), Ok)?;
        let (path, good) = if self.ready { ("/readyz", "ready") } else { ("/livez", "alive") };
        // Any certificate will do: it sends no token.
        let client = AdminReader::new(address, None);
        let client = match https.then(admin_tls::any_certificate).transpose() {
            Ok(Some(tls)) => client.over_tls(tls),
            Ok(None) => client,
            Err(error) => return Err(Failure::other(error)),
        };
        let at = format!("{path} at {}", client.address());
        let failed = |why: &str| Failure::other(format!("{at}: {why}"));
        let asked = async { timeout_at(deadline, client.ask(path, MAX_BODY)).await };
        let Ok(response) = runtime()?.block_on(asked) else {
            return Err(failed(
                "no response within 2 s; the gateway hangs or has too little CPU time: look at its log",
            ));
        };
        let (status, body) = response.map_err(|error| match explained(&error, true) {
            (what, Some(hint)) => failed(&format!("{what}; {hint}")),
            (what, None) => failed(&what),
        })?;
        let body = String::from_utf8_lossy(&body);
        let said = body.lines().next().unwrap_or_default();
        match status {
            StatusCode::OK if said == good => print(&format!("{at}: {said}")),
            StatusCode::OK => Err(failed("it responds, but is not the admin listener of boldgate")),
            status => Err(failed(&format!("{}: {}", status.as_u16(), said.escape_debug()))),
        }
    }

    /// The address in the configuration, and whether it is to be asked over TLS.
    fn configured(&self) -> Result<(ListenAddress, bool), Failure> {
        let path = self.config.path.clone();
        let read = ReadThreads::within(DEADLINE).run(move || Settings::admin_of(&path));
        let read = read.map_err(|stuck| Failure::other(format!("{stuck}; {WITHOUT_FILE}")))?;
        let admin = read.map_err(|findings| Failure::other(first_of_admin(&findings)))?;
        if matches!(admin.address, ListenAddress::Tcp(address) if address.port() == 0) {
            let at = self.config.path.display();
            let why = "`admin.address` has port 0, and the system chose another";
            return Err(Failure::other(format!("{at}: {why}; {WITHOUT_FILE}")));
        }
        Ok((admin.address, admin.certificate_file.is_some()))
    }
}

/// The finding on the admin listener, on one line; or the first, if the file cannot be read at all.
fn first_of_admin(findings: &Findings) -> String {
    let index = findings.iter().position(|finding| finding.path.starts_with("admin"));
    let told = findings.told().nth(index.unwrap_or_default());
    format!("{}; {WITHOUT_FILE}", told.map(|(finding, _)| finding).unwrap_or_default())
}

/// Shorter than the timeout of the image's HEALTHCHECK, so that its log has the reason.
const DEADLINE: Duration = Duration::from_secs(2);
const MAX_BODY: usize = 1024;
const WITHOUT_FILE: &str = "`--address` asks without the file";
