//! No span has a secret, a name of a user, a path, a query or a header.

use super::get;
use crate::support::collector::{SpanCollector, names, traced};
use crate::support::edit::Edit;
use crate::support::gateway::{CANARY_SECRET, Gateway, PATH, anonymous};
use crate::support::upstream::{CANARY_TOKEN, Upstream};

#[tokio::test]
async fn no_byte_of_an_export_is_from_a_path_a_query_a_header_or_a_user() {
    let (upstream, collector) = (Upstream::echo().await, SpanCollector::start().await);
    let gateway = Gateway::start(&traced(&anonymous(upstream.address), collector.address()));
    let path = format!("{PATH}/canary-item?canary-query=1");
    let lines = "User-Agent: canary-agent\r\nX-Request-Id: canary-id\r\nCookie: a=canary-cookie\r\n\
                 X-Canary-Header: canary-value\r\n";
    let request = get(lines).edit(PATH, &path);
    let requests = [
        request.clone(),
        request.edit("\r\n\r\n", "\r\nAuthorization: Bearer canary-own-token\r\n\r\n"),
        request.edit("site1", "canary-site"),
        request.edit("GET ", "CANARYMETHOD "),
        request.edit("HTTP/1.1", "canary/1.1"),
        request.edit("localhost", "canary-host.example"),
    ];
    let mut statuses = Vec::new();
    for request in requests {
        statuses.push(gateway.send(request).await.status);
    }
    gateway.stop().await;
    assert_eq!(statuses[..2], [200, 200]);
    assert!(statuses[2..].iter().all(|&status| (400..500).contains(&status)), "{statuses:?}");
    let traces = collector.traces();
    assert_eq!(traces.len(), statuses.len());
    assert_eq!(names(&traces[0]).len(), 4, "the control: there are spans to search");
    for export in collector.requests() {
        let bytes = String::from_utf8_lossy(&export.body).to_lowercase();
        assert!(bytes.contains("acme"), "the control: names of the configuration are found");
        let forbidden = [
            "canary",
            CANARY_SECRET,
            CANARY_TOKEN,
            "reports@",
            "localhost",
            "items",
            "/bi",
            "site1",
        ];
        for text in forbidden {
            assert!(!bytes.contains(&text.to_lowercase()), "{text} is in {bytes}");
        }
        assert_eq!(export.header("traceparent"), [""; 0], "an export is no part of a trace");
    }
}
