//! Names that findings show although a secret may stand in their place by mistake: of files and of
//! environment variables. They are shown if they cannot well be a secret.

use std::path::{Component, Path};
use std::sync::Arc;

use crate::plain_file;

/// A blank and the path, to follow the word for the file in a message. Empty if it may be a secret:
/// there is nothing at it, and it does not read like a path.
pub(super) fn file(path: &Path) -> String {
    let named = plain_file::named(path);
    if named.is_empty() && reads_like_a_path(path) {
        return format!(" `{}`", path.display().to_string().escape_debug());
    }
    named
}

/// The name of a file of tenants in findings.
pub(super) fn tenant_file(path: &Path) -> Arc<str> {
    path.display().to_string().escape_debug().to_string().into()
}

/// A blank and the name of a variable, to follow the word for it in a message. Empty if it may be a
/// secret: the names of variables are in upper case (POSIX.1-2024, 8.1), and few secrets are.
pub(super) fn variable(name: &str) -> String {
    let is_upper = !name.bytes().any(|b| b.is_ascii_lowercase());
    let is_name = name.split('_').filter(|word| !word.is_empty()).all(is_word);
    if is_upper && is_name { format!(" `{name}`") } else { String::new() }
}

/// Two or more names of words below the root; or below a folder of the working directory.
fn reads_like_a_path(path: &Path) -> bool {
    let mut names = path.components().peekable();
    let is_absolute = names.next_if(|name| *name == Component::RootDir).is_some();
    let is_below_folder = || {
        let mut all = path.components();
        all.next().is_some_and(|first| Path::new(&first).is_dir()) && all.next().is_some()
    };
    let is_plain = |name: Component<'_>| {
        name.as_os_str().to_str().is_some_and(|name| {
            name.split(['-', '_', '.']).filter(|word| !word.is_empty()).all(is_word)
        })
    };
    (is_absolute && path.components().count() > 2 || !is_absolute && is_below_folder())
        && names.all(is_plain)
}

/// Letters, or a short mixture of letters and digits. Random text of the length of a secret is
/// neither.
pub(super) fn is_word(word: &str) -> bool {
    let is_alphanumeric = word.bytes().all(|b| b.is_ascii_alphanumeric());
    let has_digits = word.bytes().any(|b| b.is_ascii_digit());
    is_alphanumeric && word.len() <= if has_digits { MAX_MIXED } else { MAX_LETTERS }
}

/// Longest word of letters, and with digits among them.
const MAX_LETTERS: usize = 20;
const MAX_MIXED: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_variables_are_shown_and_secrets_in_their_place_are_not() {
        for name in ["ACME_EMBED_SECRET", "SECRET", "BOLDBI_SITE1_SECRET_2", "_X", "ADMINISTRATOR"]
        {
            assert_eq!(variable(name), format!(" `{name}`"));
        }
        for secret in [
            "hunter2",
            "X6FULIs0qTTqIjHxDQ4hxkDqIYTs2fvy",
            "JBSWY3DPEHPK3PXP",
            "9F86D081884C7D659A2FEAA0C55AD015",
            "CORRECTHORSEBATTERYSTAPLE",
        ] {
            assert_eq!(variable(secret), "", "{secret}");
        }
    }

    #[test]
    fn paths_are_shown_and_secrets_in_their_place_are_not() {
        for path in [
            "/run/secrets/acme",
            "/etc/boldgate/secrets/acme-embed_secret.txt",
            "/nonexistent/secret",
            "/Cargo.toml/../x.pem",
            "tests/config/gone",
            "Cargo.toml",
        ] {
            let shown = file(Path::new(path));
            // A file of the working directory is a single word, such as a password.
            let expected = if path == "Cargo.toml" { String::new() } else { format!(" `{path}`") };
            assert_eq!(shown, expected);
        }
        for secret in [
            "hunter2",
            "/hunter2",
            "hunter/2",
            "/9j4AAQSkZJRgABAQAAAQABAAD/2wBDAAMCAgICAgMCAg==",
            "tests/9j4AAQSkZJRgABAQAAAQABAAD",
            "/run/p@ss/word",
            "",
        ] {
            assert_eq!(file(Path::new(secret)), "", "{secret}");
        }
    }
}
