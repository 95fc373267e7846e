use std::collections::HashSet;
use std::time::Duration;

use futures_util::FutureExt;
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Version};

use super::*;
use crate::caller::{Admits, ApiKey, CallerAuth, Origin};
use crate::request::RequestHead;
use crate::secret::Secret;
use crate::tenant::{
    Credential, ExchangeBody, ExistingAuthorization, Grant, Server, TenantName, Timeouts,
};

fn tenant(index: usize, name: &str, username: &str, version: u64) -> Tenant {
    let second = Duration::from_secs(1);
    Tenant {
        name: TenantName::parse(name).unwrap(),
        index,
        server: Arc::new(Server {
            name: "main".into(),
            tls: false,
            host: "localhost".into(),
            port: 80,
            base_path: "/bi".into(),
            addresses: Vec::new(),
            ca_file: None,
            ca_digest: None,
            health_check: None,
            timeouts: Timeouts::all(second),
            max_connections: 1,
        }),
        api_base: format!("/bi/api/site/{name}"),
        site: Some(name.into()),
        hosts: Vec::new(),
        credential: Credential {
            grant: Grant::EmbedSecret,
            username: username.into(),
            secret: Secret::new("s".into()),
            body: ExchangeBody::Form,
            version,
        },
        existing_authorization: ExistingAuthorization::default(),
        max_token_lifetime: second,
        max_concurrent_requests: None,
    }
}

fn tenants() -> Tenants {
    Tenants::new(vec![tenant(0, "alpha", "a@x", 1), tenant(1, "beta", "b@x", 1)]).unwrap()
}

/// The class is the route's first segment, so that a table can name it.
fn by_name(_: &Method, route: &str) -> RouteClass {
    *RouteClass::ALL.iter().find(|class| route == format!("/{}", class.as_str())).unwrap()
}

/// Only authentication makes callers, in tests as elsewhere.
fn caller(named: Option<&str>) -> Caller {
    let key = ApiKey::generate().unwrap();
    let keys = named.map(|name| (key.hash(), CallerName::new(name)));
    let auth = CallerAuth::new(keys, HeaderName::from_static("x-api-key"), Vec::new());
    let mut headers = HeaderMap::new();
    headers.insert("host", HeaderValue::from_static("gw"));
    headers.insert("x-api-key", HeaderValue::from_str(key.expose()).unwrap());
    let raw = "GET / HTTP/1.1\r\nHost: gw\r\n\r\n".into();
    let head = RequestHead::parse(&raw, &Method::GET, Version::HTTP_11, &headers).unwrap();
    let admits = if named.is_some() { Admits::Known } else { Admits::Anonymous };
    let origin = Origin { admits, address: None };
    let authenticated = auth.authenticate(&origin, &head);
    authenticated.now_or_never().expect("a key is found without waiting").unwrap()
}

fn policy(tenants: &Tenants) -> Policy {
    let rule =
        |tenant, classes: &[RouteClass]| Rule { tenant, routes: classes.iter().copied().collect() };
    let rules = HashMap::from([
        (
            CallerName::new("reader"),
            vec![rule(0, &[RouteClass::Read]), rule(0, &[RouteClass::Export])],
        ),
        (CallerName::new("rotator"), vec![rule(1, &RouteClass::ALL)]),
        (CallerName::new("nobody"), Vec::new()),
    ]);
    Policy::new(tenants, by_name, rules)
}

#[test]
fn every_caller_has_exactly_the_classes_that_its_rules_name() {
    let tenants = tenants();
    let policy = policy(&tenants);
    let open = |named: Option<&str>, index: usize| -> Vec<&str> {
        let tenant = tenants.iter().nth(index).unwrap();
        let caller = caller(named);
        let may = |class: &RouteClass| {
            let route = format!("/{}", class.as_str());
            policy.permit(&caller, tenant, &Method::GET, &route).is_ok()
        };
        RouteClass::ALL.iter().filter(|class| may(class)).map(|class| class.as_str()).collect()
    };
    assert_eq!(open(Some("reader"), 0), ["read", "export"]);
    assert_eq!(open(Some("reader"), 1), [""; 0]);
    assert_eq!(open(Some("rotator"), 0), [""; 0]);
    assert_eq!(open(Some("rotator"), 1), ["read", "export", "write", "admin", "credentials"]);
    assert_eq!(open(Some("nobody"), 0), [""; 0]);
    assert_eq!(open(Some("unheard-of"), 0), [""; 0]);
    assert_eq!(open(None, 0), ["read", "export", "write", "admin"]);
    assert_eq!(open(None, 1), ["read", "export", "write", "admin"]);
}

#[test]
fn a_refusal_says_whether_tenant_or_route_is_closed() {
    let tenants = tenants();
    let policy = policy(&tenants);
    let refused = |named, index, route| {
        let tenant = tenants.iter().nth(index).unwrap();
        policy.permit(&caller(named), tenant, &Method::GET, route).unwrap_err()
    };
    assert_eq!(refused(Some("reader"), 1, "/read"), Forbidden::Tenant);
    assert_eq!(refused(Some("reader"), 0, "/write"), Forbidden::Route(RouteClass::Write));
    assert_eq!(refused(None, 0, "/credentials"), Forbidden::Route(RouteClass::Credentials));
}

#[test]
fn permits_are_equal_only_for_the_same_tenant_subject_and_credential() {
    let permit = |name, username, version| {
        let tenant = tenant(0, name, username, version);
        let tenants = Tenants::new(vec![tenant]).unwrap();
        let policy = Policy::new(&tenants, by_name, HashMap::new());
        policy.operator_permit(tenants.iter().next().unwrap()).clone()
    };
    let one = permit("alpha", "a@x", 1);
    assert_eq!(one, permit("alpha", "a@x", 1));
    assert_eq!(one.subject().as_str(), "a@x");
    assert_eq!(one.tenant().name.as_str(), "alpha");
    let others = [permit("beta", "a@x", 1), permit("alpha", "b@x", 1), permit("alpha", "a@x", 2)];
    for other in &others {
        assert_ne!(&one, other);
    }
    let distinct: HashSet<_> = others.into_iter().chain([one, permit("alpha", "a@x", 1)]).collect();
    assert_eq!(distinct.len(), 4);
}
