//! Every file of a configuration is a plain file, read without a wait and within a deadline.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use boldgate::boldbi::stand_in::StandIn;
use rustix::io::Errno;
use tokio::time::Instant;

use crate::support::edit::Edit;
use crate::support::files::{Files, every_kind_of_file};
use crate::support::process::{Process, boldgate};
use crate::support::reloads::{
    ACME, BOLT, KEPT, PATIENCE, get, log_line, metric, metric_if_any, two_sites,
};
use crate::support::stand_in::EMBED_SECRET;
use crate::support::waiting::{becomes, until};

/// The things that may replace a file, and the words for them.
const NO_PLAIN_FILES: [(&str, &str); 4] =
    [("pipe", "a pipe"), ("socket", "a socket"), ("folder", "a directory"), ("device", "a device")];

fn put(kind: &str, path: &Path) {
    match kind {
        "pipe" => assert!(Command::new("mkfifo").arg(path).status().unwrap().success()),
        "socket" => drop(std::os::unix::net::UnixListener::bind(path).unwrap()),
        "folder" => std::fs::create_dir(path).unwrap(),
        _ => std::os::unix::fs::symlink("/dev/zero", path).unwrap(),
    }
}

fn check(files: &Files) -> crate::support::process::Ended {
    crate::support::process::run(&["check", files.path("boldgate.yaml").to_str().unwrap()])
}

#[test]
fn a_file_of_a_configuration_that_is_not_plain_is_a_finding_that_names_it() {
    let files = Files::new();
    let contents = every_kind_of_file(&files);
    let good = check(&files);
    assert_eq!(good.code, Some(0), "{}", good.stderr);
    let keys = [
        "listeners[0].tls.certificate_file",
        "listeners[0].tls.key_file",
        "listeners[0].tls.client_ca_file",
        "listeners[0].tls.client_crl_file",
        "servers.main.ca_file",
        "callers.three.jwt.ca_file",
        "tenants.acme.credential.embed_secret",
        "callers.one.jwt.jwks_file",
        "callers.two.jwt.secret",
    ];
    for ((name, content), key) in contents.iter().zip(keys) {
        for (kind, words) in NO_PLAIN_FILES {
            let path = files.path(name);
            std::fs::remove_file(&path).unwrap();
            put(kind, &path);
            let ended = check(&files);
            assert_eq!(ended.code, Some(78), "{name}, {kind}: {}", ended.stderr);
            let finding = ended.stderr.lines().find(|line| line.contains(key));
            let finding = finding.unwrap_or_else(|| panic!("no {key} in {}", ended.stderr));
            assert!(finding.contains(path.to_str().unwrap()), "{finding}");
            assert!(finding.contains(words), "{kind}: {finding}");
            let _ = std::fs::remove_dir(&path);
            let _ = std::fs::remove_file(&path);
            files.write(name, content);
        }
    }
    assert_eq!(check(&files).code, Some(0));
}

#[test]
fn a_configuration_file_that_is_not_plain_is_a_finding() {
    for (kind, words) in NO_PLAIN_FILES {
        let files = Files::new();
        put(kind, &files.path("boldgate.yaml"));
        let ended = check(&files);
        let path = files.path("boldgate.yaml").display().to_string();
        let expected = format!("{path}: cannot be read: it is {words}, not a plain file");
        assert_eq!(ended.code, Some(78), "{kind}: {}", ended.stderr);
        assert!(ended.stderr.starts_with(&expected), "{kind}: {}", ended.stderr);
    }
}

#[test]
fn a_file_that_is_larger_than_its_kind_can_be_is_a_finding() {
    let files = Files::new();
    let contents = every_kind_of_file(&files);
    for (name, content) in &contents {
        // The file is sparse and takes no space on the disk.
        let file = std::fs::File::create(files.path(name)).unwrap();
        file.set_len(1 << 40).unwrap();
        let ended = check(&files);
        assert_eq!(ended.code, Some(78), "{name}: {}", ended.stderr);
        let finding = ended.stderr.lines().find(|line| line.contains("iB"));
        assert!(finding.is_some_and(|line| line.contains(name)), "{name}: {}", ended.stderr);
        files.write(name, content);
    }
    assert_eq!(check(&files).code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_becomes_a_pipe_is_reported_and_used_again_once_it_is_a_file() {
    let upstream = two_sites().await;
    let files = Files::new();
    files.write("boldgate.yaml", &files.config(&upstream, &["acme"], ""));
    let gateway = files.serve();
    let (address, admin) = (gateway.address(), gateway.ready().1);
    put("pipe", &files.path("new"));
    std::fs::rename(files.path("new"), files.path("secret")).unwrap();
    let unreadable =
        async || metric_if_any(admin, "boldgate_tenant_secret_unreadable{tenant=\"acme\"}").await;
    becomes(PATIENCE, "it is reported", async || unreadable().await == Some(1)).await;
    let line = log_line(&gateway, KEPT).await;
    assert!(line["finding"].as_str().unwrap().contains("it is a pipe"), "{line}");
    assert_eq!(get(address, ACME).await.status, 200);
    files.swap_in("secret", "another");
    becomes(PATIENCE, "it is in force", async || unreadable().await == Some(0)).await;
}

/// Below a folder `away` every open of a file, and every look at a link, hangs, as on a mount whose
/// server is gone, while the file that `HANGS` names is there; then there is one that `REACHED`
/// names. While the link that `FAILS` names is there, an open fails with the error that it points
/// to.
const HANGING_MOUNT: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static void hang(const char *path) {
    const char *hangs = getenv("HANGS");
    while (hangs && strstr(path, "/away/") && access(hangs, F_OK) == 0) {
        symlink("reached", getenv("REACHED"));
        usleep(10000);
    }
}
ssize_t readlink(const char *path, char *target, size_t size) {
    ssize_t (*next)(const char *, char *, size_t) = dlsym(RTLD_NEXT, "readlink");
    hang(path);
    return next(path, target, size);
}
static int with(const char *name, const char *path, int flags, mode_t mode) {
    int (*next)(const char *, int, ...) = dlsym(RTLD_NEXT, name);
    ssize_t (*look)(const char *, char *, size_t) = dlsym(RTLD_NEXT, "readlink");
    const char *fails = getenv("FAILS");
    char number[16] = {0};
    hang(path);
    if (fails && strstr(path, "/away/") && look(fails, number, sizeof number - 1) > 0) {
        errno = atoi(number);
        return -1;
    }
    return next(path, flags, mode);
}
#define INTERPOSE(name) int name(const char *path, int flags, ...) { \
    va_list list; va_start(list, flags); mode_t mode = va_arg(list, int); va_end(list); \
    return with(#name, path, flags, mode); }
INTERPOSE(open)
INTERPOSE(open64)
"#;

/// A gateway's files, with the secret on a mount that hangs while there is a file `hangs`.
struct Mount {
    files: Files,
    library: String,
}

impl Mount {
    async fn new() -> (StandIn, Self) {
        let (upstream, files) = (two_sites().await, Files::new());
        std::fs::create_dir(files.path("away")).unwrap();
        files.write("away/secret", EMBED_SECRET);
        let [here, away] = ["secret", "away/secret"].map(|name| files.path(name));
        let config = files.config(&upstream, &["acme"], "");
        let config = config.edit(here.to_str().unwrap(), away.to_str().unwrap());
        files.write("boldgate.yaml", &config);
        files.write("mount.c", HANGING_MOUNT);
        let [source, library] =
            ["mount.c", "mount.so"].map(|name| files.path(name).display().to_string());
        let made = Command::new("cc")
            .args(["-shared", "-fPIC", "-o", &library, &source, "-ldl"])
            .status()
            .unwrap();
        assert!(made.success());
        (upstream, Self { files, library })
    }

    fn start(&self, arguments: &[&str]) -> Process {
        let mut command = boldgate(arguments);
        command.env("LD_PRELOAD", &self.library).env("HANGS", self.files.path("hangs"));
        command.env("REACHED", self.files.path("reached")).env("FAILS", self.files.path("fails"));
        command.env("BOLDGATE_CONFIG", self.files.path("boldgate.yaml"));
        Process::start(command)
    }

    /// Comes when somebody hangs.
    async fn reached(&self) {
        until(|| self.files.path("reached").symlink_metadata().is_ok()).await;
    }

    /// From now on it fails with this error.
    fn fail(&self, error: Errno) {
        let new = self.files.path("fails.new");
        std::os::unix::fs::symlink(error.raw_os_error().to_string(), &new).unwrap();
        std::fs::rename(new, self.files.path("fails")).unwrap();
    }

    fn hangs(&self) -> String {
        format!("`{}` hangs", self.files.path("away/secret").display())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_hangs_stops_no_request_and_delays_no_shutdown() {
    let (_upstream, mount) = Mount::new().await;
    let gateway = mount.start(&["serve"]);
    let address = gateway.address();
    mount.files.write("hangs", "");
    gateway.signal(rustix::process::Signal::HUP);
    mount.reached().await;
    for _ in 0..10 {
        assert_eq!(get(address, ACME).await.status, 200);
    }
    let begun = Instant::now();
    gateway.signal(rustix::process::Signal::TERM);
    assert_eq!(gateway.end().code, Some(0));
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
}

/// The deadline of a reading, and what a busy machine takes.
const DEADLINE: Duration = Duration::from_secs(30 + 15);

#[tokio::test(flavor = "multi_thread")]
async fn check_and_serve_do_not_wait_for_ever_for_a_file_system_that_hangs() {
    let (_upstream, mount) = Mount::new().await;
    let file = mount.files.path("boldgate.yaml").display().to_string();
    let commands: [&[&str]; 3] = [&["check", &file], &["serve"], &["token", "acme"]];
    assert_eq!(mount.start(commands[0]).end().code, Some(0), "the mount is there");
    mount.files.write("hangs", "");
    mount.files.write("bad.yaml", "lisneters: []\n");
    let bad = mount.files.path("bad.yaml").display().to_string();
    let beside = mount.start(&["check", &bad, &file]);
    let started = commands.map(|command| mount.start(command));
    for (mut process, command) in started.into_iter().zip(commands) {
        becomes(DEADLINE, command[0], async || process.ended().is_some()).await;
        let ended = process.end();
        assert_eq!(ended.code, Some(1), "{command:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(&mount.hangs()), "{command:?}: {}", ended.stderr);
        // The errors of `serve` are lines of its log.
        let hint = if command[0] == "serve" { "\"hint\":" } else { "hint: " };
        assert!(ended.stderr.contains(hint), "{command:?}: {}", ended.stderr);
    }
    let explain = mount.start(&["explain", "GET", ACME]).end();
    assert_eq!(explain.code, Some(0), "it needs no secret: {}", explain.stderr);
    let ended = beside.end();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("lisneters"), "what else is wrong is told: {}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_leaves_out_the_tenant_whose_secret_hangs_until_its_mount_is_back() {
    let (upstream, mount) = Mount::new().await;
    let away = mount.files.path("away/secret").display().to_string();
    let acme = format!(
        "  acme:\n    server: main\n    site: site1\n    credential:\n      grant: embed_secret\n      \
         username: reports@example.com\n      embed_secret: {{ file: \"{away}\" }}\n      \
         user_source: local\n"
    );
    mount.files.write("secret", EMBED_SECRET);
    mount.files.write("boldgate.yaml", &mount.files.config(&upstream, &["bolt"], &acme));
    mount.files.write("hangs", "");
    let gateway = mount.start(&["serve"]);
    let listens = async || gateway.log().iter().any(|line| line["message"] == "boldgate is ready");
    becomes(DEADLINE, "it starts", listens).await;
    let address = gateway.address();
    assert_eq!(get(address, BOLT).await.status, 200);
    let refused = get(address, ACME).await;
    assert_eq!((refused.status, &*refused.code()), (503, "secret_unreadable"));
    let log = gateway.stderr(|log| log.contains("an earlier attempt to read it still hangs"));
    assert!(log.contains(&away) && !log.contains(EMBED_SECRET), "{log}");
    std::fs::remove_file(mount.files.path("hangs")).unwrap();
    let served = async || get(address, ACME).await.status == 200;
    becomes(DEADLINE, "it is served once its mount is back", served).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_system_that_hangs_is_reported_after_the_deadline_and_tried_again() {
    let (_upstream, mount) = Mount::new().await;
    let gateway = mount.start(&["serve"]);
    let (address, admin) = (gateway.address(), gateway.ready().1);
    let successful = "boldgate_config_last_reload_successful";
    let in_step = async || metric(admin, successful).await == 1;
    assert!(in_step().await);
    mount.files.write("hangs", "");
    gateway.signal(rustix::process::Signal::HUP);
    becomes(DEADLINE, "it is reported", async || !in_step().await).await;
    let stuck = "the files of the configuration cannot be read: the active configuration stays";
    let line = log_line(&gateway, stuck).await;
    assert!(line["error"].as_str().unwrap().contains(&mount.hangs()), "{line}");
    let timed_out = "boldgate_config_reloads_total{outcome=\"timed_out\"}";
    assert_eq!(metric(admin, timed_out).await, 1);
    assert_eq!(get(address, ACME).await.status, 200, "requests go on");
    // Without a signal the files are read again, and changes made meanwhile count.
    mount.files.swap_in("away/secret", "another");
    std::fs::remove_file(mount.files.path("hangs")).unwrap();
    becomes(DEADLINE, "it is tried again", in_step).await;
    let generation = async || metric(admin, "boldgate_config_generation").await;
    becomes(PATIENCE, "it is in force", async || generation().await == 2).await;
}

/// Errors that say nothing of the file, and go away by themselves.
const PASSING: [(Errno, &str); 8] = [
    (Errno::MFILE, "Too many open files (os error 24)"),
    (Errno::NFILE, "Too many open files in system (os error 23)"),
    (Errno::NOMEM, "Cannot allocate memory (os error 12)"),
    (Errno::IO, "Input/output error (os error 5)"),
    (Errno::STALE, "Stale file handle (os error 116)"),
    (Errno::AGAIN, "Resource temporarily unavailable (os error 11)"),
    (Errno::NOTCONN, "Transport endpoint is not connected (os error 107)"),
    (Errno::TIMEDOUT, "Connection timed out (os error 110)"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_fails_for_a_passing_reason_does_not_blame_the_file() {
    let (_upstream, mount) = Mount::new().await;
    let file = mount.files.path("boldgate.yaml").display().to_string();
    let commands: [&[&str]; 3] = [&["check", &file], &["serve"], &["token", "acme"]];
    for (error, words) in PASSING {
        mount.fail(error);
        for command in commands {
            let ended = mount.start(command).end();
            assert_eq!(ended.code, Some(1), "{command:?}, {error}: {}", ended.stderr);
            let path = mount.files.path("away/secret").display().to_string();
            let said = format!("`{path}` could not be read just now ({words}); the file itself");
            assert!(ended.stderr.contains(&said), "{command:?}, {error}: {}", ended.stderr);
            assert!(ended.stderr.contains("embed_secret"), "{command:?}: {}", ended.stderr);
        }
    }
    // Control: a reason that stays.
    mount.fail(Errno::ACCESS);
    for command in commands {
        let ended = mount.start(command).end();
        assert_eq!(ended.code, Some(78), "{command:?}: {}", ended.stderr);
        assert!(!ended.stderr.contains("just now"), "{command:?}: {}", ended.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reading_that_fails_for_a_passing_reason_is_tried_again() {
    let (_upstream, mount) = Mount::new().await;
    let gateway = mount.start(&["serve"]);
    let admin = gateway.ready().1;
    let successful = "boldgate_config_last_reload_successful";
    let in_step = async || metric(admin, successful).await == 1;
    mount.files.swap_in("away/secret", "another");
    let generation = async || metric(admin, "boldgate_config_generation").await;
    becomes(PATIENCE, "all is under watch", async || generation().await == 2).await;
    mount.fail(Errno::IO);
    mount.files.swap_in("away/secret", EMBED_SECRET);
    becomes(PATIENCE, "it is reported", async || !in_step().await).await;
    let unreadable =
        "the files of the configuration cannot be read: the active configuration stays";
    let line = log_line(&gateway, unreadable).await;
    let said = line["error"].as_str().unwrap();
    let words = "could not be read just now (Input/output error (os error 5)); the file itself may";
    assert!(said.contains(words) && said.contains("away/secret"), "{line}");
    assert_eq!(line["next_attempt_in"], "10s");
    let outcome = "boldgate_config_reloads_total{outcome=\"unreadable\"}";
    assert!(metric(admin, outcome).await >= 1, "once, or again on a busy machine");
    assert_eq!(metric(admin, "boldgate_config_reloads_total{outcome=\"refused\"}").await, 0);
    // There is no signal, and nothing changes in the folder.
    std::fs::remove_file(mount.files.path("fails")).unwrap();
    becomes(PATIENCE * 2, "it is tried again", async || generation().await == 3).await;
    becomes(PATIENCE, "it is reported", in_step).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_stays_a_problem_after_the_files_could_not_be_read_for_a_while() {
    let (_upstream, mount) = Mount::new().await;
    let config = std::fs::read_to_string(mount.files.path("boldgate.yaml")).unwrap();
    let config = config.edit(
        "admin: { address: \"127.0.0.1:0\"",
        "admin: { address: \"127.0.0.1:0\", status: true",
    );
    mount.files.swap_in("boldgate.yaml", &config);
    let gateway = mount.start(&["serve"]);
    let admin = gateway.ready().1;
    let outcome = async |outcome: &str| {
        metric(admin, &format!("boldgate_config_reloads_total{{outcome=\"{outcome}\"}}")).await
    };
    mount.files.swap_in("boldgate.yaml", &config.edit("user_source: local", "user_source: none"));
    becomes(PATIENCE, "it is refused", async || outcome("refused").await == 1).await;
    mount.fail(Errno::IO);
    gateway.signal(rustix::process::Signal::HUP);
    becomes(PATIENCE, "it is unreadable", async || outcome("unreadable").await > 0).await;
    std::fs::remove_file(mount.files.path("fails")).unwrap();
    let again = "the files of the configuration can be read again and have not changed";
    becomes(PATIENCE * 2, "it can be read again", async || {
        gateway.log().iter().any(|line| line["message"] == again)
    })
    .await;
    let ended = crate::support::process::run(&["status", "--address", &admin.to_string()]);
    assert_eq!(ended.code, Some(0), "{}", ended.stdout);
    let warning = "warning  reloads       the changed configuration is refused";
    assert!(ended.stdout.contains(warning), "{}", ended.stdout);
}

/// Of a mount that is gone for good, nothing comes any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_no_longer_names_a_file_that_hangs_is_taken() {
    let (_upstream, mount) = Mount::new().await;
    let gateway = mount.start(&["serve"]);
    let (address, admin) = (gateway.address(), gateway.ready().1);
    let successful = "boldgate_config_last_reload_successful";
    let generation = async || metric(admin, "boldgate_config_generation").await;
    mount.files.swap_in("away/secret", "another");
    becomes(PATIENCE, "all is under watch", async || generation().await == 2).await;
    mount.files.write("hangs", "");
    gateway.signal(rustix::process::Signal::HUP);
    let reported = async || metric(admin, successful).await == 0;
    becomes(DEADLINE, "it is reported", reported).await;
    let [here, away] = ["secret", "away/secret"].map(|name| mount.files.path(name));
    let config = std::fs::read_to_string(mount.files.path("boldgate.yaml")).unwrap();
    let config = config.edit(away.to_str().unwrap(), here.to_str().unwrap());
    mount.files.swap_in("boldgate.yaml", &config);
    // A reading of the former configuration may have begun just before. It hangs until its
    // deadline.
    becomes(2 * DEADLINE, "it is in force", async || generation().await == 3).await;
    becomes(PATIENCE, "it is reported", async || metric(admin, successful).await == 1).await;
    // Changes are noticed without a signal again.
    mount.files.swap_in("secret", "another");
    becomes(PATIENCE, "it is noticed", async || generation().await == 4).await;
    assert_eq!(get(address, ACME).await.status, 502, "the secret is another one");
}
