//! The URLs of Bold BI's API. Pure.

use crate::tenant::{Server, Tenant};

/// The path above all API routes of a site: `/bi/api/site/site1`, or `/bi/api` on Cloud and on
/// self-hosted sites with their own host name. `site` must be one path segment as it is written in
/// a URL. (Bold BI: "REST API v5.0", introduction.)
pub fn api_base(server: &Server, site: Option<&str>) -> String {
    match site {
        Some(site) => format!("{}/api/site/{site}", server.base_path),
        None => format!("{}/api", server.base_path),
    }
}

/// The URL of the token endpoint, which has no version and serves v1.0 to v6.0. (Bold BI: "REST
/// API", server API reference; Cloud: knowledge base 17540.)
pub fn token_url(tenant: &Tenant) -> String {
    format!("{}{}/token", tenant.server.origin(), tenant.api_base)
}

/// The URL that gives embed tokens. (Bold BI: "Token generation" of the embed SDK.)
pub fn embed_url(tenant: &Tenant) -> String {
    format!("{}{}/embed/authorize", tenant.server.origin(), tenant.api_base)
}

#[cfg(test)]
mod tests {
    use crate::boldbi::test_support::{server, tenant_on};

    #[test]
    fn t15_token_urls() {
        let cases = [
            (("https", "h", 443), Some("site1"), "https://h/bi/api/site/site1/token"),
            (("https", "acme.boldbi.com", 443), None, "https://acme.boldbi.com/bi/api/token"),
            (("http", "h", 5000), Some("Tenant-A"), "http://h:5000/bi/api/site/Tenant-A/token"),
            (("https", "::1", 8443), Some("s"), "https://[::1]:8443/bi/api/site/s/token"),
        ];
        for ((scheme, host, port), site, expected) in cases {
            let tenant = tenant_on(server(scheme == "https", host, port), site);
            assert_eq!(super::token_url(&tenant), expected);
        }
    }

    /// An installation (UMS) is a server without `/bi`, and a tenant without a site.
    #[test]
    fn an_installation_has_its_token_below_its_own_path() {
        let service = "id-api-service.bold-services.svc.cluster.local";
        for (is_https, host, port, path, expected) in [
            (true, "bi.example.com", 443, "", "https://bi.example.com/api/token"),
            (
                true,
                "bi.example.com",
                443,
                "/boldservices",
                "https://bi.example.com/boldservices/api/token",
            ),
            (false, service, 6001, "", &format!("http://{service}:6001/api/token")),
        ] {
            let mut server = server(is_https, host, port);
            server.base_path = path.to_owned();
            let tenant = tenant_on(server, None);
            assert_eq!(super::token_url(&tenant), expected);
            assert_eq!(&*tenant.api_base, format!("{path}/api"));
        }
    }

    #[test]
    fn a_server_may_live_at_the_root() {
        let mut at_root = server(true, "h", 443);
        at_root.base_path = String::new();
        assert_eq!(super::api_base(&at_root, Some("site1")), "/api/site/site1");
        assert_eq!(super::api_base(&at_root, None), "/api");
    }
}
