//! Odd answers of one server: data, tokens, keys and health checks are read with the same leniency.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use boldgate::caller::jwks::KeySource;
use boldgate::jwks::HttpKeySource;
use boldgate::trust::Trust;

use crate::support::gateway::Gateway;
use crate::support::identity_provider::Provider;
use crate::support::upstream::{Answer, Upstream};
use crate::support::waiting::until;

/// How a server dresses up an answer with this body.
type Dress = fn(&str) -> Vec<u8>;

/// A whole answer with these lines in its head.
fn with(lines: &[u8], body: &str) -> Vec<u8> {
    let length = format!("Content-Length: {}\r\n", body.len());
    [b"HTTP/1.1 200 OK\r\n", lines, length.as_bytes(), b"\r\n", body.as_bytes()].concat()
}

/// An answer in one chunk, with what a server may write around its size and at its end.
fn chunked(head: &str, size: fn(usize) -> String, body: &str, end: &str) -> Vec<u8> {
    let size = size(body.len());
    format!("{head}Transfer-Encoding: chunked\r\n\r\n{size}\r\n{body}\r\n{end}").into_bytes()
}

fn hex(length: usize) -> String {
    format!("{length:x}")
}

fn many(lines: usize) -> Vec<u8> {
    (0..lines).flat_map(|number| format!("X-{number}: 1\r\n").into_bytes()).collect()
}

const HEAD: &str = "HTTP/1.1 200 OK\r\n";

/// Answers that the data path reads, and so everything else has to.
const READABLE: [(&str, Dress); 35] = [
    ("nothing odd", |body| with(b"", body)),
    ("a folded line", |body| with(b"X-A: default-src 'self';\r\n    script-src 'self'\r\n", body)),
    ("a line folded by LF", |body| with(b"X-A: one;\n    two\r\n", body)),
    ("a line folded by a tab", |body| with(b"X-A: a\r\n\tb\r\n", body)),
    ("a line folded at once", |body| with(b"X-A:\r\n b\r\n", body)),
    ("a line folded thrice", |body| with(b"X-A: a\r\n b\r\n c\r\n d\r\n", body)),
    ("a line folded into nothing", |body| with(b"X-A: a\r\n \r\n", body)),
    ("a blank before the colon", |body| with(b"X-Powered-By : x\r\n", body)),
    ("a tab before the colon", |body| with(b"X-Powered-By\t: x\r\n", body)),
    ("a blank before the colon and a fold", |body| with(b"X-A : x\r\n y\r\n", body)),
    ("a tab after the colon", |body| with(b"X-A:\tx\r\n", body)),
    ("an empty value", |body| with(b"X-A:\r\n", body)),
    ("101 lines", |body| with(&many(100), body)),
    ("256 lines", |body| with(&many(255), body)),
    ("a head of 200 KiB", |body| {
        with(format!("X-A: {}\r\n", "a".repeat(200 * 1024)).as_bytes(), body)
    }),
    ("a head of 900 KiB", |body| {
        with(format!("X-A: {}\r\n", "a".repeat(900 * 1024)).as_bytes(), body)
    }),
    ("a value that is no ASCII", |body| with(b"X-A: caf\xe9\r\n", body)),
    ("lines that end in LF", |body| {
        format!("HTTP/1.1 200 OK\nContent-Length: {}\n\n{body}", body.len()).into_bytes()
    }),
    ("empty lines first", |body| [b"\r\n\r\n", &*with(b"", body)].concat()),
    ("no reason", |body| {
        format!("HTTP/1.1 200\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }),
    ("a reason that is no ASCII", |body| {
        let rest = format!("\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        [b"HTTP/1.1 200 d\xe9j\xe0", rest.as_bytes()].concat()
    }),
    ("100 first", |body| [b"HTTP/1.1 100 Continue\r\n\r\n", &*with(b"", body)].concat()),
    ("103 twice first", |body| {
        [&b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n".repeat(2), &*with(b"", body)].concat()
    }),
    ("HTTP/1.0", |body| {
        format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }),
    ("HTTP/1.0 to the end", |body| format!("HTTP/1.0 200 OK\r\n\r\n{body}").into_bytes()),
    ("HTTP/1.1 to the end", |body| format!("{HEAD}Connection: close\r\n\r\n{body}").into_bytes()),
    ("the same length twice", |body| {
        with(format!("Content-Length: {}\r\n", body.len()).as_bytes(), body)
    }),
    ("the same length twice in a line", |body| {
        format!("{HEAD}Content-Length: {0}, {0}\r\n\r\n{body}", body.len()).into_bytes()
    }),
    ("a chunk", |body| chunked(HEAD, hex, body, "0\r\n\r\n")),
    ("a chunk beside a length", |body| {
        chunked("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n", hex, body, "0\r\n\r\n")
    }),
    ("a chunk with an extension", |body| {
        chunked(HEAD, |length| format!("{length:x};a=\"b\""), body, "0;c\r\n\r\n")
    }),
    ("a chunk whose size is padded", |body| {
        chunked(HEAD, |length| format!("{length:010X}"), body, "000\r\n\r\n")
    }),
    ("a chunk with blanks behind its size", |body| {
        chunked(HEAD, |length| format!("{length:x}  "), body, "0 \r\n\r\n")
    }),
    ("trailers", |body| chunked(HEAD, hex, body, "0\r\nX-Sum: 1\r\nX-B: 2\r\n\r\n")),
    ("odd trailers", |body| chunked(HEAD, hex, body, "0\r\nX-Sum : 1\r\n 2\r\n\r\n")),
];

/// Answers that the data path does not read, and nothing else either.
const UNREADABLE: [(&str, Dress); 9] = [
    ("257 lines", |body| with(&many(256), body)),
    ("a line without a colon", |body| with(b"X-A\r\n", body)),
    ("a blank in a name", |body| with(b"X A: x\r\n", body)),
    ("a control character in a value", |body| with(b"X-A: \x01\r\n", body)),
    ("two lengths", |body| with(b"Content-Length: 1\r\n", body)),
    ("a length that is no number", |body| with(b"Content-Length: +2\r\n", body)),
    ("HTTP/3", |body| [b"HTTP/3 200 OK\r\n\r\n", body.as_bytes()].concat()),
    ("a mail server", |_| b"220 mail.example ESMTP\r\n".to_vec()),
    ("a TLS alert", |_| b"\x15\x03\x01\x00\x02\x02\x46".to_vec()),
];

/// A server that dresses up either its data or all its other answers, and a gateway before it.
struct House {
    gateway: Gateway,
    upstream: Upstream,
    provider: Provider,
    odd: Arc<AtomicBool>,
}

impl House {
    async fn new(dress: Dress, odd_data: bool) -> Self {
        let provider = Provider::new();
        let keys = provider.jwks();
        let odd = Arc::new(AtomicBool::new(true));
        let theirs = Arc::clone(&odd);
        let upstream = Upstream::answering_all(move |request| {
            let (is_data, body) = match request.path() {
                path if path.ends_with("/token") => (false, r#"{"access_token":"canary-token"}"#),
                "/keys" => (false, &*keys),
                "/bi/health-check" => (false, "fine"),
                _ => (true, "data"),
            };
            let dress = if is_data == odd_data && theirs.load(SeqCst) { dress } else { plain };
            let bytes = dress(body);
            let framed = String::from_utf8_lossy(&bytes).contains("Content-Length")
                || String::from_utf8_lossy(&bytes).contains("chunked");
            Answer { bytes, keep: framed }
        })
        .await;
        let gateway = Gateway::start(&format!(
            "listeners: [ {{ address: \"127.0.0.1:0\", callers: required }} ]
admin: {{ address: \"127.0.0.1:0\" }}
servers:
  main:
    url: \"http://{0}/bi\"
    health_check: {{ interval: 20ms, unhealthy_after: 1 }}
tenants:
  acme:
    server: main
    site: site1
    credential:
      {{ grant: embed_secret, username: reports@acme.example, embed_secret: {{ file: SECRET_FILE }}, user_source: azure_ad }}
callers:
  portal:
    jwt: {{ issuer: \"https://login.example.com/\", audience: boldgate, algorithms: [EdDSA], jwks_url: \"http://{0}/keys\" }}
    may: [ {{ tenant: acme, routes: [read] }} ]
",
            upstream.address
        ));
        Self { gateway, upstream, provider, odd }
    }

    async fn get(&self) -> (u16, String) {
        let token = self.provider.token(|_| ());
        let head = "GET /bi/api/site/site1/v5.0/dashboards HTTP/1.1\r\nHost: gw\r\n";
        let bearer = format!("Authorization: Bearer {token}\r\nConnection: close\r\n\r\n");
        let answer = self.gateway.send(format!("{head}{bearer}")).await;
        (answer.status, answer.code())
    }

    /// Whether its health checks find the server well, once there were some.
    async fn is_healthy(&self) -> bool {
        let checks = || {
            let seen = self.upstream.seen.requests();
            seen.iter().filter(|request| request.path() == "/bi/health-check").count()
        };
        until(|| checks() >= 3).await;
        self.gateway.telemetry.server("main").healthy_addresses.get() == 1
    }
}

fn plain(body: &str) -> Vec<u8> {
    with(b"", body)
}

#[tokio::test]
async fn an_odd_answer_is_good_enough_for_data_tokens_keys_and_health_checks_alike() {
    let mut wrong = Vec::new();
    for (name, dress) in READABLE {
        let data = House::new(dress, true).await.get().await;
        let house = House::new(dress, false).await;
        let (own, healthy) = (house.get().await, house.is_healthy().await);
        let good = data.0 == 200 && own.0 == 200 && healthy;
        println!("{name:<40} data {data:?}, tokens and keys {own:?}, healthy: {healthy}");
        if !good {
            wrong.push(name);
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_refused_for_data_tokens_and_health_checks_alike() {
    for (name, dress) in UNREADABLE {
        let data = House::new(dress, true).await.get().await;
        let house = House::new(dress, false).await;
        let keys = house.get().await;
        assert_eq!(data, (502, "upstream_invalid".into()), "{name}");
        assert_eq!(keys, (503, "issuer_keys_unavailable".into()), "{name}");
        assert!(!house.is_healthy().await, "{name}");
        house.odd.store(false, SeqCst);
        until(|| house.gateway.telemetry.server("main").healthy_addresses.get() == 1).await;
    }
}

#[tokio::test]
async fn keys_that_are_said_to_be_compressed_are_not_read_and_their_coding_is_named() {
    for (line, coding) in [
        ("", None),
        ("Content-Encoding: identity\r\n", None),
        ("Content-Encoding: gzip\r\n", Some("gzip")),
        ("Content-Encoding: identity, BR\r\n", Some("br")),
        ("Content-Encoding: canary\r\n", Some("of an unknown name")),
    ] {
        let keys = Provider::new().jwks();
        let upstream = Upstream::answering_all(move |_| Answer {
            bytes: with(line.as_bytes(), &keys),
            keep: true,
        })
        .await;
        let url = format!("http://{}/keys", upstream.address).parse().unwrap();
        let told = HttpKeySource::new(url, &Trust::default()).unwrap().fetch().await.err();
        assert_eq!(told.is_some(), coding.is_some(), "{line}: {told:?}");
        if let (Some(told), Some(coding)) = (told, coding) {
            assert!(told.contains(coding) && told.contains("Accept-Encoding"), "{told}");
            assert!(!told.contains("canary"), "{told}");
        }
        assert_eq!(upstream.seen.requests()[0].header("accept-encoding"), ["identity"]);
    }
}
