//! Several gateways in this process with one token store.

use std::fmt::Write;
use std::time::Duration;

use boldgate::boldbi::stand_in::{StandIn, StandInOptions, StandInSite};
use boldgate::telemetry::StoreOutcome;
use tokio::task::JoinSet;

use super::client::Response;
use super::gateway::Gateway;
use super::stand_in::site;
use super::waiting::until;

/// The sealing key of most tests.
pub const SEALING_KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
/// Another one.
pub const NEXT_KEY: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";

/// A stand-in with sites `site0` and so on, all of whose secret is that of a [`Gateway`].
pub async fn bold_bi(tenants: usize) -> StandIn {
    let sites = (0..tenants).map(|index| StandInSite {
        embed_secret: super::gateway::CANARY_SECRET.into(),
        ..site(
            Some(&format!("site{index}")),
            &[(&user(index), boldgate::boldbi::UserSource::AzureAd)],
        )
    });
    let sites = sites.collect();
    StandIn::start(StandInOptions { sites, record: true, ..StandInOptions::default() })
        .await
        .unwrap()
}

/// The user of the tenant of this number; it must show nowhere in the store.
pub fn user(index: usize) -> String {
    format!("person-{index}@acme.example")
}

/// The folder of the sealing keys of a test.
pub struct Keys(tempfile::TempDir);

impl Keys {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("key"), SEALING_KEY).unwrap();
        std::fs::write(folder.path().join("next"), NEXT_KEY).unwrap();
        Self(folder)
    }

    /// The list of these keys, each `key` or `next`.
    pub fn list(&self, names: &[&str]) -> String {
        let file = |name: &&str| format!("{{ file: \"{}\" }}", self.0.path().join(name).display());
        format!("[{}]", names.iter().map(file).collect::<Vec<_>>().join(", "))
    }

    /// The section `token_store` with this store and the first key.
    pub fn section(&self, redis: &str) -> String {
        self.section_with(redis, &["key"], PATIENT)
    }

    /// The same with these keys and this timeout.
    pub fn section_with(&self, redis: &str, keys: &[&str], timeout: Duration) -> String {
        format!(
            "token_store:\n  redis: {{ {redis} }}\n  sealing_keys: {}\n  timeout: {}ms\n",
            self.list(keys),
            timeout.as_millis()
        )
    }
}

/// A configuration with so many tenants of the stand-in.
pub fn config(stand_in: &StandIn, tenants: usize, store: &str) -> String {
    let mut text = format!(
        "listeners:\n  - {{ address: \"127.0.0.1:0\", callers: anonymous }}\n\
         admin: {{ address: \"127.0.0.1:0\" }}\n\
         servers:\n  main: {{ url: \"http://{}/bi\", max_exchanges: 64 }}\n{store}tenants:\n",
        stand_in.addr()
    );
    for index in 0..tenants {
        let user = user(index);
        write!(
            text,
            "  firm-{index}:\n    server: main\n    site: site{index}\n    credential:\n      \
             grant: embed_secret\n      username: {user}\n      \
             embed_secret: {{ file: SECRET_FILE }}\n      user_source: azure_ad\n"
        )
        .unwrap();
    }
    text
}

/// The path of the tenant of this number.
pub fn path(tenant: usize) -> String {
    format!("/bi/api/site/site{tenant}/v5.0/items")
}

/// So many gateways, each of which uses the store.
pub async fn fleet(count: usize, config: &str) -> Vec<Gateway> {
    let gateways: Vec<_> = (0..count).map(|_| Gateway::start(config)).collect();
    for gateway in &gateways {
        uses_store(gateway).await;
    }
    gateways
}

/// Waits until the gateway uses the store.
pub async fn uses_store(gateway: &Gateway) {
    until(|| gateway.running.gateway().is_store_up() == Some(true)).await;
}

/// Asks every gateway for every tenant so many times, all at once. Returns the statuses.
pub async fn storm(gateways: &[Gateway], tenants: usize, times: usize) -> Vec<u16> {
    let mut requests = JoinSet::new();
    for gateway in gateways {
        let address = gateway.address();
        for tenant in 0..tenants {
            for _ in 0..times {
                requests.spawn(async move { get(address, tenant).await.status });
            }
        }
    }
    requests.join_all().await
}

/// A GET for the tenant of this number.
pub async fn get(address: std::net::SocketAddr, tenant: usize) -> Response {
    let mut client = super::client::Client::connect(address).await;
    let path = path(tenant);
    client
        .write(
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                .as_bytes(),
        )
        .await;
    client.response().await
}

/// How many requests of these gateways to the store ended so.
pub fn counted(gateways: &[Gateway], outcome: StoreOutcome) -> u64 {
    gateways.iter().map(|gateway| gateway.telemetry.token_store.counted(outcome)).sum()
}

/// A timeout that a slow machine does not reach.
pub const PATIENT: Duration = Duration::from_secs(5);
