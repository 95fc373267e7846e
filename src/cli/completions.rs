//! `boldgate completions`.

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, Failure};

/// Print completions for a shell
#[derive(Debug, clap::Args)]
pub(super) struct CompletionsCommand {
    /// The shell
    shell: Shell,
}

impl CompletionsCommand {
    pub(super) fn run(self) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "boldgate", &mut script);
        super::print(String::from_utf8_lossy(&script).trim_end())
    }
}
