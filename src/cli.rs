//! The command line: one file per command, and their common parts. The only module that prints.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::PossibleValue;
use clap::{Parser, Subcommand, ValueEnum};
use strum::VariantArray;

use crate::config::{ExplainedTenant, Files, Findings, Settings, TenantSecrets};
use crate::plain_file::{ReadError, ReadThreads};
use crate::telemetry::{self, LogLevel};
use output::{print, warn};

mod admin_reader;
mod admin_tls;
mod check;
mod completions;
mod core_dumps;
mod demo;
mod doctor;
mod explain;
mod first_certificate;
mod health;
mod key;
mod logging;
mod man;
mod named_tenant;
mod output;
mod rotate;
mod schema;
mod serve;
mod signals;
mod status;
mod token;

/// Authentication gateway for Bold BI: applications call its REST API without a token; boldgate
/// authenticates them, obtains and caches the tokens, and adds them to the requests
#[derive(Debug, Parser)]
#[command(name = "boldgate", version = telemetry::BUILD, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Cli {
    /// Level of the log on stderr; the access log is not affected
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "LEVEL",
        default_value = "info",
        env = "BOLDGATE_LOG_LEVEL",
        hide_env_values = true,
        help_heading = LOGS
    )]
    log_level: LogLevel,
    /// Format of both logs; `auto` is text on a terminal and JSON elsewhere
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "FORMAT",
        default_value = "auto",
        env = "BOLDGATE_LOG_FORMAT",
        hide_env_values = true,
        help_heading = LOGS
    )]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway
    Serve(serve::ServeCommand),
    /// Check configuration files, and the files that they refer to, as `serve` would
    Check(check::CheckCommand),
    /// Show whether a request would be admitted, and why; nothing is sent to Bold BI
    Explain(explain::ExplainCommand),
    /// Obtain one token as `serve` would, and describe it
    Token(token::TokenCommand),
    /// Examine the whole way to Bold BI, step by step, and say what to do about a broken step
    Doctor(doctor::DoctorCommand),
    /// Rotate the embed secret of a tenant: generate it in Bold BI, write its file, and prove it
    Rotate(rotate::RotateCommand),
    /// Show the state of the running gateway
    Status(status::StatusCommand),
    /// Ask the gateway on this machine whether it runs; for health checks of containers
    Health(health::HealthCommand),
    /// Run the gateway on this machine, in front of a pretend Bold BI with two tenants
    Demo(demo::DemoCommand),
    /// Make an API key for a caller, and its hash for the configuration
    Key(key::KeyCommand),
    /// Print the JSON Schema of the configuration file
    Schema(schema::SchemaCommand),
    /// Print completions for a shell
    Completions(completions::CompletionsCommand),
    /// Print the manual page of boldgate, or of one of its commands
    #[command(hide = true)]
    Man(man::ManCommand),
}

impl Command {
    /// Only `serve` runs long enough for a core file to be of use.
    fn may_dump_core(&self) -> bool {
        matches!(self, Self::Serve(serve) if serve.core_dumps)
    }
}

impl ValueEnum for LogLevel {
    fn value_variants<'v>() -> &'v [Self] {
        Self::VARIANTS
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(<&str>::from(self)))
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Auto,
    Text,
    Json,
}

impl Cli {
    /// Runs the command that the arguments of the process name. The exit codes are those of
    /// `--help`; 78 is `EX_CONFIG` of sysexits.h.
    pub fn main() -> ExitCode {
        signals::ignore_sigxfsz();
        let result = match Self::try_parse() {
            Ok(cli) => cli.run(),
            // The arguments ask for the help or the version.
            Err(help) if !help.use_stderr() => print_help(&help),
            Err(usage) => usage.exit(),
        };
        match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                failure.print();
                failure.code()
            }
        }
    }

    fn run(self) -> Result<(), Failure> {
        let log_level = logging::start(self.log_level, self.log_format);
        if !self.command.may_dump_core() {
            core_dumps::forbid();
        }
        match self.command {
            Command::Serve(command) => {
                let format = self.log_format;
                return command.run(format, log_level).map_err(|failure| {
                    if logging::is_text(format, &io::stderr()) { failure } else { failure.logged() }
                });
            }
            Command::Check(command) => command.run(),
            Command::Explain(command) => command.run(),
            Command::Token(command) => command.run(),
            Command::Doctor(command) => command.run(),
            Command::Rotate(command) => command.run(),
            Command::Status(command) => command.run(),
            Command::Health(command) => command.run(),
            Command::Demo(command) => command.run(self.log_format, log_level),
            Command::Key(command) => command.run(),
            Command::Schema(command) => command.run(),
            Command::Completions(command) => command.run(),
            Command::Man(command) => command.run(),
        }?;
        output::sync_stdout()
    }
}

fn print_help(help: &clap::Error) -> Result<(), Failure> {
    let text = help.render();
    let text = if io::stdout().is_terminal() { text.ansi().to_string() } else { text.to_string() };
    print(text.trim_end())?;
    output::sync_stdout()
}

/// Why a command failed.
#[derive(Debug)]
enum Failure {
    /// The configuration is invalid, with these findings.
    Config(Vec<Findings>),
    /// Another error, with its remedy if one is known.
    Other { what: String, hint: Option<String> },
    /// The running gateway cannot be reached, or does not show its state.
    Unavailable { what: String, hint: Option<String> },
    /// A file that the arguments name cannot be used.
    Input { what: String, hint: Option<String> },
    /// The arguments do not fit the configuration.
    Usage(String),
    /// The command has printed the reason already.
    Reported,
    /// The configuration is invalid, and the command has printed its findings already.
    ReportedConfig,
}

impl Failure {
    fn other(what: impl std::fmt::Display) -> Self {
        Self::Other { what: what.to_string(), hint: None }
    }

    fn code(&self) -> ExitCode {
        match self {
            Self::Config(_) | Self::Input { .. } | Self::ReportedConfig => ExitCode::from(78),
            Self::Usage(_) => ExitCode::from(2),
            // `EX_UNAVAILABLE` of sysexits.h.
            Self::Unavailable { .. } => ExitCode::from(69),
            Self::Other { .. } | Self::Reported => ExitCode::FAILURE,
        }
    }

    fn print(&self) {
        let text = match self {
            Self::Config(files) => {
                let files: Vec<_> = files.iter().map(ToString::to_string).collect();
                &files.join("\n")
            }
            Self::Usage(what)
            | Self::Input { what, hint: None }
            | Self::Unavailable { what, hint: None }
            | Self::Other { what, hint: None } => &format!("error: {what}"),
            Self::Input { what, hint: Some(hint) }
            | Self::Unavailable { what, hint: Some(hint) }
            | Self::Other { what, hint: Some(hint) } => &format!("error: {what}\n\nhint: {hint}"),
            Self::Reported | Self::ReportedConfig => return,
        };
        // If stderr cannot be written to, the exit code remains.
        let _ = warn(text);
    }

    /// Logs the reason instead, in the format of the log: one line for each finding.
    fn logged(self) -> Self {
        match self {
            Self::Config(files) => {
                let files: Vec<_> = files.into_iter().map(Findings::without_lines).collect();
                for (finding, hint) in files.iter().flat_map(Findings::told) {
                    tracing::error!(finding, hint, "the configuration is invalid");
                }
                let omitted: usize = files.iter().map(Findings::omitted).sum();
                if omitted > 0 {
                    tracing::error!(omitted, "the configuration has more findings");
                }
                Self::ReportedConfig
            }
            Self::Other { what, hint } => {
                tracing::error!(hint, "{what}");
                Self::Reported
            }
            failure => failure,
        }
    }
}

/// The argument of commands that need a configuration.
#[derive(Debug, clap::Args)]
struct ConfigFile {
    /// The configuration file
    #[arg(
        short = 'c',
        long = "config",
        value_name = "FILE",
        default_value = "/etc/boldgate/gateway.yaml",
        env = "BOLDGATE_CONFIG",
        hide_env_values = true
    )]
    path: PathBuf,
}

impl ConfigFile {
    /// The configuration; secrets of tenants may be unusable. Where a file hangs, the others are
    /// read without it: if it is the secret of a tenant, all other tenants can be served.
    fn load(&self) -> Result<Settings, Failure> {
        let reading = ReadThreads::default();
        let read = |reading: ReadThreads| {
            let path = self.path.clone();
            reading.run(move || load(&path))
        };
        let stuck = match read(reading.clone()) {
            Ok(read) => return read,
            Err(stuck) => stuck,
        };
        let second = match &stuck {
            ReadError::Hangs { .. } => read(reading.past_hanging()).ok(),
            _ => None,
        };
        match second {
            Some(Ok(settings)) if !settings.serves_nobody() => Ok(settings),
            _ => Err(is_stuck(&stuck)),
        }
    }

    /// The configuration with the secret of `tenant` alone.
    fn load_for(&self, tenant: &str) -> Result<Settings, Failure> {
        let (path, tenant) = (self.path.clone(), tenant.to_owned());
        read_files(move || {
            let (files, read) = Settings::read_with(&path, TenantSecrets::Only(&tenant));
            let read = read.and_then(Settings::with_all_secrets);
            read.map_err(|findings| invalid(findings, &files))
        })?
    }

    /// The keys of `tenant`, which is in this file of `tenant_files`, each with its place; `None`
    /// if it has gone meanwhile.
    fn explained(
        &self,
        tenant: &str,
        file: Option<&str>,
    ) -> Result<Option<ExplainedTenant>, Failure> {
        let (path, tenant) = (self.path.clone(), tenant.to_owned());
        let file = file.map(str::to_owned);
        read_files(move || {
            let read = Settings::explained(&path, &tenant, file.as_deref());
            read.map_err(|findings| invalid(findings, &Files::default()))
        })?
    }

    /// The configuration without the secrets of tenants, and with the place of each.
    fn load_without_secrets(&self) -> Result<Settings, Failure> {
        let path = self.path.clone();
        read_files(move || {
            let (files, read) = Settings::read_with(&path, TenantSecrets::NoneButPlace);
            read.map_err(|findings| invalid(findings, &files))
        })?
    }
}

/// Reads and checks a configuration. Secrets of tenants may be unusable.
fn load(path: &Path) -> Result<Settings, Failure> {
    let (files, read) = Settings::read(path);
    read.map_err(|findings| invalid(findings, &files))
}

/// The failure of a command by these faults. A file that cannot be read at the moment does not make
/// the configuration invalid: a supervisor may start the gateway again.
fn invalid(findings: Findings, files: &Files) -> Failure {
    match files.unreadable() {
        Some(file) => Failure::Other {
            what: findings.to_string(),
            hint: Some(format!("{file}: {}", file.hint())),
        },
        None => Failure::Config(vec![findings]),
    }
}

/// Runs `work`, which reads files of a configuration, within the deadline for it.
fn read_files<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    ReadThreads::default().run(work).map_err(|stuck| is_stuck(&stuck))
}

fn is_stuck(stuck: &ReadError) -> Failure {
    Failure::Other { what: stuck.to_string(), hint: Some(stuck.hint().to_owned()) }
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::other(format!("cannot start the runtime: {error}")))
}

const LOGS: &str = "Logs";
const EXIT_CODES: &str = "Exit codes: 0 success, 1 failure, 2 wrong usage, 69 the gateway cannot be \
reached (of `status`), 78 bad configuration";
