//! Exchanges over real connections: every way in which a token endpoint can respond.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use boldgate::boldbi::hint;
use boldgate::boldbi::stand_in::{StandIn, StandInOptions, TokenReply};
use boldgate::tenant::SecretPosition;
use boldgate::tenant::{Credential, ExchangeBody, Server};
use boldgate::token::{AccessToken, ExchangeError, ExchangeErrorKind, TokenExchange};
use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::support::tenants::{
    EXCHANGE_DEADLINE, bold_bi, embed_secret, password, permit, permits, server, source, tls_server,
};
use crate::support::tls::SelfSigned;

async fn stand_in() -> StandIn {
    StandIn::start(StandInOptions::default()).await.unwrap()
}

async fn exchange_with(server: Server, credential: Credential) -> Outcome {
    let permit = permits(server, vec![credential]).remove(0);
    bold_bi(&permit).exchange(&permit, SecretPosition::First).await
}

type Outcome = Result<AccessToken, ExchangeError>;

async fn exchange(stand_in: &StandIn) -> Outcome {
    exchange_with(server(stand_in.addr()), embed_secret()).await
}

async fn replied(reply: TokenReply) -> Outcome {
    let stand_in = stand_in().await;
    stand_in.set_reply(reply);
    exchange(&stand_in).await
}

fn raw(status: u16, body: &str) -> TokenReply {
    let status = StatusCode::from_u16(status).unwrap();
    TokenReply::Raw { status, headers: Vec::new(), body: body.into() }
}

fn fault(outcome: Outcome) -> &'static str {
    let error = outcome.unwrap_err();
    assert!(!hint(&error).is_empty());
    match error.kind {
        ExchangeErrorKind::Unusable { fault, .. } => fault,
        other => panic!("not unusable: {other}"),
    }
}

/// Responds the first connection with these bytes, whatever is asked, and then ends it.
async fn raw_server(response: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.write_all(&response).await;
        let _ = stream.shutdown().await;
        // Closing with unread input would reset the connection and take the response along.
        let _ = stream.read(&mut [0; 4096]).await;
    });
    address
}

#[tokio::test]
async fn the_stand_in_takes_a_rotated_secret_until_the_next_change_and_a_regenerated_one_no_more() {
    let stand_in = stand_in().await;
    stand_in.rotate_embed_secret(Some("site1"), "canary-another");
    assert!(exchange(&stand_in).await.is_ok());
    stand_in.set_embed_secret(Some("site1"), "canary-another");
    let error = exchange(&stand_in).await.unwrap_err();
    assert!(matches!(error.kind, ExchangeErrorKind::Refused { .. }), "{error}");
}

#[tokio::test]
async fn every_known_reply_gives_a_token_that_works() {
    for reply in
        [TokenReply::Current, TokenReply::Dated, TokenReply::Published, TokenReply::NoExpiry]
    {
        let week = !matches!(reply, TokenReply::NoExpiry);
        let token = replied(reply).await.unwrap();
        let expected = Duration::from_secs(if week { 604_800 } else { 900 });
        assert_eq!(token.lifetime(), expected);
    }
}

#[tokio::test]
async fn both_grants_work_with_both_bodies() {
    let stand_in = stand_in().await;
    for credential in [embed_secret(), password()] {
        for body in [ExchangeBody::Form, ExchangeBody::Json] {
            let credential = Credential { body, ..credential.clone() };
            exchange_with(server(stand_in.addr()), credential).await.unwrap();
        }
    }
    for recorded in stand_in.last_requests() {
        assert_eq!(
            (recorded.method.as_str(), &*recorded.target),
            ("POST", "/bi/api/site/site1/token")
        );
        assert_eq!(recorded.headers["host"], stand_in.addr().to_string());
        assert_eq!(recorded.headers["accept"], "application/json");
        assert_eq!(recorded.headers["user-agent"], concat!("boldgate/", env!("CARGO_PKG_VERSION")));
        assert!(!recorded.headers.contains_key("authorization"));
    }
    assert_eq!(stand_in.token_requests(), 4);
}

#[tokio::test]
async fn refusals_come_with_a_hint() {
    let stand_in = stand_in().await;
    let wrong = |mut credential: Credential, username: Option<&str>| {
        credential.secret = Some(boldgate::secret::Secret::new("wrong".into()));
        credential.username = username.map_or(credential.username, Arc::from);
        credential
    };
    let cases = [
        (wrong(embed_secret(), None), "Settings > Embed"),
        (wrong(password(), None), "embed_secret"),
        (wrong(password(), Some("reports@example.com")), "embed_secret"),
        (wrong(embed_secret(), Some("nobody@example.com")), "site identifier"),
    ];
    for (credential, expected) in cases {
        let error = exchange_with(server(stand_in.addr()), credential).await.unwrap_err();
        assert!(matches!(error.kind, ExchangeErrorKind::Refused { .. }), "{error}");
        assert!(hint(&error).contains(expected), "{}", hint(&error));
    }
    stand_in.set_reply(TokenReply::FailedLogin);
    let error = exchange(&stand_in).await.unwrap_err();
    assert!(matches!(error.kind, ExchangeErrorKind::Refused { status: 200, .. }), "{error}");
}

#[tokio::test]
async fn a_body_that_is_no_token_reply_is_unusable() {
    assert!(fault(replied(TokenReply::Html).await).contains("HTML"));
    assert_eq!(fault(replied(TokenReply::Empty).await), "it is empty");
    assert_eq!(fault(replied(TokenReply::Truncated).await), "its JSON is truncated");
    assert_eq!(fault(replied(TokenReply::Oversize).await), "it is larger than 64 KiB");
    assert!(fault(replied(TokenReply::DuplicateKeys).await).contains("twice"));
    assert!(fault(replied(TokenReply::LineEndInToken).await).contains("line ends"));
    for wrong_type in [r#"{"access_token":7}"#, r#"{"access_token":{"a":1}}"#] {
        assert!(fault(replied(raw(200, wrong_type)).await).contains("wrong type"));
    }
    assert_eq!(fault(replied(raw(200, r#"["x"]"#)).await), "it is not a JSON object");
    assert_eq!(fault(replied(raw(204, "")).await), "it is empty");
}

/// A whole response of this status, with more lines in its head, and this body.
fn response(status: &str, lines: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\n{lines}Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// The code, text and hint of an error, which show nothing of the reply.
fn told(error: &ExchangeError) -> String {
    let told = format!("{}: {error}; {}", error.kind.code(), hint(error));
    assert!(!told.contains("canary"), "{told}");
    told
}

async fn told_about(response: Vec<u8>, credential: Credential) -> String {
    told(&exchange_with(server(raw_server(response).await), credential).await.unwrap_err())
}

#[tokio::test]
async fn a_refusal_that_is_not_bold_bis_is_not_about_the_credential() {
    let html = "Content-Type: text/html; charset=utf-8\r\n";
    let page = b"<html><title>canary</title>Access denied</html>";
    let json = b"{\"Message\":\"canary\"}";
    let cases: [(&str, &str, &[u8], &str); 31] = [
        ("403 Forbidden", html, page, "firewall"),
        ("403 Forbidden", "Content-Type: TEXT/HTML\r\n", b"", "firewall"),
        ("403 Forbidden", "Content-Type: application/xhtml+xml\r\n", page, "firewall"),
        ("403 Forbidden", "", page, "firewall"),
        (
            "403 Forbidden",
            "Content-Type: text/plain\r\n",
            b"\xef\xbb\xbf\r\n <!doctype",
            "firewall",
        ),
        ("403 Forbidden", "Content-Type: text/plain\r\n", b"Access denied: canary", "firewall"),
        ("400 Bad Request", html, page, "https"),
        ("400 Bad Request", html, page, "web server's page"),
        ("400 Bad Request", "", b"<center>nginx</center>", "the host in the server's `url`"),
        (
            "400 Bad Request",
            "Content-Type: text/plain\r\n",
            b"Client sent an HTTP request to an HTTPS server.\n",
            "https",
        ),
        ("401 Unauthorized", html, page, "sign-in"),
        ("401 Unauthorized", "WWW-Authenticate: NTLM\r\n", b"", "IIS or a proxy"),
        ("401 Unauthorized", "www-authenticate: negotiate\r\n", json, "IIS or a proxy"),
        ("401 Unauthorized", "WWW-Authenticate: Basic realm=\"a, b\"\r\n", b"", "IIS or a proxy"),
        (
            "401 Unauthorized",
            "WWW-Authenticate: Bearer\r\nWWW-Authenticate: Negotiate YII=, NTLM\r\n",
            b"",
            "IIS or a proxy",
        ),
        ("401 Unauthorized", "WWW-Authenticate: Bearer, Digest nonce=x\r\n", b"", "IIS or a proxy"),
        ("405 Method Not Allowed", "", json, "POST"),
        ("405 Method Not Allowed", "Allow: POST\r\n", json, "POST"),
        ("406 Not Acceptable", "", json, "`Accept: application/json`"),
        ("407 Proxy Authentication Required", html, page, "proxy"),
        ("411 Length Required", html, page, "Content-Length"),
        ("411 Length Required", "", b"", "Content-Length"),
        ("413 Content Too Large", "", b"", "too large"),
        ("415 Unsupported Media Type", "", json, "token_request"),
        ("417 Expectation Failed", html, page, "Expect"),
        ("417 Expectation Failed", "", json, "Bold BI's own logs"),
        ("421 Misdirected Request", "", b"", "host"),
        ("426 Upgrade Required", "", b"", "https"),
        ("431 Request Header Fields Too Large", "", b"", "too large"),
        ("451 Unavailable For Legal Reasons", html, page, "firewall"),
        ("499 Some Code", html, page, "firewall"),
    ];
    for (status, lines, body, expected) in cases {
        for credential in [embed_secret(), password()] {
            let told = told_about(response(status, lines, body), credential).await;
            let about = |word: &str| told.to_lowercase().contains(word);
            assert!(told.contains(expected), "{status} {lines}: {told}");
            assert!(told.starts_with("token_reply_unusable"), "{status} {lines}: {told}");
            assert!(!about("embed secret") && !about("settings > embed"), "{status}: {told}");
            assert!(!about("the password is wrong") && !about("was refused"), "{status}: {told}");
            assert!(!about("username"), "{status} {lines}: {told}");
        }
    }
    // A page that does not exist is the web server's response, whatever its content type, and so is
    // one that says that nothing is taken by POST.
    for (status, lines) in [
        ("404 Not Found", html),
        ("404 Not Found", ""),
        ("405 Method Not Allowed", html),
        ("501 Unsupported method ('POST')", html),
    ] {
        let told = told_about(response(status, lines, page), embed_secret()).await;
        assert!(told.starts_with("token_endpoint_missing: "), "{told}");
        assert!(told.contains("in a browser") && !told.contains("Settings > Embed"), "{told}");
    }
    // Control: Bold BI responds so to a wrong credential, or may.
    for (status, body) in [
        ("400 Bad Request", &b"{}"[..]),
        ("401 Unauthorized", b""),
        ("403 Forbidden", json),
        ("403 Forbidden", b"\"canary\""),
        ("422 Unprocessable Content", json),
    ] {
        let told = told_about(response(status, "", body), embed_secret()).await;
        assert!(told.starts_with("credential_refused"), "{status}: {told}");
        assert!(told.contains("Settings > Embed"), "{status}: {told}");
        // A firewall may refuse in JSON, or with an empty body.
        assert_eq!(told.contains("firewall"), status.starts_with("403"), "{status}: {told}");
    }
    for challenge in ["Bearer", "Bearer realm=\"Basic, NTLM\"", "Bearer realm=Basic"] {
        let line = format!("WWW-Authenticate: {challenge}\r\n");
        let told = told_about(response("401 Unauthorized", &line, b""), embed_secret()).await;
        assert!(told.contains("Settings > Embed"), "{challenge}: {told}");
    }
    for (status, body) in [("403 Forbidden", &b""[..]), ("403 Forbidden", b" \r\n")] {
        let told = told_about(response(status, "", body), password()).await;
        assert!(told.starts_with("credential_refused") && told.contains("firewall"), "{told}");
    }
}

#[tokio::test]
async fn a_refusal_whose_body_does_not_come_is_reported_long_before_the_deadline() {
    let server_side = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut patient = server(server_side.local_addr().unwrap());
    patient.timeouts.exchange = Duration::from_secs(60);
    let task = tokio::spawn(async move {
        let (mut stream, _) = server_side.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await.unwrap();
        let head = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 100\r\n\r\n";
        stream.write_all(head).await.unwrap();
        stream.read_to_end(&mut Vec::new()).await
    });
    let begun = Instant::now();
    let error = exchange_with(patient, embed_secret()).await.unwrap_err();
    assert!(told(&error).starts_with("credential_refused"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    task.abort();
}

#[tokio::test]
async fn an_implausible_lifetime_has_a_hint_about_lifetimes() {
    for absurd in ["0", "-1", "\"0\"", "1e99", "\"0001-01-01T00:00:00\"", "true", "[1]"] {
        let reply = raw(200, &format!(r#"{{"access_token":"canary","expires_in":{absurd}}}"#));
        let told = told(&replied(reply).await.unwrap_err());
        assert!(told.starts_with("token_reply_unusable"), "{absurd}: {told}");
        assert!(told.contains("how long tokens live") && told.contains("clock"), "{told}");
        assert!(!told.contains("Embed") && !told.contains("`url`"), "{absurd}: {told}");
    }
}

#[tokio::test]
async fn requests_wait_for_the_next_token_in_the_last_second_of_one_that_is_given_out_again() {
    let stand_in = stand_in().await;
    let permit = permit(server(stand_in.addr()));
    let source = source(bold_bi(&permit));
    let give = |token: &str, seconds: u32| {
        let body = format!(r#"{{"access_token":"{token}","expires_in":{seconds}}}"#);
        stand_in.set_reply(raw(200, &body));
    };
    give("canary-old", 1);
    let old = source.token(&permit).await.unwrap().token;
    give("canary-old", 0);
    tokio::time::sleep_until(old.expires_at()).await;
    let calls = stand_in.token_requests();
    let mut waiting = Box::pin(source.token(&permit));
    let early = tokio::time::timeout(Duration::from_millis(500), waiting.as_mut()).await;
    assert!(early.is_err(), "{early:?}");
    assert!((1..=3).contains(&(stand_in.token_requests() - calls)), "one every 200 ms");
    give("canary-new", 60);
    assert_eq!(waiting.await.unwrap().token.as_bytes(), b"canary-new");
}

#[tokio::test]
async fn a_reply_that_is_said_to_be_compressed_is_not_read_and_its_coding_is_named() {
    let plain = br#"{"access_token":"canary"}"#;
    // Made by `gzip.compress(b'{"access_token":"canary"}')`, without the time in it.
    let packed = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xabVJLNN-.\x8e/\xc9\xcfN\xcdS\xb2RJN\xccK,\xaaT\xaa\x05\x00FV\xfb\xfc\x19\x00\x00\x00";
    for (lines, body, expected) in [
        ("Content-Encoding: gzip\r\n", &plain[..], "is gzip"),
        ("Content-Encoding: gzip\r\n", packed, "is gzip"),
        ("content-encoding: identity\r\ncontent-encoding:  GZIP\r\n", plain, "is gzip"),
        ("Content-Encoding: br\r\n", b"\x8b\x0c\x80", "is br"),
        ("Content-Encoding: canary\r\n", plain, "of an unknown name"),
    ] {
        let told = told_about(response("200 OK", lines, body), embed_secret()).await;
        assert!(told.contains("token_reply_unusable"), "{told}");
        assert!(told.contains(expected) && told.contains("Accept-Encoding"), "{lines}: {told}");
    }
    for lines in ["", "Content-Encoding: identity\r\n", "Content-Encoding:\r\n"] {
        let address = raw_server(response("200 OK", lines, plain)).await;
        exchange_with(server(address), embed_secret()).await.unwrap();
    }
}

#[tokio::test]
async fn our_own_requests_accept_no_content_coding() {
    let stand_in = stand_in().await;
    exchange(&stand_in).await.unwrap();
    let recorded = stand_in.last_requests();
    assert_eq!(recorded[0].headers["accept-encoding"], "identity");
}

#[tokio::test]
async fn a_reply_without_a_true_length_is_cut_off_at_64_kib() {
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
    let body = " ".repeat(200_000);
    for framing in ["content-length: 1073741824\r\n\r\n".to_owned(), format!("\r\n{body}")] {
        let address = raw_server([head, framing.as_bytes()].concat()).await;
        let outcome = exchange_with(server(address), embed_secret()).await;
        assert_eq!(fault(outcome), "it is larger than 64 KiB");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let target = stand_in().await;
    for location in [target.url(), format!("{}/api/site/site1/token", target.url())] {
        assert!(fault(replied(TokenReply::Redirect(location)).await).contains("redirect"));
    }
    assert_eq!(target.connections(), 0);
}

#[tokio::test]
async fn a_failing_endpoint_is_unavailable() {
    let stand_in = stand_in().await;
    for status in [500, 502, 503, 429] {
        let headers = vec![("retry-after".into(), "7".into())];
        let status = StatusCode::from_u16(status).unwrap();
        stand_in.set_reply(TokenReply::Raw { status, headers, body: b"<html>".to_vec() });
        match exchange(&stand_in).await.unwrap_err().kind {
            ExchangeErrorKind::Unavailable { status: told, retry_after } => {
                assert_eq!(told, status.as_u16());
                assert_eq!(retry_after, Some(Duration::from_secs(7)));
            }
            other => panic!("not unavailable: {other}"),
        }
    }
}

#[tokio::test]
async fn one_deadline_covers_the_whole_exchange() {
    let drip = TokenReply::Drip(Duration::from_millis(100));
    for reply in [TokenReply::Never, drip] {
        let started = Instant::now();
        let error = replied(reply).await.unwrap_err();
        assert!(matches!(error.kind, ExchangeErrorKind::Timeout(EXCHANGE_DEADLINE)), "{error}");
        assert!(started.elapsed() >= EXCHANGE_DEADLINE);
        assert!(started.elapsed() < EXCHANGE_DEADLINE * 3);
    }
}

#[tokio::test]
async fn a_server_that_accepts_and_is_silent_runs_into_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let error = exchange_with(server(address), embed_secret()).await.unwrap_err();
    assert!(matches!(error.kind, ExchangeErrorKind::Timeout(_)), "{error}");
}

#[tokio::test]
async fn a_connection_that_fails_is_reported_with_its_cause() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = exchange_with(server(free), embed_secret()).await.unwrap_err();
    let told = error.to_string().to_lowercase();
    assert!(told.contains("connection refused"), "{told}");
    assert!(hint(&error).contains("nothing listens"));

    let error = replied(TokenReply::BrokenOff).await.unwrap_err();
    assert!(matches!(error.kind, ExchangeErrorKind::Unreachable(..)), "{error}");
    for part in ["HTTP/1.1 200", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"] {
        let address = raw_server(part.into()).await;
        let error = exchange_with(server(address), embed_secret()).await.unwrap_err();
        assert!(hint(&error).contains("in the middle of its response"), "{part}: {}", hint(&error));
    }
    let address = raw_server(Vec::new()).await;
    let error = exchange_with(server(address), embed_secret()).await.unwrap_err();
    assert!(matches!(error.kind, ExchangeErrorKind::Unreachable(..)), "{error}");
    assert!(hint(&error).contains("closes it without a response"), "{}", hint(&error));
    assert!(hint(&error).contains("https://"), "{}", hint(&error));
}

#[tokio::test]
async fn certificates_are_verified_against_the_ca_file_alone() {
    let (address, ca) = tls_endpoint("bi.example.test").await;
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, pem: String| {
        let path = directory.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path
    };
    let other = authority("Another authority");

    let outcome = |host: &'static str, path| async move {
        exchange_with(tls_server(address, host, path), embed_secret()).await
    };
    // The second certificate of a bundle counts like the first.
    let bundle = file("bundle.crt", other.clone() + &ca);
    let token = outcome("localhost", bundle.clone()).await.unwrap();
    assert_eq!(token.authorization(), "Bearer over-tls");

    let error = outcome("localhost", file("other.crt", other)).await.unwrap_err();
    assert!(error.to_string().contains("self-signed"), "{error}");
    assert!(hint(&error).contains("ca_file"));

    let error = outcome("127.0.0.1", bundle).await.unwrap_err();
    let names = "is for `localhost`, `bi.example.test`, not for `127.0.0.1`";
    assert!(error.to_string().contains(names), "{error}");
    assert!(hint(&error).contains("another host name"));
}

/// A certificate of this subject, in PEM.
fn authority(name: &str) -> String {
    let mut params = rcgen::CertificateParams::new(["other.test".to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
}

/// A token endpoint behind TLS, for `localhost` and `name`, and the certificate to trust.
async fn tls_endpoint(name: &str) -> (SocketAddr, String) {
    let made = SelfSigned::for_names(&["localhost", name]);
    let acceptor = made.acceptor();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let _ = stream.read(&mut [0; 4096]).await;
                let body = r#"{"access_token":"over-tls"}"#;
                let length = body.len();
                let response = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
                let _ = stream.write_all(response.as_bytes()).await;
                let _ = stream.read(&mut [0; 4096]).await;
            });
        }
    });
    (address, made.pem())
}

#[tokio::test]
async fn no_error_shows_the_secret_or_the_reply() {
    let replies = [
        raw(200, r#"{"access_token":"reply-canary","LoginResult":"reply-canary"}"#),
        raw(200, r#"{"access_token":"reply canary","error":""}"#),
        raw(200, "reply-canary"),
        raw(400, "reply-canary"),
        raw(500, "reply-canary"),
        TokenReply::Redirect("http://reply-canary".into()),
        TokenReply::BrokenOff,
        TokenReply::LineEndInToken,
        TokenReply::Never,
    ];
    for reply in replies {
        let error = replied(reply).await.unwrap_err();
        let shown = format!("{error} {error:?} {error:#?} {}", hint(&error));
        assert!(!shown.contains("canary") && !shown.contains("stand-in-embed-secret"), "{shown}");
    }
}

#[tokio::test]
async fn a_token_is_fetched_once_and_lives_at_the_api() {
    let stand_in = stand_in().await;
    let permit = permit(server(stand_in.addr()));
    let source = source(bold_bi(&permit));
    let first = source.token(&permit).await.unwrap();
    let second = source.token(&permit).await.unwrap();
    assert!(!first.cached && second.cached);
    assert!(Arc::ptr_eq(&first.token, &second.token));
    assert_eq!(stand_in.token_requests(), 1);

    let authorization = first.token.authorization().to_str().unwrap().to_owned();
    let (status, body) = api(&stand_in, "/v5.0/anything?a=b", &authorization).await;
    assert_eq!(status, 200);
    assert!(body.contains(r#""user":"reports@example.com""#), "{body}");
    assert!(body.contains(r#""target":"/bi/api/site/site1/v5.0/anything?a=b""#), "{body}");
    let token = authorization.strip_prefix("Bearer ").unwrap();
    assert!(!body.contains(token), "the API does not repeat the token");
    assert_eq!(api(&stand_in, "/v5.0/items", &format!("bearer {token}")).await.0, 200);
    assert_eq!(api(&stand_in, "/v5.0/items", "Bearer nonsense").await.0, 401);
    let (status, body) = api(&stand_in, "/v5.0/large?size=200000", &authorization).await;
    assert_eq!((status, body.len()), (200, 200_000));

    stand_in.fail_next_api(StatusCode::BAD_GATEWAY, 1);
    assert_eq!(api(&stand_in, "/v5.0/items", &authorization).await.0, 502);
    stand_in.revoke("somebody else");
    assert_eq!(api(&stand_in, "/v5.0/items", &authorization).await.0, 200);
    stand_in.revoke("reports@example.com");
    assert_eq!(api(&stand_in, "/v5.0/items", &authorization).await.0, 401);
    assert_eq!(stand_in.api_requests(), 7);
}

/// Status and body of a GET below the site's API base.
async fn api(stand_in: &StandIn, route: &str, authorization: &str) -> (u16, String) {
    let mut stream = tokio::net::TcpStream::connect(stand_in.addr()).await.unwrap();
    let request = format!(
        "GET /bi/api/site/site1{route} HTTP/1.1\r\nhost: x\r\nauthorization: {authorization}\r\n\
         connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}
