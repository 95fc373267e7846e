//! Another web server in place of Bold BI: the `url` is wrong, and nothing is down.

use super::*;
use crate::support::client::Client;
use crate::support::process::Process;
use crate::support::reloads::metric;
use crate::support::upstream::{RawResponse, Request, Upstream};

const BREAKER: &str = "boldgate_token_endpoint_breaker_open{server=\"main\"}";

/// Responds as Python's `http.server` does: it has no such file, and takes no POST.
fn file_server(request: &Request) -> RawResponse {
    let status = if request.line().starts_with("POST ") {
        "501 Unsupported method ('POST')"
    } else {
        "404 File not found"
    };
    let body = "<!DOCTYPE HTML><title>Error response</title>";
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: text/html;charset=utf-8");
    let text = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    RawResponse { bytes: text.into_bytes(), keep: true }
}

/// The gateway of a setup as a process of its own, with this URL of the server.
fn process(setup: &Setup, url: &str) -> (Process, Files) {
    let files = Files::new();
    files.write("boldgate.yaml", &setup.config.edit(&setup.stand_in.url(), url));
    (files.serve(), files)
}

async fn post(gateway: &Process, setup: &Setup, path: &str, body: &str) -> Response {
    let mut client = Client::connect(gateway.address()).await;
    let lines = format!("{}{JSON}Content-Length: {}\r\n", setup.jane(), body.len());
    let request = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n{body}");
    client.write(request.as_bytes()).await;
    client.response().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_server_for_files_is_a_wrong_url_and_no_outage() {
    let other = Upstream::with_handler_for_all(file_server).await;
    let page = json!({ "embedQuerString": query() }).to_string();
    for (embed, status) in [("      via: signed\n", "404"), ("      via: json\n", "501")] {
        let setup = Setup::with(embed, "").await;
        let (gateway, _files) = process(&setup, &format!("http://{}/bi", other.address));
        for _ in 0..6 {
            for (path, body) in [(AUTHORIZE, &*page), (TOKEN, "{}")] {
                let refused = post(&gateway, &setup, path, body).await;
                assert_eq!((refused.status, &*refused.code()), (502, "embed_refused"), "{embed}");
            }
        }
        assert_eq!(metric(gateway.ready().1, BREAKER).await, 0, "nothing is down");
        let is_it = |line: &Value| line["boldgate.refusal"] == "embed_refused";
        gateway.stderr(|_| gateway.log().iter().any(is_it));
        let line = gateway.log().into_iter().find(is_it).unwrap();
        let message = line["message"].as_str().unwrap();
        for part in [status, "a web server's page", "no embed endpoint of Bold BI is there"] {
            assert!(message.contains(part), "{part}: {line}");
        }
        assert!(line["hint"].as_str().unwrap().contains("server's `url`"), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bold_bi_that_is_down_is_an_outage_of_embed_calls() {
    let setup = Setup::with("", "").await;
    let (gateway, _files) = process(&setup, &setup.stand_in.url());
    setup.stand_in.fail_next_embed(StatusCode::SERVICE_UNAVAILABLE, 1000);
    let page = json!({ "embedQuerString": query() }).to_string();
    let mut codes = Vec::new();
    for _ in 0..20 {
        codes.push(post(&gateway, &setup, AUTHORIZE, &page).await.code());
    }
    assert_eq!(codes[0], "embed_refused");
    assert!(codes.iter().any(|code| code == "token_endpoint_unavailable"), "{codes:?}");
}

/// A page of HTML with the status 200, as of a portal.
fn portal(_: &Request) -> RawResponse {
    let body = "<!DOCTYPE html><title>Sign in</title>";
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html";
    let text = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    RawResponse { bytes: text.into_bytes(), keep: true }
}

fn redirect(_: &Request) -> RawResponse {
    let head = "HTTP/1.1 302 Found\r\nLocation: https://bi.example/bi\r\nContent-Length: 0";
    RawResponse { bytes: format!("{head}\r\n\r\n").into_bytes(), keep: true }
}

fn text(_: &Request) -> RawResponse {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2";
    RawResponse { bytes: format!("{head}\r\n\r\nok").into_bytes(), keep: true }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_or_a_page_in_place_of_an_embed_reply_hints_at_the_url() {
    let body = json!({ "embedQuerString": query() }).to_string();
    let others = [
        (Upstream::with_handler_for_all(portal).await, "by opening it in a browser"),
        (Upstream::with_handler_for_all(redirect).await, "the redirect leads to"),
        (Upstream::with_handler_for_all(text).await, "not from Bold BI's embed endpoint"),
    ];
    for (other, part) in others {
        let setup = Setup::new().await;
        let (gateway, _files) = process(&setup, &format!("http://{}/bi", other.address));
        let refused = post(&gateway, &setup, AUTHORIZE, &body).await;
        assert_eq!((refused.status, &*refused.code()), (502, "embed_refused"), "{part}");
        let is_it = |line: &Value| line["boldgate.refusal"] == "embed_refused";
        gateway.stderr(|_| gateway.log().iter().any(is_it));
        let line = gateway.log().into_iter().find(is_it).unwrap();
        let hint = line["hint"].as_str().unwrap();
        assert!(hint.contains("server's `url`") && hint.contains(part), "{line}");
        for wrong in ["14.1", "Bold BI's own logs", "token endpoint"] {
            assert!(!hint.contains(wrong), "{wrong}: {line}");
        }
    }
}
