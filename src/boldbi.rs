//! Everything that is particular to Bold BI: where its API lives, how a credential is exchanged for
//! a token, what its replies mean, and what its routes do. Nothing below this module names Bold BI.

mod claims;
mod designer;
pub mod embed;
mod embed_faults;
mod exchange;
mod fault;
mod grant;
mod in_rotation;
mod personal_token;
mod probe;
mod redirect;
pub mod reply;
pub mod rotation;
mod routes;
pub mod stand_in;
mod urls;
mod user_source;

pub use claims::token_claims;
pub use designer::{CALLER, caller_url, designer_path, masked_headers};
pub use exchange::{BoldBi, BoldBiError, Exchanged, InTurn};
pub use fault::{ConnectionFault, hint, is_about_tenant};
pub use in_rotation::{hint_in_rotation, may_be_by_secret};
pub use personal_token::{token_end, token_names_another};
pub use probe::{
    HARMLESS_DATA_ROUTE, HARMLESS_ROUTE, INSTALLATION_ROUTE, Probe, ProbeError, ProbeResponse,
    STATIC_FILE,
};
pub use redirect::RedirectTarget;
pub use routes::ROUTES;
pub use urls::{api_base, embed_url, token_url};
pub use user_source::UserSource;

#[cfg(test)]
mod test_support {
    //! A server and a tenant for the unit tests of this module.

    use std::sync::Arc;

    use crate::secret::Secret;
    use crate::tenant::{Credential, Server, Tenant, samples};

    pub(super) fn server(tls: bool, host: &str, port: u16) -> Server {
        Server { tls, host: host.into(), port, ..samples::server() }
    }

    pub(super) fn tenant_on(server: Server, site: Option<&str>) -> Tenant {
        let secret = Secret::new("test-embed-secret-for-vectors-00".into());
        Tenant {
            api_base: super::api_base(&server, site).into(),
            credential: Credential { secret: Some(secret), ..samples::credential() },
            ..samples::tenant(0, "acme", Arc::new(server))
        }
    }
}
