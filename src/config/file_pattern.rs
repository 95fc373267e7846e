//! The paths of `tenant_files`: a folder, and a pattern of the names of files in it.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::plain_file;

/// The files of one folder whose names match a pattern.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FilePattern {
    folder: PathBuf,
    name: String,
}

impl FilePattern {
    /// `None` if there is no name of a file, or a mark of a pattern is in the path of the folder.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (folder, name) = match text.rsplit_once('/') {
            Some(("", name)) => ("/", name),
            Some(parts) => parts,
            None => (".", text),
        };
        let is_plain = !folder.contains(['*', '?']) && !matches!(name, "" | "." | "..");
        is_plain.then(|| Self { folder: folder.into(), name: name.to_owned() })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether a file of this name is one of them. A `*` is any text and a `?` any character. Names
    /// that begin with a dot match no mark: editors and volumes have such files for themselves.
    pub fn matches(&self, name: &OsStr) -> bool {
        let Some(name) = name.to_str() else { return false };
        let is_hidden = name.starts_with('.') && !self.name.starts_with('.');
        !is_hidden && matches(self.name.as_bytes(), name.as_bytes())
    }

    /// The files that are there now, sorted.
    ///
    /// # Errors
    /// When the folder cannot be read, or has too many files.
    pub(super) fn files(&self) -> io::Result<Vec<PathBuf>> {
        plain_file::list(&self.folder, MAX_FILES, |name| self.matches(name))
    }
}

impl fmt::Display for FilePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.folder.join(&self.name).display())
    }
}

/// Goes back to the last `*` only, which is enough, and takes time in proportion to both lengths.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut read, mut star) = (0, 0, None);
    while read < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, read));
                at += 1;
            }
            Some(mark) if *mark == name[read] || *mark == b'?' => {
                at += 1;
                read += 1;
            }
            _ => {
                let Some((of_star, taken)) = star else { return false };
                star = Some((of_star, taken + 1));
                (at, read) = (of_star + 1, taken + 1);
            }
        }
    }
    pattern[at..].iter().all(|mark| *mark == b'*')
}

/// Most files of one pattern.
const MAX_FILES: usize = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_names_in_one_folder_and_no_hidden_ones() {
        let pattern = FilePattern::parse("/etc/boldgate/tenants.d/*.yaml").unwrap();
        assert_eq!(pattern.folder(), Path::new("/etc/boldgate/tenants.d"));
        for (pattern, name, expected) in [
            ("*.yaml", "acme.yaml", true),
            ("*.yaml", ".yaml", false),
            ("*.yaml", ".acme.yaml.swp", false),
            ("*.yaml", ".acme.yaml", false),
            ("*.yaml", "acme.yaml~", false),
            ("*.yaml", "acme.yml", false),
            ("*", "..data", false),
            ("*", "acme", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("part-??.yaml", "part-07.yaml", true),
            ("part-??.yaml", "part-007.yaml", false),
            ("acme.yaml", "acme.yaml", true),
            (".acme", ".acme", true),
            ("a**", "a", true),
        ] {
            let of = FilePattern::parse(pattern).unwrap();
            assert_eq!(of.matches(OsStr::new(name)), expected, "{pattern} {name}");
        }
        assert_eq!(FilePattern::parse("tenants.yaml").unwrap().folder(), Path::new("."));
        for text in ["", "/etc/*/tenants.yaml", "/etc/tenants.d/", "..", "/etc/?/x"] {
            assert_eq!(FilePattern::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_long_name_and_many_marks_take_no_time() {
        let (pattern, name) = ("*a".repeat(100) + "b", "a".repeat(255));
        assert!(!FilePattern::parse(&pattern).unwrap().matches(OsStr::new(&name)));
    }
}
