//! Many requests at once for a tenant that has no token yet.

use std::time::Duration;

use boldgate::boldbi::UserSource;
use boldgate::boldbi::stand_in::{StandIn, StandInOptions, StandInSite, StandInUser};

use crate::support::client::Client;
use crate::support::edit::Edit;
use crate::support::gateway::{CANARY_SECRET, Gateway};
use crate::support::waiting::until;

async fn bold_bi(sites: &[&str]) -> StandIn {
    let site = |id: &&str| StandInSite {
        id: Some((*id).into()),
        embed_secret: CANARY_SECRET.into(),
        users: vec![StandInUser {
            email: "reports@acme.example".into(),
            password: None,
            source: UserSource::AzureAd,
        }],
    };
    let sites = sites.iter().map(site).collect();
    StandIn::start(StandInOptions { sites, ..StandInOptions::default() }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_requests_to_a_cold_tenant_make_one_exchange_although_the_first_client_aborts() {
    let bold_bi = bold_bi(&["site1"]).await;
    bold_bi.set_latency(Duration::from_millis(400), Duration::ZERO);
    let gateway = Gateway::start(&crate::support::gateway::anonymous(bold_bi.addr()));
    let request = b"GET /bi/api/site/site1/v5.0/echo HTTP/1.1\r\nHost: gw\r\n\r\n";

    let mut first = Client::connect(gateway.address()).await;
    first.write(request).await;
    until(|| bold_bi.token_requests() > 0).await;
    let mut others = tokio::task::JoinSet::new();
    for _ in 0..999 {
        let address = gateway.address();
        others.spawn(async move {
            let mut client = Client::connect(address).await;
            client.write(request).await;
            client.response().await
        });
    }
    drop(first);

    let mut served = 0;
    while let Some(response) = others.join_next().await {
        let response = response.unwrap();
        assert_eq!(response.status, 200, "{}", response.text());
        served += 1;
    }
    assert_eq!(served, 999);
    assert_eq!(bold_bi.token_requests(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cold_tenants_make_one_exchange_each_and_never_see_each_others_tokens() {
    let names: Vec<String> = (0..20).map(|i| format!("site{i}")).collect();
    let sites: Vec<&str> = names.iter().map(String::as_str).collect();
    let bold_bi = bold_bi(&sites).await;
    bold_bi.set_latency(Duration::from_millis(50), Duration::ZERO);
    let mut config = crate::support::gateway::anonymous(bold_bi.addr());
    let (head, tenant) = config.split_at(config.find("  acme:").unwrap());
    let all: String = sites
        .iter()
        .map(|site| tenant.edit("site1", site).edit("acme:", &format!("{site}:")))
        .fold(head.to_owned(), |all, one| all + &one);
    config = all;
    let gateway = Gateway::start(&config);

    let mut requests = tokio::task::JoinSet::new();
    for site in names.iter().cycle().take(400).cloned() {
        let address = gateway.address();
        requests.spawn(async move {
            let mut client = Client::connect(address).await;
            let path = format!("/bi/api/site/{site}/v5.0/echo");
            client.write(format!("GET {path} HTTP/1.1\r\nHost: gw\r\n\r\n").as_bytes()).await;
            (site, client.response().await)
        });
    }
    while let Some(answered) = requests.join_next().await {
        let (site, response) = answered.unwrap();
        let seen: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
        assert_eq!((response.status, seen["site"].as_str()), (200, Some(site.as_str())));
    }
    assert_eq!(bold_bi.token_requests(), 20);
}
