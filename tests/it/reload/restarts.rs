//! Restarts behind a socket that systemd keeps. The test plays systemd.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{Instant, sleep, timeout};

use crate::support::client::Client;
use crate::support::edit::Edit;
use crate::support::files::Files;
use crate::support::gateway::listening_at;
use crate::support::load::Load;
use crate::support::process::{Process, boldgate};
use crate::support::reloads::{ACME, PATIENCE, get, log_lines, metric, two_sites};
use crate::support::waiting::{becomes, until};

#[tokio::test(flavor = "multi_thread")]
async fn restarts_by_socket_activation_under_load_fail_no_request() {
    restart_under_load(6, 200).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute; `make reloads` runs it"]
async fn a_hundred_restarts_by_socket_activation_at_500_requests_a_second_fail_no_request() {
    restart_under_load(100, 500).await;
}

/// By turns the next process starts before the one before it is told to stop, and after that has
/// ended, while clients wait in the kernel.
async fn restart_under_load(times: usize, per_second: u64) {
    let upstream = two_sites().await;
    let files = Files::new();
    let kept = socket();
    let address = kept.local_addr().unwrap();
    files.write("boldgate.yaml", &listening_at(address, &files.config(&upstream, &["acme"], "")));
    let mut serving = activated(&files, &kept);
    serving.ready();
    let load = Load::start(address, per_second);
    let begun = Instant::now();
    for number in 0..times {
        sleep(Duration::from_millis(50)).await;
        let old = if number % 2 == 0 {
            let next = activated(&files, &kept);
            next.ready();
            let old = std::mem::replace(&mut serving, next);
            old.signal(Signal::TERM);
            old.end()
        } else {
            serving.signal(Signal::TERM);
            let next = activated(&files, &kept);
            let old = std::mem::replace(&mut serving, next);
            let old = old.end();
            serving.ready();
            old
        };
        assert_eq!(old.code, Some(0), "{}", old.stderr);
        assert!(old.stderr.contains("all requests have finished"), "{}", old.stderr);
    }
    let took = begun.elapsed();
    let sent = load.end().await;
    println!("{times} restarts within {took:.1?}: {sent} requests, 0 failed");
    assert!(sent >= took.as_secs() * per_second / 2, "there was a load");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mode_of_a_unix_socket_does_not_depend_on_the_umask() {
    let upstream = two_sites().await;
    for umask in ["0000", "0077", "0777"] {
        let files = Files::new();
        let socket = files.path("socket");
        let config = files.config(&upstream, &["acme"], "");
        let address = format!("unix:{}", socket.display());
        files.write("boldgate.yaml", &listening_at(address, &config));
        let _gateway = Process::start(under(&format!("umask {umask}"), &files));
        until(|| std::os::unix::net::UnixStream::connect(&socket).is_ok()).await;
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&socket.metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, 0o660, "umask {umask}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn running_out_of_file_descriptors_is_logged_once_in_ten_seconds() {
    let upstream = two_sites().await;
    let files = Files::new();
    files.write("boldgate.yaml", &files.config(&upstream, &["acme"], ""));
    let mut command = under(":", &files);
    command.env("BOLDGATE_CORE_DUMPS", "true");
    let gateway = Process::start(command);
    let address = gateway.address();
    // The gateway does not let clients use up a limit that it knows from its start.
    gateway.leave_descriptors(10);
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(Client::connect(address).await);
    }
    let message = "cannot accept connections at the moment";
    gateway.stderr(|log| log.contains(message));
    // In that time each attempt fails.
    sleep(Duration::from_millis(1500)).await;
    let lines = log_lines(&gateway, message);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0]["severity"], "ERROR");
    assert!(lines[0]["hint"].as_str().unwrap().contains("file descriptors"), "{lines:?}");
    // Control: descriptors that are given back are used.
    drop(held);
    becomes(PATIENCE, "it serves", async || get(address, ACME).await.status == 200).await;
}

/// The limit on core files.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_writes_no_core_file_unless_it_is_allowed_to() {
    let upstream = two_sites().await;
    let files = Files::new();
    files.write("boldgate.yaml", &files.config(&upstream, &["acme"], ""));
    let limits = |gateway: &Process| {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", gateway.id())).unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        line.split_whitespace().skip(4).take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    let gateway = Process::start(under("ulimit -Hc unlimited && ulimit -Sc unlimited", &files));
    gateway.ready();
    assert_eq!(limits(&gateway), ["0", "0"]);
    gateway.signal(rustix::process::Signal::ABORT);
    assert!(!ended_by(gateway).core_dumped());
    // Control: a privileged process does not change the limits.
    let mut command = under("ulimit -c unlimited", &files);
    command.env("BOLDGATE_CORE_DUMPS", "true");
    let gateway = Process::start(command);
    gateway.ready();
    assert_eq!(limits(&gateway), ["unlimited", "unlimited"]);
}

/// `boldgate serve` after a command of the shell.
fn under(before: &str, files: &Files) -> std::process::Command {
    let mut command = std::process::Command::new("bash");
    let script = format!("{before}; exec {} serve", env!("CARGO_BIN_EXE_boldgate"));
    command.args(["-c", &script]).env_clear().stdin(std::process::Stdio::null());
    command.env("BOLDGATE_CONFIG", files.path("boldgate.yaml"));
    command
}

/// How it ended.
fn ended_by(mut process: Process) -> std::process::ExitStatus {
    loop {
        if let Some(status) = process.ended() {
            return status;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_no_listener_uses_is_reported() {
    let upstream = two_sites().await;
    let files = Files::new();
    files.write("boldgate.yaml", &files.config(&upstream, &["acme"], ""));
    let kept = socket();
    let gateway = activated(&files, &kept);
    gateway.ready();
    let line = log_lines(&gateway, "systemd has passed a socket that no listener uses").remove(0);
    assert_eq!(line["address"], kept.local_addr().unwrap().to_string());
    assert_eq!(get(gateway.address(), ACME).await.status, 200, "the others are bound as ever");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_of_systemds_that_goes_and_comes_back_is_served_again() {
    let upstream = two_sites().await;
    let files = Files::new();
    let kept = socket();
    let address = kept.local_addr().unwrap();
    let (config, without) = beside(&files.config(&upstream, &["acme"], ""), address);
    files.write("boldgate.yaml", &config);
    let gateway = activated(&files, &kept);
    let other: SocketAddr = gateway.ready().0[0].parse().unwrap();
    for number in 0..3 {
        assert_eq!(get(address, ACME).await.status, 200, "{number}");
        files.swap_in("boldgate.yaml", &without);
        becomes(PATIENCE, "it goes", async || in_force(&gateway).await == 2 * number + 2).await;
        assert_eq!(get(other, ACME).await.status, 200, "{number}: the other one stays");
        // New connections wait in the kernel, as they do while there is no process.
        let waiting = tokio::spawn(async move { get(address, ACME).await.status });
        sleep(Duration::from_millis(100)).await;
        assert!(!waiting.is_finished(), "{number}: nobody serves it");
        files.swap_in("boldgate.yaml", &config);
        assert_eq!(timeout(PATIENCE, waiting).await.unwrap().unwrap(), 200, "{number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_change_loses_no_socket_of_systemds() {
    let upstream = two_sites().await;
    let files = Files::new();
    let kept = socket();
    let address = kept.local_addr().unwrap();
    let (config, without) = beside(&files.config(&upstream, &["acme"], ""), address);
    files.write("boldgate.yaml", &without);
    let gateway = activated(&files, &kept);
    gateway.ready();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    // systemd's address comes first, then an address that cannot be bound.
    let refused = beside(&config, taken.local_addr().unwrap()).0;
    files.swap_in("boldgate.yaml", &refused);
    gateway.stderr(|log| log.contains("the active configuration stays as a whole"));
    assert_eq!(in_force(&gateway).await, 1);
    files.swap_in("boldgate.yaml", &config);
    assert_eq!(timeout(PATIENCE, get(address, ACME)).await.unwrap().status, 200);
}

/// `config` with one more listener at `address`, and without it.
fn beside(config: &str, address: SocketAddr) -> (String, String) {
    let listener = format!("  - {{ address: \"{address}\", callers: anonymous }}\nadmin:");
    (config.edit("admin:", &listener), config.to_owned())
}

async fn in_force(gateway: &Process) -> u64 {
    metric(gateway.ready().1, "boldgate_config_generation").await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_listeners_socket_of_systemds_is_given_to_no_other() {
    let upstream = two_sites().await;
    let files = Files::new();
    let kept = socket();
    let address = kept.local_addr().unwrap();
    let config = files.config(&upstream, &["acme"], "");
    let admin =
        config.edit("admin: { address: \"127.0.0.1:0", &format!("admin: {{ address: \"{address}"));
    assert_ne!(admin, config);
    files.write("boldgate.yaml", &admin);
    let gateway = activated(&files, &kept);
    assert_eq!(gateway.ready().1, address);
    // The admin listener moves at a restart only, so its address is still its own.
    files.swap_in("boldgate.yaml", &beside(&config, address).0);
    gateway.stderr(|log| log.contains("the active configuration stays as a whole"));
    for _ in 0..20 {
        assert_eq!(get(address, "/livez").await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_does_not_listen_is_reported_and_the_gateway_does_not_start() {
    let files = Files::new();
    let bound = tokio::net::TcpSocket::new_v4().unwrap();
    bound.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = bound.local_addr().unwrap();
    let config = format!(
        "listeners: [{{ address: \"{address}\", callers: anonymous }}]\n\
         admin: {{ address: \"127.0.0.1:0\" }}\nservers:\n  main: {{ url: \"http://127.0.0.1:1/bi\" }}\n\
         tenants:\n  acme: {{ server: main, site: site1, credential: {{ grant: embed_secret, \
         username: a@example.com, embed_secret: {{ file: {:?} }}, user_source: local }} }}\n",
        files.path("secret")
    );
    files.write("boldgate.yaml", &config);
    let refused = activated(&files, &bound).end();
    assert_ne!(refused.code, Some(0));
    let says = format!("`{address}` is bound but does not listen");
    assert!(refused.stderr.contains(&says), "{}", refused.stderr);
    // Control: the same socket serves once it listens.
    let listening = bound.listen(16).unwrap();
    let gateway = activated(&files, &listening);
    assert_eq!(gateway.address(), address);
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_is_notified_of_start_reload_and_stop() {
    let upstream = two_sites().await;
    let files = Files::new();
    files.write("boldgate.yaml", &files.config(&upstream, &["acme"], ""));
    let told = tokio::net::UnixDatagram::bind(files.path("notify")).unwrap();
    let next = async || {
        let mut text = vec![0; 4096];
        let length = timeout(Duration::from_secs(20), told.recv(&mut text)).await.unwrap().unwrap();
        String::from_utf8_lossy(&text[..length]).into_owned()
    };
    let gateway = notifying(&files);
    assert!(next().await.starts_with("READY=1\n"));
    gateway.signal(Signal::HUP);
    let reloading = next().await;
    let since = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
    assert!(since.trim().parse::<u64>().is_ok(), "{reloading}");
    assert!(next().await.starts_with("READY=1\n"));
    gateway.signal(Signal::TERM);
    assert!(next().await.starts_with("STOPPING=1\n"));
    assert_eq!(gateway.end().code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_is_told_that_a_change_was_refused_until_it_is_good() {
    let upstream = two_sites().await;
    let files = Files::new();
    let good = files.config(&upstream, &["acme"], "");
    files.write("boldgate.yaml", &good);
    let told = tokio::net::UnixDatagram::bind(files.path("notify")).unwrap();
    // All notifications up to and including this one.
    let until = async |last: &str| {
        let mut all = Vec::new();
        loop {
            let mut text = vec![0; 4096];
            let received = timeout(Duration::from_secs(20), told.recv(&mut text)).await;
            let length = received.unwrap_or_else(|_| panic!("no {last} in {all:?}")).unwrap();
            all.push(String::from_utf8_lossy(&text[..length]).trim_end().to_owned());
            if all.last().is_some_and(|text| text == last) {
                return all;
            }
        }
    };
    let refused = "STATUS=serving; the changed configuration was refused: see the log";
    let gateway = notifying(&files);
    until("READY=1\nSTATUS=serving").await;
    files.swap_in("boldgate.yaml", "listeners: 7\n");
    until(refused).await;
    gateway.signal(Signal::HUP);
    let all = until(&format!("READY=1\n{refused}")).await;
    assert!(!all.contains(&"READY=1\nSTATUS=serving".to_owned()), "{all:?}");
    files.swap_in("boldgate.yaml", &good);
    until("STATUS=serving").await;
    gateway.signal(Signal::HUP);
    let all = until("READY=1\nSTATUS=serving").await;
    assert!(!all.iter().any(|text| text.contains("refused")), "{all:?}");
}

/// A gateway that tells the socket `notify` of `files` how it is.
fn notifying(files: &Files) -> Process {
    let config = files.path("boldgate.yaml");
    let mut command = boldgate(&["serve", "--config", config.to_str().unwrap()]);
    command.env("NOTIFY_SOCKET", files.path("notify"));
    Process::start(command)
}

fn socket() -> std::net::TcpListener {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    socket.listen(4096).unwrap().into_std().unwrap()
}

/// The binary with `socket` as its descriptor 3, as systemd starts it. The number of the process is
/// known in it alone, so a shell says it.
pub(super) fn activated(files: &Files, socket: impl AsFd) -> Process {
    let mut command = Command::new("/bin/sh");
    let script = "LISTEN_PID=$$ exec \"$0\" serve --config \"$1\" 3<&0 0</dev/null";
    command.args(["-c", script, env!("CARGO_BIN_EXE_boldgate")]).arg(files.path("boldgate.yaml"));
    command.env_clear().env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", "boldgate");
    let passed = socket.as_fd().try_clone_to_owned().unwrap();
    Process::start_with(command, Stdio::from(passed))
}
