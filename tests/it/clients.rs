//! The address of a client behind proxies, as logs and Bold BI are told of it, and the ids by which
//! other systems know a request.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::support::client::{Client, Response};
use crate::support::edit::Edit;
use crate::support::gateway::{Gateway, PATH, anonymous, listening_at};
use crate::support::upstream::Upstream;

mod behind_proxies;
mod split;

/// The configuration with these keys in its listener.
fn with(upstream: SocketAddr, keys: &str) -> String {
    anonymous(upstream).edit("callers: anonymous", &format!("callers: anonymous, {keys}"))
}

const TRUSTED: &str =
    "trusted_proxies: { from: [127.0.0.0/8, 10.0.0.0/8], header: x-forwarded-for }";
const FORWARDED: &str = "trusted_proxies: { from: [127.0.0.0/8, 10.0.0.0/8], header: forwarded }";
const PROXY: &str = "proxy_protocol: { from: [\"::ffff:127.0.0.0/104\"] }";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn request(lines: &str) -> Vec<u8> {
    format!("GET {PATH} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n").into_bytes()
}

/// Version 2 of the PROXY protocol with an IPv4 address and an extension.
fn v2(command: u8, address: [u8; 4]) -> Vec<u8> {
    let fixed = [command, 0x11, 0, 19];
    let rest = [127, 0, 0, 1, 0x12, 0x34, 0, 80, 4, 0, 4, 1, 2, 3, 4];
    [b"\r\n\r\n\0\r\nQUIT\n", &fixed[..], &address, &rest].concat()
}

#[tokio::test]
async fn logs_and_bold_bi_have_the_address_and_scheme_of_the_client_before_trusted_proxies() {
    let spoofed = "X-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6;proto=https\r\n\
                   X-Real-IP: 6.6.6.6\r\nX-Forwarded-Host: evil.example\r\nX-Forwarded-Proto: https\r\n\
                   CF-Connecting-IP: 6.6.6.6\r\nTrue-Client-IP: 6.6.6.6\r\nX-Client-IP: 6.6.6.6\r\n";
    let one = "X-Forwarded-For: 6.6.6.6, 203.0.113.9\r\nX-Forwarded-Proto: https\r\n\
               X-Real-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Forwarded-Host: evil.example\r\n";
    let two = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 203.0.113.9,10.0.0.2\r\n\
               X-Forwarded-Proto: https, http\r\n";
    let v1 = b"PROXY TCP4 203.0.113.9 127.0.0.1 4711 80\r\n".to_vec();
    let both = format!("{TRUSTED}, {PROXY}");
    let by_proxy = b"PROXY TCP4 10.0.0.2 127.0.0.1 4711 80\r\n".to_vec();
    for (case, keys, preamble, lines, address, scheme) in [
        ("direct", "", vec![], "", "127.0.0.1", "http"),
        ("spoofed", "", vec![], spoofed, "127.0.0.1", "http"),
        ("trusted, no header", TRUSTED, vec![], "", "127.0.0.1", "http"),
        ("one proxy", TRUSTED, vec![], one, "203.0.113.9", "https"),
        ("two proxies", TRUSTED, vec![], two, "203.0.113.9", "https"),
        ("IPv6", TRUSTED, vec![], "X-Forwarded-For: [2001:db8::9]:1\r\n", "2001:db8::9", "http"),
        ("garbage", TRUSTED, vec![], "X-Forwarded-For: 6.6.6.6, é\r\n", "127.0.0.1", "http"),
        (
            "IPv4 within IPv6",
            TRUSTED,
            vec![],
            "X-Forwarded-For: 203.0.113.9, ::ffff:10.0.0.2\r\n",
            "203.0.113.9",
            "http",
        ),
        (
            "the other header",
            FORWARDED,
            vec![],
            "X-Forwarded-For: 6.6.6.6\r\n",
            "127.0.0.1",
            "http",
        ),
        (
            "Forwarded",
            FORWARDED,
            vec![],
            "Forwarded: for=6.6.6.6, For=\"[2001:db8::9]:80\";proto=https;host=evil.example\r\n\
             Forwarded: for=10.0.0.2\r\n",
            "2001:db8::9",
            "https",
        ),
        ("Forwarded, garbage", FORWARDED, vec![], "Forwarded: for=\"x\r\n", "127.0.0.1", "http"),
        ("PROXY v1", PROXY, v1.clone(), spoofed, "203.0.113.9", "http"),
        (
            "PROXY v1, IPv6",
            PROXY,
            b"PROXY TCP6 2001:db8::9 ::1 4711 80\r\n".to_vec(),
            "",
            "2001:db8::9",
            "http",
        ),
        ("PROXY v1, unknown", PROXY, b"PROXY UNKNOWN\r\n".to_vec(), "", "127.0.0.1", "http"),
        ("PROXY v2", PROXY, v2(0x21, [203, 0, 113, 9]), "", "203.0.113.9", "http"),
        ("PROXY v2, local", PROXY, v2(0x20, [203, 0, 113, 9]), "", "127.0.0.1", "http"),
        ("PROXY, then an untrusted header", &both, v1, one, "203.0.113.9", "http"),
        ("PROXY, then a trusted header", &both, by_proxy, two, "203.0.113.9", "https"),
    ] {
        let upstream = Upstream::echo().await;
        let config = if keys.is_empty() {
            anonymous(upstream.address)
        } else {
            with(upstream.address, keys)
        };
        let gateway = Gateway::start(&config);
        let response = gateway.send([preamble, request(lines)].concat()).await;
        assert_eq!(response.status, 200, "{case}");
        let line = &gateway.access_lines(1).await[0];
        assert_eq!(line["client.address"], address, "{case}");
        let forwarded = &upstream.seen.requests()[0];
        assert_eq!(forwarded.header("x-forwarded-for"), [address], "{case}");
        assert_eq!(forwarded.header("x-forwarded-proto"), [scheme], "{case}");
        assert_eq!(forwarded.header("x-forwarded-host"), [upstream.address.to_string()], "{case}");
        assert!(!forwarded.head.contains("6.6.6.6"), "{case}: {}", forwarded.head);
        assert!(!forwarded.head.contains("evil"), "{case}: {}", forwarded.head);
    }
}

#[tokio::test]
async fn a_refusal_is_logged_with_the_client_before_trusted_proxies() {
    let upstream = Upstream::echo().await;
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("audit.jsonl");
    let audit = format!("audit: {{ to: {} }}\n", log.display());
    let gateway = Gateway::start(&(with(upstream.address, TRUSTED) + &audit));
    let forwarded = "X-Forwarded-For: 203.0.113.9\r\n";
    let unknown = format!("GET /bi/api/site/none/a HTTP/1.1\r\nHost: localhost\r\n{forwarded}\r\n");
    assert_eq!(gateway.send(unknown).await.status, 404);
    let malformed = format!("GET /a//b HTTP/1.1\r\nHost: localhost\r\n{forwarded}\r\n");
    assert_eq!(gateway.send(malformed).await.status, 400);
    for line in gateway.access_lines(2).await {
        assert_eq!(line["client.address"], "203.0.113.9", "{line}");
    }
    assert!(gateway.running.stop().await);
    gateway.telemetry.audit.finish();
    let audit = std::fs::read_to_string(log).unwrap();
    let lines: Vec<Value> = audit.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{audit}");
    for line in lines {
        assert_eq!(line["client.address"], "203.0.113.9", "{line}");
    }
    upstream.seen.assert_untouched("refused requests");
}

#[tokio::test]
async fn hosts_origins_and_named_users_do_not_depend_on_what_proxies_forward() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&with(upstream.address, TRUSTED));
    let host = "X-Forwarded-Host: localhost\r\nX-Forwarded-For: 203.0.113.9\r\n";
    let misdirected = format!("GET {PATH} HTTP/1.1\r\nHost: evil.example\r\n{host}\r\n");
    assert_eq!(gateway.send(misdirected).await.status, 421);
    // The page is of the request's own origin only if the connection itself has TLS.
    let page = "Origin: https://gw\r\nX-Forwarded-Proto: https\r\nX-Forwarded-For: 203.0.113.9\r\n";
    let page = |origin: &str| {
        format!("GET {PATH} HTTP/1.1\r\nHost: gw\r\n{}\r\n", page.edit("https://gw", origin))
    };
    let refused = gateway.send(page("https://gw")).await;
    assert_eq!((refused.status, refused.code()), (403, "origin_refused".to_owned()));
    upstream.seen.assert_untouched("refused requests");
    assert_eq!(gateway.send(page("http://gw")).await.status, 200, "the control");
}

#[tokio::test]
async fn a_user_is_named_by_the_real_peer_and_by_no_address_that_is_told() {
    let upstream = Upstream::echo().await;
    let key = "bgk_0123456789abcdef0123456789abcdef";
    let digest = boldgate_key_digest(key);
    for (from, told, status) in [
        ("127.0.0.1", "203.0.113.9", 200),
        ("\"::ffff:127.0.0.1\"", "203.0.113.9", 200),
        ("203.0.113.9", "203.0.113.9", 403),
    ] {
        let callers = format!(
            "callers:\n  proxy:\n    api_key: {{ sha256: {digest} }}\n    may:\n      - tenant: acme\n        \
             routes: [read]\n        subject: {{ header: X-User, from: [{from}], domains: [acme.example] }}\n"
        );
        let keys = format!("{TRUSTED}, {PROXY}");
        let config = with(upstream.address, &keys).edit("callers: anonymous", "callers: required");
        let gateway = Gateway::start(&(config + &callers));
        let lines = format!("X-Api-Key: {key}\r\nX-User: jane@acme.example\r\n");
        let told = format!("PROXY TCP4 {told} 127.0.0.1 4711 80\r\n").into_bytes();
        let response = gateway.send([told, request(&lines)].concat()).await;
        assert_eq!(response.status, status, "{from}: {}", response.text());
    }
}

fn boldgate_key_digest(key: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, key.as_bytes());
    digest.as_ref().iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

#[tokio::test]
async fn a_connection_without_the_header_of_a_listed_proxy_is_closed() {
    let upstream = Upstream::echo().await;
    let limits = "limits: { request_head_timeout: 300ms }\n";
    let gateway = Gateway::start(&(with(upstream.address, PROXY) + limits));
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(200)).into_bytes();
    let v1 = b"PROXY TCP4 203.0.113.9 127.0.0.1 4711 80\r\n".to_vec();
    for preamble in [
        vec![],
        b"PROXY TCP4 203.0.113.9 127.0.0.1 4711\r\n".to_vec(),
        b"PROXY TCP4 203.0.113.9 127.0.0.1 4711 80\n".to_vec(),
        long,
        v2(0x22, [203, 0, 113, 9]),
        v2(0x11, [203, 0, 113, 9]),
        // A second header is no request.
        b"PROXY ".to_vec(),
    ] {
        let mut client = Client::connect(gateway.address()).await;
        let bytes = [&preamble[..], &request("")].concat();
        assert!(client.is_closed_after(&bytes).await, "{}", bytes.escape_ascii());
    }
    // A header that does not end is waited for until the deadline.
    let mut slow = Client::connect(gateway.address()).await;
    assert!(slow.is_closed_after(b"PROXY TCP4 203.0.113.9").await);
    let mut silent = Client::connect(gateway.address()).await;
    assert!(silent.is_closed().await);
    upstream.seen.assert_untouched("connections without a header");
    let unlisted = PROXY.edit("::ffff:127.0.0.0/104", "10.0.0.0/8");
    let elsewhere = Gateway::start(&with(upstream.address, &unlisted));
    let mut client = Client::connect(elsewhere.address()).await;
    assert!(client.is_closed_after(&[&v1[..], &request("")].concat()).await, "it is not listed");
    upstream.seen.assert_untouched("an unlisted proxy");
    // Control: a header may arrive byte by byte, and stands before the first request only.
    let mut client = Client::connect(gateway.address()).await;
    for byte in [&v1[..], &request("")].concat() {
        client.write(&[byte]).await;
    }
    assert_eq!(client.response().await.status, 200);
    client.write(&request("")).await;
    assert_eq!(client.response().await.status, 200);
    for line in gateway.access_lines(2).await {
        assert_eq!(line["client.address"], "203.0.113.9");
    }
}

#[tokio::test]
async fn a_header_of_the_proxy_protocol_stands_before_tls() {
    let upstream = Upstream::echo().await;
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let write = |name, text: String| crate::support::files::write(&folder, name, &text);
    let tls = format!(
        "tls: {{ certificate_file: {}, key_file: {} }}, {PROXY}",
        write("tls.crt", certificate.cert.pem()),
        write("tls.key", certificate.signing_key.serialize_pem()),
    );
    let limits = "limits: { max_connections: 1 }\n";
    let gateway = Gateway::start(&(with(upstream.address, &tls) + limits));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.cert.der().clone()).unwrap();
    let config =
        rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let connect = async || {
        let mut tcp = TcpStream::connect(gateway.address()).await.unwrap();
        tcp.write_all(&v2(0x21, [203, 0, 113, 9])).await.unwrap();
        Client::over(connector.connect("localhost".try_into().unwrap(), tcp).await.unwrap())
    };
    let mut client = connect().await;
    client.write(&request("")).await;
    assert_eq!(client.response().await.status, 200);
    // One more than the limit is rejected behind its header and its handshake.
    let rejected = connect().await.response().await;
    assert_eq!((rejected.status, &*rejected.code()), (503, "overloaded"));
    let forwarded = &upstream.seen.requests()[0];
    assert_eq!(forwarded.header("x-forwarded-for"), ["203.0.113.9"]);
    assert_eq!(forwarded.header("x-forwarded-proto"), ["https"]);
}

#[tokio::test]
async fn proxies_at_a_unix_socket_are_trusted_by_the_word_unix() {
    let upstream = Upstream::echo().await;
    let folder = tempfile::tempdir().unwrap();
    let lines = "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\n";
    for (name, from, client) in
        [("one", "unix", "203.0.113.9"), ("two", "127.0.0.1", "198.51.100.1")]
    {
        let path = folder.path().join(name);
        let keys = format!(
            "trusted_proxies: {{ from: [{from}], header: x-forwarded-for }}, \
             proxy_protocol: {{ from: [unix] }}"
        );
        let config = with(upstream.address, &keys);
        let _gateway = Gateway::start(&listening_at(format!("unix:{}", path.display()), &config));
        let mut stream = UnixStream::connect(path).await.unwrap();
        let header = if from == "unix" {
            "PROXY UNKNOWN\r\n"
        } else {
            "PROXY TCP4 198.51.100.1 127.0.0.1 4711 80\r\n"
        };
        stream.write_all(header.as_bytes()).await.unwrap();
        stream.write_all(&request(&format!("{lines}Connection: close\r\n"))).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
        let forwarded = upstream.seen.take();
        assert_eq!(forwarded[0].header("x-forwarded-for"), [client]);
    }
}

#[tokio::test]
async fn a_request_id_is_kept_of_trusted_proxies_and_replaced_of_all_others() {
    let upstream = Upstream::echo().await;
    let send = async |keys: &str, id: &str| {
        let gateway = Gateway::start(&with(upstream.address, keys));
        let response: Response = gateway.send(request(&format!("X-Request-Id: {id}\r\n"))).await;
        let forwarded = upstream.seen.take();
        let shown = response.header("x-request-id")[0].to_owned();
        assert_eq!(forwarded[0].header("x-request-id"), [&shown]);
        assert_eq!(gateway.access_lines(1).await[0]["request.id"], *shown);
        shown
    };
    let elsewhere = "trusted_proxies: { from: [10.0.0.0/8], header: x-forwarded-for }";
    assert_eq!(send(TRUSTED, "Root=1-67891233-abc").await, "Root=1-67891233-abc");
    for (keys, id) in [
        (elsewhere, "Root=1-67891233-abc"),
        (TRUSTED, "two words"),
        (TRUSTED, "a,b"),
        (TRUSTED, "a\r\nX-Request-Id: b"),
        (TRUSTED, &"x".repeat(129)),
    ] {
        let ours = send(keys, id).await;
        assert!(ours.len() == 16 && ours.bytes().all(|b| b.is_ascii_hexdigit()), "{ours}");
    }
}

#[tokio::test]
async fn a_traceparent_is_logged_and_forwarded_if_it_is_well_formed() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&anonymous(upstream.address));
    let trace = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let lines = format!("traceparent: {trace}\r\ntracestate: a=b\r\n");
    assert_eq!(gateway.send(request(&lines)).await.status, 200);
    let broken = lines.edit("-01", "-1");
    assert_eq!(gateway.send(request(&broken)).await.status, 200);
    let logged = gateway.access_lines(2).await;
    assert_eq!(logged[0]["trace_id"], TRACE);
    assert_eq!(logged[0]["span_id"], "00f067aa0ba902b7");
    assert!(logged[1].get("trace_id").is_none() && logged[1].get("span_id").is_none());
    let ecs = Gateway::start(&(anonymous(upstream.address) + "access_log: { format: ecs }\n"));
    let [one, two] = &upstream.seen.take()[..] else { panic!("two requests") };
    assert_eq!(ecs.send(request(&lines)).await.status, 200);
    let logged = &ecs.access_lines(1).await[0];
    assert_eq!(
        (&logged["trace.id"], &logged["span.id"]),
        (&TRACE.into(), &"00f067aa0ba902b7".into())
    );
    assert_eq!(one.header("traceparent"), [&trace]);
    assert_eq!(one.header("tracestate"), ["a=b"]);
    assert!(two.header("traceparent").is_empty() && two.header("tracestate").is_empty());
}
