//! Another server in place of Bold BI's token endpoint: the tenant is not one whose secret is
//! wrong, and a site that was renamed is not taken for it.

use boldgate::boldbi::stand_in::{StandIn, TokenReply};
use http::StatusCode;

use crate::support::edit::Edit;
use crate::support::files::Files;
use crate::support::process::Process;
use crate::support::reloads::{ACME, get, metric, two_sites};
use crate::support::stand_in::EMBED_SECRET;

const PAGE: &[u8] = b"<html><title>canary-page</title></html>";

async fn serving(tenants: &[&str], secrets: &str) -> (StandIn, Files, Process) {
    let (upstream, files) = (two_sites().await, Files::new());
    let config = files.config(&upstream, tenants, "");
    let one = format!("embed_secret: {{ file: \"{}\" }}", files.path("secret").display());
    let config = if secrets.is_empty() { config } else { config.edit(&one, secrets) };
    files.write("boldgate.yaml", &config);
    let gateway = files.serve();
    (upstream, files, gateway)
}

fn page(status: StatusCode) -> TokenReply {
    let headers = vec![("Content-Type".to_owned(), "text/html".to_owned())];
    TokenReply::Raw { status, headers, body: PAGE.to_vec() }
}

async fn exchanges(gateway: &Process, outcome: &str) -> u64 {
    let labels = format!("{{tenant=\"acme\",outcome=\"{outcome}\"}}");
    metric(gateway.ready().1, &format!("boldgate_token_exchanges_total{labels}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_with_404_is_a_missing_endpoint_and_no_refused_credential() {
    let more = Files::new();
    let place = |name: &str, secret: &str| {
        more.write(name, secret);
        format!("{{ file: \"{}\" }}", more.path(name).display())
    };
    let (one, other) = (place("one", EMBED_SECRET), place("other", "canary-another-secret"));
    let two = format!("embed_secrets: [{one}, {other}]");
    for secrets in ["", &*two] {
        let (upstream, _files, gateway) = serving(&["acme"], secrets).await;
        upstream.set_reply(page(StatusCode::NOT_FOUND));
        let refused = get(gateway.address(), ACME).await;
        assert_eq!((refused.status, &*refused.code()), (502, "token_endpoint_missing"));
        let detail = refused.text();
        assert!(
            detail.contains("Another server responds") && !detail.contains("canary"),
            "{detail}"
        );
        assert!(!detail.contains(&upstream.addr().port().to_string()), "no details: {detail}");
        assert_eq!(upstream.token_requests(), 1, "no other secret is tried");
        let log = gateway.stderr(|text| text.contains("token_endpoint_missing"));
        let line = log.lines().find(|line| line.contains("token_endpoint_missing")).unwrap();
        for part in ["/bi/api/site/site1/token", "404", "compare `site`", "\"acme\""] {
            assert!(line.contains(part), "{part}: {line}");
        }
        assert_eq!(
            (exchanges(&gateway, "refused").await, exchanges(&gateway, "unusable").await),
            (0, 1)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_server_that_takes_no_post_is_a_missing_endpoint_and_no_outage() {
    let allow = vec![("Allow".to_owned(), "GET, HEAD".to_owned())];
    let of_files = |status| TokenReply::Raw { status, headers: allow.clone(), body: Vec::new() };
    for (reply, status) in [
        (page(StatusCode::NOT_IMPLEMENTED), "501"),
        (page(StatusCode::METHOD_NOT_ALLOWED), "405"),
        (of_files(StatusCode::METHOD_NOT_ALLOWED), "405"),
    ] {
        let (upstream, _files, gateway) = serving(&["acme"], "").await;
        upstream.set_reply(reply);
        for _ in 0..6 {
            let refused = get(gateway.address(), ACME).await;
            assert_eq!((refused.status, &*refused.code()), (502, "token_endpoint_missing"));
        }
        assert_eq!(upstream.token_requests(), 1, "{status} is no outage: it is left alone");
        let log = gateway.stderr(|text| text.contains("token_endpoint_missing"));
        let line = log.lines().find(|line| line.contains("token_endpoint_missing")).unwrap();
        for part in [status, "credential was not judged", "server's `url`"] {
            assert!(line.contains(part), "{part}: {line}");
        }
        assert_eq!(exchanges(&gateway, "refused").await, 0, "{status}");
    }
    let (upstream, _files, gateway) = serving(&["acme"], "").await;
    upstream.fail_next_token(StatusCode::SERVICE_UNAVAILABLE, 1000);
    let control = get(gateway.address(), ACME).await;
    assert_eq!((control.status, &*control.code()), (503, "token_endpoint_unavailable"));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_with_other_statuses_are_replies_that_cannot_be_used() {
    for status in [StatusCode::OK, StatusCode::BAD_REQUEST, StatusCode::UNAUTHORIZED] {
        let (upstream, _files, gateway) = serving(&["acme"], "").await;
        upstream.set_reply(page(status));
        let refused = get(gateway.address(), ACME).await;
        assert_eq!((refused.status, &*refused.code()), (502, "token_reply_unusable"), "{status}");
        assert_eq!(exchanges(&gateway, "refused").await, 0, "{status}");
    }
    let (upstream, _files, gateway) = serving(&["acme"], "").await;
    upstream.set_embed_secret(Some("site1"), "canary-another-secret");
    let control = get(gateway.address(), ACME).await;
    assert_eq!((control.status, &*control.code()), (502, "credential_refused"));
    assert_eq!(exchanges(&gateway, "refused").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_for_one_site_is_an_unknown_site_where_the_server_serves_another() {
    for serves_another in [true, false] {
        let (_upstream, files, first) = serving(&["acme", "bolt"], "").await;
        drop(first);
        let config = std::fs::read_to_string(files.path("boldgate.yaml")).unwrap();
        files.write("boldgate.yaml", &config.edit("site: site2", "site: renamed"));
        let gateway = files.serve();
        if serves_another {
            assert_eq!(get(gateway.address(), ACME).await.status, 200);
        }
        let refused = get(gateway.address(), "/bi/api/site/renamed/v5.0/items").await;
        let code = if serves_another { "credential_refused" } else { "token_endpoint_missing" };
        assert_eq!((refused.status, &*refused.code()), (502, code));
        let log = gateway.stderr(|text| text.contains(code));
        let line = log.lines().find(|line| line.contains(code)).unwrap();
        assert!(line.contains("site"), "{line}");
        assert_eq!(line.contains("user_or_site_unknown"), serves_another, "{line}");
    }
}
