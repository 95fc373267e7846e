use proptest::prelude::*;

use super::*;
use crate::request::RawHead;

fn server() -> Arc<Server> {
    let host = "bi.example.com".into();
    Arc::new(Server { tls: true, host, port: 443, ..samples::server() })
}

fn tenant(index: usize, name: &str, site: Option<&str>, hosts: &[&str]) -> Tenant {
    Tenant {
        api_base: site.map_or("/bi/api".into(), |site| format!("/bi/api/site/{site}").into()),
        hosts: hosts.iter().map(|&host| host.into()).collect(),
        ..samples::tenant(index, name, server())
    }
}

fn tenants() -> Tenants {
    Tenants::new(vec![
        tenant(0, "alpha", Some("alpha"), &[]),
        tenant(1, "beta", Some("beta"), &[]),
        tenant(2, "cloud", None, &["cloud.example.com"]),
        tenant(3, "hosted", Some("site9"), &["hosted.example.com", "alias.example.com"]),
    ])
    .unwrap()
}

fn resolved(tenants: &Tenants, host: &str, path: &str) -> Option<String> {
    let raw = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let raw = RawHead::read(raw.as_bytes()).unwrap();
    let head = RequestHead::parse(&raw).unwrap();
    tenants.resolve(&head).ok().map(|tenant| tenant.name.to_string())
}

#[test]
fn a_tenant_is_found_by_the_site_in_its_path_or_by_its_host() {
    let tenants = tenants();
    for (host, path, expected) in [
        ("gw", "/bi/api/site/alpha/v5.0/items", Some("alpha")),
        ("gw", "/bi/api/site/beta/x", Some("beta")),
        ("gw", "/bi/api/site/beta/", Some("beta")),
        // The vendor's ingress takes letters of any case in front of the site.
        ("gw", "/BI/API/SITE/alpha/x", Some("alpha")),
        ("gw", "/bi/api/Site/alpha/x", Some("alpha")),
        ("hosted.example.com", "/BI/api/site/site9/x", Some("hosted")),
        ("cloud.example.com", "/Bi/Api/v5.0/items", Some("cloud")),
        ("cloud.example.com", "/bi/api/v5.0/items", Some("cloud")),
        ("Cloud.Example.Com:8443", "/bi/api/v5.0/items", Some("cloud")),
        ("hosted.example.com", "/bi/api/site/site9/v5.0/items", Some("hosted")),
        ("alias.example.com", "/bi/api/site/site9/x", Some("hosted")),
    ] {
        assert_eq!(resolved(&tenants, host, path).as_deref(), expected, "{host} {path}");
    }
}

#[test]
fn a_request_that_names_no_tenant_or_two_finds_none() {
    let tenants = tenants();
    for (host, path) in [
        ("gw", "/"),
        ("gw", "/bi/api/site/alpha"),
        ("gw", "/bi/api/site/alphabet/x"),
        ("gw", "/bi/api/site/nowhere/x"),
        ("gw", "/bi/api/site//x".trim_end_matches("/x")),
        ("gw", "/bi/api/site/Alpha/x"),
        ("gw", "/BI/API/SITE/ALPHA/x"),
        ("gw", "/b%49/api/site/alpha/x"),
        ("gw", "/bi/api/%73ite/alpha/x"),
        ("gw", "/bi/api/site/%61lpha/x"),
        ("gw", "/bi/api/v5.0/items"),
        ("gw", "/ums/x"),
        // By its host only, so that no other host reaches it.
        ("gw", "/bi/api/site/site9/x"),
        // The host says one tenant, the path another.
        ("hosted.example.com", "/bi/api/site/alpha/x"),
        ("hosted.example.com", "/bi/api/v5.0/items"),
        ("cloud.example.com", "/bi/api/site/alpha/x"),
        ("cloud.example.com", "/bi/api/SITE/alpha/x"),
        ("cloud.example.com", "/BI/API/SITE/alpha/x"),
        ("cloud.example.com", "/bi/x"),
        ("cloud.example.com", "/bi/apis/x"),
    ] {
        assert_eq!(resolved(&tenants, host, path), None, "{host} {path}");
    }
}

#[test]
fn where_servers_differ_by_the_case_of_their_paths_only_the_exact_spelling_finds_a_tenant() {
    let at = |index, name: &str, base: &str, site: Option<&str>| Tenant {
        server: Arc::new(Server { base_path: base.into(), ..samples::server() }),
        api_base: site
            .map_or(format!("{base}/api"), |site| format!("{base}/api/site/{site}"))
            .into(),
        ..tenant(index, name, site, &[])
    };
    let tenants = Tenants::new(vec![
        at(0, "lower", "/bi", Some("x")),
        at(1, "upper", "/BI", Some("x")),
        at(2, "other", "/BI", Some("y")),
        at(3, "ums", "", None),
    ])
    .unwrap();
    for (path, expected) in [
        ("/bi/api/site/x/v", Some("lower")),
        ("/BI/api/site/x/v", Some("upper")),
        ("/Bi/api/site/x/v", None),
        ("/bi/api/site/y/v", Some("other")),
        ("/API/v2.0/users", Some("ums")),
    ] {
        assert_eq!(resolved(&tenants, "gw", path).as_deref(), expected, "{path}");
    }
}

#[test]
fn two_tenants_that_the_same_request_would_mean_are_a_conflict() {
    let by_site = Tenants::new(vec![
        tenant(0, "one", Some("site1"), &[]),
        tenant(1, "two", Some("site1"), &[]),
    ])
    .unwrap_err();
    assert_eq!((by_site.first.as_str(), by_site.second.as_str()), ("one", "two"));
    let by_host =
        Tenants::new(vec![tenant(0, "one", None, &["h"]), tenant(1, "two", Some("x"), &["h"])]);
    assert!(by_host.unwrap_err().shared.contains("`h`"));
    let apart =
        Tenants::new(vec![tenant(0, "one", Some("x"), &["h"]), tenant(1, "two", Some("x"), &[])]);
    assert!(apart.is_ok(), "a tenant with hosts is not found by its site alone");
}

#[test]
fn names_are_checked_and_origins_have_their_usual_form() {
    for good in ["a", "0", "Acme-1_x.y", &"a".repeat(63)] {
        assert!(TenantName::parse(good).is_some(), "{good}");
    }
    for bad in ["", "-a", ".a", "a b", "a/b", "é", &"a".repeat(64)] {
        assert!(TenantName::parse(bad).is_none(), "{bad}");
    }
    let mut server = Server::clone(&server());
    assert_eq!(server.origin(), "https://bi.example.com");
    (server.host, server.port, server.tls) = ("::1".into(), 8080, false);
    assert_eq!(server.origin(), "http://[::1]:8080");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5_000, ..ProptestConfig::default() })]

    /// The path is below the API base of the resolved tenant, byte for byte but for the case of
    /// letters in front of the site.
    #[test]
    fn a_resolved_path_is_below_the_base_of_its_tenant(
        host in "(gw|cloud\\.example\\.com|hosted\\.example\\.com|HOSTED\\.example\\.com)",
        path in "/(bi|BI)/(api|API)/(site|Site|v5\\.0)/(alpha|beta|site9|ALPHA|%61lpha)(/[a-z]{0,3}){0,3}"
    ) {
        if path.contains("//") {
            return Ok(());
        }
        let tenants = tenants();
        if let Some(name) = resolved(&tenants, &host, &path) {
            let tenant = tenants.iter().find(|tenant| tenant.name.as_str() == name).unwrap();
            let base = format!("{}/", tenant.api_base);
            prop_assert!(path.to_ascii_lowercase().starts_with(&base));
            let site = tenant.site().iter().all(|site| path.contains(&format!("/{site}/")));
            prop_assert!(site, "the site is exact");
        }
    }
}
