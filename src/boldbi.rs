//! Everything that is particular to Bold BI: where its API lives, how a credential is exchanged for
//! a token, what its replies mean, and what its routes do. Nothing below this module names Bold BI.

mod claims;
mod exchange;
mod fault;
mod grant;
pub mod reply;
mod routes;
pub mod stand_in;
mod urls;
mod user_source;

pub use claims::token_claims;
pub use exchange::{BoldBi, BoldBiError};
pub use fault::{ConnectionFault, hint};
pub use routes::classify;
pub use urls::{api_base, token_url};
pub use user_source::UserSource;

#[cfg(test)]
mod test_support {
    //! A server and a tenant for the unit tests of this module.

    use std::sync::Arc;
    use std::time::Duration;

    use crate::secret::Secret;
    use crate::tenant::{
        Credential, ExchangeBody, ExistingAuthorization, Grant, Server, Tenant, TenantName,
        Timeouts,
    };

    pub(super) fn server(tls: bool, host: &str, port: u16) -> Server {
        let second = Duration::from_secs(1);
        Server {
            name: "main".into(),
            tls,
            host: host.into(),
            port,
            base_path: "/bi".into(),
            addresses: Vec::new(),
            trust: crate::trust::Trust::default(),
            health_check: None,
            timeouts: Timeouts::all(second),
            max_connections: 8,
            max_exchanges: 16,
        }
    }

    pub(super) fn tenant_on(server: Server, site: Option<&str>) -> Tenant {
        Tenant {
            name: TenantName::parse("acme").unwrap(),
            index: 0,
            api_base: super::api_base(&server, site),
            server: Arc::new(server),
            site: site.map(Into::into),
            hosts: Vec::new(),
            credential: Credential {
                grant: Grant::EmbedSecret,
                username: Arc::from("user@example.com"),
                secret: Secret::new("test-embed-secret-for-vectors-00".into()),
                body: ExchangeBody::Form,
                version: 0,
            },
            existing_authorization: ExistingAuthorization::default(),
            max_token_lifetime: Duration::from_secs(7 * 24 * 60 * 60),
            origins: crate::cors::Origins::default(),
            max_concurrent_requests: None,
        }
    }
}
