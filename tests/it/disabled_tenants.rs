//! A tenant is disabled by the configuration, or by an operator until the next restart.

use std::sync::Arc;

use boldgate::boldbi::BoldBi;
use boldgate::boldbi::stand_in::StandIn;
use boldgate::config::Settings;
use boldgate::tenant::SwitchError;

use crate::support::edit::Edit;
use crate::support::files::Files;
use crate::support::gateway::Gateway;
use crate::support::reloads::{ACME, BOLT, two_sites};

async fn start(edit: impl FnOnce(&str) -> String) -> (StandIn, Files, Gateway) {
    let upstream = two_sites().await;
    let files = Files::new();
    let gateway = Gateway::start(&edit(&files.config(&upstream, &["acme", "bolt"], "")));
    (upstream, files, gateway)
}

fn reload(gateway: &mut Gateway, config: &str) {
    let settings = Settings::parse(config, "test.yaml").unwrap();
    let exchange = Arc::new(BoldBi::new(settings.servers.iter()).unwrap());
    gateway.running.reload(settings, exchange).unwrap();
}

#[tokio::test]
async fn a_tenant_that_is_disabled_in_the_configuration_reaches_nothing_and_others_are_served() {
    let disable = |config: &str| config.edit("site: site1\n", "site: site1\n    disabled: true\n");
    let (upstream, files, mut gateway) = start(disable).await;
    let refused = gateway.get(ACME).await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "tenant_disabled"));
    let own =
        format!("GET {ACME} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer own\r\n\r\n");
    assert_eq!(gateway.send(own).await.code(), "tenant_disabled");
    assert_eq!((upstream.token_requests(), upstream.api_requests()), (0, 0));
    assert_eq!(gateway.get(BOLT).await.status, 200);
    let lines = gateway.access_lines(3).await;
    assert_eq!(lines[0]["boldgate.outcome"], "refused", "it is no failure: {}", lines[0]);
    assert_eq!(lines[0]["boldgate.tenant"], "acme");
    let switched = gateway.running.gateway().set_enabled("acme", true);
    assert_eq!(switched, Err(SwitchError::Configured));
    assert_eq!(gateway.get(ACME).await.status, 503);
    reload(&mut gateway, &files.config(&upstream, &["acme", "bolt"], ""));
    assert_eq!(gateway.get(ACME).await.status, 200);
}

#[tokio::test]
async fn a_tenant_that_an_operator_disables_stays_so_through_reloads_until_it_is_enabled() {
    let (upstream, files, mut gateway) = start(str::to_owned).await;
    assert_eq!(gateway.get(ACME).await.status, 200);
    let switch = |gateway: &Gateway, tenant: &str, enabled: bool| {
        gateway.running.gateway().set_enabled(tenant, enabled)
    };
    assert_eq!(switch(&gateway, "acme", false), Ok(true));
    assert_eq!(switch(&gateway, "nobody", false), Err(SwitchError::Unknown));
    let reached = upstream.api_requests();
    assert_eq!(gateway.get(ACME).await.code(), "tenant_disabled");
    // The tenant moves, leaves and returns.
    for tenants in [&["bolt", "acme"][..], &["bolt"], &["acme", "bolt"]] {
        reload(&mut gateway, &files.config(&upstream, tenants, ""));
        let code = if tenants.contains(&"acme") { "tenant_disabled" } else { "tenant_unknown" };
        assert_eq!(gateway.get(ACME).await.code(), code, "{tenants:?}");
    }
    assert_eq!(upstream.api_requests(), reached);
    assert_eq!(gateway.get(BOLT).await.status, 200);
    assert_eq!(switch(&gateway, "acme", true), Ok(true));
    assert_eq!(gateway.get(ACME).await.status, 200);
}
