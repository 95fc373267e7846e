//! `boldgate man`, which packages call when they are built.

use clap::CommandFactory;
use clap::builder::Resettable;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::{Cli, Failure, print};

/// Print the manual page of boldgate, or of one of its commands
#[derive(Debug, clap::Args)]
pub(super) struct ManCommand {
    /// The command; without it, the page is that of boldgate itself
    command: Option<String>,
}

impl ManCommand {
    pub(super) fn run(self) -> Result<(), Failure> {
        let mut all = Cli::command().disable_help_subcommand(true);
        // Commands get the options that all have in common.
        all.build();
        let Some(name) = self.command else {
            return print(page(all, &[files()])?.trim_end());
        };
        let found = all.find_subcommand(&name).filter(|command| !command.is_hide_set());
        match found.cloned() {
            Some(command) => print(page(command, &[])?.trim_end()),
            None => Err(Failure::Usage(format!("`{name}` is no command; `--help` lists them all"))),
        }
    }
}

fn page(command: clap::Command, more: &[Roff]) -> Result<String, Failure> {
    let mut page = Vec::new();
    let source = concat!("boldgate ", env!("CARGO_PKG_VERSION"));
    let notes = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    // The library would call their section EXTRA.
    let command = command.after_help(Resettable::Reset);
    let rendered = Man::new(command).manual("boldgate").source(source).render(&mut page);
    let notes = sections(&notes);
    rendered
        .and_then(|()| notes.iter().chain(more).try_for_each(|part| part.to_writer(&mut page)))
        .map_err(|error| Failure::other(format!("the page cannot be made: {error}")))?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

/// The paragraphs below the options: exit codes have the section that readers of manuals look for.
fn sections(notes: &str) -> Vec<Roff> {
    let paragraphs = || notes.split("\n\n").filter(|paragraph| !paragraph.is_empty());
    let codes = |paragraph: &&str| paragraph.starts_with("Exit codes: ");
    let (status, notes): (Vec<_>, Vec<_>) = paragraphs().partition(codes);
    [("EXIT STATUS", status), ("NOTES", notes)]
        .into_iter()
        .filter(|(_, texts)| !texts.is_empty())
        .map(|(title, texts)| {
            let mut section = Roff::new();
            section.control("SH", [title]);
            for (index, text) in texts.into_iter().enumerate() {
                if index > 0 {
                    section.control("PP", []);
                }
                section.text([roman(text)]);
            }
            section
        })
        .collect()
}

fn files() -> Roff {
    let mut files = Roff::new();
    files.control("SH", ["FILES"]);
    for (path, text) in FILES {
        files.control("TP", []).text([bold(path)]).text([roman(text)]);
    }
    files.control("SH", ["SEE ALSO"]).text([roman(SEE_ALSO)]);
    files
}

const FILES: [(&str, &str); 2] = [
    ("/etc/boldgate/gateway.yaml", "The configuration. A change applies without a restart."),
    ("/etc/boldgate/secrets", "A folder for the files of secrets that the configuration names."),
];
const SEE_ALSO: &str =
    "boldgate-serve(1), boldgate-check(1), boldgate-doctor(1), boldgate-explain(1), systemd(1)";
