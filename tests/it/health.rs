//! `boldgate health`: the real binary asks a real gateway.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::support::edit::Edit;
use crate::support::files::write;
use crate::support::gateway::anonymous;
use crate::support::process::{Ended, Process, boldgate, run};
use crate::support::tls::SelfSigned;
use crate::support::upstream::{dead_address, free_address};

/// A configuration whose admin listener has this address.
fn with_admin_at(address: &str) -> String {
    let admin = format!("admin: {{ address: \"{address}\" }}");
    anonymous(dead_address()).edit("admin: { address: \"127.0.0.1:0\" }", &admin)
}

/// A gateway with its admin listener at a port that was free, and its configuration file.
fn gateway(folder: &TempDir, ip: &str, more: &str) -> (Process, String, u16) {
    let port = free_address().port();
    let secret = write(folder, "secret", "canary");
    let text = with_admin_at(&format!("{ip}:{port}")).edit("SECRET_FILE", &secret) + more;
    let file = write(folder, "gateway.yaml", &text);
    (Process::serve(&file), file, port)
}

fn assert_one_line(ended: &Ended, code: i32, line: &str) {
    let (said, silent) = match code {
        0 => (&ended.stdout, &ended.stderr),
        _ => (&ended.stderr, &ended.stdout),
    };
    assert_eq!((ended.code, &**silent), (Some(code), ""), "{ended:?}");
    assert_eq!(said.trim_end_matches('\n'), line);
}

#[test]
fn health_asks_the_admin_listener_of_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let (process, file, port) = gateway(&folder, "127.0.0.1", "");
    let at = format!("127.0.0.1:{port}");
    assert_one_line(&run(&["health", "--config", &file]), 0, &format!("/livez at {at}: alive"));
    let ready = run(&["health", "--ready", "--config", &file]);
    assert_one_line(&ready, 0, &format!("/readyz at {at}: ready"));
    let address = format!("127.0.0.1:{port}");
    let without_file = ["health", "--address", &address, "--config", "/nonexistent.yaml"];
    assert_one_line(&run(&without_file), 0, &format!("/livez at {at}: alive"));
    drop(process);
    let refused = format!(
        "error: /livez at {at}: the connection failed: Connection refused (os error 111); \
         no gateway listens there: is it running? A changed `admin.address` waits for a restart: until then, \
         name the former one with `--address`"
    );
    assert_one_line(&run(&["health", "--config", &file]), 1, &refused);
}

#[test]
fn health_asks_at_loopback_where_the_admin_listener_has_every_address() {
    let folder = tempfile::tempdir().unwrap();
    let (_process, file, port) = gateway(&folder, "0.0.0.0", "");
    let alive = format!("/livez at 127.0.0.1:{port}: alive");
    assert_one_line(&run(&["health", "--config", &file]), 0, &alive);
}

#[test]
fn health_asks_at_a_unix_socket_and_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let secret = write(&folder, "secret", "canary");
    let socket = format!("unix:{}", folder.path().join("admin.sock").display());
    let serve = |name: &str, text: &str| {
        let file = write(&folder, name, &text.edit("SECRET_FILE", &secret));
        let process = Process::start(boldgate(&["serve", "--config", &file]));
        process.stderr(|text| text.contains("boldgate is ready"));
        (process, file)
    };
    let (_at_socket, file) = serve("unix.yaml", &with_admin_at(&socket));
    let alive = format!("/livez at {socket}: alive");
    assert_one_line(&run(&["health", "--config", &file]), 0, &alive);
    assert_one_line(&run(&["health", "--address", &socket]), 0, &alive);

    // The certificate has another name, and no CA that this machine trusts.
    let tls = SelfSigned::new("gateway.example").listener_keys(folder.path());
    let address = free_address();
    let text = with_admin_at(&address.to_string());
    let (_over_tls, file) = serve(
        "tls.yaml",
        &text.edit(&format!("\"{address}\" }}"), &format!("\"{address}\", tls: {{ {tls} }} }}")),
    );
    let alive = format!("/livez at {address}: alive");
    assert_one_line(&run(&["health", "--config", &file]), 0, &alive);
    let address = address.to_string();
    assert_one_line(&run(&["health", "--address", &address, "--https"]), 0, &alive);
    assert_eq!(run(&["health", "--address", &address]).code, Some(1), "without TLS");
}

#[test]
fn a_gateway_that_stops_is_alive_and_not_ready() {
    let folder = tempfile::tempdir().unwrap();
    let (process, file, port) = gateway(&folder, "127.0.0.1", "limits: { lame_duck: 60s }\n");
    process.signal(Signal::TERM);
    process.stderr(|text| text.contains("stopping"));
    let alive = format!("/livez at 127.0.0.1:{port}: alive");
    assert_one_line(&run(&["health", "--config", &file]), 0, &alive);
    let stopping = format!("error: /readyz at 127.0.0.1:{port}: 503: not ready: stopping");
    assert_one_line(&run(&["health", "--ready", "--config", &file]), 1, &stopping);
}

/// A gateway serves on with its former configuration then, and must not be restarted for it.
#[test]
fn a_fault_elsewhere_in_the_file_makes_no_gateway_unhealthy() {
    let folder = tempfile::tempdir().unwrap();
    let (_process, file, port) = gateway(&folder, "127.0.0.1", "");
    let good = std::fs::read_to_string(&file).unwrap();
    let alive = format!("/livez at 127.0.0.1:{port}: alive");
    for faulty in [
        good.edit("server: main", "sever: main"),
        good.edit("servers:", "unknown: 1\nservers:"),
        good.edit("listeners:", "listener:"),
    ] {
        std::fs::write(&file, faulty).unwrap();
        assert_eq!(run(&["check", "--no-secrets", &file]).code, Some(78), "control");
        assert_one_line(&run(&["health", "--config", &file]), 0, &alive);
    }
}

#[test]
fn with_the_address_in_a_variable_no_fault_of_the_file_makes_a_gateway_unhealthy() {
    let folder = tempfile::tempdir().unwrap();
    let (_process, file, port) = gateway(&folder, "127.0.0.1", "");
    std::fs::write(&file, "\tthis is no YAML").unwrap();
    assert_eq!(run(&["health", "--config", &file]).code, Some(1), "control");
    let mut command = boldgate(&["health", "--config", &file]);
    command.env("BOLDGATE_ADMIN_ADDRESS", format!("127.0.0.1:{port}"));
    let alive = format!("/livez at 127.0.0.1:{port}: alive");
    assert_one_line(&Process::start(command).end(), 0, &alive);
}

#[test]
fn health_says_on_one_line_why_it_cannot_ask() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(&folder, "gateway.yaml", &with_admin_at("localhost:9090"));
    for (text, said) in [
        (with_admin_at("localhost:9090"), "admin.address: found `localhost:9090`; accepted: an IP"),
        (with_admin_at("127.0.0.1:0"), "`admin.address` has port 0, and the system chose another"),
        (with_admin_at("127.0.0.1:9090").edit("admin: {", "admin: {{"), "gateway.yaml:"),
        ("admin: []\n".to_owned(), "admin: found a list"),
    ] {
        std::fs::write(&file, text).unwrap();
        assert_failure(&run(&["health", "--config", &file]), said);
    }
    std::fs::remove_file(&file).unwrap();
    assert_failure(&run(&["health", "--config", &file]), "cannot be read: No such file");
}

fn assert_failure(ended: &Ended, said: &str) {
    assert_eq!((ended.code, &*ended.stdout), (Some(1), ""), "{ended:?}");
    assert!(ended.stderr.contains(said), "{said}: {}", ended.stderr);
    assert!(ended.stderr.ends_with("; `--address` asks without the file\n"), "{}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
}

#[test]
fn health_has_a_deadline_of_two_seconds() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let begun = Instant::now();
    let ended = run(&["health", "--address", &address.to_string()]);
    let late = format!(
        "error: /livez at {address}: no response within 2 s; the gateway hangs or has too little CPU time: look at its log"
    );
    assert_one_line(&ended, 1, &late);
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn another_server_is_not_taken_for_the_gateway() {
    for (response, said) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n", "not the admin listener of boldgate"),
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\n\x1b[1m", "404: \\u{1b}[1m"),
        ("SSH-2.0-OpenSSH\r\n", "it answers, but not in HTTP"),
    ] {
        let address = responding(response);
        let ended = run(&["health", "--address", &address.to_string()]);
        assert_eq!((ended.code, &*ended.stdout), (Some(1), ""), "{ended:?}");
        assert!(ended.stderr.contains(said), "{said}: {}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    }
}

/// The address of a server that gives one client this response.
fn responding(response: &'static str) -> SocketAddr {
    use std::io::{Read, Write};
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let _ = client.read(&mut [0; 1024]);
        client.write_all(response.as_bytes()).unwrap();
    });
    address
}
