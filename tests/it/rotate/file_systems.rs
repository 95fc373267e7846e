//! Places where the file of the secret cannot be replaced: nothing is asked of Bold BI then, and
//! the message says what to do. Cases are the same for root and for others, unless they say so.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::PathBuf;
use std::process::Command;

use super::*;

/// A setup whose secret is in a folder of its own.
struct Vault {
    setup: Setup,
    folder: PathBuf,
}

impl Vault {
    async fn new() -> Self {
        let setup = Setup::new().await;
        let folder = setup.files.path("vault");
        fs::create_dir(&folder).unwrap();
        fs::rename(setup.files.path("secret"), folder.join("secret")).unwrap();
        let vault = Self { setup, folder };
        vault.keep_secret_at(&vault.folder.join("secret"));
        vault
    }

    /// Writes the configuration anew, with the secret at `path`.
    fn keep_secret_at(&self, path: &Path) {
        let file = self.setup.files.path("boldgate.yaml");
        let config = fs::read_to_string(&file).unwrap();
        let (before, after) = config.split_once("embed_secret: { file: \"").unwrap();
        let (_, after) = after.split_once('"').unwrap();
        let at = path.display();
        fs::write(file, format!("{before}embed_secret: {{ file: \"{at}\"{after}")).unwrap();
    }

    fn secret(&self) -> PathBuf {
        self.folder.join("secret")
    }

    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(&self.folder).unwrap();
        let mut names: Vec<_> =
            names.map(|name| name.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// `boldgate rotate` as the last words of this command.
    async fn rotate_by(&self, mut command: Command) -> Ended {
        command.arg(env!("CARGO_BIN_EXE_boldgate"));
        command.args([
            "rotate",
            "acme",
            "--admin-subject",
            ADMIN,
            "--settled-after",
            "2",
            "--config",
        ]);
        command.arg(self.setup.files.path("boldgate.yaml")).env("PATH", PATHS);
        spawn_blocking(move || Process::start(command).end()).await.unwrap()
    }

    /// It was refused with these words before anything was asked, and nothing is left of it.
    fn assert_refused(&self, case: &str, ended: &Ended, words: &[&str]) {
        assert_eq!(ended.code, Some(1), "{case}: {ended:?}");
        for word in words.iter().chain(&["nothing has changed"]) {
            assert!(ended.stderr.contains(word), "{case}: no `{word}`: {ended:?}");
        }
        let asked = self.setup.upstream.last_requests();
        assert!(asked.is_empty(), "{case}: Bold BI was asked: {} times", asked.len());
    }

    fn assert_unchanged(&self, case: &str) {
        assert_eq!(self.names(), ["secret"], "{case}");
        assert_eq!(fs::read_to_string(self.secret()).unwrap(), EMBED_SECRET, "{case}");
    }

    /// The control: without the fault, the same rotation succeeds.
    async fn assert_rotates(&self, case: &str) {
        let ended = self.rotate_by(plain()).await;
        assert_eq!(ended.code, Some(0), "{case}: {ended:?}");
        assert_eq!(self.setup.generated(), 1, "{case}");
        let secret = fs::read_to_string(self.secret()).unwrap();
        assert_eq!(self.setup.upstream.embed_secret(Some("site1")), Some(secret), "{case}");
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

fn plain() -> Command {
    Command::new("env")
}

/// Runs what follows by this script, as `"$@"`.
fn by_script(script: &str) -> Command {
    let mut command = Command::new("bash");
    command.args(["-c", script, "bash"]);
    command
}

/// Runs what follows as an ordinary user: root without its privileges, or this user.
fn ordinary() -> Command {
    if !is_root() {
        return plain();
    }
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-all", "--inh-caps=-all", "--"]);
    command
}

/// Runs what follows by this script, which may mount; `None` if this machine lets no test do so.
fn mounting(script: &str) -> Option<Command> {
    let flags = if is_root() { "-m" } else { "-rm" };
    let may =
        Command::new("unshare").args([flags, "mount", "-t", "tmpfs", "none", "/mnt"]).status();
    if !may.is_ok_and(|status| status.success()) {
        println!("this machine lets no test mount: a case is left out");
        return None;
    }
    let mut command = Command::new("unshare");
    command.args([flags, "bash", "-c", script, "bash"]);
    Some(command)
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_folder_that_it_may_not_write_nothing_is_asked() {
    let vault = Vault::new().await;
    fs::set_permissions(&vault.folder, Permissions::from_mode(0o555)).unwrap();
    let ended = vault.rotate_by(ordinary()).await;
    fs::set_permissions(&vault.folder, Permissions::from_mode(0o755)).unwrap();
    let words = ["secret.rotation", "Permission denied", "let this user write into the folder"];
    vault.assert_refused("folder", &ended, &words);
    vault.assert_unchanged("folder");
    vault.assert_rotates("folder").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_read_only_file_system_nothing_is_asked() {
    let vault = Vault::new().await;
    let at = vault.folder.display();
    let script =
        format!("mount --bind '{at}' '{at}' && mount -o remount,ro,bind '{at}' && exec \"$@\"");
    let Some(command) = mounting(&script) else { return };
    let ended = vault.rotate_by(command).await;
    let words = ["Read-only file system", "on a file system with room that is not read-only"];
    vault.assert_refused("read-only", &ended, &words);
    vault.assert_unchanged("read-only");
    vault.assert_rotates("read-only").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_nothing_is_asked_and_no_journal_is_left() {
    let vault = Vault::new().await;
    // Room for the journal and not for a secret; and room for neither.
    for kilobytes in [1, 0] {
        let script = format!("ulimit -f {kilobytes}; exec \"$@\"");
        let ended = vault.rotate_by(by_script(&script)).await;
        let case = format!("{kilobytes} KiB");
        vault.assert_refused(&case, &ended, &["File too large", "a file system with room"]);
        vault.assert_unchanged(&case);
    }
    // A file system that is full, and full but for the journal.
    let at = vault.folder.display();
    for (case, fill) in [("full", 4), ("nearly full", 3)] {
        let script = format!(
            "secret=$(cat '{at}/secret'); mount -t tmpfs -o size=16k,nr_inodes=100 none '{at}' &&
             umask 077 && printf %s \"$secret\" > '{at}/secret' &&
             head -c $(({fill} * 4096 - 4096)) /dev/zero > '{at}/filling' &&
             {{ \"$@\"; code=$?; ls -A '{at}' >&2; exit $code; }}"
        );
        let Some(command) = mounting(&script) else { return };
        let ended = vault.rotate_by(command).await;
        vault.assert_refused(case, &ended, &["No space left on device", "a file system with room"]);
        assert!(ended.stderr.ends_with("filling\nsecret\n"), "{case}: {ended:?}");
        vault.assert_unchanged(case);
    }
    vault.assert_rotates("a disk with room").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_volume_of_kubernetes_nothing_is_asked_by_whichever_path() {
    let vault = Vault::new().await;
    // As the kubelet writes a volume of a Secret.
    fs::create_dir(vault.folder.join("..2026_11_26")).unwrap();
    fs::rename(vault.secret(), vault.folder.join("..2026_11_26/secret")).unwrap();
    symlink("..2026_11_26", vault.folder.join("..data")).unwrap();
    symlink("..data/secret", vault.secret()).unwrap();
    let before = vault.names();
    for (path, found) in [
        ("secret", "it is a symbolic link"),
        ("..data/secret", "it is in a volume of Kubernetes"),
        ("..2026_11_26/secret", "it is in a volume of Kubernetes"),
    ] {
        vault.keep_secret_at(&vault.folder.join(path));
        let ended = vault.rotate_by(plain()).await;
        let words = [found, "rotate by hand", "change the Secret", "`credential.hold`"];
        vault.assert_refused(path, &ended, &words);
        assert_eq!(vault.names(), before, "{path}");
        assert_eq!(fs::read_dir(vault.folder.join("..data")).unwrap().count(), 1, "{path}");
    }
    // A `subPath`, or a file that a container gets by its name.
    let (other, at) = (Vault::new().await, "own");
    fs::write(other.folder.join(at), EMBED_SECRET).unwrap();
    let (from, to) = (other.folder.join(at), other.secret());
    let script = format!("mount --bind '{}' '{}' && exec \"$@\"", from.display(), to.display());
    let Some(command) = mounting(&script) else { return };
    let ended = other.rotate_by(command).await;
    other.assert_refused("subPath", &ended, &["it is mounted by itself", "rotate by hand"]);
    assert_eq!(other.names(), [at, "secret"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn owner_and_mode_are_kept_and_where_they_cannot_be_nothing_is_asked() {
    let vault = Vault::new().await;
    fs::set_permissions(vault.secret(), Permissions::from_mode(0o440)).unwrap();
    if is_root() {
        chown(vault.secret(), Some(65_534), Some(12_345)).unwrap();
        fs::set_permissions(vault.secret(), Permissions::from_mode(0o444)).unwrap();
        let ended = vault.rotate_by(ordinary()).await;
        let words = ["its owner cannot be kept", "run this as the owner of the file, or as root"];
        vault.assert_refused("another's", &ended, &words);
        vault.assert_unchanged("another's");
        fs::set_permissions(vault.secret(), Permissions::from_mode(0o440)).unwrap();
    }
    let before = fs::metadata(vault.secret()).unwrap();
    vault.assert_rotates("owner and mode").await;
    let after = fs::metadata(vault.secret()).unwrap();
    let kept = |of: &fs::Metadata| (of.uid(), of.gid(), of.mode());
    assert_eq!(kept(&after), kept(&before));
    assert_ne!(after.ino(), before.ino(), "control: it is another file");
}

/// Sets or takes away a flag of the file system. False if this user or file system cannot.
fn flag(change: &str, path: &Path) -> bool {
    let changed = Command::new("chattr").arg(change).arg(path).output();
    let changed = changed.is_ok_and(|ended| ended.status.success());
    if !changed {
        println!("{change} cannot be set here: a case is left out");
    }
    changed
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_flag_of_the_file_system_forbids_the_change_nothing_is_asked() {
    let vault = Vault::new().await;
    // Beside an immutable file, and in a folder that only grows, another file can be made; it could
    // not take the name of the secret.
    for (flags, path) in
        [("+i", vault.secret()), ("+i", vault.folder.clone()), ("+a", vault.folder.clone())]
    {
        if !flag(flags, &path) {
            return;
        }
        let ended = vault.rotate_by(plain()).await;
        assert!(flag(&flags.replace('+', "-"), &path));
        let case = format!("{flags} {}", path.display());
        vault.assert_refused(&case, &ended, &["chattr"]);
        vault.assert_unchanged(&case);
    }
    vault.assert_rotates("without flags").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_folder_that_has_vanished_nothing_is_asked() {
    let vault = Vault::new().await;
    fs::rename(&vault.folder, vault.setup.files.path("elsewhere")).unwrap();
    let ended = vault.rotate_by(plain()).await;
    assert_eq!(ended.code, Some(78), "the configuration tells already: {ended:?}");
    assert!(ended.stderr.contains("No such file or directory"), "{ended:?}");
    assert!(ended.stderr.contains("create the file"), "{ended:?}");
    assert!(vault.setup.upstream.last_requests().is_empty());
    fs::rename(vault.setup.files.path("elsewhere"), &vault.folder).unwrap();
    vault.assert_unchanged("gone");
    vault.assert_rotates("back").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_folder_vanishes_in_the_middle_the_message_says_what_is_left_to_do() {
    let vault = Vault::new().await;
    vault.setup.upstream.set_generate(GenerateReply::Ignored);
    let (ended, ()) = tokio::join!(vault.rotate_by(plain()), async {
        until(|| vault.setup.generated() == 1).await;
        fs::remove_dir_all(&vault.folder).unwrap();
    });
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for words in ["is unknown", "the journal has gone", "Settings > Embed"] {
        assert!(ended.stderr.contains(words), "{words}: {ended:?}");
    }
    assert!(!ended.stderr.contains("--resume"), "there is nothing to resume: {ended:?}");
}

const PATHS: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
