//! Odd responses of one server: data, tokens, keys and health checks are read by one reader, so
//! that the same bytes get the same verdict.

use std::sync::atomic::Ordering::SeqCst;

use boldgate::caller::issuer_keys::KeySource;
use boldgate::jwks::HttpKeySource;
use boldgate::trust::Trust;

use crate::support::client::Response;
use crate::support::gateway::Gateway;
use crate::support::identity_provider::Provider;
use crate::support::upstream::{RawResponse, Upstream};
use crate::support::waiting::until;

/// How a server dresses up a response with this body.
type Dress = fn(&str) -> Vec<u8>;

/// A whole response with these lines in its head.
fn with(lines: &[u8], body: &str) -> Vec<u8> {
    let length = format!("Content-Length: {}\r\n", body.len());
    [b"HTTP/1.1 200 OK\r\n", lines, length.as_bytes(), b"\r\n", body.as_bytes()].concat()
}

/// A response in one chunk, with what a server may write around its size and at its end.
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

/// Responses that are read.
const READABLE: [(&str, Dress); 47] = [
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
    ("trailers that are none", |body| {
        chunked(HEAD, hex, body, "0\r\nno colon\r\n@\u{1}\u{e9}: x\r\n\r\n")
    }),
    ("a tab in the extension of a chunk", |body| {
        chunked(HEAD, |length| format!("{length:x} ;\ta=1"), body, "0\r\n\r\n")
    }),
    ("chunks of one byte", |body| {
        let chunk = |byte| [b"1\r\n", &[byte][..], b"\r\n"].concat();
        let chunks: Vec<u8> = body.bytes().flat_map(chunk).collect();
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        [head, &*chunks, b"0\r\n\r\n"].concat()
    }),
    ("a coding in capitals", |body| {
        let chunk = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        format!("{HEAD}TRANSFER-ENCODING:  CHUNKED \r\n\r\n{chunk}").into_bytes()
    }),
    ("a length between blanks", |body| {
        format!("{HEAD}Content-Length: \t {} \r\n\r\n{body}", body.len()).into_bytes()
    }),
    ("a length with zeros before it", |body| {
        format!("{HEAD}Content-Length: 000{}\r\n\r\n{body}", body.len()).into_bytes()
    }),
    ("the same length twice without a blank", |body| {
        format!("{HEAD}Content-Length: {0},{0}\r\n\r\n{body}", body.len()).into_bytes()
    }),
    ("an empty reason", |body| {
        format!("HTTP/1.1 200 \r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }),
    ("100 with a line, ended by LF", |body| {
        [b"HTTP/1.1 100 Continue\nX-A: b\n\n", &*with(b"", body)].concat()
    }),
    ("102 fifty times first", |body| {
        [&b"HTTP/1.1 102 Processing\r\n\r\n".repeat(50), &*with(b"", body)].concat()
    }),
    ("a head of 1 MiB", |body| of_size(1024 * 1024, body)),
    ("a head of 1 MiB behind a large 103", |body| {
        let early = [b"HTTP/1.1 103 Early Hints\r\nLink: ", &*vec![b'a'; 300_000], b"\r\n\r\n"];
        [early.concat(), of_size(1024 * 1024, body)].concat()
    }),
];

/// Responses whose head is refused.
const UNREADABLE: [(&str, Dress); 45] = [
    ("257 lines", |body| with(&many(256), body)),
    ("a line without a colon", |body| with(b"X-A\r\n", body)),
    ("a blank in a name", |body| with(b"X A: x\r\n", body)),
    ("no name", |body| with(b": x\r\n", body)),
    ("a fold before the first line", |body| with(b" x\r\n", body)),
    ("a control character in a value", |body| with(b"X-A: \x01\r\n", body)),
    ("a zero byte in a value", |body| with(b"X-A: a\0b\r\n", body)),
    ("CR within a value", |body| with(b"X-A: a\rb\r\n", body)),
    ("lines that end in CR", |body| {
        format!("HTTP/1.1 200 OK\rContent-Length: {}\r\r{body}", body.len()).into_bytes()
    }),
    ("two lengths", |body| with(b"Content-Length: 1\r\n", body)),
    ("two lengths in a line", |body| with_length(&format!("{}, 1", body.len()), body)),
    ("a length and nothing in a line", |body| with_length(&format!("{},", body.len()), body)),
    ("a length that is no number", |body| with(b"Content-Length: +2\r\n", body)),
    ("an empty length", |body| with_length("", body)),
    ("a length below zero", |body| with_length("-1", body)),
    ("a length in hexadecimal", |body| with_length("0x2", body)),
    ("a length of two numbers", |body| with_length("1 1", body)),
    ("a length that is folded", |body| with_length("1\r\n 1", body)),
    ("a length beyond 64 bits", |body| with_length("18446744073709551617", body)),
    ("the coding identity", |body| with(b"Transfer-Encoding: identity\r\n", body)),
    ("the coding gzip", |body| with(b"Transfer-Encoding: gzip\r\n", body)),
    ("a coding without a name", |body| with(b"Transfer-Encoding:\r\n", body)),
    ("a coding twice", |body| in_coding("1.1", "chunked\r\nTransfer-Encoding: chunked", body)),
    ("a coding twice in a line", |body| in_coding("1.1", "chunked, chunked", body)),
    ("another coding under chunks", |body| in_coding("1.1", "gzip, chunked", body)),
    ("another coding over chunks", |body| in_coding("1.1", "chunked, identity", body)),
    ("a coding and nothing in a line", |body| in_coding("1.1", "chunked,", body)),
    ("a coding with a parameter", |body| in_coding("1.1", "chunked;q=1", body)),
    ("chunks in HTTP/1.0", |body| in_coding("1.0", "chunked", body)),
    ("a head of 1 MiB and a byte", |body| of_size(1024 * 1024 + 1, body)),
    ("a head of 1.2 MB", |body| of_size(1_200_000, body)),
    ("101", |_| b"HTTP/1.1 101 Switching Protocols\r\n\r\n".to_vec()),
    ("101 to a protocol", |body| {
        let head = b"HTTP/1.1 101 Hm\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
        [head, &*with(b"", body)].concat()
    }),
    ("102 without end", |_| b"HTTP/1.1 102 Processing\r\n\r\n".repeat(1000)),
    ("a blank first", |body| [b" ", &*with(b"", body)].concat()),
    ("a status below 100", |body| with_status(b"099 Hm", body)),
    ("a status above 999", |body| with_status(b"1000 Hm", body)),
    ("a status of two digits", |body| with_status(b"20 OK", body)),
    ("a reason without a blank", |body| with_status(b"200OK", body)),
    ("HTTP in small letters", |body| [b"http/1.1", &with(b"", body)[8..]].concat()),
    ("HTTP/3", |body| [b"HTTP/3 200 OK\r\n\r\n", body.as_bytes()].concat()),
    ("HTTP/2", |_| b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64".to_vec()),
    ("HTTP/0.9", |body| format!("<html>{body}</html>\r\n").into_bytes()),
    ("a mail server", |_| b"220 mail.example ESMTP\r\n".to_vec()),
    ("a TLS alert", |_| b"\x15\x03\x01\x00\x02\x02\x46".to_vec()),
];

/// Responses whose head is fine, while their body is broken.
const BROKEN: [(&str, Dress); 18] = [
    ("a body that is cut short", |body| with(b"", body)[..HEAD.len() + 24].to_vec()),
    ("chunks that are cut short", |body| chunked(HEAD, hex, body, "")),
    ("a chunk that is cut short", |body| {
        chunked(HEAD, |length| format!("{:x}", length + 9), body, "")
    }),
    ("a chunk size without a digit", |body| chunked(HEAD, |_| String::new(), body, "0\r\n\r\n")),
    ("a last chunk without a digit", |body| chunked(HEAD, hex, body, "\r\n\r\n")),
    ("an extension without a size", |body| chunked(HEAD, hex, body, ";a\r\n\r\n")),
    ("a chunk size with a sign", |body| size_as("+", body, "")),
    ("a chunk size with a prefix", |body| size_as("0x", body, "")),
    ("a chunk size behind a blank", |body| size_as(" ", body, "")),
    ("a chunk size of many digits", |body| size_as(&"0".repeat(15), body, "")),
    ("LF behind a chunk size", |body| size_as("", body, "\n")),
    ("LF in an extension", |body| size_as("", body, ";a\nb")),
    ("CR in an extension", |body| size_as("", body, ";a\rb")),
    ("a zero byte in an extension", |body| size_as("", body, ";a\0b")),
    ("words behind a chunk size", |body| size_as("", body, " a")),
    ("a chunk without an end", |body| {
        format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}0\r\n\r\n", body.len())
            .into_bytes()
    }),
    ("LF behind a trailer", |body| chunked(HEAD, hex, body, "0\r\nX-A: b\n\r\n")),
    ("trailers without end", |body| {
        chunked(HEAD, hex, body, &format!("0\r\n{}\r\n", "X-Sum: 1\r\n".repeat(10_000)))
    }),
];

fn with_status(status: &[u8], body: &str) -> Vec<u8> {
    let rest = format!("\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    [b"HTTP/1.1 ", status, rest.as_bytes()].concat()
}

fn with_length(length: &str, body: &str) -> Vec<u8> {
    format!("{HEAD}Content-Length: {length}\r\n\r\n{body}").into_bytes()
}

/// A body in one chunk, said to be in `coding`.
fn in_coding(version: &str, coding: &str, body: &str) -> Vec<u8> {
    let head = format!("HTTP/{version} 200 OK\r\nTransfer-Encoding: {coding}\r\n\r\n");
    format!("{head}{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).into_bytes()
}

/// A body in one chunk, with something before and behind the size.
fn size_as(before: &str, body: &str, behind: &str) -> Vec<u8> {
    let head = format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n");
    format!("{head}{before}{:02x}{behind}\r\n{body}\r\n0\r\n\r\n", body.len()).into_bytes()
}

/// A response whose head has this number of bytes.
fn of_size(head: usize, body: &str) -> Vec<u8> {
    let least = with(b"X-A: \r\n", body).len() - body.len();
    with(format!("X-A: {}\r\n", "a".repeat(head - least)).as_bytes(), body)
}

/// The requests that get odd responses; all others get plain ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Data,
    Tokens,
    Keys,
    Health,
}

/// The verdicts on one response.
#[derive(Debug)]
struct Verdicts {
    data: Response,
    /// Each is that on a request of a client, for which the token or the keys are fetched.
    tokens: (u16, String),
    keys: (u16, String),
    is_healthy: bool,
}

async fn verdicts(dress: Dress) -> Verdicts {
    let (data, tokens, keys, is_healthy) = tokio::join!(
        async { Setup::new(dress, Kind::Data).await.get().await },
        async { Setup::new(dress, Kind::Tokens).await.get().await },
        async { Setup::new(dress, Kind::Keys).await.get().await },
        async { Setup::new(dress, Kind::Health).await.is_healthy().await },
    );
    let [tokens, keys] = [tokens, keys].map(|response| (response.status, response.code()));
    Verdicts { data, tokens, keys, is_healthy }
}

/// A server with odd responses to one kind of requests, and a gateway before it.
struct Setup {
    gateway: Gateway,
    upstream: Upstream,
    provider: Provider,
}

impl Setup {
    async fn new(dress: Dress, odd: Kind) -> Self {
        let provider = Provider::new();
        let keys = provider.jwks();
        let upstream = Upstream::with_handler_for_all(move |request| {
            let (kind, body) = match request.path() {
                path if path.ends_with("/token") => {
                    (Kind::Tokens, r#"{"access_token":"canary-token"}"#)
                }
                "/keys" => (Kind::Keys, &*keys),
                "/bi/health-check" => (Kind::Health, "fine"),
                _ => (Kind::Data, "data"),
            };
            let bytes = if kind == odd { dress(body) } else { plain(body) };
            let text = String::from_utf8_lossy(&bytes).to_lowercase();
            let (length, coding) = (text.contains("content-length"), text.contains("encoding"));
            // A response that a reader may take for one without an end gets a clear end.
            let chunked = text.contains("encoding: chunked\r\n") && text.ends_with("0\r\n\r\n");
            RawResponse {
                bytes,
                keep: if coding { chunked } else { length && text.ends_with(body) },
            }
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
        Self { gateway, upstream, provider }
    }

    async fn get(&self) -> Response {
        let token = self.provider.token(|_| ());
        let head = "GET /bi/api/site/site1/v5.0/dashboards HTTP/1.1\r\nHost: gw\r\n";
        let bearer = format!("Authorization: Bearer {token}\r\nConnection: close\r\n\r\n");
        self.gateway.send(format!("{head}{bearer}")).await
    }

    /// Whether the server is healthy, after its first health check.
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

/// Checks all rows, and names those that are judged otherwise.
async fn check(rows: &[(&'static str, Dress)], is_right: fn(&Verdicts) -> bool) {
    let mut wrong = Vec::new();
    for &(name, dress) in rows {
        let verdicts = verdicts(dress).await;
        if !is_right(&verdicts) {
            let Verdicts { data, tokens, keys, is_healthy } = verdicts;
            let data = (data.status, data.whole, data.code());
            wrong.push(format!("{name}: {data:?}, {tokens:?}, {keys:?}, healthy: {is_healthy}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn an_odd_response_is_read_for_data_tokens_keys_and_health_checks_alike() {
    check(&READABLE, |Verdicts { data, tokens, keys, is_healthy }| {
        let whole = data.whole && data.text() == "data";
        [data.status, tokens.0, keys.0] == [200; 3] && whole && *is_healthy
    })
    .await;
}

#[tokio::test]
async fn a_head_that_is_not_http_is_refused_for_data_tokens_keys_and_health_checks_alike() {
    check(&UNREADABLE, |Verdicts { data, tokens, keys, is_healthy }| {
        (data.status, &*data.code()) == (502, "upstream_invalid")
            && (tokens.0, &*tokens.1) == (502, "token_reply_unusable")
            && (keys.0, &*keys.1) == (503, "issuer_keys_unavailable")
            && !is_healthy
    })
    .await;
}

#[tokio::test]
async fn a_broken_body_is_refused_for_data_tokens_and_keys_alike() {
    check(&BROKEN, |Verdicts { data, tokens, keys, is_healthy }| {
        // Only the head of a response to a health check counts.
        data.status == 200
            && !data.whole
            && tokens.0 >= 502
            && (keys.0, &*keys.1) == (503, "issuer_keys_unavailable")
            && *is_healthy
    })
    .await;
}

#[tokio::test]
async fn bytes_after_a_response_are_never_read_as_the_next_response() {
    for dress in [
        (|keys| [with(b"", keys), plain("{}")].concat()) as Dress,
        |keys| [chunked(HEAD, hex, keys, "0\r\n\r\n"), plain("{}")].concat(),
        |keys| [chunked(HEAD, hex, keys, "0\r\nX-A: b\r\n\r\n"), plain("{}")].concat(),
        |keys| [with(b"", keys), b"\n".to_vec()].concat(),
    ] {
        let keys = Provider::new().jwks();
        let upstream = Upstream::with_handler_for_all(move |_| RawResponse {
            bytes: dress(&keys),
            keep: true,
        })
        .await;
        let url = format!("http://{}/keys", upstream.address).parse().unwrap();
        let source = HttpKeySource::new(url, &Trust::default()).unwrap();
        for count in 1..=2 {
            assert!(source.fetch().await.is_ok());
            assert_eq!(upstream.seen.connections.load(SeqCst), count);
        }
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
        let upstream = Upstream::with_handler_for_all(move |_| RawResponse {
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
