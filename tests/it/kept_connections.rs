//! Requests of our own on connections that the server closes: exchanges and fetches of keys.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use boldgate::caller::issuer_keys::KeySource;
use boldgate::jwks::HttpKeySource;
use boldgate::tenant::SecretPosition;
use boldgate::token::{AccessToken, ExchangeError, ExchangeErrorKind, TokenExchange};
use boldgate::trust::Trust;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::support::http1::{read_body, read_until};
use crate::support::identity_provider::Provider;
use crate::support::tenants::{bold_bi, permit, server, tls_server};
use crate::support::tls::SelfSigned;

/// The act of a server on a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// Responds, and keeps the connection.
    Respond,
    /// Responds, and closes the connection soon afterwards, unasked.
    RespondAndClose,
    /// Closes the connection without a byte.
    Close,
    /// Resets the connection without a byte.
    Reset,
    /// Closes the connection after a part of the head of a response.
    Begin,
    /// Closes the connection after the head and a part of the body.
    BreakOff,
}

use Act::{Begin, BreakOff, Close, Reset, Respond, RespondAndClose};

/// A server that acts on each request by a list, in the order they come; the last entry is for all
/// that come later.
struct Fickle {
    address: SocketAddr,
    /// The requests that came whole, each with the number of its connection.
    seen: Arc<Mutex<Vec<usize>>>,
}

impl Fickle {
    async fn new(acts: &'static [Act], body: String) -> Self {
        Self::start(None, acts, body).await
    }

    async fn start(tls: Option<TlsAcceptor>, acts: &'static [Act], body: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Vec<usize>>>::default();
        let theirs = Arc::clone(&seen);
        tokio::spawn(async move {
            for connection in 1.. {
                let (stream, _) = listener.accept().await.unwrap();
                let (seen, body, tls) = (Arc::clone(&theirs), body.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        Some(tls) => {
                            let stream = tls.accept(stream).await.unwrap();
                            converse(stream, connection, &seen, acts, &body).await;
                        }
                        None => converse(stream, connection, &seen, acts, &body).await,
                    }
                });
            }
        });
        Self { address, seen }
    }

    fn seen(&self) -> Vec<usize> {
        self.seen.lock().unwrap().clone()
    }
}

async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin + ResetAtTheEnd,
    connection: usize,
    seen: &Mutex<Vec<usize>>,
    acts: &[Act],
    body: &str,
) {
    let mut buffer = Vec::new();
    while let Ok(Some(end)) = read_until(&mut stream, &mut buffer, b"\r\n\r\n").await {
        let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
        buffer.drain(..end);
        read_body(&mut stream, &mut buffer, &head).await.unwrap();
        let number = {
            let mut seen = seen.lock().unwrap();
            seen.push(connection);
            seen.len()
        };
        let act = acts[number.min(acts.len()) - 1];
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        let (bytes, goes_on) = match act {
            Respond => (head + body, true),
            RespondAndClose => (head + body, false),
            Close | Reset => (String::new(), false),
            Begin => ("HTTP/1.1 2".to_owned(), false),
            BreakOff => (head + &body[..body.len() / 2], false),
        };
        stream.write_all(bytes.as_bytes()).await.unwrap();
        match act {
            RespondAndClose => tokio::time::sleep(Duration::from_millis(5)).await,
            // With TLS, the server announces the end.
            Close => stream.shutdown().await.unwrap(),
            Reset => stream.reset_at_the_end(),
            _ => {}
        }
        if !goes_on {
            return;
        }
    }
}

/// Makes the end of a connection an abrupt one.
trait ResetAtTheEnd {
    fn reset_at_the_end(&self);
}

impl ResetAtTheEnd for TcpStream {
    fn reset_at_the_end(&self) {
        self.set_zero_linger().unwrap();
    }
}

impl ResetAtTheEnd for TlsStream<TcpStream> {
    fn reset_at_the_end(&self) {
        self.get_ref().0.reset_at_the_end();
    }
}

const TOKEN: &str = r#"{"access_token":"canary-token"}"#;

/// A count of exchanges, one after the other, with a server that acts by the list.
async fn exchanges(acts: &'static [Act], count: usize) -> (Vec<Outcome>, Vec<usize>) {
    let fickle = Fickle::new(acts, TOKEN.to_owned()).await;
    let permit = permit(server(fickle.address));
    let bold_bi = bold_bi(&permit);
    let mut outcomes = Vec::new();
    for _ in 0..count {
        outcomes.push(bold_bi.exchange(&permit, SecretPosition::First).await);
    }
    (outcomes, fickle.seen())
}

type Outcome = Result<AccessToken, ExchangeError>;

#[tokio::test]
async fn connections_are_reused_between_exchanges() {
    let (outcomes, seen) = exchanges(&[Respond], 5).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(seen, [1; 5]);
}

#[tokio::test]
async fn an_exchange_that_meets_a_closing_connection_is_sent_once_more_on_a_new_one() {
    for closes in [&[Respond, Close, Respond][..], &[Respond, Reset, Respond]] {
        let (outcomes, seen) = exchanges(closes, 3).await;
        assert!(outcomes.iter().all(Result::is_ok), "{closes:?}: {outcomes:?}");
        assert_eq!(seen, [1, 1, 2, 2], "{closes:?}");
    }
}

#[tokio::test]
async fn an_exchange_that_meets_a_closing_connection_is_sent_once_more_under_tls_too() {
    let made = SelfSigned::new("localhost");
    let tls = made.acceptor();
    let ca = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ca.path(), made.pem()).unwrap();
    for (acts, good, connections) in [
        (&[Respond, Respond][..], true, &[1, 1][..]),
        (&[Respond, Close, Respond], true, &[1, 1, 2]),
        (&[Respond, Reset, Respond], true, &[1, 1, 2]),
        (&[Respond, Begin, Respond], false, &[1, 1]),
    ] {
        let fickle = Fickle::start(Some(tls.clone()), acts, TOKEN.to_owned()).await;
        let permit = permit(tls_server(fickle.address, "localhost", ca.path().to_owned()));
        let bold_bi = bold_bi(&permit);
        bold_bi.exchange(&permit, SecretPosition::First).await.unwrap();
        assert_eq!(
            bold_bi.exchange(&permit, SecretPosition::First).await.is_ok(),
            good,
            "{acts:?}"
        );
        assert_eq!(fickle.seen(), connections, "{acts:?}");
    }
}

#[tokio::test]
async fn an_exchange_is_never_sent_a_third_time() {
    for closes in [&[Respond, Close, Close, Respond][..], &[Respond, Reset, Reset, Respond]] {
        let (outcomes, seen) = exchanges(closes, 2).await;
        assert!(outcomes[0].is_ok() && outcomes[1].is_err(), "{closes:?}: {outcomes:?}");
        assert_eq!(seen, [1, 1, 2], "{closes:?}");
    }
}

#[tokio::test]
async fn the_second_try_is_on_a_new_connection_although_others_are_idle() {
    // After two exchanges at once there are two idle connections, which the server then closes.
    let fickle = Fickle::new(&[Respond, Respond, Close, Respond], TOKEN.to_owned()).await;
    let permit = permit(server(fickle.address));
    let bold_bi = bold_bi(&permit);
    let (one, other) = tokio::join!(
        bold_bi.exchange(&permit, SecretPosition::First),
        bold_bi.exchange(&permit, SecretPosition::First)
    );
    assert!(one.is_ok() && other.is_ok());
    bold_bi.exchange(&permit, SecretPosition::First).await.unwrap();
    let seen = fickle.seen();
    assert_eq!((seen.len(), seen[3]), (4, 3), "{seen:?}");
}

#[tokio::test]
async fn an_exchange_on_a_new_connection_is_a_login_and_is_sent_once() {
    for act in [&[Close][..], &[Reset], &[Begin], &[BreakOff]] {
        let (outcomes, seen) = exchanges(act, 1).await;
        let error = outcomes[0].as_ref().unwrap_err();
        assert!(matches!(error.kind, ExchangeErrorKind::Unreachable(..)), "{act:?}: {error}");
        assert_eq!(seen, [1], "{act:?}");
    }
}

#[tokio::test]
async fn an_exchange_that_was_answered_in_part_is_not_sent_again() {
    for act in [&[Respond, Begin][..], &[Respond, BreakOff]] {
        let (outcomes, seen) = exchanges(act, 2).await;
        assert!(outcomes[0].is_ok() && outcomes[1].is_err(), "{act:?}: {outcomes:?}");
        assert_eq!(seen, [1, 1], "{act:?}");
    }
}

#[tokio::test]
async fn no_exchange_fails_at_the_pace_at_which_the_server_closes_idle_connections() {
    let fickle = Fickle::new(&[RespondAndClose], TOKEN.to_owned()).await;
    let permit = permit(server(fickle.address));
    let bold_bi = bold_bi(&permit);
    for number in 0..200 {
        tokio::time::sleep(Duration::from_micros(4500 + number % 10 * 100)).await;
        let outcome = bold_bi.exchange(&permit, SecretPosition::First).await;
        assert!(outcome.is_ok(), "{number}: {outcome:?}");
    }
}

#[tokio::test]
async fn keys_are_fetched_once_more_from_a_server_that_closes_an_idle_connection() {
    for (acts, good, connections) in [
        (&[Respond, Close, Respond][..], true, &[1, 1, 2][..]),
        (&[Respond, Reset, Respond], true, &[1, 1, 2]),
        (&[Respond, Close, Close, Respond], false, &[1, 1, 2]),
        (&[Respond, Begin, Respond], false, &[1, 1]),
    ] {
        let fickle = Fickle::new(acts, Provider::new().jwks()).await;
        let url = format!("http://{}/keys", fickle.address).parse().unwrap();
        let source = HttpKeySource::new(url, &Trust::default()).unwrap();
        assert!(source.fetch().await.is_ok());
        assert_eq!(source.fetch().await.is_ok(), good, "{acts:?}");
        assert_eq!(fickle.seen(), connections, "{acts:?}");
    }
}

#[tokio::test]
async fn a_response_counts_although_the_server_takes_no_more_of_the_request() {
    for (response, is_token) in [
        (format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{TOKEN}", TOKEN.len()), true),
        ("tcpwrapper: go away\r\n".to_owned(), false),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let permit = permit(server(listener.local_addr().unwrap()));
        tokio::spawn(async move {
            loop {
                // The server closes without reading, so the next request gets a reset.
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.write_all(response.as_bytes()).await;
            }
        });
        for _ in 0..20 {
            match bold_bi(&permit).exchange(&permit, SecretPosition::First).await {
                Ok(_) => assert!(is_token),
                Err(error) => {
                    let is_not_http = matches!(error.kind, ExchangeErrorKind::NotHttp(_));
                    assert!(!is_token && is_not_http, "{error}");
                }
            }
        }
    }
}

/// A server of another protocol, which speaks `first` or after it was spoken to.
async fn speaking(bytes: &'static [u8], first: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            if !first {
                let _ = stream.read(&mut [0; 4096]).await.unwrap();
            }
            let _ = stream.write_all(bytes).await;
            // This client waits for a response in its own protocol.
            tokio::spawn(async move { stream.read_to_end(&mut Vec::new()).await });
        }
    });
    address
}

#[tokio::test]
async fn a_server_that_does_not_speak_http_is_reported_as_such_and_its_bytes_are_not_repeated() {
    let spoken: [&[u8]; 9] = [
        b"SSH-2.0-OpenSSH_9.6 canary\r\n",
        b"220 canary ESMTP\r\n",
        b"\x4a\x00\x00\x00\x0a8.0.36-canary\x00",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"HTTP/9.9 200 canary\r\n\r\n",
        b"canary",
        // Faulty framing.
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a\nb\r\n{}\r\n0\r\n\r\n",
    ];
    for bytes in spoken {
        for first in [true, false] {
            let address = speaking(bytes, first).await;
            let permit = permit(server(address));
            let error =
                bold_bi(&permit).exchange(&permit, SecretPosition::First).await.unwrap_err();
            assert!(matches!(error.kind, ExchangeErrorKind::NotHttp(_)), "{first}: {error}");
            assert_eq!(error.kind.code(), "token_reply_unusable");
            let shown = format!("{error} {error:?} {}", boldgate::boldbi::hint(&error));
            assert!(shown.contains("answers, but not in HTTP"), "{shown}");
            assert!(shown.contains("check the port"), "{shown}");
            assert!(
                !shown.contains("canary")
                    && !shown.contains("connection to the token endpoint failed"),
                "{shown}"
            );

            let url = format!("http://{address}/keys").parse().unwrap();
            let told =
                HttpKeySource::new(url, &Trust::default()).unwrap().fetch().await.err().unwrap();
            assert!(told.contains("not in HTTP") && !told.contains("canary"), "{told}");
        }
    }
}
