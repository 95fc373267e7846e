//! The series of tenants: with thousands of them, only those with traffic are on the page.

use std::sync::Arc;

use boldgate::telemetry::{PageFormat, RequestOutcome, Telemetry};

use super::*;
use crate::support::admin::ask_with;

async fn two_tenants(section: &str) -> (StandIn, Gateway) {
    let user = [("reports@acme.example", UserSource::AzureAd)];
    let mut sites = vec![site(Some("acme"), &user), site(Some("bolt"), &user)];
    for site in &mut sites {
        site.embed_secret = CANARY_SECRET.into();
    }
    let bold_bi = stand_in(sites).await;
    let (folder, tls) = (tempfile::tempdir().unwrap(), SelfSigned::new("localhost"));
    let config = config(&bold_bi, dead_address(), &tls, folder.path());
    let gateway = Gateway::start(&format!("{section}{config}"));
    (bold_bi, gateway)
}

fn of_tenant(page: &str, tenant: &str) -> Vec<String> {
    let label = format!("{{tenant=\"{tenant}\"");
    page.lines().filter(|line| line.contains(&label)).map(str::to_owned).collect()
}

#[tokio::test]
async fn the_series_of_a_tenant_appear_with_its_first_traffic() {
    let (_bold_bi, gateway) = two_tenants("").await;
    let page = gateway.telemetry.render();
    assert_eq!([of_tenant(&page, "acme"), of_tenant(&page, "bolt")], [[""; 0]; 2]);
    assert_eq!(of_tenant(&page, "_none").len(), 9, "a control");
    assert_eq!(gateway.get(ACME).await.status, 200);
    let page = gateway.telemetry.render();
    let acme = of_tenant(&page, "acme");
    for (line, why) in [
        ("boldgate_http_requests_total{tenant=\"acme\",outcome=\"served\"} 1", "it was served"),
        ("boldgate_http_requests_total{tenant=\"acme\",outcome=\"failed\"} 0", "alerts look at it"),
        ("boldgate_token_exchanges_total{tenant=\"acme\",outcome=\"refused\"} 0", "the same"),
        ("boldgate_token_cache_requests_total{tenant=\"acme\",result=\"miss\"} 1", "it was cold"),
    ] {
        assert!(acme.iter().any(|found| found == line), "{why}: {acme:#?}");
    }
    assert_eq!(acme.len(), 14, "{acme:#?}");
    assert_eq!(of_tenant(&page, "bolt"), [""; 0]);
}

#[tokio::test]
async fn tenants_without_series_are_counted_together_and_a_removed_one_still_counts() {
    let (_bold_bi, gateway) = two_tenants("metrics: { tenants: none }\n").await;
    for path in [ACME, BOLT] {
        assert_eq!(gateway.get(path).await.status, 200);
    }
    gateway.telemetry.tenant("acme").set_secret_unreadable(true);
    gateway.telemetry.tenant("bolt").set_secret_unreadable(true);
    let page = gateway.telemetry.render();
    assert_eq!([of_tenant(&page, "acme"), of_tenant(&page, "bolt")], [[""; 0]; 2]);
    let value = |name: &str, kind: &str| {
        Metrics::parse(&gateway.telemetry.render()).value(name, "_all", kind)
    };
    assert_eq!(value("http_requests_total", "served"), Some(2));
    assert_eq!(value("token_exchanges_total", "success"), Some(2));
    assert_eq!(value("tenant_secret_unreadable", ""), Some(2), "as many tenants have it");
    assert_eq!(value("token_expiry_timestamp_seconds", ""), None);
    gateway.telemetry.retain(|name| name == "bolt", &["main"].into());
    assert_eq!(value("http_requests_total", "served"), Some(2), "a counter does not fall");
    assert_eq!(value("tenant_secret_unreadable", ""), Some(1));
}

#[tokio::test]
async fn the_first_tenants_with_traffic_have_a_histogram_if_the_configuration_says_so() {
    let (_bold_bi, gateway) = two_tenants("metrics: { tenant_durations: 1 }\n").await;
    for path in [BOLT, ACME, BOLT] {
        assert_eq!(gateway.get(path).await.status, 200);
    }
    let page = gateway.telemetry.render();
    let durations = |tenant: &str| {
        let all = page.lines().filter(|line| line.contains("boldgate_tenant_request_duration"));
        all.filter(|line| line.contains(tenant)).count()
    };
    assert_eq!((durations("\"bolt\""), durations("\"acme\"")), (20, 0), "{page}");
    assert!(page.contains("boldgate_tenant_request_duration_seconds_count{tenant=\"bolt\"} 2\n"));
}

/// The bounds of `make hundred-thousand`, with fewer tenants.
#[tokio::test]
async fn a_thousand_used_tenants_of_thousands_are_two_megabytes_of_a_page_made_in_parts() {
    let telemetry = Arc::new(Telemetry::default());
    let names: Vec<_> = (0..5_000).map(|number| format!("tenant-{number:06}")).collect();
    for name in &names {
        telemetry.register_tenant(name.as_str());
    }
    for name in &names[..1_000] {
        let tenant = telemetry.tenant(name);
        tenant.request(RequestOutcome::Served, Duration::from_millis(1));
        tenant.token_found(false);
        tenant.exchange_succeeded(Duration::ZERO, Duration::from_secs(60));
    }
    let chunks: Vec<_> = telemetry.page(PageFormat::Text).collect();
    let largest = chunks.iter().map(String::len).max().unwrap();
    let page = chunks.concat();
    assert!(page.len() < 2_000_000 && page.len() > 500_000, "{}", page.len());
    assert!(chunks.len() > 10 && largest < 100_000, "{} {largest}", chunks.len());
    assert_eq!(of_tenant(&page, "tenant-000999").len(), 14);
    assert_eq!(of_tenant(&page, "tenant-001000"), [""; 0]);
}

#[tokio::test]
async fn the_page_in_chunks_is_whole_plain_and_compressed() {
    let (_bold_bi, gateway) = two_tenants("").await;
    for number in 0..3_000 {
        let tenant = gateway.telemetry.register_tenant(format!("tenant-{number}"));
        tenant.request(RequestOutcome::Served, Duration::from_millis(1));
    }
    let admin = gateway.running.admin_address();
    let page = ask_with(admin, "GET", "/metrics", "Accept: application/openmetrics-text\r\n").await;
    let text = page.text();
    assert!(text.len() > 2_000_000 && text.ends_with("# EOF\n"), "{}", text.len());
    assert_eq!(of_tenant(&text, "tenant-2999").len(), 13);
    let mut client = Client::connect(admin).await;
    client.write(b"HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(client.response_to_head().await.status, 200);
}
