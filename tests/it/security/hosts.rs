//! Hosts that two servers could read as different ones.

use crate::support::edit::Edit;
use crate::support::gateway::{Gateway, HOSTS, config};
use crate::support::two_callers::{
    ALPHA_KEY, BETA_KEY, GOOD, Setup, assert_token_of, get, get_with,
};
use crate::support::upstream::Upstream;

fn with_host_line(line: &str, version: &str) -> String {
    format!("GET {GOOD} HTTP/{version}\r\n{line}X-Api-Key: {ALPHA_KEY}\r\n\r\n")
}

/// HST-01
#[tokio::test]
async fn a_host_header_is_one_plain_host() {
    let setup = Setup::new().await;
    let long = "a".repeat(256);
    for host in [
        "", " ", "a b", "a b/..", "a,b", "a#b", "a/../b", "a/b", "a?b", "a\\b", "a;b", "a%2eb",
        "u@a", "u:p@a", "a:", "a:b", "a:80:80", "a:99999", "a:-1", "a: 80", ":80", "[::1", "[a]",
        "[::1]x", "::1", "http://a", "\"a\"", "\u{e9}", &long,
    ] {
        setup.assert_refused(with_host_line(&format!("Host: {host}\r\n"), "1.1"), &[400]).await;
    }
    setup.assert_refused(with_host_line("", "1.1"), &[400]).await;
    for host in ["Host: localhost\r\n", "Host: [::1]:80\r\n", "Host: 127.0.0.1:8080\r\n"] {
        assert_eq!(setup.gateway.send(with_host_line(host, "1.1")).await.status, 200, "{host}");
    }
    assert_eq!(setup.gateway.send(with_host_line("", "1.0")).await.status, 200);
    setup.assert_serves().await;
}

/// HST-02
#[tokio::test]
async fn two_host_headers_are_refused() {
    let setup = Setup::new().await;
    for lines in [
        "Host: localhost\r\nHost: localhost\r\n",
        "Host: localhost\r\nhost: beta.example\r\n",
        "Host: localhost\r\nX: y\r\nHOST: localhost\r\n",
        "Host: localhost\r\nHost:\r\n",
    ] {
        setup.assert_refused(with_host_line(lines, "1.1"), &[400]).await;
        setup.assert_refused(with_host_line(lines, "1.0"), &[400]).await;
    }
    setup.assert_serves().await;
}

/// HST-05: for any host of a caller the server gets its own, once. It is sent no other
/// than those that the configuration names: Bold BI may store it as the URL of the site.
#[tokio::test]
async fn the_server_gets_its_own_host() {
    let setup = Setup::new().await;
    let own = setup.upstream.address.to_string();
    for host in ["localhost", "evil.example", "evil.example:8080", "BETA.example", &own] {
        let line = format!("Host: {host}\r\nX-Forwarded-Host: other.example\r\n");
        assert_eq!(setup.gateway.send(with_host_line(&line, "1.1")).await.status, 200);
        let seen = setup.upstream.seen.take();
        assert_eq!(seen[0].header("host"), [own.as_str()]);
        assert_eq!(seen[0].header("x-forwarded-host"), [own.as_str()]);
    }
    assert_eq!(setup.gateway.send(with_host_line("", "1.0")).await.status, 200);
    let seen = setup.upstream.seen.take();
    assert_eq!(seen[0].header("x-forwarded-host"), [own.as_str()], "without a Host");
    for host in ["gamma.example", "Gamma.Example:8443"] {
        let head = format!("Host: {host}\r\nX-Api-Key: {BETA_KEY}\r\n");
        let request = format!("GET /bi/api/v5.0/x HTTP/1.1\r\n{head}\r\n");
        assert_eq!(setup.gateway.send(request).await.status, 200);
        let seen = setup.upstream.seen.take();
        assert_eq!(seen[0].header("x-forwarded-host"), [host], "a host of the tenant");
        assert_eq!(seen[0].header("host"), [own.as_str()]);
    }
    setup.assert_serves().await;
}

/// A host that belongs to a tenant and a path that belongs to another agree on none.
#[tokio::test]
async fn host_and_path_must_mean_the_same_tenant() {
    let setup = Setup::new().await;
    let to = |host: &str, path: &str, key: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nX-Api-Key: {key}\r\n\r\n")
    };
    for host in ["gamma.example", "GAMMA.Example", "gamma.example:80", "gamma.example:8080"] {
        for key in [ALPHA_KEY, BETA_KEY] {
            setup.assert_refused(to(host, GOOD, key), &[404]).await;
        }
        setup.assert_refused(to(host, "/bi/api/v5.0/x", ALPHA_KEY), &[403]).await;
    }
    // None of these is the tenant's host.
    for host in
        ["gamma.example..", ".gamma.example", "x.gamma.example", "gamma.example.evil", "gamma"]
    {
        setup.assert_refused(to(host, "/bi/api/v5.0/x", BETA_KEY), &[404]).await;
    }
    // `Host` counts, not what another header says.
    for name in ["X-Forwarded-Host", "X-Host", "X-Original-Host", "Forwarded", "X-Forwarded-Server"]
    {
        let lines = format!("{name}: host=gamma.example\r\n{name}: gamma.example\r\n");
        setup.assert_refused(get_with("/bi/api/v5.0/x", &lines), &[404]).await;
    }
    assert_eq!(
        setup.gateway.send(to("gamma.example", "/bi/api/v5.0/x", BETA_KEY)).await.status,
        200
    );
    assert_token_of(&setup.upstream.seen.take()[0], "api");
    assert_eq!(setup.gateway.send(get(GOOD)).await.status, 200);
    assert_token_of(&setup.upstream.seen.take()[0], "alpha");
}

/// A dot at the end of a name is the root of the DNS, and names the same host (RFC 3986, section
/// 3.2.2).
#[tokio::test]
async fn a_name_with_the_dot_of_the_root_is_the_same_host() {
    let setup = Setup::new().await;
    for host in ["gamma.example.", "Gamma.Example.", "gamma.example.:8080"] {
        let to = |path: &str, key: &str| {
            format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nX-Api-Key: {key}\r\n\r\n")
        };
        assert_eq!(setup.gateway.send(to("/bi/api/v5.0/x", BETA_KEY)).await.status, 200, "{host}");
        assert_token_of(&setup.upstream.seen.take()[0], "api");
        // With the dot it decides on the tenant like the name without it.
        setup.assert_refused(to(GOOD, ALPHA_KEY), &[404]).await;
        setup.assert_refused(to("/bi/api/v5.0/x", ALPHA_KEY), &[403]).await;
    }
    setup.assert_serves().await;
}

/// The hosts that a listener is for compare as names and as addresses, however they are spelled.
#[tokio::test]
async fn hosts_compare_as_names_and_addresses_and_not_as_text() {
    let upstream = Upstream::echo().await;
    let hosts = ", hosts: [app.example., \"[fd00::A]\", \"fd00:0::b\", 192.0.2.7]";
    let text = config(upstream.address, "").edit(HOSTS, hosts);
    let gateway = Gateway::start(&text);
    let get =
        |host: &str| format!("GET /bi/api/site/site1/v5.0/x HTTP/1.1\r\nHost: {host}\r\n\r\n");
    for host in [
        "evil.example",
        "localhost.evil.example.",
        "localhost..",
        "[::2]",
        "[fd00::c]",
        "app.example..",
        "127.0.0.1.",
        "192.0.2.8",
        "[::ffff:192.0.2.8]",
        "fd00",
    ] {
        let response = gateway.send(get(host)).await;
        assert_eq!((response.status, &*response.code()), (421, "host_refused"), "{host}");
    }
    upstream.seen.assert_untouched("hosts of others");
    for host in [
        "localhost.",
        "LOCALHOST.:8080",
        "[0:0:0:0:0:0:0:1]",
        "[::0001]:80",
        "app.example",
        "APP.example.",
        "[fd00:0:0::a]",
        "[FD00:0:0:0:0:0:0:B]:8080",
        "192.0.2.7",
    ] {
        let response = gateway.send(get(host)).await;
        assert_eq!(response.status, 200, "{host}: {}", response.text());
    }
}
