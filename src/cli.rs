//! The command line: one file a command, and what they share. The only place that prints.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::config::Settings;
use crate::plain_file::ReadThreads;
use output::{complain, say};

mod check;
mod completions;
mod core_dumps;
mod demo;
mod explain;
mod key;
mod logging;
mod output;
mod schema;
mod serve;
mod token;

/// Authentication gateway for Bold BI: applications call its REST API without a token, boldgate
/// admits them, obtains and keeps the tokens, and puts them on
#[derive(Debug, Parser)]
#[command(name = "boldgate", version, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Cli {
    /// How much boldgate logs about itself, on stderr; the access log is not affected
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
    /// How both logs look; `auto` is text on a terminal and JSON elsewhere
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
    Serve(serve::Serve),
    /// Check configuration files, and all that they refer to, as `serve` would
    Check(check::Check),
    /// Say what would become of a request, and why, without sending anything to Bold BI
    Explain(explain::Explain),
    /// Obtain one token as `serve` would, and say what it is good for
    Token(token::Token),
    /// Show it all on this machine: a pretend Bold BI, the gateway before it, two tenants
    Demo(demo::Demo),
    /// Make an API key for a caller, and the hash of it for the configuration
    Key(key::Key),
    /// Print the JSON Schema of the configuration file
    Schema(schema::Schema),
    /// Print completions for a shell
    Completions(completions::Completions),
}

impl Command {
    /// All others end before anybody could want one.
    fn may_leave_core_dumps(&self) -> bool {
        matches!(self, Self::Serve(serve) if serve.core_dumps)
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Auto,
    Text,
    Json,
}

impl Cli {
    /// Runs the command that the arguments of the process name. The exit code says how it went: 0
    /// well, 1 it failed, 2 wrong usage, 78 the configuration is bad (`EX_CONFIG` of sysexits.h).
    pub fn main() -> ExitCode {
        output::outlive_full_files();
        let result = match Self::try_parse() {
            Ok(cli) => cli.run(),
            // Help, or the version, that was asked for.
            Err(told) if !told.use_stderr() => say_help(&told),
            Err(wrong) => wrong.exit(),
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
        logging::start(self.log_level, self.log_format);
        if !self.command.may_leave_core_dumps() {
            core_dumps::forbid();
        }
        match self.command {
            Command::Serve(command) => return command.run(self.log_format),
            Command::Check(command) => command.run(),
            Command::Explain(command) => command.run(),
            Command::Token(command) => command.run(),
            Command::Demo(command) => command.run(self.log_format),
            Command::Key(command) => command.run(),
            Command::Schema(command) => command.run(),
            Command::Completions(command) => command.run(),
        }?;
        output::settle()
    }
}

fn say_help(help: &clap::Error) -> Result<(), Failure> {
    let text = help.render();
    let text = if io::stdout().is_terminal() { text.ansi().to_string() } else { text.to_string() };
    say(text.trim_end())?;
    output::settle()
}

/// How a command fails.
#[derive(Debug)]
enum Failure {
    /// The configuration is bad; all that is wrong with it, as text.
    Config(String),
    /// Anything else, and what to do about it, if that is known.
    Other { what: String, hint: Option<String> },
    /// It has said what was wrong already.
    Said,
}

impl Failure {
    fn other(what: impl std::fmt::Display) -> Self {
        Self::Other { what: what.to_string(), hint: None }
    }

    fn code(&self) -> ExitCode {
        match self {
            Self::Config(_) => ExitCode::from(78),
            Self::Other { .. } | Self::Said => ExitCode::FAILURE,
        }
    }

    fn print(&self) {
        let text = match self {
            Self::Config(findings) => findings.trim_end(),
            Self::Other { what, hint: None } => &format!("error: {what}"),
            Self::Other { what, hint: Some(hint) } => &format!("error: {what}\n\nhint: {hint}"),
            Self::Said => return,
        };
        // If not even that can be written, the exit code says it.
        let _ = complain(text);
    }
}

/// The configuration file, where a command needs one.
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
    fn load(&self) -> Result<Settings, Failure> {
        let path = self.path.clone();
        read_files(move || load(&path))?
    }
}

/// Reads and checks a configuration. That a file could not be read for a passing reason is no fault
/// of the configuration: a supervisor may start the gateway again.
fn load(path: &Path) -> Result<Settings, Failure> {
    let (files, read) = Settings::read(path);
    read.map_err(|findings| match files.unreadable() {
        Some(file) => Failure::Other {
            what: findings.to_string(),
            hint: Some(format!("{file}: {}", file.hint())),
        },
        None => Failure::Config(findings.to_string()),
    })
}

/// Does work that reads the files of a configuration, within the deadline for that.
fn read_files<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    ReadThreads::default().run(work).map_err(|stuck| Failure::Other {
        what: stuck.to_string(),
        hint: Some(stuck.hint().to_owned()),
    })
}

/// The runtime that a command works in.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::other(format!("cannot start the runtime: {error}")))
}

const LOGS: &str = "Logs";
const EXIT_CODES: &str = "Exit codes: 0 success, 1 failure, 2 wrong usage, 78 bad configuration";
