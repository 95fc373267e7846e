//! Helpers: a tenant of a server at some address, and a permit for it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use boldgate::boldbi::{self, BoldBi};
use boldgate::policy::{Permit, Policy};
use boldgate::secret::Secret;
use boldgate::telemetry::Telemetry;
use boldgate::tenant::{
    Credential, ExchangeBody, ExistingAuthorization, Grant, Server, Tenant, TenantName, Tenants,
    Timeouts,
};
use boldgate::token::{TokenExchange, TokenSource};
use boldgate::trust::{Trust, certificates};

pub const EXCHANGE_DEADLINE: Duration = Duration::from_millis(500);

pub fn server(address: SocketAddr) -> Server {
    Server {
        name: format!("server-{address}"),
        tls: false,
        host: address.ip().to_string(),
        port: address.port(),
        base_path: "/bi".into(),
        addresses: Vec::new(),
        proxy: None,
        trust: Trust::default(),
        headers: http::HeaderMap::new(),
        health_check: None,
        timeouts: Timeouts { exchange: EXCHANGE_DEADLINE, ..Timeouts::all(Duration::from_secs(5)) },
        max_connections: 16,
        max_exchanges: 16,
    }
}

pub fn tls_server(address: SocketAddr, host: &str, ca_file: PathBuf) -> Server {
    let mut server = server(address);
    let listed = certificates(&std::fs::read(ca_file).unwrap(), &[]).unwrap();
    (server.tls, server.host) = (true, host.into());
    server.trust = Trust::in_cas(&listed);
    server
}

/// The stand-in's own embed secret.
pub fn embed_secret() -> Credential {
    Credential {
        grant: Grant::EmbedSecret,
        username: Arc::from("reports@example.com"),
        secret: Some(Secret::new("stand-in-embed-secret".into())),
        source: None,
        extra: None,
        hold: std::time::Duration::ZERO,
        body: ExchangeBody::Form,
        version: 0,
        identity: 0,
    }
}

/// The stand-in's local user.
pub fn password() -> Credential {
    Credential {
        grant: Grant::Password,
        username: Arc::from("svc@example.com"),
        secret: Some(Secret::new("stand-in-password".into())),
        ..embed_secret()
    }
}

/// One tenant for each credential, named `tenant-0` and so on, on sites `site1` and so on.
pub fn permits(server: Server, credentials: Vec<Credential>) -> Vec<Permit> {
    let server = Arc::new(server);
    let tenant = |(index, credential): (usize, Credential)| {
        let site = format!("site{}", index + 1);
        Tenant {
            name: TenantName::parse(&format!("tenant-{index}")).unwrap(),
            index,
            server: Arc::clone(&server),
            api_base: boldbi::api_base(&server, Some(&site)).into(),
            hosts: [].into(),
            credential,
            existing_authorization: ExistingAuthorization::default(),
            max_token_lifetime: Duration::from_secs(7 * 24 * 60 * 60),
            origins: boldgate::cors::Origins::default(),
            max_concurrent_requests: None,
            embed: None,
            disabled: false,
        }
    };
    let tenants = Tenants::new(credentials.into_iter().enumerate().map(tenant)).unwrap();
    let policy = Policy::new(&tenants, boldbi::ROUTES, HashMap::new(), None);
    tenants.iter().map(|tenant| policy.operator_permit(tenant).clone()).collect()
}

pub fn permit(server: Server) -> Permit {
    permits(server, vec![embed_secret()]).remove(0)
}

/// A client for the server that the permit is for.
pub fn bold_bi(permit: &Permit) -> BoldBi {
    BoldBi::new([&permit.tenant().server].into_iter()).unwrap()
}

pub fn source(exchange: impl TokenExchange) -> TokenSource {
    TokenSource::new(Arc::new(exchange), 10_000, Arc::new(Telemetry::default()))
}
