//! Routes of masked mode in the spellings that Bold BI's router takes for the same: letters of any
//! case, and a slash at the end.

use std::time::Duration;

use super::masked::{DESIGN, MASKED, SAME, editor, reached, routes, send, with};
use super::*;
use crate::support::audit::audit_lines;
use crate::support::client::Client;
use crate::support::waiting::until;

/// The spellings of one route below `/masked/acme`.
fn spellings(path: &str) -> [String; 4] {
    let bare = path.trim_end_matches('/');
    let upper = format!("/V1.0/{}", bare.to_uppercase());
    [format!("/v1.0/{bare}"), format!("/v1.0/{bare}/"), upper.clone(), upper + "/"]
}

#[tokio::test]
async fn each_spelling_of_a_listed_route_has_the_class_of_that_route() {
    let (view, design) = (with(MASKED).await, with(DESIGN).await);
    let mut expected = Vec::new();
    for (class, method, path) in routes() {
        for spelling in spellings(path) {
            let target = format!("/masked/acme{spelling}");
            let reader = format!("{}{SAME}", view.jane());
            let response = send(&view, method, &target, &reader, "{}").await;
            let status = if class == "read" { 200 } else { 403 };
            assert_eq!(response.status, status, "{class} {target}: {}", response.text());
            let all = format!("{}{SAME}", editor(&view));
            let response = send(&view, method, &target, &all, "{}").await;
            let status = if class == "write" { 403 } else { 200 };
            assert_eq!(response.status, status, "{class} {target}: {}", response.text());
            let all = format!("{}{SAME}", editor(&design));
            let response = send(&design, method, &target, &all, "{}").await;
            assert_eq!(response.status, 200, "{class} {target}: {}", response.text());
            expected.push(format!("/bi/designer{spelling}"));
        }
    }
    // The recording is bounded; the last requests stand for all.
    let sent: Vec<_> = reached(&design).into_iter().map(|request| request.target).collect();
    assert!(!sent.is_empty() && expected.ends_with(&sent), "as the page spelled it: {sent:?}");
    assert!(reached(&view).iter().all(|one| !one.target.to_lowercase().contains("savetoserver")));
}

#[tokio::test]
async fn all_spellings_of_a_route_count_for_the_same_limit_and_the_same_session() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let audit = format!("audit: {{ to: \"{}\" }}\n", path.display());
    let embed = format!("{MASKED}    limits: {{ concurrent_requests: 1 }}\n");
    let setup = Setup::of(&embed, "", &audit).await;
    let lines = format!("{}{SAME}", setup.jane());
    let [one, two, three, four] =
        spellings("design/loadwidgetdata").map(|route| format!("/masked/acme{route}"));
    assert_eq!(send(&setup, "POST", &one, &lines, "{}").await.status, 200, "the control");
    // This one stays in flight.
    setup.stand_in.set_latency(Duration::ZERO, Duration::from_secs(600));
    let mut waiting = Client::connect(setup.gateway.address()).await;
    let head =
        format!("POST {two} HTTP/1.1\r\nHost: localhost\r\n{lines}Content-Length: 0\r\n\r\n");
    waiting.write(head.as_bytes()).await;
    until(|| reached(&setup).len() == 2).await;
    for route in [&one, &three, &four] {
        let response = send(&setup, "POST", route, &lines, "{}").await;
        assert_eq!((response.status, &*response.code()), (429, "rate_limited"), "{route}");
    }
    assert_eq!(reached(&setup).len(), 2, "refused requests reach nothing");
    drop(waiting);
    for line in audit_lines(&path, "refusal", 3).await {
        assert_eq!(line["boldgate.route_class"], "read", "{line}");
        assert_eq!(line["boldgate.subject"], "jane@acme.example", "{line}");
    }
    let session = &audit_lines(&path, "embed", 1).await[0];
    assert_eq!(session["boldgate.embed_endpoint"], "masked", "{session}");
}
