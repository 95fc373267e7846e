//! The command line: the real binary, its words and its exit codes.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use boldgate::boldbi::UserSource;
use boldgate::boldbi::stand_in::StandIn;
use rustix::process::{Signal, geteuid};
use tokio::net::TcpStream;

use crate::support::client::Client;
use crate::support::edit::Edit;
use crate::support::files::write;
use crate::support::gateway::{Gateway, listening_at};
use crate::support::process::{Process, boldgate, run};
use crate::support::stand_in::{EMBED_SECRET, site, stand_in};
use crate::support::tls::SelfSigned;
use crate::support::upstream::dead_address;
use crate::support::waiting::until;

const COMMANDS: [&str; 12] = [
    "serve",
    "check",
    "explain",
    "token",
    "doctor",
    "rotate",
    "status",
    "health",
    "demo",
    "key",
    "schema",
    "completions",
];

#[test]
fn help_lists_every_command() {
    let mut all = String::new();
    for command in [""].into_iter().chain(COMMANDS) {
        let mut arguments = vec![command, "--help"];
        arguments.retain(|argument| !argument.is_empty());
        let ended = run(&arguments);
        assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
        all += &format!("$ boldgate {}\n{}\n", arguments.join(" "), ended.stdout);
    }
    assert!(COMMANDS.iter().all(|command| all.contains(&format!("\n  {command} "))));
    insta::with_settings!({ omit_expression => true }, { insta::assert_snapshot!("help", all) });
}

#[test]
fn help_shows_no_value_of_the_environment() {
    let mut command = boldgate(&["serve", "--help"]);
    command.env("BOLDGATE_CONFIG", "/canary").env("BOLDGATE_LOG_LEVEL", "debug");
    let ended = Process::start(command).end();
    assert_eq!(ended.stdout, run(&["serve", "--help"]).stdout);
}

#[test]
fn the_version_is_the_one_of_the_package_with_the_commit_and_its_date() {
    let ended = run(&["--version"]);
    assert_eq!(ended.code, Some(0));
    let line = ended.stdout.trim_end();
    let rest = line.strip_prefix(concat!("boldgate ", env!("CARGO_PKG_VERSION"))).expect(line);
    // A build from an archive, which has no commits, shows the version alone.
    if !Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.git")).exists() {
        assert_eq!(rest, "");
        return;
    }
    let known = rest.strip_prefix(" (").and_then(|rest| rest.strip_suffix(')')).expect(line);
    let (commit, date) = known.split_once(' ').expect(line);
    assert!(commit.len() >= 7 && commit.chars().all(|c| c.is_ascii_hexdigit()), "{line}");
    assert!(date.len() == 10 && date.starts_with("20") && date.matches('-').count() == 2, "{line}");
}

#[test]
fn wrong_usage_ends_with_2_and_prints_the_right_usage() {
    let nothing = run(&[]);
    assert_eq!((nothing.code, &*nothing.stdout), (Some(2), ""));
    assert_eq!(nothing.stderr, run(&["--help"]).stdout, "help, where a script does not take it");
    for (arguments, said) in [
        (&["srve"][..], "'serve'"),
        (&["serve", "--confg", "x"], "--config"),
        (&["token"], "<TENANT>"),
        (&["completions", "tcsh"], "zsh"),
        (&["serve", "--log-level", "loud"], "debug"),
        (&["serve", "--log-format", "xml"], "json"),
        (&["demo", "--port", "70000"], "--port"),
    ] {
        let ended = run(arguments);
        assert_eq!((ended.code, &*ended.stdout), (Some(2), ""), "{arguments:?}");
        assert!(ended.stderr.contains(said), "{arguments:?}: {}", ended.stderr);
    }
}

#[test]
fn check_reports_the_faults_of_every_file() {
    let folder = tempfile::tempdir().unwrap();
    let secret = write(&folder, "secret", EMBED_SECRET);
    let good = write(&folder, "good.yaml", &config("http://127.0.0.1:1/bi", &secret));
    let other = config("http://127.0.0.1:1/bi", &secret);
    let typo = write(&folder, "typo.yaml", &other.edit("user_source", "user_sorce"));
    let two = other.edit("embed_secret\n", "embed_secrets\n").edit_all("127.0.0.1:0", "here");
    let two = write(&folder, "two.yaml", &two);

    let ended = run(&["check", &good]);
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
    let without_secrets = run(&["check", "--no-secrets", &good]);
    assert_eq!((without_secrets.code, &*without_secrets.stderr), (Some(0), ""));
    assert_eq!(run(&["check", "--config", &good]).stdout, ended.stdout, "as for `serve`");
    let mut command = Command::new(env!("CARGO_BIN_EXE_boldgate"));
    command.arg("check").env_clear().env("BOLDGATE_CONFIG", &good);
    assert_eq!(Process::start(command).end().stdout, ended.stdout, "the one that `serve` reads");
    for arguments in [&["--config", &good][..], &[&good]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_boldgate"));
        command.arg("check").args(arguments).env_clear().env("BOLDGATE_CONFIG", "/nonexistent");
        let only = Process::start(command).end();
        assert_eq!((only.code, only.stdout), (Some(0), ended.stdout.clone()), "{arguments:?}");
    }
    assert_eq!(ended.stdout, format!("{good}: OK\n"));

    let ended = run(&["check", &typo, &good, &two, "/nonexistent.yaml"]);
    assert_eq!(ended.code, Some(78));
    assert_eq!(ended.stdout, format!("{good}: OK\n"));
    for said in [&typo, "user_sorce", "hint", &two, "embed_secrets", "listeners[0].address"] {
        assert!(ended.stderr.contains(said), "{said}: {}", ended.stderr);
    }
    assert!(ended.stderr.contains("/nonexistent.yaml: cannot be read"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("canary"), "{}", ended.stderr);
}

/// As root, in a process of another user, because root may read everything.
#[test]
fn check_names_the_user_that_may_not_read_a_file_and_the_files_owner() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(folder.path(), 0o755);
    let (binary, secret, closed) = (at("boldgate"), at("secret"), at("closed"));
    std::fs::copy(env!("CARGO_BIN_EXE_boldgate"), &binary).unwrap();
    std::fs::write(&secret, "canary").unwrap();
    std::fs::create_dir(&closed).unwrap();
    std::fs::write(closed.join("secret"), "canary").unwrap();
    let owner = std::fs::metadata(&secret).unwrap().uid();
    let is_root = geteuid().is_root();
    let user = if is_root { 65_534 } else { owner };
    let check = |config: &str| {
        std::fs::write(at("gateway.yaml"), config).unwrap();
        let mut command = Command::new(&binary);
        command.arg("check").arg(at("gateway.yaml")).env_clear();
        if is_root {
            command.uid(user).gid(user);
        }
        Process::start(command).end()
    };
    let open = config("https://bi.example.com/bi", secret.to_str().unwrap());
    mode(&secret, if is_root { 0o600 } else { 0o000 });
    let expected = format!(
        "found a file `{}` from which no secret can be read: it cannot be read: Permission denied \
         (os error 13): boldgate runs as user {user} and group ",
        secret.display()
    );
    let ended = check(&open);
    assert_eq!(ended.code, Some(78));
    assert!(ended.stderr.contains(&expected), "{}", ended.stderr);
    let belongs = format!(", the file belongs to user {owner} and group ");
    assert!(ended.stderr.contains(&belongs), "{}", ended.stderr);
    assert!(ended.stderr.contains("`chgrp boldgate` and `chmod 0640`"), "{}", ended.stderr);

    // The token of the admin API, made as root, is root's alone; the embed secret can be read.
    let (token, readable) = (at("token"), at("readable"));
    std::fs::write(&token, "canary-canary-canary").unwrap();
    std::fs::write(&readable, "canary").unwrap();
    mode(&readable, 0o644);
    let admin = format!("actions: true, token_file: {} }}", token.display());
    let with_token = open
        .edit(&secret.display().to_string(), readable.to_str().unwrap())
        .edit("address: \"127.0.0.1:0\" }", &format!("address: \"127.0.0.1:0\", {admin}"));
    mode(&token, if is_root { 0o600 } else { 0o000 });
    let ended = check(&with_token);
    assert_eq!(ended.code, Some(78));
    let named = format!("found a file `{}` of no use: it cannot be read", token.display());
    for said in [&*named, &*belongs, "hint: ", "`chgrp boldgate` and `chmod 0640`"] {
        assert!(ended.stderr.contains(said), "{said}: {}", ended.stderr);
    }
    mode(&token, 0o644);
    assert_eq!(check(&with_token).code, Some(0), "the control");

    mode(&closed, if is_root { 0o700 } else { 0o000 });
    let ended =
        check(&open.edit(&secret.display().to_string(), closed.join("secret").to_str().unwrap()));
    mode(&closed, 0o700);
    let expected = format!(", the folder `{}` belongs to user {owner} and ", closed.display());
    assert!(ended.stderr.contains(&expected), "{}", ended.stderr);
    assert!(ended.stderr.contains(&format!("runs as user {user} and ")), "{}", ended.stderr);

    // Control: the user may read it.
    mode(&secret, 0o644);
    let ended = check(&open);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

#[test]
fn check_warns_of_settings_that_are_most_likely_not_meant_and_ends_with_0() {
    let folder = tempfile::tempdir().unwrap();
    let secret = write(&folder, "secret", EMBED_SECRET);
    let file = write(&folder, "gateway.yaml", &config("http://bi.example.com", &secret));
    let ended = run(&["check", &file]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(ended.stdout, format!("{file}: OK\n"));
    for said in ["found `http://` to `bi.example.com`", "does not end in `/bi`"] {
        let line = ended.stderr.lines().find(|line| line.contains(said));
        assert!(line.is_some_and(|line| line.starts_with("warning: ")), "{}", ended.stderr);
    }
}

#[test]
fn check_can_skip_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let text = config("http://127.0.0.1:1/bi", "/nonexistent/secret");
    let elsewhere = write(&folder, "elsewhere.yaml", &text);
    let ended = run(&["check", &elsewhere]);
    assert_eq!((ended.code, &*ended.stdout), (Some(78), ""));
    assert!(ended.stderr.contains("acme.credential.embed_secret"), "{}", ended.stderr);
    assert_eq!(run(&["check", "--no-secrets", &elsewhere]).code, Some(0));
}

#[test]
fn shipped_files_pass_the_check_in_one_call() {
    let mut arguments = vec!["check", "--no-secrets"];
    let shipped = ["config/sidecar.yaml", "config/gateway.yaml", "config/multi-tenant.yaml"];
    arguments.extend(shipped);
    let ended = run(&arguments);
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
    assert_eq!(ended.stdout, shipped.map(|file| format!("{file}: OK\n")).concat());
}

#[test]
fn schema_is_the_shipped_one() {
    let ended = run(&["schema"]);
    let shipped = std::fs::read_to_string("config/boldgate.schema.json").unwrap();
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
    assert!(ended.stdout == shipped, "`boldgate schema > config/boldgate.schema.json` updates it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_admitted_by_its_hash() {
    let (one, two) = (run(&["key"]), run(&["key"]));
    assert_eq!((one.code, one.stdout.lines().count()), (Some(0), 1));
    assert_ne!(one.stdout, two.stdout);
    let key = one.stdout.trim_end();
    assert!(!one.stderr.contains(key), "the key is on stdout only");
    let line = one.stderr.lines().find(|line| line.contains("sha256")).unwrap();

    let upstream = crate::support::upstream::Upstream::echo().await;
    let config = crate::support::gateway::anonymous(upstream.address)
        .edit("callers: anonymous", "callers: required")
        + "callers:\n  portal:\n"
        + line
        + "\n    may: [ { tenant: acme, routes: [read] } ]\n";
    let gateway = Gateway::start(&config);
    let get = |key: &str| {
        format!(
            "GET /bi/api/site/site1/v5.0/dashboards HTTP/1.1\r\nHost: a\r\nX-Api-Key: {key}\r\n\r\n"
        )
    };
    assert_eq!(gateway.send(get(key)).await.status, 200);
    assert_eq!(gateway.send(get(two.stdout.trim_end())).await.code(), "caller_unauthenticated");
}

#[test]
fn completions_are_scripts() {
    for shell in ["bash", "zsh", "fish"] {
        let ended = run(&["completions", shell]);
        assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{shell}");
        assert!(COMMANDS.iter().all(|command| ended.stdout.contains(command)), "{shell}");
        if shell == "bash" {
            let script = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(script.path(), ended.stdout).unwrap();
            let status = Command::new("bash").arg("-n").arg(script.path()).status().unwrap();
            assert!(status.success());
        }
    }
}

#[test]
fn every_command_has_a_manual_page_that_formats_without_a_warning() {
    let pages = [None].into_iter().chain(COMMANDS.map(Some));
    for command in pages {
        let arguments: Vec<_> = ["man"].into_iter().chain(command).collect();
        let ended = run(&arguments);
        assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{command:?}");
        let title = command.map_or("boldgate".to_owned(), |command| format!("boldgate-{command}"));
        let head = format!(".TH {title} 1 ");
        assert!(ended.stdout.contains(&head), "{head}: {}", ended.stdout);
        for section in [".SH NAME", ".SH SYNOPSIS", ".SH OPTIONS"] {
            assert!(ended.stdout.contains(section), "{section}: {}", ended.stdout);
        }
        assert!(!ended.stdout.contains(".SH EXTRA"), "{}", ended.stdout);
        // Only where a formatter is installed.
        let script = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(script.path(), ended.stdout).unwrap();
        let format = ["-man", "-Kutf8", "-Tutf8", "-ww", "-z"];
        if let Ok(formatted) = Command::new("groff").args(format).arg(script.path()).output() {
            let warnings = String::from_utf8_lossy(&formatted.stderr);
            assert!(formatted.status.success() && warnings.is_empty(), "{command:?}: {warnings}");
        }
    }
    for (command, code) in [(None, "69"), (Some("status"), "69"), (Some("doctor"), "78")] {
        let arguments: Vec<_> = ["man"].into_iter().chain(command).collect();
        let page = run(&arguments).stdout;
        let (_, status) = page.split_once(".SH \"EXIT STATUS\"\n").expect(&page);
        assert!(status.split(".SH").next().unwrap().contains(code), "{command:?}: {page}");
    }
    let unknown = run(&["man", "man"]);
    assert_eq!(unknown.code, Some(2), "a command that is not for people has no page");
    assert!(unknown.stderr.contains("`man` is no command"), "{}", unknown.stderr);
}

#[test]
fn a_pipe_that_its_reader_closes_early_is_no_failure() {
    let script =
        format!("{} schema | head -1; exit ${{PIPESTATUS[0]}}", env!("CARGO_BIN_EXE_boldgate"));
    let output = Command::new("bash").args(["-c", &script]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, b"{\n");
}

/// Where a result may be meant to go, and what the system says of it.
const INVALID_PLACES: [(&str, &str); 2] =
    [(">/dev/full", "No space left on device"), ("1</proc/version", "Bad file descriptor")];

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_cannot_be_written_is_reported_as_a_failure() {
    let stand_in = acme().await;
    let folder = tempfile::tempdir().unwrap();
    let secret = write(&folder, "secret", EMBED_SECRET);
    let file = write(&folder, "gateway.yaml", &config(&stand_in.url(), &secret));
    let program = env!("CARGO_BIN_EXE_boldgate");
    let shell = |arguments: &str, place: &str| {
        let mut command = Command::new("bash");
        let script = format!("{program} {arguments} {place}; exit ${{PIPESTATUS[0]}}");
        command.args(["-c", &script]).env("TMPDIR", folder.path());
        Process::start(command).end()
    };
    let explain = "explain GET http://localhost/bi/api/site/site1/v5.0/dashboards";
    for arguments in [
        "key".to_owned(),
        "schema".into(),
        "completions bash".into(),
        format!("check {file}"),
        format!("{explain} --config {file}"),
        format!("token acme --config {file}"),
        format!("doctor --config {file}"),
        format!("token acme --show --config {file}"),
        "demo --once".into(),
        "--version".into(),
        "--help".into(),
        "help".into(),
        "help serve".into(),
        "serve --help".into(),
    ] {
        for (place, says) in INVALID_PLACES {
            let ended = shell(&arguments, place);
            assert_eq!(ended.code, Some(1), "{arguments} {place}: {}", ended.stderr);
            let line = format!("error: the result cannot be written: {says}");
            assert!(ended.stderr.contains(&line), "{arguments} {place}: {}", ended.stderr);
            assert!(!ended.stderr.contains("sha256"), "the hash of a key that nobody has");
        }
        // Controls: a device with room, and a reader that has closed the pipe.
        let ended = shell(&arguments, "| cat");
        assert_eq!(ended.code, Some(0), "{arguments}: {}", ended.stderr);
        let ended = shell(&arguments, "| true");
        assert_eq!(ended.code, Some(0), "{arguments}: {}", ended.stderr);
        assert!(!ended.stderr.contains("error"), "{arguments}: {}", ended.stderr);
    }
    // If the command has failed for another reason, the failed write is reported as well.
    let ended = shell(&format!("{} --config {file}", explain.edit("site1", "none")), ">/dev/full");
    assert!(ended.code == Some(1) && ended.stderr.contains("cannot be written"), "{ended:?}");
    let ended = shell("demo --port 0", ">/dev/full");
    assert!(ended.code == Some(1) && ended.stderr.contains("cannot be written"), "{ended:?}");
    // The hash of a key is a part of its result.
    let ended = shell("key", "2>/dev/full");
    assert_eq!(ended.code, Some(1));
}

/// The standard library opens `/dev/null` where a standard stream is closed.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_shown_only_once_is_not_generated_for_a_closed_stdout() {
    let stand_in = acme().await;
    let folder = tempfile::tempdir().unwrap();
    let secret = write(&folder, "secret", EMBED_SECRET);
    let file = write(&folder, "gateway.yaml", &config(&stand_in.url(), &secret));
    let shell = |arguments: &str, place: &str| {
        let mut command = Command::new("bash");
        let script = format!("{} {arguments} {place}", env!("CARGO_BIN_EXE_boldgate"));
        command.args(["-c", &script]);
        Process::start(command).end()
    };
    let show = format!("token acme --show --config {file}");
    for arguments in ["key", &show] {
        for place in [">&-", ">/dev/null", "1<>/dev/null"] {
            let ended = shell(arguments, place);
            assert_eq!(ended.code, Some(1), "{arguments} {place}: {}", ended.stderr);
            assert_eq!(ended.stdout, "");
            assert!(!ended.stderr.contains("sha256"), "the hash of a key that nobody has");
            let line = "error: the result would be lost: stdout is closed, or /dev/null";
            assert!(ended.stderr.starts_with(line), "{arguments} {place}: {}", ended.stderr);
        }
    }
    assert_eq!(stand_in.token_requests(), 0, "no token is fetched that nobody sees");
    // Controls: a place for the key, and commands whose text is not their result.
    for (arguments, place) in
        [("key", "| cat"), (&show, "| cat"), (&*format!("check {file}"), ">/dev/null")]
    {
        let ended = shell(arguments, place);
        assert_eq!(ended.code, Some(0), "{arguments} {place}: {}", ended.stderr);
    }
    assert_eq!(stand_in.token_requests(), 1);
}

/// `ulimit -f`, or `LimitFSIZE=` of systemd: a write beyond it is a signal, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_on_the_size_of_files_ends_no_command_by_a_signal() {
    let stand_in = acme().await;
    let folder = tempfile::tempdir().unwrap();
    let secret = write(&folder, "secret", EMBED_SECRET);
    let file = write(&folder, "gateway.yaml", &config(&stand_in.url(), &secret));
    let shell = |limit: u32, arguments: &str| {
        let mut command = Command::new("bash");
        let (program, result) = (env!("CARGO_BIN_EXE_boldgate"), folder.path().join("result"));
        let result = result.display();
        let script = format!("ulimit -f {limit}; exec {program} {arguments} >{result}");
        command.args(["-c", &script]);
        Process::start(command)
    };
    for arguments in ["key", "schema", "--help", &format!("check {file}")] {
        let ended = shell(0, arguments).end();
        assert_eq!(ended.code, Some(1), "{arguments}: {}", ended.stderr);
        let line = "error: the result cannot be written: File too large";
        assert!(ended.stderr.starts_with(line), "{arguments}: {}", ended.stderr);
        // Control.
        let ended = shell(1024, arguments).end();
        assert_eq!(ended.code, Some(0), "{arguments}: {}", ended.stderr);
    }
    let mut gateway = shell(1, &format!("serve --config {file}"));
    let address = gateway.address();
    let written = || std::fs::metadata(folder.path().join("result")).unwrap().len();
    while written() < 1024 {
        assert_eq!(request(address).await.response().await.status, 200);
    }
    for _ in 0..10 {
        assert_eq!(request(address).await.response().await.status, 200);
    }
    gateway.stderr(|text| text.contains("File too large"));
    assert!(gateway.ended().is_none());
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.end().code, Some(0));
}

#[test]
fn the_demo_runs_without_input() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = boldgate(&["demo", "--once"]);
    let ended = Process::start({
        command.env("TMPDIR", folder.path());
        command
    })
    .end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    // It shows two refusals, and the log explains them.
    assert_eq!(ended.stderr.lines().count(), 2, "{}", ended.stderr);
    assert!(ended.stderr.lines().all(|line| line.contains("\"INFO\"")), "{}", ended.stderr);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "its files are gone");
    insta::with_settings!({ omit_expression => true }, {
        insta::assert_snapshot!("demo", ended.stdout);
    });
}

#[tokio::test]
async fn every_line_that_the_demo_tells_to_paste_works() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = boldgate(&["demo", "--port", "0"]);
    command.env("TMPDIR", folder.path());
    let demo = Process::start(command);
    let introduction = demo.stdout(|text| text.contains("Press Ctrl-C to end."));

    let mut statuses = Vec::new();
    for line in introduction.lines().filter(|line| line.trim_start().starts_with("curl ")) {
        let response = paste(line).await;
        if line.contains("/echo") {
            assert!(response.text().contains("reports@acme.example"), "{}", response.text());
        }
        if line.contains("/boldgate/embed/") {
            let reply: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
            assert_eq!(reply["Data"]["email"], "jane@acme.example", "{reply}");
            assert_eq!(reply["Data"]["StandInFilter"], "[{&Region=IN(North)}]");
        }
        if line.contains("/metrics") {
            assert!(response.text().contains("boldgate_token_exchanges_total"));
        }
        statuses.push(response.status);
    }
    assert_eq!(statuses, [200, 200, 200, 404, 403, 200, 200, 200]);
    let page = introduction.lines().find_map(|l| l.trim().strip_prefix("page")).unwrap();
    let page = paste(&format!("curl {}/", page.split_whitespace().next().unwrap())).await;
    assert!(page.text().contains("/boldgate/embed/authorize"), "{}", page.text());

    // stdout is no terminal here, and yet there is one readable line for each request.
    let lines = demo.stdout(|text| text.matches(" request=").count() == 6);
    for said in ["served tenant=acme token=exchange", "tenant=globex", "refusal=route_closed"] {
        assert!(lines.contains(said), "{said}: {lines}");
    }
    let settings = introduction.lines().find_map(|l| l.trim().strip_prefix("settings")).unwrap();
    assert_eq!(run(&["check", settings.trim()]).code, Some(0));

    demo.signal(Signal::INT);
    let ended = demo.end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "its files are gone");
}

/// Sends what a line of the form `curl [-i] [-s] [-X METHOD] URL [-H HEADER] [-d 'BODY']` sends. A
/// header may have `$(curl -s URL)` in it.
async fn paste(line: &str) -> crate::support::client::Response {
    let words: Vec<&str> = line.split_whitespace().collect();
    let after = |option| words.iter().skip_while(|word| **word != option).nth(1).copied();
    let url = words.iter().find_map(|word| word.strip_prefix("http://")).unwrap();
    let (address, path) = url.split_once('/').unwrap();
    let body = line.split_once(" -d '").map_or("", |(_, rest)| rest.strip_suffix('\'').unwrap());
    let method = after("-X").unwrap_or(if body.is_empty() { "GET" } else { "POST" });
    let mut headers = String::new();
    for header in line.split(" -H ").skip(1) {
        let quote = header.chars().next().unwrap();
        let header = &header[1..=header[1..].find(quote).unwrap()];
        let header = match header.split_once("$(") {
            Some((before, command)) => {
                let inner = Box::pin(paste(command.strip_suffix(')').unwrap())).await;
                format!("{before}{}", inner.text())
            }
            None => header.to_owned(),
        };
        headers += &format!("{header}\r\n");
    }
    let mut client = Client::connect(address.parse().unwrap()).await;
    let head = format!(
        "{method} /{path} HTTP/1.1\r\nHost: {address}\r\nAccept: */*\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    client.write((head + body).as_bytes()).await;
    client.response().await
}

#[test]
fn a_demo_whose_port_is_taken_says_how_to_get_another() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let ended = run(&["demo", "--port", &port]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains(&format!("`127.0.0.1:{port}`")), "{}", ended.stderr);
    assert!(ended.stderr.contains("--port 0"), "{}", ended.stderr);
}

#[tokio::test]
async fn a_gateway_of_its_own_works_with_what_the_pretend_bold_bi_alone_says() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = boldgate(&["demo", "--bold-bi-only", "--port", "0"]);
    command.env("TMPDIR", folder.path());
    let bold_bi = Process::start(command);
    let said = bold_bi.stdout(|text| text.contains("Press Ctrl-C to end."));
    let after = |name: &str| {
        let (_, rest) = said.split_once(name).expect(&said);
        rest.split([',', '\n']).next().unwrap().trim().to_owned()
    };
    let secret = write(&folder, "secret", &after("embed secret"));
    let text = config(&after("url"), &secret);
    assert_eq!(after("username"), "reports@acme.example", "the user of that configuration");
    let gateway = Process::serve(&write(&folder, "gateway.yaml", &text));
    let mut client = Client::connect(gateway.address()).await;
    let echo = "GET /bi/api/site/site1/v5.0/echo HTTP/1.1\r\nHost: localhost\r\n\r\n";
    client.write(echo.as_bytes()).await;
    let response = client.response().await;
    assert_eq!(response.status, 200, "{}", response.text());
    assert!(response.text().contains("reports@acme.example"), "{}", response.text());

    let port = after("url").rsplit_once(':').unwrap().1.trim_end_matches("/bi").to_owned();
    let taken = run(&["demo", "--bold-bi-only", "--port", &port]);
    assert_eq!(taken.code, Some(1));
    assert!(taken.stderr.contains("--port 0"), "{}", taken.stderr);
    bold_bi.signal(Signal::TERM);
    assert_eq!(bold_bi.end().code, Some(0));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "it writes no files");
}

#[tokio::test(flavor = "multi_thread")]
async fn token_describes_a_token_and_prints_it_only_on_request() {
    let stand_in = acme().await;
    let folder = tempfile::tempdir().unwrap();
    let secret = write(&folder, "secret", EMBED_SECRET);
    let file = write(&folder, "gateway.yaml", &config(&stand_in.url(), &secret));

    let ended = run(&["token", "acme", "--config", &file]);
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
    let said = [
        "tenant:    acme",
        &format!("server:    main (http://{})", stand_in.addr()),
        "site:      site1",
        "grant:     embed_secret",
        "username:  reports@acme.example",
        "lifetime:  604800 s",
        "email:",
        "exp:",
    ];
    for said in said {
        assert!(ended.stdout.contains(said), "{said}: {}", ended.stdout);
    }
    assert!(!ended.stdout.contains("eyJ"), "no JWT: {}", ended.stdout);

    let shown = run(&["token", "acme", "-c", &file, "--show"]);
    assert!(shown.stdout.contains("\nauthorization: Bearer eyJ"), "{}", shown.stdout);

    let unknown = run(&["token", "acne", "--config", &file]);
    assert_eq!((unknown.code, &*unknown.stdout), (Some(1), ""));
    assert!(
        unknown.stderr.contains("`acne`") && unknown.stderr.contains("the configuration has: acme")
    );

    write(&folder, "secret", "canary-of-another-site");
    let refused = run(&["token", "acme", "--config", &file]);
    assert_eq!(refused.code, Some(1));
    for said in ["tenant `acme`", &stand_in.url(), "refused", "hint:", "Settings > Embed"] {
        assert!(refused.stderr.contains(said), "{said}: {}", refused.stderr);
    }
    assert!(!(refused.stdout + &refused.stderr).contains("canary"));

    let off = config(&stand_in.url(), &secret).edit("  acme:\n", "  acme:\n    disabled: true\n");
    let file = write(&folder, "gateway.yaml", &off);
    let asked = stand_in.token_requests();
    let disabled = run(&["token", "acme", "--config", &file]);
    assert_eq!((disabled.code, &*disabled.stdout), (Some(1), ""));
    for said in ["tenant `acme`: the tenant is disabled", "hint: remove `tenants.acme.disabled`"] {
        assert!(disabled.stderr.contains(said), "{said}: {}", disabled.stderr);
    }
    assert_eq!(stand_in.token_requests(), asked);
}

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
    let address = dead_address();
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
    let address = dead_address();
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

async fn acme() -> StandIn {
    stand_in(vec![site(Some("site1"), &[("reports@acme.example", UserSource::AzureAd)])]).await
}

/// A request that has been sent.
async fn request(address: SocketAddr) -> Client<TcpStream> {
    let mut client = Client::connect(address).await;
    client.write(b"GET /bi/api/site/site1/v5.0/echo HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client
}

fn config(url: &str, secret: &str) -> String {
    assert!(Path::new(secret).is_absolute());
    format!(
        "listeners:\n  - {{ address: \"127.0.0.1:0\", callers: anonymous, hosts: [a, gw] }}\n\
         admin: {{ address: \"127.0.0.1:0\" }}\n\
         servers:\n  main: {{ url: \"{url}\" }}\n\
         tenants:\n  acme:\n    server: main\n    site: site1\n    credential:\n      \
         grant: embed_secret\n      username: reports@acme.example\n      \
         embed_secret: {{ file: \"{secret}\" }}\n      user_source: azure_ad\n"
    )
}

const CALLERS: &str = "callers:\n  portal:\n    \
    api_key: { sha256: 4355a46b19d348dc2f57c046f8ef63d4538ebb936000f3c9ee954a27460dd865 }\n    \
    may: [ { tenant: acme, routes: [read] } ]\n";

#[test]
fn explain_prints_the_decision_on_a_request_and_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let secret = write(&folder, "secret", EMBED_SECRET);
    let key = boldgate::caller::ApiKey::generate().unwrap();
    let text = config("http://127.0.0.1:1/bi", &secret)
        .edit("listeners:\n", "listeners:\n  - { address: 127.0.0.1:7777, callers: required }\n")
        + &format!(
            "callers:\n  portal:\n    api_key: {{ sha256: {} }}\n    may: [{{ tenant: acme, routes: [read] }}]\n",
            key.hash()
        );
    let file = write(&folder, "gateway.yaml", &text);
    let header = format!("X-Api-Key: {}", key.expose());
    let explain = |method: &str, url: &str, header: &str| {
        run(&["explain", method, url, "-H", header, "--config", &file])
    };
    let url = "https://gw.example.com/bi/api/site/site1/v5.0/dashboards";

    let admitted = explain("GET", url, &header);
    assert_eq!((admitted.code, &*admitted.stderr), (Some(0), ""), "{}", admitted.stdout);
    for said in [
        "caller:    portal",
        "tenant:    acme",
        "class:     read",
        "subject:   reports@acme.example",
        "decision:  admitted, with a token of the subject",
    ] {
        assert!(admitted.stdout.contains(said), "{said}: {}", admitted.stdout);
    }
    for (method, url, header, said) in [
        ("POST", url, &*header, "refused, 403 route_closed"),
        ("GET", url, "X-Api-Key: wrong", "refused, 401 caller_unauthenticated"),
        ("GET", "/bi/api/site/nowhere/x", &header, "refused, 404 tenant_unknown"),
        ("GET", "/bi/api/site/site1/../x", &header, "refused, 400 request_refused"),
        ("TRACE", url, &header, "refused, 405 method_refused"),
    ] {
        let refused = explain(method, url, header);
        assert_eq!(refused.code, Some(1));
        assert!(refused.stdout.contains(said), "{said}: {}", refused.stdout);
        let has_class = refused.stdout.contains("class:     write");
        assert_eq!(has_class, said.ends_with("route_closed"), "{}", refused.stdout);
        assert!(!refused.stdout.contains(key.expose()) && !refused.stderr.contains(key.expose()));
    }
}

#[test]
fn explain_knows_pages_by_their_origin() {
    let folder = tempfile::tempdir().unwrap();
    let secret = write(&folder, "secret", EMBED_SECRET);
    let text = config("http://127.0.0.1:1/bi", &secret).edit(
        "    site: site1\n",
        "    site: site1\n    cors: { origins: [https://app.example] }\n",
    );
    let file = write(&folder, "gateway.yaml", &text);
    let url = "http://localhost:8080/bi/api/site/site1/v5.0/dashboards";
    let preflight = "Access-Control-Request-Method: GET";
    for (method, headers, code, said) in [
        (
            "GET",
            &["Origin: https://app.example"][..],
            0,
            "origin:    https://app.example, which may",
        ),
        (
            "GET",
            &["Origin: http://localhost:8080"],
            0,
            "origin:    http://localhost:8080, which may",
        ),
        ("GET", &["Sec-Fetch-Site: none"], 0, "decision:  admitted"),
        ("GET", &["Origin: https://evil.example"], 1, "refused, 403 origin_refused"),
        ("GET", &["Origin: https://evil.example"], 1, "not listed in `tenants.acme.cors.origins`"),
        ("OPTIONS", &["Origin: https://app.example", preflight], 0, "responds with 204"),
        ("OPTIONS", &["Origin: null", preflight], 1, "refused, 403 origin_refused"),
    ] {
        let headers = headers.iter().flat_map(|header| ["-H", header]);
        let all = ["explain", method, url, "--config", &file].into_iter().chain(headers);
        let all: Vec<_> = all.collect();
        let explained = run(&all);
        let text = explained.stdout + &explained.stderr;
        assert_eq!(explained.code, Some(code), "{text}");
        assert!(text.contains(said), "{said}: {text}");
    }
}

#[test]
fn explain_trusts_a_proxy_by_the_given_address() {
    let folder = tempfile::tempdir().unwrap();
    let secret = write(&folder, "secret", EMBED_SECRET);
    let key = boldgate::caller::ApiKey::generate().unwrap();
    let text = config("http://127.0.0.1:1/bi", &secret)
        .edit("listeners:\n", "listeners:\n  - { address: 127.0.0.1:7777, callers: required }\n")
        + &format!(
            "callers:\n  proxy:\n    api_key: {{ sha256: {} }}\n    may:\n      - tenant: acme\n        \
         routes: [read]\n        subject: {{ header: X-User, from: [192.0.2.0/24], domains: [acme.example] }}\n",
            key.hash()
        );
    let file = write(&folder, "gateway.yaml", &text);
    let header = format!("X-Api-Key: {}", key.expose());
    let url = "/bi/api/site/site1/v5.0/dashboards";
    for (address, code, said) in [
        ("192.0.2.7", 0, "subject:   ann@acme.example"),
        ("198.51.100.7", 1, "refused, 403 subject_refused"),
    ] {
        let user = ["-H", "X-User: ann@acme.example", "--from", address];
        let explained = ["explain", "GET", url, "--config", &file, "-H", &header];
        let explained = run(&[&explained[..], &user].concat());
        assert_eq!(explained.code, Some(code), "{address}: {}", explained.stdout);
        assert!(explained.stdout.contains(said), "{address}: {}", explained.stdout);
    }
}

/// Options give `explain` the facts of a connection, and it decides as `serve` does.
#[test]
fn explain_and_check_know_certificates_processes_and_expired_keys() {
    let folder = tempfile::tempdir().unwrap();
    let secret = write(&folder, "secret", EMBED_SECRET);
    let pem = |name: &str| {
        let own = SelfSigned::new(name);
        let certificate = write(&folder, &format!("{name}.crt"), &own.pem());
        (certificate, write(&folder, &format!("{name}.key"), &own.key_pem()))
    };
    let (known, key) = pem("reports.example");
    let (stranger, _) = pem("stranger.example");
    let tls = format!("{{ certificate_file: {known}, key_file: {key}, client_ca_file: {known} }}");
    let may = "may: [{ tenant: acme, routes: [read] }]";
    let text = config("http://127.0.0.1:1/bi", &secret).edit(
        "listeners:\n",
        &format!(
            "listeners:\n  - {{ address: 127.0.0.1:7778, callers: required, tls: {tls} }}\n  \
             - {{ address: \"unix:/run/boldgate.sock\", callers: required }}\n"
        ),
    ) + &format!(
        "callers:\n  reports:\n    certificates: [{{ san_dns: reports.example }}]\n    {may}\n  \
         cron:\n    unix: {{ uid: 1000 }}\n    api_key: {{ sha256: {}, expires: 2020-01-01T00:00:00Z }}\n    {may}\n",
        "ab".repeat(32)
    );
    let file = write(&folder, "gateway.yaml", &text);
    let socket = ["--listener", "unix:/run/boldgate.sock", "--gid", "1000", "--uid"];
    let url = "/bi/api/site/site1/v5.0/dashboards";
    for (options, code, said) in [
        (vec!["--client-cert", &known], 0, "caller:    reports"),
        (vec!["--client-cert", &stranger], 1, "refused, 403 certificate_unknown"),
        (vec![], 1, "this listener demands a client certificate"),
        ([&socket[..], &["1000"]].concat(), 0, "caller:    cron"),
        ([&socket[..], &["1001"]].concat(), 1, "refused, 401 caller_unauthenticated"),
        (vec!["--listener", "127.0.0.1:0"], 0, "caller:    anonymous"),
        (
            vec!["--listener", "127.0.0.1:0", "-H", "Host: evil.example"],
            1,
            "refused, 421 host_refused",
        ),
    ] {
        let all = [&["explain", "GET", url, "--config", &file], &options[..]].concat();
        let explained = run(&all);
        let text = explained.stdout + &explained.stderr;
        assert_eq!(explained.code, Some(code), "{options:?}: {text}");
        assert!(text.contains(said), "{options:?}: {text}");
    }
    let checked = run(&["check", &file]);
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    assert!(checked.stderr.contains("warning: ") && checked.stderr.contains("has passed"));
}
