//! Why a file may not be read: the user of this process, and the owner and mode of the file or of
//! the folder that is closed.

use std::fmt::Write as _;
use std::fs::{Metadata, metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::process::{getegid, geteuid};

/// The same error; of a file at `path` that may not be read, with the reason.
pub(super) fn explained(path: &Path, error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return error;
    }
    let process = Owner { user: geteuid().as_raw(), group: getegid().as_raw() };
    let mut text = format!("{error}: boldgate runs as {process}");
    // Of the path, only a folder that exists is shown: a secret may stand in place of the path.
    let folders = || path.ancestors().skip(1).filter(|folder| folder.is_absolute());
    if let Ok(file) = metadata(path) {
        text += &format!(", the file belongs to {}", described(&file));
        if may_read(&file, &process) {
            text += ", which allows it: look at access control lists, SELinux and AppArmor";
        }
    } else if let Some((folder, closed)) = folders().find_map(|f| Some((f, metadata(f).ok()?))) {
        let name = folder.display().to_string();
        let _ = write!(text, ", the folder `{}` belongs to ", name.escape_debug());
        text += &described(&closed);
    }
    io::Error::new(error.kind(), text)
}

/// A user and a group by their numbers.
struct Owner {
    user: u32,
    group: u32,
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "user {} and group {}", self.user, self.group)
    }
}

/// The owner and mode of a file, as `ls -ln` and `chmod` have them.
fn described(file: &Metadata) -> String {
    let owner = Owner { user: file.uid(), group: file.gid() };
    format!("{owner} with mode {:04o}", file.mode() & 0o7777)
}

/// Whether the mode alone lets the process read, its further groups aside.
fn may_read(file: &Metadata, process: &Owner) -> bool {
    let bit = if file.uid() == process.user {
        0o400
    } else if file.gid() == process.group {
        0o040
    } else {
        0o004
    };
    file.mode() & bit != 0
}

/// Whether every user of this machine can read the plain file at `path`: its mode says so, and so
/// do the modes of all folders above it.
pub fn is_open_to_all(path: &Path) -> bool {
    let has = |path: &Path, bit| metadata(path).is_ok_and(|found| found.mode() & bit != 0);
    // To follow all links of a hundred thousand closed files would take a second.
    if !has(path, 0o004) {
        return false;
    }
    let Ok(path) = path.canonicalize() else { return false };
    has(&path, 0o004) && path.ancestors().skip(1).all(|folder| has(folder, 0o001))
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, create_dir, set_permissions, write};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path, mode: u32) {
        set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_refused_read_names_the_process_and_the_owner_of_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let denied = || io::Error::from_raw_os_error(13);
        let process = format!("user {} and group {}", geteuid().as_raw(), getegid().as_raw());
        mode(file.path(), 0o040);
        let text = explained(file.path(), denied()).to_string();
        let expected = format!(
            "Permission denied (os error 13): boldgate runs as {process}, the file belongs to \
             {process} with mode 0040"
        );
        assert_eq!(text, expected);
        mode(file.path(), 0o600);
        let text = explained(file.path(), denied()).to_string();
        assert!(text.contains("mode 0600, which allows it: look at"), "{text}");
        // The path itself may be a secret. A folder that exists is none.
        let gone = file.path().with_file_name("canary").join("secret");
        let text = explained(&gone, denied()).to_string();
        let folder = file.path().parent().unwrap().display().to_string();
        assert!(text.contains(&format!(", the folder `{folder}` belongs to user ")), "{text}");
        assert!(!text.contains("canary"), "{text}");
        // Control: another error.
        let text = explained(file.path(), io::Error::from_raw_os_error(2)).to_string();
        assert_eq!(text, "No such file or directory (os error 2)");
    }

    #[test]
    fn a_file_is_open_to_all_if_its_folders_are_too() {
        let top = tempfile::tempdir().unwrap();
        let folder = top.path().join("folder");
        create_dir(&folder).unwrap();
        let file = folder.join("file");
        write(&file, "x").unwrap();
        let link = top.path().join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        for (of_top, of_folder, of_file, open) in [
            (0o755, 0o755, 0o644, true),
            (0o711, 0o711, 0o604, true),
            (0o755, 0o755, 0o640, false),
            (0o755, 0o750, 0o644, false),
            (0o700, 0o755, 0o644, false),
        ] {
            mode(&file, of_file);
            mode(&folder, of_folder);
            mode(top.path(), of_top);
            assert_eq!(is_open_to_all(&file), open, "{of_top:o} {of_folder:o} {of_file:o}");
            assert_eq!(is_open_to_all(&link), open, "through a link");
        }
    }
}
