//! Files that cannot be replaced, or whose place no other file can take, as far as a look at them
//! tells.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Why the file of a secret cannot be replaced.
#[derive(Debug, thiserror::Error)]
#[error("`{}` cannot be replaced: {fault}", .path.display())]
pub struct UnfitFile {
    path: PathBuf,
    fault: Unfit,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Unfit {
    #[error("it is a symbolic link, so that something else writes it")]
    Link,
    #[error("it is no plain file")]
    NotPlain,
    #[error("it has {0} names (hard links), of which only one would get the new secret")]
    HardLinks(u64),
    #[error("it is in a volume of Kubernetes, which only Kubernetes changes")]
    Kubernetes,
    #[error("it is mounted by itself, so that no other file can take its name")]
    Mounted,
    #[error(
        "`{}` has a flag (`chattr +i` or `+a`) that keeps another file from taking its name",
        .0.display()
    )]
    Flagged(PathBuf),
    #[error("its owner cannot be kept: {0}")]
    Owner(io::Error),
    #[error("a file beside it cannot be written: {0}")]
    Unwritable(io::Error),
    #[error("it cannot be looked at: {0}")]
    Unreadable(io::Error),
}

impl UnfitFile {
    pub(super) fn new(path: &Path, fault: Unfit) -> Self {
        Self { path: path.to_owned(), fault }
    }

    /// The remedy.
    pub fn hint(&self) -> &'static str {
        match self.fault {
            Unfit::Kubernetes | Unfit::Link | Unfit::Mounted => KUBERNETES,
            Unfit::Flagged(_) => FLAGGED,
            Unfit::Owner(_) => OWNER,
            Unfit::Unwritable(_) => UNWRITABLE,
            _ => PLAIN,
        }
    }
}

/// The facts about the file at `secret`, if it can be replaced as far as a look at it tells.
pub(super) fn replaceable(secret: &Path) -> Result<Metadata, UnfitFile> {
    let unfit = |fault| UnfitFile::new(secret, fault);
    let known = fs::symlink_metadata(secret).map_err(|error| unfit(Unfit::Unreadable(error)))?;
    if known.is_symlink() {
        return Err(unfit(Unfit::Link));
    }
    if !known.is_file() {
        return Err(unfit(Unfit::NotPlain));
    }
    if known.nlink() > 1 {
        return Err(unfit(Unfit::HardLinks(known.nlink())));
    }
    let unreadable = |error| unfit(Unfit::Unreadable(error));
    let real = fs::canonicalize(secret).map_err(unreadable)?;
    // `..data` of a volume leads to the folder of the files, which is beside it.
    if real.ancestors().skip(1).take(2).any(|folder| folder.join("..data").is_symlink()) {
        return Err(unfit(Unfit::Kubernetes));
    }
    if is_mounted(&real) {
        return Err(unfit(Unfit::Mounted));
    }
    if let Some(fixed) = real.ancestors().take(2).find(|path| is_flagged(path)) {
        return Err(unfit(Unfit::Flagged(fixed.to_owned())));
    }
    Ok(known)
}

/// Whether something is mounted at the path itself, as a `subPath` of Kubernetes is, or a file that
/// a container gets by its name.
pub(super) fn is_mounted(path: &Path) -> bool {
    // Without `/proc`, renaming tells.
    let Ok(mounts) = fs::read_to_string("/proc/self/mountinfo") else { return false };
    let escaped = path.to_string_lossy().replace('\\', "\\134").replace(' ', "\\040");
    let escaped = escaped.replace('\t', "\\011").replace('\n', "\\012");
    mounts.lines().filter_map(|line| line.split(' ').nth(4)).any(|at| at == escaped)
}

/// Whether a flag of the file system keeps a file, or the entries of a folder, as they are. A file
/// can be made beside such a file, and not take its name.
#[cfg(target_os = "linux")]
fn is_flagged(path: &Path) -> bool {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    // Where the file system has no such flags, renaming tells.
    let Ok(facts) = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty()) else {
        return false;
    };
    facts.stx_attributes.intersects(StatxAttributes::IMMUTABLE | StatxAttributes::APPEND)
}

/// Renaming tells.
#[cfg(not(target_os = "linux"))]
fn is_flagged(_path: &Path) -> bool {
    false
}

const KUBERNETES: &str = "rotate by hand: generate the secret in Bold BI (Settings > Embed), then change the Secret, \
                          vault or file that this one comes from; `credential.hold` bridges the time in between";
const FLAGGED: &str = "`lsattr -d` shows the flag: take it away with `chattr -i` or `chattr -a`, or rotate by hand, with \
                       `credential.hold` for the time in between";
const OWNER: &str = "run this as the owner of the file, or as root";
/// The remedy where a file beside the secret cannot be written.
pub const UNWRITABLE: &str = "let this user write into the folder, on a file system with room that is not read-only; or \
                          rotate by hand, with `credential.hold` for the time in between";
const PLAIN: &str =
    "keep the secret in a plain file of its own, in a folder that this user may write into";
