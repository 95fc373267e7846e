//! The gateway against the most lenient reader: whatever goes on to the server must still be the
//! admitted tenant's when it is read in every way that servers are known to read.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::two_callers::{ALPHA_KEY, BETA_KEY, Setup, config};
use crate::support::upstream::{CANARY_TOKEN, Request, Upstream};

/// A path of pieces that mean something to somebody.
fn path() -> impl Strategy<Value = String> {
    let start = prop_oneof![
        6 => Just("/bi/api/site/alpha/v5.0/x"),
        3 => Just("/bi/api/site/alpha/"),
        2 => Just("/bi/api/site/alpha"),
        1 => Just("/bi/api/site/"),
        1 => Just("/bi/api/site/beta/v5.0/x"),
        1 => Just("http://localhost/bi/api/site/alpha/"),
        1 => Just("/"),
    ];
    let pieces = prop::sample::select(vec![
        "/",
        "//",
        "/.",
        "/..",
        "/../",
        "/%2e%2e/",
        "/.%2E/",
        "/..;/",
        "/..%3b/",
        "%2f",
        "%2F..%2f",
        "%5c",
        "\\",
        "%252e",
        "%252f",
        "%25",
        "%00",
        "%20",
        " ",
        "\t",
        ";",
        ";x=/beta",
        "alpha",
        "beta",
        "/beta",
        "/site/beta",
        "/Beta/",
        "/ALPHA",
        "%62eta",
        "/bi/api/site/beta/x",
        "?",
        "?site=beta",
        "#",
        "#/beta",
        "/a",
        "a",
        "~",
        ".",
        "..",
        "...",
        "\u{e9}",
        "%c0%ae",
        "/token",
        "@beta",
        ":80",
        "%0d%0a",
        "\"",
        "{",
        "|",
        "%u002e",
    ]);
    (start, prop::collection::vec(pieces, 0..6))
        .prop_map(|(start, rest)| start.to_owned() + &rest.concat())
}

/// `Host` lines, most of them plain.
fn host() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        8 => Just("Host: localhost\r\n"),
        1 => Just("HOST: LocalHost:80\r\n"),
        1 => Just("Host: gamma.example\r\n"),
        1 => Just("host: GAMMA.example:8080\r\n"),
        1 => Just("Host: gamma.example.\r\n"),
        1 => Just("Host: localhost, gamma.example\r\n"),
        1 => Just("Host: localhost\r\nHost: gamma.example\r\n"),
        1 => Just("Host: localhost/bi/api/site/beta\r\n"),
        1 => Just("Host: gamma.example@localhost\r\n"),
        1 => Just(""),
    ]
}

/// More header lines, in any case of letters.
fn lines() -> impl Strategy<Value = String> {
    let line = prop::sample::select(vec![
        "X-Forwarded-Host: gamma.example",
        "X_Forwarded_Host: gamma.example",
        "X-Forwarded-For: 6.6.6.6",
        "X-Forwarded-Prefix: /bi/api/site/beta",
        "X-Forwarded-Uri: /bi/api/site/beta",
        "X-Original-URL: /bi/api/site/beta/x",
        "X-Rewrite-URL: /bi/api/site/beta/x",
        "X.Original.URL: /bi/api/site/beta/x",
        "Forwarded: host=gamma.example",
        "Authorization: Bearer canary-stolen",
        "Authorization_: Bearer canary-stolen",
        "Proxy-Authorization: Bearer canary-stolen",
        "Cookie: site=beta",
        "Connection: authorization",
        "Connection: close, x-api-key, host",
        "Connection: keep-alive",
        "X-HTTP-Method-Override: DELETE",
        "X_HTTP_Method_Override: DELETE",
        "X-Tenant: beta",
        "Transfer_Encoding: chunked",
        "Content_Length: 7",
        "Content-Length: 0",
        "Upgrade: foo",
        "Expect: 100-continue",
        "X-Api_Key: other",
        "Accept: */*",
    ]);
    let cased = (line, any::<u64>()).prop_map(|(line, cases)| {
        let (name, value) = line.split_once(':').unwrap();
        let name: String = name
            .chars()
            .enumerate()
            .map(|(i, c)| if cases >> i & 1 == 1 { c.to_ascii_uppercase() } else { c })
            .collect();
        format!("{name}:{value}\r\n")
    });
    prop::collection::vec(cased, 0..4).prop_map(|lines| lines.concat())
}

fn method() -> impl Strategy<Value = &'static str> {
    prop_oneof![8 => Just("GET"), 2 => Just("POST"), 1 => Just("OPTIONS"), 1 => Just("get"), 1 => Just("TRACE")]
}

/// All paths that lenient servers make of a target: decoded up to three times, parameters cut off,
/// slashes of both kinds merged, dots resolved, in lower case.
fn readings(target: &str) -> Vec<Vec<String>> {
    let mut readings = Vec::new();
    let mut text = target.split(['?', '#']).next().unwrap_or_default().as_bytes().to_vec();
    for _ in 0..4 {
        for cut in [true, false] {
            let mut segments = Vec::new();
            let path = String::from_utf8_lossy(&text).replace('\\', "/").to_lowercase();
            for segment in path.split('/') {
                let segment =
                    if cut { segment.split(';').next().unwrap_or_default() } else { segment };
                match segment.trim_matches(|c: char| c.is_whitespace() || c == '\0') {
                    "" | "." => {}
                    ".." => drop(segments.pop()),
                    other => segments.push(other.to_owned()),
                }
            }
            readings.push(segments);
        }
        text = percent_encoding::percent_decode(&text).collect();
    }
    readings
}

fn assert_is_alphas(request: &Request, server: &str) -> Result<(), TestCaseError> {
    for reading in readings(request.path()) {
        let site: Vec<&str> = reading.iter().take(4).map(String::as_str).collect();
        prop_assert_eq!(&site, &["bi", "api", "site", "alpha"], "{}", request.head);
        prop_assert!(reading.get(4).is_none_or(|route| route != "token"), "{}", request.head);
    }
    let folded = |wanted: &str| {
        let lines = request.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines
            .filter(|(name, _)| name.trim().to_ascii_lowercase().replace(['_', '.'], "-") == wanted)
            .map(|(_, value)| value.trim().to_owned())
            .collect::<Vec<_>>()
    };
    let authorization = folded("authorization");
    prop_assert_eq!(authorization.len(), 1, "{}", request.head);
    let token = format!("Bearer {CANARY_TOKEN}-alpha-");
    prop_assert!(authorization[0].starts_with(&token), "{}", request.head);
    prop_assert_eq!(folded("host"), [server], "{}", request.head);
    prop_assert_eq!(folded("x-forwarded-for"), ["127.0.0.1"], "{}", request.head);
    for gone in ["gamma.example", "site/beta", "6.6.6.6", "canary-stolen", "DELETE"] {
        let below = request.head.split_once("\r\n").unwrap().1;
        for line in below.lines() {
            prop_assert!(!line.contains(gone), "{}", request.head);
        }
    }
    prop_assert!(request.line().ends_with(" HTTP/1.1"), "{}", request.head);
    prop_assert_eq!(request.line().matches(' ').count(), 2, "{}", request.head);
    for key in [ALPHA_KEY, BETA_KEY] {
        prop_assert!(!request.head.contains(key), "{}", request.head);
    }
    Ok(())
}

/// One request on a connection that may have served others; the next one gets it if it lasts.
async fn send(setup: &Setup, kept: &mut Option<Client>, request: &str) -> Option<u16> {
    let mut client = match kept.take() {
        Some(client) => client,
        None => Client::connect(setup.address()).await,
    };
    client.write(request.as_bytes()).await;
    let mut response = client.try_response(false).await?;
    while response.status == 100 {
        response = client.try_response(false).await?;
    }
    if response.header("connection") != ["close"] {
        *kept = Some(client);
    }
    Some(response.status)
}

/// PTH, HST and HDR at once, over real connections that are kept.
#[test]
fn a_forwarded_request_is_the_admitted_tenants_to_the_most_lenient_reader_too() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let setup = runtime.block_on(async {
        let upstream = Upstream::echo().await;
        let tenant = "    existing_authorization: replace\n";
        let gateway = Gateway::start(&config(upstream.address, tenant, ""));
        Setup { upstream, gateway }
    });
    let server = setup.upstream.address.to_string();
    let kept = std::cell::RefCell::new(None);
    let (forwarded, refused) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    let mut runner =
        TestRunner::new(Config { cases: 4_000, failure_persistence: None, ..Config::default() });
    let outcome =
        runner.run(&(method(), path(), host(), lines()), |(method, path, host, lines)| {
            let request =
                format!("{method} {path} HTTP/1.1\r\n{host}X-Api-Key: {ALPHA_KEY}\r\n{lines}\r\n");
            let status = runtime.block_on(send(&setup, &mut kept.borrow_mut(), &request));
            let seen = setup.upstream.seen.take();
            match status {
                Some(200) => {
                    prop_assert_eq!(seen.len(), 1, "{}", request);
                    assert_is_alphas(&seen[0], &server)?;
                    forwarded.set(forwarded.get() + 1);
                }
                Some(400..=431) => {
                    prop_assert!(seen.is_empty(), "{}", request);
                    refused.set(refused.get() + 1);
                }
                other => prop_assert!(false, "{other:?} to {request}"),
            }
            Ok(())
        });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
    // Both must happen often enough to prove something.
    assert!(forwarded.get() > 200 && refused.get() > 200, "{forwarded:?} {refused:?}");
    runtime.block_on(setup.assert_serves());
}
