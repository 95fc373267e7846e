//! `boldgate status`: the state of a running gateway in a terminal or a pipe.

use boldgate::boldbi::UserSource;
use serde_json::Value;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpStream, UnixListener};

use crate::support::client_certificates::Ca;
use crate::support::edit::Edit;
use crate::support::files::{self, Files};
use crate::support::gateway::{CANARY_SECRET, Gateway, PATH, anonymous};
use crate::support::process::{Ended, Process, boldgate, run};
use crate::support::reloads::two_sites;
use crate::support::stand_in::{site, stand_in};
use crate::support::tls::SelfSigned;
use crate::support::upstream::{Upstream, dead_address, free_address, status};

const OFF: &str = "admin: { address: \"127.0.0.1:0\" }";
/// The response of an admin listener without its credential.
const ASKS: &str =
    "{\"outcome\":\"failure\",\"error\":\"the request has no credential\",\"hint\":\"\"}";
const ON: &str = "admin: { address: \"127.0.0.1:0\", status: true }";

/// `boldgate status` with these arguments at this gateway.
fn ask(gateway: &Gateway, arguments: &[&str]) -> Ended {
    let address = gateway.running.admin_address().to_string();
    run(&[&["status", "--address", &address], arguments].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_without_faults_is_all_well_and_the_exit_code_is_0() {
    let mut acme = site(Some("site1"), &[("reports@acme.example", UserSource::AzureAd)]);
    acme.embed_secret = CANARY_SECRET.into();
    let stand_in = stand_in(vec![acme]).await;
    let few = "limits: { max_connections: 100 }\n";
    let gateway = Gateway::start(&format!("{}{few}", anonymous(stand_in.addr()).edit(OFF, ON)));
    assert_eq!(gateway.get(PATH).await.status, 200);
    let ended = ask(&gateway, &[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let first = ended.stdout.lines().next().unwrap();
    assert!(first.ends_with(": all well"), "{first}");
    assert!(ended.stdout.contains("\ntenants: 1 (1 ok)\n"), "{}", ended.stdout);
    assert!(!ended.stdout.contains("acme"), "a tenant without a fault is only counted");
    assert!(!ended.stdout.contains('\x1b'), "no colours in a pipe");
    for arguments in [&["--all"][..], &["ACM"], &["site1"]] {
        let ended = ask(&gateway, arguments);
        assert!(ended.stdout.contains("  ok     acme    main"), "{arguments:?}: {}", ended.stdout);
    }
    let nobody = ask(&gateway, &["nobody"]).stdout;
    assert!(!nobody.contains("acme") && nobody.contains("no tenant matches `nobody`"), "{nobody}");
    assert!(!nobody.contains("\n\n\n"), "{nobody}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_tenant_is_in_the_output_and_the_exit_code_is_1() {
    let gateway = Gateway::start(&anonymous(dead_address()).edit(OFF, ON));
    assert_eq!(gateway.get(PATH).await.status, 503);
    let ended = ask(&gateway, &[]);
    assert_eq!((ended.code, &*ended.stderr), (Some(1), ""), "{ended:?}");
    let problem = "  FAILING  tenants       1 of 1 tenants (acme): the last exchange failed\n";
    assert!(ended.stdout.contains(problem), "{}", ended.stdout);
    let row = ended.stdout.lines().find(|line| line.starts_with("  failing  acme")).unwrap();
    assert!(row.ends_with("tcp connect error: Connection refused (os error 111)"), "{row}");
    let ended = ask(&gateway, &["--json"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let document: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(document["tenants"]["tenants"][0]["name"], "acme");
    for part in ["servers", "certificates", "issuers", "reloads", "config"] {
        assert!(!document[part].is_null(), "{part}: {document}");
    }
    assert!(!ended.stdout.contains(CANARY_SECRET));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_tenants_are_read_page_by_page_and_those_with_a_fault_are_bounded() {
    let mut text = anonymous(dead_address()).edit(OFF, ON);
    for index in 0..450 {
        text += &format!(
            "  t{index:03}:\n    server: main\n    site: s{index}\n    disabled: {}\n    credential:\n      \
             grant: embed_secret\n      username: u@x.example\n      embed_secret: {{ file: SECRET_FILE }}\n      \
             user_source: azure_ad\n",
            index < 30
        );
    }
    let gateway = Gateway::start(&text);
    let rows = |ended: &Ended| ended.stdout.lines().filter(|l| l.contains("  azure_ad  ")).count();
    let ended = ask(&gateway, &[]);
    assert_eq!(rows(&ended), 20, "{}", ended.stdout);
    assert!(ended.stdout.contains("  and 10 more: `boldgate status --all`\n"), "{}", ended.stdout);
    assert_eq!(rows(&ask(&gateway, &["--all"])), 451);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_shows_nothing_is_code_69_with_what_to_do() {
    let away = dead_address().to_string();
    let ended = run(&["status", "--address", &away]);
    assert_eq!(ended.code, Some(69), "{ended:?}");
    assert!(ended.stderr.contains("Connection refused"), "{}", ended.stderr);
    assert!(ended.stderr.contains("hint: no gateway listens there"), "{}", ended.stderr);
    assert!(ended.stderr.contains("waits for a restart"), "{}", ended.stderr);

    let off = Gateway::start(&anonymous(dead_address()));
    let ended = ask(&off, &[]);
    assert_eq!(ended.code, Some(69), "{ended:?}");
    assert!(ended.stderr.contains("hint: set `admin: { status: true }`"), "{}", ended.stderr);

    for body in ["{}}", "{}", "{\"version\": \"1\"}", "[]"] {
        let other = Upstream::with_handler_for_all(move |_| status(200, body)).await;
        let ended = run(&["status", "--address", &other.address.to_string()]);
        assert_eq!(ended.code, Some(69), "{ended:?}");
        assert!(ended.stderr.contains("is not the admin listener of boldgate"), "{}", ended.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_is_sent_to_a_listener_that_asks_for_one_and_shown_nowhere() {
    let listener = Upstream::with_handler_for_all(|_| status(401, ASKS)).await;
    let (folder, address) = (tempfile::tempdir().unwrap(), listener.address.to_string());
    let file = files::write(&folder, "token", "canary-admin-token\n");
    let ended = run(&["status", "--address", &address]);
    assert_eq!(ended.code, Some(69), "{ended:?}");
    assert!(ended.stderr.contains("it asks for a token"), "{}", ended.stderr);
    assert_eq!(listener.seen.take()[0].header("authorization"), [""; 0]);
    let ended = run(&["status", "--address", &address, "--token-file", &file]);
    assert_eq!(ended.code, Some(69), "{ended:?}");
    assert!(ended.stderr.contains("it refuses the token"), "{}", ended.stderr);
    assert!(!format!("{ended:?}").contains("canary-admin-token"));
    let sent = listener.seen.take();
    assert_eq!(sent[0].header("authorization"), ["Bearer canary-admin-token"]);
    let ended = run(&["status", "--address", &address, "--token-file", "/no/where"]);
    assert_eq!(ended.code, Some(78), "{ended:?}");
    assert!(ended.stderr.contains("no token can be read from `/no/where`"), "{}", ended.stderr);
    assert!(listener.seen.take().is_empty(), "nothing was sent without the token");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_address_is_that_of_a_configuration_even_if_the_rest_of_it_is_wrong() {
    let (upstream, files) = (two_sites().await, Files::new());
    let at = free_address();
    let text = files.config(&upstream, &["acme"], "");
    let text = text.edit(OFF, &format!("admin: {{ address: \"{at}\", status: true }}"));
    files.write("boldgate.yaml", &text);
    let path = files.path("boldgate.yaml").display().to_string();
    let gateway = Process::serve(&path);
    let ask = || run(&["status", "--config", &path]);
    assert_eq!(ask().code, Some(0), "{:?}", ask());
    files.swap_in("boldgate.yaml", &text.edit("user_source: local", "user_source: nowhere"));
    let refused = |text: &str| text.contains("the changed configuration is refused");
    gateway.stderr(refused);
    let ended = ask();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("warning  reloads"), "{}", ended.stdout);
    assert!(ended.stdout.contains("tenants.acme.credential.user_source"), "{}", ended.stdout);
    files.swap_in("boldgate.yaml", &text.edit("status: true", "status: maybe"));
    let ended = ask();
    assert_eq!(ended.code, Some(78), "{ended:?}");
    assert!(ended.stderr.contains("`--address ADDRESS` asks the running gateway"), "{ended:?}");
    assert!(ended.stderr.contains("admin.status"), "{}", ended.stderr);
    files.swap_in("boldgate.yaml", &text.edit("status: true", "status: false"));
    let ended = ask();
    assert_eq!(ended.code, Some(69), "{ended:?}");
    assert!(ended.stderr.contains("has no `admin.status: true`"), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_is_read_through_a_unix_socket() {
    let gateway = Gateway::start(&anonymous(dead_address()).edit(OFF, ON));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let (socket, admin) = (UnixListener::bind(&path).unwrap(), gateway.running.admin_address());
    let forward = tokio::spawn(async move {
        loop {
            let (mut near, _) = socket.accept().await.unwrap();
            let mut far = TcpStream::connect(admin).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut near, &mut far).await });
        }
    });
    let ended = run(&["status", "--address", &format!("unix:{}", path.display())]);
    assert!(ended.stdout.contains("tenants: 1 (1 never used)"), "{ended:?}");
    forward.abort();
    let ended = run(&["status", "--address", "unix:/no/where/admin.sock"]);
    assert_eq!(ended.code, Some(69), "{ended:?}");
    assert_eq!(run(&["status", "--address", "unix:relative"]).code, Some(2));
}

#[test]
fn with_tls_it_sends_the_configured_token_to_the_holder_of_the_configured_certificate_alone() {
    let folder = tempfile::tempdir().unwrap();
    let secret = files::write(&folder, "secret", CANARY_SECRET);
    let token = files::write(&folder, "token", "canary-admin-token");
    let tls = SelfSigned::new("gateway.example").listener_keys(folder.path());
    // Beyond loopback, reading takes the token.
    let port = free_address().port();
    let admin = format!(
        "admin: {{ address: \"0.0.0.0:{port}\", status: true, actions: true, token_file: {token}, \
         tls: {{ {tls} }} }}"
    );
    let text = anonymous(dead_address()).edit(OFF, &admin).edit("SECRET_FILE", &secret);
    let file = files::write(&folder, "gateway.yaml", &text);
    let process = Process::start(boldgate(&["serve", "--config", &file]));
    process.stderr(|text| text.contains("boldgate is ready"));
    let ended = run(&["status", "--config", &file]);
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{ended:?}");
    assert!(ended.stdout.contains("\ntenants: 1"), "{}", ended.stdout);
    // Another file in its place, which the gateway does not show.
    let other = tempfile::tempdir().unwrap();
    let keys = SelfSigned::new("gateway.example").listener_keys(other.path());
    let elsewhere = files::write(&folder, "other.yaml", &text.edit(&tls, &keys));
    let ended = run(&["status", "--config", &elsewhere]);
    assert_eq!(ended.code, Some(69), "{ended:?}");
    assert!(ended.stderr.contains("certificate"), "{}", ended.stderr);
    assert!(!format!("{ended:?}").contains("canary"), "{ended:?}");
}

/// Any process of the machine may have taken the address while the gateway is down.
#[tokio::test(flavor = "multi_thread")]
async fn without_tls_the_configured_token_is_not_even_read() {
    let taken = Upstream::with_handler_for_all(|_| status(401, ASKS)).await;
    let (folder, address) = (tempfile::tempdir().unwrap(), taken.address);
    let secret = files::write(&folder, "secret", CANARY_SECRET);
    for token in [files::write(&folder, "token", "canary-admin-token"), "/no/where".to_owned()] {
        let admin =
            format!("admin: {{ address: \"{address}\", status: true, token_file: \"{token}\" }}");
        let text = anonymous(dead_address()).edit(OFF, &admin).edit("SECRET_FILE", &secret);
        let file = files::write(&folder, "gateway.yaml", &text);
        let ended = run(&["status", "--config", &file]);
        assert_eq!(ended.code, Some(69), "{ended:?}");
        assert!(ended.stderr.contains("it asks for a token"), "{}", ended.stderr);
    }
    let asked = taken.seen.take();
    assert!(!asked.is_empty(), "the control: it was asked");
    assert!(asked.iter().all(|request| request.header("authorization").is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_for_clients_is_told_from_an_admin_listener_and_gets_no_token() {
    let hash = boldgate::caller::ApiKey::generate().unwrap().hash().to_string();
    let caller = format!(
        "callers:\n  batch:\n    api_key: {{ sha256: {hash} }}\n    may: [ {{ tenant: acme, routes: [read] }} ]\n"
    );
    let known = anonymous(dead_address()).edit("callers: anonymous", "callers: required");
    for text in [format!("{known}{caller}"), anonymous(dead_address())] {
        let gateway = Gateway::start(&text);
        let ended = run(&["status", "--address", &gateway.address().to_string()]);
        assert_eq!(ended.code, Some(69), "{ended:?}");
        let what = "it responds, but is not the admin listener of boldgate";
        assert!(ended.stderr.contains(what), "{}", ended.stderr);
        assert!(!ended.stderr.contains("--token-file"), "{}", ended.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_only_certificates_are_credentials_it_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let secret = files::write(&folder, "secret", CANARY_SECRET);
    let tls = SelfSigned::new("gateway.example").listener_keys(folder.path());
    let cas = files::write(&folder, "ca.crt", &Ca::new("operators").pem);
    let port = free_address().port();
    let admin = format!(
        "admin: {{ address: \"0.0.0.0:{port}\", status: true, tls: {{ {tls}, client_ca_file: {cas} }} }}"
    );
    let text = anonymous(dead_address()).edit(OFF, &admin).edit("SECRET_FILE", &secret);
    let file = files::write(&folder, "gateway.yaml", &text);
    let process = Process::start(boldgate(&["serve", "--config", &file]));
    process.stderr(|text| text.contains("boldgate is ready"));
    let ended = run(&["status", "--config", &file]);
    assert_eq!(ended.code, Some(69), "{ended:?}");
    assert!(ended.stderr.contains("`status` cannot present one"), "{}", ended.stderr);
    assert!(ended.stderr.contains("add `admin.token_file`"), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_stops_the_state_says_so() {
    let (upstream, files) = (two_sites().await, Files::new());
    let more = "limits: { lame_duck: 5s }\n";
    files.write("boldgate.yaml", &files.config(&upstream, &["acme"], more).edit(OFF, ON));
    let gateway = files.serve();
    let admin = gateway.ready().1.to_string();
    let ended = run(&["status", "--address", &admin]);
    assert!(ended.stdout.lines().next().unwrap().ends_with(": all well"), "{ended:?}");
    gateway.signal(rustix::process::Signal::TERM);
    gateway.stderr(|text| text.contains("stopping"));
    let ended = run(&["status", "--address", &admin]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("warning  overview      the gateway is stopping"), "{ended:?}");
}
