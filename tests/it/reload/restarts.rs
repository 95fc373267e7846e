//! Restarts behind a socket that systemd keeps. The test plays systemd.

use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use super::*;

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
    files.write(
        "boldgate.yaml",
        &files.config(&upstream, &["acme"], "").replacen("127.0.0.1:0", &address.to_string(), 1),
    );
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
        assert!(old.stderr.contains("all requests were answered"), "{}", old.stderr);
    }
    let took = begun.elapsed();
    let sent = load.end().await;
    println!("{times} restarts within {took:.1?}: {sent} requests, 0 failed");
    assert!(sent >= took.as_secs() * per_second / 2, "there was a load");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_no_listener_uses_is_told_of() {
    let upstream = two_sites().await;
    let files = Files::new();
    files.write("boldgate.yaml", &files.config(&upstream, &["acme"], ""));
    let kept = socket();
    let gateway = activated(&files, &kept);
    gateway.ready();
    let line = told(&gateway, "systemd has passed a socket that no listener uses").remove(0);
    assert_eq!(line["address"], kept.local_addr().unwrap().to_string());
    assert_eq!(get(gateway.address(), ACME).await.status, 200, "the others are bound as ever");
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_is_told_of_start_reload_and_stop() {
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
    // What is told until this is, that included.
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
    files.replace("boldgate.yaml", "listeners: 7\n");
    until(refused).await;
    gateway.signal(Signal::HUP);
    let all = until(&format!("READY=1\n{refused}")).await;
    assert!(!all.contains(&"READY=1\nSTATUS=serving".to_owned()), "{all:?}");
    files.replace("boldgate.yaml", &good);
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
fn activated(files: &Files, socket: &std::net::TcpListener) -> Process {
    let mut command = Command::new("/bin/sh");
    let script = "LISTEN_PID=$$ exec \"$0\" serve --config \"$1\" 3<&0 0</dev/null";
    command.args(["-c", script, env!("CARGO_BIN_EXE_boldgate")]).arg(files.path("boldgate.yaml"));
    command.env_clear().env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", "boldgate");
    let passed: OwnedFd = socket.try_clone().unwrap().into();
    Process::start_with(command, Stdio::from(passed))
}
