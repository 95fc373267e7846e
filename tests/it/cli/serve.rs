//! What `serve` says of its start, and how it ends.

use super::*;

#[test]
fn serve_says_which_address_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let secret = write(&folder, "secret", EMBED_SECRET);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let text = config("http://127.0.0.1:1/bi", &secret);
    let socket = format!("unix:{}/none/gateway.sock", folder.path().display());
    for (text, address, hint) in [
        (listening_at(&address, &text), &*address, "another process listens on this address"),
        (
            text.edit(
                "admin: { address: \"127.0.0.1:0\" }",
                &format!("admin: {{ address: \"{address}\" }}"),
            ),
            &address,
            "another process listens on this address",
        ),
        (
            listening_at("192.0.2.1:0", &text).edit("anonymous", "required") + CALLERS,
            "192.0.2.1:0",
            "no such address",
        ),
        (listening_at(&socket, &text), &socket, "make the folder"),
    ] {
        let ended = run(&["serve", "-c", &write(&folder, "gateway.yaml", &text)]);
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        let said = format!("cannot listen on `{address}`: ");
        let log = json_lines(&ended.stderr);
        let line = log.last().unwrap();
        assert!(line["message"].as_str().unwrap().starts_with(&said), "{}", ended.stderr);
        assert!(line["hint"].as_str().unwrap().contains(hint), "{}", ended.stderr);
        assert_eq!(line["severity"], "ERROR");
        // The same as text.
        let file = folder.path().join("gateway.yaml");
        let ended = run(&["serve", "--log-format", "text", "-c", file.to_str().unwrap()]);
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        assert!(ended.stderr.contains(&format!("error: {said}")), "{}", ended.stderr);
    }
}

/// The lines of a log, each of which must be a JSON object.
fn json_lines(log: &str) -> Vec<serde_json::Value> {
    log.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

#[test]
fn each_finding_at_the_start_is_a_line_in_the_format_of_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let text =
        config("http://127.0.0.1:1/bi", "/nonexistent/secret").edit("listeners:", "listner:");
    let file = write(&folder, "bad.yaml", &text);
    let serve = |format| run(&["serve", "--log-format", format, "--config", &file]);
    let (as_text, as_json) = (serve("text"), serve("json"));
    assert_eq!((as_text.code, as_json.code), (Some(78), Some(78)));
    let log = json_lines(&as_json.stderr);
    assert!(log.len() >= 2, "{log:?}");
    for line in &log {
        assert_eq!(line["message"], "the configuration is invalid");
        let finding = line["finding"].as_str().unwrap();
        assert!(as_text.stderr.contains(finding), "{finding}");
        if let Some(hint) = line["hint"].as_str() {
            assert!(as_text.stderr.contains(&format!("hint: {hint}")), "{hint}");
        }
    }
    assert!(log.iter().any(|line| line["hint"].as_str().is_some()), "{log:?}");
    // A file that is not there.
    let ended = run(&["serve", "--log-format", "json", "--config", "/nonexistent.yaml"]);
    assert_eq!(ended.code, Some(78));
    let log = json_lines(&ended.stderr);
    assert!(log[0]["finding"].as_str().unwrap().contains("cannot be read"), "{log:?}");
    // `--log-level` cannot hide the reason.
    let ended = run(&["serve", "--log-level", "error", "--config", &file]);
    assert!(!json_lines(&ended.stderr).is_empty());
}

#[test]
fn serve_binds_nothing_when_the_configuration_is_bad() {
    let folder = tempfile::tempdir().unwrap();
    let address = free_address();
    let text = config("http://127.0.0.1:1/bi", "/nonexistent/secret");
    let file = write(&folder, "bad.yaml", &listening_at(address, &text));
    let ended = run(&["serve", "--config", &file]);
    assert_eq!((ended.code, &*ended.stdout), (Some(78), ""));
    assert!(ended.stderr.contains("embed_secret") && !ended.stderr.contains("listening"));
    assert_eq!(run(&["serve", "--config", "/nonexistent.yaml"]).code, Some(78));
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_finishes_its_requests_on_a_signal_to_stop() {
    let stand_in = acme().await;
    let folder = tempfile::tempdir().unwrap();
    let secret = write(&folder, "secret", EMBED_SECRET);
    let file = write(&folder, "gateway.yaml", &config(&stand_in.url(), &secret));

    for (signal, name) in
        [(Signal::TERM, "SIGTERM"), (Signal::INT, "SIGINT"), (Signal::QUIT, "SIGQUIT")]
    {
        let gateway = Process::serve(&file);
        stand_in.set_latency(Duration::ZERO, Duration::from_millis(500));
        let before = stand_in.api_requests();
        let mut client = request(gateway.address()).await;
        until(|| stand_in.api_requests() > before).await;
        gateway.signal(signal);
        gateway.stderr(|text| text.contains(name));
        assert_eq!(client.response().await.status, 200, "what was begun is finished");
        let ended = gateway.end();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert!(ended.stderr.contains("stopped: all requests have finished"), "{}", ended.stderr);
        let access: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
        assert_eq!(access["boldgate.outcome"], "served", "the last line is written");
    }

    let gateway = Process::serve(&file);
    stand_in.set_latency(Duration::ZERO, Duration::from_secs(20));
    let before = stand_in.api_requests();
    let _client = request(gateway.address()).await;
    until(|| stand_in.api_requests() > before).await;
    gateway.signal(Signal::TERM);
    gateway.stderr(|text| text.contains("SIGTERM"));
    gateway.signal(Signal::TERM);
    let ended = gateway.end();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("stopped at once"), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_says_what_listens_where() {
    let stand_in = acme().await;
    let folder = tempfile::tempdir().unwrap();
    let secret = write(&folder, "secret", EMBED_SECRET);
    let text = config(&stand_in.url(), &secret)
        .edit("listeners:\n", "listeners:\n  - { address: \"[::1]:0\", callers: required }\n")
        + CALLERS;
    let file = write(&folder, "gateway.yaml", &text);
    let gateway = Process::serve(&file);
    let log = gateway.log();
    let listening: Vec<_> = log.iter().filter(|line| line["message"] == "listening").collect();
    assert_eq!(
        (&listening[0]["callers"], &listening[1]["callers"]),
        (&"required".into(), &"anonymous".into())
    );
    assert_eq!(listening[1]["tls"], false);
    assert!(listening[0]["address"].as_str().unwrap().starts_with("[::1]:"));
    let ready = log.last().unwrap();
    assert_eq!(ready["severity"], "INFO");
    assert_eq!(ready["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(
        (&ready["servers"], &ready["tenants"], &ready["callers"]),
        (&1.into(), &1.into(), &1.into())
    );
    drop(gateway);

    // The same as text, and set by the environment; RUST_LOG has no effect.
    let mut command = boldgate(&["serve"]);
    command.env("BOLDGATE_CONFIG", &file).env("BOLDGATE_LOG_FORMAT", "text").env("RUST_LOG", "off");
    let gateway = Process::start(command);
    let log = gateway.stderr(|text| text.contains("boldgate is ready"));
    assert!(log.contains("INFO listening address=[::1]:"), "{log}");
    drop(gateway);

    // At this level the gateway logs nothing, so its address must be known beforehand.
    let address = free_address();
    let file = write(&folder, "quiet.yaml", &text.edit("[::1]:0", &address.to_string()));
    let mut command = boldgate(&["serve", "--log-level", "error", "--config", &file]);
    let gateway = Process::start({
        command.env("RUST_LOG", "trace");
        command
    });
    until(|| std::net::TcpStream::connect(address).is_ok()).await;
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.end().stderr, "");
}
