//! The command that ends a rotation which has begun and not ended, whole: an operator pastes it.

use std::path::{Path, PathBuf};

use super::journal::begun_by;

/// The command for the tenants of one configuration.
#[derive(Clone, Debug)]
pub struct ResumeCommand {
    config: PathBuf,
    token_file: Option<PathBuf>,
}

impl ResumeCommand {
    /// The command for the tenants of this configuration file.
    pub fn new(config: &Path) -> Self {
        Self { config: absolute(config), token_file: None }
    }

    /// The same with the file of the token that the running gateway asks for, if it must be named.
    #[must_use]
    pub fn with_token_file(self, token_file: Option<&Path>) -> Self {
        Self { token_file: token_file.map(absolute), ..self }
    }

    /// The command for the secret with this number, from 0, of a tenant. Only the audit log names
    /// users: other logs have `administrator` as `None`.
    pub fn text(&self, tenant: &str, number: usize, administrator: Option<&str>) -> String {
        let administrator = administrator.and_then(quoted);
        let administrator = administrator.as_deref().unwrap_or("USER");
        let mut text = format!("boldgate rotate {tenant} --admin-subject {administrator} --resume");
        if number == 1 {
            text.push_str(" --position 2");
        }
        if let Some(file) = &self.token_file {
            text.push_str(" --token-file ");
            text.push_str(&file.to_str().and_then(quoted).unwrap_or_else(|| "FILE".to_owned()));
        }
        text.push_str(" --config ");
        text.push_str(&self.config.to_str().and_then(quoted).unwrap_or_else(|| "FILE".to_owned()));
        text
    }

    /// The same for the secret in the file at `secret`, with the administrator that its journal
    /// names, as far as it can be read.
    pub fn text_by_journal(&self, tenant: &str, number: usize, secret: &Path) -> String {
        self.text(tenant, number, begun_by(secret).as_deref())
    }
}

/// A log is read in another folder than that of the gateway.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// A word as a shell reads it back. `None` if that could fail: the operator fills it in.
fn quoted(text: &str) -> Option<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "@._+-/:=,".contains(c);
    let is_kept = |c: char| c.is_alphanumeric() || c == ' ' || c.is_ascii_punctuation();
    if text.is_empty() || text.starts_with('-') {
        None
    } else if text.chars().all(is_plain) {
        Some(text.to_owned())
    } else {
        // The command itself stands between backticks.
        let is_safe = text.chars().all(|c| is_kept(c) && c != '\'' && c != '`');
        is_safe.then(|| format!("'{text}'"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_whole_and_what_a_shell_would_read_otherwise_is_quoted_or_not_shown() {
        let plain = ResumeCommand::new(Path::new("/etc/boldgate/gateway.yaml"));
        assert_eq!(
            plain.text("acme", 0, None),
            "boldgate rotate acme --admin-subject USER --resume --config /etc/boldgate/gateway.yaml"
        );
        let other = ResumeCommand::new(Path::new("/etc/bold gate/$x.yaml"));
        let other = other.with_token_file(Some(Path::new("/run/token")));
        assert_eq!(
            other.text("acme", 1, Some("ann+x@example.com")),
            "boldgate rotate acme --admin-subject ann+x@example.com --resume --position 2 \
             --token-file /run/token --config '/etc/bold gate/$x.yaml'"
        );
        for odd in ["", "-x", "a'b", "a`b", "a\nb", "a\u{1b}[31m"] {
            let text = plain.text("acme", 0, Some(odd));
            assert!(text.contains("--admin-subject USER "), "{text}");
        }
    }
}
