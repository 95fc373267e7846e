//! Nothing of one client or one response reaches another: on a connection to the server that
//! others use next, or in what the client is shown.

use crate::support::client::Client;
use crate::support::edit::Edit;
use crate::support::gateway::Gateway;
use crate::support::two_callers::{GOOD, Setup, config, get, get_with};
use crate::support::upstream::{CANARY_TOKEN, RawResponse, Request, Upstream, ok, status};

/// A setup in which clients may bring their own `Authorization`.
async fn passing_through(
    responses: impl Fn(&Request) -> RawResponse + Send + Sync + 'static,
) -> Setup {
    let upstream = Upstream::with_handler(responses).await;
    let tenant = "    existing_authorization: pass_through\n";
    let gateway = Gateway::start(&config(upstream.address, tenant, ""));
    Setup { upstream, gateway }
}

fn own(credentials: &str) -> String {
    get_with(GOOD, &format!("Authorization: {credentials}\r\n"))
}

/// RFC 4559, section 6: NTLM and Negotiate sign a connection in, and ours are everybody's.
#[tokio::test]
async fn credentials_that_sign_a_connection_in_are_refused() {
    let setup = passing_through(|_| ok("fine")).await;
    for credentials in [
        "NTLM TlRMTVNTUAADAAAA",
        "ntlm TlRMTVNTUAADAAAA",
        "Negotiate YIIabc==",
        "NEGOTIATE YIIabc==",
        "Kerberos YIIabc==",
    ] {
        let refusal = setup.assert_refused(own(credentials), &[403]).await;
        assert_eq!(refusal.code(), "authorization_refused", "{credentials}");
        assert!(refusal.text().contains("NTLM"), "{}", refusal.text());
    }
    assert_eq!(setup.gateway.send(own("Bearer theirs")).await.status, 200);
    let seen = setup.upstream.seen.take();
    assert_eq!(seen[0].header("authorization"), ["Bearer theirs"], "others go on");
    setup.assert_serves().await;
}

/// A connection on which the server offers such a scheme, or says that it has signed it in, ends
/// with its request.
#[tokio::test]
async fn a_connection_that_a_server_may_sign_in_is_not_used_again() {
    for line in [
        "WWW-Authenticate: NTLM",
        "WWW-Authenticate: Bearer realm=\"bi\", Negotiate",
        "www-authenticate: negotiate YIIabc==",
        "Persistent-Auth: true",
    ] {
        let setup = passing_through(move |request| {
            let bound = request.path().ends_with("/bound");
            let line = if bound { format!("{line}\r\n") } else { String::new() };
            RawResponse::from(&*format!("HTTP/1.1 200 OK\r\n{line}Content-Length: 0\r\n\r\n"))
        })
        .await;
        setup.assert_serves().await;
        let before = setup.reached().0;
        setup.assert_serves().await;
        assert_eq!(setup.reached().0, before, "others are");
        assert_eq!(setup.gateway.send(get(&format!("{GOOD}/bound"))).await.status, 200);
        setup.assert_serves().await;
        assert_eq!(setup.reached().0, before + 1, "{line}");
    }
}

/// Nor is one that carried credentials of a client's own in a scheme that nobody knows.
#[tokio::test]
async fn a_connection_with_credentials_of_an_unknown_scheme_is_not_used_again() {
    let setup = passing_through(|_| ok("fine")).await;
    setup.assert_serves().await;
    let before = setup.reached().0;
    assert_eq!(setup.gateway.send(own("Bearer theirs")).await.status, 200);
    setup.assert_serves().await;
    assert_eq!(setup.reached().0, before, "the usual ones are for their request alone");
    assert_eq!(setup.gateway.send(own("Custom theirs")).await.status, 200);
    setup.assert_serves().await;
    assert_eq!(setup.reached().0, before + 1);
}

/// A page for developers shows the request that failed, our token included.
#[tokio::test]
async fn a_token_that_the_server_shows_is_hidden_from_the_client() {
    for code in [200, 400, 401, 404, 500, 503] {
        let setup = passing_through(move |request| {
            let shown = request.header("authorization").join(",");
            let mut response = status(code, &format!("<pre>{shown}</pre> and {shown}"));
            let head = format!("HTTP/1.1 {code} X\r\nX-Echo: {shown}\r\nX-Other: kept\r\n");
            let text = String::from_utf8(response.bytes).unwrap();
            response.bytes = text.edit(&format!("HTTP/1.1 {code} Status\r\n"), &head).into();
            response
        })
        .await;
        let response = setup.gateway.send(get(GOOD)).await;
        assert_eq!(response.status, code);
        assert!(!response.head.contains(CANARY_TOKEN), "{}", response.head);
        assert_eq!(response.header("x-other"), ["kept"]);
        let shown = response.text();
        if code >= 400 {
            assert!(!shown.contains(CANARY_TOKEN), "{shown}");
            assert!(
                shown.starts_with("<pre>Bearer ****") && shown.contains("</pre> and Bearer ****")
            );
        } else {
            assert!(shown.contains(CANARY_TOKEN), "data is not looked through");
        }
        let length = response.header("content-length")[0].parse::<usize>().unwrap();
        assert_eq!(response.body.len(), length, "as many bytes");
        // The client's own bytes are no secret of the gateway.
        let own = setup.gateway.send(own("Bearer theirs")).await;
        assert!(own.text().contains("Bearer theirs"), "{}", own.text());
    }
}

/// The same across the borders of chunks.
#[tokio::test]
async fn a_token_is_hidden_across_pieces() {
    let chunked = |request: &Request| {
        let body = format!("see {} here", request.header("authorization").join(","));
        let chunks = body
            .bytes()
            .fold(String::new(), |all, byte| all + &format!("1\r\n{}\r\n", char::from(byte)));
        let head = "HTTP/1.1 500 X\r\nTransfer-Encoding: chunked\r\n\r\n";
        RawResponse { bytes: format!("{head}{chunks}0\r\n\r\n").into(), keep: true }
    };
    let setup = passing_through(chunked).await;
    let response = setup.gateway.send(get(GOOD)).await;
    assert_eq!(response.status, 500);
    let shown = response.text();
    assert!(shown.starts_with("see Bearer ****") && shown.ends_with(" here"), "{shown}");
    assert!(!shown.contains(CANARY_TOKEN), "{shown}");
}

/// RFC 9112, section 6.3: equal lengths are one. Two lines of them are an attack to some clients.
#[tokio::test]
async fn a_response_has_one_length_and_it_is_the_one_that_was_used() {
    for (lines, good) in [
        ("Content-Length: 2\r\n", true),
        ("Content-Length: 2\r\nContent-Length: 2\r\n", true),
        ("Content-Length: 2, 2\r\n", true),
        ("Content-Length: 02\r\nContent-Length: 2\r\n", true),
        ("Content-Length: 2\r\nContent-Length: 3\r\n", false),
        ("Content-Length: 2, 3\r\n", false),
        ("Content-Length: -2\r\n", false),
    ] {
        let setup = passing_through(move |request| {
            let body = if request.line().starts_with("HEAD") { "" } else { "{}" };
            RawResponse {
                bytes: format!("HTTP/1.1 200 OK\r\n{lines}\r\n{body}").into(),
                keep: false,
            }
        })
        .await;
        for method in ["GET", "HEAD"] {
            let request = get(GOOD).edit("GET", method);
            let mut client = Client::connect(setup.address()).await;
            client.write(request.as_bytes()).await;
            let response = client.try_response(method == "HEAD").await.expect("a response");
            if good {
                assert_eq!(response.status, 200, "{method} {lines:?}");
                assert_eq!(response.header("content-length"), ["2"], "{method} {lines:?}");
            } else {
                assert_eq!(response.status, 502, "{method} {lines:?}");
            }
        }
    }
}
