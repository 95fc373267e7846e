//! Secrets as types: a [`Secret`] cannot be printed, a [`SecretRef`] names its source.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::invisible::Invisible;
use crate::plain_file;
use crate::plain_file::limit::MAX_SECRET;

/// A secret in memory. It has neither `Display` nor `Deref` nor `Serialize`, its `Debug` is fixed,
/// and its bytes are overwritten when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Box<str>>);

impl Secret {
    /// Makes a secret of `value`.
    pub fn new(value: String) -> Self {
        // A text with room behind it would be copied, and the first copy would stay in memory.
        let value = Zeroizing::new(value);
        Self(Zeroizing::new(Box::from(value.as_str())))
    }

    /// The secret in a file with this content. One line end at the end is not part of it.
    ///
    /// # Errors
    /// When the file could not be read, or its content cannot be a secret.
    pub fn from_file(content: io::Result<Zeroizing<Vec<u8>>>) -> Result<Self, SecretError> {
        checked(content.map_err(|error| match error.kind() {
            io::ErrorKind::FileTooLarge => SecretError::TooLarge,
            _ => SecretError::Unreadable(error),
        })?)
    }

    /// The secret itself, for sending it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// The source of a secret. A configuration file holds only sources: literal secrets are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretRef {
    /// The environment variable of this name.
    Env(Box<str>),
    /// The file at this path; one line end at its end is not part of the secret.
    File(Arc<Path>),
}

impl SecretRef {
    /// Reads the secret.
    ///
    /// # Errors
    /// When the variable is unset, the file cannot be read, or the value cannot be a secret. No
    /// error holds any part of the value.
    pub fn read(&self) -> Result<Secret, SecretError> {
        match self {
            Self::Env(name) => {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "secrets are read here and nowhere else"
                )]
                let value = std::env::var_os(&**name).ok_or(SecretError::Unset)?;
                checked(Zeroizing::new(value.into_encoded_bytes()))
            }
            Self::File(path) => Secret::from_file(plain_file::read(path, MAX_SECRET)),
        }
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "the environment variable `{name}`"),
            Self::File(path) => write!(f, "the file `{}`", path.display()),
        }
    }
}

/// Why a secret could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// No such environment variable.
    #[error("it is not set")]
    Unset,
    /// The file cannot be opened or read.
    #[error("it cannot be read: {0}")]
    Unreadable(#[source] io::Error),
    /// It has no character, or only a line end.
    #[error("it is empty")]
    Empty,
    /// More than 64 KiB: most likely the wrong file.
    #[error("it is larger than 64 KiB, which no secret is")]
    TooLarge,
    /// An invisible character. It is not trimmed, because it may be a part of the secret.
    #[error("it has {0}")]
    Invisible(Invisible),
    /// Behind the line of the secret, there are empty lines.
    #[error("it has an empty line after the secret{}", if *.windows { " (Windows line ends, CR LF)" } else { "" })]
    EmptyLine {
        /// Whether its lines end as Windows ends them.
        windows: bool,
    },
    /// More than one line.
    #[error("it holds more than one line")]
    Lines,
    /// Binary data.
    #[error("it holds control characters or bytes that are not UTF-8")]
    NotText,
}

fn checked(mut bytes: Zeroizing<Vec<u8>>) -> Result<Secret, SecretError> {
    if bytes.len() > MAX_SECRET {
        return Err(SecretError::TooLarge);
    }
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| SecretError::NotText)?;
    if text.is_empty() {
        return Err(SecretError::Empty);
    }
    if let Some(found) = Invisible::find(text) {
        return Err(SecretError::Invisible(found));
    }
    let lines = text.trim_end_matches(['\r', '\n']);
    if lines.chars().any(|c| c.is_control() && !matches!(c, '\r' | '\n')) {
        return Err(SecretError::NotText);
    }
    if lines.contains(['\r', '\n']) {
        return Err(SecretError::Lines);
    }
    if lines != text {
        return Err(SecretError::EmptyLine { windows: text.contains('\r') });
    }
    Ok(Secret(Zeroizing::new(text.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_file(content: &[u8]) -> Result<Secret, SecretError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        SecretRef::File(file.path().into()).read()
    }

    #[test]
    fn a_secret_prints_as_redacted() {
        let secret = Secret::new("canary".into());
        assert_eq!(format!("{secret:?} {secret:#?}"), "[redacted] [redacted]");
        assert_eq!(secret.expose(), "canary");
    }

    #[test]
    fn one_line_end_is_not_part_of_the_secret() {
        for content in ["pass word", "pass word\n", "pass word\r\n"] {
            assert_eq!(in_file(content.as_bytes()).unwrap().expose(), "pass word");
        }
    }

    #[test]
    fn invalid_secrets_are_refused_without_showing_them() {
        assert!(matches!(in_file(b""), Err(SecretError::Empty)));
        assert!(matches!(in_file(b"\n"), Err(SecretError::Empty)));
        assert!(matches!(in_file(b"canary\nsecond"), Err(SecretError::Lines)));
        assert!(matches!(in_file(b"canary\r\n\r\nsecond\r\n"), Err(SecretError::Lines)));
        assert!(matches!(in_file(b"canary\tsecond\n\n"), Err(SecretError::NotText)));
        assert!(matches!(in_file(b"canary\xff"), Err(SecretError::NotText)));
        assert!(matches!(in_file(&vec![b'x'; MAX_SECRET + 1]), Err(SecretError::TooLarge)));
        let error = in_file(b"canary\nsecond").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("canary"));
    }

    #[test]
    fn invisible_characters_are_reported_and_never_trimmed() {
        for (content, says) in [
            ("\u{FEFF}canary", "a byte order mark (U+FEFF) at its beginning"),
            ("\u{FEFF}canary\r\n", "a byte order mark (U+FEFF) at its beginning"),
            (" canary\n", "a blank (U+0020) at its beginning"),
            ("canary \n", "a blank (U+0020) at its end"),
            ("canary\u{A0}", "a no-break space (U+00A0) at its end"),
            ("can\u{200B}ary", "a zero-width space (U+200B) in its middle"),
            (" \n", "a blank (U+0020) at its beginning"),
        ] {
            let error = in_file(content.as_bytes()).unwrap_err().to_string();
            assert_eq!(error, format!("it has {says}"), "{content:?}");
        }
        // Of two line ends, one would be a part of the secret.
        for (content, has_windows_ends) in
            [("canary\n\n", false), ("canary\r\n\r\n", true), ("canary\r", true)]
        {
            let error = in_file(content.as_bytes()).unwrap_err();
            assert!(
                matches!(error, SecretError::EmptyLine { windows } if windows == has_windows_ends),
                "{content:?}: {error}"
            );
        }
        // Control.
        assert_eq!(in_file("pass word é\n".as_bytes()).unwrap().expose(), "pass word é");
    }

    #[test]
    fn a_missing_source_is_an_error() {
        let gone = SecretRef::File(Path::new("/nonexistent/secret").into());
        assert!(matches!(gone.read(), Err(SecretError::Unreadable(_))));
        assert!(matches!(SecretRef::Env("BOLDGATE_UNSET".into()).read(), Err(SecretError::Unset)));
    }
}
