//! `boldgate demo`: a pretend Bold BI, and the gateway in front of it, in this process.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::signal::unix::SignalKind;

use super::serve::{follow_until_stopped, start};
use super::signals::{self, StopSignals};
use super::{Failure, LogFormat, print, runtime};
use crate::boldbi::stand_in::{StandIn, StandInClient, StandInOptions, StandInSite, StandInUser};
use crate::boldbi::{BoldBi, UserSource};
use crate::config::{ListenAddress, Settings};
use crate::cors::WebOrigin;
use crate::run::Running;
use crate::run::reload::Reloader;
use crate::telemetry::{AccessLog, Format, LogControl, Telemetry};

mod application;
mod script;
mod sign_in;

use application::{Application, ISSUER, MASKED_PATH, USERS};

/// Run the gateway on this machine, in front of a pretend Bold BI with two tenants
#[derive(Debug, clap::Args)]
pub(super) struct DemoCommand {
    /// Send requests, print what happened, and end; exit code 0 if all results were as expected
    #[arg(long)]
    once: bool,
    /// Run the pretend Bold BI alone, for a gateway with a configuration of its own
    #[arg(long, conflicts_with = "once")]
    bold_bi_only: bool,
    /// Port on loopback of the gateway, or of the pretend Bold BI alone; 0 for any free port
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Origin of a page of yours that may embed, beside the page of the demo
    #[arg(long, default_value = OWN_ORIGIN, value_parser = WebOrigin::parse, conflicts_with = "bold_bi_only")]
    origin: WebOrigin,
}

impl DemoCommand {
    pub(super) fn run(self, format: LogFormat, log_level: LogControl) -> Result<(), Failure> {
        let runtime = runtime()?;
        if self.bold_bi_only {
            return runtime.block_on(bold_bi_until_interrupted(self.port));
        }
        // A signal that ended the process at once would keep the files, which hold secrets.
        signals::ignore_stray_signals();
        let ended = runtime.block_on(async {
            let signals = StopSignals::listen()?;
            let files = DemoFiles::make()?;
            if self.once {
                once_unless_interrupted(&files, &self.origin, signals).await
            } else {
                until_interrupted(&files, &self, signals, (format, log_level)).await
            }
        });
        // As in `serve`: a reload that hangs in a file system must not delay the end.
        runtime.shutdown_background();
        ended
    }
}

async fn bold_bi_until_interrupted(port: u16) -> Result<(), Failure> {
    let mut signals = StopSignals::listen()?;
    let stand_in = stand_in(port).await.map_err(other_port)?;
    print(&format!(
        "a pretend Bold BI is running, for a gateway on this machine.

  url       {}
  site1     username {SITE1_USER}, user_source azure_ad,
            embed secret {EMBED_SECRET}, administrator {ADMINISTRATOR}
  site2     username {SITE2_USER}, user_source local,
            password {PASSWORD}
  (all)     edition ums, url without /bi: client_id {CLIENT_ID},
            client_secret {CLIENT_SECRET}

Press Ctrl-C to end.",
        stand_in.url(),
    ))?;
    signals.next().await;
    print("\nstopping")
}

async fn until_interrupted(
    files: &DemoFiles,
    command: &DemoCommand,
    mut signals: StopSignals,
    (format, log_level): (LogFormat, LogControl),
) -> Result<(), Failure> {
    let reload = signals::of_kind(SignalKind::hangup())?;
    let origin = &command.origin;
    let (stand_in, application) = (stand_in(0).await?, Application::start(origin).await?);
    // People read a demo, also through a pipe.
    let format = if matches!(format, LogFormat::Auto) { LogFormat::Text } else { format };
    let settings = files.configure(&stand_in, &application, origin, command.port)?;
    let exchange = BoldBi::new(settings.servers.iter()).map_err(Failure::other)?;
    let exchange = Arc::new(exchange);
    let reloader = Reloader::new(&files.config(), &settings, Arc::clone(&exchange));
    let mut running = start(settings, exchange, format, log_level).map_err(other_port)?;
    let gateway = known_callers_url(&running);
    application.call(&gateway, &embed_url(&running), &sdk_url(&stand_in));
    files.write_own_page(&stand_in, &application, &running)?;
    print_introduction(files, &stand_in, &application, &running, origin)?;
    follow_until_stopped(&mut running, reloader, reload, &mut signals).await;
    print("\nstopping")?;
    tokio::select! {
        _ = running.stop() => Ok(()),
        _ = signals.next() => Ok(()),
    }
}

fn print_introduction(
    files: &DemoFiles,
    stand_in: &StandIn,
    application: &Application,
    running: &Running,
    origin: &WebOrigin,
) -> Result<(), Failure> {
    let gateway = gateway_url(running);
    let admin = running.admin_address();
    let config = files.config().display().to_string();
    let (page, embed, jane) = (application.origin(), embed_url(running), USERS[0].0);
    let (own_page, own) = (files.own_page().display().to_string(), files.own_folder());
    let serve_own_page = match origin.to_string().strip_prefix("http://localhost:") {
        Some(port) => {
            format!("python3 -m http.server {port} --bind 127.0.0.1 --directory {}", own.display())
        }
        None => format!("cat {own_page}"),
    };
    print(&format!(
        "boldgate is running in front of a pretend Bold BI.

  gateway   {gateway}
  Bold BI   {} (pretend)
  admin     http://{admin}
  settings  {}
  page      {page}   (open it in a browser: an embedded dashboard)
  masked    {page}{MASKED_PATH}   (the same in masked mode: a page without any token)

Run these in another terminal; none of them has a token:

  # tenant acme: the token comes from its embed secret, for a user of Azure AD
  curl -i {gateway}/bi/api/site/site1/v5.0/dashboards

  # tenant globex: the token comes from the password of a local user
  curl -i {gateway}/bi/api/site/site2/v5.0/dashboards

  # what Bold BI received, and the user of its token
  curl -s {gateway}/bi/api/site/site1/v5.0/echo -d '{{\"hello\": \"Bold BI\"}}'

  # refused: no such tenant; a route that issues tokens
  curl -i {gateway}/bi/api/site/nowhere/v5.0/dashboards
  curl -i -X POST {gateway}/bi/api/site/site1/token

  # tenants, tokens and servers: in a browser, http://{admin}/
  curl -s http://{admin}/api/v1/tenants

  # embedding: the gateway asks Bold BI in place of the page, for the user and the rows of the JWT
  curl -s {embed} -H 'Content-Type: application/json' -H \"Authorization: Bearer $(curl -s {page}/jwt/{jane})\" -d '{{\"embedQueryString\": \"embed_dashboard_id={DASHBOARD}\"}}'

  # embedding in a page of your own at {origin}: serve {own_page} there
  {serve_own_page}

  # a new embed secret for acme, as an administrator: generated in Bold BI, written to its file, proven
  boldgate rotate acme --admin-subject {ADMINISTRATOR} --config {config}

  # exchanges, cache hits, expiry of tokens
  curl -s http://{admin}/metrics

Each request prints a line here. Press Ctrl-C to end.
",
        stand_in.url(),
        config,
    ))
}

async fn once_unless_interrupted(
    files: &DemoFiles,
    origin: &WebOrigin,
    mut signals: StopSignals,
) -> Result<(), Failure> {
    tokio::select! {
        ended = once(files, origin) => ended,
        signal = signals.next() => Err(Failure::other(format!("stopped by {signal}"))),
    }
}

async fn once(files: &DemoFiles, origin: &WebOrigin) -> Result<(), Failure> {
    let (stand_in, application) = (stand_in(0).await?, Application::start(origin).await?);
    let settings = files.configure(&stand_in, &application, origin, 0)?;
    let telemetry = Arc::new(Telemetry::default());
    let discarded = Box::new(std::io::sink());
    let log = AccessLog::new(Format::Text, discarded, telemetry.access_lines_dropped.clone())
        .map_err(Failure::other)?;
    let exchange = BoldBi::new(settings.servers.iter()).map_err(Failure::other)?;
    let running =
        Running::start(settings, Arc::new(exchange), telemetry, log).map_err(Failure::other)?;
    let (gateway, embed) = (gateway_url(&running), embed_url(&running));
    let passed = script::play(&stand_in, &gateway, (&embed, &application.jwt(0))).await?;
    running.stop().await;
    if passed { Ok(()) } else { Err(Failure::other("some results were not as expected")) }
}

fn gateway_url(running: &Running) -> String {
    match running.addresses() {
        [ListenAddress::Tcp(address), ..] => format!("http://{address}"),
        _ => unreachable!("the demo listens on one TCP port"),
    }
}

/// Adds the remedy to a failure to listen.
fn other_port(failure: Failure) -> Failure {
    match failure {
        Failure::Other { what, .. } => Failure::Other {
            what,
            hint: Some("`boldgate demo --port 0` takes any free port".into()),
        },
        other => other,
    }
}

/// The listener for known callers.
fn known_callers_url(running: &Running) -> String {
    match running.addresses() {
        [_, ListenAddress::Tcp(address), ..] => format!("http://{address}"),
        _ => unreachable!("the second listener of the demo is a TCP port"),
    }
}

/// The embed endpoint of tenant acme.
fn embed_url(running: &Running) -> String {
    format!("{}/bi/api/site/site1/boldgate/embed/authorize", known_callers_url(running))
}

fn sdk_url(stand_in: &StandIn) -> String {
    format!("http://{}/embedded-sdk/v14.2/boldbi-embed.js", stand_in.addr())
}

async fn stand_in(port: u16) -> Result<StandIn, Failure> {
    let user = |email: &str, password: Option<&str>, source| StandInUser {
        email: email.into(),
        password: password.map(Into::into),
        source,
    };
    let site = |id: &str, embed_secret: &str, users| StandInSite {
        id: Some(id.into()),
        embed_secret: embed_secret.into(),
        users,
    };
    let options = StandInOptions {
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        sites: vec![
            site(
                "site1",
                EMBED_SECRET,
                [SITE1_USER, USERS[0].0, USERS[1].0, ADMINISTRATOR]
                    .map(|email| user(email, None, UserSource::AzureAd))
                    .into(),
            ),
            site(
                "site3",
                MASKED_SECRET,
                [SITE1_USER, USERS[0].0, USERS[1].0, ADMINISTRATOR]
                    .map(|email| user(email, None, UserSource::AzureAd))
                    .into(),
            ),
            site(
                "site2",
                "not-used-by-the-demo",
                vec![user(SITE2_USER, Some(PASSWORD), UserSource::Local)],
            ),
        ],
        client: Some(StandInClient { id: CLIENT_ID.into(), secret: CLIENT_SECRET.into() }),
        ..StandInOptions::default()
    };
    StandIn::start(options).await.map_err(|error| {
        Failure::other(format!("the pretend Bold BI cannot start at 127.0.0.1:{port}: {error}"))
    })
}

/// The files of a demo, in a folder that is removed on drop.
struct DemoFiles(PathBuf);

impl DemoFiles {
    fn make() -> Result<Self, Failure> {
        let folder = std::env::temp_dir().join(format!("boldgate-demo-{}", std::process::id()));
        let files = Self(folder);
        files.write().map_err(|error| {
            Failure::other(format!("cannot write to {}: {error}", files.0.display()))
        })?;
        Ok(files)
    }

    fn write(&self) -> std::io::Result<()> {
        // It must not exist yet and is the owner's alone: other users may write to its parent.
        fs::DirBuilder::new().mode(0o700).create(&self.0)?;
        fs::write(self.0.join("embed-secret"), EMBED_SECRET)?;
        // Each site has its own, so that `boldgate rotate` changes one tenant alone.
        fs::write(self.0.join("embed-secret-masked"), MASKED_SECRET)?;
        fs::write(self.0.join("password"), PASSWORD)
    }

    fn config(&self) -> PathBuf {
        self.0.join("gateway.yaml")
    }

    fn own_folder(&self) -> PathBuf {
        self.0.join("page")
    }

    fn own_page(&self) -> PathBuf {
        self.own_folder().join("index.html")
    }

    /// Writes the page that a developer may serve at an origin of their own.
    fn write_own_page(
        &self,
        stand_in: &StandIn,
        application: &Application,
        running: &Running,
    ) -> Result<(), Failure> {
        let bold_bi = stand_in.url();
        let text = OWN_PAGE
            .replace("SDK\"", &format!("{}\"", sdk_url(stand_in)))
            .replace("JWT\"", &format!("{}/jwt/{}\"", application.origin(), USERS[0].0))
            .replace("SERVER/", &format!("{bold_bi}/"))
            .replace("DASHBOARD\"", &format!("{DASHBOARD}\""))
            .replace("ENDPOINT\"", &format!("{}\"", embed_url(running)));
        let written =
            fs::create_dir(self.own_folder()).and_then(|()| fs::write(self.own_page(), text));
        written.map_err(|error| {
            Failure::other(format!("cannot write {}: {error}", self.own_page().display()))
        })
    }

    fn configure(
        &self,
        stand_in: &StandIn,
        application: &Application,
        origin: &WebOrigin,
        port: u16,
    ) -> Result<Settings, Failure> {
        let own = application.origin();
        // The same origin twice is a finding.
        let origins = if origin.to_string() == own {
            format!("\"{own}\"")
        } else {
            format!("\"{own}\", \"{origin}\"")
        };
        let key = application.key_hash();
        let text = configuration(&self.0, (&stand_in.url(), port), (&own, &origins), &key);
        for (path, text) in
            [(self.0.join("key-set.json"), application.key_set()), (self.config(), text)]
        {
            fs::write(&path, text).map_err(|error| {
                Failure::other(format!("cannot write {}: {error}", path.display()))
            })?;
        }
        Settings::load(&self.config()).map_err(|findings| Failure::Config(vec![findings]))
    }
}

impl Drop for DemoFiles {
    fn drop(&mut self) {
        // If that fails, the system cleans up its folder of temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn configuration(
    folder: &Path,
    (bold_bi, port): (&str, u16),
    (own, origins): (&str, &str),
    key: &str,
) -> String {
    let folder = folder.display();
    format!(
        "listeners:
  - {{ address: \"127.0.0.1:{port}\", callers: anonymous }}
  - {{ address: \"127.0.0.1:0\", callers: required }}
admin: {{ address: \"127.0.0.1:0\", status: true }}
limits: {{ max_connections: 256 }}
servers:
  demo: {{ url: {bold_bi} }}
tenants:
  acme:
    server: demo
    site: site1
    cors: {{ origins: [{origins}] }}
    embed:
      datasource_filters: [{{ name: Region, claim: regions }}]
    credential:
      grant: embed_secret
      username: {SITE1_USER}
      hold: 30s # `boldgate rotate` fails no request
      embed_secret: {{ file: {folder}/embed-secret }}
      user_source: azure_ad
  {MASKED_TENANT}:
    server: demo
    site: site3
    cors: {{ origins: [\"{own}\"] }}
    embed: {{ masked: true }}
    credential:
      grant: embed_secret
      username: {SITE1_USER}
      embed_secret: {{ file: {folder}/embed-secret-masked }}
      user_source: azure_ad
  globex:
    server: demo
    site: site2
    credential:
      grant: password
      username: {SITE2_USER}
      password: {{ file: {folder}/password }}
      user_source: local
callers:
  application:
    jwt:
      issuer: {ISSUER}
      audience: boldgate
      algorithms: [EdDSA]
      jwks_file: {folder}/key-set.json
    may:
      - tenant: acme
        routes: [embed]
        subject: {{ claim: email, domains: [acme.example] }}
  signing-in-proxy:
    api_key: {{ sha256: {key} }}
    may:
      - tenant: {MASKED_TENANT}
        routes: [read]
        subject: {{ header: X-Forwarded-Email, from: [127.0.0.1], domains: [acme.example] }}
"
    )
}

const OWN_PAGE: &str = include_str!("demo/own_page.html");
/// Where development servers of web pages listen as a rule.
const OWN_ORIGIN: &str = "http://localhost:3000";
/// The tenant of the page in masked mode, at `site3`.
const MASKED_TENANT: &str = "acme-masked";
const SITE1_USER: &str = "reports@acme.example";
/// For `boldgate rotate`: it may generate the embed secret.
const ADMINISTRATOR: &str = "admin@acme.example";
const CLIENT_ID: &str = "demo-client";
const CLIENT_SECRET: &str = "demo-client-secret";
const SITE2_USER: &str = "svc@globex.example";
const DASHBOARD: &str = "c5bab292-0ee6-4ee7-9dfa-d6b3cffed7ff";
const EMBED_SECRET: &str = "demo-embed-secret";
const MASKED_SECRET: &str = "demo-embed-secret-of-site3";
const PASSWORD: &str = "demo p&ss=w%rd+1 é";
