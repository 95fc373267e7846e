//! The proxy between the gateway and Bold BI.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use rustix::process::Signal;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};

use crate::support::connect_proxy::{Answer, ConnectProxy};
use crate::support::edit::Edit;
use crate::support::files::write;
use crate::support::gateway::{Gateway, PATH, anonymous};
use crate::support::process::{Process, boldgate, run};
use crate::support::reloads::get;
use crate::support::tls::{SelfSigned, TlsServer};
use crate::support::upstream::{Upstream, dead_address, give_token, ok};
use crate::support::waiting::{becomes, until};

/// `canary-egress:canary-proxy-password` in Base64.
const LOGIN: &str = "Basic Y2FuYXJ5LWVncmVzczpjYW5hcnktcHJveHktcGFzc3dvcmQ=";
const PASSWORD: &str = "canary-proxy-password";

/// A configuration whose server has this URL and these keys.
fn at_url(url: &str, more: &str) -> String {
    let there = dead_address();
    anonymous(there).edit(&format!("http://{there}/bi\""), &format!("{url}/bi\"{more}"))
}

fn through(proxy: &ConnectProxy, more: &str) -> String {
    format!(", proxy: {{ url: \"http://{}\"{more} }}", proxy.address)
}

async fn upstream() -> Upstream {
    Upstream::with_handler_for_all(|request| {
        if request.path().ends_with("/token") { give_token(request, 0) } else { ok("fine") }
    })
    .await
}

/// Everything has gone through the proxy, to this host and port.
fn assert_all_through(proxy: &ConnectProxy, upstream: &Upstream, target: &str) {
    let heads = proxy.heads();
    for head in &heads {
        let begin = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
        assert!(head.starts_with(&begin), "{head}");
    }
    assert_eq!(upstream.seen.connections.load(SeqCst), heads.len(), "nothing goes directly");
    for request in upstream.seen.requests() {
        assert!(request.header("proxy-authorization").is_empty(), "{}", request.head);
    }
}

#[tokio::test]
async fn data_tokens_and_health_checks_go_through_the_proxy_which_looks_the_name_up() {
    let upstream = upstream().await;
    let proxy = ConnectProxy::start(Answer::WithLogin(upstream.address, LOGIN)).await;
    let folder = tempfile::tempdir().unwrap();
    let password = write(&folder, "password", PASSWORD);
    let login = format!(", username: canary-egress, password: {{ file: {password:?} }}");
    let more = through(&proxy, &login) + ", health_check: { path: /alive, interval: 50ms }";
    let gateway = Gateway::start(&at_url("http://bold-bi.invalid:6005", &more));
    let paths = || -> Vec<_> {
        upstream.seen.requests().iter().map(|request| request.path().to_owned()).collect()
    };
    until(|| paths().iter().any(|path| path == "/alive")).await;
    assert_eq!(gateway.get(PATH).await.status, 200);
    let own =
        format!("GET {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer own\r\n\r\n");
    assert_eq!(gateway.send(own).await.status, 200);
    let paths = paths();
    assert_eq!(paths.iter().filter(|path| *path == PATH).count(), 2);
    assert_eq!(paths.iter().filter(|path| path.ends_with("/token")).count(), 1);
    let hosts = upstream.seen.requests();
    assert!(hosts.iter().all(|request| request.header("host") == ["bold-bi.invalid:6005"]));
    assert_all_through(&proxy, &upstream, "bold-bi.invalid:6005");
    let told = gateway.stop().await;
    assert!(!told.contains("canary-egress") && !told.contains(PASSWORD), "{told}");
}

#[tokio::test]
async fn tls_through_a_proxy_is_with_bold_bi_itself() {
    let upstream = upstream().await;
    let certificate = SelfSigned::new("bold-bi.invalid");
    let server = TlsServer::start(certificate.acceptor(), upstream.address).await;
    let proxy = ConnectProxy::start(Answer::To(server.address)).await;
    let folder = tempfile::tempdir().unwrap();
    let ca = write(&folder, "ca.pem", &certificate.pem());
    let more = through(&proxy, "") + &format!(", ca_file: {ca:?}");
    let gateway = Gateway::start(&at_url("https://bold-bi.invalid", &more));
    assert_eq!(gateway.get(PATH).await.status, 200);
    assert_eq!(server.handshakes.load(SeqCst), 2, "a token and a request");
    assert_all_through(&proxy, &upstream, "bold-bi.invalid:443");

    // Another certificate behind the same proxy gets nothing.
    let other = SelfSigned::new("bold-bi.invalid");
    let ca = write(&folder, "other.pem", &other.pem());
    let more = through(&proxy, "") + &format!(", ca_file: {ca:?}");
    let before = upstream.seen.requests().len();
    let gateway = Gateway::start(&at_url("https://bold-bi.invalid", &more));
    assert_eq!(gateway.get(PATH).await.status, 503, "there is no token");
    assert_eq!(upstream.seen.requests().len(), before);
}

#[tokio::test]
async fn a_proxy_and_a_server_may_be_ipv6_addresses() {
    let upstream = upstream().await;
    let proxy = ConnectProxy::at("[::1]:0", Answer::To(upstream.address)).await;
    let gateway = Gateway::start(&at_url("http://[2001:db8::7]:6005", &through(&proxy, "")));
    assert_eq!(gateway.get(PATH).await.status, 200);
    assert_all_through(&proxy, &upstream, "[2001:db8::7]:6005");
}

#[tokio::test]
async fn a_proxy_that_makes_no_connection_is_named_and_nothing_goes_around_it() {
    let upstream = upstream().await;
    let url = format!("http://{}", upstream.address);
    let own =
        format!("GET {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer own\r\n\r\n");
    for (answer, reason) in [
        (Answer::Status(407), "proxy_login"),
        (Answer::Status(403), "proxy_refused"),
        (Answer::Status(502), "proxy_refused"),
    ] {
        let proxy = ConnectProxy::start(answer).await;
        let gateway = Gateway::start(&at_url(&url, &through(&proxy, "")));
        assert_eq!(gateway.get(PATH).await.status, 503, "there is no token");
        let refused = gateway.send(&own).await;
        assert_eq!(refused.status, 502);
        assert!(refused.text().contains("upstream_unreachable"), "{}", refused.text());
        let lines = gateway.access_lines(2).await;
        assert_eq!(lines[0]["boldgate.reason"], reason, "of the token: {}", lines[0]);
        assert_eq!(lines[1]["boldgate.reason"], reason, "{}", lines[1]);
        assert!(!proxy.heads().is_empty());
    }
    let dead = format!(", proxy: {{ url: \"http://{}\" }}", dead_address());
    let gateway = Gateway::start(&at_url(&url, &dead));
    assert_eq!(gateway.send(&own).await.status, 502);
    assert_eq!(gateway.access_lines(1).await[0]["boldgate.reason"], "proxy_connect");

    // `timeouts.connect` covers the proxy's answer.
    let proxy = ConnectProxy::start(Answer::Silence).await;
    let more = through(&proxy, "") + ", timeouts: { connect: 300ms }";
    let gateway = Gateway::start(&at_url(&url, &more));
    let begun = Instant::now();
    assert_eq!(timeout(Duration::from_secs(5), gateway.send(&own)).await.unwrap().status, 504);
    assert_eq!(timeout(Duration::from_secs(5), gateway.get(PATH)).await.unwrap().status, 503);
    assert!(begun.elapsed() < Duration::from_secs(5));
    upstream.seen.assert_untouched("behind a proxy");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_goes_through_the_proxy_and_names_its_faults() {
    let upstream = upstream().await;
    let folder = tempfile::tempdir().unwrap();
    let secret = write(&folder, "secret", "canary-embed-secret-0123456789");
    let doctor = async |name: &str, proxy: &ConnectProxy| {
        let text = at_url("http://bold-bi.invalid:6005", &through(proxy, ""));
        let config = write(&folder, name, &text.edit("SECRET_FILE", &secret));
        spawn_blocking(move || run(&["doctor", "--config", &config])).await.unwrap()
    };
    let proxy = ConnectProxy::start(Answer::To(upstream.address)).await;
    let ended = doctor("good.yaml", &proxy).await;
    assert!(
        ended.stdout.contains("the proxy there has connected to bold-bi.invalid:6005"),
        "{ended:?}"
    );
    assert!(upstream.seen.requests().iter().any(|request| request.path().ends_with("/token")));
    assert_all_through(&proxy, &upstream, "bold-bi.invalid:6005");

    for (status, says, to_do) in [
        (407, "wants a valid user name and password for bold-bi.invalid:6005", "proxy.password"),
        (403, "refuses, or fails, to connect to bold-bi.invalid:6005", "access rules"),
    ] {
        let proxy = ConnectProxy::start(Answer::Status(status)).await;
        let ended = doctor("bad.yaml", &proxy).await;
        let told = ended.stdout.replace('\n', " ");
        assert!(told.contains(&format!("the proxy {}", proxy.address)), "{ended:?}");
        assert!(told.contains(says) && told.contains(to_do), "{ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_password_is_used_and_no_proxy_comes_from_the_environment() {
    let upstream = upstream().await;
    let proxy = ConnectProxy::start(Answer::To(upstream.address)).await;
    let foreign = ConnectProxy::start(Answer::Status(502)).await;
    let folder = tempfile::tempdir().unwrap();
    let secret = write(&folder, "secret", "canary-embed-secret-0123456789");
    let password = write(&folder, "password", "canary-first");
    let login = format!(", username: egress, password: {{ file: {password:?} }}");
    let text = at_url("http://bold-bi.invalid:6005", &through(&proxy, &login));
    let config = write(&folder, "gateway.yaml", &text.edit("SECRET_FILE", &secret));
    let process = spawn_blocking({
        let foreign = format!("http://{}", foreign.address);
        move || {
            let mut command = boldgate(&["serve", "--config", &config]);
            for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"] {
                command.env(name, &foreign);
            }
            let process = Process::start(command);
            process.ready();
            process
        }
    });
    let process = process.await.unwrap();
    assert_eq!(get(process.address(), PATH).await.status, 200);
    let sent = |login: &str| proxy.heads().last().is_some_and(|head| head.contains(login));
    // `egress:canary-first`, `egress:canary-second`.
    assert!(sent("\r\nProxy-Authorization: Basic ZWdyZXNzOmNhbmFyeS1maXJzdA==\r\n"));
    write(&folder, "password", "canary-second");
    becomes(Duration::from_secs(20), "the new password is sent", async || {
        assert_eq!(get(process.address(), PATH).await.status, 200);
        sent("\r\nProxy-Authorization: Basic ZWdyZXNzOmNhbmFyeS1zZWNvbmQ=\r\n")
    })
    .await;
    assert!(foreign.heads().is_empty());
    assert_all_through(&proxy, &upstream, "bold-bi.invalid:6005");
    process.signal(Signal::TERM);
    let told = spawn_blocking(move || process.end()).await.unwrap();
    assert!(!format!("{told:?}").contains("canary"), "{told:?}");
}
