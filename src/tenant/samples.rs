//! A server and a tenant for unit tests, which change the fields that they are about.

use super::*;
use crate::secret::Secret;

pub(crate) fn server() -> Server {
    Server {
        name: "main".into(),
        tls: false,
        host: "localhost".into(),
        port: 80,
        base_path: "/bi".into(),
        addresses: Vec::new(),
        proxy: None,
        trust: crate::trust::Trust::default(),
        headers: http::HeaderMap::new(),
        health_check: None,
        timeouts: Timeouts::all(Duration::from_secs(1)),
        max_connections: 8,
        max_exchanges: 16,
    }
}

/// A tenant whose site has its name.
pub(crate) fn tenant(index: usize, name: &str, server: Arc<Server>) -> Tenant {
    Tenant {
        name: TenantName::parse(name).unwrap(),
        index,
        server,
        api_base: format!("/bi/api/site/{name}").into(),
        hosts: [].into(),
        credential: credential(),
        existing_authorization: ExistingAuthorization::default(),
        max_token_lifetime: Duration::from_secs(7 * 24 * 60 * 60),
        origins: Origins::default(),
        max_concurrent_requests: None,
        embed: None,
        disabled: false,
    }
}

pub(crate) fn credential() -> Credential {
    Credential {
        grant: Grant::EmbedSecret,
        username: Arc::from("user@example.com"),
        secret: Some(Secret::new("secret".into())),
        source: None,
        extra: None,
        hold: std::time::Duration::ZERO,
        body: ExchangeBody::Form,
        version: 0,
        identity: 0,
    }
}
