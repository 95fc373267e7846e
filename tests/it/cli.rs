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
use crate::support::upstream::free_address;
use crate::support::waiting::until;

mod check;
mod demo;
mod explain;
mod serve;

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
fn schema_is_the_shipped_one() {
    for (arguments, file) in [
        (&["schema"][..], "config/boldgate.schema.json"),
        (&["schema", "--tenant-file"], "config/boldgate.tenants.schema.json"),
    ] {
        let ended = run(arguments);
        let shipped = std::fs::read_to_string(file).unwrap();
        assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
        let updates = format!("`boldgate {} > {file}` updates it", arguments.join(" "));
        assert!(ended.stdout == shipped, "{updates}");
    }
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
