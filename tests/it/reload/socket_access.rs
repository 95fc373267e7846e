//! The mode and the group of a Unix socket decide which processes may connect, also after a change.

use std::fs::Permissions;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::process::{Gid, Uid, geteuid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::support::client::Client;
use crate::support::edit::Edit;
use crate::support::files::{Files, write};
use crate::support::gateway::{anonymous, listening_at};
use crate::support::process::{Process, boldgate};
use crate::support::reloads::{ACME, PATIENCE, log_line, log_lines, two_sites};
use crate::support::upstream::dead_address;
use crate::support::waiting::{becomes, until};

use super::restarts::activated;

/// Nobody has these numbers.
const GROUP: u32 = 54_321;
const OTHER_GROUP: u32 = 54_322;
const USER: u32 = 54_323;

/// Whether a process of this group, which is not root's, may connect.
fn may_connect(socket: &Path, group: u32) -> bool {
    let socket = socket.to_owned();
    let connected = std::thread::spawn(move || {
        let (user, group) = (Uid::from_raw(USER), Gid::from_raw(group));
        // Of this thread alone.
        set_thread_groups(&[]).unwrap();
        set_thread_res_gid(group, group, group).unwrap();
        set_thread_res_uid(user, user, user).unwrap();
        UnixStream::connect(socket).map(drop)
    });
    match connected.join().unwrap() {
        Ok(()) => true,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => false,
        Err(error) => panic!("{error}"),
    }
}

fn access(socket: &Path) -> (u32, u32) {
    let file = socket.metadata().unwrap();
    (file.mode() & 0o777, file.gid())
}

/// The folder must let others in.
fn open(files: &Files) {
    let folder = files.path("");
    std::fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
}

/// Whoever may write to the folder of the socket must not choose what gets its mode.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_in_the_place_of_a_socket_changes_the_mode_of_no_other_file() {
    let upstream = two_sites().await;
    let files = Files::new();
    let socket = files.path("socket");
    let address = format!("unix:{}", socket.display());
    let plain = listening_at(&address, &files.config(&upstream, &["acme"], ""));
    let with =
        |keys: &str| plain.edit(&format!("\"{address}\", "), &format!("\"{address}\", {keys}, "));
    files.write("boldgate.yaml", &with("mode: 0600"));
    let gateway = files.serve();
    let private = files.path("secret");
    std::fs::set_permissions(&private, Permissions::from_mode(0o600)).unwrap();
    let refused = "the changed configuration is refused: the active configuration stays as a whole";
    std::fs::remove_file(&socket).unwrap();
    std::os::unix::fs::symlink(&private, &socket).unwrap();
    files.swap_in("boldgate.yaml", &with("mode: 0666"));
    becomes(PATIENCE, "it is refused", async || log_lines(&gateway, refused).len() == 1).await;
    assert_eq!(access(&private).0, 0o600);
    std::fs::remove_file(&socket).unwrap();
    files.swap_in("boldgate.yaml", &with("mode: 0660"));
    becomes(PATIENCE, "it is refused", async || log_lines(&gateway, refused).len() == 2).await;
    let findings: Vec<_> = log_lines(&gateway, refused)
        .iter()
        .map(|line| line["findings"].as_str().unwrap().to_owned())
        .collect();
    assert!(findings[0].contains("another file is in the place of this socket"), "{findings:?}");
    assert!(findings[1].contains("the file of this socket is gone"), "{findings:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_of_the_admin_listener_has_the_mode_of_its_key_from_the_start_on() {
    let upstream = two_sites().await;
    let files = Files::new();
    let socket = files.path("admin");
    let config = |mode: &str| {
        let admin = format!("admin: {{ address: \"unix:{}\"{mode} }}", socket.display());
        files.config(&upstream, &["acme"], "").edit("admin: { address: \"127.0.0.1:0\" }", &admin)
    };
    files.write("boldgate.yaml", &config(", mode: 0600"));
    let config_path = files.path("boldgate.yaml");
    let config_path = config_path.to_str().unwrap();
    let start = || Process::start(boldgate(&["serve", "--config", config_path]));
    let gateway = start();
    log_line(&gateway, "boldgate is ready").await;
    assert_eq!(access(&socket).0, 0o600);
    files.swap_in("boldgate.yaml", &config(""));
    let line = log_line(&gateway, "new values of these keys need a restart of boldgate").await;
    assert_eq!(line["keys"], "admin.mode", "{line}");
    assert_eq!(access(&socket).0, 0o600);
    drop(gateway);
    let gateway = start();
    log_line(&gateway, "boldgate is ready").await;
    assert_eq!(access(&socket).0, 0o660);
}

/// Only root can give a file a group that it is no member of.
#[tokio::test(flavor = "multi_thread")]
async fn the_mode_and_the_group_of_a_unix_socket_decide_who_may_connect() {
    if !geteuid().is_root() {
        return;
    }
    let upstream = two_sites().await;
    let files = Files::new();
    open(&files);
    let socket = files.path("socket");
    let address = format!("unix:{}", socket.display());
    let plain = listening_at(&address, &files.config(&upstream, &["acme"], ""));
    let with =
        |keys: &str| plain.edit(&format!("\"{address}\", "), &format!("\"{address}\", {keys}, "));
    files.write("boldgate.yaml", &with("group: 54321"));
    let gateway = files.serve();
    assert_eq!(access(&socket), (0o660, GROUP));
    let who = |socket: &Path| [GROUP, OTHER_GROUP].map(|group| may_connect(socket, group));
    assert_eq!(who(&socket), [true, false]);
    let mut stays = Client::over(tokio::net::UnixStream::connect(&socket).await.unwrap());
    let ask = format!("GET {ACME} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let inode = socket.metadata().unwrap().ino();

    for (config, expected, lets_in) in [
        (with("group: 54322"), (0o660, OTHER_GROUP), [false, true]),
        (with("mode: 0666"), (0o666, rustix::process::getegid().as_raw()), [true, true]),
        (with("mode: \"600\", group: 54321"), (0o600, GROUP), [false, false]),
        (with("mode: 0660, group: 54321"), (0o660, GROUP), [true, false]),
    ] {
        files.swap_in("boldgate.yaml", &config);
        becomes(PATIENCE, &config, async || access(&socket) == expected).await;
        assert_eq!(who(&socket), lets_in, "{expected:?}");
        stays.write(ask.as_bytes()).await;
        assert_eq!(stays.response().await.status, 200, "it connected before");
    }
    assert_eq!(socket.metadata().unwrap().ino(), inode, "it is the same socket all the time");

    // A change that is refused for another reason leaves the access as it was.
    let message = "the changed configuration is refused: the active configuration stays as a whole";
    let audit = format!("audit: {{ to: \"{}\" }}\n", files.path("nowhere/audit").display());
    files.swap_in("boldgate.yaml", &(with("mode: 0666, group: 54322") + &audit));
    becomes(PATIENCE, "it is refused", async || !log_lines(&gateway, message).is_empty()).await;
    assert_eq!(access(&socket), (0o660, GROUP));
}

/// As root, in a process of another user, because root may give a file any group.
#[test]
fn check_finds_that_boldgate_is_no_member_of_the_group_of_a_socket() {
    let folder = tempfile::tempdir().unwrap();
    let secret = write(&folder, "secret", "canary");
    let address = format!("unix:{}", folder.path().join("socket").display());
    let text = listening_at(&address, &anonymous(dead_address())).edit("SECRET_FILE", &secret);
    let file = write(&folder, "gateway.yaml", &text.edit("callers:", "group: 54321, callers:"));
    let binary = folder.path().join("boldgate");
    std::fs::copy(env!("CARGO_BIN_EXE_boldgate"), &binary).unwrap();
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
    for readable in [&secret, &file] {
        std::fs::set_permissions(readable, Permissions::from_mode(0o644)).unwrap();
    }
    let check = |group: u32| {
        let mut command = Command::new(&binary);
        command.arg("check").arg(&file).env_clear();
        if geteuid().is_root() {
            command.uid(USER).gid(group);
        }
        Process::start(command).end()
    };
    let ended = check(OTHER_GROUP);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("is no member of the group 54321"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("CAP_NET_BIND_SERVICE"), "{}", ended.stderr);
    // While a gateway listens there, too.
    let _listens = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).unwrap();
    assert_eq!(check(OTHER_GROUP).code, Some(1));
    std::fs::remove_file(folder.path().join("socket")).unwrap();
    assert!(ended.stderr.contains("a `group` of which this user is a member"), "{}", ended.stderr);
    // Control, which only root can do.
    if geteuid().is_root() {
        let ended = check(GROUP);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }
}

/// As systemd does.
#[tokio::test(flavor = "multi_thread")]
async fn a_socket_of_systemd_keeps_its_mode_and_the_log_says_so() {
    let upstream = two_sites().await;
    let files = Files::new();
    let socket = files.path("socket");
    let address = format!("unix:{}", socket.display());
    let plain = listening_at(&address, &files.config(&upstream, &["acme"], ""));
    let asks = plain.edit(&format!("\"{address}\", "), &format!("\"{address}\", mode: 0666, "));
    files.write("boldgate.yaml", &asks);
    let passed = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::fs::set_permissions(&socket, Permissions::from_mode(0o600)).unwrap();
    let gateway = activated(&files, &passed);
    gateway.ready();
    let message = "systemd has made this socket: `mode` and `group` of the listener have no effect";
    until(|| !log_lines(&gateway, message).is_empty()).await;
    assert_eq!(access(&socket).0, 0o600);
}
